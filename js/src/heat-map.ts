// A heat map of few rows and columns with its labels, painted on one canvas: what is not measured
// yet is hatched, what is taken out is crossed. Click presses a cell, double-click solos it, a drag
// or Shift with the arrows takes many.
//
// Classes: .pc-heat-map (scrolls sideways) > .pc-heat-cells (focusable) > two canvases
import { drawTip, onResize, surface } from "./canvas";
import { css, inkOn, LIGHT, type Theme } from "./colour";
import { h, set } from "./dom";
import { type HeatScale, heatColour, mix } from "./heat-bar";

/** A piece of a column's label; a mark stands for a space or a newline and is drawn fainter. */
export interface LabelPiece {
  text: string;
  mark: boolean;
}

export interface HeatMapPicture {
  /** Labels, top to bottom. */
  rows: readonly string[];
  /** Labels, left to right. */
  columns: readonly (readonly LabelPiece[])[];
  /** Labels of columns are written upwards. */
  turned: boolean;
  /** [rows, columns]; NaN where it is not measured yet. */
  values: Float32Array;
  /** What lies under the hatching of such a cell: an estimate. */
  beneath?: Float32Array;
  scale: HeatScale;
  /** Of something that was: drawn at 60 %. */
  stale: boolean;
  /** The column that stands apart from those before it. */
  apart: number | null;
  /** Cells that are taken out, and those that would be if they were not muted. */
  crossed: ReadonlySet<number>;
  dashed: ReadonlySet<number>;
  selected: ReadonlySet<number>;
  /** What is said of a cell under the pointer. */
  note(cell: number): string;
}

export interface HeatMapActions {
  hover(cell: number | null, by: "pointer" | "keys"): void;
  /** `more`: beside what is selected. */
  press(cell: number, more: boolean): void;
  solo?(cell: number): void;
  /** Many at once. Absent: nothing can be brushed. */
  brush?(cells: number[]): void;
}

export interface HeatMap {
  element: HTMLElement;
  update(picture: HeatMapPicture): void;
  /** Marks a cell that is looked at elsewhere. */
  point(cell: number | null): void;
  paint(theme: Theme): void;
}

const WIDEST = 44;
const NARROWEST = 12;
const TALLEST = 720; // all rows, where that leaves cells that are easily hit
const ROW = [24, 34] as const;
const LONGEST = 110; // of a label that is written upwards
const REACH = 8000; // pixels of a canvas
const DRAGGED = 4; // pixels that make a drag of a press

/** Where the cells lie, in CSS pixels. */
interface Layout {
  left: number;
  top: number;
  /** From one cell to the next. */
  across: number;
  down: number;
  gap: number;
  unit: number;
  /** Every how many columns a label fits. */
  every: number;
}

