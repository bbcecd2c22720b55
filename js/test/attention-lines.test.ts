// Lines between two columns of tokens: which ones, how strong, and that tokens stay text.
import "../src/base.css";
import "../src/attention-drawings.css";
import { expect, onTestFinished, test } from "vitest";
import {
  ALL_LINES,
  attentionLines,
  type LinesPicture,
  type LinesToken,
  linesOf,
} from "../src/attention-lines";
import { blues, css, LIGHT } from "../src/colour";
import type { PromptToken } from "../src/messages";
import {
  codeTable,
  type PatternCells,
  type Place,
  patternCells,
  TILE,
  tileCache,
} from "../src/tiles";
import { all, one, theme as pageTheme, press } from "./mount";

const SCALE = { signed: false, peak: 1, gamma: 1 } as const;
const frame = () => new Promise((done) => requestAnimationFrame(done));

function words(length: number, text = (position: number) => ` w${position}`): PromptToken[] {
  return Array.from({ length }, (_, position) => ({
    position,
    id: position,
    text: text(position),
    bos: false,
  }));
}

/** A causal pattern of at most one tile. */
function cellsOf(length: number, code: (row: number, column: number) => number): PatternCells {
  const name = { layer: 0, head: 0, look: "now", mode: "weight", stamp: "s" } as const;
  const cache = tileCache();
  const bytes: number[] = [];
  for (let row = 0; row < Math.min(length, TILE); row++) {
    for (let column = 0; column <= row; column++) bytes.push(code(row, column));
  }
  cache.put(
    {
      of: "tiles",
      ...name,
      coding: "share",
      places: [[0, 0]],
      peaks: [1],
      cells: Uint8Array.from(bytes),
    },
    length,
    true,
  );
  return patternCells(cache, name, length, true, { column: null, row: null });
}

async function stage(change: Partial<LinesPicture> & { tokens: PromptToken[] }) {
  pageTheme(false);
  const controller = new AbortController();
  const told: (LinesToken | null)[] = [];
  const locked: (LinesToken | null)[] = [];
  const missing: Place[][] = [];
  const it = attentionLines(controller.signal, {
    hover: (token) => told.push(token),
    lock: (token) => locked.push(token),
    missing: (tiles) => missing.push(tiles),
  });
  const root = document.createElement("div");
  root.className = "pc";
  root.style.width = "500px";
  root.append(it.element);
  document.body.append(root);
  onTestFinished(() => {
    controller.abort();
    root.remove();
  });
  it.paint(LIGHT);
  const show = async (next: Partial<LinesPicture>) => {
    it.update({ cells: null, scale: SCALE, locked: null, ...change, ...next });
    for (let i = 0; i < 4; i++) await frame();
  };
  await show({});
  const canvas = one<HTMLCanvasElement>(it.element, ".pc-lines-canvas");
  const token = (side: string, position: number) =>
    one(it.element, `.pc-lines-token[data-side=${side}][data-position="${position}"]`);
  /** How much is drawn on the way from one token to the other. */
  const ink = (destination: number, source: number) => {
    const box = canvas.getBoundingClientRect();
    const y = (part: Element) => {
      const { top, height } = part.getBoundingClientRect();
      return top + height / 2 - box.top;
    };
    const [from, to] = [y(token("destination", destination)), y(token("source", source))];
    const scale = canvas.width / box.width;
    const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
    // A quarter of the way between the columns, where no other line of these tests passes.
    const [x, at] = [0.41 * box.width, from + (to - from) / 4];
    return pen.getImageData(Math.round(x * scale), Math.floor(at * scale), 1, 1).data[3] as number;
  };
  const hover = async (part: Element | null) => {
    const type = part === null ? "pointerleave" : "pointermove";
    (part ?? one(it.element, ".pc-lines-scroll")).dispatchEvent(
      new PointerEvent(type, { bubbles: true }),
    );
    await frame();
    await frame();
  };
  return { it, told, locked, missing, show, token, ink, hover };
}

