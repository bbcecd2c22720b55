// The view on a page with the fake kernel, to look at while designing: `node js/test/stage.mjs`.
import view from "../src/neuron-clamp";
import { FakeKernel, FakeModel, type FakeOptions, row } from "./fake-kernel";

const scenes: Record<string, FakeOptions> = {
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

const wanted = new URLSearchParams(location.search);
const options = scenes[wanted.get("scene") ?? "stack"] ?? {};
const saved = wanted.has("saved");
const model = new FakeModel(saved ? {} : { live: true });
const kernel = new FakeKernel(model, options);
if (saved) {
  model.traits.snapshot = JSON.parse(JSON.stringify(kernel.snapshot()));
  model.onSend = () => undefined;
}
Object.assign(globalThis, { kernel, model });
if (wanted.has("dark")) document.body.dataset.jpThemeLight = "false";
else document.body.dataset.jpThemeLight = "true";
view.render({
  model: model as never,
  el: document.getElementById("view") as HTMLElement,
  signal: new AbortController().signal,
});
