// Activation against cross-entropy: the front of EPO filled and joined, other candidates hollow,
// greedy search, single tokens and the corpus by their own shapes. One stop of the Tab order;
// arrows walk the candidates from left to right, Enter loads.
import { ticksOf, tickWords } from "./activation-axis";
import { css, LIGHT, type Theme } from "./colour";
import { h, s, set } from "./dom";
import { mix } from "./heat-bar";
import { mark, markColour } from "./marks";
import type { Candidate } from "./maximizer-picture";
import { spoken } from "./optimised-panel";

export interface FrontPicture {
  candidates: readonly Candidate[];
  /** What is shown in the column above. */
  chosen: number | null;
  /** What the session has. */
  loaded: number | null;
  stale: boolean;
}

export interface FrontPlot {
  element: HTMLElement;
  update(picture: FrontPicture): void;
  /** Marks a candidate that is looked at elsewhere. */
  point(key: number | null): void;
  paint(theme: Theme): void;
  drawn(): { svg: SVGSVGElement; width: number; height: number } | null;
}

export interface FrontActions {
  look(key: number | null): void;
  load(key: number): void;
}

const LEFT = 46;
const RIGHT = 12;
const TOP = 10;
const HEIGHT = 250;
const BELOW = 36;
const NEAR = 14; // pixels from which a pointer means a point

interface Spot {
  candidate: Candidate;
  x: number;
  y: number;
}

