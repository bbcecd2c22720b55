// The corpus by quantile groups, the highest first: what the unit likes, and what it does not.
import type { Theme } from "./colour";
import { button, childSignal, h, keyed, say, set } from "./dom";
import { exampleList } from "./example-list";
import { exact, short } from "./format";
import { type Corpus, type MaximizerPicture, refusalOf } from "./maximizer-picture";
import { activationBar } from "./token-line";

export interface ExamplesPanel {
  element: HTMLElement;
  update(picture: MaximizerPicture, theme: Theme): void;
  refuse(sentence: string): void;
  paint(theme: Theme): void;
}

export interface ExamplesActions {
  measure(): void;
  load(group: number, example: number): void;
  changed(): void;
}

type Group = Corpus["groups"][number];
interface Part {
  element: HTMLElement;
  dispose(): void;
  update(group: Group, scale: Corpus, theme: Theme, where: boolean): void;
}

export function examplesPanel(signal: AbortSignal, actions: ExamplesActions): ExamplesPanel {
  const measure = button("measure the corpus", { "data-live": true }, actions.measure, signal);
  const of = h("span", { class: "pc-muted" });
  const bar = activationBar(signal);
  const where = h("input", { type: "checkbox" });
  where.addEventListener("change", () => actions.changed(), { signal });
  const mapped = h(
    "label",
    { class: "pc-check", title: "Shade where in each picture the unit responds" },
    where,
    "where",
  );
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const why = h("p", { class: "pc-note", hidden: true });
  const none = h(
    "p",
    { class: "pc-note pc-first" },
    "What the unit responds to by itself: measure it on the corpus, and the strongest, the usual and the weakest stand here.",
  );
  const numbers = h("p", { class: "pc-muted pc-small-print pc-number" });
  const list = h("div", { class: "pc-groups-list" });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const element = h(
    "div",
    { class: "pc-part pc-examples-panel" },
    run,
    h(
      "div",
      { class: "pc-line" },
      measure,
      of,
      h("span", { class: "pc-to-end pc-line" }, mapped, bar.element),
    ),
    error,
    why,
    none,
    numbers,
    list,
  );
  const parts = new Map<string | number, Part>();

  const part = (index: number): Part => {
    const own = childSignal(signal);
    const name = h("h4", { class: "pc-group-name" });
    const range = h("span", { class: "pc-number pc-muted" });
    const examples = exampleList(own.signal, "", (example) => actions.load(index, example));
    return {
      element: h(
        "section",
        { class: "pc-example-group" },
        h("div", { class: "pc-line" }, name, range),
        examples.element,
      ),
      dispose: own.abort,
      update(group, scale, theme, mapping) {
        say(name, group.name);
        say(range, `${short(group.low)} to ${short(group.high)}`);
        set(range, { title: `${exact(group.low)} to ${exact(group.high)}` });
        set(examples.element, { "aria-label": group.name });
        examples.update(group.examples, scale, theme, mapping);
      },
    };
  };

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
      set(run, { hidden: going === undefined });
      if (going !== undefined)
        run.style.width = `${(100 * going.done) / Math.max(1, going.total)}%`;
      set(measure, { "data-off": refusal !== null || going !== undefined });
      say(of, state.corpus);
      set(why, { hidden: refusal === null });
      say(why, refusal ?? "");
      set(none, { hidden: examples !== null || refusal !== null || going !== undefined });
      set(element, { "data-stale": stale });
      set(bar.element, { hidden: examples === null });
      const hasMaps = examples?.groups.some((group) =>
        group.examples.some((each) => each.map !== null),
      );
      set(mapped, { hidden: hasMaps !== true });
      if (examples === null) {
        say(numbers, "");
        keyed(list, parts, [], (i: number) => i, part);
        return;
      }
      bar.update(examples);
      const { mean, sd, maximum } = examples;
      const facts = [
        stale ? `of another unit, ${examples.objective}` : "",
        `${examples.count.toLocaleString("en-US")} measured`,
        mean === null ? "" : `mean ${short(mean)}`,
        sd === null ? "" : `sd ${short(sd)}`,
        maximum === null ? "" : `largest ${short(maximum)}`,
      ];
      const words = facts.filter((each) => each !== "").join(", ");
      say(numbers, examples.note === "" ? words : `${words}. ${examples.note}`);
      const made = keyed(
        list,
        parts,
        examples.groups.map((_, i) => i),
        (i) => i,
        part,
      );
      examples.groups.forEach((group, i) => {
        made[i]?.update(group, examples, theme, where.checked);
      });
    },
  };
}
