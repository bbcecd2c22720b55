// A table of tens of thousands of neurons: as tall as all of them, drawn where it is looked at. What
// is drawn and not known yet is asked for, one page at a time.

import type { AtlasPicture, Row } from "./atlas-picture";
import { childSignal, h, keyed, say, set, tokenText } from "./dom";
import { exact, percent, short, signed } from "./format";
import type { AtlasState } from "./messages";

export interface NeuronTable {
  element: HTMLElement;
  update(picture: AtlasPicture): void;
}

export interface NeuronTableActions {
  /** Rows that are looked at and not known. */
  need(start: number, count: number): void;
  order(column: Column, falling: boolean): void;
  meet(address: string): void;
  hold(address: string): void;
}

type Column = AtlasState["sifted"]["order"];

const PAGE = 100;
const BESIDE = 8; // rows that are drawn beyond what is seen
const HEIGHT = 24;

interface ColumnOf {
  name: Column | "token";
  label: string;
  title: string;
  /** Whether growing is what one would look for first. */
  rising?: boolean;
  cell(row: Row): (Node | string)[];
  exact?(row: Row): string;
}

const number = (value: number | null) => (value === null ? "–" : short(value));
const COLUMNS: readonly ColumnOf[] = [
  {
    name: "address",
    label: "neuron",
    title: "Its place in the model",
    rising: true,
    cell: (row) => [row.address],
  },
  {
    name: "score",
    label: "special",
    title: "How far its foremost token stands out: standard deviations above permuted weights",
    cell: (row) => [number(row.score)],
    exact: (row) => (row.score === null ? "" : exact(row.score)),
  },
  {
    name: "token",
    label: "token",
    title: "The token that stands out most; ↓ where it stands out downwards",
    cell: (row) => (row.token === "" ? ["–"] : [row.sign < 0 ? "↓" : "", ...tokenText(row.token)]),
  },
  {
    name: "z",
    label: "z",
    title: "How far the token that is searched for stands out, in standard deviations",
    cell: (row) => [row.z === null ? "–" : signed(row.z)],
    exact: (row) => (row.z === null ? "" : exact(row.z)),
  },
  {
    name: "firing",
    label: "fires",
    title: "Share of the corpus’s tokens at which it exceeds a tenth of its own peak",
    rising: true,
    cell: (row) => [row.firing === null ? "–" : percent(row.firing)],
    exact: (row) => (row.firing === null ? "" : exact(row.firing)),
  },
  {
    name: "mean",
    label: "mean",
    title: "Mean over the corpus",
    cell: (row) => [number(row.mean)],
    exact: (row) => (row.mean === null ? "" : exact(row.mean)),
  },
  {
    name: "sd",
    label: "sd",
    title: "Standard deviation over the corpus",
    cell: (row) => [number(row.sd)],
    exact: (row) => (row.sd === null ? "" : exact(row.sd)),
  },
  {
    name: "peak",
    label: "peak",
    title: "Largest absolute value on the corpus",
    cell: (row) => [number(row.peak)],
    exact: (row) => (row.peak === null ? "" : exact(row.peak)),
  },
];

interface Line {
  element: HTMLElement;
  dispose(): void;
  update(row: Row | undefined, selected: boolean, current: boolean): void;
}

