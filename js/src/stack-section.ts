// The stack of interventions with what stands at its end: what the marks mean, reset, copy as code.
import { button, h, set } from "./dom";
import { codeCopy, type Frame } from "./frame";
import type { State } from "./messages";
import type { Picture } from "./picture";
import { type Stack, stack } from "./stack";

export interface StackSection {
  element: HTMLElement;
  /** `old`: the effects shown are of an earlier stack. */
  update(some: boolean, old: boolean): void;
  /** What the marks in the rows mean. */
  legend(...items: HTMLElement[]): void;
}

/** The rows of the session's stack; `selected` are the tokens that a person has marked. */
export function stackOf(signal: AbortSignal, frame: Frame, selected: () => number[]): Stack {
  const { requests, soon, announce } = frame;
  const rows = stack(signal, {
    edit: (edit) => requests.edit(edit),
    act: (gesture, key) => {
      requests.ask(gesture).catch((refused: Error) => rows.refuse(key, refused.message));
    },
    selectedTokens: selected,
    holds: (key) => requests.holds(key),
    touched: soon,
    announce,
  });
  return rows;
}

/** `empty` says what to do first while there is no row. */
export function stackSection(
  signal: AbortSignal,
  frame: Frame,
  rows: Stack,
  empty: HTMLElement,
): StackSection {
  const reset = button(
    "reset",
    { "data-live": true, title: "Take everything out of the stack (R); undo brings it back" },
    () => frame.act({ kind: "reset" }),
    signal,
  );
  const code = codeCopy(signal, frame);
  const legend = h("span", { class: "pc-key pc-muted" });
  const element = h(
    "section",
    { class: "pc-stack", "aria-label": "Stack of interventions" },
    rows.element,
    empty,
    h(
      "div",
      { class: "pc-line pc-stack-end" },
      legend,
      h("span", { class: "pc-group" }, reset, code.button),
    ),
    frame.complaint,
    code.listing,
  );
  return {
    element,
    update(some, old) {
      set(element, { "data-old-effects": old });
      set(empty, { hidden: some });
      set(legend, { hidden: !some });
      for (const each of [reset, code.button]) set(each, { "data-off": !some });
    },
    legend: (...items) => legend.replaceChildren(...items),
  };
}

/** A mark and what it means. */
export function keyItem(mark: string, label: string, colour?: string): HTMLElement {
  const swatch = h("span", { class: `pc-swatch pc-swatch-${mark}`, "aria-hidden": "true" });
  if (colour !== undefined) swatch.style.borderColor = colour;
  return h("span", { class: "pc-key-item" }, swatch, label);
}

/** Shows a session's stack of a revision with the effects of its rows, without curves. */
export function showStack(
  rows: Stack,
  section: StackSection,
  measured: Pick<Picture, "effects" | "effectsRevision">,
  revision: number,
  state: Pick<State, "rows" | "selected" | "tokens">,
  live: boolean,
): void {
  const waiting = live && measured.effectsRevision < revision;
  rows.update({
    rows: state.rows,
    selected: state.selected,
    tokens: state.tokens,
    effects: measured.effects.values(),
    live,
    of: (key) => ({
      curve: null,
      stale: false,
      progress: null,
      effect: measured.effects.get(key) ?? null,
      waiting,
    }),
  });
  section.update(state.rows.length > 0, waiting);
}
