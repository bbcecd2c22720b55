// Most discriminative stimuli: units in clusters, one stimulus a cluster, and what each stimulus
// does to each unit as a heat map whose columns stand by cluster.
import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { exact, parse, short } from "./format";
import { type HeatScale, heatBar } from "./heat-bar";
import { type HeatMapPicture, heatMap } from "./heat-map";
import {
  type Discriminated,
  isRunning,
  type MaximizerPicture,
  refusalOf,
} from "./maximizer-picture";
import { roving } from "./roving";
import { stimulusView } from "./stimulus";

export interface DiscriminativePanel {
  element: HTMLElement;
  update(picture: MaximizerPicture, theme: Theme): void;
  refuse(sentence: string): void;
  paint(theme: Theme): void;
}

export interface DiscriminativeActions {
  find(units: string[], clusters: number, seed: number): void;
  stop(): void;
  load(stimulus: number): void;
  changed(): void;
  announce(text: string): void;
}

export function discriminativePanel(
  signal: AbortSignal,
  actions: DiscriminativeActions,
): DiscriminativePanel {
  const units = h("input", {
    type: "text",
    class: "pc-input pc-units-box",
    "aria-label": "Units to tell apart: a part, addresses, or a set such as _fc:c*",
    placeholder: "units: a part, addresses, or a set such as _fc:c*",
    spellcheck: "false",
    autocomplete: "off",
    "data-live": true,
  });
  const small = (label: string, value: string, title: string) => {
    const input = h("input", {
      type: "text",
      inputmode: "numeric",
      class: "pc-input pc-small pc-number",
      value,
      "aria-label": `${label}: ${title}`,
      autocomplete: "off",
      "data-live": true,
    });
    return { input, element: h("label", { class: "pc-field", title }, label, input) };
  };
  const clusters = small(
    "clusters",
    "8",
    "How many there are at first, about twice as many as are expected; they are merged and split",
  );
  const seed = small("seed", "0", "The same seed gives the same stimuli");
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  };
  const start = () => {
    const list = units.value
      .split(/[,;\s]+/)
      .map((each) => each.trim())
      .filter((each) => each !== "");
    const many = parse(clusters.input.value);
    const of = parse(seed.input.value);
    if (list.length === 0)
      refuse("Name the units to tell apart: addresses, or a set such as _fc:c*.");
    else if (many === null || of === null) refuse("Clusters and seed are whole numbers.");
    else actions.find(list, many, of);
  };
  const find = button("find stimuli", { "data-live": true }, start, signal);
  const stop = button(
    "stop",
    { "data-live": true, "aria-label": "Stop finding stimuli" },
    actions.stop,
    signal,
  );
  units.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      start();
    },
    { signal },
  );
  const why = h("p", { class: "pc-note", hidden: true });
  const none = h(
    "p",
    { class: "pc-note pc-first" },
    "Which few stimuli tell these units apart? Name units; they are clustered, and each cluster gets the stimulus that drives it and not the others.",
  );
  const stimuli = h("div", { class: "pc-stimuli", role: "group", "aria-label": "Stimuli" });
  const stops = roving(stimuli, ".pc-facet-show", signal);
  const where = h("p", { class: "pc-where" });
  const values = h("div", { class: "pc-line pc-values" }, where);
  let gamma: HeatScale["gamma"] = 1;
  const bar = heatBar(signal, (next) => {
    gamma = next;
    actions.changed();
  });
  const map = heatMap(signal, "Responses: a row a stimulus, a column a unit", {
    hover(cell) {
      if (cell === null) say(where, "");
      else say(where, seen?.note(cell) ?? "");
    },
    press(cell) {
      if (seen !== null) actions.announce(seen.note(cell));
    },
  });
  const status = h("p", { class: "pc-muted pc-small-print pc-number" });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const found = h(
    "div",
    { class: "pc-discriminated" },
    stimuli,
    h("div", { class: "pc-response" }, map.element, values, bar.element, status),
  );
  const element = h(
    "div",
    { class: "pc-part pc-discriminative" },
    run,
    h(
      "div",
      { class: "pc-line" },
      units,
      clusters.element,
      seed.element,
      h("span", { class: "pc-group" }, find, stop),
    ),
    error,
    why,
    none,
    found,
  );
  let seen: HeatMapPicture | null = null;
  let drawn: unknown[] = [];
  let views: ReturnType<typeof stimulusView>[] = [];
  let words: { name: HTMLElement; count: HTMLElement; button: HTMLElement }[] = [];

  const rebuild = (count: number) => {
    for (const each of views) each.dispose();
    views = [];
    words = [];
    stimuli.replaceChildren(
      ...Array.from({ length: count }, (_, i) => {
        const view = stimulusView(signal, "", true);
        const name = h("span", { class: "pc-facet-name" }, `stimulus ${i + 1}`);
        const of = h("span", { class: "pc-muted pc-small-print" });
        const load = button(
          "",
          { class: "pc-facet-show", "data-live": true },
          () => actions.load(i),
          signal,
        );
        load.append(view.element, h("span", { class: "pc-facet-words" }, name, of));
        views.push(view);
        words.push({ name, count: of, button: load });
        return load;
      }),
    );
  };

  return {
    element,
    refuse,
    paint(theme) {
      bar.paint(theme);
      map.paint(theme);
      for (const each of views) each.paint(theme);
    },
    update(picture, theme) {
      const { state, discrimination: now, progress } = picture;
      if (state === null) return;
      const refusal = refusalOf(picture, "discriminate");
      const runs = isRunning(picture, "discriminate");
      const going = progress.get("discriminate");
      set(run, { hidden: going === undefined });
      if (going !== undefined)
        run.style.width = `${(100 * going.done) / Math.max(1, going.total)}%`;
      set(find, { "data-off": refusal !== null || runs });
      set(stop, { "data-off": !runs });
      set(why, { hidden: refusal === null });
      say(why, refusal ?? "");
      set(none, { hidden: now !== null || refusal !== null || runs });
      set(found, { hidden: now === null });
      if (now === null) return;
      const key = [now, theme, gamma];
      if (key.every((each, i) => each === drawn[i])) return;
      drawn = key;
      if (views.length !== now.stimuli.length) rebuild(now.stimuli.length);
      now.stimuli.forEach((each, i) => {
        views[i]?.update(each);
        views[i]?.paint(theme);
        const size = now.labels.filter((label) => label === i).length;
        const word = words[i];
        if (word === undefined) return;
        say(word.count, `${size} ${size === 1 ? "unit" : "units"}`);
        set(word.button, { title: "Click puts it into the session" });
      });
      stops.refresh();
      seen = responses(now, gamma);
      map.update(seen);
      bar.update(seen.scale, "response");
      const value = now.value === null ? "" : `tells them apart by ${short(now.value)}`;
      const facts = [now.status, `iteration ${now.iteration}/${now.iterations}`, value, now.note];
      say(status, facts.filter((each) => each !== "").join(", "));
      set(status, { title: now.value === null ? null : exact(now.value) });
    },
  };
}

