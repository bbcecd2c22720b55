// The large pattern: real pixels of known tiles, scrolling over what is there, and how soon a
// pointer's move is seen.
import "../src/base.css";
import "../src/attention-drawings.css";
import { expect, onTestFinished, test, vi } from "vitest";
import { blues, DARK, LIGHT, type Rgb, redBlue, type Theme } from "../src/colour";
import type { PromptToken } from "../src/messages";
import {
  fittingZoom,
  labelText,
  type Outline,
  type Pattern,
  type PatternPicture,
  pattern,
  plainColours,
  tickStep,
} from "../src/pattern";
import {
  type Area,
  type Cell,
  type Coding,
  codeTable,
  type PatternCells,
  type PatternName,
  type Place,
  patternCells,
  TILE,
  tileCache,
} from "../src/tiles";
import { one, theme as pageTheme, press, until } from "./mount";

const NAME: PatternName = { layer: 5, head: 3, look: "now", mode: "weight", stamp: "a" };
const SHARE = { signed: false, peak: 1, gamma: 1 } as const;

interface Told {
  hover: (Cell | null)[];
  by: string[];
  lock: (Cell | null)[];
  brush: Area[];
  missing: Place[][];
}

interface Stage {
  it: Pattern;
  told: Told;
  base: HTMLCanvasElement;
  over: HTMLCanvasElement;
  scroller: HTMLElement;
  picture: PatternPicture;
  /** Where the cell's middle is on the page. */
  at(cell: Cell): { clientX: number; clientY: number };
  /** The cell's colour on the base canvas. */
  colour(cell: Cell): Rgb;
  show(change: Partial<PatternPicture>): Promise<void>;
}

function words(length: number): PromptToken[] {
  return Array.from({ length }, (_, position) => ({
    position,
    id: position,
    text: ` w${position}`,
    bos: position === 0,
  }));
}

/** Cells whose codes a function of row and column gives; only some tiles, when asked. */
function cellsOf(
  length: number,
  code: (row: number, column: number) => number,
  {
    coding = "share" as Coding,
    causal = true,
    peak = 1,
    only = (_: Place): boolean => true,
    name = NAME,
    column = null as Float32Array | null,
    row = null as Float32Array | null,
  } = {},
): PatternCells {
  const cache = tileCache();
  const places: number[][] = [];
  const bytes: number[] = [];
  const last = Math.ceil(length / TILE);
  for (let r = 0; r < last; r++) {
    for (let c = 0; c < (causal ? r + 1 : last); c++) {
      if (!only([r, c])) continue;
      places.push([r, c]);
      for (let y = r * TILE; y < Math.min(length, (r + 1) * TILE); y++) {
        for (let x = c * TILE; x < Math.min(length, (c + 1) * TILE); x++) {
          if (!(causal && x > y)) bytes.push(code(y, x));
        }
      }
    }
  }
  cache.put(
    {
      of: "tiles",
      ...name,
      coding,
      places,
      peaks: places.map(() => peak),
      cells: Uint8Array.from(bytes),
    },
    length,
    causal,
  );
  return patternCells(cache, name, length, causal, { column, row });
}

async function stage(
  picture: Partial<PatternPicture> & { cells: PatternCells | null },
  { theme = LIGHT, width = 700, length = picture.cells?.length ?? 0 } = {},
): Promise<Stage> {
  pageTheme(theme.dark);
  const controller = new AbortController();
  const told: Told = { hover: [], by: [], lock: [], brush: [], missing: [] };
  const it = pattern(controller.signal, {
    hover: (cell, by) => {
      told.hover.push(cell);
      told.by.push(by);
    },
    lock: (cell) => told.lock.push(cell),
    brush: (area) => told.brush.push(area),
    missing: (tiles) => told.missing.push(tiles),
  });
  const root = document.createElement("div");
  root.className = "pc";
  root.dataset.pcTheme = theme.dark ? "dark" : "light";
  root.style.width = `${width}px`;
  root.append(it.element);
  document.body.append(root);
  onTestFinished(() => {
    controller.abort();
    root.remove();
  });
  const base = one<HTMLCanvasElement>(it.element, ".pc-pattern-cells");
  const scroller = one(it.element, ".pc-pattern-scroll");
  const stage: Stage = {
    it,
    told,
    base,
    over: one(it.element, ".pc-pattern-over"),
    scroller,
    picture: {
      tokens: words(length),
      stale: null,
      scale: SHARE,
      outlines: [],
      locked: null,
      brush: false,
      ...picture,
    },
    at({ destination, source }) {
      const { left, top } = scroller.getBoundingClientRect();
      const cell = it.zoom();
      return {
        clientX: left + (source + 0.5) * cell - scroller.scrollLeft,
        clientY: top + (destination + 0.5) * cell - scroller.scrollTop,
      };
    },
    colour(cell) {
      const { clientX, clientY } = stage.at(cell);
      return pixel(base, clientX, clientY);
    },
    async show(change) {
      stage.picture = { ...stage.picture, ...change };
      it.update(stage.picture);
      await frames(2);
    },
  };
  it.paint(theme);
  await stage.show({});
  return stage;
}

