// Tiles: what the bytes mean, triangles, and a cache that keeps to its bound.
import { expect, test } from "vitest";
import type { TilesBody } from "../src/messages";
import {
  codeTable,
  factorsOf,
  isSigned,
  type Mode,
  type PatternName,
  patternCells,
  placesIn,
  stampOf,
  TILE,
  tileCache,
  unpackTriangle,
} from "../src/tiles";
import type { Unpacked } from "../src/transport";

const NAME: PatternName = { layer: 2, head: 1, look: "now", mode: "weight", stamp: "s1" };
const PLAIN = { column: null, row: null };

function body(
  places: [number, number][],
  cells: Uint8Array,
  change: Partial<Unpacked<TilesBody>> = {},
): Unpacked<TilesBody> {
  return {
    of: "tiles",
    ...NAME,
    coding: "share",
    places,
    peaks: places.map(() => 1),
    cells,
    ...change,
  };
}

test("a share's byte is a power of a millionth, and 255 is not a number", () => {
  const table = codeTable("share");
  expect(table[0]).toBe(0);
  expect(table[254]).toBe(1);
  expect(table[1]).toBeCloseTo(1e-6, 12);
  expect(table[128]).toBeCloseTo(1e-6 ** (1 - 127 / 253), 8);
  expect(table[255]).toBeNaN();
  for (let code = 1; code < 254; code++) {
    // Neighbouring codes are less than 6 % apart: that is how exact a cell is before it is asked.
    expect((table[code + 1] as number) / (table[code] as number)).toBeLessThan(1.06);
    expect((table[code + 1] as number) / (table[code] as number)).toBeGreaterThan(1);
  }
});

test("a signed byte is a power on either side of 128, and 255 is not a number", () => {
  const table = codeTable("signed");
  expect(table[128]).toBe(0);
  expect(table[254]).toBe(1);
  expect(table[2]).toBe(-1);
  expect(table[129]).toBeCloseTo(1e-4 ** (1 - 1 / 126), 9);
  for (let k = 1; k <= 126; k++) expect(table[128 - k]).toBe(-(table[128 + k] as number));
  expect(table[255]).toBeNaN();
  expect(table[0]).toBeNaN();
});

test("a lower triangle unpacks into its rows", () => {
  const square = unpackTriangle(Uint8Array.from([1, 2, 3, 4, 5, 6]), 3, 9);
  expect([...square]).toEqual([1, 9, 9, 2, 3, 9, 4, 5, 6]);
});

test("a causal pattern over several tiles, the last ones cut, reads back cell by cell", () => {
  const length = 300;
  const code = (row: number, column: number) => 1 + ((row * 7 + column * 13) % 254);
  const places: [number, number][] = [];
  const bytes: number[] = [];
  for (let r = 0; r < 3; r++) {
    for (let c = 0; c <= r; c++) {
      places.push([r, c]);
      for (let y = r * TILE; y < Math.min(length, (r + 1) * TILE); y++) {
        const end = r === c ? y + 1 : Math.min(length, (c + 1) * TILE);
        for (let x = c * TILE; x < end; x++) bytes.push(code(y, x));
      }
    }
  }
  const cache = tileCache();
  cache.put(body(places, Uint8Array.from(bytes)), length, true);
  const cells = patternCells(cache, NAME, length, true, PLAIN);
  const table = codeTable("share");
  expect(cells.missing()).toEqual([]);
  for (const [row, column] of [
    [0, 0],
    [127, 127],
    [128, 0],
    [128, 128],
    [299, 299],
    [299, 0],
    [256, 255],
  ] as const) {
    expect(cells.valueAt(row, column)).toBe(table[code(row, column)]);
  }
  expect(cells.valueAt(5, 6)).toBe(0);
  expect(cells.valueAt(300, 0)).toBeNull();
  expect(cells.valueAt(0, -1)).toBeNull();
  const [row, column] = [cells.row(200), cells.column(130)];
  for (let i = 0; i < length; i++) {
    expect(row?.[i]).toBe(i <= 200 ? table[code(200, i)] : 0);
    expect(column?.[i]).toBe(i >= 130 ? table[code(i, 130)] : 0);
  }
});

test("what is missing is said tile by tile, and a row with a missing tile is not half a row", () => {
  const cache = tileCache();
  cache.put(body([[1, 0]], new Uint8Array(TILE * TILE)), 512, true);
  const cells = patternCells(cache, NAME, 512, true, PLAIN);
  expect(cells.missing({ destinations: [130, 131], sources: [0, 512] })).toEqual([[1, 1]]);
  expect(cells.missing({ destinations: [0, 512], sources: [0, 1] })).toEqual([
    [0, 0],
    [2, 0],
    [3, 0],
  ]);
  expect(cells.missing()).toHaveLength(9);
  expect(cells.row(130)).toBeNull();
  expect(cells.column(3)).toBeNull();
  expect(cells.valueAt(130, 3)).toBe(0);
  expect(cells.valueAt(130, 129)).toBeNull();
  expect(placesIn({ destinations: [0, 512], sources: [0, 512] }, 512, false)).toHaveLength(16);
});

