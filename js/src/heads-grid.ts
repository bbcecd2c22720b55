// All heads at a glance: small patterns on one canvas, layers down and heads across, or in the
// order of a score. Click locks, double-click solos, arrows move.
//
// Classes: .pc-heads (position: relative, focusable) > canvas.pc-heads-cells, canvas.pc-heads-over
import type { Theme } from "./colour";
import type { HeatScale } from "./heat-bar";
import type { GridPart } from "./messages";
import type { Coding } from "./tiles";
import type { Unpacked } from "./transport";

export interface HeadAddress {
  layer: number;
  head: number;
}

/** The small patterns of one layer. */
export interface Thumbs {
  /** [head, n, n], in `coding`. */
  codes: Uint8Array;
  n: number;
  coding: Coding;
  /** Of each head. */
  peaks: Float32Array;
  /** A pixel stands for `block` x `block` cells. */
  block: number;
  /** Of a pattern that was: drawn at 60 %. */
  stale: boolean;
}

export interface HeadsPicture {
  layers: number;
  heads: number;
  /** By layer; absent ones are blank. */
  thumbs: ReadonlyMap<number, Thumbs>;
  /** In this order, one after the other; null for layers x heads. */
  order: readonly HeadAddress[] | null;
  selected: HeadAddress | null;
  /** Heads that an intervention of the stack touches: marked with a corner. */
  touched: readonly HeadAddress[];
  scale: HeatScale;
  /** What is said of a head under the pointer beside its address: "induction 0.92". */
  note(head: HeadAddress): string;
}

export interface HeadsActions {
  hover(head: HeadAddress | null, by: "pointer" | "keys"): void;
  lock(head: HeadAddress): void;
  solo(head: HeadAddress): void;
}

export interface HeadsGrid {
  element: HTMLElement;
  update(picture: HeadsPicture): void;
  paint(theme: Theme): void;
}

/** A part of the grid as the thumbs of its layers; `length` is the number of heads in a layer. */
export declare function thumbsOf(
  part: Unpacked<GridPart>,
  heads: number,
  stale: boolean,
): [layer: number, thumbs: Thumbs][];

/** The largest absolute value in all small patterns: the end of their common scale. */
export declare function thumbsPeak(thumbs: ReadonlyMap<number, Thumbs>): number;

export declare function headsGrid(signal: AbortSignal, actions: HeadsActions): HeadsGrid;
