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

export function metricReading(
  signal: AbortSignal,
  actions: { search(query: string): Promise<TokenName[]>; target(token: number): void },
): MetricReading {
  const label = button(
    "",
    { class: "pc-button pc-metric-label", "data-live": true, title: "Choose another target token" },
    () => field.open(),
    signal,
  );
  const box: Combobox = combobox({
    name: "Target token",
    placeholder: "a token, such as Paris",
    strict: true,
    signal,
    take(value) {
      field.close();
      label.focus();
      actions.target(Number(value));
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
  const before = h("span", { class: "pc-before" });
  const after = h("span", { class: "pc-after" });
  const change = h("span", { class: "pc-change" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const reading = h(
    "div",
    { class: "pc-reading pc-number" },
    before,
    h("span", { class: "pc-arrow", "aria-label": "to" }, "→"),
    after,
    change,
  );
  const element = h(
    "section",
    { class: "pc-metric", "aria-label": "Metric" },
    h(
      "div",
      { class: "pc-metric-line" },
      h("span", { class: "pc-muted" }, "metric"),
      label,
      box.element,
    ),
    reading,
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
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
    },
  };
}
