// What ablating each component does to the metric: layers down, heads and the MLP across. A click
// ablates one and another takes that back, a double click ablates it alone, a brush ablates many.
import {
  type Circuit,
  type CircuitPicture,
  columnsOf,
  componentOf,
  indexOfComponent,
  peakOf,
  type Replacement,
} from "./circuit-picture";
import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { signed, single } from "./format";
import { type HeatScale, heatBar } from "./heat-bar";
import { type HeatMapPicture, heatMap } from "./heat-map";
import { replacements } from "./replacements";
import { type Format, saveButtons } from "./save-buttons";
import { segments } from "./segments";

export type Measured = "exact" | "estimate";

export interface ComponentMap {
  element: HTMLElement;
  update(picture: CircuitPicture, chosen: MapChoice): void;
  /** Marks a component that is looked at elsewhere. */
  point(address: string | null): void;
  paint(theme: Theme): void;
  /** What is drawn now, for a file. */
  drawn(): HeatMapPicture | null;
  refuse(sentence: string): void;
}

export interface MapChoice {
  how: Replacement;
  measured: Measured;
  selected: readonly string[];
}

export interface ComponentMapActions {
  /** Measures all components. */
  survey(how: Replacement): void;
  choose(choice: { how?: Replacement; measured?: Measured }): void;
  /** Ablates, or takes ablations back where all of these are ablated. */
  toggle(addresses: string[]): void;
  solo(address: string): void;
  /** `more`: beside what is selected. */
  select(addresses: string[], more: boolean): void;
  hover(address: string | null): void;
  /** The scale has changed: paint. */
  changed(): void;
  save(format: Format): void;
  announce(text: string): void;
}

/** How long a second click may take to make a double click of the first, in milliseconds. */
const DOUBLE = 260;

