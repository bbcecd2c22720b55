// How much of the metric a circuit keeps, against its size: faithfulness of the circuit by itself,
// completeness (what the model keeps without it), and random circuits of the same sizes. It shares
// its axis with the slider over it.
import { css, type Theme } from "./colour";
import { lineColours } from "./curve";
import { s, set } from "./dom";
import { mix } from "./heat-bar";
import type { Faithful } from "./messages";
import type { Unpacked } from "./transport";

export interface PlotPicture {
  /** The largest size. */
  total: number;
  curve: Unpacked<Faithful> | null;
  stale: boolean;
  /** Of the circuit now. */
  size: number;
  /** Exact, of the circuit now; null while it is not measured. */
  checked: { faithfulness: number | null; completeness: number | null } | null;
  /** In CSS pixels, and how many of them are one at the normal type size. */
  width: number;
  unit: number;
}

/** At the normal type size: where the axis begins and ends, and how high the plot is. */
export const PLOT = { left: 34, right: 8, top: 8, height: 128, below: 30 } as const;

/** Where a size lies on the axis, from 0 to 1. */
export function shareOf(size: number, total: number): number {
  return total > 1 ? Math.log(Math.max(1, size)) / Math.log(total) : 1;
}

/** The size at a place of the axis. */
export function sizeAt(share: number, total: number): number {
  return Math.round(total ** Math.min(1, Math.max(0, share)));
}

/** What the curve says of a size that it was not measured at; null outside of it. */
export function readAt(sizes: Float32Array, values: Float32Array, size: number): number | null {
  let before = -1;
  for (let i = 0; i < sizes.length; i++) {
    const at = sizes[i] ?? 0;
    if (Number.isNaN(values[i] ?? Number.NaN)) continue;
    if (at === size) return values[i] ?? null;
    if (at > size) {
      if (before < 0) return null;
      const from = Math.log(Math.max(1, sizes[before] ?? 1));
      const share = (Math.log(Math.max(1, size)) - from) / (Math.log(at) - from);
      const low = values[before] ?? 0;
      return low + share * ((values[i] ?? 0) - low);
    }
    before = i;
  }
  return null;
}

let plots = 0;

