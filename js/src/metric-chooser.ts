// What is measured, to be chosen: a logit difference, a log-probability, KL or loss, on which tokens;
// and what the stack does to it on the prompt shown.
import type { Circuit } from "./circuit-picture";
import type { Theme } from "./colour";
import { h, say, select, set } from "./dom";
import { quoted } from "./format";
import type { BeforeAfter, CircuitState, Metric, Objective, TokenName } from "./messages";
import { readingLine, tokenField } from "./metric";

export interface MetricChooser {
  element: HTMLElement;
  update(circuit: Circuit, metric: Metric | null, reading: BeforeAfter | null, theme: Theme): void;
  refuse(sentence: string): void;
}

export interface MetricActions {
  search(query: string): Promise<TokenName[]>;
  objective(gesture: Pick<Objective, "metric" | "token" | "against">): void;
}

type Kind = CircuitState["metric_kind"];

const KINDS: readonly (readonly [Kind, string])[] = [
  ["logit_difference", "logit difference"],
  ["log_prob", "log-probability"],
  ["kl", "KL from the baseline"],
  ["loss", "loss"],
  ["custom", "a function"],
];

export function metricChooser(signal: AbortSignal, actions: MetricActions): MetricChooser {
  let kind: Kind = "logit_difference";
  let known: Metric | null = null;

  const choose = (change: Partial<Pick<Objective, "token" | "against">>, next: Kind = kind) => {
    if (next === "custom") return;
    const { target, against } = known ?? {};
    // Another kind keeps the tokens that there are.
    actions.objective({
      metric: next,
      ...((next === "log_prob" || next === "logit_difference") &&
        target !== undefined && { token: target.id }),
      ...(next === "logit_difference" && against != null && { against: against.id }),
      ...change,
    });
  };
  const kinds = select(
    KINDS,
    { "aria-label": "What is measured", "data-live": true },
    (next) => choose({}, next as Kind),
    signal,
  );
  const token = tokenField(signal, "Target token", "Choose another target token", {
    search: actions.search,
    take: (id) => choose({ token: id }),
  });
  const against = tokenField(signal, "Token that the target is compared with", "", {
    search: actions.search,
    take: (id) => choose({ against: id }),
  });
  const minus = h("span", { class: "pc-muted" }, "−");
  const own = h("span", { class: "pc-token-text" });
  const reading = readingLine();
  const unit = h("span", { class: "pc-muted pc-metric-unit" });
  const words = h("p", { class: "pc-muted pc-small-print" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const element = h(
    "section",
    { class: "pc-metric pc-metric-chooser", "aria-label": "Metric" },
    h("label", { class: "pc-field" }, "metric", kinds),
    h(
      "div",
      { class: "pc-metric-line" },
      token.label,
      token.element,
      minus,
      against.label,
      against.element,
      own,
    ),
    h("div", { class: "pc-metric-line" }, reading.element, unit),
    words,
    error,
  );

  return {
    element,
    update(circuit, metric, numbers, theme) {
      kind = circuit.metric_kind;
      known = metric;
      const custom = [...kinds.options].find((option) => option.value === "custom");
      if (custom !== undefined) custom.hidden = custom.disabled = kind !== "custom";
      kinds.value = kind;
      const one = kind === "log_prob" || kind === "logit_difference";
      const two = kind === "logit_difference";
      // Each pair of a set brings its own tokens.
      const fixed = circuit.pairs !== null;
      const show = (
        field: typeof token,
        name: string,
        shown: TokenName | null | undefined,
        there: boolean,
      ) => {
        set(field.label, { hidden: !there || !field.element.hidden, "data-off": fixed });
        say(field.label, shown ? quoted(shown.text) : "choose a token");
        set(field.label, {
          "aria-label": `${name} ${shown ? quoted(shown.text) : ", not chosen"}; choose another`,
          title: fixed
            ? "Each pair of the set brings its own answer and wrong token"
            : shown
              ? `Token ${shown.id}, ${quoted(shown.text)}\nClick to choose another`
              : "Click to choose one",
        });
        if (!there) field.element.hidden = true;
      };
      show(token, "Target token", metric?.target, one);
      show(against, "Compared with token", metric?.against, two);
      set(minus, { hidden: !two });
      say(own, kind === "custom" ? (metric?.label ?? "") : "");
      reading.update(numbers, theme);
      say(unit, circuit.unit);
      const pairs = circuit.pairs?.count ?? 1;
      say(
        words,
        pairs > 1
          ? `On the pair shown; what is measured below is averaged over all ${pairs} pairs.`
          : "",
      );
    },
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
    },
  };
}
