// One axis of activation for everything: the corpus as a histogram, and on it what was optimised,
// the best of the corpus, and what the user brought.
import { css, LIGHT, type Theme } from "./colour";
import { h, s, set } from "./dom";
import { exact, short } from "./format";
import { mix } from "./heat-bar";
import { type Kind, mark, markItem } from "./marks";

export interface AxisMark {
  kind: Kind;
  value: number;
  /** "optimised, step 212". */
  words: string;
  /** What it is about; the others are hollow. */
  main: boolean;
}

export interface AxisPicture {
  marks: readonly AxisMark[];
  /** Of the corpus; null where it was not measured. */
  histogram: { edges: Float32Array; counts: Float32Array; count: number } | null;
  /** The histogram is of another unit. */
  stale: boolean;
}

export interface ActivationAxis {
  element: HTMLElement;
  update(picture: AxisPicture): void;
  paint(theme: Theme): void;
  drawn(): { svg: SVGSVGElement; width: number; height: number } | null;
}

const TOP = 8;
const BARS = 56;
const BELOW = 34;
const SIDE = 14;

export function activationAxis(signal: AbortSignal, ...buttons: HTMLElement[]): ActivationAxis {
  const svg = s("svg", { class: "pc-axis-svg", role: "img" });
  const key = h("div", { class: "pc-key" });
  const box = h("div", { class: "pc-axis-box" }, svg);
  const element = h(
    "section",
    { class: "pc-activation-axis", "aria-label": "Activation" },
    h(
      "div",
      { class: "pc-line" },
      h("h3", { class: "pc-title" }, "activation"),
      key,
      h("span", { class: "pc-group pc-to-end" }, ...buttons),
    ),
    box,
  );
  let picture: AxisPicture = { marks: [], histogram: null, stale: false };
  let theme = LIGHT;
  let size = { width: 0, height: 0 };

  const draw = () => {
    const width = box.clientWidth;
    if (width < 1) return;
    const unit = Number.parseFloat(getComputedStyle(box).fontSize) / 13;
    const height = (TOP + BARS + BELOW) * unit;
    size = { width, height };
    set(svg, { width, height, viewBox: `0 0 ${width} ${height}` });
    const { marks, histogram } = picture;
    const edges = histogram?.edges ?? new Float32Array();
    const known = [...marks.map((each) => each.value), ...edges].filter(Number.isFinite);
    let low = Math.min(0, ...known);
    let high = Math.max(0, ...known);
    if (high - low < 1e-9) high = low + 1;
    const room = 0.02 * (high - low);
    if (low < 0) low -= room;
    high += room;
    const left = SIDE * unit;
    const right = width - SIDE * unit;
    const x = (value: number) => left + ((value - low) / (high - low)) * (right - left);
    const base = (TOP + BARS) * unit;
    const ink = (share: number) => css(mix(theme.background, theme.ink, share));
    const parts: SVGElement[] = [];

    const counts = histogram?.counts ?? new Float32Array();
    const most = Math.log1p(Math.max(1, ...counts));
    counts.forEach((count, i) => {
      if (count <= 0) return;
      const [from, to] = [x(edges[i] ?? 0), x(edges[i + 1] ?? 0)];
      const tall = Math.max(1, (Math.log1p(count) / most) * BARS * unit);
      const bar = s("rect", {
        x: round(from),
        y: round(base - tall),
        width: round(Math.max(1, to - from - 0.5)),
        height: round(tall),
        fill: ink(theme.dark ? 0.34 : 0.24),
      });
      bar.append(
        s(
          "title",
          {},
          `${count.toLocaleString("en-US")} between ${short(edges[i] ?? 0)} and ${short(edges[i + 1] ?? 0)}`,
        ),
      );
      parts.push(bar);
    });
    const bars = s("g", { opacity: picture.stale ? 0.6 : 1 }, ...parts);
    const rule = s("path", {
      d: `M${left} ${Math.round(base) + 0.5}H${right}`,
      stroke: ink(0.5),
      "stroke-width": 1,
    });
    const about = Math.max(2, Math.floor((right - left) / (84 * unit)));
    // Without anything measured there is no scale.
    const ticks = (known.length === 0 ? [] : ticksOf(low, high, about)).flatMap((value) => [
      s("path", {
        d: `M${Math.round(x(value)) + 0.5} ${base}v${(value === 0 ? 8 : 4) * unit}`,
        stroke: ink(value === 0 ? 0.9 : 0.5),
        "stroke-width": 1,
      }),
      s(
        "text",
        {
          x: round(x(value)),
          y: base + 28 * unit,
          "text-anchor": "middle",
          "font-size": 10 * unit,
          fill: ink(0.68),
        },
        tickWords(value),
      ),
    ]);
    // What matters most is drawn last, over the others.
    const order = [...marks].sort((a, b) => Number(a.main) - Number(b.main));
    const spots = order.flatMap((each) => {
      const at = x(each.value);
      const spot = mark(
        each.kind,
        at,
        base + 9 * unit,
        (each.main ? 5 : 3.5) * unit,
        theme,
        each.main,
      );
      spot.append(s("title", {}, `${each.words}: ${exact(each.value)}`));
      const stem = s("path", {
        d: `M${round(at)} ${each.main ? TOP * unit : base}V${round(base + 4 * unit)}`,
        stroke: spot.getAttribute(each.main ? "fill" : "stroke"),
        "stroke-width": 1,
        "stroke-dasharray": each.main ? null : "2 2",
      });
      return each.main ? [stem, spot] : [spot];
    });
    svg.replaceChildren(bars, rule, ...ticks, ...spots);
    const said = marks
      .filter((each) => each.main)
      .map((each) => `${each.words} ${short(each.value)}`);
    set(svg, { "aria-label": `Activation: ${said.join(", ") || "nothing measured yet"}` });
  };

  const legend = () => {
    const items = picture.marks
      .filter((each) => each.main)
      .map((each) => {
        const item = markItem(each.kind, `${each.words} `, theme);
        item.append(h("span", { class: "pc-number", title: exact(each.value) }, short(each.value)));
        return item;
      });
    const { histogram } = picture;
    if (histogram !== null) {
      const item = h(
        "span",
        { class: "pc-key-item", title: "Heights are logarithms of counts" },
        h("span", { class: "pc-swatch pc-swatch-histogram" }),
        `corpus, ${histogram.count.toLocaleString("en-US")} measured${
          picture.stale ? ", of another unit" : ""
        } (log count)`,
      );
      items.push(item);
    }
    if (items.length === 0) {
      const words = "what is optimised, the corpus and your own stand on one axis";
      items.push(h("span", { class: "pc-muted" }, words));
    }
    const now = items.map((each) => each.textContent).join();
    if (now !== said || theme !== inked) key.replaceChildren(...items);
    said = now;
    inked = theme;
  };
  let said = "";
  let inked: Theme | null = null;

  const watch = new ResizeObserver(draw);
  watch.observe(box);
  signal.addEventListener("abort", () => watch.disconnect(), { once: true });

  return {
    element,
    update(next) {
      const before = picture;
      picture = next;
      const same =
        before.histogram?.counts === next.histogram?.counts &&
        before.stale === next.stale &&
        JSON.stringify(before.marks) === JSON.stringify(next.marks);
      if (same) return;
      draw();
      legend();
    },
    paint(next) {
      theme = next;
      draw();
      legend();
    },
    drawn: () => (size.width > 0 ? { svg, ...size } : null),
  };
}

/** Round numbers from `low` to `high`, about so many. */
export function ticksOf(low: number, high: number, about: number): number[] {
  const rough = (high - low) / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((each) => each * power >= rough) ?? 10) * power;
  const ticks: number[] = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-9 * step; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

/** A round number as it is; a very large or small one as all numbers are written. */
export function tickWords(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return short(value);
  return String(value).replace("-", "−");
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