export function faithfulnessPlot(): {
  element: SVGSVGElement;
  draw(picture: PlotPicture, theme: Theme): void;
} {
  plots += 1;
  const hatch = `pc-random-${plots}-${Math.floor(Math.random() * 1e9)}`;
  const element = s("svg", { class: "pc-plot", "aria-hidden": "true" });

  return {
    element,
    draw(picture, theme) {
      const { total, curve, width, unit } = picture;
      const height = (PLOT.top + PLOT.height + PLOT.below) * unit;
      const [left, right] = [PLOT.left * unit, width - PLOT.right * unit];
      const bottom = (PLOT.top + PLOT.height) * unit;
      set(element, { width, height, viewBox: `0 0 ${width} ${height}` });
      if (right <= left) return;
      const all = curve === null ? [] : [curve.faithfulness, curve.completeness, curve.random_high];
      const known = all.flatMap((each) => [...each]).filter(Number.isFinite);
      const now = [picture.checked?.faithfulness, picture.checked?.completeness].filter(
        (each) => each !== null && each !== undefined,
      );
      // What is far out of the ordinary must not press everything else flat.
      const least = Math.max(-1, Math.min(-0.1, ...known, ...now));
      const most = Math.min(2, Math.max(1.1, ...known, ...now));
      const x = (size: number) => left + shareOf(size, total) * (right - left);
      const y = (value: number) => {
        const share = (Math.min(most, Math.max(least, value)) - least) / (most - least);
        return bottom - share * PLOT.height * unit;
      };
      const ink = (share: number) => css(mix(theme.background, theme.ink, share));
      const colours = lineColours(theme);
      const word = (text: string, at: number, down: number, anchor: string) =>
        s(
          "text",
          { x: at, y: down, "text-anchor": anchor, fill: ink(0.68), "font-size": 10 * unit },
          text,
        );

      const grid = [0, 1].flatMap((value) => [
        s("path", { d: `M${left} ${y(value)}H${right}`, stroke: ink(0.3), "stroke-width": 1 }),
        word(value === 1 ? "1" : "0", left - 6 * unit, y(value) + 3.5 * unit, "end"),
      ]);
      const ticks = decades(total).flatMap((size) => [
        s("path", {
          d: `M${x(size)} ${bottom}v${4 * unit}`,
          stroke: ink(0.5),
          "stroke-width": 1,
        }),
        word(size.toLocaleString("en-US"), x(size), bottom + 26 * unit, endOf(size, total)),
      ]);
      const lines: SVGElement[] = [];
      if (curve !== null) {
        const band = points(curve, (i) => curve.random_low[i]);
        const back = points(curve, (i) => curve.random_high[i]).reverse();
        const place = ([size, value]: [number, number]) => `${round(x(size))} ${round(y(value))}`;
        const path = (each: [number, number][]) =>
          each.length === 0 ? "" : `M${each.map(place).join("L")}`;
        if (band.length > 1) {
          lines.push(
            s("path", {
              d: `M${[...band, ...back].map(place).join("L")}Z`,
              fill: `url(#${hatch})`,
              stroke: ink(0.4),
              "stroke-width": 0.5,
            }),
          );
        }
        const line = (values: Float32Array, stroke: string, wide: number, dash: string | null) => {
          const each = points(curve, (i) => values[i]);
          lines.push(
            s("path", {
              d: path(each),
              fill: "none",
              stroke,
              "stroke-width": wide * unit,
              "stroke-dasharray": dash,
              "stroke-linejoin": "round",
            }),
            // A single point has no line.
            ...(each.length === 1
              ? [dot(x(each[0]?.[0] ?? 1), y(each[0]?.[1] ?? 0), 2 * unit, stroke)]
              : []),
          );
        };
        line(curve.random_median, ink(0.55), 1, null);
        const dash = `${4 * unit} ${3 * unit}`;
        line(curve.completeness, css(colours.kl), 1.5, dash);
        line(curve.faithfulness, css(colours.logprob), 2, null);
      }
      const at = x(picture.size);
      const marks = [
        s("path", {
          d: `M${round(at)} ${PLOT.top * unit}V${bottom}`,
          stroke: css(theme.ink),
          "stroke-width": 1,
          class: "pc-plot-now",
        }),
      ];
      const spots: SVGElement[] = [];
      const { faithfulness = null, completeness = null } = picture.checked ?? {};
      if (completeness !== null) {
        spots.push(dot(at, y(completeness), 3.5 * unit, css(colours.kl)));
      }
      if (faithfulness !== null) {
        spots.push(dot(at, y(faithfulness), 4.5 * unit, css(colours.logprob)));
      }
      const fill = s(
        "pattern",
        { id: hatch, width: 5, height: 5, patternUnits: "userSpaceOnUse" },
        s("path", { d: "M0 5L5 0M-1 1L1 -1M4 6L6 4", stroke: ink(0.5), "stroke-width": 1 }),
      );
      element.replaceChildren(
        s("defs", {}, fill),
        ...grid,
        s("path", { d: `M${left} ${bottom}H${right}`, stroke: ink(0.5), "stroke-width": 1 }),
        ...ticks,
        s("g", { opacity: picture.stale ? 0.6 : 1, class: "pc-plot-lines" }, ...lines),
        ...marks,
        ...spots,
      );
      for (const spot of spots) {
        set(spot, {
          stroke: css(theme.background),
          "stroke-width": 1.5 * unit,
          class: "pc-plot-spot",
        });
      }
    },
  };

  function dot(cx: number, cy: number, r: number, fill: string): SVGElement {
    return s("circle", { cx: round(cx), cy: round(cy), r, fill });
  }
}

/** Sizes and values, without those that are not measured yet. */
function points(
  curve: Unpacked<Faithful>,
  read: (index: number) => number | undefined,
): [number, number][] {
  const result: [number, number][] = [];
  curve.sizes.forEach((size, i) => {
    const value = read(i);
    if (value !== undefined && Number.isFinite(value)) result.push([size, value]);
  });
  return result;
}

/** 1, 10, 100 ... and the total, where that is not too near to the last. */
function decades(total: number): number[] {
  const result: number[] = [];
  for (let size = 1; size < total / 2.5; size *= 10) result.push(size);
  return [...result, total];
}

function endOf(size: number, total: number): string {
  return size === total && total > 1 ? "end" : "middle";
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
