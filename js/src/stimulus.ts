// A stimulus as its renderer draws it: an image in its own pixels, a curve as lines, a raster as a
// heat map. Frames come ten a second: a picture of the same size reuses what the last one made.
import { onResize, surface } from "./canvas";
import { css, LIGHT, type Rgb, type Theme } from "./colour";
import { childSignal, h, set } from "./dom";
import { short } from "./format";
import { heatColour, mix, pixelOf } from "./heat-bar";
import type { Stimulus } from "./maximizer-picture";

export interface StimulusView {
  element: HTMLElement;
  /** Null empties it. */
  update(picture: Stimulus | null): void;
  paint(theme: Theme): void;
  /** Ends what watches its size. */
  dispose(): void;
}

/** Okabe-Ito, for the channels of a curve. */
const LINES: readonly (readonly [light: Rgb, dark: Rgb])[] = [
  [
    [0, 114, 178],
    [86, 180, 233],
  ],
  [
    [188, 84, 0],
    [230, 159, 0],
  ],
  [
    [0, 128, 94],
    [0, 190, 140],
  ],
  [
    [166, 72, 125],
    [220, 150, 190],
  ],
];

const STEPS = 256; // colours of a raster
const MANY = 64; // pixels of a side, from which on a picture is smooth

/** `small` draws no axes: beside many others. `label` is what the picture is called. */
export function stimulusView(parent: AbortSignal, label: string, small: boolean): StimulusView {
  // Beside many others it stands in something that has a name.
  const canvas = h("canvas", {
    class: "pc-stimulus",
    ...(label === "" ? { "aria-hidden": "true" } : { role: "img", "aria-label": label }),
  });
  const element = h("div", { class: "pc-stimulus-box", "data-small": small }, canvas);
  const own = childSignal(parent);
  let picture: Stimulus | null = null;
  let theme = LIGHT;
  let image: ImageData | null = null;
  let words: Uint32Array | null = null;
  let sheet: HTMLCanvasElement | null = null;
  let ticket = 0;

  const draw = () => {
    if (picture === null) {
      canvas.width = canvas.width || 1;
      canvas.getContext("2d")?.clearRect(0, 0, canvas.width, canvas.height);
      return;
    }
    if (picture.renderer === "image") drawImage(picture);
    else if (picture.renderer === "curve") drawLines(canvas, picture, theme, small);
    else drawRaster(picture);
  };

  /**
   * A picture of few pixels in whole multiples of them, so that each can be seen; one of many as
   * large as there is room, smooth, since edges of pixels are no part of what it shows.
   */
  const arrange = () => {
    if (picture === null || picture.renderer !== "image") return;
    const { width, height } = picture;
    const scale = globalThis.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = element; // within its border
    if (clientWidth < 1) return;
    const room = Math.min(clientWidth / width, clientHeight / height);
    const times = Math.floor(room * scale);
    const smooth = Math.min(width, height) >= MANY || room * scale < 1;
    const size = times >= 1 && !small && !smooth ? times / scale : room;
    set(element, { "data-smooth": smooth });
    const wide = `${width * size}px`;
    const tall = `${height * size}px`;
    if (canvas.style.width !== wide) canvas.style.width = wide;
    if (canvas.style.height !== tall) canvas.style.height = tall;
  };

  const drawImage = (of: Stimulus) => {
    const { width, height, channels, coding, pixels } = of;
    if (pixels === null) return;
    const pen = canvas.getContext("2d");
    if (pen === null) return;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    arrange();
    if (coding !== "raw") {
      ticket += 1;
      const mine = ticket;
      const file = new Blob([pixels.slice()], { type: `image/${coding}` });
      createImageBitmap(file).then(
        (bitmap) => {
          if (mine === ticket && picture === of) pen.drawImage(bitmap, 0, 0, width, height);
          bitmap.close();
        },
        () => set(canvas, { "data-broken": true }),
      );
      return;
    }
    if (image === null || words === null || image.width !== width || image.height !== height) {
      image = pen.createImageData(width, height);
      words = new Uint32Array(image.data.buffer);
    }
    const count = width * height;
    if (channels === 3) {
      for (let i = 0, at = 0; i < count; i++, at += 3) {
        words[i] =
          0xff000000 |
          ((pixels[at + 2] as number) << 16) |
          ((pixels[at + 1] as number) << 8) |
          (pixels[at] as number);
      }
    } else {
      for (let i = 0; i < count; i++) words[i] = 0xff000000 | (0x10101 * (pixels[i] as number));
    }
    pen.putImageData(image, 0, 0);
  };

  const drawRaster = (of: Stimulus) => {
    const { width, height, values, low, high } = of;
    if (values === null) return;
    sheet ??= document.createElement("canvas");
    sheet.width = width;
    sheet.height = height;
    const inner = sheet.getContext("2d");
    const on = surface(canvas);
    if (inner === null || on === null) return;
    if (image === null || words === null || image.width !== width || image.height !== height) {
      image = inner.createImageData(width, height);
      words = new Uint32Array(image.data.buffer);
    }
    const scale = rasterScale(of);
    const colours = Uint32Array.from({ length: STEPS }, (_, i) =>
      pixelOf(heatColour(low + ((high - low) * i) / (STEPS - 1), scale, theme)),
    );
    const by = (STEPS - 1) / (high - low || 1);
    for (let i = 0; i < width * height; i++) {
      const step = Math.round(((values[i] as number) - low) * by);
      words[i] = colours[Math.min(STEPS - 1, Math.max(0, step))] as number;
    }
    inner.putImageData(image, 0, 0);
    const { pen, unit } = on;
    const left = small ? 0 : 24 * unit;
    const below = small ? 0 : 14 * unit;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(sheet, left, 0, on.width - left, on.height - below);
    pen.strokeStyle = css(mix(theme.background, theme.ink, 0.3));
    pen.strokeRect(left + 0.5, 0.5, on.width - left - 1, on.height - below - 1);
    if (small) return;
    label10(pen, unit, theme);
    pen.textAlign = "right";
    pen.fillText("0", left - 4 * unit, 6 * unit);
    pen.fillText(String(height - 1), left - 4 * unit, on.height - below - 5 * unit);
    pen.textAlign = "left";
    pen.fillText("0", left, on.height - 5 * unit);
    pen.textAlign = "right";
    pen.fillText(`time ${width - 1}`, on.width, on.height - 5 * unit);
  };

  onResize(element, draw, own.signal);

  return {
    element,
    update(next) {
      if (next === picture) return;
      picture = next;
      set(element, { "data-renderer": next?.renderer ?? null, "data-empty": next === null });
      set(canvas, { "data-broken": null });
      if (next?.renderer !== "image") set(element, { "data-smooth": null });
      if (next !== null && next.renderer !== "image" && canvas.style.width !== "") {
        canvas.style.width = canvas.style.height = "";
      }
      draw();
    },
    paint(next) {
      if (next === theme) return;
      theme = next;
      // Images are what they are in any theme.
      if (picture !== null && picture.renderer !== "image") draw();
    },
    dispose: own.abort,
  };
}