/** A row a stimulus; columns by cluster, so that what belongs together stands together. */
function responses(now: Discriminated, gamma: HeatScale["gamma"]): HeatMapPicture {
  const order = now.units
    .map((_, i) => i)
    .sort((a, b) => (now.labels[a] ?? 0) - (now.labels[b] ?? 0) || a - b);
  const columns = now.units.length;
  const values = new Float32Array(now.clusters * columns);
  let peak = 0;
  let negative = false;
  for (let row = 0; row < now.clusters; row++) {
    order.forEach((unit, column) => {
      const value = now.responses[row * columns + unit] ?? Number.NaN;
      values[row * columns + column] = value;
      if (Math.abs(value) > peak) peak = Math.abs(value);
      if (value < 0) negative = true;
    });
  }
  // The cells that each stimulus is made for are outlined.
  const selected = new Set<number>();
  order.forEach((unit, column) => {
    const row = now.labels[unit] ?? -1;
    if (row >= 0) selected.add(row * columns + column);
  });
  return {
    rows: Array.from({ length: now.clusters }, (_, i) => `stimulus ${i + 1}`),
    columns: order.map((unit) => [{ text: now.units[unit] ?? "", mark: false }]),
    turned: true,
    values,
    scale: { signed: negative, peak: peak || 1, gamma },
    stale: false,
    apart: null,
    crossed: new Set(),
    dashed: new Set(),
    selected,
    note(cell) {
      const row = Math.floor(cell / columns);
      const unit = order[cell % columns] ?? 0;
      const own = now.labels[unit] === row ? ", of its cluster" : "";
      return `stimulus ${row + 1} on ${now.units[unit]}: ${exact(values[cell] ?? Number.NaN)}${own}`;
    },
  };
}