function pixel(canvas: HTMLCanvasElement, x: number, y: number): Rgb {
  const [red, green, blue] = rgba(canvas, x, y);
  return [red ?? 0, green ?? 0, blue ?? 0];
}

/** The pixel of a canvas at a point of the page. */
function rgba(canvas: HTMLCanvasElement, x: number, y: number): Uint8ClampedArray {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  const [across, down] = [(x - box.left) * scale, (y - box.top) * scale].map(Math.floor);
  return penOf(canvas).getImageData(across as number, down as number, 1, 1).data;
}

function penOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const pen = canvas.getContext("2d");
  if (pen === null) throw new Error("a canvas without a pen");
  return pen;
}

const frame = () => new Promise((done) => requestAnimationFrame(done));
async function frames(number: number): Promise<void> {
  for (let i = 0; i < number; i++) await frame();
}

function point(on: Stage, type: string, cell: Cell, init: PointerEventInit = {}): void {
  on.scroller.dispatchEvent(
    new PointerEvent(type, { bubbles: true, button: 0, ...on.at(cell), ...init }),
  );
}

for (const theme of [LIGHT, DARK] as Theme[]) {
  const where = theme.dark ? "dark" : "light";

  test(`known bytes are known colours at known cells (${where})`, async () => {
    const code = (row: number, column: number) => (row * 31 + column * 57) % 255;
    const on = await stage({ cells: cellsOf(9, code) }, { theme });
    const table = codeTable("share");
    for (const [destination, source] of [
      [0, 0],
      [5, 2],
      [8, 8],
      [8, 0],
      [3, 3],
    ] as const) {
      const value = table[code(destination, source)] as number;
      expect(on.colour({ destination, source })).toEqual(blues(value, theme));
    }
    expect(on.colour({ destination: 2, source: 3 })).toEqual(plainColours(theme).beyond);
    expect(plainColours(theme).beyond).not.toEqual(blues(0, theme));
  });

  test(`a difference is blue above zero and red below (${where})`, async () => {
    const cells = cellsOf(4, (row, column) => [128, 254, 2, 191][(row + column) % 4] as number, {
      coding: "signed",
      causal: false,
      peak: 0.5,
      name: { ...NAME, look: "difference" },
    });
    const scale = { signed: true, peak: 0.5, gamma: 1 } as const;
    const on = await stage({ cells, scale }, { theme });
    expect(on.colour({ destination: 0, source: 0 })).toEqual(redBlue(0, theme));
    expect(on.colour({ destination: 0, source: 1 })).toEqual(redBlue(1, theme));
    expect(on.colour({ destination: 0, source: 2 })).toEqual(redBlue(-1, theme));
    expect(on.colour({ destination: 0, source: 3 })).toEqual(
      redBlue(codeTable("signed")[191] as number, theme),
    );
  });

  test(`what is not a number looks like no number (${where})`, async () => {
    const cells = cellsOf(6, (row) => (row === 4 ? 255 : 0));
    const on = await stage({ cells }, { theme });
    const { clientX, clientY } = on.at({ destination: 4, source: 1 });
    const seen = new Set<string>();
    for (let dx = -8; dx < 8; dx++) seen.add(String(pixel(on.base, clientX + dx, clientY)));
    expect(seen.has(String(plainColours(theme).hole))).toBe(true);
    expect(seen.size).toBeGreaterThan(1); // a hatch, not a colour alone
    expect(seen.has(String(blues(0, theme)))).toBe(false);
    expect(on.colour({ destination: 3, source: 1 })).toEqual(blues(0, theme));
  });
}

test("the factors of a mode multiply weights on the way to the colour", async () => {
  const column = Float32Array.from([2, -4, 1, 0, 3, 1]);
  const row = Float32Array.from([1, 1, 0.5, 1, 1, 0]);
  const cells = cellsOf(6, () => 254, {
    column,
    row,
    name: { ...NAME, mode: "contribution" },
  });
  const on = await stage({ cells, scale: { signed: true, peak: 4, gamma: 1 } });
  for (const [destination, source] of [
    [1, 1],
    [2, 0],
    [2, 1],
    [5, 4],
    [4, 3],
  ] as const) {
    const value = ((column[source] as number) * (row[destination] as number)) / 4;
    const want = redBlue(value, LIGHT);
    on.colour({ destination, source }).forEach((part, i) => {
      expect(Math.abs(part - (want[i] as number))).toBeLessThanOrEqual(1);
    });
  }
});

