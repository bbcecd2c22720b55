// One head's pattern, large: exact cells, never fewer than there are. It scrolls and zooms inside
// its own box and paints what is seen only; a pointer that moves repaints the overlay alone.
//
// Classes: .pc-pattern > .pc-pattern-tools (zoom buttons) + .pc-pattern-box >
//   canvas.pc-pattern-cells, canvas.pc-pattern-over, .pc-pattern-scroll > .pc-pattern-space
import type { Theme } from "./colour";
import type { HeatScale } from "./heat-bar";
import type { PromptToken } from "./messages";
import type { Area, Cell, PatternCells, Place, Span } from "./tiles";

/** Sizes of a cell, in pixels. */
export const ZOOMS = [2, 3, 4, 6, 8, 12, 16, 20, 24] as const;

export interface Outline {
  /** Null for all. */
  destinations: Span | null;
  sources: Span | null;
  /** Drawn dashed. */
  muted: boolean;
}

export interface PatternPicture {
  /** Of rows and of columns. */
  tokens: readonly PromptToken[];
  /** Null before a head is locked. */
  cells: PatternCells | null;
  /** What is shown at 60 % where `cells` has no tile yet: the pattern that was. */
  stale: PatternCells | null;
  scale: HeatScale;
  outlines: readonly Outline[];
  locked: Cell | null;
  /** A drag selects cells (knock-out mode), instead of a click locking one. */
  brush: boolean;
}

export interface PatternActions {
  /** Called after the overlay is painted. */
  hover(cell: Cell | null, by: "pointer" | "keys"): void;
  lock(cell: Cell | null): void;
  /** Cells were brushed, or one was clicked in knock-out mode. */
  brush(area: Area): void;
  /**
   * Visible tiles are not there: at most 64, nearest to the middle first. Called after every paint
   * that misses some; who asks the kernel knows which are on their way.
   */
  missing(tiles: Place[]): void;
}

export interface Pattern {
  element: HTMLElement;
  update(picture: PatternPicture): void;
  paint(theme: Theme): void;
  /** A cell to show the crosshair at, from elsewhere (the token strip); null takes it away. */
  point(cell: Partial<Cell> | null): void;
  /** Scrolls so that the cell is seen. */
  show(cell: Cell): void;
  /** The cells that are seen now, at least in part. */
  visible(): Area;
  /** The size of a cell now, in pixels. */
  zoom(): number;
  setZoom(cell: number | "fit"): void;
}

/** A token as a label: pieces, of which the marks (a space, a newline) are drawn faintly. */
export interface LabelPiece {
  text: string;
  mark: boolean;
}
export declare function labelOf(token: PromptToken): LabelPiece[];

/** The largest zoom at which everything fits, at least 6; the box scrolls where that is too big. */
export declare function fittingZoom(length: number, width: number, height: number): number;

/** Every how many positions there is a tick, where labels do not fit. */
export declare function tickStep(cell: number, labelWidth: number): number;

export declare function pattern(signal: AbortSignal, actions: PatternActions): Pattern;
