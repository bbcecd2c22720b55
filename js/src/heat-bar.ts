// The colour bar of a heat map, and the one way from a value to its colour.
//
// Classes: .pc-heat-bar > .pc-word (what the numbers are), .pc-number (the ends),
//   .pc-heat-scale > canvas.pc-bar + .pc-heat-zero, button.pc-heat-gamma
import { drawBar, onResize } from "./canvas";
import { blues, LIGHT, type Rgb, redBlue, type Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { exact, short } from "./format";
import { type Coding, codeTable } from "./tiles";

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

/** The colour of a value on a scale; what is not a number has none and must be marked otherwise. */
export function heatColour(value: number, scale: HeatScale, theme: Theme): Rgb {
  const share = scale.peak > 0 ? value / scale.peak : 0;
  const raised = scale.gamma === 1 ? share : Math.sign(share) * Math.sqrt(Math.abs(share));
  return scale.signed ? redBlue(raised, theme) : blues(raised, theme);
}

/** A pixel as a canvas keeps it, on machines that keep the smallest byte first: all of them. */
export function pixelOf([red, green, blue]: Rgb): number {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** The pixels of the 256 codes; what is not a number is transparent. */
export function codePixels(
  coding: Coding,
  peak: number,
  scale: HeatScale,
  theme: Theme,
): Uint32Array<ArrayBuffer> {
  return Uint32Array.from(codeTable(coding), (value) =>
    Number.isNaN(value) ? 0 : pixelOf(heatColour(value * peak, scale, theme)),
  );
}

/** A colour between two. */
export function mix(from: Rgb, to: Rgb, share: number): Rgb {
  const part = (i: 0 | 1 | 2) => Math.round(from[i] + (to[i] - from[i]) * share);
  return [part(0), part(1), part(2)];
}

/** `onGamma` is asked for the other gamma when its button is pressed. */
export function heatBar(
  signal: AbortSignal,
  onGamma: (gamma: HeatScale["gamma"]) => void,
): HeatBar {
  const word = h("span", { class: "pc-word" });
  const low = h("span", { class: "pc-number" });
  const canvas = h("canvas", { class: "pc-bar", "aria-hidden": "true" });
  const zero = h("span", { class: "pc-number pc-heat-zero" }, "0");
  const high = h("span", { class: "pc-number" });
  const root = button(
    "√ colours",
    { class: "pc-button pc-quiet pc-heat-gamma", "aria-pressed": "false" },
    () => onGamma(scale.gamma === 1 ? 0.5 : 1),
    signal,
  );
  set(root, { title: "Colours by the square root of the value, so that small values show" });
  const element = h(
    "div",
    { class: "pc-heat-bar" },
    word,
    low,
    h("span", { class: "pc-heat-scale" }, canvas, zero),
    high,
    root,
  );
  let scale: HeatScale = { signed: false, peak: 1, gamma: 1 };
  let theme = LIGHT;

  const draw = () => {
    const { peak, signed } = scale;
    const from = signed ? -peak : 0;
    drawBar(canvas, (share) => heatColour(from + share * (peak - from), scale, theme));
  };
  onResize(canvas, draw, signal);

  return {
    element,
    update(next, what) {
      scale = next;
      say(word, what);
      say(low, scale.signed ? short(-scale.peak) : "0");
      say(high, short(scale.peak));
      set(low, { title: exact(scale.signed ? -scale.peak : 0) });
      set(high, { title: exact(scale.peak) });
      // On a signed bar zero is in its middle, where the bar has the background's colour.
      set(zero, { hidden: !scale.signed });
      set(root, { "aria-pressed": scale.gamma === 1 ? "false" : "true" });
      draw();
    },
    paint(next) {
      theme = next;
      draw();
    },
  };
}
