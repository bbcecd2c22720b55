// The colour bar of a heat map, and the one way from a value to its colour.
// Classes: pc-heat-bar (row) > pc-title?, pc-number (ends), canvas.pc-bar, button.pc-quiet.
import type { Rgb, Theme } from "./colour";

export interface HeatScale {
  /** Red below zero, blue above; otherwise Blues from zero. */
  signed: boolean;
  /** The value at the end of the scale. */
  peak: number;
  /** 0.5 takes the square root, so that small values show. */
  gamma: 1 | 0.5;
}

export interface HeatBar {
  element: HTMLElement;
  /** `what` says what the numbers are: "attention weight", "logits". */
  update(scale: HeatScale, what: string): void;
  paint(theme: Theme): void;
}

/** The colour of a value on a scale; NaN has none and is drawn as a hatch. */
export declare function heatColour(value: number, scale: HeatScale, theme: Theme): Rgb;

/** `onGamma` is asked for the other gamma when its button is pressed. */
export declare function heatBar(
  signal: AbortSignal,
  onGamma: (gamma: HeatScale["gamma"]) => void,
): HeatBar;