test("the square root shows what is small, and the peak is the same colour", async () => {
  const cells = cellsOf(4, (row) => (row === 0 ? 254 : 150));
  const on = await stage({ cells });
  const [small, top] = [
    on.colour({ destination: 2, source: 0 }),
    on.colour({ destination: 0, source: 0 }),
  ];
  await on.show({ scale: { ...SHARE, gamma: 0.5 } });
  expect(on.colour({ destination: 0, source: 0 })).toEqual(top);
  expect(on.colour({ destination: 2, source: 0 })[0]).toBeLessThan(small[0]);
  const value = codeTable("share")[150] as number;
  expect(on.colour({ destination: 2, source: 0 })).toEqual(blues(Math.sqrt(value), LIGHT));
});

test("2,048 tokens are 2,048 rows: cells keep their size, and only what is seen is asked for", async () => {
  const on = await stage({ cells: cellsOf(2048, () => 0, { only: () => false }) });
  expect(on.it.zoom()).toBe(6);
  expect(on.scroller.scrollWidth).toBe(2048 * 6);
  expect(on.told.missing.at(-1)).toEqual([[0, 0]]);
  on.scroller.scrollTo(0, 1000 * 6);
  await frames(3);
  const { destinations, sources } = on.it.visible();
  expect(destinations[0]).toBe(1000);
  expect(destinations[1] - destinations[0]).toBeLessThan(120);
  expect(sources[0]).toBe(0);
  expect([...(on.told.missing.at(-1) ?? [])].sort()).toEqual([
    [7, 0],
    [8, 0],
  ]);
  on.scroller.scrollTo(1990 * 6, 1990 * 6);
  await frames(3);
  expect(on.told.missing.at(-1)).toEqual([[15, 15]]);
  const asked = on.told.missing.length;
  on.scroller.scrollTo(1990 * 6, 0);
  await frames(3);
  expect(on.it.visible().sources[1]).toBeGreaterThan(2000);
  expect(on.told.missing).toHaveLength(asked); // above the diagonal nothing is on its way
});

test("at the smallest zoom all that is seen is asked for in one request's size, middle first", async () => {
  const on = await stage(
    { cells: cellsOf(2048, () => 0, { only: () => false, causal: false }) },
    { width: 1400 },
  );
  on.it.setZoom(2);
  on.scroller.scrollTo(600, 600);
  await frames(3);
  const asked = on.told.missing.at(-1) ?? [];
  const { destinations, sources } = on.it.visible();
  expect(asked.length).toBeLessThanOrEqual(64);
  expect(asked.length).toBe(
    (Math.ceil(destinations[1] / TILE) - Math.floor(destinations[0] / TILE)) *
      (Math.ceil(sources[1] / TILE) - Math.floor(sources[0] / TILE)),
  );
  const [row, column] = asked[0] as Place;
  expect(Math.abs((row + 0.5) * TILE - (destinations[0] + destinations[1]) / 2)).toBeLessThan(TILE);
  expect(Math.abs((column + 0.5) * TILE - (sources[0] + sources[1]) / 2)).toBeLessThan(TILE);
});

test("across the seam of two tiles every cell is in its place", async () => {
  const code = (row: number, column: number) => 1 + ((row * 3 + column * 7) % 254);
  const on = await stage({ cells: cellsOf(300, code, { causal: false }) });
  for (const zoom of [2, 3, 8, 24]) {
    on.it.setZoom(zoom);
    on.scroller.scrollTo(120 * zoom, 118 * zoom);
    await frames(3);
    for (const destination of [126, 127, 128, 129]) {
      for (const source of [126, 127, 128, 129]) {
        const want = blues(codeTable("share")[code(destination, source)] as number, LIGHT);
        expect(on.colour({ destination, source }), `${destination} ${source} at ${zoom}`).toEqual(
          want,
        );
      }
    }
  }
});

