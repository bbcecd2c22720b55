// The objective by step, with a slider over it: what is drawn at x is what there is with the handle
// at x. Ticks below are the frames that are kept; older ones are thinned, and that shows.
import { onResize, surface } from "./canvas";
import { css, LIGHT, type Theme } from "./colour";
import { lineColours } from "./curve";
import { h, set } from "./dom";
import { short } from "./format";
import { mix } from "./heat-bar";
import { type Curve, nearest, valueAt } from "./maximizer-picture";

export interface StepsPicture {
  curve: Curve;
  /** How many steps there will be: the axis ends at the last of them, counted from 0. */
  total: number;
  /** Steps whose frames can be had, growing. */
  steps: readonly number[];
  /** The step whose frame is shown. */
  step: number | null;
}

export interface StepCurve {
  element: HTMLElement;
  update(picture: StepsPicture): void;
  paint(theme: Theme): void;
}

// At the normal type size: where the axis begins, after the words on its left, and half the handle.
const LEFT = 50;
const HALF = 7;
// Every step sees the picture moved and under noise: the line is the mean of so many on each side.
const AROUND = 6;

export function stepCurve(
  signal: AbortSignal,
  /** Null: the newest, whichever that is. */
  scrub: (step: number | null) => void,
): StepCurve {
  const canvas = h("canvas", { class: "pc-step-curve", "aria-hidden": "true" });
  const slider = h("input", {
    type: "range",
    class: "pc-slider pc-step-slider",
    min: 0,
    max: 1,
    step: 1,
    value: 0,
    "aria-label": "Step whose picture is shown",
  });
  const element = h("div", { class: "pc-steps" }, canvas, slider);
  let picture: StepsPicture = {
    curve: { stride: 1, values: [] },
    total: 1,
    steps: [],
    step: null,
  };
  let theme = LIGHT;

  const draw = () => {
    const on = surface(canvas);
    if (on === null) return;
    const { pen, width, height, unit } = on;
    const { curve, steps, step } = picture;
    const left = LEFT * unit;
    const right = width - HALF * unit;
    const bottom = height - 7 * unit;
    const top = 3 * unit;
    const last = Math.max(1, picture.total - 1);
    const x = (at: number) => left + (at / last) * (right - left);
    const known = curve.values.filter(Number.isFinite);
    let low = Math.min(0, ...extent(known));
    let high = Math.max(0, ...extent(known));
    if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
    const y = (value: number) => bottom - ((value - low) / (high - low)) * (bottom - top);
    const ink = (share: number) => css(mix(theme.background, theme.ink, share));
    pen.lineWidth = 1;
    pen.strokeStyle = ink(0.3);
    pen.beginPath();
    pen.moveTo(left, Math.round(y(0)) + 0.5);
    pen.lineTo(right, Math.round(y(0)) + 0.5);
    pen.stroke();
    // Ticks that would touch are one bar: a comb of a pixel's teeth says nothing.
    pen.fillStyle = ink(0.55);
    const tick = (from: number, to: number) =>
      pen.fillRect(
        Math.round(x(from)),
        bottom + 2 * unit,
        Math.round(x(to) - x(from)) + 1,
        4 * unit,
      );
    let first = steps[0] ?? 0;
    steps.forEach((at, i) => {
      const next = steps[i + 1];
      if (next !== undefined && x(next) - x(at) < 2.5 * unit) return;
      tick(first, at);
      first = next ?? at;
    });
    // No finer than pixels: a hundred thousand steps are drawn in no more points.
    const every = Math.max(1, Math.floor(curve.values.length / (2 * width)));
    const line = (of: (i: number) => number, share: number, wide: number) => {
      pen.strokeStyle = css(mix(theme.background, lineColours(theme).logprob, share));
      pen.lineWidth = wide * unit;
      pen.lineJoin = "round";
      pen.beginPath();
      let begun = false;
      for (let i = 0; i < curve.values.length; i += every) {
        const value = of(i);
        if (!Number.isFinite(value)) continue;
        const at = x(i * curve.stride);
        if (begun) pen.lineTo(at, y(value));
        else pen.moveTo(at, y(value));
        begun = true;
      }
      pen.stroke();
    };
    line((i) => curve.values[i] as number, 0.35, 1);
    line((i) => meanAround(curve.values, i), 1, 1.5);
    if (step !== null && curve.values.length > 0) {
      pen.strokeStyle = css(theme.ink);
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(Math.round(x(step)) + 0.5, 0);
      pen.lineTo(Math.round(x(step)) + 0.5, height);
      pen.stroke();
    }
    if (known.length === 0) return;
    pen.font = `${10 * unit}px ${getComputedStyle(canvas).fontFamily}`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    pen.fillStyle = ink(0.7);
    const words = (value: number) => {
      const at = Math.min(bottom - 4 * unit, Math.max(top + 4 * unit, y(value)));
      pen.fillText(value === 0 ? "0" : short(value), left - 11 * unit, at);
    };
    // Zero before the others, which keep away from it.
    words(0);
    if (y(0) - top > 14 * unit) words(high);
    if (bottom - y(0) > 14 * unit) words(low);
  };

  const go = (step: number) => {
    const last = picture.steps.at(-1);
    const at = nearest(picture.steps, step);
    if (at === null) return;
    scrub(at === last ? null : at);
  };
  slider.addEventListener("input", () => go(Number(slider.value)), { signal });
  slider.addEventListener(
    "keydown",
    (event) => {
      const { steps, step } = picture;
      const at = step === null ? steps.length - 1 : steps.indexOf(step);
      const to = {
        ArrowLeft: at - 1,
        ArrowDown: at - 1,
        ArrowRight: at + 1,
        ArrowUp: at + 1,
        PageDown: at - 10,
        PageUp: at + 10,
        Home: 0,
        End: steps.length - 1,
      }[event.key];
      if (to === undefined || steps.length === 0) return;
      event.preventDefault();
      event.stopPropagation();
      go(steps[Math.min(steps.length - 1, Math.max(0, to))] as number);
    },
    { signal },
  );
  onResize(canvas, draw, signal);

  return {
    element,
    update(next) {
      picture = next;
      set(element, { "data-empty": next.steps.length === 0 });
      set(slider, { max: Math.max(1, next.total - 1) });
      const off = next.steps.length < 2;
      if (slider.disabled !== off) slider.disabled = off;
      const step = next.step ?? 0;
      if (Number(slider.value) !== step) slider.value = String(step);
      const value = valueAt(next.curve, step);
      set(slider, {
        "aria-valuetext": `step ${step} of ${next.total}${
          Number.isFinite(value) ? `, activation ${short(value)}` : ""
        }`,
      });
      draw();
    },
    paint(next) {
      theme = next;
      draw();
    },
  };
}

/** The smallest and the largest; a long list as arguments would be too many. */
/** The mean of what is known around a number of a curve; NaN where nothing is. */
function meanAround(values: ArrayLike<number>, at: number): number {
  let [sum, count] = [0, 0];
  const end = Math.min(values.length - 1, at + AROUND);
  for (let i = Math.max(0, at - AROUND); i <= end; i++) {
    const value = values[i] as number;
    if (!Number.isFinite(value)) continue;
    sum += value;
    count += 1;
  }
  return sum / count;
}

function extent(values: readonly number[]): number[] {
  if (values.length === 0) return [];
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
