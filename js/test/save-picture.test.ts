// Saved pictures: well-formed, with the very colours of the page, and text that stays text.
import { expect, test } from "vitest";
import { blues, css, DARK, LIGHT, type Rgb } from "../src/colour";
import type { HeadsPicture, Thumbs } from "../src/heads-grid";
import type { PromptToken } from "../src/messages";
import { type PatternPicture, plainColours } from "../src/pattern";
import { download, fileName, headsSvg, patternSvg, toPng } from "../src/save-picture";
import {
  type Area,
  codeTable,
  type PatternCells,
  patternCells,
  TILE,
  tileCache,
} from "../src/tiles";

const SCALE = { signed: false, peak: 1, gamma: 1 } as const;
const CAPTION = { title: "L5.H3, weight", what: "weight", theme: LIGHT, font: '"A", monospace' };

function words(texts: readonly string[]): PromptToken[] {
  return texts.map((text, position) => ({ position, id: position, text, bos: false }));
}

function cellsOf(
  length: number,
  code: (row: number, column: number) => number,
  causal = true,
): PatternCells {
  const name = { layer: 5, head: 3, look: "now", mode: "weight", stamp: "s" } as const;
  const cache = tileCache();
  const places: number[][] = [];
  const bytes: number[] = [];
  for (let r = 0; r * TILE < length; r++) {
    for (let c = 0; c * TILE < length && (!causal || c <= r); c++) {
      places.push([r, c]);
      for (let y = r * TILE; y < Math.min(length, (r + 1) * TILE); y++) {
        for (let x = c * TILE; x < Math.min(length, (c + 1) * TILE); x++) {
          if (!(causal && x > y)) bytes.push(code(y, x));
        }
      }
    }
  }
  const peaks = places.map(() => 1);
  const cells = Uint8Array.from(bytes);
  cache.put({ of: "tiles", ...name, coding: "share", places, peaks, cells }, length, causal);
  return patternCells(cache, name, length, causal, { column: null, row: null });
}

function pictureOf(cells: PatternCells, change: Partial<PatternPicture> = {}): PatternPicture {
  const tokens = words(Array.from({ length: cells.length }, (_, i) => ` w${i}`));
  return {
    tokens,
    cells,
    stale: null,
    scale: SCALE,
    outlines: [],
    locked: null,
    brush: false,
    ...change,
  };
}

function areaOf(length: number): Area {
  return { destinations: [0, length], sources: [0, length] };
}

function parse(svg: string): Document {
  const page = new DOMParser().parseFromString(svg, "image/svg+xml");
  expect(page.querySelector("parsererror")?.textContent ?? "").toBe("");
  return page;
}

/** The colour of a PNG at a point of its SVG. */
async function pixel(png: Blob, x: number, y: number): Promise<Rgb> {
  const image = await createImageBitmap(png);
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
  pen.drawImage(image, 0, 0);
  const [red, green, blue] = pen.getImageData(Math.round(x), Math.round(y), 1, 1).data;
  return [red ?? 0, green ?? 0, blue ?? 0];
}

test("whatever tokens spell, the SVG is well-formed and they are its text", () => {
  const texts = [
    "<script>alert(1)</script>",
    '"&amp;',
    "]]>",
    "\u0000\u0007",
    "\ud83d",
    "😀",
    "שלום",
    "\n",
    " <|endoftext|>",
    "\ufffe",
  ];
  const cells = cellsOf(texts.length, () => 254);
  const svg = patternSvg(pictureOf(cells, { tokens: words(texts) }), areaOf(10), 24, {
    ...CAPTION,
    title: "<L5.H3> & co",
  });
  const page = parse(svg);
  expect(page.querySelector("script")).toBeNull();
  const all = [...page.querySelectorAll("text")].map((each) => each.textContent);
  expect(all).toContain("<L5.H3> & co");
  expect(all.filter((each) => each === '"&amp; 1')).toHaveLength(2); // both axes
  expect(all).toContain("·<|endoftext|> 8");
  expect(all).toContain("↵ 7");
  expect(all).toContain("שלום 6");
  expect(all).toContain("� 4");
  expect(page.querySelector("desc")?.textContent).toContain("<script>");
  expect(svg).not.toMatch(/https?:(?!\/\/www\.w3\.org\/2000\/svg)/);
});

for (const theme of [LIGHT, DARK]) {
  test(`few cells are rectangles in the colours of the page (${theme.dark ? "dark" : "light"})`, () => {
    const code = (row: number, column: number) =>
      row === 4 ? 255 : 40 + ((row * 31 + column * 57) % 200);
    const cells = cellsOf(5, code);
    const svg = patternSvg(pictureOf(cells), areaOf(5), 20, { ...CAPTION, theme });
    const fills = [...parse(svg).querySelectorAll("g[shape-rendering] rect")].map((each) =>
      each.getAttribute("fill"),
    );
    expect(fills).toHaveLength(25);
    for (let d = 0; d < 4; d++) {
      for (let s = 0; s < 5; s++) {
        const value = codeTable("share")[code(d, s)] as number;
        expect(fills[d * 5 + s]).toBe(
          css(s > d ? plainColours(theme).beyond : blues(value, theme)),
        );
      }
    }
    expect(fills.slice(20)).toEqual(Array(5).fill("url(#hole)"));
  });
}

