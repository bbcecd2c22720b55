// What stands for what on the axis and in the plot of prompts: a colour and a shape each, so that
// neither alone has to tell. The corpus is a baseline, and grey.
import { css, type Rgb, type Theme } from "./colour";
import { s } from "./dom";
import { mix } from "./heat-bar";

export type Kind = "epo" | "greedy" | "single" | "corpus" | "own" | "optimised";

export const WORD: Record<Kind, string> = {
  epo: "EPO",
  greedy: "greedy",
  single: "single token",
  corpus: "corpus",
  own: "your own",
  optimised: "optimised",
};

/** Okabe-Ito. */
const COLOURS: Record<Exclude<Kind, "corpus">, readonly [light: Rgb, dark: Rgb]> = {
  epo: [
    [0, 114, 178],
    [86, 180, 233],
  ],
  optimised: [
    [0, 114, 178],
    [86, 180, 233],
  ],
  greedy: [
    [188, 84, 0],
    [230, 159, 0],
  ],
  single: [
    [0, 128, 94],
    [0, 190, 140],
  ],
  own: [
    [166, 72, 125],
    [220, 150, 190],
  ],
};

export function markColour(kind: Kind, theme: Theme): string {
  if (kind === "corpus") return css(mix(theme.background, theme.ink, theme.dark ? 0.6 : 0.55));
  return css(COLOURS[kind][theme.dark ? 1 : 0]);
}

/** A shape around a point, `size` its half width. Hollow ones are not on their front. */
export function mark(
  kind: Kind,
  x: number,
  y: number,
  size: number,
  theme: Theme,
  filled = true,
): SVGElement {
  const colour = markColour(kind, theme);
  const look = {
    fill: filled ? colour : css(theme.background),
    stroke: filled ? css(theme.background) : colour,
    "stroke-width": filled ? 1 : 1.5,
  };
  const r = size;
  switch (kind) {
    case "epo":
    case "optimised":
      return s("circle", { cx: round(x), cy: round(y), r, ...look });
    case "greedy":
      return s("rect", {
        x: round(x - 0.9 * r),
        y: round(y - 0.9 * r),
        width: 1.8 * r,
        height: 1.8 * r,
        ...look,
      });
    case "single":
      return path(`M${round(x)} ${round(y - 1.15 * r)}l${1.1 * r} ${2 * r}h${-2.2 * r}z`);
    case "own":
      return path(`M${round(x)} ${round(y + 1.15 * r)}l${1.1 * r} ${-2 * r}h${-2.2 * r}z`);
    case "corpus":
      return path(
        `M${round(x)} ${round(y - 1.3 * r)}l${1.3 * r} ${1.3 * r}l${-1.3 * r} ${1.3 * r}l${-1.3 * r} ${-1.3 * r}z`,
      );
  }
  function path(d: string): SVGElement {
    return s("path", { d, ...look });
  }
}

/** A legend's item: the shape, and what it is. */
export function markItem(kind: Kind, words: string, theme: Theme, filled = true): HTMLElement {
  const item = document.createElement("span");
  item.className = "pc-key-item";
  const drawn = s("svg", { viewBox: "0 0 12 12", class: "pc-mark", "aria-hidden": "true" });
  drawn.append(mark(kind, 6, 6, 4, theme, filled));
  item.append(drawn, words);
  return item;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
