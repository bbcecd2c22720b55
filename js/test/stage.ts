// The views on a page with their fake kernels, to look at while designing: `node js/test/stage.mjs`.
import maximizer from "../src/activation-maximizer";
import inspector from "../src/attention-inspector";
import ablator from "../src/circuit-ablator";
import atlas from "../src/neuron-atlas";
import clamp from "../src/neuron-clamp";
import { FakeAblator, type FakeAblatorOptions } from "./fake-ablator";
import { FakeAtlas, type FakeAtlasOptions } from "./fake-atlas";
import { FakeInspector, type FakeInspectorOptions, REPEATED, tokensOf } from "./fake-inspector";
import { FakeKernel, FakeModel, type FakeOptions, row } from "./fake-kernel";
import { FakeMaximizer, type FakeMaximizerOptions } from "./fake-maximizer";

const clamps: Record<string, FakeOptions> = {
  stack: {
    rows: [
      row({ key: 1, value: 8 }),
      row({
        key: 2,
        address: "L5.N99",
        op: "scale",
        value: 0.5,
        positions: "",
        range: { low: -1, high: 3 },
        label: "scale L5.N99 by 0.5",
      }),
      row({
        key: 3,
        address: "L20.N1017",
        op: "ablate",
        value: null,
        how: "mean",
        range: null,
        positions: "3,5",
        label: "ablate L20.N1017 to its mean",
        muted: false,
      }),
      row({
        key: 4,
        address: "L5.H3",
        op: "ablate",
        value: null,
        how: "zero",
        range: null,
        positions: "",
        label: "ablate head L5.H3 to zero",
        sd: null,
        mean: null,
        peak: null,
        observed: null,
        muted: true,
      }),
    ],
    state: {
      selected: 1,
      can_undo: true,
      notes: ["8 massive-activation neurons are left out of rankings and random controls."],
    },
  },
  empty: {},
  one: { rows: [row({ key: 1, value: 6.2, positions: "" })], state: { can_undo: true } },
};

const LONG = Array.from({ length: 30 }, () =>
  REPEATED.map((text, i) => (i === 0 ? ` ${text}` : text)),
).flat();
const ODD = [
  "naïve",
  " café",
  "\n",
  "<script>",
  "alert(1)",
  "</script>",
  " <|endoftext|>",
  " שלום",
  "\u00f0",
  "\u009f",
  " x\n\ny",
];
const inspectors: Record<string, FakeInspectorOptions> = {
  heads: { layers: 30, heads: 9, measured: ["effect"], head: [4, 1] },
  small: { layers: 2, heads: 8, head: [1, 2] },
  unlocked: { layers: 12, heads: 12, head: null },
  encoder: { layers: 6, heads: 12, causal: false, head: [1, 3] },
  long: {
    layers: 4,
    heads: 4,
    head: [1, 2],
    state: { tokens: tokensOf(LONG), prompt: LONG.join("") },
  },
  odd: {
    layers: 6,
    heads: 8,
    head: [3, 2],
    state: { tokens: tokensOf(ODD), prompt: ODD.join("") },
  },
  second: {
    layers: 12,
    heads: 12,
    head: [4, 1],
    second: "The dog sat on the rug while a cat slept . The dog sat on the rug while a bird",
    look: "second-difference",
  },
};

const SMOLLM = { layers: 30, heads: 9, kvHeads: 3 };
const ablated = (key: number, address: string, muted = false) =>
  row({
    key,
    address,
    op: "ablate",
    how: "mean",
    label: `ablate ${address} to its mean`,
    value: null,
    positions: "",
    range: null,
    sd: null,
    mean: null,
    peak: null,
    observed: null,
    muted,
  });
