// The line above the table: the token that is searched for, which matrix, which layers, how special.
import { button, h, say, set } from "./dom";
import { exact, parse, short } from "./format";
import type { AtlasState } from "./messages";
import { type Segments, segments } from "./segments";

export type Sifted = AtlasState["sifted"];
export interface Asked {
  token: string;
  matrix: Sifted["matrix"];
  layers: [number, number] | null;
  least: number | null;
  order: Sifted["order"];
  falling: boolean;
  brushed: boolean;
}

export interface AtlasSearch {
  element: HTMLElement;
  /** Asks for what is asked for now, with this changed. */
  ask(change: Partial<Asked>): void;
  /** What was asked for last will not come. */
  forget(): void;
  update(state: AtlasState): void;
  refuse(sentence: string): void;
}

const MATRICES = [
  { value: "down", label: "writes", title: "What a neuron writes: its output vector (down)" },
  { value: "up", label: "reads (up)", title: "What a neuron reads with: its row of up" },
  { value: "gate", label: "reads (gate)", title: "What a neuron reads with: its row of gate" },
] as const;

export function atlasSearch(signal: AbortSignal, sift: (asked: Asked) => void): AtlasSearch {
  let now: Sifted | null = null;
  let asked: Asked | null = null; // and not answered yet: what is changed meanwhile is changed in it
  let nLayers = 1;

  const token = field("token", "Search by a token", 12);
  const layers = field("layers", "Layers, such as 3 or 10:20", 6);
  const least = field("at least", "How special a neuron is at least", 5);
  const clear = button(
    "clear",
    { class: "pc-button pc-quiet", "data-live": true, title: "Show all neurons" },
    () => {
      for (const each of [token, layers, least]) each.input.value = "";
      ask({ token: "", layers: null, least: null, brushed: false, order: "score", falling: true });
    },
    signal,
  );
  const matrix: Segments<Sifted["matrix"]> = segments(
    "Which of a neuron’s vectors is decoded",
    MATRICES,
    (value) => ask({ matrix: value }),
    { signal },
  );
  const brush = h("span", { class: "pc-muted pc-brush", hidden: true });
  const unbrush = button(
    "×",
    { class: "pc-button pc-quiet", "data-live": true, "aria-label": "Take the brush away" },
    () => ask({ brushed: false }),
    signal,
  );
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const element = h(
    "div",
    { class: "pc-atlas-search" },
    h(
      "div",
      { class: "pc-line" },
      token.element,
      matrix.element,
      layers.element,
      least.element,
      h("span", { class: "pc-group" }, brush, unbrush),
      clear,
    ),
    error,
  );

  function field(label: string, title: string, width: number) {
    const input = h("input", {
      type: "text",
      class: "pc-input pc-number",
      "aria-label": title,
      title,
      size: width,
      spellcheck: "false",
      autocomplete: "off",
      "data-live": true,
    });
    input.addEventListener("change", take, { signal });
    return { input, element: h("label", { class: "pc-field" }, h("span", {}, label), input) };
  }

  function take(): void {
    const range = layersOf(layers.input.value, nLayers);
    const lowest = least.input.value.trim() === "" ? null : parse(least.input.value);
    if (range === undefined) {
      refuse(`“${layers.input.value}” is no range of layers; 0:${nLayers - 1} would be all.`);
    } else if (least.input.value.trim() !== "" && lowest === null) {
      refuse(`“${least.input.value}” is no number.`);
    } else {
      const word = token.input.value.trim();
      const found = word !== "" && now?.token === "" ? { order: "z" as const, falling: true } : {};
      const lost = word === "" && now?.order === "z" ? { order: "score" as const } : {};
      ask({ token: word, layers: range, least: lowest, ...found, ...lost });
    }
  }

  function ask(change: Partial<Asked>): void {
    if (now === null) return;
    refuse("");
    const { layers: kept, brush: _brush, ...rest } = now;
    const known = kept === null ? null : ([kept[0], kept[1]] as [number, number]);
    asked = { ...(asked ?? { ...rest, layers: known, brushed: true }), ...change };
    sift(asked);
  }
  function refuse(sentence: string): void {
    if (sentence !== "") forget();
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  }
  function forget(): void {
    asked = null;
  }

  return {
    element,
    ask,
    forget,
    refuse,
    update(state) {
      const { sifted, atlas } = state;
      nLayers = atlas?.layers ?? 1;
      if (sifted !== now) {
        now = sifted;
        forget();
        fill(token.input, sifted.token);
        fill(layers.input, sifted.layers === null ? "" : sifted.layers.join(":"));
        fill(least.input, sifted.least === null ? "" : exact(sifted.least));
      }
      const there = new Set(atlas?.matrices ?? []);
      matrix.update(
        sifted.matrix,
        Object.fromEntries(
          MATRICES.map(({ value }) => [value, there.has(value) ? null : "It was not decoded."]),
        ),
      );
      const [f0, f1, s0, s1] = sifted.brush ?? [];
      const brushed = f0 !== undefined && f1 !== undefined && s0 !== undefined && s1 !== undefined;
      if (brushed) {
        const percent = (value: number) => `${(100 * value).toPrecision(2)} %`;
        say(
          brush,
          `brushed: fires ${percent(f0)} to ${percent(f1)}, ${short(s0)} to ${short(s1)} special`,
        );
      }
      set(brush, { hidden: !brushed });
      set(unbrush, { hidden: !brushed });
    },
  };
}

/** "3" -> [3, 3], "10:20" -> [10, 20], "" -> null; undefined for what is neither. */
export function layersOf(text: string, count: number): [number, number] | null | undefined {
  const found = /^\s*(\d+)\s*(?:[:–-]\s*(\d+)\s*)?$/.exec(text);
  if (text.trim() === "") return null;
  if (found === null) return undefined;
  const first = Number(found[1]);
  const last = Number(found[2] ?? found[1]);
  return first <= last && last < count ? [first, last] : undefined;
}

function fill(input: HTMLInputElement, text: string): void {
  if (input.value !== text) input.value = text;
  input.defaultValue = text;
}