export function heatMap(signal: AbortSignal, name: string, actions: HeatMapActions): HeatMap {
  const base = h("canvas", { class: "pc-heat-base", "aria-hidden": "true" });
  const over = h("canvas", { class: "pc-heat-over", "aria-hidden": "true" });
  const cells = h(
    "div",
    { class: "pc-heat-cells", tabindex: 0, role: "application", "aria-label": name },
    base,
    over,
  );
  const element = h("div", { class: "pc-heat-map" }, cells);
  let picture: HeatMapPicture = {
    rows: [],
    columns: [],
    turned: false,
    values: new Float32Array(),
    scale: { signed: true, peak: 1, gamma: 1 },
    stale: false,
    apart: null,
    crossed: new Set(),
    dashed: new Set(),
    selected: new Set(),
    note: () => "",
  };
  let theme = LIGHT;
  let layout: Layout = { left: 0, top: 0, across: 1, down: 1, gap: 1, unit: 1, every: 1 };
  /** The cell that is looked at: under the pointer, where the keys are, or pointed to elsewhere. */
  let hovered: number | null = null;
  let pointed: number | null = null;
  let told: number | null = null;
  /** Two corners of what is being brushed. */
  let brushing: { from: number; to: number; keys: boolean } | null = null;
  let held: { cell: number; x: number; y: number } | null = null;
  let brushed = false; // the click that ends a drag is none

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
    paintOver();
  };
  signal.addEventListener("abort", () => cancelAnimationFrame(ticket), { once: true });

  const columns = () => picture.columns.length;
  const count = () => picture.rows.length * columns();
  const boxOf = (cell: number) => {
    const { left, top, across, down, gap } = layout;
    const [row, column] = [Math.floor(cell / columns()), cell % columns()];
    const shift = picture.apart !== null && column >= picture.apart ? APART * layout.unit : 0;
    return {
      x: left + column * across + shift,
      y: top + row * down,
      width: across - gap,
      height: down - gap,
    };
  };
  const cellAt = (x: number, y: number, clamped = false): number | null => {
    const box = cells.getBoundingClientRect();
    const { left, top, across, down, unit } = layout;
    const apart = picture.apart;
    const from = x - box.left - left;
    const shift = apart !== null && from >= apart * across + APART * unit ? APART * unit : 0;
    let column = Math.floor((from - shift) / across);
    if (apart !== null && shift === 0) column = Math.min(column, apart - 1);
    let row = Math.floor((y - box.top - top) / down);
    if (clamped) {
      column = Math.min(columns() - 1, Math.max(0, column));
      row = Math.min(picture.rows.length - 1, Math.max(0, row));
    }
    const inside = column >= 0 && column < columns() && row >= 0 && row < picture.rows.length;
    return inside ? row * columns() + column : null;
  };
  const inBrush = (): number[] => {
    if (brushing === null) return [];
    const wide = columns();
    const span = (a: number, b: number) => [Math.min(a, b), Math.max(a, b)] as const;
    const [r0, r1] = span(Math.floor(brushing.from / wide), Math.floor(brushing.to / wide));
    const [c0, c1] = span(brushing.from % wide, brushing.to % wide);
    const result: number[] = [];
    for (let r = r0; r <= r1; r++) for (let c = c0; c <= c1; c++) result.push(r * wide + c);
    return result;
  };
  const hover = (cell: number | null, by: "pointer" | "keys") => {
    hovered = cell;
    soon("over");
    if (told === cell) return;
    told = cell;
    actions.hover(cell, by);
  };

  const arrange = () => {
    const scale = globalThis.devicePixelRatio || 1;
    const sharp = (x: number) => Math.round(x * scale) / scale;
    const style = getComputedStyle(cells);
    const unit = Number.parseFloat(style.fontSize) / 13;
    const pen = base.getContext("2d");
    const wide = (words: string) => pen?.measureText(words).width ?? 0;
    if (pen !== null) pen.font = `${10 * unit}px ${style.fontFamily}`;
    const left = sharp(Math.max(0, ...picture.rows.map(wide)) + 6 * unit);
    const longest = Math.max(0, ...picture.columns.map((label) => wide(wordsOf(label))));
    const top = sharp(picture.turned ? Math.min(longest, LONGEST * unit) + 8 * unit : 16 * unit);
    const gap = sharp(1);
    const apart = picture.apart === null ? 0 : APART * unit;
    const room = element.clientWidth - left - apart - 1;
    const least = Math.min(NARROWEST * unit, REACH / Math.max(1, columns()));
    const fits = room / Math.max(1, columns());
    // Whole pixels of the screen, or cells differ and their edges blur.
    const across = sharp(
      Math.floor(Math.max(least, Math.min(WIDEST * unit, fits)) * scale) / scale,
    );
    const high = (TALLEST * unit) / Math.max(1, picture.rows.length);
    const down = sharp(Math.min(ROW[1] * unit, Math.max(ROW[0] * unit, high)));
    const label = picture.turned
      ? 11 * unit
      : Math.max(0, ...picture.columns.map((each) => wide(wordsOf(each)))) + 4;
    layout = { left, top, across, down, gap, unit, every: Math.max(1, Math.ceil(label / across)) };
    set(cells, {
      style: `width:${left + columns() * across + apart}px;height:${top + picture.rows.length * down}px`,
    });
  };

  const paintBase = () => {
    arrange();
    const on = surface(base);
    if (on === null) return;
    const { pen } = on;
    const { left, top, across, down, gap, unit, every } = layout;
    pen.globalAlpha = picture.stale ? 0.6 : 1;
    const edge = css(mix(theme.background, theme.ink, 0.1));
    const line = css(mix(theme.background, theme.ink, 0.34));
    for (let cell = 0; cell < count(); cell++) {
      const { x, y, width, height } = boxOf(cell);
      const value = picture.values[cell] ?? Number.NaN;
      if (Number.isNaN(value)) {
        const guess = picture.beneath?.[cell] ?? 0;
        pen.fillStyle = css(heatColour(Number.isNaN(guess) ? 0 : guess, picture.scale, theme));
        pen.fillRect(x, y, width, height);
        hatch(pen, x, y, width, height, 5 * unit, line);
      } else {
        pen.fillStyle = css(heatColour(value, picture.scale, theme));
        pen.fillRect(x, y, width, height);
      }
    }
    // A cell near zero is as pale as the page: lines between the cells show that they are there.
    pen.fillStyle = edge;
    for (let row = 0; row <= picture.rows.length; row++) {
      const y = top + row * down - gap;
      for (const [from, to] of spans()) {
        const first = boxOf(from);
        const last = boxOf(to);
        pen.fillRect(first.x - gap, y, last.x + last.width - first.x + 2 * gap, gap);
      }
    }
    for (const [from, to] of spans()) {
      for (let column = from; column <= to; column++) {
        pen.fillRect(boxOf(column).x - gap, top - gap, gap, picture.rows.length * down);
      }
      const last = boxOf(to);
      pen.fillRect(last.x + last.width, top - gap, gap, picture.rows.length * down);
    }
    // Numbers may be stale; what is taken out is not.
    pen.globalAlpha = 1;
    for (const cell of picture.dashed) cross(pen, cell, true);
    for (const cell of picture.crossed) cross(pen, cell, false);
    const { fontFamily } = getComputedStyle(base);
    pen.font = `${10 * unit}px ${fontFamily}`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    pen.fillStyle = css(theme.ink, 0.7);
    picture.rows.forEach((label, row) => {
      pen.fillText(label, left - 5 * unit, top + row * down + (down - gap) / 2);
    });
    for (let column = 0; column < columns(); column += every) {
      const { x, width } = boxOf(column);
      const pieces = picture.columns[column] ?? [];
      if (picture.turned) {
        pen.save();
        pen.beginPath();
        pen.rect(x - across, 0, 3 * across, top - 4 * unit);
        pen.clip();
        pen.translate(x + width / 2, top - 5 * unit);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "left";
        writePieces(pen, pieces, 0);
        pen.restore();
      } else {
        pen.textAlign = "center";
        pen.fillStyle = css(theme.ink, 0.7);
        pen.fillText(wordsOf(pieces), x + width / 2, top - 8 * unit);
      }
    }
    // The column that stands apart has a name of its own, whether or not it is its turn.
    if (picture.apart !== null && picture.apart % every !== 0 && !picture.turned) {
      const { x, width } = boxOf(picture.apart);
      pen.textAlign = "center";
      pen.fillText(wordsOf(picture.columns[picture.apart] ?? []), x + width / 2, top - 8 * unit);
    }
  };

  const writePieces = (
    pen: CanvasRenderingContext2D,
    pieces: readonly LabelPiece[],
    at: number,
  ) => {
    let x = at;
    for (const { text, mark } of pieces) {
      pen.fillStyle = css(theme.ink, mark ? 0.4 : 0.75);
      pen.fillText(text, x, 0);
      x += pen.measureText(text).width;
    }
  };

  /** Runs of columns without a gap, as their first and last. */
  const spans = (): [number, number][] => {
    const last = columns() - 1;
    const { apart } = picture;
    if (last < 0) return [];
    if (apart === null || apart <= 0 || apart > last) return [[0, last]];
    return [
      [0, apart - 1],
      [apart, last],
    ];
  };

  const cross = (pen: CanvasRenderingContext2D, cell: number, muted: boolean) => {
    if (cell < 0 || cell >= count()) return;
    const { x, y, width, height } = boxOf(cell);
    const value = picture.values[cell] ?? Number.NaN;
    const ground = Number.isNaN(value) ? theme.background : heatColour(value, picture.scale, theme);
    pen.save();
    pen.lineWidth = 1.5 * layout.unit;
    pen.strokeStyle = css(inkOn(ground, theme));
    if (muted) pen.setLineDash([2.5 * layout.unit, 2.5 * layout.unit]);
    pen.strokeRect(x + 1, y + 1, width - 2, height - 2);
    if (!muted) {
      // A cross of a fixed slant: a long cell's diagonals would look like a line.
      const reach = Math.min(width, height) / 2 - 4 * layout.unit;
      const [cx, cy] = [x + width / 2, y + height / 2];
      pen.beginPath();
      pen.moveTo(cx - reach, cy - reach);
      pen.lineTo(cx + reach, cy + reach);
      pen.moveTo(cx + reach, cy - reach);
      pen.lineTo(cx - reach, cy + reach);
      pen.stroke();
    }
    pen.restore();
  };

  const paintOver = () => {
    const on = surface(over);
    if (on === null) return;
    const { pen, unit } = on;
    const style = getComputedStyle(over);
    const accent = style.getPropertyValue("--pc-accent").trim() || "#1976d2";
    pen.strokeStyle = accent;
    pen.lineWidth = 2 * unit;
    for (const cell of picture.selected) {
      if (cell < 0 || cell >= count()) continue;
      const { x, y, width, height } = boxOf(cell);
      pen.strokeRect(x - 1, y - 1, width + 2, height + 2);
    }
    if (brushing !== null) {
      const [a, b] = [boxOf(brushing.from), boxOf(brushing.to)];
      const [x, y] = [Math.min(a.x, b.x), Math.min(a.y, b.y)];
      const right = Math.max(a.x + a.width, b.x + b.width);
      const bottom = Math.max(a.y + a.height, b.y + b.height);
      pen.globalAlpha = 0.2;
      pen.fillStyle = accent;
      pen.fillRect(x, y, right - x, bottom - y);
      pen.globalAlpha = 1;
      pen.setLineDash([4 * unit, 3 * unit]);
      pen.strokeRect(x - 1, y - 1, right - x + 2, bottom - y + 2);
      pen.setLineDash([]);
    }
    const looked = hovered ?? pointed;
    if (looked === null || looked >= count()) return;
    const box = boxOf(looked);
    pen.strokeStyle = css(theme.ink);
    pen.lineWidth = 1;
    pen.strokeRect(box.x - 0.5, box.y - 0.5, box.width + 1, box.height + 1);
    if (hovered !== null) drawTip(on, picture.note(looked), box, style.fontFamily, theme);
  };

  // --- gestures ---
  const on = <Name extends keyof HTMLElementEventMap>(
    name: Name,
    act: (event: HTMLElementEventMap[Name]) => void,
  ) => cells.addEventListener(name, act, { signal });

  on("pointerdown", (event) => {
    brushed = false;
    const cell = cellAt(event.clientX, event.clientY);
    // A finger scrolls.
    if (cell === null || event.button !== 0 || event.pointerType === "touch") return;
    held = { cell, x: event.clientX, y: event.clientY };
  });
  on("pointermove", (event) => {
    if (held !== null && actions.brush !== undefined) {
      const far = Math.hypot(event.clientX - held.x, event.clientY - held.y) > DRAGGED;
      if (brushing === null && far) {
        cells.setPointerCapture(event.pointerId);
        brushing = { from: held.cell, to: held.cell, keys: false };
      }
    }
    if (brushing !== null && !brushing.keys) {
      brushing.to = cellAt(event.clientX, event.clientY, true) ?? brushing.to;
      hover(brushing.to, "pointer");
    } else {
      hover(cellAt(event.clientX, event.clientY), "pointer");
    }
  });
  const letGo = (event: PointerEvent) => {
    held = null;
    if (brushing === null || brushing.keys) return;
    const taken = event.type === "pointerup" ? inBrush() : [];
    brushing = null;
    brushed = true;
    soon("over");
    if (taken.length > 0) actions.brush?.(taken);
  };
  on("pointerup", letGo);
  on("pointercancel", letGo);
  on("pointerleave", () => {
    if (brushing === null) hover(null, "pointer");
  });
  on("click", (event) => {
    const cell = cellAt(event.clientX, event.clientY);
    if (cell === null || brushed || event.detail > 1) return;
    actions.press(cell, event.shiftKey || event.ctrlKey || event.metaKey);
  });
  on("dblclick", (event) => {
    const cell = cellAt(event.clientX, event.clientY);
    if (cell !== null) actions.solo?.(cell);
  });
  on("blur", () => {
    brushing = null;
    hover(null, "keys");
  });
  on("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || count() === 0) return;
    const wide = columns();
    const from = hovered ?? [...picture.selected][0] ?? -1;
    const [row, column] = [Math.floor(from / wide), from % wide];
    const last = picture.rows.length - 1;
    const at = (r: number, c: number) =>
      Math.min(last, Math.max(0, r)) * wide + Math.min(wide - 1, Math.max(0, c));
    const to = {
      ArrowLeft: at(row, column - 1),
      ArrowRight: at(row, column + 1),
      ArrowUp: at(row - 1, column),
      ArrowDown: at(row + 1, column),
      Home: at(row, 0),
      End: at(row, wide - 1),
      PageUp: at(0, column),
      PageDown: at(last, column),
    }[event.key];
    if (to !== undefined) {
      // The first key only shows where one is.
      const next = from < 0 ? 0 : to;
      if (event.shiftKey && actions.brush !== undefined && from >= 0) {
        brushing = { from: brushing?.keys ? brushing.from : from, to: next, keys: true };
      } else brushing = null;
      hover(next, "keys");
      reveal(next);
    } else if (event.key === "Escape" && brushing !== null) {
      brushing = null;
      soon("over");
    } else if ((event.key === "Enter" || event.key === " ") && hovered !== null) {
      const taken = inBrush();
      brushing = null;
      if (taken.length > 1) actions.brush?.(taken);
      else if (event.shiftKey && actions.solo !== undefined) actions.solo(hovered);
      else actions.press(hovered, false);
      soon("over");
    } else if (event.key === "+" && hovered !== null) {
      actions.press(hovered, true);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** Many columns scroll sideways: as little as need be. */
  const reveal = (cell: number) => {
    const { x, width } = boxOf(cell);
    if (x < element.scrollLeft) element.scrollLeft = x - layout.left;
    else if (x + width > element.scrollLeft + element.clientWidth) {
      element.scrollLeft = x + width - element.clientWidth;
    }
  };

  onResize(element, () => soon("all"), signal);

  return {
    element,
    update(next) {
      picture = next;
      if (hovered !== null && hovered >= count()) hovered = null;
      soon("all");
    },
    point(cell) {
      if (pointed === cell) return;
      pointed = cell;
      soon("over");
    },
    paint(next) {
      theme = next;
      soon("all");
    },
  };
}

const APART = 6; // between heads and the MLP

function wordsOf(label: readonly LabelPiece[]): string {
  return label.map((piece) => piece.text).join("");
}

/** Slanted lines inside a box. */
function hatch(
  pen: CanvasRenderingContext2D,
  x: number,
  y: number,
  width: number,
  height: number,
  step: number,
  colour: string,
): void {
  pen.save();
  pen.beginPath();
  pen.rect(x, y, width, height);
  pen.clip();
  pen.strokeStyle = colour;
  pen.lineWidth = 1;
  pen.beginPath();
  // Lines run on from cell to cell: they start where the whole picture's do.
  const first = Math.floor((x - y - height) / step) * step;
  for (let from = first; from < x + width - y; from += step) {
    pen.moveTo(y + from, y);
    pen.lineTo(y + height + from, y + height);
  }
  pen.stroke();
  pen.restore();
}
