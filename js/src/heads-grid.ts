// All heads at a glance: small patterns on one canvas, layers down and heads across, or in the
// order of a score. Click locks, double-click solos, arrows move.
//
// Classes: .pc-heads (position: relative, focusable) > canvas.pc-heads-cells, canvas.pc-heads-over
import { drawTip, onResize, surface } from "./canvas";
import { css, LIGHT, type Theme } from "./colour";
import { h } from "./dom";
import { codePixels, type HeatScale, mix, pixelOf } from "./heat-bar";
import type { GridPart } from "./messages";
import type { Coding } from "./tiles";
import type { Unpacked } from "./transport";

export interface HeadAddress {
  layer: number;
  head: number;
}

/** The small patterns of one layer. */
export interface Thumbs {
  /** [head, n, n], in `coding`. */
  codes: Uint8Array;
  n: number;
  coding: Coding;
  /** Of each head. */
  peaks: Float32Array;
  /** A pixel stands for `block` x `block` cells. */
  block: number;
  /** Of a pattern that was: drawn at 60 %. */
  stale: boolean;
}

export interface HeadsPicture {
  layers: number;
  heads: number;
  /** By layer; absent ones are blank. */
  thumbs: ReadonlyMap<number, Thumbs>;
  /** In this order, one after the other; null for layers x heads. */
  order: readonly HeadAddress[] | null;
  selected: HeadAddress | null;
  /** Heads that an intervention of the stack touches: marked with a corner. */
  touched: readonly HeadAddress[];
  scale: HeatScale;
  /** What is said of a head under the pointer beside its address: "induction 0.92". */
  note(head: HeadAddress): string;
}

export interface HeadsActions {
  hover(head: HeadAddress | null, by: "pointer" | "keys"): void;
  lock(head: HeadAddress): void;
  solo(head: HeadAddress): void;
}

export interface HeadsGrid {
  element: HTMLElement;
  update(picture: HeadsPicture): void;
  paint(theme: Theme): void;
}

/** A part of the grid as the thumbs of its layers; `heads` is the number of heads in a layer. */
export function thumbsOf(
  part: Unpacked<GridPart>,
  heads: number,
  stale: boolean,
): [layer: number, thumbs: Thumbs][] {
  const { layers, thumbs, peaks, coding, block } = part;
  const size = thumbs.length / (layers.length * heads || 1);
  const n = Math.round(Math.sqrt(size));
  if (n * n !== size || peaks.length !== layers.length * heads) {
    throw new RangeError(
      `${layers.length} layers of ${heads} heads cannot share ${thumbs.length} bytes in squares.`,
    );
  }
  return layers.map((layer, i) => [
    layer,
    {
      codes: thumbs.subarray(i * heads * size, (i + 1) * heads * size),
      n,
      coding,
      peaks: peaks.subarray(i * heads, (i + 1) * heads),
      block,
      stale,
    },
  ]);
}

/** The largest absolute value in all small patterns: the end of their common scale. */
export function thumbsPeak(thumbs: ReadonlyMap<number, Thumbs>): number {
  let most = 0;
  for (const { coding, peaks } of thumbs.values()) {
    if (coding === "share") return 1;
    for (const peak of peaks) most = Math.max(most, peak);
  }
  return most;
}

/** "L5.H3" */
export function addressOf({ layer, head }: HeadAddress): string {
  return `L${layer}.H${head}`;
}

/**
 * A small pattern in fewer pixels: `by` x `by` of them become the one furthest from 0; one that is
 * not a number stays one. The same as a thumb made with larger blocks.
 */
export function shrink(codes: Uint8Array, n: number, by: number, coding: Coding): Uint8Array {
  const zero = coding === "share" ? 0 : 128;
  const small = Math.ceil(n / by);
  const result = new Uint8Array(small * small).fill(zero);
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < n; column++) {
      const at = Math.floor(row / by) * small + Math.floor(column / by);
      const [code, kept] = [codes[row * n + column] as number, result[at] as number];
      if (kept === 255) continue;
      if (code === 255 || Math.abs(code - zero) > Math.abs(kept - zero)) result[at] = code;
    }
  }
  return result;
}

/** The pixels of one head's small pattern; `colours` are those of its codes. */
export function thumbPixels(codes: Uint8Array, n: number, colours: Uint32Array): ImageData {
  const image = new ImageData(n, n);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colours[codes[i] as number] as number;
  return image;
}

