// All heads on one canvas: real pixels of known thumbs, and what keys and pointers do.
import "../src/base.css";
import "../src/attention-drawings.css";
import { expect, onTestFinished, test } from "vitest";
import { blues, DARK, LIGHT, type Rgb, redBlue, type Theme } from "../src/colour";
import {
  addressOf,
  fill,
  type HeadAddress,
  type HeadsPicture,
  headsGrid,
  shrink,
  type Thumbs,
  thumbsOf,
  thumbsPeak,
} from "../src/heads-grid";
import { mix } from "../src/heat-bar";
import { codeTable } from "../src/tiles";
import { one, theme as pageTheme, press } from "./mount";

const frame = () => new Promise((done) => requestAnimationFrame(done));

/** One layer of thumbs whose codes a function of head, row and column gives. */
function layerOf(
  heads: number,
  n: number,
  code: (head: number, row: number, column: number) => number,
  change: Partial<Thumbs> = {},
): Thumbs {
  const codes = new Uint8Array(heads * n * n);
  for (let i = 0; i < codes.length; i++) {
    codes[i] = code(Math.floor(i / (n * n)), Math.floor(i / n) % n, i % n);
  }
  const peaks = new Float32Array(heads).fill(1);
  return { codes, n, coding: "share", peaks, block: 1, stale: false, ...change };
}

interface Stage {
  element: HTMLElement;
  told: [what: string, head: string][];
  show(change: Partial<HeadsPicture>): Promise<void>;
  /** The colour at a share of a square: (0, 0) is its upper left corner. */
  colour(index: number, across?: number, down?: number): Rgb;
  at(index: number, across?: number, down?: number): { clientX: number; clientY: number };
  side: number;
}

async function stage(
  change: Partial<HeadsPicture>,
  { theme = LIGHT as Theme, width = 400 } = {},
): Promise<Stage> {
  pageTheme(theme.dark);
  const told: Stage["told"] = [];
  const controller = new AbortController();
  const name = (head: HeadAddress | null) => (head === null ? "" : addressOf(head));
  const grid = headsGrid(controller.signal, {
    hover: (head, by) => told.push([by, name(head)]),
    lock: (head) => told.push(["lock", name(head)]),
    solo: (head) => told.push(["solo", name(head)]),
  });
  const root = document.createElement("div");
  root.className = "pc";
  root.style.width = `${width}px`;
  root.append(grid.element);
  document.body.append(root);
  onTestFinished(() => {
    controller.abort();
    root.remove();
  });
  let picture: HeadsPicture = {
    layers: 3,
    heads: 4,
    thumbs: new Map(),
    order: null,
    selected: null,
    touched: [],
    scale: { signed: false, peak: 1, gamma: 1 },
    note: () => "",
    ...change,
  };
  const canvas = one<HTMLCanvasElement>(grid.element, ".pc-heads-cells");
  grid.paint(theme);
  let found: ReturnType<typeof squares> | null = null;
  const where = () => {
    found ??= squares(canvas, picture);
    return found;
  };
  const result: Stage = {
    element: grid.element,
    told,
    side: 0,
    async show(next) {
      picture = { ...picture, ...next };
      found = null;
      grid.update(picture);
      await frame();
      await frame();
    },
    at(index, across = 0.5, down = 0.5) {
      const { left, top } = grid.element.getBoundingClientRect();
      const { columns, x, y, step, side } = where();
      return {
        clientX: left + x + (index % columns) * step + across * side,
        clientY: top + y + Math.floor(index / columns) * step + down * side,
      };
    },
    colour(index, across, down) {
      const { clientX, clientY } = result.at(index, across, down);
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / box.width;
      const [red, green, blue] = penOf(canvas).getImageData(
        Math.floor((clientX - box.left) * scale),
        Math.floor((clientY - box.top) * scale),
        1,
        1,
      ).data;
      return [red ?? 0, green ?? 0, blue ?? 0];
    },
  };
  await result.show({});
  result.side = where().side;
  return result;
}

function penOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const pen = canvas.getContext("2d");
  if (pen === null) throw new Error("a canvas without a pen");
  return pen;
}

/** Where the squares lie, found on the picture: around each there is an edge of one colour. */
function squares(canvas: HTMLCanvasElement, { heads, order }: HeadsPicture) {
  const scale = canvas.width / canvas.getBoundingClientRect().width;
  const { data, width, height } = penOf(canvas).getImageData(0, 0, canvas.width, canvas.height);
  const edge = (x: number, y: number) =>
    EDGES.includes(String(data.subarray((y * width + x) * 4, (y * width + x) * 4 + 4)));
  /** Where the longest run of edge pixels down a column begins; null where none is long. */
  const start = (x: number): number | null => {
    let [best, from, at] = [8, null as number | null, 0];
    for (let y = 0; y <= height; y++) {
      if (y < height && edge(x, y)) continue;
      if (y - at > best) [best, from] = [y - at, at];
      at = y + 1;
    }
    return from;
  };
  const sides = Array.from({ length: width }, (_, x) => x).filter((x) => start(x) !== null);
  const [left = 0, right = 0, next = 0] = sides;
  const [x, y, step] = [left + 1, (start(left) ?? 0) + 1, next - left];
  const columns = order === null ? heads : Math.floor((width - x) / step);
  return {
    x: x / scale,
    y: y / scale,
    side: (right - x) / scale,
    step: step / scale,
    columns,
  };
}