export function neuronTable(signal: AbortSignal, actions: NeuronTableActions): NeuronTable {
  const id = `pc-table-${Math.floor(Math.random() * 1e9)}`;
  const heads = COLUMNS.map((column) => {
    const sortable = column.name !== "token";
    const element = h(
      sortable ? "button" : "span",
      sortable
        ? { type: "button", "data-live": true, class: "pc-column-head" }
        : { class: "pc-column-head" },
      column.label,
    );
    if (sortable) element.addEventListener("click", () => sort(column), { signal });
    set(element, { title: column.title });
    return {
      column,
      element,
      cell: h("div", { role: "columnheader", class: `pc-neuron-${column.name}` }, element),
    };
  });
  const head = h(
    "div",
    { class: "pc-neuron-row pc-neuron-head", role: "row" },
    ...heads.map((each) => each.cell),
  );
  const body = h("div", { class: "pc-neuron-rows", role: "rowgroup" });
  const view = h(
    "div",
    { class: "pc-neuron-scroll", role: "grid", tabindex: 0, "aria-label": "Neurons" },
    h("div", { role: "rowgroup", class: "pc-neuron-top" }, head),
    body,
  );
  const lines = new Map<string | number, Line>();
  const note = h("p", { class: "pc-note", hidden: true }, "No neuron is like this.");
  const element = h("div", { class: "pc-neuron-table" }, view, note);
  let picture: AtlasPicture | null = null;
  let current = 0;
  let table = -1;
  /** A row that was pressed before it was known. */
  let awaited: number | null = null;

  view.addEventListener("scroll", draw, { signal, passive: true });
  view.addEventListener("keydown", onKey, { signal });
  new ResizeObserver(draw).observe(view);

  function height(): number {
    return HEIGHT * (element.closest(".pc-large") === null ? 1 : 1.6);
  }
  function count(): number {
    return picture?.state?.count ?? 0;
  }
  function shown(): [number, number] {
    const each = height();
    const first = Math.max(0, Math.floor(view.scrollTop / each) - BESIDE);
    const seen = Math.ceil(view.clientHeight / each) + 2 * BESIDE;
    return [first, Math.min(count(), first + seen)];
  }

  function sort(column: ColumnOf): void {
    const now = picture?.state?.sifted;
    if (now === undefined || column.name === "token") return;
    const same = now.order === column.name;
    actions.order(column.name, same ? !now.falling : !column.rising);
  }

  function draw(): void {
    if (picture === null) return;
    const [first, last] = shown();
    const each = height();
    const places = Array.from({ length: Math.max(0, last - first) }, (_, i) => first + i);
    body.style.height = `${count() * each}px`;
    const rows = keyed(body, lines, places, (place) => place, line);
    const { rows: known, state } = picture;
    places.forEach((place, i) => {
      const part = rows[i];
      if (part === undefined) return;
      part.element.style.top = `${place * each}px`;
      const row = known.get(place);
      part.update(row, row !== undefined && row.address === state?.selected, place === current);
    });
    set(view, {
      "aria-rowcount": count() + 1,
      "aria-activedescendant": count() > 0 ? `${id}-${current}` : null,
    });
    const pressed = awaited === null ? undefined : known.get(awaited);
    if (pressed !== undefined) {
      awaited = null;
      actions.meet(pressed.address);
    }
    const missing = places.find((place) => !known.has(place));
    if (missing !== undefined) actions.need(PAGE * Math.floor(missing / PAGE), PAGE);
  }

  function line(place: number): Line {
    const own = childSignal(signal);
    const cells = COLUMNS.map((column) =>
      h("div", { role: "gridcell", class: `pc-neuron-${column.name}` }),
    );
    const part = h(
      "div",
      { class: "pc-neuron-row", role: "row", id: `${id}-${place}`, "aria-rowindex": place + 2 },
      ...cells,
    );
    let now: Row | undefined;
    let drawn: Row | null | undefined = null;
    part.addEventListener(
      "click",
      () => {
        current = place;
        awaited = place;
        draw();
      },
      { signal: own.signal },
    );
    part.addEventListener(
      "dblclick",
      () => {
        if (now !== undefined) actions.hold(now.address);
      },
      { signal: own.signal },
    );
    return {
      element: part,
      dispose: own.abort,
      update(row, selected, isCurrent) {
        now = row;
        set(part, {
          "aria-selected": selected ? "true" : "false",
          "data-current": isCurrent,
          "data-waiting": row === undefined,
          "data-massive": row?.massive ?? false,
          "data-address": row?.address,
        });
        if (row === drawn) return;
        drawn = row;
        COLUMNS.forEach((column, i) => {
          const cell = cells[i];
          if (cell === undefined) return;
          cell.replaceChildren(...(row === undefined ? [""] : column.cell(row)));
          set(cell, { title: row === undefined ? null : column.exact?.(row) || null });
        });
      },
    };
  }

  function onKey(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target !== view) return;
    const page = Math.max(1, Math.floor(view.clientHeight / height()) - 2);
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -count(),
      End: count(),
    };
    const step = steps[event.key];
    if (step !== undefined) go(current + step);
    else if (event.key === "Enter" && count() > 0) {
      awaited = current;
      draw();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
  function go(place: number): void {
    current = Math.min(Math.max(0, count() - 1), Math.max(0, place));
    const each = height();
    const top = current * each;
    const room = view.clientHeight - head.offsetHeight;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + each > view.scrollTop + room) view.scrollTop = top + each - room;
    draw();
  }

  return {
    element,
    update(next) {
      picture = next;
      const { state } = next;
      if (state === null) return;
      if (next.table !== table) {
        table = next.table;
        current = 0;
        awaited = null;
        view.scrollTop = 0;
      }
      const { order, falling, token } = state.sifted;
      for (const { column, cell, element: part } of heads) {
        const sorted = column.name === order;
        set(cell, {
          "aria-sort": sorted ? (falling ? "descending" : "ascending") : null,
          hidden: column.name === "z" && token === "",
        });
        set(part, { "data-sorted": sorted ? (falling ? "down" : "up") : null });
      }
      set(element, { "data-searching": token !== "" });
      set(note, { hidden: state.count > 0 });
      draw();
    },
  };
}

/** What a reader hears of the table. */
export function counted(state: AtlasState): string {
  const all = state.atlas?.neurons ?? 0;
  const some = state.count.toLocaleString("en-US");
  return state.count === all
    ? `${some} neurons`
    : `${some} of ${all.toLocaleString("en-US")} neurons`;
}

export function showCount(element: Element, state: AtlasState): void {
  say(element, counted(state));
}
