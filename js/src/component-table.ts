// The map's numbers as a table: each component with its ablation and without, sorted by any column.
import { addressButton } from "./address";
import { capped } from "./capped";
import { type CircuitPicture, columnsOf, componentOf, peakOf } from "./circuit-picture";
import { LIGHT, type Theme } from "./colour";
import type { MapChoice } from "./component-map";
import { button, h, keyed, say, set } from "./dom";
import { signedBar } from "./effect";
import { short, signed, single } from "./format";

export interface ComponentTable {
  element: HTMLElement;
  update(picture: CircuitPicture, chosen: MapChoice, theme: Theme): void;
  /** Marks a component that is looked at elsewhere. */
  point(address: string | null): void;
}

export interface ComponentTableActions {
  /** `more`: beside what is selected. */
  select(address: string, more: boolean): void;
  toggle(address: string): void;
  solo(address: string): void;
  hover(address: string | null): void;
  changed(): void;
}

type Column = "address" | "intervened" | "difference" | "baseline" | "estimate";
/** "size" sorts by how far from zero, largest first. */
type Way = "size" | "down" | "up";

interface Entry {
  address: string;
  index: number;
  intervened: number;
  difference: number;
  baseline: number;
  estimate: number;
}

const COLUMNS: readonly (readonly [Column, string, string, readonly Way[]])[] = [
  ["address", "component", "By layer", ["up", "down"]],
  ["intervened", "ablated", "The metric with the component ablated", ["down", "up"]],
  ["difference", "difference", "Ablated minus baseline", ["size", "down", "up"]],
  ["baseline", "baseline", "The metric without it, under the stack as it is", ["down", "up"]],
  ["estimate", "estimate", "The difference to first order", ["size", "down", "up"]],
];
const SHOWN = 60;