const ablators: Record<string, FakeAblatorOptions> = {
  circuit: {
    ...SMOLLM,
    patched: true,
    found: true,
    curved: true,
    rows: [ablated(1, "L12.H4"), ablated(2, "L20.mlp"), ablated(3, "L3.H1", true)],
    selection: {
      notes: [
        { address: "L0.mlp", pinned: true, name: "subject", group: "early" },
        { address: "L12.mlp", pinned: false, name: "", group: "early" },
        { address: "L24.H5", pinned: true, name: "mover", group: "movers" },
      ],
    },
  },
  bare: { ...SMOLLM, mapped: false },
  alone: {
    layers: 12,
    heads: 12,
    pairs: false,
    contrast: null,
    mapped: true,
    refusals: { corrupt: "There is no corrupt prompt; add one of as many tokens." },
  },
  tiny: { layers: 2, heads: 4, mlp: false, found: true, curved: true, patched: true, size: 12 },
};

const EVERYTHING = {
  climbed: true,
  measured: true,
  own: true,
  mattered: true,
  discriminated: true,
};
const maximizers: Record<string, FakeMaximizerOptions> = {
  picture: { ...EVERYTHING, side: 128 },
  facets: { ...EVERYTHING, climbed: false, facets: 4, side: 96 },
  fresh: { side: 128 },
  prompts: { ...EVERYTHING, climbed: false, family: "prompt", dreamed: true },
  unasked: { family: "prompt" },
  curve: { ...EVERYTHING, family: "curve" },
  raster: { ...EVERYTHING, family: "raster" },
  digits: { ...EVERYTHING, side: 16, channels: 1 },
  running: { side: 128, measured: true, pace: 40 },
  function: {
    ...EVERYTHING,
    state: {
      fixed: "It is a Python function; make another ActivationMaximizer for another one.",
      terms: [],
      objective: "contrast(values)",
    },
  },
};

const atlases: Record<string, FakeAtlasOptions> = {
  atlas: { card: "L12.N304", weighed: true },
  "atlas-list": {},
  "atlas-search": {
    card: "L0.N3",
    state: {
      sifted: {
        token: "dog",
        matrix: "down",
        layers: [3, 20],
        least: 4.5,
        brush: [0.01, 0.2, 3.5, 50],
        order: "z",
        falling: true,
      },
    },
  },
  "atlas-decoded": { corpus: false, card: "L12.N304" },
  "atlas-unbuilt": { built: false },
};

const wanted = new URLSearchParams(location.search);
const scene = wanted.get("scene") ?? "stack";
const saved = wanted.has("saved");
const model = new FakeModel(saved ? {} : { live: true });
const kernel =
  scene in inspectors
    ? new FakeInspector(model, inspectors[scene])
    : scene in ablators
      ? new FakeAblator(model, ablators[scene])
      : scene in maximizers
        ? new FakeMaximizer(model, maximizers[scene])
        : scene in atlases
          ? new FakeAtlas(model, atlases[scene])
          : new FakeKernel(model, clamps[scene] ?? {});
if (saved) {
  model.traits.snapshot = JSON.parse(JSON.stringify(kernel.snapshot()));
  model.onSend = () => undefined;
}
// What the host would make in the atlas's plot.
if (kernel instanceof FakeAtlas && kernel.state.atlas !== null) {
  const drawing = document.createElement("canvas");
  [drawing.width, drawing.height] = [460, 320];
  const pen = drawing.getContext("2d");
  if (pen !== null) {
    for (let i = 0; i < 3000; i++) {
      const { firing, score } = kernel.row(i * 14);
      pen.fillStyle = `hsl(${(i * 14) / 200} 60% 50%)`;
      pen.fillRect(40 + 360 * (firing ?? 0), 280 - 4 * (score ?? 0), 3, 3);
    }
  }
  if (!saved) {
    model.traits.chart = "IPY_MODEL_chart";
    model.widget_manager = {
      get_model: async (id) => id,
      create_view: async () => ({ el: drawing, remove: () => drawing.remove() }),
    };
  }
}
Object.assign(globalThis, { kernel, model });
if (wanted.has("dark")) document.body.dataset.jpThemeLight = "false";
else document.body.dataset.jpThemeLight = "true";
const view =
  kernel instanceof FakeInspector
    ? inspector
    : kernel instanceof FakeAblator
      ? ablator
      : kernel instanceof FakeMaximizer
        ? maximizer
        : kernel instanceof FakeAtlas
          ? atlas
          : clamp;
view.render({
  model: model as never,
  el: document.getElementById("view") as HTMLElement,
  signal: new AbortController().signal,
});