export function frontPlot(signal: AbortSignal, actions: FrontActions): FrontPlot {
  const svg = s("svg", { class: "pc-front-svg", "aria-hidden": "true" });
  const over = s("svg", { class: "pc-front-over", "aria-hidden": "true" });
  const box = h(
    "div",
    {
      class: "pc-front-box",
      tabindex: 0,
      role: "application",
      "aria-label": "Prompts: activation against cross-entropy",
      "aria-roledescription": "scatter plot",
    },
    svg,
    over,
  );
  const spoke = h("div", { class: "pc-hidden", "aria-live": "polite" });
  const element = h("div", { class: "pc-front-plot" }, box, spoke);
  let picture: FrontPicture = { candidates: [], chosen: null, loaded: null, stale: false };
  let theme = LIGHT;
  let spots: Spot[] = [];
  let looked: number | null = null;
  let size = { width: 0, height: 0 };
  let unit = 1;

  const draw = () => {
    const width = box.clientWidth;
    if (width < 1) return;
    unit = Number.parseFloat(getComputedStyle(box).fontSize) / 13;
    const height = (TOP + HEIGHT + BELOW) * unit;
    size = { width, height };
    for (const each of [svg, over]) {
      set(each, { width, height, viewBox: `0 0 ${width} ${height}` });
    }
    const plotted = picture.candidates.filter(hasPlace);
    const left = LEFT * unit;
    const right = width - RIGHT * unit;
    const top = TOP * unit;
    const bottom = (TOP + HEIGHT) * unit;
    const [x0, x1] = span(plotted.map((each) => each.cross_entropy));
    const [y0, y1] = span(plotted.map((each) => each.activation));
    const x = (value: number) => left + ((value - x0) / (x1 - x0)) * (right - left);
    const y = (value: number) => bottom - ((value - y0) / (y1 - y0)) * (bottom - top);
    const ink = (share: number) => css(mix(theme.background, theme.ink, share));
    const word = (text: string, at: number, down: number, anchor: string) =>
      s(
        "text",
        {
          x: round(at),
          y: round(down),
          "text-anchor": anchor,
          fill: ink(0.68),
          "font-size": 10 * unit,
        },
        text,
      );
    const grid: SVGElement[] = [];
    for (const value of ticksOf(y0, y1, 5)) {
      grid.push(
        s("path", {
          d: `M${left} ${Math.round(y(value)) + 0.5}H${right}`,
          stroke: ink(value === 0 ? 0.4 : 0.1),
          "stroke-width": 1,
        }),
        word(tickWords(value), left - 6 * unit, y(value) + 3.5 * unit, "end"),
      );
    }
    for (const value of ticksOf(x0, x1, Math.max(2, Math.floor((right - left) / (70 * unit))))) {
      grid.push(
        s("path", {
          d: `M${Math.round(x(value)) + 0.5} ${bottom}v${4 * unit}`,
          stroke: ink(0.5),
          "stroke-width": 1,
        }),
        word(tickWords(value), x(value), bottom + 15 * unit, "middle"),
      );
    }
    grid.push(
      s("path", { d: `M${left} ${bottom + 0.5}H${right}`, stroke: ink(0.5), "stroke-width": 1 }),
      s("path", { d: `M${left - 0.5} ${top}V${bottom}`, stroke: ink(0.5), "stroke-width": 1 }),
      word("cross-entropy, nats a token →", right, bottom + 30 * unit, "end"),
      word("activation ↑", left + 6 * unit, top + 8 * unit, "start"),
    );
    const front = plotted
      .filter((each) => each.kind === "epo" && each.front)
      .sort((a, b) => a.cross_entropy - b.cross_entropy);
    const joined = front
      .map((each, i) =>
        i === 0
          ? `M${round(x(each.cross_entropy))} ${round(y(each.activation))}`
          : `H${round(x(each.cross_entropy))}V${round(y(each.activation))}`,
      )
      .join("");
    spots = plotted.map((candidate) => ({
      candidate,
      x: x(candidate.cross_entropy),
      y: y(candidate.activation),
    }));
    // Baselines below, the front on top.
    const rank = (each: Spot) =>
      each.candidate.kind === "epo" ? (each.candidate.front ? 2 : 1) : 0;
    const marks = [...spots]
      .sort((a, b) => rank(a) - rank(b))
      .map((each) => {
        const { kind, front: isFront } = each.candidate;
        const filled = isFront || kind === "own";
        return mark(kind, each.x, each.y, (filled ? 4.5 : 3.5) * unit, theme, filled);
      });
    svg.replaceChildren(
      s(
        "g",
        { opacity: picture.stale ? 0.6 : 1 },
        ...grid,
        s("path", {
          d: joined,
          fill: "none",
          stroke: markColour("epo", theme),
          "stroke-width": 1.25 * unit,
        }),
        ...marks,
      ),
    );
    spots.sort((a, b) => a.x - b.x || a.y - b.y);
    drawOver();
  };

  const drawOver = () => {
    const ring = (key: number | null, wide: number, colour: string) => {
      const at = spots.find((each) => each.candidate.key === key);
      return at === undefined
        ? []
        : [
            s("circle", {
              cx: round(at.x),
              cy: round(at.y),
              r: (7.5 + wide) * unit,
              fill: "none",
              stroke: colour,
              "stroke-width": 1.5 * unit,
            }),
          ];
    };
    over.replaceChildren(
      ...ring(picture.chosen, 0, css(theme.ink)),
      ...ring(looked, 2.5, "var(--pc-accent)"),
    );
  };

  const look = (key: number | null) => {
    if (key === looked) return;
    looked = key;
    drawOver();
    actions.look(key);
  };
  const at = (event: MouseEvent): number | null => {
    const rect = box.getBoundingClientRect();
    const [x, y] = [event.clientX - rect.left, event.clientY - rect.top];
    let best: number | null = null;
    let near = (NEAR * unit) ** 2;
    for (const each of spots) {
      const far = (each.x - x) ** 2 + (each.y - y) ** 2;
      if (far < near) [near, best] = [far, each.candidate.key];
    }
    return best;
  };
  box.addEventListener(
    "pointermove",
    (event) => {
      const key = at(event);
      box.style.cursor = key === null ? "" : "pointer";
      look(key);
    },
    { signal },
  );
  box.addEventListener("pointerleave", () => look(null), { signal });
  box.addEventListener(
    "click",
    (event) => {
      const key = at(event);
      if (key !== null) actions.load(key);
    },
    { signal },
  );
  box.addEventListener(
    "keydown",
    (event) => {
      const from = spots.findIndex((each) => each.candidate.key === (looked ?? picture.chosen));
      const to = {
        ArrowLeft: from < 0 ? spots.length - 1 : from - 1,
        ArrowRight: from + 1,
        Home: 0,
        End: spots.length - 1,
        ArrowUp: higher(from, 1),
        ArrowDown: higher(from, -1),
      }[event.key];
      if (event.key === "Enter" || event.key === " ") {
        const key = looked ?? picture.chosen;
        if (key !== null) actions.load(key);
      } else if (to !== undefined) {
        const spot = spots[Math.min(spots.length - 1, Math.max(0, to))];
        if (spot !== undefined) {
          look(spot.candidate.key);
          spoke.textContent = spoken(spot.candidate);
        }
      } else return;
      event.preventDefault();
    },
    { signal },
  );
  box.addEventListener("blur", () => look(null), { signal });
  /** The next one up (1) or down (-1). */
  const higher = (from: number, way: 1 | -1): number => {
    const order = spots.map((_, i) => i).sort((a, b) => (spots[b]?.y ?? 0) - (spots[a]?.y ?? 0));
    const place = order.indexOf(from);
    return order[Math.min(order.length - 1, Math.max(0, place + way))] ?? 0;
  };

  const watch = new ResizeObserver(draw);
  watch.observe(box);
  signal.addEventListener("abort", () => watch.disconnect(), { once: true });

  return {
    element,
    update(next) {
      const same = next.candidates === picture.candidates && next.stale === picture.stale;
      picture = next;
      if (same) drawOver();
      else draw();
    },
    point(key) {
      if (key === looked) return;
      looked = key;
      drawOver();
    },
    paint(next) {
      theme = next;
      draw();
    },
    drawn: () => (size.width > 0 ? { svg, ...size } : null),
  };
}

function hasPlace(candidate: Candidate): candidate is Candidate & { cross_entropy: number } {
  return candidate.cross_entropy !== null;
}

/** From the smallest to the largest with some room; zero stays in sight where it is near. */
function span(values: readonly number[]): [number, number] {
  if (values.length === 0) return [0, 1];
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (low > 0 && low < 0.5 * high) low = 0;
  if (high < 0 && high > 0.5 * low) high = 0;
  if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
  const room = 0.05 * (high - low);
  return [low === 0 ? 0 : low - room, high === 0 ? 0 : high + room];
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
