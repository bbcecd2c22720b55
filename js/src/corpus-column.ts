// The best of the corpus beside what is optimised: the first few of the highest group.
import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { exampleList } from "./example-list";
import { short } from "./format";
import { type MaximizerPicture, refusalOf } from "./maximizer-picture";
import { activationBar } from "./token-line";

export interface CorpusColumn {
  element: HTMLElement;
  update(picture: MaximizerPicture, theme: Theme): void;
  refuse(sentence: string): void;
  paint(theme: Theme): void;
}

export interface CorpusActions {
  measure(): void;
  load(group: number, example: number): void;
}

const FIRST = { stimuli: 9, texts: 5 } as const;

export function corpusColumn(signal: AbortSignal, actions: CorpusActions): CorpusColumn {
  const value = h("span", { class: "pc-number pc-value" });
  const list = exampleList(signal, "Top examples of the corpus", (index) => actions.load(0, index));
  const bar = activationBar(signal);
  const measure = button("measure the corpus", { "data-live": true }, actions.measure, signal);
  const of = h("span", {});
  const none = h("p", { class: "pc-note pc-first" }, measure, of);
  const why = h("p", { class: "pc-note", hidden: true });
  const again = button(
    "measure again",
    { class: "pc-button pc-quiet", "data-live": true },
    actions.measure,
    signal,
  );
  const note = h("p", { class: "pc-muted pc-small-print" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const element = h(
    "section",
    { class: "pc-part pc-corpus-column", "aria-label": "Top examples of the corpus" },
    run,
    h(
      "div",
      { class: "pc-line pc-column-head" },
      h("h3", { class: "pc-title" }, "best of the corpus"),
      again,
      value,
    ),
    none,
    why,
    list.element,
    bar.element,
    note,
    error,
  );

  return {
    element,
    paint: bar.paint,
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
    },
    update(picture, theme) {
      const { state, examples, progress } = picture;
      if (state === null) return;
      const refusal = refusalOf(picture, "examples");
      const going = progress.get("examples");
      const stale = examples !== null && examples.objective !== state.objective;
      const top = examples?.groups[0]?.examples ?? [];
      set(run, { hidden: going === undefined });
      if (going !== undefined)
        run.style.width = `${(100 * going.done) / Math.max(1, going.total)}%`;
      set(why, { hidden: refusal === null || examples !== null });
      say(why, refusal ?? "");
      set(none, { hidden: refusal !== null || examples !== null || going !== undefined });
      say(of, state.corpus === "" ? "" : `: ${state.corpus}`);
      set(again, { hidden: !stale || going !== undefined });
      set(element, { "data-stale": stale });
      list.update(
        top.slice(0, top[0]?.picture ? FIRST.stimuli : FIRST.texts),
        examples ?? { low: 0, high: 1 },
        theme,
      );
      set(bar.element, { hidden: examples === null || !top[0] || top[0].picture !== null });
      if (examples !== null) bar.update(examples);
      const best = examples?.maximum ?? null;
      say(value, best === null ? "" : short(best));
      say(
        note,
        examples === null
          ? ""
          : `${stale ? `Of another unit, ${examples.objective}. ` : ""}${examples.corpus}. ${
              examples.note
            }`.trim(),
      );
    },
  };
}