/** The colours of a raster: signed where its values are. */
export function rasterScale({ low, high }: Stimulus): { signed: boolean; peak: number; gamma: 1 } {
  return { signed: low < 0, peak: Math.max(Math.abs(low), Math.abs(high)), gamma: 1 };
}

function label10(pen: CanvasRenderingContext2D, unit: number, theme: Theme): void {
  pen.font = `${10 * unit}px ${getComputedStyle(pen.canvas).fontFamily}`;
  pen.textBaseline = "middle";
  pen.fillStyle = css(theme.ink, 0.7);
}

function drawLines(
  canvas: HTMLCanvasElement,
  { values, width: times, height: channels, low, high }: Stimulus,
  theme: Theme,
  small: boolean,
): void {
  const on = surface(canvas);
  if (on === null || values === null) return;
  const { pen, width, height, unit } = on;
  const left = small ? 1 : 34 * unit;
  const right = width - 2 * unit;
  const top = small ? 1 : 4 * unit;
  const bottom = height - (small ? 1 : 15 * unit);
  const x = (t: number) => left + (t / Math.max(1, times - 1)) * (right - left);
  const y = (value: number) => bottom - ((value - low) / (high - low || 1)) * (bottom - top);
  const rule = (at: number, strength: number) => {
    pen.strokeStyle = css(mix(theme.background, theme.ink, strength));
    pen.beginPath();
    pen.moveTo(left, Math.round(at) + 0.5);
    pen.lineTo(right, Math.round(at) + 0.5);
    pen.stroke();
  };
  pen.lineWidth = 1;
  if (!small) {
    rule(y(low), 0.3);
    rule(y(high), 0.12);
  }
  if (low < 0 && high > 0) rule(y(0), small ? 0.15 : 0.3);
  pen.lineWidth = (small ? 1 : 1.5) * unit;
  pen.lineJoin = "round";
  for (let channel = 0; channel < channels; channel++) {
    const colour = LINES[channel % LINES.length] as (typeof LINES)[number];
    pen.strokeStyle = css(theme.dark ? colour[1] : colour[0]);
    pen.beginPath();
    for (let t = 0; t < times; t++) {
      const at = y(values[channel * times + t] as number);
      if (t === 0) pen.moveTo(x(t), at);
      else pen.lineTo(x(t), at);
    }
    pen.stroke();
  }
  if (small) return;
  label10(pen, unit, theme);
  pen.textAlign = "right";
  pen.fillText(short(high), left - 4 * unit, y(high) + 3 * unit);
  pen.fillText(short(low), left - 4 * unit, y(low) - 3 * unit);
  if (low < 0 && high > 0) pen.fillText("0", left - 4 * unit, y(0));
  pen.textAlign = "left";
  pen.fillText("0", left, height - 5 * unit);
  pen.textAlign = "right";
  pen.fillText(`time ${times - 1}`, right, height - 5 * unit);
}
