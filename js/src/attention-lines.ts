// Attention as lines between two columns of the same tokens: destinations on the left, the sources
// they read on the right. All lines of a short prompt; of a long one those of one token.
//
// Classes: .pc-lines > p.pc-muted (which lines these are) + .pc-lines-scroll (scrolls) >
//   .pc-lines-space > canvas.pc-lines-canvas, .pc-lines-token[data-side][data-position]
import type { Theme } from "./colour";
import type { HeatScale } from "./heat-bar";
import type { PromptToken } from "./messages";
import type { PatternCells } from "./tiles";

/** Prompts of at most this many tokens show the lines of all of them. */
export const ALL_LINES = 64;

export interface LinesToken {
  side: "destination" | "source";
  position: number;
}

export interface LinesPicture {
  tokens: readonly PromptToken[];
  cells: PatternCells | null;
  scale: HeatScale;
  locked: LinesToken | null;
}

export interface LinesActions {
  hover(token: LinesToken | null, by: "pointer" | "keys"): void;
  lock(token: LinesToken | null): void;
}

export interface AttentionLines {
  element: HTMLElement;
  update(picture: LinesPicture): void;
  paint(theme: Theme): void;
  /** A token to single out, from elsewhere. */
  point(token: LinesToken | null): void;
}

export declare function attentionLines(signal: AbortSignal, actions: LinesActions): AttentionLines;
