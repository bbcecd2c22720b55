// Numbers, colours and units: what is read off the view.
import { expect, test } from "vitest";
import {
  blues,
  contrast,
  DARK,
  inkOn,
  LIGHT,
  oranges,
  type Rgb,
  redBlue,
  type Theme,
} from "../src/colour";
import { lineColours, readCurve } from "../src/curve";
import { alike, ceilNice, parse, share, short, signed, typed } from "../src/format";
import { shared } from "../src/generate";
import { arrange } from "../src/next-token";
import { fromUnit, hasUnit, sliderScale, toUnit, type Unit } from "../src/units";
import { row } from "./fake-kernel";

const THEMES: Theme[] = [
  LIGHT,
  DARK,
  { dark: true, background: [33, 33, 33], ink: [255, 255, 255] },
];

test("numbers have three significant digits and a real minus sign", () => {
  expect([0, 1.23456, -0.352, 8, 12.0, 123.4, -4567, 0.0001234, 1e9].map(short)).toEqual([
    "0",
    "1.23",
    "−0.352",
    "8.00",
    "12.0",
    "123",
    "−4,567",
    "1.23e−4",
    "1.00e9",
  ]);
  expect(signed(2)).toBe("+2.00");
  expect([0.703, 0.0213, 0.00094, 0.00002, 0, 1].map(share)).toEqual([
    ".703",
    ".0213",
    ".00094",
    "<.0001",
    "0",
    "1.00",
  ]);
  expect(alike([0.003, -0.0002, 0.016])).toEqual(["0.003", "0.000", "0.016"]);
  expect(alike([-0.0045, -0.017, 0.0075])).toEqual(["−0.004", "−0.017", "0.007"]);
});

test("what a number box shows parses back to it, and junk does not parse", () => {
  for (const value of [0, 8, -3.25, 1234, 0.00051, -7e8]) {
    expect(parse(typed(value))).toBeCloseTo(
      value,
      -Math.floor(Math.log10(Math.abs(value) || 1)) + 1,
    );
  }
  expect(parse("−2,5")).toBe(-2.5);
  expect(parse(" +1e3 ")).toBe(1000);
  for (const junk of ["", "abc", "NaN", "Infinity", "1e999", "0x10", "1 2", "--1", "<b>1</b>"]) {
    expect(parse(junk)).toBeNull();
  }
});

test("a colour bar's end is round and never below the data", () => {
  for (const value of [0.1, 0.11, 0.2, 0.7, 1, 3.2, 7.04, 99]) {
    expect(ceilNice(value)).toBeGreaterThanOrEqual(value);
    expect(ceilNice(value)).toBeLessThanOrEqual(value * 2.5);
  }
});

test("text on every shade of every scale has a contrast of at least 4.5, in both themes", () => {
  for (const theme of THEMES) {
    for (let i = -100; i <= 100; i++) {
      const grounds: Rgb[] = [redBlue(i / 100, theme)];
      if (i >= 0) grounds.push(blues(i / 100, theme), oranges(i / 100, theme));
      for (const ground of grounds) {
        expect(contrast(inkOn(ground, theme), ground)).toBeGreaterThanOrEqual(4.5);
      }
    }
  }
});

test("marks have a contrast of at least 3 on the background, coloured numbers one of 4.5", () => {
  for (const theme of THEMES) {
    const { logprob, kl } = lineColours(theme);
    const marks = [logprob, kl, blues(theme.dark ? 0.9 : 1, theme), oranges(0.75, theme)];
    for (const mark of marks) {
      expect(contrast(mark, theme.background)).toBeGreaterThanOrEqual(3);
    }
    for (const sign of [-1, 1]) {
      expect(contrast(redBlue(sign, theme), theme.background)).toBeGreaterThanOrEqual(4.5);
    }
  }
});

test("blue is positive, red negative, and nothing is the background", () => {
  for (const theme of THEMES) {
    const [red, , blue] = [0, 1, 2].map((i) => redBlue(0.7, theme)[i] as number);
    expect(blue).toBeGreaterThan(red as number);
    expect(redBlue(-0.7, theme)[0]).toBeGreaterThan(redBlue(-0.7, theme)[2]);
    expect(redBlue(0, theme)).toEqual(theme.background);
  }
});

test("units go back and forth, and there is none where it would mean nothing", () => {
  const set = row();
  expect(toUnit(set, "sd", 0.31)).toBeCloseTo(0);
  expect(toUnit(set, "peak", 4.06)).toBeCloseTo(1);
  expect(toUnit(row({ op: "add" }), "sd", 2.24)).toBeCloseTo(2);
  for (const unit of ["raw", "sd", "peak"] as Unit[]) {
    expect(fromUnit(set, unit, toUnit(set, unit, 3.7))).toBeCloseTo(3.7);
  }
  expect(hasUnit(row({ op: "scale" }), "sd")).toBe(false);
  expect(hasUnit(row({ sd: null }), "sd")).toBe(false);
  expect(hasUnit(row({ peak: 0 }), "peak")).toBe(false);
});

test("a slider has zero and its ends on its grid, and room for a value beyond its range", () => {
  for (const range of [
    { low: -6.137, high: 12.9 },
    { low: -0.0031, high: 0.007 },
    { low: -400, high: 1200 },
  ]) {
    const { low, high, step } = sliderScale(range, null);
    expect(low).toBeLessThanOrEqual(range.low);
    expect(high).toBeGreaterThanOrEqual(range.high);
    for (const end of [low, high])
      expect(Math.abs(end / step - Math.round(end / step))).toBeLessThan(1e-6);
  }
  expect(sliderScale({ low: 0, high: 1 }, 50).high).toBeGreaterThanOrEqual(50);
  expect(sliderScale({ low: 2, high: 2 }, 2)).toMatchObject({ low: 1, high: 3 });
});

test("a curve is read between its points, not beyond them, and not where none is measured", () => {
  const curve = {
    values: Float32Array.of(0, 1, 2),
    logprob: Float32Array.of(-1, Number.NaN, -3),
    kl: Float32Array.of(0, 0, 2),
  };
  expect(readCurve(curve, 1)).toEqual({ logprob: -2, kl: 1 });
  expect(readCurve(curve, 2.1)).toBeNull();
  expect(readCurve(null, 1)).toBeNull();
});

test("while something is dragged tokens keep their places, and newcomers take free ones", () => {
  const top = (ids: number[]) =>
    ids.map((id) => ({ id, text: String(id), before: 0.1, after: 0.1 }));
  expect(arrange(top([3, 1, 2]), [], null).map((each) => each.id)).toEqual([3, 1, 2]);
  expect(arrange(top([3, 1, 9]), [1, 2, 3], null).map((each) => each.id)).toEqual([1, 9, 3]);
  const many = top(Array.from({ length: 15 }, (_, i) => i));
  expect(arrange(many, [], 14).map((each) => each.id)).toContain(14);
  expect(arrange(many, [], 14)).toHaveLength(10);
});

test("two continuations share whole words", () => {
  expect(shared(" Paris, France", " Paris, Texas")).toBe(" Paris,".length);
  expect(shared(" Paris", " Lyon")).toBe(0);
  expect(shared(" the cat", " the car")).toBe(" the".length);
  expect(shared(" the", " the car")).toBe(" the".length);
});
