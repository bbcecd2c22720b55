// What the stack does to the one number that is looked at: before -> after, and on what target.

import type { Theme } from "./colour";
import { css } from "./colour";
import { type Combobox, combobox, inPlace } from "./combobox";
import { button, h, say, set, tokenText } from "./dom";
import { exact, quoted, short, signed } from "./format";
import type { BeforeAfter, Metric, TokenName } from "./messages";
import { inkOf } from "./next-token";

export interface MetricReading {
  element: HTMLElement;
  update(metric: Metric | null, reading: BeforeAfter | null, theme: Theme): void;
  refuse(sentence: string): void;
}

export interface TokenActions {
  search(query: string): Promise<TokenName[]>;
  take(token: number): void;
}

/** A word that opens a field in its place, in which a token of the vocabulary is chosen. */
export function tokenField(
  signal: AbortSignal,
  name: string,
  title: string,
  actions: TokenActions,
): { label: HTMLButtonElement; element: HTMLElement } {
  const label = button(
    "",
    { class: "pc-button pc-metric-label", "data-live": true, title },
    () => field.open(),
    signal,
  );
  const box: Combobox = combobox({
    name,
    placeholder: "a token, such as Paris",
    strict: true,
    signal,
    take(value) {
      field.close();
      label.focus();
      actions.take(Number(value));
    },
    async suggest(query) {
      const items = await actions.search(query);
      return items.map(({ id, text }) => ({
        value: String(id),
        content: [
          h("span", { class: "pc-token-text" }, ...tokenText(text)),
          h("span", { class: "pc-muted pc-number" }, String(id)),
        ],
      }));
    },
  });
  const field = inPlace(label, box, signal);
  return { label, element: box.element };
}

/** The number before and after, and its change. */
export function readingLine(): {
  element: HTMLElement;
  update(numbers: BeforeAfter | null, theme: Theme): void;
} {
  const before = h("span", { class: "pc-before" });
  const after = h("span", { class: "pc-after" });
  const change = h("span", { class: "pc-change" });
  const element = h(
    "div",
    { class: "pc-reading pc-number" },
    before,
    h("span", { class: "pc-arrow", "aria-label": "to" }, "→"),
    after,
    change,
  );
  return {
    element,
    update(numbers, theme) {
      say(before, numbers === null ? "–" : short(numbers.before));
      say(after, numbers === null ? "–" : short(numbers.after));
      set(before, { title: numbers === null ? null : `before: ${exact(numbers.before)}` });
      set(after, { title: numbers === null ? null : `after: ${exact(numbers.after)}` });
      const shift = numbers === null ? 0 : numbers.after - numbers.before;
      const still = Math.abs(shift) < 5e-4;
      say(change, numbers === null ? "" : still ? "no change" : `Δ ${signed(shift)}`);
      set(change, { title: exact(shift) });
      set(change, { "data-still": still });
      change.style.color = still ? "" : css(inkOf(shift, theme));
    },
  };
}

export function metricReading(
  signal: AbortSignal,
  actions: { search(query: string): Promise<TokenName[]>; target(token: number): void },
): MetricReading {
  const field = tokenField(signal, "Target token", "Choose another target token", {
    search: actions.search,
    take: actions.target,
  });
  const { label } = field;
  const reading = readingLine();
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const element = h(
    "section",
    { class: "pc-metric", "aria-label": "Metric" },
    h(
      "div",
      { class: "pc-metric-line" },
      h("span", { class: "pc-muted" }, "metric"),
      label,
      field.element,
    ),
    reading.element,
    error,
  );

  return {
    element,
    update(metric, numbers, theme) {
      say(label, metric === null ? "…" : metric.label);
      set(label, {
        "aria-label":
          metric === null ? "No metric yet" : `Metric ${metric.label}; choose another target`,
        title:
          metric === null
            ? null
            : `Target: token ${metric.target.id}, ${quoted(metric.target.text)}${
                metric.against ? `, against ${quoted(metric.against.text)}` : ""
              }\nClick to choose another`,
      });
      reading.update(numbers, theme);
    },
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
    },
  };
}