test("a mode's factors multiply weights as they are read, and NaN stays NaN", () => {
  const cache = tileCache();
  cache.put(body([[0, 0]], Uint8Array.from([254, 254, 255, 0, 254, 254])), 3, true);
  const column = Float32Array.from([2, -3, 5]);
  const row = Float32Array.from([1, 10, 100]);
  const value = patternCells(cache, { ...NAME, mode: "value" }, 3, true, { column, row: null });
  expect([...(value.row(2) ?? [])]).toEqual([0, -3, 5]);
  expect(value.valueAt(1, 1)).toBeNaN();
  const both = patternCells(cache, { ...NAME, mode: "contribution" }, 3, true, { column, row });
  expect([...(both.column(0) ?? [])]).toEqual([2, 20, 0]);
  expect(both.valueAt(2, 1)).toBe(-300);
});

test("weights are kept once for all modes; differences are kept by mode, stamp and look", () => {
  const cache = tileCache();
  const one = Uint8Array.from([254]);
  cache.put(body([[0, 0]], one), 1, true);
  const value = (change: Partial<PatternName>) =>
    patternCells(cache, { ...NAME, ...change }, 1, true, PLAIN).valueAt(0, 0);
  expect(value({ mode: "contribution" })).toBe(1);
  expect(value({ stamp: "s2" })).toBeNull();
  expect(value({ head: 2 })).toBeNull();
  expect(value({ look: "before" })).toBeNull();
  const difference = {
    look: "difference",
    stamp: "s1-s0",
    coding: "signed",
    peaks: [0.25],
  } as const;
  cache.put(body([[0, 0]], one, { ...difference, peaks: [0.25], mode: "value" }), 1, true);
  const read = { look: "difference", stamp: "s1-s0" } as const;
  expect(value({ ...read, mode: "value" })).toBe(0.25);
  expect(value({ ...read, mode: "weight" })).toBeNull();
});

test("the cache keeps to its bound and lets go of what was not read for longest", () => {
  const size = TILE * TILE;
  const cache = tileCache(3 * size);
  const name = (head: number) => ({ ...NAME, head });
  const put = (head: number) =>
    cache.put(body([[0, 0]], new Uint8Array(size), name(head)), TILE, false);
  put(0);
  put(1);
  put(2);
  expect(cache.bytes).toBe(3 * size);
  cache.tile(name(0), [0, 0]);
  put(3);
  expect(cache.bytes).toBe(3 * size);
  expect([0, 1, 2, 3].map((head) => cache.tile(name(head), [0, 0]) !== undefined)).toEqual([
    true,
    false,
    true,
    true,
  ]);
  put(3); // the same again takes no more room
  expect(cache.bytes).toBe(3 * size);
  cache.keep(["other"]);
  expect(cache.bytes).toBe(0);
});

test("bytes that are not those of the tiles are refused, and nothing of them is kept", () => {
  const cache = tileCache();
  const size = TILE * TILE;
  expect(() => cache.put(body([[0, 0]], new Uint8Array(5)), TILE, false)).toThrow(/5 came/);
  expect(() => cache.put(body([[0, 0]], new Uint8Array(size + 1)), TILE, false)).toThrow(
    RangeError,
  );
  expect(() => cache.put(body([[0, 1]], new Uint8Array(size)), 256, true)).toThrow(/no tile 0, 1/);
  expect(cache.bytes).toBe(0);
});

test("a look's stamp, sign and factors are those of the wire", () => {
  const stamps = { now: "n", before: "b", second: "z" };
  expect(
    (["now", "before", "difference", "second", "second-difference"] as const).map((look) =>
      stampOf(look, stamps),
    ),
  ).toEqual(["n", "b", "n-b", "z", "n-z"]);
  expect(stampOf("second-difference", { ...stamps, second: null })).toBeNull();
  expect(isSigned("now", "value")).toBe(false);
  expect(isSigned("now", "contribution")).toBe(true);
  expect(isSigned("difference", "weight")).toBe(true);
  const head = {
    of: "head",
    ...NAME,
    peaks: { weight: 1, value: 2, contribution: 3 },
    value: Float32Array.from([1]),
    contribution: Float32Array.from([2]),
    scale: Float32Array.from([3]),
    direct: 0,
  } as const;
  const factors = (mode: Mode) => factorsOf(head, "now", mode);
  expect(factors("weight")).toEqual(PLAIN);
  expect(factors("value")).toEqual({ column: head.value, row: null });
  expect(factors("contribution")).toEqual({ column: head.contribution, row: head.scale });
  expect(factorsOf(head, "difference", "value")).toEqual(PLAIN);
  expect(factorsOf(null, "now", "value")).toBeNull();
});
