// Prompts that were found: the front as a plot, all of them as a table beside it.
import { capped } from "./capped";
import type { Theme } from "./colour";
import { button, h, keyed, s, say, set } from "./dom";
import { exact, short } from "./format";
import { frontPlot } from "./front-plot";
import { type Kind, mark, markItem, WORD } from "./marks";
import {
  type Candidate,
  isRunning,
  type MaximizerPicture,
  promptScale,
  refusalOf,
} from "./maximizer-picture";
import { spoken } from "./optimised-panel";
import { roving } from "./roving";
import { type Format, saveButtons } from "./save-buttons";
import { activationBar, tokenLine } from "./token-line";

export interface PromptsPanel {
  element: HTMLElement;
  update(picture: MaximizerPicture, chosen: Candidate | null, theme: Theme): void;
  refuse(sentence: string): void;
  paint(theme: Theme): void;
  drawn(): { svg: SVGSVGElement; width: number; height: number } | null;
}

export interface PromptsActions {
  rivals(method: "greedy" | "single"): void;
  load(candidate: number): void;
  table(): void;
  figure(format: Format): void;
  look(candidate: number | null): void;
}

const LISTED = 40;
const KINDS: readonly Kind[] = ["epo", "greedy", "single", "corpus", "own"];

interface Line {
  element: HTMLElement;
  update(
    candidate: Candidate,
    picture: MaximizerPicture,
    state: { chosen: boolean; loaded: boolean },
    theme: Theme,
  ): void;
}