export function componentTable(
  signal: AbortSignal,
  actions: ComponentTableActions,
): ComponentTable {
  let sort: { by: Column; way: Way } = { by: "difference", way: "size" };
  let pointed: string | null = null;
  let theme = LIGHT;
  const body = h("tbody");
  const lines = new Map<string | number, Line>();
  const heads = COLUMNS.map(([column, label, title, ways]) => {
    const press = button(
      label,
      { class: "pc-button pc-quiet pc-sort", title },
      () => {
        const at = sort.by === column ? ways.indexOf(sort.way) : -1;
        sort = { by: column, way: ways[(at + 1) % ways.length] as Way };
        actions.changed();
      },
      signal,
    );
    return { column, press, cell: h("th", { scope: "col", class: `pc-col-${column}` }, press) };
  });
  const limit = capped(signal, "components", SHOWN, actions.changed, () =>
    sort.way === "size" ? "the largest" : "the first",
  );
  const scroll = h(
    "div",
    { class: "pc-table-scroll", tabindex: 0, role: "region", "aria-label": "Components, scrolls" },
    h(
      "table",
      { class: "pc-components" },
      h(
        "caption",
        { class: "pc-hidden" },
        "Each component: the metric with it ablated, without, and the difference",
      ),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { class: "pc-col-on" }, h("span", { class: "pc-hidden" }, "ablated")),
          ...heads.map((head) => head.cell),
        ),
      ),
      body,
    ),
  );
  const element = h(
    "section",
    { class: "pc-part pc-component-table", "aria-label": "Table of components" },
    scroll,
    limit.element,
  );

  interface Line {
    element: HTMLElement;
    update(entry: Entry, is: { ablated: boolean; selected: boolean }, scale: number): void;
  }
  function line(first: Entry): Line {
    const { address } = first;
    const on = h("input", {
      type: "checkbox",
      class: "pc-mute",
      "aria-label": `Ablate ${address}`,
      "data-live": true,
    });
    // Python says what is ablated; the box only asks.
    on.addEventListener("change", () => actions.toggle(address), { signal });
    const name = addressButton(
      address,
      (event) => actions.select(address, event.shiftKey || event.ctrlKey || event.metaKey),
      signal,
    );
    name.addEventListener("dblclick", () => actions.solo(address), { signal });
    const cells = {
      intervened: h("td", { class: "pc-number" }),
      difference: h("span", { class: "pc-number" }),
      baseline: h("td", { class: "pc-number pc-muted" }),
      estimate: h("td", { class: "pc-number pc-muted" }),
    };
    const bar = signedBar();
    const element = h(
      "tr",
      { "data-address": address },
      h("td", {}, h("label", { class: "pc-check" }, on)),
      h("th", { scope: "row" }, name),
      cells.intervened,
      h("td", { class: "pc-difference" }, bar.element, cells.difference),
      cells.baseline,
      cells.estimate,
    );
    return {
      element,
      update(entry, is, scale) {
        for (const [column, cell] of Object.entries(cells)) {
          const value = entry[column as keyof typeof cells];
          const change = column === "difference" || column === "estimate";
          say(cell, Number.isNaN(value) ? "–" : change ? signed(value) : short(value));
          set(cell, { title: Number.isNaN(value) ? "Not measured" : single(value) });
        }
        bar.update(entry.difference, scale, theme);
        if (on.checked !== is.ablated) on.checked = is.ablated;
        set(element, { "data-ablated": is.ablated, "data-pointed": address === pointed });
        set(name, {
          "aria-pressed": is.selected ? "true" : "false",
          title: `${address}\nClick selects it, Shift+click adds it to the selection, double-click ablates it alone, Ctrl+C copies`,
        });
      },
    };
  }

  body.addEventListener("pointerover", (event) => actions.hover(addressOf(event.target)), {
    signal,
  });
  body.addEventListener("pointerleave", () => actions.hover(null), { signal });
  body.addEventListener("focusin", (event) => actions.hover(addressOf(event.target)), { signal });
  body.addEventListener("focusout", () => actions.hover(null), { signal });

  return {
    element,
    point(address) {
      if (address === pointed) return;
      for (const row of body.children) {
        set(row, { "data-pointed": (row as HTMLElement).dataset.address === address });
      }
      pointed = address;
    },
    update(picture, { how, measured, selected }, now) {
      const { circuit } = picture;
      // Numbers of another replacement are of something else.
      const map = picture.map?.how === how ? picture.map : null;
      theme = now;
      if (circuit === null) return;
      const values = map === null ? [] : measured === "exact" ? map.exact : map.estimate;
      const baseline = map?.baseline ?? Number.NaN;
      const entries = Array.from({ length: circuit.layers * columnsOf(circuit) }, (_, index) => {
        const difference = values[index] ?? Number.NaN;
        return {
          address: componentOf(circuit, index),
          index,
          intervened: baseline + difference,
          difference,
          baseline,
          estimate: map?.estimate[index] ?? Number.NaN,
        };
      });
      // While values come in, rows keep the places that their estimates give them.
      const whole = map !== null && map.done >= map.total;
      const estimated = !whole && map?.estimate.some((value) => !Number.isNaN(value));
      const by =
        estimated && sort.by !== "address" && sort.by !== "baseline" ? "estimate" : sort.by;
      entries.sort(order(by, sort.way));
      const shown = limit.take(entries);
      const scale = peakOf(values);
      const parts = keyed(body, lines, shown, (entry) => entry.address, line);
      const ablated = new Set(circuit.ablated);
      const chosen = new Set(selected);
      shown.forEach((entry, i) => {
        const { address } = entry;
        const is = { ablated: ablated.has(address), selected: chosen.has(address) };
        parts[i]?.update(entry, is, scale);
      });
      for (const { column, press, cell } of heads) {
        const here = sort.by === column;
        const rising = sort.way === "up";
        set(cell, { "aria-sort": here ? (rising ? "ascending" : "descending") : null });
        set(press, { "data-way": here ? sort.way : null });
      }
      set(element, { "data-stale": map !== null && map.revision < circuit.holds_since.map });
    },
  };
}

function addressOf(target: EventTarget | null): string | null {
  return (target as Element).closest<HTMLElement>("[data-address]")?.dataset.address ?? null;
}

/** What is not measured comes last, whichever way. */
function order(by: Column, way: Way): (a: Entry, b: Entry) => number {
  const rank = (entry: Entry) => {
    const value = by === "address" ? entry.index : entry[by];
    if (Number.isNaN(value)) return Number.POSITIVE_INFINITY;
    return way === "size" ? -Math.abs(value) : way === "down" ? -value : value;
  };
  return (a, b) => {
    const [x, y] = [rank(a), rank(b)];
    return x === y ? a.index - b.index : x - y;
  };
}