export function componentMap(signal: AbortSignal, actions: ComponentMapActions): ComponentMap {
  let shown: CircuitPicture | null = null;
  let circuit: Circuit | null = null;
  let drawn: HeatMapPicture | null = null;
  let gamma: HeatScale["gamma"] = 0.5;
  let hovered: string | null = null;
  /** What was clicked and Python has not confirmed: whether it is to be ablated. */
  const wanted = new Map<string, { ablated: boolean; revision: number }>();
  /** A click that takes an ablation back waits, in case it begins a double click. */
  let waiting: { address: string; timer: ReturnType<typeof setTimeout> } | null = null;
  signal.addEventListener("abort", () => clearTimeout(waiting?.timer), { once: true });

  const grid = heatMap(
    signal,
    "Components, layers by heads and MLP; arrow keys move, Enter ablates one or takes that back, Shift with an arrow takes several, Shift+Enter ablates one alone",
    {
      hover(cell, by) {
        hovered = addressAt(cell);
        read();
        actions.hover(hovered);
        if (by === "keys" && hovered !== null) actions.announce(note(hovered));
      },
      press(cell, more) {
        const address = addressAt(cell);
        if (address === null) return;
        actions.select([address], more);
        if (more || dead()) return;
        const ablated = isAblated(address);
        expect(address, !ablated);
        if (!ablated) actions.toggle([address]);
        else {
          settle();
          const timer = setTimeout(settle, DOUBLE);
          waiting = { address, timer };
        }
      },
      solo(cell) {
        const address = addressAt(cell);
        if (address === null) return;
        clearTimeout(waiting?.timer);
        waiting = null;
        wanted.clear();
        actions.select([address], false);
        if (!dead()) actions.solo(address);
      },
      brush(cells) {
        const addresses = cells.map(addressAt).filter((each) => each !== null);
        actions.select(addresses, false);
        if (dead()) return;
        const back = addresses.every(isAblated);
        for (const address of addresses) expect(address, !back);
        actions.toggle(addresses);
      },
    },
  );
  const bar = heatBar(signal, (next) => {
    gamma = next;
    actions.changed();
  });
  const how = replacements(signal, "What is put in the place of an ablated component", (next) =>
    actions.choose({ how: next }),
  );
  const measured = segments<Measured>(
    "Which effects are shown",
    [
      { value: "exact", label: "exact", title: "Each component ablated, and the metric measured" },
      {
        value: "estimate",
        label: "estimate",
        title: "To first order, from one gradient: attribution patching",
      },
    ],
    (next) => actions.choose({ measured: next }),
    { signal, live: false },
  );
  // Always there: what comes and goes above the map would move it under someone's hand.
  const survey = button("measure", { "data-live": true }, () => actions.survey(chosen.how), signal);
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const first = h(
    "p",
    { class: "pc-note pc-first" },
    "Nothing is measured yet: click a cell to ablate that component, or ",
    button(
      "measure what each one does",
      { "data-live": true },
      () => actions.survey(chosen.how),
      signal,
    ),
    ".",
  );
  const where = h("p", { class: "pc-where pc-values" });
  const words = h("p", { class: "pc-muted pc-small-print" });
  const element = h(
    "section",
    { class: "pc-part pc-component-map", "aria-label": "What ablating each component does" },
    run,
    h(
      "div",
      { class: "pc-line pc-panel-head" },
      h("h3", { class: "pc-title" }, "ablate"),
      h("label", { class: "pc-field" }, "to", how.element),
      measured.element,
      survey,
      h("span", { class: "pc-group pc-to-end" }, ...saveButtons("the map", actions.save, signal)),
    ),
    grid.element,
    where,
    error,
    first,
    h("div", { class: "pc-line pc-under" }, bar.element),
    words,
  );
  let chosen: MapChoice = { how: "mean", measured: "exact", selected: [] };

  const dead = () => element.closest("[data-dead]") !== null;

  /** Sends the click that waited. */
  function settle(): void {
    if (waiting === null) return;
    clearTimeout(waiting.timer);
    const { address } = waiting;
    waiting = null;
    actions.toggle([address]);
  }
  function expect(address: string, ablated: boolean): void {
    wanted.set(address, { ablated, revision: shown?.circuitRevision ?? -1 });
    actions.changed();
  }
  function addressAt(cell: number | null): string | null {
    return circuit === null || cell === null ? null : componentOf(circuit, cell);
  }
  function isAblated(address: string): boolean {
    return wanted.get(address)?.ablated ?? circuit?.ablated.includes(address) ?? false;
  }

  /** "L5.H3 −0.412, estimated −0.38" */
  function note(address: string): string {
    const at = circuit === null ? -1 : indexOfComponent(circuit, address);
    const map = shown?.map ?? null;
    const value = map?.exact[at] ?? Number.NaN;
    const estimate = map?.estimate[at] ?? Number.NaN;
    const says = [
      Number.isNaN(value) ? "" : signed(value),
      Number.isNaN(estimate) ? "" : `≈ ${signed(estimate)}`,
      isAblated(address) ? "ablated" : "",
    ].filter((word) => word !== "");
    return [address, ...(says.length > 0 ? says : ["not measured"])].join("  ");
  }

  function read(): void {
    const address = hovered ?? chosen.selected[0] ?? null;
    const map = shown?.map ?? null;
    if (address === null || circuit === null) {
      say(where, "");
      return;
    }
    const at = indexOfComponent(circuit, address);
    const value = map?.exact[at] ?? Number.NaN;
    const estimate = map?.estimate[at] ?? Number.NaN;
    say(
      where,
      `${address}  ${Number.isNaN(value) ? "not measured exactly" : `${single(value)} exact`}${
        Number.isNaN(estimate) ? "" : `, ${single(estimate)} estimated`
      }`,
    );
  }

  return {
    element,
    drawn: () => drawn,
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
      if (sentence !== "") wanted.clear();
    },
    point: (address) =>
      grid.point(address === null || circuit === null ? null : indexOfComponent(circuit, address)),
    update(picture, next) {
      shown = picture;
      circuit = picture.circuit;
      chosen = next;
      if (circuit === null) return;
      const { map } = picture;
      for (const [address, { ablated, revision }] of wanted) {
        const known = picture.circuitRevision > revision;
        if (
          waiting?.address !== address &&
          (known || circuit.ablated.includes(address) === ablated)
        )
          wanted.delete(address);
      }
      const state = circuit;
      const size = circuit.layers * columnsOf(circuit);
      const old = map !== null && map.how !== next.how;
      const stale = map !== null && (old || map.revision < circuit.holds_since.map);
      const none = new Float32Array(size).fill(Number.NaN);
      const values = map === null || old ? none : map[next.measured];
      const fresh = map !== null && !old;
      const beneath = fresh && next.measured === "exact" ? map.estimate : none;
      const seen = values.map((value, i) => (Number.isNaN(value) ? (beneath[i] ?? 0) : value));
      const scale: HeatScale = { signed: true, peak: peakOf(seen) || 1, gamma };
      const at = (addresses: Iterable<string>) =>
        new Set([...addresses].map((each) => indexOfComponent(state, each)).filter((i) => i >= 0));
      const ablated = new Set(circuit.ablated);
      for (const [address, each] of wanted) {
        if (each.ablated) ablated.add(address);
        else ablated.delete(address);
      }
      const muted = (picture.state?.rows ?? [])
        .filter((row) => row.muted && !ablated.has(row.address))
        .map((row) => row.address);
      drawn = {
        rows: Array.from({ length: circuit.layers }, (_, layer) => `L${layer}`),
        columns: Array.from({ length: columnsOf(circuit) }, (_, column) => [
          { text: column < state.heads ? `H${column}` : "MLP", mark: false },
        ]),
        turned: false,
        values,
        beneath,
        scale,
        stale,
        apart: circuit.mlp ? circuit.heads : null,
        crossed: at(ablated),
        dashed: at(muted),
        selected: at(next.selected),
        note: (cell) => note(componentOf(state, cell)),
      };
      grid.update(drawn);
      const unit = circuit.unit === "" ? "" : `, ${circuit.unit}`;
      bar.update(scale, `effect on the metric${unit}`);
      set(bar.element, { hidden: map === null });
      how.update(next.how, circuit.refusals.corrupt);
      const noEstimate = map?.estimate.every(Number.isNaN) ?? false;
      measured.update(next.measured, {
        estimate: noEstimate ? map?.note || "there is no estimate of this metric." : null,
      });
      const progress = picture.progress.get("map") ?? null;
      set(run, { hidden: progress === null });
      if (progress !== null) {
        run.style.width = `${(100 * progress.done) / Math.max(1, progress.total)}%`;
      }
      set(first, { hidden: map !== null || progress !== null });
      const whole = map !== null && !stale && map.done >= map.total;
      set(survey, {
        "data-off": whole || progress !== null,
        title: whole
          ? "Every component is measured"
          : `Ablate each component by itself and measure the metric${stale ? "; these numbers are of an earlier prompt, metric or stack" : ""}`,
      });
      const guessed = beneath.some((value) => !Number.isNaN(value));
      const filling =
        map !== null && map.done < map.total
          ? `${map.done} of ${map.total} measured${guessed ? "; what is hatched shows its estimate" : ""}. `
          : "";
      const over = map !== null && map.pairs > 1 ? `Averaged over ${map.pairs} pairs. ` : "";
      say(words, `${filling}${over}${map?.note ?? ""}`.trim());
      set(words, { hidden: words.textContent === "" });
      read();
    },
    paint(theme) {
      grid.paint(theme);
      bar.paint(theme);
    },
  };
}
