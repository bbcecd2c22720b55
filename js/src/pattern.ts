// One head's pattern, large: exact cells, never fewer than there are. It scrolls and zooms inside
// its own box and paints what is seen only; a pointer that moves repaints the overlay alone.
//
// Classes: .pc-pattern > .pc-pattern-tools (zoom buttons) + .pc-pattern-box >
//   canvas.pc-pattern-cells, canvas.pc-pattern-over, .pc-pattern-scroll > .pc-pattern-space
import { onResize, surface } from "./canvas";
import { css, LIGHT, type Rgb, type Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { codePixels, type HeatScale, heatColour, mix, pixelOf } from "./heat-bar";
import type { PromptToken } from "./messages";
import {
  type Area,
  type Cell,
  codeTable,
  type PatternCells,
  type Place,
  placesIn,
  type Span,
  TILE,
  type Tile,
} from "./tiles";

/** Sizes of a cell, in pixels. */
export const ZOOMS = [2, 3, 4, 6, 8, 12, 16, 20, 24] as const;

const READABLE = 6; // a smaller cell only for who asks for it
const LABELLED = 11; // a cell at least so high has room for its label
const TALLEST = 600; // the box; what does not fit scrolls
const MOST_TILES = 64; // of one request
const STALE = 0.6;
const MOVE = 120; // milliseconds
const GRIDDED = 12; // cells at least so large are told apart by lines

export interface Outline {
  /** Null for all. */
  destinations: Span | null;
  sources: Span | null;
  /** Drawn dashed. */
  muted: boolean;
}

export interface PatternPicture {
  /** Of rows and of columns. */
  tokens: readonly PromptToken[];
  /** Null before a head is locked. */
  cells: PatternCells | null;
  /** What is shown at 60 % where `cells` has no tile yet: the pattern that was. */
  stale: PatternCells | null;
  scale: HeatScale;
  outlines: readonly Outline[];
  locked: Cell | null;
  /** A drag selects cells (knock-out mode), instead of a click locking one. */
  brush: boolean;
}

export interface PatternActions {
  /** Called after the overlay is painted; of a causal model also for cells above the diagonal. */
  hover(cell: Cell | null, by: "pointer" | "keys"): void;
  lock(cell: Cell | null): void;
  /** Cells were brushed, or one was clicked in knock-out mode. */
  brush(area: Area): void;
  /**
   * Visible tiles are not there: at most 64, nearest to the middle first. Called after every paint
   * that misses some; who asks the kernel knows which are on their way.
   */
  missing(tiles: Place[]): void;
}

export interface Pattern {
  element: HTMLElement;
  update(picture: PatternPicture): void;
  paint(theme: Theme): void;
  /** A cell to show the crosshair at, from elsewhere (the token strip); null takes it away. */
  point(cell: Partial<Cell> | null): void;
  /** Scrolls so that the cell is seen. */
  show(cell: Cell): void;
  /** The cells that are seen now, at least in part. */
  visible(): Area;
  /** The size of a cell now, in pixels. */
  zoom(): number;
  setZoom(cell: number | "fit"): void;
}

/** A token as a label: pieces, of which the marks (a space, a newline) are drawn faintly. */
export interface LabelPiece {
  text: string;
  mark: boolean;
}

export function labelOf(token: PromptToken): LabelPiece[] {
  if (token.bos) return [{ text: "BOS", mark: true }];
  if (token.text === "") return [{ text: "∅", mark: true }];
  const pieces: LabelPiece[] = [];
  // Control characters draw nothing, or turn the direction of what follows.
  for (const piece of token.text.split(CONTROLS)) {
    if (piece === "") continue;
    const mark = markOf(piece);
    pieces.push(mark === null ? { text: piece, mark: false } : { text: mark, mark: true });
  }
  return pieces;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must be seen
const CONTROLS = /([\u0000-\u0020\u007f-\u00a0\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff])/;

function markOf(piece: string): string | null {
  if (piece.length > 1 || !CONTROLS.test(piece)) return null;
  const shown = { " ": "·", "\u00a0": "·", "\n": "↵", "\r": "␍", "\t": "⇥" }[piece];
  const code = piece.charCodeAt(0);
  return shown ?? (code < 0x20 ? String.fromCharCode(0x2400 + code) : "␣");
}

/** A label's text in one. */
export function labelText(token: PromptToken): string {
  return labelOf(token)
    .map((piece) => piece.text)
    .join("");
}

/**
 * The largest zoom at which the whole pattern fits, at least 6: a smaller one is for who asks.
 *
 * `room` says how wide and high the cells may get; labels take some of it at large zooms.
 */
export function fittingZoom(
  length: number,
  room: (cell: number) => readonly [width: number, height: number],
): number {
  for (const cell of [...ZOOMS].reverse()) {
    if (cell <= READABLE) break;
    if (length * cell <= Math.min(...room(cell))) return cell;
  }
  return READABLE;
}

/** Every how many positions there is a tick, where labels do not fit. */
export function tickStep(cell: number, least: number): number {
  return [5, 10, 50, 100].find((step) => step * cell >= least) ?? 500;
}

/** Colours that are not on the scale. */
export function plainColours(theme: Theme): { beyond: Rgb; hole: Rgb } {
  return {
    // Above the diagonal of a causal model, where nothing can be.
    beyond: mix(theme.background, theme.ink, 0.1),
    // Not a number: hatched as well, where a cell has room for it.
    hole: mix(theme.background, [230, 190, 0], theme.dark ? 0.55 : 0.45),
  };
}

/** The bytes of a tile's picture, a pixel a cell; what is not a number stays transparent. */
export function tilePixels(
  tile: Tile,
  [row, column]: Place,
  cells: Pick<PatternCells, "causal" | "factors">,
  scale: HeatScale,
  theme: Theme,
): ImageData {
  const image = new ImageData(tile.columns, tile.rows);
  const pixels = new Uint32Array(image.data.buffer);
  const { factors } = cells;
  if (factors.column === null && factors.row === null) {
    const colours = codePixels(tile.coding, tile.peak, scale, theme);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colours[tile.codes[i] as number] as number;
  } else {
    const numbers = codeTable(tile.coding).map((value) => value * tile.peak);
    const colours = ladder(scale, theme);
    const last = colours.length - 1;
    const [from, reach] = scale.signed ? [-scale.peak, 2 * scale.peak] : [0, scale.peak];
    for (let r = 0, i = 0; r < tile.rows; r++) {
      const ofRow = factors.row?.[row * TILE + r] ?? 1;
      for (let c = 0; c < tile.columns; c++, i++) {
        const factor = (factors.column?.[column * TILE + c] ?? 1) * ofRow;
        const value = (numbers[tile.codes[i] as number] as number) * factor;
        if (Number.isNaN(value)) continue;
        const share = reach > 0 ? (value - from) / reach : scale.signed ? 0.5 : 0;
        pixels[i] = colours[Math.round(Math.min(1, Math.max(0, share)) * last)] as number;
      }
    }
  }
  if (cells.causal && row === column) {
    const beyond = pixelOf(plainColours(theme).beyond);
    for (let r = 0; r < tile.rows; r++) {
      pixels.fill(beyond, r * tile.columns + r + 1, (r + 1) * tile.columns);
    }
  }
  return image;
}

const LADDER = 2049; // odd, so that zero has a step of its own

function ladder(scale: HeatScale, theme: Theme): Uint32Array {
  const from = scale.signed ? -1 : 0;
  return Uint32Array.from({ length: LADDER }, (_, i) => {
    const share = from + (i / (LADDER - 1)) * (1 - from);
    return pixelOf(heatColour(share, { ...scale, peak: 1 }, theme));
  });
}

/** Where everything lies, in CSS pixels of the box. */
interface Frame {
  length: number;
  cell: number;
  /** Where the cells begin: labels lie left of them and above. */
  left: number;
  top: number;
  /** Of the part where cells are seen. */
  width: number;
  height: number;
  /** How far it is scrolled. */
  x: number;
  y: number;
  unit: number;
  labels: boolean;
}

export function pattern(signal: AbortSignal, actions: PatternActions): Pattern {
  const base = h("canvas", { class: "pc-pattern-cells", "aria-hidden": "true" });
  const over = h("canvas", { class: "pc-pattern-over", "aria-hidden": "true" });
  const space = h("div", { class: "pc-pattern-space" });
  const scroller = h(
    "div",
    {
      class: "pc-pattern-scroll",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "attention pattern",
      "aria-label": "Attention pattern; arrow keys move over its cells, Enter locks one",
    },
    space,
  );
  const box = h("div", { class: "pc-pattern-box" }, base, over, scroller);
  const size = h("span", { class: "pc-number pc-muted" });
  const smaller = button("−", { "aria-label": "Smaller cells" }, () => step(-1), signal);
  const larger = button("+", { "aria-label": "Larger cells" }, () => step(1), signal);
  const fit = button("fit", { "aria-label": "Fit the cells" }, () => zoomTo("fit"), signal);
  const tools = h("div", { class: "pc-pattern-tools" }, smaller, larger, fit, size);
  const element = h("div", { class: "pc-pattern" }, tools, box);

  let picture: PatternPicture = {
    tokens: [],
    cells: null,
    stale: null,
    scale: { signed: false, peak: 1, gamma: 1 },
    outlines: [],
    locked: null,
    brush: false,
  };
  let theme = LIGHT;
  let wanted: number | "fit" = "fit";
  let frame: Frame = {
    length: 0,
    cell: READABLE,
    left: 0,
    top: 0,
    width: 0,
    height: 0,
    x: 0,
    y: 0,
    unit: 1,
    labels: false,
  };
  let pointer: { x: number; y: number } | null = null; // of the page
  let cursor: Partial<Cell> | null = null; // where the crosshair is
  let cursorBy: "pointer" | "keys" | "point" = "pointer";
  let told: Cell | null = null;
  let brushing: { from: Cell; to: Cell; keys: boolean } | null = null;
  let family = "monospace";
  let accent = "#1976d2";
  const bitmaps = bitmapCache();
  const waited = new Set<string>(); // places whose old tile was painted last
  const since = new Map<string, number>(); // when the new one came
  const reduced = matchMedia("(prefers-reduced-motion: reduce)");
  const widths = new Map<string, number>();

  // --- when to paint -----------------------------------------------------------------------------

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
    follow();
    paintOver();
    tell();
  };
  signal.addEventListener("abort", () => cancelAnimationFrame(ticket), { once: true });

  // --- where things are --------------------------------------------------------------------------

  const font = (bold = false) => `${bold ? "600 " : ""}${11 * frame.unit}px ${family}`;

  const measure = () => {
    const pen = base.getContext("2d");
    const style = getComputedStyle(base);
    family = style.fontFamily;
    accent = style.getPropertyValue("--pc-accent").trim() || accent;
    const unit = Number.parseFloat(style.fontSize) / 13;
    const scale = globalThis.devicePixelRatio || 1;
    const sharp = (x: number) => Math.round(x * scale) / scale;
    const length = picture.tokens.length;
    const across = box.clientWidth;
    const tallest = TALLEST * unit;
    if (unit !== frame.unit) widths.clear();
    frame.unit = unit;

    const margins = (cell: number): [left: number, top: number] => {
      if (cell < LABELLED * unit) return [sharp(76 * unit), sharp(32 * unit)];
      let longest = 0;
      if (pen !== null) {
        pen.font = font();
        for (const token of picture.tokens) longest = Math.max(longest, widthOf(pen, token));
      }
      const digits = (String(length - 1).length + 1.5) * 6.7 * unit;
      const room = Math.min(longest, 96 * unit) + digits;
      return [sharp(Math.max(60 * unit, room)), sharp(Math.max(30 * unit, room))];
    };
    const room = (cell: number): [number, number] => {
      // Most sizes are ruled out before any label is measured.
      if (length * cell > Math.min(across, tallest)) return [0, 0];
      const [left, top] = margins(cell);
      return [across - left, tallest - top];
    };
    const zoom = wanted === "fit" ? fittingZoom(length, room) : wanted;
    const cell = Math.max(1, Math.round(zoom * scale)) / scale;
    const [left, top] = margins(cell);
    const full = length * cell;
    const bar = full > across - left ? SCROLLBAR : 0;
    Object.assign(scroller.style, { left: `${left}px`, top: `${top}px` });
    Object.assign(space.style, { width: `${full}px`, height: `${full}px` });
    box.style.height = `${Math.min(tallest, top + full + bar)}px`;
    frame = {
      length,
      cell,
      left,
      top,
      width: Math.min(full, scroller.clientWidth),
      height: Math.min(full, scroller.clientHeight),
      x: sharp(scroller.scrollLeft),
      y: sharp(scroller.scrollTop),
      unit,
      labels: cell >= LABELLED * unit,
    };
    say(size, `${zoom} px a cell`);
    const at = ZOOMS.findIndex((each) => each >= zoom);
    set(smaller, { disabled: at <= 0 });
    set(larger, { disabled: at < 0 || at >= ZOOMS.length - 1 });
    set(fit, { "aria-pressed": wanted === "fit" ? "true" : "false" });
  };

  const widthOf = (pen: CanvasRenderingContext2D, token: PromptToken): number => {
    const text = labelText(token);
    let width = widths.get(text);
    if (width === undefined) {
      width = pen.measureText(text).width;
      widths.set(text, width);
    }
    return width;
  };

  const visible = (): Area => {
    const { x, y, width, height, cell, length } = frame;
    const span = (from: number, reach: number): Span => [
      Math.max(0, Math.floor(from / cell)),
      Math.min(length, Math.ceil((from + reach) / cell)),
    ];
    return { destinations: span(y, height), sources: span(x, width) };
  };

  /** The cell under a point of the page; null outside. */
  const cellAt = (at: { x: number; y: number }, clamped = false): Cell | null => {
    const { left, top } = scroller.getBoundingClientRect();
    const { length, cell } = frame;
    if (length === 0) return null;
    let source = Math.floor((at.x - left + scroller.scrollLeft) / cell);
    let destination = Math.floor((at.y - top + scroller.scrollTop) / cell);
    if (clamped) {
      const { destinations, sources } = visible();
      source = Math.min(sources[1] - 1, Math.max(sources[0], source));
      destination = Math.min(destinations[1] - 1, Math.max(destinations[0], destination));
    }
    const inside = source >= 0 && source < length && destination >= 0 && destination < length;
    return inside ? { destination, source } : null;
  };

  // --- painting ----------------------------------------------------------------------------------

  const paintBase = () => {
    measure();
    const on = surface(base);
    if (on === null || frame.length === 0) return;
    const { pen } = on;
    const { left, top, width, height, cell, length, x, y } = frame;
    const { cells, stale, scale } = picture;
    const causal = cells?.causal ?? stale?.causal ?? false;
    const missing: Place[] = [];
    pen.save();
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    pen.fillStyle = css(causal ? plainColours(theme).beyond : theme.background);
    pen.fillRect(left, top, width, height);
    pen.translate(left - x, top - y); // hatches stay where their cells are
    pen.imageSmoothingEnabled = false;
    const waiting = hatch(pen, theme, false);
    const holes = hatch(pen, theme, true);
    for (const place of placesIn(visible(), length, causal)) {
      const [row, column] = place;
      const [tx, ty] = [column * TILE * cell, row * TILE * cell];
      const tile = cells?.tile(place);
      const was = stale?.tile(place);
      const old = tile === undefined ? was : undefined;
      const shown = tile ?? old;
      const from = tile === undefined ? stale : cells;
      if (cells !== null && tile === undefined) missing.push(place);
      const came = arrived(place, tile !== undefined, was !== undefined);
      if (shown === undefined || from === null) {
        const reach = Math.min(TILE, length - row * TILE) * cell;
        const wide = Math.min(TILE, length - column * TILE) * cell;
        pen.beginPath();
        pen.moveTo(tx, ty);
        if (!(causal && row === column)) pen.lineTo(tx + wide, ty);
        pen.lineTo(tx + wide, ty + reach);
        pen.lineTo(tx, ty + reach);
        pen.fillStyle = css(theme.background);
        pen.fill();
        if (cells === null) continue; // nothing is on its way
        pen.fillStyle = waiting;
        pen.fill();
        continue;
      }
      const [tw, th] = [shown.columns * cell, shown.rows * cell];
      if (shown.holes) {
        pen.fillStyle = css(plainColours(theme).hole);
        pen.fillRect(tx, ty, tw, th);
        pen.fillStyle = holes;
        pen.fillRect(tx, ty, tw, th);
      } else if (old !== undefined || came < 1) {
        pen.fillStyle = css(theme.background);
        pen.fillRect(tx, ty, tw, th);
      }
      if (came < 1 && was !== undefined && stale !== null) {
        pen.globalAlpha = STALE;
        pen.drawImage(bitmaps(was, place, stale, scale, theme), tx, ty, tw, th);
        soon("all");
      }
      pen.globalAlpha = old === undefined ? came : STALE;
      pen.drawImage(bitmaps(shown, place, from, scale, theme), tx, ty, tw, th);
      pen.globalAlpha = 1;
    }
    if (cell >= GRIDDED) drawGrid(pen);
    for (const outline of picture.outlines) {
      const [top_, bottom] = outline.destinations ?? [0, length];
      const [left_, right] = outline.sources ?? [0, length];
      pen.setLineDash(outline.muted ? [3, 3] : []);
      frameRect(pen, left_, top_, right, bottom, css(theme.ink), 1.5);
    }
    pen.setLineDash([]);
    pen.restore();
    drawAxes(pen);
    if (missing.length > 0) actions.missing(nearest(missing, visible()).slice(0, MOST_TILES));
  };

  /**
   * How far a tile has come in, from 0 to 1: cells move to new values, they do not jump. Only where
   * an old tile was seen while the new one was on its way.
   */
  const arrived = (place: Place, here: boolean, before: boolean): number => {
    const key = String(place);
    if (!here || !before) {
      if (before) waited.add(key);
      else waited.delete(key);
      since.delete(key);
      return 1;
    }
    const time = performance.now();
    if (waited.delete(key) && !reduced.matches) since.set(key, time);
    const age = time - (since.get(key) ?? 0);
    if (age < MOVE) return age / MOVE;
    since.delete(key);
    return 1;
  };

  const drawGrid = (pen: CanvasRenderingContext2D) => {
    const { cell } = frame;
    const { destinations, sources } = visible();
    const line = 1 / (globalThis.devicePixelRatio || 1);
    pen.fillStyle = css(theme.ink, 0.07);
    for (let s = sources[0]; s < sources[1]; s++) {
      pen.fillRect((s + 1) * cell - line, destinations[0] * cell, line, frame.height + cell);
    }
    for (let d = destinations[0]; d < destinations[1]; d++) {
      pen.fillRect(sources[0] * cell, (d + 1) * cell - line, frame.width + cell, line);
    }
  };

  /** A rectangle around cells, with a rim in the background's colour so that it shows on all. */
  const frameRect = (
    pen: CanvasRenderingContext2D,
    left: number,
    top: number,
    right: number,
    bottom: number,
    stroke: string,
    width: number,
  ) => {
    const { cell } = frame;
    const rect = [left * cell, top * cell, (right - left) * cell, (bottom - top) * cell] as const;
    pen.lineWidth = width + 2;
    pen.strokeStyle = css(theme.background, 0.8);
    pen.strokeRect(...rect);
    pen.lineWidth = width;
    pen.strokeStyle = stroke;
    pen.strokeRect(...rect);
  };

  const drawAxes = (pen: CanvasRenderingContext2D) => {
    const { left, top, width, height, cell, labels, unit } = frame;
    const { destinations, sources } = visible();
    pen.textBaseline = "middle";
    pen.direction = "ltr";
    pen.font = font();
    pen.fillStyle = css(theme.ink, 0.65);
    pen.textAlign = "right";
    pen.fillText("from →", left - 6 * unit, top - 21 * unit, left);
    pen.fillText("to ↓", left - 6 * unit, top - 8 * unit, left);
    const within = (side: "row" | "column", draw: () => void) => {
      pen.save();
      pen.beginPath();
      // A label may stick out of its own row a little, but not into the cells.
      if (side === "row") pen.rect(0, top - 4, left, height + 8);
      else pen.rect(left - 4, 0, width + 8, top);
      pen.clip();
      draw();
      pen.restore();
    };
    if (labels) {
      within("row", () => {
        for (let d = destinations[0]; d < destinations[1]; d++) rowLabel(pen, d, false);
      });
      within("column", () => {
        for (let s = sources[0]; s < sources[1]; s++) columnLabel(pen, s, false);
      });
      return;
    }
    const rows = tickStep(cell, 14 * unit);
    const columns = tickStep(cell, 7.5 * unit * String(frame.length).length);
    pen.fillStyle = css(theme.ink, 0.65);
    within("row", () => {
      for (let d = ceilTo(destinations[0], rows); d < destinations[1]; d += rows) {
        const at = rowY(d);
        pen.fillText(String(d), left - 6 * unit, at);
        pen.fillRect(left - 4, Math.round(at), 3, 1);
      }
    });
    pen.textAlign = "center";
    within("column", () => {
      for (let s = ceilTo(sources[0], columns); s < sources[1]; s += columns) {
        const at = columnX(s);
        pen.fillText(String(s), at, top - 10 * unit);
        pen.fillRect(Math.round(at), top - 4, 1, 3);
      }
    });
  };

  const rowY = (d: number) => frame.top + (d + 0.5) * frame.cell - frame.y;
  const columnX = (s: number) => frame.left + (s + 0.5) * frame.cell - frame.x;

  const rowLabel = (pen: CanvasRenderingContext2D, d: number, bold: boolean) => {
    const token = picture.tokens[d];
    if (token === undefined) return;
    drawLabel(pen, token, frame.left - 6 * frame.unit, rowY(d), frame.left - 8 * frame.unit, bold);
  };
  const columnLabel = (pen: CanvasRenderingContext2D, s: number, bold: boolean) => {
    const token = picture.tokens[s];
    if (token === undefined) return;
    pen.save();
    pen.translate(columnX(s), frame.top - 6 * frame.unit);
    pen.rotate(Math.PI / 2);
    drawLabel(pen, token, 0, 0, frame.top - 8 * frame.unit, bold);
    pen.restore();
  };

  /** A label that ends at x: its text and, next to the cells, its position. */
  const drawLabel = (
    pen: CanvasRenderingContext2D,
    token: PromptToken,
    x: number,
    y: number,
    room: number,
    bold: boolean,
  ) => {
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    pen.direction = "ltr";
    pen.font = font();
    pen.fillStyle = css(theme.ink, bold ? 1 : 0.65);
    const number = String(token.position);
    pen.fillText(number, x, y);
    let end = x - pen.measureText(number).width - 5 * frame.unit;
    pen.font = font(bold);
    const pieces = labelOf(token);
    const least = end - (room - (x - end));
    for (const piece of pieces.reverse()) {
      const text = piece.mark ? piece.text : cut(pen, piece.text, end - least);
      pen.fillStyle = css(theme.ink, piece.mark ? 0.5 : 1);
      pen.fillText(text, end, y);
      end -= pen.measureText(text).width;
      if (end <= least) break;
    }
  };

  const paintOver = () => {
    const on = surface(over);
    if (on === null || frame.length === 0) return;
    const { pen } = on;
    const { left, top, width, height, cell, x, y } = frame;
    const at = cursor ?? {};
    pen.save();
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    pen.translate(left - x, top - y);
    const { locked } = picture;
    if (locked !== null) {
      const { destination: d, source: s } = locked;
      frameRect(pen, s, d, s + 1, d + 1, accent, 2);
    }
    if (brushing !== null) {
      const { destinations, sources } = areaOf(brushing.from, brushing.to);
      pen.fillStyle = css(theme.ink, 0.12);
      pen.fillRect(
        sources[0] * cell,
        destinations[0] * cell,
        (sources[1] - sources[0]) * cell,
        (destinations[1] - destinations[0]) * cell,
      );
      pen.setLineDash([4, 2]);
      frameRect(pen, sources[0], destinations[0], sources[1], destinations[1], accent, 1.5);
      pen.setLineDash([]);
    }
    // Lines beside the row and the column, not over them: they would change the colours.
    pen.fillStyle = accent;
    if (at.destination !== undefined) {
      pen.fillRect(x, at.destination * cell - 1, width, 1);
      pen.fillRect(x, (at.destination + 1) * cell, width, 1);
    }
    if (at.source !== undefined) {
      pen.fillRect(at.source * cell - 1, y, 1, height);
      pen.fillRect((at.source + 1) * cell, y, 1, height);
    }
    if (at.source !== undefined && at.destination !== undefined) {
      const { destination: d, source: s } = at;
      frameRect(pen, s, d, s + 1, d + 1, accent, 1.5);
    }
    pen.restore();
    // Labels have rows and columns of their own; where only ticks are, two would lie on each other.
    const strong = frame.labels ? [locked, at] : [{ ...locked, ...at }];
    for (const each of strong) {
      if (each?.destination !== undefined) strongRow(pen, each.destination);
      if (each?.source !== undefined) strongColumn(pen, each.source);
    }
  };

  const strongRow = (pen: CanvasRenderingContext2D, d: number) => {
    const { left, top, height, unit, cell, labels } = frame;
    const middle = rowY(d);
    if (middle < top || middle > top + height) return;
    const tall = Math.max(cell, 15 * unit);
    pen.fillStyle = css(theme.background);
    pen.fillRect(0, middle - tall / 2, left - 1, tall);
    // A tick's number is hidden whole or not at all.
    const every = tickStep(cell, 14 * unit);
    const near = labels ? 0 : Math.ceil((14 * unit) / cell);
    for (let tick = ceilTo(Math.max(0, d - near), every); tick < d + near; tick += every) {
      pen.fillRect(0, rowY(tick) - 7 * unit, left - 5, 14 * unit);
    }
    pen.fillStyle = accent;
    pen.fillRect(left - 3, middle - (labels ? cell : tall) / 2, 2, labels ? cell : tall);
    rowLabel(pen, d, true);
  };
  const strongColumn = (pen: CanvasRenderingContext2D, s: number) => {
    const { left, top, width, unit, cell, labels } = frame;
    const middle = columnX(s);
    if (middle < left || middle > left + width) return;
    if (labels) {
      pen.fillStyle = css(theme.background);
      pen.fillRect(middle - cell / 2, 0, cell, top - 1);
      pen.fillStyle = accent;
      pen.fillRect(middle - cell / 2, top - 3, cell, 2);
      columnLabel(pen, s, true);
      return;
    }
    // Where only ticks are, the label lies flat above them, inside the box.
    const token = picture.tokens[s];
    if (token === undefined) return;
    pen.font = font(true);
    const room = Math.min(widthOf(pen, token) + 40 * unit, 160 * unit);
    const end = Math.min(left + width, Math.max(left + room - 20 * unit, middle + room / 2));
    pen.fillStyle = css(theme.background);
    pen.fillRect(end - room, 0, room, 17 * unit);
    pen.fillStyle = accent;
    pen.fillRect(Math.round(middle) - 1, 17 * unit, 2, top - 17 * unit);
    drawLabel(pen, token, end - 4 * unit, 9 * unit, room - 4 * unit, true);
  };

  // --- pointer and keys --------------------------------------------------------------------------

  /** Moves the crosshair to where the pointer is, also when the cells moved under it. */
  const follow = () => {
    if (pointer === null || cursorBy === "keys") return;
    if (brushing !== null && !brushing.keys) {
      if (scrollTowards(pointer)) soon("all");
      brushing.to = cellAt(pointer, true) ?? brushing.to;
      cursor = brushing.to;
    } else cursor = cellAt(pointer);
  };

  /** While brushing beyond an edge, the cells come along. */
  const scrollTowards = (at: { x: number; y: number }): boolean => {
    const edge = scroller.getBoundingClientRect();
    const past = (low: number, high: number, where: number) =>
      where < low ? where - low : where > high ? where - high : 0;
    const [dx, dy] = [
      past(edge.left, edge.left + frame.width, at.x),
      past(edge.top, edge.top + frame.height, at.y),
    ];
    const before = [scroller.scrollLeft, scroller.scrollTop];
    if (dx !== 0 || dy !== 0) scroller.scrollBy(dx / 4, dy / 4);
    return before[0] !== scroller.scrollLeft || before[1] !== scroller.scrollTop;
  };

  const tell = () => {
    if (cursorBy === "point") return;
    const next = isCell(cursor) ? cursor : null;
    if (next?.source === told?.source && next?.destination === told?.destination) return;
    told = next;
    actions.hover(next, cursorBy);
  };

  const reaches = ({ destinations, sources }: Area) =>
    !(picture.cells?.causal ?? false) || sources[0] < destinations[1];

  const on = <Name extends keyof HTMLElementEventMap>(
    name: Name,
    act: (event: HTMLElementEventMap[Name]) => void,
    options: AddEventListenerOptions = {},
  ) => scroller.addEventListener(name, act, { ...options, signal });

  on("pointermove", (event) => {
    pointer = { x: event.clientX, y: event.clientY };
    cursorBy = "pointer";
    soon("over");
  });
  on("pointerleave", () => {
    if (brushing !== null && !brushing.keys) return;
    pointer = null;
    if (cursorBy === "pointer") cursor = null;
    soon("over");
  });
  on("pointerdown", (event) => {
    if (event.button !== 0 || !picture.brush) return;
    const from = cellAt({ x: event.clientX, y: event.clientY });
    if (from === null) return;
    pointer = { x: event.clientX, y: event.clientY };
    brushing = { from, to: from, keys: false };
    // Synthetic events have no pointer to capture.
    if (event.isTrusted) scroller.setPointerCapture(event.pointerId);
    soon("over");
  });
  on("pointerup", () => {
    if (brushing === null || brushing.keys) return;
    follow();
    const area = areaOf(brushing.from, brushing.to);
    brushing = null;
    if (reaches(area)) actions.brush(area);
    soon("over");
  });
  on("pointercancel", () => {
    brushing = null;
    soon("over");
  });
  on("click", (event) => {
    if (picture.brush) return;
    const cell = cellAt({ x: event.clientX, y: event.clientY });
    if (cell !== null) toggle(cell);
  });
  on("scroll", () => soon("all"));
  on(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      wheeled += event.deltaY;
      if (Math.abs(wheeled) < WHEEL_STEP) return;
      step(wheeled < 0 ? 1 : -1, { x: event.clientX, y: event.clientY });
      wheeled = 0;
    },
    { passive: false },
  );
  let wheeled = 0;
  on("blur", () => {
    if (cursorBy !== "keys") return;
    cursor = null;
    brushing = null;
    soon("over");
  });
  on("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || frame.length === 0) return;
    const last = frame.length - 1;
    const page = Math.max(1, Math.floor(frame.height / frame.cell) - 1);
    const at = isCell(cursor) ? cursor : (picture.locked ?? { destination: last, source: 0 });
    const move = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      PageUp: [-page, 0],
      PageDown: [page, 0],
      Home: [0, -last],
      End: [0, last],
    }[event.key];
    if (move !== undefined) {
      // The first key only shows where the cursor is.
      const [down, across] = isCell(cursor) || picture.locked !== null ? move : [0, 0];
      const to = {
        destination: within(at.destination + (down ?? 0), last),
        source: within(at.source + (across ?? 0), last),
      };
      if (picture.brush && event.shiftKey) {
        brushing = { from: brushing?.keys ? brushing.from : at, to, keys: true };
      } else if (brushing?.keys) brushing = null;
      cursor = to;
      cursorBy = "keys";
      reveal(to);
      soon("over");
    } else if (event.key === "Enter" || event.key === " ") {
      if (!isCell(cursor)) return;
      if (picture.brush) {
        const area = areaOf(brushing?.from ?? cursor, cursor);
        brushing = null;
        if (reaches(area)) actions.brush(area);
        soon("over");
      } else toggle(cursor);
    } else if (event.key === "+" || event.key === "=") step(1);
    else if (event.key === "-") step(-1);
    else if (event.key === "0") zoomTo("fit");
    else if (event.key === "Escape" && brushing !== null) {
      brushing = null;
      soon("over");
    } else if (event.key === "Escape" && picture.locked !== null) actions.lock(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  const toggle = (cell: Cell) => {
    const { locked } = picture;
    const same = locked?.source === cell.source && locked?.destination === cell.destination;
    const beyond = (picture.cells?.causal ?? false) && cell.source > cell.destination;
    if (!beyond) actions.lock(same ? null : cell);
  };

  const reveal = ({ destination, source }: Cell) => {
    const { cell, width, height } = frame;
    const into = (at: number, from: number, reach: number) =>
      at * cell < from
        ? at * cell
        : (at + 1) * cell > from + reach
          ? (at + 1) * cell - reach
          : from;
    scroller.scrollTop = into(destination, scroller.scrollTop, height);
    scroller.scrollLeft = into(source, scroller.scrollLeft, width);
  };

  // --- zoom --------------------------------------------------------------------------------------

  const step = (way: 1 | -1, at: { x: number; y: number } | null = null) => {
    const larger_ = ZOOMS.find((each) => each > frame.cell + 0.5);
    const smaller_ = [...ZOOMS].reverse().find((each) => each < frame.cell - 0.5);
    const next = way === 1 ? larger_ : smaller_;
    if (next !== undefined) zoomTo(next, at);
  };

  /** What is under `at` (or in the middle) stays there. */
  const zoomTo = (next: number | "fit", at: { x: number; y: number } | null = null) => {
    const corner = scroller.getBoundingClientRect();
    const [x, y] =
      at === null ? [frame.width / 2, frame.height / 2] : [at.x - corner.left, at.y - corner.top];
    const [across, down] = [
      (scroller.scrollLeft + x) / frame.cell,
      (scroller.scrollTop + y) / frame.cell,
    ];
    wanted = next;
    measure();
    scroller.scrollLeft = across * frame.cell - x;
    scroller.scrollTop = down * frame.cell - y;
    soon("all");
  };

  onResize(box, () => soon("all"), signal);

  return {
    element,
    update(next) {
      if (next.tokens !== picture.tokens) widths.clear();
      picture = next;
      if (!picture.brush) brushing = null;
      set(scroller, { "data-brush": picture.brush });
      soon("all");
    },
    paint(next) {
      theme = next;
      soon("all");
    },
    point(cell) {
      cursor = cell;
      cursorBy = cell === null ? "pointer" : "point";
      soon("over");
    },
    show(cell) {
      if (frame.length === 0) measure();
      reveal(cell);
    },
    visible,
    zoom: () => frame.cell,
    setZoom: (cell) => zoomTo(cell),
  };
}

const SCROLLBAR = 16;
const WHEEL_STEP = 40; // a notch of a wheel is 100, a trackpad sends many small ones

function isCell(cell: Partial<Cell> | null): cell is Cell {
  return cell?.destination !== undefined && cell.source !== undefined;
}

/** The rectangle between two cells, with both. */
function areaOf(a: Cell, b: Cell): Area {
  const span = (from: number, to: number): Span => [Math.min(from, to), Math.max(from, to) + 1];
  return {
    destinations: span(a.destination, b.destination),
    sources: span(a.source, b.source),
  };
}

function within(at: number, last: number): number {
  return Math.min(last, Math.max(0, at));
}

function ceilTo(from: number, step: number): number {
  return Math.ceil(from / step) * step;
}

/** Tiles by their distance from the middle of what is seen. */
function nearest(places: readonly Place[], { destinations, sources }: Area): Place[] {
  const middle = ([from, to]: Span) => (from + to) / 2 / TILE - 0.5;
  const [row, column] = [middle(destinations), middle(sources)];
  const distance = ([r, c]: Place) => (r - row) ** 2 + (c - column) ** 2;
  return [...places].sort((a, b) => distance(a) - distance(b));
}

/** As much of a text as there is room for. */
function cut(pen: CanvasRenderingContext2D, text: string, room: number): string {
  if (pen.measureText(text).width <= room) return text;
  const letters = [...text];
  while (letters.length > 1 && pen.measureText(`${letters.join("")}…`).width > room) letters.pop();
  return `${letters.join("")}…`;
}

/** Slanted lines: what is not a number (strong), or is on its way (quiet, and the other way). */
function hatch(
  pen: CanvasRenderingContext2D,
  theme: Theme,
  strong: boolean,
): CanvasPattern | string {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const lines = tile.getContext("2d");
  if (lines === null) return "transparent";
  lines.strokeStyle = css(theme.ink, strong ? 0.8 : 0.16);
  lines.lineWidth = 1.25;
  for (const shift of [-6, 0, 6]) {
    lines.beginPath();
    lines.moveTo(shift, strong ? 6 : 0);
    lines.lineTo(shift + 6, strong ? 0 : 6);
    lines.stroke();
  }
  return pen.createPattern(tile, "repeat") ?? "transparent";
}

/** Tiles' pictures, so that scrolling computes no colour twice; the latest ones only. */
function bitmapCache() {
  interface Bitmap {
    canvas: HTMLCanvasElement;
    scale: string;
    theme: Theme;
    factors: PatternCells["factors"];
  }
  const known = new Map<Tile, Bitmap>();
  return (
    tile: Tile,
    place: Place,
    cells: PatternCells,
    scale: HeatScale,
    theme: Theme,
  ): HTMLCanvasElement => {
    const name = `${scale.signed} ${scale.peak} ${scale.gamma}`;
    const { factors } = cells;
    let bitmap = known.get(tile);
    const fresh =
      bitmap?.scale === name &&
      bitmap.theme === theme &&
      bitmap.factors.column === factors.column &&
      bitmap.factors.row === factors.row;
    if (bitmap === undefined || !fresh) {
      const canvas = bitmap?.canvas ?? document.createElement("canvas");
      canvas.width = tile.columns;
      canvas.height = tile.rows;
      canvas.getContext("2d")?.putImageData(tilePixels(tile, place, cells, scale, theme), 0, 0);
      bitmap = { canvas, scale: name, theme, factors };
    }
    known.delete(tile);
    known.set(tile, bitmap);
    for (const old of known.keys()) {
      if (known.size <= MOST_BITMAPS) break;
      known.delete(old);
    }
    return bitmap.canvas;
  };
}

const MOST_BITMAPS = 160; // 64 KB each; all of a prompt of 2,048 tokens are 136
