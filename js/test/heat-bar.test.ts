// The colour bar: its ends, its zero, and that it shows the very colours of the cells.
import "../src/base.css";
import "../src/attention-drawings.css";
import { expect, onTestFinished, test } from "vitest";
import { blues, DARK, LIGHT, type Rgb, redBlue } from "../src/colour";
import { codePixels, type HeatScale, heatBar, heatColour, pixelOf } from "../src/heat-bar";
import { codeTable } from "../src/tiles";
import { all, named, one, theme as pageTheme, until } from "./mount";

function stage(scale: HeatScale, theme = LIGHT) {
  pageTheme(theme.dark);
  const controller = new AbortController();
  const asked: number[] = [];
  const it = heatBar(controller.signal, (gamma) => asked.push(gamma));
  const root = document.createElement("div");
  root.className = "pc";
  root.append(it.element);
  document.body.append(root);
  onTestFinished(() => {
    controller.abort();
    root.remove();
  });
  it.paint(theme);
  it.update(scale, "logits");
  const canvas = one<HTMLCanvasElement>(root, "canvas");
  /** The bar's colour, and where that is between its ends. */
  const colour = (share: number): [Rgb, number] => {
    const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
    const x = Math.min(canvas.width - 1, Math.floor(share * canvas.width));
    const [red, green, blue] = pen.getImageData(x, 2, 1, 1).data;
    return [[red ?? 0, green ?? 0, blue ?? 0], (x + 0.5) / canvas.width];
  };
  return { it, root, asked, colour };
}

for (const theme of [LIGHT, DARK]) {
  test(`the bar has the colours of the cells, linear or not (${theme.dark ? "dark" : "light"})`, async () => {
    const share = { signed: false, peak: 0.25, gamma: 1 } as const;
    const on = stage(share, theme);
    await until(() => on.colour(0.5)[0].some((part) => part > 0));
    for (const at of [0, 0.3, 0.99]) {
      const [seen, where] = on.colour(at);
      expect(seen).toEqual(blues(where, theme));
      expect(seen).toEqual(heatColour(0.25 * where, share, theme));
    }
    on.it.update({ ...share, gamma: 0.5 }, "weight");
    const [seen, where] = on.colour(0.3);
    expect(seen).toEqual(blues(Math.sqrt(where), theme));
    on.it.update({ signed: true, peak: 2, gamma: 1 }, "logits");
    for (const at of [0, 0.4, 0.99]) {
      const [red, place] = on.colour(at);
      expect(red).toEqual(redBlue(2 * place - 1, theme));
    }
  });
}

test("the ends have three digits and the whole number on hover; a signed bar marks its zero", () => {
  const on = stage({ signed: true, peak: 1.23456, gamma: 1 });
  const numbers = () => all(on.root, ".pc-number:not([hidden])").map((each) => each.textContent);
  expect(numbers()).toEqual(["−1.23", "0", "1.23"]);
  expect(all(on.root, ".pc-number").at(-1)?.title).toBe("1.23456");
  on.it.update({ signed: false, peak: 1, gamma: 1 }, "weight");
  expect(numbers()).toEqual(["0", "1.00"]);
  expect(on.root.textContent).toContain("weight");
});

test("its button asks for the other gamma, and says which one is on", () => {
  const on = stage({ signed: false, peak: 1, gamma: 1 });
  const root = named(on.root, "√ colours");
  expect(root.getAttribute("aria-pressed")).toBe("false");
  root.click();
  on.it.update({ signed: false, peak: 1, gamma: 0.5 }, "weight");
  expect(root.getAttribute("aria-pressed")).toBe("true");
  root.click();
  expect(on.asked).toEqual([0.5, 1]);
});

test("a byte's pixel is its value's colour; what is not a number has none; no peak is no colour", () => {
  const scale = { signed: true, peak: 0.5, gamma: 1 } as const;
  const pixels = codePixels("signed", 0.4, scale, LIGHT);
  for (const code of [2, 60, 128, 200, 254]) {
    const value = (codeTable("signed")[code] as number) * 0.4;
    expect(pixels[code]).toBe(pixelOf(redBlue(value / 0.5, LIGHT)));
  }
  expect(pixels[255]).toBe(0);
  expect(heatColour(0, { signed: true, peak: 0, gamma: 1 }, LIGHT)).toEqual(LIGHT.background);
});