/** The colours of a thumb's codes. It has no room for a hatch: NaN is of a colour no scale has. */
export function thumbColours(
  coding: Coding,
  peak: number,
  scale: HeatScale,
  theme: Theme,
): Uint32Array {
  const colours = codePixels(coding, peak, scale, theme);
  colours[255] = pixelOf(mix(theme.background, [230, 190, 0], 0.7));
  return colours;
}

const GAP = 2;
const LARGEST = 44;
const AIM = 24; // with its gap easily hit: many layers make no square smaller than that
const SMALLEST = 10; // many heads in a narrow view do
const TALLEST = 720; // the whole grid, where that leaves squares large enough

/**
 * The side of a square in the screen's pixels: a multiple of the pattern's where that uses the room
 * well, so that its pixels are all of one size; otherwise all the room, and they differ by one.
 */
export function fill(n: number, room: number): number {
  const shown = Math.ceil(n / Math.ceil(n / room));
  const even = shown * Math.floor(room / shown);
  return even >= 0.85 * room ? even : room;
}

/** Where the squares lie, in CSS pixels. */
interface Layout {
  side: number;
  step: number;
  left: number;
  top: number;
  columns: number;
  unit: number;
  /** Every how many heads a label fits. */
  every: number;
}

export function headsGrid(signal: AbortSignal, actions: HeadsActions): HeadsGrid {
  const base = h("canvas", { class: "pc-heads-cells", "aria-hidden": "true" });
  const over = h("canvas", { class: "pc-heads-over", "aria-hidden": "true" });
  const element = h(
    "div",
    {
      class: "pc-heads",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "grid of heads",
      "aria-label": "All heads; arrow keys move, Enter locks one, Shift+Enter solos it",
    },
    base,
    over,
  );
  let picture: HeadsPicture = {
    layers: 0,
    heads: 0,
    thumbs: new Map(),
    order: null,
    selected: null,
    touched: [],
    scale: { signed: false, peak: 1, gamma: 1 },
    note: () => "",
  };
  let theme = LIGHT;
  let layout: Layout = { side: 0, step: 1, left: 0, top: 0, columns: 1, unit: 1, every: 1 };
  let hovered: HeadAddress | null = null;
  let hoveredBy: "pointer" | "keys" = "pointer";
  let told: HeadAddress | null = null;
  let pointer: { x: number; y: number } | null = null;
  const scratch = document.createElement("canvas");

  let due: "none" | "over" | "all" = "none";
  let ticket = 0;
  const soon = (what: "over" | "all") => {
    if (due === "none") ticket = requestAnimationFrame(now);
    if (due !== "all") due = what;
  };
  const now = () => {
    const what = due;
    due = "none";
    if (what === "all") paintBase();
    if (pointer !== null && hoveredBy === "pointer") hovered = headAt(pointer);
    paintOver();
    if (!same(hovered, told)) {
      told = hovered;
      actions.hover(hovered, hoveredBy);
    }
  };
  signal.addEventListener("abort", () => cancelAnimationFrame(ticket), { once: true });

  const count = () => picture.order?.length ?? picture.layers * picture.heads;
  const headOf = (index: number): HeadAddress | null =>
    index < 0 || index >= count()
      ? null
      : picture.order === null
        ? { layer: Math.floor(index / picture.heads), head: index % picture.heads }
        : (picture.order[index] ?? null);
  const indexOf = (head: HeadAddress | null): number => {
    if (head === null) return -1;
    if (picture.order !== null) return picture.order.findIndex((each) => same(each, head));
    return head.layer < picture.layers && head.head < picture.heads
      ? head.layer * picture.heads + head.head
      : -1;
  };
  const headAt = (at: { x: number; y: number }): HeadAddress | null => {
    const box = element.getBoundingClientRect();
    const { left, top, step, columns } = layout;
    const column = Math.floor((at.x - box.left - left) / step);
    const row = Math.floor((at.y - box.top - top) / step);
    if (column < 0 || column >= columns || row < 0) return null;
    return headOf(row * columns + column);
  };
  const cornerOf = (index: number): [x: number, y: number] => {
    const { left, top, step, columns } = layout;
    return [left + (index % columns) * step, top + Math.floor(index / columns) * step];
  };

  const arrange = () => {
    const scale = globalThis.devicePixelRatio || 1;
    const sharp = (x: number) => Math.round(x * scale) / scale;
    const style = getComputedStyle(base);
    const unit = Number.parseFloat(style.fontSize) / 13;
    const across = element.clientWidth;
    const gap = sharp(GAP * unit);
    const ordered = picture.order !== null;
    const digits = String(Math.max(0, picture.layers - 1)).length + 1;
    const left = ordered ? gap : sharp((digits * 6.7 + 6) * unit);
    const top = ordered ? gap : sharp(15 * unit);
    const wide = (across - left) / Math.max(1, picture.heads) - gap;
    const high = Math.max(AIM * unit, (TALLEST * unit) / Math.max(1, picture.layers) - gap);
    // In order there is no fixed number of columns: no square has to be small.
    const fits = Math.min(ordered ? Math.max(AIM * unit, wide) : wide, high);
    const most = Math.min(LARGEST * unit, Math.max(SMALLEST, fits));
    const n = picture.thumbs.values().next().value?.n ?? 1;
    const side = fill(n, Math.floor(most * scale)) / scale;
    const step = side + gap;
    const columns = ordered
      ? Math.max(1, Math.floor((across - left) / step))
      : Math.max(1, picture.heads);
    const widest = (String(Math.max(0, picture.heads - 1)).length + 1.6) * 6.2 * unit;
    layout = {
      side,
      step,
      left,
      top,
      columns,
      unit,
      every: Math.max(1, Math.ceil(widest / step)),
    };
    element.style.height = `${top + Math.ceil(count() / columns) * step + gap}px`;
  };

  const paintBase = () => {
    arrange();
    const on = surface(base);
    if (on === null) return;
    const known = new Map<string, Uint32Array>();
    const coloursOf = (coding: Coding, peak: number) => {
      const key = `${coding} ${peak}`;
      const colours = known.get(key) ?? thumbColours(coding, peak, picture.scale, theme);
      known.set(key, colours);
      return colours;
    };
    const { pen } = on;
    const { side, unit, left, top, step, every } = layout;
    pen.imageSmoothingEnabled = false;
    const quiet = css(mix(theme.background, theme.ink, 0.06));
    const edge = css(mix(theme.background, theme.ink, 0.16));
    for (let index = 0; index < count(); index++) {
      const head = headOf(index);
      if (head === null) continue;
      const [x, y] = cornerOf(index);
      const thumbs = picture.thumbs.get(head.layer);
      if (thumbs === undefined) {
        pen.fillStyle = quiet;
        pen.fillRect(x, y, side, side);
        continue;
      }
      const { n, coding, peaks } = thumbs;
      const by = Math.ceil(n / Math.max(1, Math.floor(side * (globalThis.devicePixelRatio || 1))));
      const whole = thumbs.codes.subarray(head.head * n * n, (head.head + 1) * n * n);
      const codes = by > 1 ? shrink(whole, n, by, coding) : whole;
      const shown = Math.ceil(n / by);
      scratch.width = scratch.height = shown;
      const colours = coloursOf(coding, peaks[head.head] ?? 1);
      scratch.getContext("2d")?.putImageData(thumbPixels(codes, shown, colours), 0, 0);
      pen.fillStyle = css(theme.background);
      pen.fillRect(x, y, side, side);
      pen.globalAlpha = thumbs.stale ? 0.6 : 1;
      pen.drawImage(scratch, x, y, side, side);
      pen.globalAlpha = 1;
    }
    // An empty pattern is as pale as the page: its edge shows that it is there. It lies in the gap:
    // where a cell is a pixel of the screen, it would hide the first token and the last.
    pen.fillStyle = edge;
    const line = 1 / (globalThis.devicePixelRatio || 1);
    for (let index = 0; index < count(); index++) {
      const [x, y] = cornerOf(index);
      for (const [dx, dy, w, tall] of [
        [-line, -line, side + 2 * line, line],
        [-line, side, side + 2 * line, line],
        [-line, 0, line, side],
        [side, 0, line, side],
      ] as const) {
        pen.fillRect(x + dx, y + dy, w, tall);
      }
    }
    for (const head of picture.touched) {
      const index = indexOf(head);
      if (index < 0) continue;
      const [x, y] = cornerOf(index);
      const size = Math.min(side / 2, 7 * unit);
      pen.fillStyle = css(theme.background);
      corner(pen, x + side, y, size + 1.5);
      pen.fillStyle = css(theme.ink);
      corner(pen, x + side, y, size);
    }
    if (picture.order !== null) return;
    pen.font = `${10 * unit}px ${getComputedStyle(base).fontFamily}`;
    pen.fillStyle = css(theme.ink, 0.65);
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const rows = Math.max(1, Math.ceil((11 * unit) / step));
    for (let layer = 0; layer < picture.layers; layer += rows) {
      pen.fillText(`L${layer}`, left - 4 * unit, top + layer * step + side / 2);
    }
    pen.textAlign = "center";
    for (let head = 0; head < picture.heads; head += every) {
      pen.fillText(`H${head}`, left + head * step + side / 2, top - 7 * unit);
    }
  };

  const paintOver = () => {
    const on = surface(over);
    if (on === null) return;
    const { pen } = on;
    const { side } = layout;
    const style = getComputedStyle(over);
    const accent = style.getPropertyValue("--pc-accent").trim() || "#1976d2";
    const chosen = indexOf(picture.selected);
    if (chosen >= 0) {
      const [x, y] = cornerOf(chosen);
      pen.strokeStyle = accent;
      pen.lineWidth = 2;
      pen.strokeRect(x - 1, y - 1, side + 2, side + 2);
    }
    const index = indexOf(hovered);
    if (hovered === null || index < 0) return;
    const [x, y] = cornerOf(index);
    pen.strokeStyle = css(theme.ink);
    pen.lineWidth = 1;
    pen.strokeRect(x - 0.5, y - 0.5, side + 1, side + 1);
    const words = [addressOf(hovered), picture.note(hovered)].filter((word) => word !== "");
    drawTip(on, words.join("  "), { x, y, width: side, height: side }, style.fontFamily, theme);
  };

  const on = <Name extends keyof HTMLElementEventMap>(
    name: Name,
    act: (event: HTMLElementEventMap[Name]) => void,
  ) => element.addEventListener(name, act, { signal });

  on("pointermove", (event) => {
    pointer = { x: event.clientX, y: event.clientY };
    hoveredBy = "pointer";
    soon("over");
  });
  on("pointerleave", () => {
    pointer = null;
    if (hoveredBy === "pointer") hovered = null;
    soon("over");
  });
  on("click", (event) => {
    const head = headAt({ x: event.clientX, y: event.clientY });
    if (head !== null && event.detail < 2) actions.lock(head);
  });
  on("dblclick", (event) => {
    const head = headAt({ x: event.clientX, y: event.clientY });
    if (head !== null) actions.solo(head);
  });
  on("blur", () => {
    if (hoveredBy !== "keys") return;
    hovered = null;
    soon("over");
  });
  on("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || count() === 0) return;
    const from = indexOf(hovered) >= 0 ? indexOf(hovered) : indexOf(picture.selected);
    const { columns } = layout;
    const row = Math.floor(from / columns) * columns;
    const to = {
      ArrowLeft: from - 1,
      ArrowRight: from + 1,
      ArrowUp: from - columns,
      ArrowDown: from + columns,
      Home: row,
      End: Math.min(row + columns, count()) - 1,
      PageUp: from % columns,
      PageDown: lastInColumn(from % columns, columns, count()),
    }[event.key];
    if (to !== undefined) {
      // The first key only shows where one is.
      const next = from < 0 ? 0 : to >= 0 && to < count() ? to : from;
      hovered = headOf(next);
      hoveredBy = "keys";
      reveal(next);
      soon("over");
    } else if ((event.key === "Enter" || event.key === " ") && hovered !== null) {
      if (event.shiftKey) actions.solo(hovered);
      else actions.lock(hovered);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** The grid may be higher than what it lies in: that scrolls, as little as need be. */
  const reveal = (index: number) => {
    const { side } = layout;
    const [, y] = cornerOf(index);
    const holder = element.parentElement;
    if (holder === null || holder.scrollHeight <= holder.clientHeight) return;
    const top = y + element.offsetTop - holder.offsetTop;
    if (top < holder.scrollTop) holder.scrollTop = top;
    else if (top + side > holder.scrollTop + holder.clientHeight) {
      holder.scrollTop = top + side - holder.clientHeight;
    }
  };

  onResize(element, () => soon("all"), signal);

  return {
    element,
    update(next) {
      picture = next;
      if (indexOf(hovered) < 0) hovered = null;
      soon("all");
    },
    paint(next) {
      theme = next;
      soon("all");
    },
  };
}

function same(a: HeadAddress | null, b: HeadAddress | null): boolean {
  return a?.layer === b?.layer && a?.head === b?.head;
}

function lastInColumn(column: number, columns: number, count: number): number {
  const last = column + Math.floor((count - 1) / columns) * columns;
  return last < count ? last : last - columns;
}

/** A filled triangle in the upper right corner. */
function corner(pen: CanvasRenderingContext2D, x: number, y: number, size: number): void {
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(x - size, y);
  pen.lineTo(x, y + size);
  pen.fill();
}