test("a tile that is not there is hatched, and the one that was stays at 60 %", async () => {
  const cells = cellsOf(200, () => 254, { only: ([row]) => row === 1, causal: false });
  const on = await stage({ cells });
  on.it.setZoom(8);
  on.scroller.scrollTo(0, 0);
  await frames(3);
  const start = on.at({ destination: 3, source: 3 });
  const seen = new Set<string>();
  for (let dx = 0; dx < 12; dx++) {
    seen.add(String(pixel(on.base, start.clientX + dx, start.clientY)));
  }
  const dark = blues(1, LIGHT);
  expect(seen.has(String(dark))).toBe(false);
  expect(seen.has(String(LIGHT.background))).toBe(true);
  expect(seen.size).toBeGreaterThan(1);
  await on.show({ stale: cellsOf(200, () => 254, { causal: false }) });
  const faint = on.colour({ destination: 3, source: 3 });
  dark.forEach((part, i) => {
    const want = 0.6 * part + 0.4 * (LIGHT.background[i] as number);
    expect(Math.abs((faint[i] as number) - want)).toBeLessThanOrEqual(2);
  });
  // The new one comes in within 120 ms: nothing jumps.
  const clock = vi.spyOn(performance, "now").mockReturnValue(1000);
  onTestFinished(() => clock.mockRestore());
  await on.show({ cells: cellsOf(200, () => 254, { causal: false }) });
  expect(on.colour({ destination: 3, source: 3 })).toEqual(faint);
  clock.mockReturnValue(1060);
  await frames(2);
  const between = on.colour({ destination: 3, source: 3 });
  expect(between[0]).toBeGreaterThan(dark[0] + 20);
  expect(between[0]).toBeLessThan(faint[0] - 20);
  clock.mockReturnValue(1120);
  await frames(2);
  expect(on.colour({ destination: 3, source: 3 })).toEqual(dark);
});

test("a move of the pointer is painted within two frames at 2,048 tokens, and repaints no cell", async () => {
  const on = await stage({ cells: cellsOf(2048, (row, column) => 1 + ((row + column) % 254)) });
  on.it.setZoom(2);
  on.scroller.scrollTo(0, 900);
  await frames(3);
  const draws = countDraws(on.base);
  const waits: number[] = [];
  for (let i = 0; i < 20; i++) {
    const cell = { destination: 500 + 7 * i, source: 20 + 11 * i };
    const { clientX, clientY } = on.at(cell);
    expect(pixel(on.over, clientX, clientY - 60)).toEqual([0, 0, 0]);
    point(on, "pointermove", cell);
    let frames_ = 0;
    // The row's line beside the cell: opaque there, and nothing before.
    while (alpha(on.over, clientX - 30, clientY + 1.5) === 0 && frames_ < 10) {
      await frame();
      frames_ += 1;
    }
    waits.push(frames_);
  }
  expect(Math.max(...waits)).toBeLessThanOrEqual(2);
  expect(on.told.hover).toHaveLength(20);
  expect(draws()).toBe(0);
});

/** Counts what is drawn on a canvas from now on. */
function countDraws(canvas: HTMLCanvasElement): () => number {
  const pen = penOf(canvas);
  let drawn = 0;
  const draw = pen.drawImage.bind(pen) as (...args: unknown[]) => void;
  pen.drawImage = ((...args: unknown[]) => {
    drawn += 1;
    draw(...args);
  }) as typeof pen.drawImage;
  return () => drawn;
}

function alpha(canvas: HTMLCanvasElement, x: number, y: number): number {
  return rgba(canvas, x, y)[3] ?? 0;
}

test("a pointer previews, a click locks, the same click lets go; above the diagonal nothing locks", async () => {
  const on = await stage({ cells: cellsOf(10, () => 100) });
  point(on, "pointermove", { destination: 7, source: 2 });
  point(on, "pointermove", { destination: 7, source: 3 });
  await frames(2);
  expect(on.told.hover).toEqual([{ destination: 7, source: 3 }]); // one a frame
  expect(on.told.by).toEqual(["pointer"]);
  point(on, "click", { destination: 7, source: 3 });
  expect(on.told.lock).toEqual([{ destination: 7, source: 3 }]);
  await on.show({ locked: { destination: 7, source: 3 } });
  point(on, "click", { destination: 7, source: 3 });
  expect(on.told.lock.at(-1)).toBeNull();
  point(on, "click", { destination: 2, source: 7 });
  expect(on.told.lock).toHaveLength(2);
  point(on, "pointerleave", { destination: 0, source: 0 });
  await frames(2);
  expect(on.told.hover.at(-1)).toBeNull();
});