test("a part of a large pattern is a picture with exactly its cells, in SVG and PNG", async () => {
  const code = (row: number, column: number) => 1 + ((row * 3 + column * 7) % 254);
  const cells = cellsOf(300, code);
  const area: Area = { destinations: [100, 180], sources: [90, 170] };
  const svg = patternSvg(pictureOf(cells), area, 6, CAPTION);
  const image = parse(svg).querySelector("image");
  expect(image?.getAttribute("href")).toMatch(/^data:image\/png;base64,/);
  const [left, top] = ["x", "y"].map((name) => Number(image?.getAttribute(name)));
  expect(image?.getAttribute("width")).toBe("480");
  const png = await toPng(svg);
  expect(png.type).toBe("image/png");
  for (const [d, s] of [
    [100, 90],
    [127, 127],
    [128, 128],
    [129, 120],
    [179, 90],
    [179, 169],
    [130, 131],
  ] as const) {
    const x = 2 * ((left as number) + (s - 90 + 0.5) * 6);
    const y = 2 * ((top as number) + (d - 100 + 0.5) * 6);
    const value = codeTable("share")[code(d, s)] as number;
    const want = s > d ? plainColours(LIGHT).beyond : blues(value, LIGHT);
    expect(await pixel(png, x, y), `${d} ${s}`).toEqual(want);
  }
});

test("what is not a number, what is missing and what is knocked out is marked", () => {
  const whole = cellsOf(200, (row) => (row === 150 ? 255 : 9));
  const page = parse(
    patternSvg(
      pictureOf(whole, {
        outlines: [
          { destinations: [140, 142], sources: [1, 2], muted: true },
          { destinations: null, sources: [3, 4], muted: false },
        ],
      }),
      { destinations: [130, 190], sources: [0, 60] },
      6,
      CAPTION,
    ),
  );
  expect(page.querySelectorAll('[fill="url(#hole)"]')).toHaveLength(1);
  expect(page.querySelectorAll("[stroke-dasharray]")).toHaveLength(1);
  expect(page.querySelectorAll('[clip-path="url(#seen)"] rect')).toHaveLength(4);
  const none = patternCells(tileCache(), whole.name, 200, true, whole.factors);
  const empty = parse(patternSvg(pictureOf(none), areaOf(200), 3, CAPTION));
  expect(empty.querySelectorAll('[fill="url(#waiting)"]')).toHaveLength(3);
});

test("the grid of heads is saved with its addresses, and says what a pixel is", async () => {
  const thumb = (layer: number): Thumbs => ({
    codes: Uint8Array.from({ length: 3 * 16 }, (_, i) => (i < 16 ? 254 - 40 * layer : 0)),
    n: 4,
    coding: "share",
    peaks: new Float32Array(3).fill(1),
    block: 8,
    stale: false,
  });
  const picture: HeadsPicture = {
    layers: 2,
    heads: 3,
    thumbs: new Map([
      [0, thumb(0)],
      [1, thumb(1)],
    ]),
    order: null,
    selected: { layer: 1, head: 2 },
    touched: [{ layer: 0, head: 1 }],
    scale: SCALE,
    note: () => "",
  };
  const svg = headsSvg(picture, { ...CAPTION, title: "All heads" });
  const page = parse(svg);
  const texts = [...page.querySelectorAll("text")].map((each) => each.textContent);
  for (const word of ["L0", "L1", "H0", "H1", "H2", "All heads"]) expect(texts).toContain(word);
  expect(texts).toContain("A pixel is the largest of 8 × 8 cells.");
  const image = page.querySelector("image");
  const [x, y] = ["x", "y"].map((name) => Number(image?.getAttribute(name))) as [number, number];
  const png = await toPng(svg, 1);
  expect(await pixel(png, x + 16, y + 16)).toEqual(blues(1, LIGHT));
  const below = codeTable("share")[214] as number;
  expect(await pixel(png, x + 16, y + 35 + 16)).toEqual(blues(below, LIGHT));
  expect(await pixel(png, x + 35 + 10, y + 16)).toEqual(blues(0, LIGHT));
  const order = [
    { layer: 1, head: 0 },
    { layer: 0, head: 2 },
  ];
  const sorted = parse(headsSvg({ ...picture, order }, CAPTION));
  const names = [...sorted.querySelectorAll("text")].map((each) => each.textContent);
  expect(names.filter((name) => /^L\d+\.H\d+$/.test(name ?? ""))).toEqual(["L1.H0", "L0.H2"]);
});

test("a file has a name that every system takes, and is handed over without a network", async () => {
  expect(fileName(["patchclamp", "L5.H3", "weight"], "svg")).toBe("patchclamp-L5.H3-weight.svg");
  expect(fileName(["a/b\\c:d", "", "…"], "png")).toBe("a-b-c-d.png");
  const clicked: HTMLAnchorElement[] = [];
  const watch = (event: Event) => {
    event.preventDefault();
    clicked.push(event.target as HTMLAnchorElement);
  };
  const click = HTMLAnchorElement.prototype.click;
  HTMLAnchorElement.prototype.click = function (this: HTMLAnchorElement) {
    this.addEventListener("click", watch);
    click.call(this);
  };
  try {
    download("x.svg", "<svg/>", "image/svg+xml");
  } finally {
    HTMLAnchorElement.prototype.click = click;
  }
  expect(clicked[0]?.download).toBe("x.svg");
  expect(clicked[0]?.href).toMatch(/^blob:/);
  const content = await fetch(clicked[0]?.href as string);
  expect(await content.text()).toBe("<svg/>");
});
