// What every drawing function needs from a canvas.
import { css, type Rgb, type Theme } from "./colour";

export interface Surface {
  pen: CanvasRenderingContext2D;
  width: number;
  height: number;
  /** CSS pixels to one pixel at the normal type size: 1, or 1.6 with large type. */
  unit: number;
}

/** Sizes the canvas to its box in device pixels and clears it; null while it has no box. */
export function surface(canvas: HTMLCanvasElement): Surface | null {
  const { width, height } = canvas.getBoundingClientRect();
  const pen = canvas.getContext("2d");
  if (pen === null || width < 1 || height < 1) return null;
  const scale = globalThis.devicePixelRatio || 1;
  const across = Math.round(width * scale);
  const down = Math.round(height * scale);
  if (canvas.width !== across) canvas.width = across;
  if (canvas.height !== down) canvas.height = down;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height, unit: Number.parseFloat(getComputedStyle(canvas).fontSize) / 13 };
}

/** Calls `paint` when the canvas gets another size. */
export function onResize(element: Element, paint: () => void, signal: AbortSignal): void {
  const watch = new ResizeObserver(paint);
  watch.observe(element);
  signal.addEventListener("abort", () => watch.disconnect(), { once: true });
}

/** A colour bar from 0 (left) to 1, a step a pixel; false while the canvas has no box. */
export function drawBar(canvas: HTMLCanvasElement, colour: (share: number) => Rgb): boolean {
  const on = surface(canvas);
  if (on === null) return false;
  on.pen.resetTransform(); // device pixels, or the seams between columns show
  for (let x = 0; x < canvas.width; x++) {
    on.pen.fillStyle = css(colour((x + 0.5) / canvas.width));
    on.pen.fillRect(x, 0, 1, canvas.height);
  }
  return true;
}

/** Words in a box beside a square of the canvas, and inside the canvas. */
export function drawTip(
  on: Surface,
  words: string,
  beside: { x: number; y: number; width: number; height: number },
  family: string,
  theme: Theme,
): void {
  const { pen, width, unit } = on;
  pen.font = `${11 * unit}px ${family}`;
  const wide = pen.measureText(words).width + 8 * unit;
  const tall = 17 * unit;
  const at = Math.max(0, Math.min(width - wide, beside.x + beside.width / 2 - wide / 2));
  const above = beside.y - tall - 3;
  const down = above >= 0 ? above : beside.y + beside.height + 3;
  pen.fillStyle = css(theme.background);
  pen.fillRect(at, down, wide, tall);
  pen.lineWidth = 1;
  pen.strokeStyle = css(theme.ink, 0.4);
  pen.strokeRect(Math.round(at) + 0.5, Math.round(down) + 0.5, Math.round(wide) - 1, tall - 1);
  pen.fillStyle = css(theme.ink);
  pen.textBaseline = "middle";
  pen.textAlign = "left";
  pen.fillText(words, at + 4 * unit, down + tall / 2);
}