const EDGES = [LIGHT, DARK].map((theme) => [...mix(theme.background, theme.ink, 0.16), 255].join());

for (const theme of [LIGHT, DARK]) {
  test(`a head's pattern is in its layer's row and its own column (${theme.dark ? "dark" : "light"})`, async () => {
    // Each head of each layer has its own upper left quarter.
    const code = (layer: number) => (head: number, row: number, column: number) =>
      row < 2 && column < 2 ? 254 - 12 * (layer * 4 + head) : 0;
    const on = await stage(
      { thumbs: new Map([0, 1, 2].map((layer) => [layer, layerOf(4, 4, code(layer))])) },
      { theme },
    );
    for (let index = 0; index < 12; index++) {
      const value = codeTable("share")[254 - 12 * index] as number;
      expect(on.colour(index, 0.25, 0.25), `head ${index}`).toEqual(blues(value, theme));
      expect(on.colour(index, 0.75, 0.25)).toEqual(blues(0, theme));
      expect(on.colour(index, 0.25, 0.75)).toEqual(blues(0, theme));
    }
  });
}

test("the pixels of a small pattern are of one size, or differ by one where room would be lost", async () => {
  for (const n of [5, 7, 16, 24, 30, 44]) {
    const on = await stage({
      layers: 1,
      thumbs: new Map([[0, layerOf(4, n, (_, row, column) => ((row + column) % 2 ? 254 : 0))]]),
    });
    const pixels = Math.round(on.side * globalThis.devicePixelRatio);
    expect(pixels, `${n}`).toBe(fill(n, 44));
    const runs: number[] = [];
    let last = "";
    for (let x = 0; x < pixels; x++) {
      const colour = String(on.colour(0, (x + 0.5) / pixels, 0.5 / pixels));
      if (colour === last) runs[runs.length - 1] = (runs.at(-1) ?? 0) + 1;
      else runs.push(1);
      last = colour;
    }
    expect(runs, `${n}`).toHaveLength(n);
    expect(Math.max(...runs) - Math.min(...runs), `${n}: ${runs}`).toBeLessThanOrEqual(1);
  }
  for (let n = 1; n < 60; n++) {
    for (const room of [12, 25, 44, 88]) {
      expect(fill(n, room)).toBeGreaterThanOrEqual(0.85 * room);
      expect(fill(n, room)).toBeLessThanOrEqual(room);
    }
  }
  expect(fill(22, 44)).toBe(44);
  expect(fill(24, 26)).toBe(24);
});

test("differences are red and blue on one scale for all heads", async () => {
  const peaks = Float32Array.from([0.5, 0.25, 0.5, 0.5]);
  const thumbs = new Map([
    [0, layerOf(4, 2, (head) => (head === 2 ? 2 : 254), { coding: "signed", peaks })],
  ]);
  expect(thumbsPeak(thumbs)).toBe(0.5);
  const scale = { signed: true, peak: 0.5, gamma: 1 } as const;
  const on = await stage({ layers: 1, thumbs, scale });
  expect(on.colour(0, 0.25, 0.25)).toEqual(redBlue(1, LIGHT));
  expect(on.colour(1, 0.25, 0.25)).toEqual(redBlue(0.5, LIGHT));
  expect(on.colour(2, 0.25, 0.25)).toEqual(redBlue(-1, LIGHT));
});

test("what is not measured is a quiet blank, what was is faint, and NaN is neither", async () => {
  const full = (): number => 254;
  const on = await stage({
    thumbs: new Map([
      [1, layerOf(4, 4, full, { stale: true })],
      [2, layerOf(4, 4, (head) => (head === 0 ? 255 : 254))],
    ]),
  });
  const blank = on.colour(0);
  expect(blank).toEqual(mix(LIGHT.background, LIGHT.ink, 0.06));
  const [stale, fresh, hole] = [on.colour(4, 0.6, 0.6), on.colour(9, 0.6, 0.6), on.colour(8)];
  expect(fresh).toEqual(blues(1, LIGHT));
  mix(LIGHT.background, fresh, 0.6).forEach((part, i) => {
    expect(Math.abs((stale[i] as number) - part)).toBeLessThanOrEqual(2);
  });
  expect(hole[0] - hole[2]).toBeGreaterThan(80); // yellow, on no scale
});