test("the keyboard walks cells, locks them, zooms, and scrolls what it walks to into view", async () => {
  const on = await stage({ cells: cellsOf(400, () => 100) });
  on.scroller.focus();
  press(on.scroller, "ArrowUp");
  await frames(3);
  expect(on.told.hover).toEqual([{ destination: 399, source: 0 }]);
  expect(on.told.by).toEqual(["keys"]);
  expect(on.it.visible().destinations[1]).toBe(400);
  press(on.scroller, "ArrowUp");
  press(on.scroller, "ArrowRight");
  press(on.scroller, "ArrowRight");
  await frames(2);
  expect(on.told.hover.at(-1)).toEqual({ destination: 398, source: 2 });
  press(on.scroller, "Enter");
  expect(on.told.lock).toEqual([{ destination: 398, source: 2 }]);
  press(on.scroller, "End");
  await frames(3);
  expect(on.told.hover.at(-1)).toEqual({ destination: 398, source: 399 });
  expect(on.it.visible().sources[1]).toBe(400);
  const before = on.it.zoom();
  press(on.scroller, "+");
  await frames(2);
  expect(on.it.zoom()).toBeGreaterThan(before);
  press(on.scroller, "0");
  await frames(2);
  expect(on.it.zoom()).toBe(before);
});

test("a brush gives the rectangle between where it began and ended, keys too", async () => {
  const on = await stage({ cells: cellsOf(12, () => 100), brush: true });
  point(on, "pointerdown", { destination: 9, source: 5 });
  point(on, "pointermove", { destination: 6, source: 2 });
  await frames(2);
  point(on, "pointerup", { destination: 6, source: 2 });
  expect(on.told.brush).toEqual([{ destinations: [6, 10], sources: [2, 6] }]);
  expect(on.told.lock).toEqual([]);
  // Wholly above the diagonal there is nothing to knock out.
  point(on, "pointerdown", { destination: 1, source: 8 });
  point(on, "pointerup", { destination: 1, source: 8 });
  expect(on.told.brush).toHaveLength(1);
  point(on, "pointerleave", { destination: 1, source: 8 });
  await frames(2);
  press(on.scroller, "ArrowUp");
  press(on.scroller, "ArrowUp", { shiftKey: true });
  press(on.scroller, "ArrowRight", { shiftKey: true });
  press(on.scroller, "Enter");
  expect(on.told.brush.at(-1)).toEqual({ destinations: [10, 12], sources: [0, 2] });
});

test("what is knocked out is outlined on the cells", async () => {
  const outline: Outline = { destinations: [4, 6], sources: [1, 3], muted: false };
  const on = await stage({ cells: cellsOf(8, () => 0) });
  const corner = on.at({ destination: 4, source: 1 });
  const half = on.it.zoom() / 2;
  const edge = () => pixel(on.base, corner.clientX, corner.clientY - half);
  const plain = edge();
  await on.show({ outlines: [outline] });
  expect(edge()[0]).toBeLessThan(plain[0] - 60);
  expect(on.colour({ destination: 4, source: 1 })).toEqual(blues(0, LIGHT));
});

test("labels show what cannot be seen, and turn nobody's text around", () => {
  const label = (text: string) => labelText({ position: 1, id: 1, text, bos: false });
  expect(label(" Paris")).toBe("·Paris");
  expect(label("\n\n")).toBe("↵↵");
  expect(label("\ta\r")).toBe("⇥a␍");
  expect(label("")).toBe("∅");
  expect(label("\u202eabc")).toBe("␣abc");
  expect(label("\u0007")).toBe("␇");
  expect(label("<script>")).toBe("<script>");
  expect(label("שלום")).toBe("שלום");
  expect(labelText({ position: 0, id: 1, text: "<|im_start|>", bos: true })).toBe("BOS");
});

test("a zoom fits what can be seen whole, and never goes below 6 by itself", () => {
  const room = () => [600, 500] as const;
  expect(fittingZoom(10, room)).toBe(24);
  expect(fittingZoom(30, room)).toBe(16);
  expect(fittingZoom(62, room)).toBe(8);
  expect(fittingZoom(84, room)).toBe(6);
  expect(fittingZoom(2048, room)).toBe(6);
  expect([2, 6, 8, 2].map((cell, i) => tickStep(cell, [14, 14, 14, 30][i] as number))).toEqual([
    10, 5, 5, 50,
  ]);
});

test("an empty picture, one token, and no head are drawn without a word of complaint", async () => {
  const none = await stage({ cells: null }, { length: 0 });
  expect(none.it.visible()).toEqual({ destinations: [0, 0], sources: [0, 0] });
  const one = await stage({ cells: cellsOf(1, () => 254) });
  await until(() => one.it.zoom() === 24);
  expect(one.colour({ destination: 0, source: 0 })).toEqual(blues(1, LIGHT));
  const waiting = await stage({ cells: null }, { length: 5 });
  expect(waiting.told.missing).toEqual([]);
});