test("a line is as strong as its weight, and what cannot be seen is not drawn", () => {
  const codes = [254, 0, 200, 255, 110, 240];
  const cells = cellsOf(3, (row, column) => codes[(row * (row + 1)) / 2 + column] as number);
  const table = codeTable("share");
  const lines = linesOf(cells, SCALE, null);
  expect(lines.map(({ destination, source }) => [destination, source])).toEqual([
    [1, 1],
    [2, 2],
    [0, 0],
  ]);
  expect(lines[0]?.share).toBe(table[200]);
  expect(linesOf(cells, { ...SCALE, gamma: 0.5 }, null)[0]?.share).toBe(
    (table[110] as number) ** 0.5,
  );
  expect(linesOf(cells, SCALE, { side: "source", position: 2 })).toHaveLength(1);
  expect(linesOf(cells, SCALE, { side: "destination", position: 2 })).toHaveLength(1);
});

test("a short prompt shows all lines; pointing at a token on either side leaves its own", async () => {
  const cells = cellsOf(8, (row, column) => (column === 0 || row === column ? 254 : 0));
  const on = await stage({ tokens: words(8), cells });
  expect(on.ink(6, 0)).toBeGreaterThan(100);
  expect(on.ink(4, 4)).toBeGreaterThan(100);
  expect(on.ink(7, 5)).toBe(0);
  await on.hover(on.token("destination", 6));
  expect(on.told).toEqual([{ side: "destination", position: 6 }]);
  expect(on.ink(6, 0)).toBeGreaterThan(100);
  expect(on.ink(4, 4)).toBe(0);
  expect(on.token("source", 0).style.backgroundColor).toBe(css(blues(1, LIGHT)));
  expect(on.token("source", 1).style.backgroundColor).toBe("");
  await on.hover(on.token("source", 4));
  expect(on.ink(4, 4)).toBeGreaterThan(100);
  expect(on.ink(6, 0)).toBe(0);
  await on.hover(null);
  expect(on.told.at(-1)).toBeNull();
  expect(on.ink(6, 0)).toBeGreaterThan(100);
  on.token("source", 4).click();
  expect(on.locked).toEqual([{ side: "source", position: 4 }]);
});

test("a long prompt shows the lines of one token, says so, and keeps only what is seen in the page", async () => {
  const length = 2048;
  const cells = cellsOf(length, () => 200);
  const on = await stage({ tokens: words(length), cells });
  expect(on.it.element.textContent).toContain(`more than ${ALL_LINES} tokens`);
  expect(on.ink(4, 2)).toBe(0);
  expect(all(on.it.element, ".pc-lines-token").length).toBeLessThan(200);
  expect(on.missing).toEqual([]);
  await on.hover(on.token("destination", 4));
  expect(on.ink(4, 2)).toBeGreaterThan(0);
  expect(on.missing).toEqual([]);
  const scroller = one(on.it.element, ".pc-lines-scroll");
  scroller.scrollTop = scroller.scrollHeight;
  await frame();
  await frame();
  await on.hover(on.token("destination", 2047));
  expect(on.missing.at(-1)).toHaveLength(16);
  expect(all(on.it.element, ".pc-lines-token").length).toBeLessThan(200);
});

test("keys walk the tokens of either side and lock one", async () => {
  const on = await stage({ tokens: words(5), cells: cellsOf(5, () => 100) });
  const scroller = one(on.it.element, ".pc-lines-scroll");
  scroller.focus();
  const walked: string[] = [];
  for (const key of ["ArrowDown", "ArrowUp", "ArrowRight", "Home", "ArrowLeft", "End"]) {
    press(scroller, key);
    await frame();
    await frame();
    const at = on.told.at(-1);
    walked.push(`${at?.side} ${at?.position}`);
  }
  expect(walked).toEqual([
    "destination 4",
    "destination 3",
    "source 3",
    "source 0",
    "destination 0",
    "destination 4",
  ]);
  press(scroller, "Enter");
  expect(on.locked).toEqual([{ side: "destination", position: 4 }]);
});

test("tokens are text, whatever they spell, and lie opposite each other", async () => {
  const texts = ["<script>alert(1)</script>", "\n", "שלום", " <b>", "<|endoftext|>", "\ud83d"];
  const on = await stage({ tokens: words(6, (position) => texts[position] as string) });
  expect(all(on.it.element, "script, b")).toEqual([]);
  texts.forEach((text, position) => {
    const [left, right] = [on.token("destination", position), on.token("source", position)];
    expect(left.textContent).toBe(text);
    expect(left.getBoundingClientRect().top).toBe(right.getBoundingClientRect().top);
    expect(left.getBoundingClientRect().height).toBe(18);
  });
});