test("in the order of a score the squares flow, and hovering says whose they are", async () => {
  const order = [
    { layer: 2, head: 1 },
    { layer: 0, head: 3 },
    { layer: 1, head: 0 },
  ];
  const dark = (own: number) => (head: number) => (head === own ? 254 : 0);
  const on = await stage({
    thumbs: new Map([
      [0, layerOf(4, 4, dark(3))],
      [1, layerOf(4, 4, dark(2))],
      [2, layerOf(4, 4, dark(1))],
    ]),
    order,
    note: () => "induction 0.92",
  });
  expect([0, 1, 2].map((index) => on.colour(index, 0.6, 0.6))).toEqual(
    [1, 1, 0].map((value) => blues(value, LIGHT)),
  );
  on.element.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, ...on.at(1) }));
  await frame();
  await frame();
  expect(on.told).toEqual([["pointer", "L0.H3"]]);
});

test("a pointer previews, a click locks, a double click solos", async () => {
  const on = await stage({ thumbs: new Map([[0, layerOf(4, 4, () => 9)]]) });
  const send = (type: string, detail: number) =>
    on.element.dispatchEvent(new MouseEvent(type, { bubbles: true, detail, ...on.at(6) }));
  send("click", 1);
  expect(on.told).toEqual([["lock", "L1.H2"]]);
  send("click", 2);
  send("dblclick", 2);
  expect(on.told).toEqual([
    ["lock", "L1.H2"],
    ["solo", "L1.H2"],
  ]);
});

test("arrows walk the grid and stay inside; Enter locks, Shift+Enter solos", async () => {
  const on = await stage({ selected: { layer: 1, head: 1 } });
  const walked: string[] = [];
  for (const key of [
    "ArrowRight",
    "ArrowDown",
    "ArrowDown",
    "ArrowLeft",
    "Home",
    "PageUp",
    "ArrowUp",
    "End",
    "PageDown",
  ]) {
    press(on.element, key);
    await frame();
    await frame();
    walked.push(on.told.at(-1)?.[1] ?? "");
  }
  expect(walked).toEqual([
    "L1.H2",
    "L2.H2",
    "L2.H2",
    "L2.H1",
    "L2.H0",
    "L0.H0",
    "L0.H0",
    "L0.H3",
    "L2.H3",
  ]);
  press(on.element, "Enter");
  press(on.element, "Enter", { shiftKey: true });
  expect(on.told.slice(-2)).toEqual([
    ["lock", "L2.H3"],
    ["solo", "L2.H3"],
  ]);
});

test("moving over the grid repaints no pattern", async () => {
  const on = await stage({
    layers: 30,
    heads: 9,
    thumbs: new Map(
      Array.from({ length: 30 }, (_, layer) => [layer, layerOf(9, 32, () => 200)] as const),
    ),
  });
  for (let i = 0; i < 4; i++) await frame(); // its height was new
  const pen = penOf(one<HTMLCanvasElement>(on.element, ".pc-heads-cells"));
  let drawn = 0;
  const clear = pen.clearRect.bind(pen);
  pen.clearRect = (...rect) => {
    drawn += 1;
    clear(...rect);
  };
  for (const index of [3, 40, 200]) {
    on.element.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, ...on.at(index) }));
    await frame();
    await frame();
  }
  expect(on.told.map(([, head]) => head)).toEqual(["L0.H3", "L4.H4", "L22.H2"]);
  expect(drawn).toBe(0);
});

test("thumbs shrink to the largest of their cells, of either sign, and NaN stays", () => {
  const codes = Uint8Array.from([128, 100, 128, 130, 140, 128, 128, 128, 255]);
  expect([...shrink(codes, 3, 2, "signed")]).toEqual([100, 128, 128, 255]);
  expect([...shrink(Uint8Array.from([0, 5, 9, 0]), 2, 2, "share")]).toEqual([9]);
});

test("a part of the grid falls into layers; one that cannot is refused", () => {
  const part = {
    look: "now",
    stamp: "s",
    layers: [4, 5],
    thumbs: Uint8Array.from({ length: 2 * 3 * 4 }, (_, i) => i),
    block: 2,
    coding: "share",
    peaks: Float32Array.from([1, 1, 1, 1, 1, 0.5]),
  } as const;
  const parts = thumbsOf({ ...part, layers: [4, 5] }, 3, false);
  expect(parts.map(([layer]) => layer)).toEqual([4, 5]);
  expect([...(parts[1]?.[1].codes ?? [])]).toEqual(Array.from({ length: 12 }, (_, i) => 12 + i));
  expect(parts[1]?.[1].peaks[2]).toBe(0.5);
  expect(parts[0]?.[1].n).toBe(2);
  expect(() => thumbsOf({ ...part, layers: [4, 5] }, 4, false)).toThrow(RangeError);
});
