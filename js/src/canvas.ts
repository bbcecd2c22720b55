// What every drawing function needs from a canvas.
import { css, type Rgb } from "./colour";

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