export function promptsPanel(signal: AbortSignal, actions: PromptsActions): PromptsPanel {
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const plot = frontPlot(signal, {
    look(key) {
      point(key);
      actions.look(key);
    },
    load: actions.load,
  });
  const rivals = (["greedy", "single"] as const).map((method) => ({
    method,
    element: button(
      method === "greedy" ? "greedy search" : "every single token",
      {
        "data-live": true,
        title:
          method === "greedy"
            ? "Greedy coordinate search, for comparison"
            : "Every token of the vocabulary as a prompt of one token, for comparison",
      },
      () => actions.rivals(method),
      signal,
    ),
  }));
  const key = h("span", { class: "pc-key" });
  const none = h(
    "p",
    { class: "pc-note pc-first" },
    "Prompts that drive the unit and still read like text will stand here, by their activation and cross-entropy; greedy search and single tokens beside them.",
  );
  const status = h("p", { class: "pc-muted pc-small-print pc-number" });
  const body = h("tbody");
  const table = h(
    "table",
    { class: "pc-candidates" },
    h(
      "caption",
      { class: "pc-hidden" },
      "Prompts by activation; a click puts one into the session",
    ),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h(
          "th",
          { scope: "col", class: "pc-candidate-kind" },
          h("span", { class: "pc-hidden" }, "by"),
        ),
        h("th", { scope: "col", class: "pc-figure" }, "activation"),
        h("th", { scope: "col", class: "pc-figure", title: "Cross-entropy, nats a token" }, "nats"),
        h("th", { scope: "col" }, "prompt"),
      ),
    ),
    body,
  );
  const bar = activationBar(signal);
  const cap = capped(
    signal,
    "prompts",
    LISTED,
    () => again(),
    () => "the strongest",
  );
  const lines = new Map<string | number, Line>();
  const csv = button(
    "CSV",
    {
      class: "pc-button pc-quiet pc-save",
      "data-live": true,
      title: "Save all prompts as CSV",
      "aria-label": "Save all prompts as CSV",
    },
    actions.table,
    signal,
  );
  const files = h(
    "span",
    { class: "pc-group pc-to-end" },
    ...saveButtons("the plot", actions.figure, signal),
    csv,
  );
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const found = h(
    "div",
    { class: "pc-front" },
    h("div", { class: "pc-front-left" }, plot.element, h("div", { class: "pc-line" }, key), status),
    h(
      "div",
      { class: "pc-front-right" },
      h(
        "div",
        // Without a kernel nothing in it takes the focus, and keys must still scroll it.
        { class: "pc-candidate-scroll", tabindex: 0, role: "group", "aria-label": "Prompts found" },
        table,
      ),
      bar.element,
      cap.element,
    ),
  );
  const element = h(
    "div",
    { class: "pc-part pc-prompts-panel" },
    run,
    h(
      "div",
      { class: "pc-line" },
      h("span", { class: "pc-muted" }, "compare with"),
      ...rivals.map((each) => each.element),
      files,
    ),
    error,
    none,
    found,
  );
  let last: [MaximizerPicture, Candidate | null, Theme] | null = null;
  const again = () => {
    if (last !== null) update(...last);
  };

  const point = (at: number | null) => {
    for (const row of body.querySelectorAll<HTMLElement>("tr")) {
      set(row, { "data-pointed": at !== null && row.dataset.key === String(at) });
    }
  };
  const rowOf = (event: Event) => (event.target as Element).closest<HTMLElement>("tr");
  body.addEventListener(
    "click",
    (event) => {
      const at = rowOf(event)?.dataset.key;
      if (at !== undefined) actions.load(Number(at));
    },
    { signal },
  );
  for (const [type, on] of [
    ["pointerover", true],
    ["focusin", true],
    ["pointerleave", false],
    ["focusout", false],
  ] as const) {
    body.addEventListener(
      type,
      (event) => {
        const at = on ? rowOf(event)?.dataset.key : undefined;
        plot.point(at === undefined ? null : Number(at));
      },
      { signal },
    );
  }
  const stops = roving(body, ".pc-candidate", signal);

  const line = (first: Candidate): Line => {
    const shape = h("td", { class: "pc-candidate-kind" });
    const activation = h("td", { class: "pc-figure pc-number" });
    const entropy = h("td", { class: "pc-figure pc-number" });
    const tokens = tokenLine();
    const name = h("button", {
      type: "button",
      class: "pc-candidate",
      "data-live": true,
    });
    name.append(tokens.element);
    const element = h(
      "tr",
      { "data-key": first.key },
      shape,
      activation,
      entropy,
      h("th", { scope: "row" }, name),
    );
    let drawn: unknown[] = [];
    return {
      element,
      update(candidate, picture, { chosen, loaded }, theme) {
        set(element, { "data-chosen": chosen, "data-loaded": loaded });
        set(name, {
          "aria-label": `${spoken(candidate)}${loaded ? ", in the session" : ""}`,
          "aria-pressed": loaded ? "true" : "false",
          title: loaded ? "In the session" : "Click puts it into the session",
        });
        const scale = promptScale(picture);
        const now = [candidate, theme, scale.low, scale.high];
        if (now.every((each, i) => each === drawn[i])) return;
        drawn = now;
        const svg = s("svg", {
          viewBox: "0 0 12 12",
          class: "pc-mark",
          role: "img",
          "aria-label": WORD[candidate.kind],
        });
        svg.append(
          mark(candidate.kind, 6, 6, 4, theme, candidate.front || candidate.kind === "own"),
        );
        shape.replaceChildren(svg);
        say(activation, short(candidate.activation));
        set(activation, { title: exact(candidate.activation) });
        say(entropy, candidate.cross_entropy === null ? "–" : short(candidate.cross_entropy));
        set(entropy, {
          title: candidate.cross_entropy === null ? null : exact(candidate.cross_entropy),
        });
        tokens.update(candidate.tokens, candidate.activations, scale, theme);
      },
    };
  };

  function update(picture: MaximizerPicture, chosen: Candidate | null, theme: Theme): void {
    last = [picture, chosen, theme];
    const { state, front } = picture;
    if (state === null) return;
    for (const { method, element: each } of rivals) {
      const refusal = refusalOf(picture, method);
      set(each, {
        "data-off": refusal !== null || isRunning(picture, method),
        ...(refusal && { title: refusal }),
      });
    }
    const candidates = front?.candidates ?? [];
    set(none, { hidden: candidates.length > 0 || isRunning(picture) });
    for (const each of [found, files]) set(each, { hidden: candidates.length === 0 });
    const job = ["dream", "greedy", "single"]
      .map((each) => picture.progress.get(each))
      .find(Boolean);
    set(run, { hidden: job === undefined });
    if (job) run.style.width = `${(100 * job.done) / Math.max(1, job.total)}%`;
    if (front === null || candidates.length === 0) return;
    const stale = front.objective !== state.objective;
    set(element, { "data-stale": stale });
    const ids = state.tokens.filter((token) => !token.bos).map((token) => token.id);
    const there = (each: Candidate | null) =>
      each !== null && each.tokens.map((token) => token.id).join() === ids.join();
    const loaded = (there(chosen) ? chosen : candidates.find(there))?.key ?? null;
    plot.update({ candidates, chosen: chosen?.key ?? null, loaded, stale });
    const kinds = KINDS.filter((kind) => candidates.some((each) => each.kind === kind));
    const words = `${kinds.join()} ${theme.dark}`;
    if (key.dataset.words !== words) {
      key.dataset.words = words;
      key.replaceChildren(
        ...kinds.flatMap((kind) =>
          kind === "epo"
            ? [
                markItem(kind, "EPO, on the front", theme),
                markItem(kind, "not on it", theme, false),
              ]
            : [markItem(kind, WORD[kind], theme, kind === "own")],
        ),
      );
    }
    const method = front.method === null ? "" : `${WORD[front.method]}: `;
    const rate = front.seconds > 0 ? `, ${short(front.tried / front.seconds)} a second` : "";
    say(
      status,
      `${method}${front.status}, iteration ${front.iteration}/${front.iterations}, ${front.tried.toLocaleString("en-US")} tried in ${short(front.seconds)} s${rate}`,
    );
    bar.update(promptScale(picture));
    set(bar.element, { hidden: !candidates.some((each) => each.activations !== null) });
    const order = [...candidates].sort((a, b) => b.activation - a.activation);
    const shown = cap.take(order);
    const made = keyed(body, lines, shown, (each) => each.key, line);
    shown.forEach((each, i) => {
      made[i]?.update(
        each,
        picture,
        { chosen: each.key === chosen?.key, loaded: each.key === loaded },
        theme,
      );
    });
    stops.refresh();
  }

  return {
    element,
    update,
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
    },
    paint(theme) {
      plot.paint(theme);
      bar.paint(theme);
    },
    drawn: plot.drawn,
  };
}
