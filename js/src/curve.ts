// The dose-response curve above a slider. It shares the slider's axis: what is drawn at x is what
// happens with the handle at x.
import { surface } from "./canvas";
import { css, type Rgb, type Theme } from "./colour";

export interface CurvePicture {
  low: number;
  high: number;
  value: number | null;
  /** The value without the intervention, at the first position it touches. */
  observed: number | null;
  mean: number | null;
  sd: number | null;
  curve: { values: Float32Array; logprob: Float32Array; kl: Float32Array } | null;
  /** Where the pointer is, in raw units. */
  hover: number | null;
  /** Half the width of the slider's handle: its middle never gets closer to the edges. */
  inset: number;
}

/** What the two lines say at one value; null outside what is measured. */
export function readCurve(
  curve: CurvePicture["curve"],
  value: number,
): { logprob: number; kl: number } | null {
  if (curve === null) return null;
  const at = measured(curve);
  for (let i = 1; i < at.length; i++) {
    const [a, b] = [at[i - 1] as Point, at[i] as Point];
    if (value < a.x || value > b.x) continue;
    const share = b.x === a.x ? 0 : (value - a.x) / (b.x - a.x);
    return {
      logprob: a.logprob + (b.logprob - a.logprob) * share,
      kl: a.kl + (b.kl - a.kl) * share,
    };
  }
  return null;
}

/** The two lines' colours (Okabe-Ito); they differ in dash too. */
export function lineColours(theme: Theme): { logprob: Rgb; kl: Rgb } {
  return theme.dark
    ? { logprob: [86, 180, 233], kl: [230, 159, 0] }
    : { logprob: [0, 114, 178], kl: [188, 84, 0] };
}

export function drawCurve(canvas: HTMLCanvasElement, picture: CurvePicture, theme: Theme): void {
  const on = surface(canvas);
  if (on === null) return;
  const { pen, width, height, unit } = on;
  const { low, high, inset } = picture;
  const x = (value: number) => inset + ((value - low) / (high - low || 1)) * (width - 2 * inset);
  const inside = (value: number) => value >= low && value <= high;
  const base = height - 0.5;
  const ink = (alpha: number) => css(theme.ink, alpha);

  // What is usual for this unit: mean +- one standard deviation on the reference texts.
  if (picture.mean !== null && picture.sd !== null) {
    const from = Math.max(inset, x(picture.mean - picture.sd));
    const to = Math.min(width - inset, x(picture.mean + picture.sd));
    if (to > from) {
      pen.fillStyle = ink(theme.dark ? 0.14 : 0.09);
      pen.fillRect(from, 0, to - from, height);
    }
  }
  if (inside(0)) {
    pen.strokeStyle = ink(0.35);
    pen.lineWidth = 1;
    line(pen, [Math.round(x(0)) + 0.5, 0], [Math.round(x(0)) + 0.5, height]);
  }

  const points = picture.curve === null ? [] : measured(picture.curve);
  const colours = lineColours(theme);
  const pad = 4 * unit;
  const rise = height - 2 * pad;
  if (points.length > 1) {
    const logs = points.map((point) => point.logprob);
    const [least, most] = [Math.min(...logs), Math.max(...logs)];
    // A flat line must look flat: less than a tenth of a nat does not fill the height.
    const spread = Math.max(most - least, 0.1);
    const middle = (most + least) / 2;
    const yLog = (value: number) => pad + rise * (0.5 - (value - middle) / spread);
    const topKl = Math.max(0.1, ...points.map((point) => point.kl));
    const yKl = (value: number) => pad + rise * (1 - value / topKl);
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, width, height);
    pen.clip();
    pen.lineWidth = 1.25 * unit;
    pen.lineJoin = "round";
    pen.setLineDash([3 * unit, 2 * unit]);
    pen.strokeStyle = css(colours.kl);
    path(
      pen,
      points.map((point) => [x(point.x), yKl(point.kl)]),
    );
    pen.setLineDash([]);
    pen.lineWidth = 1.5 * unit;
    pen.strokeStyle = css(colours.logprob);
    path(
      pen,
      points.map((point) => [x(point.x), yLog(point.logprob)]),
    );
    for (const at of [picture.hover, picture.value]) {
      if (at === null) continue;
      const read = readCurve(picture.curve, at);
      if (read === null) continue;
      dot(pen, x(at), yKl(read.kl), 2.25 * unit, css(colours.kl));
      dot(pen, x(at), yLog(read.logprob), 2.75 * unit, css(colours.logprob));
    }
    pen.restore();
  }

  pen.strokeStyle = ink(0.3);
  pen.lineWidth = 1;
  line(pen, [inset, base], [width - inset, base]);
  if (picture.observed !== null) {
    // What the model does by itself: a small triangle standing on the axis.
    const at = Math.min(width - inset, Math.max(inset, x(picture.observed)));
    const half = 3.5 * unit;
    pen.fillStyle = ink(0.7);
    pen.beginPath();
    pen.moveTo(at, base - 6 * unit);
    pen.lineTo(at + half, base);
    pen.lineTo(at - half, base);
    pen.fill();
  }
  if (picture.hover !== null && inside(picture.hover)) {
    pen.strokeStyle = ink(0.35);
    pen.setLineDash([2, 2]);
    line(pen, [x(picture.hover), 0], [x(picture.hover), height]);
    pen.setLineDash([]);
  }
  if (picture.value !== null) {
    const at = Math.min(width - inset, Math.max(inset, x(picture.value)));
    pen.strokeStyle = css(theme.ink);
    pen.lineWidth = 1 * unit;
    // On whole pixels, or a thin line blurs.
    const sharp = unit > 1 ? Math.round(at) : Math.floor(at) + 0.5;
    line(pen, [sharp, 0], [sharp, height]);
  }
}

interface Point {
  x: number;
  logprob: number;
  kl: number;
}

function measured(curve: NonNullable<CurvePicture["curve"]>): Point[] {
  const points: Point[] = [];
  curve.values.forEach((value, i) => {
    const logprob = curve.logprob[i] ?? Number.NaN;
    const kl = curve.kl[i] ?? Number.NaN;
    if (Number.isFinite(logprob) && Number.isFinite(kl)) points.push({ x: value, logprob, kl });
  });
  return points;
}

function line(pen: CanvasRenderingContext2D, from: [number, number], to: [number, number]): void {
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(...to);
  pen.stroke();
}

function path(pen: CanvasRenderingContext2D, points: [number, number][]): void {
  pen.beginPath();
  points.forEach(([x, y], i) => {
    if (i === 0) pen.moveTo(x, y);
    else pen.lineTo(x, y);
  });
  pen.stroke();
}

function dot(
  pen: CanvasRenderingContext2D,
  x: number,
  y: number,
  size: number,
  fill: string,
): void {
  pen.fillStyle = fill;
  pen.beginPath();
  pen.arc(x, y, size, 0, 2 * Math.PI);
  pen.fill();
}
