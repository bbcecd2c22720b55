// Does it matter? What ablating the unit does on the optimised input, beside random units of the
// same layer; and its activation there against the largest of the corpus.
import { css, type Theme } from "./colour";
import { lineColours } from "./curve";
import { button, h, say, set } from "./dom";
import { exact, short } from "./format";
import { bestCandidate, type MaximizerPicture, refusalOf } from "./maximizer-picture";

export interface MatterPanel {
  element: HTMLElement;
  update(picture: MaximizerPicture, theme: Theme): void;
  refuse(sentence: string): void;
}

export function matterPanel(signal: AbortSignal, measureIt: () => void): MatterPanel {
  const measure = button("ablate it", { "data-live": true }, measureIt, signal);
  const subject = h("span", { class: "pc-muted" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const why = h("p", { class: "pc-note", hidden: true });
  const none = h(
    "p",
    { class: "pc-note pc-first" },
    "An input that drives a unit says what it responds to, not that the model needs it: ablate it there, and random units of the same layer beside it.",
  );
  const bars = h("div", { class: "pc-matter-bars" });
  const sentence = h("p", { class: "pc-matter-sentence" });
  const note = h("p", { class: "pc-muted pc-small-print" });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const body = h("div", { class: "pc-matter-body" }, sentence, bars, note);
  const element = h(
    "div",
    { class: "pc-part pc-matter" },
    run,
    h("div", { class: "pc-line" }, measure, subject),
    error,
    why,
    none,
    body,
  );
  let shown: unknown[] = [];

  const line = (
    name: string,
    value: number,
    scale: number,
    look: { colour: string } | { class: string },
  ) => {
    const bar = h("span", { class: "class" in look ? look.class : "pc-matter-bar" });
    bar.style.width = `${Math.min(100, Math.max(0, (100 * value) / scale))}%`;
    if ("colour" in look) bar.style.backgroundColor = look.colour;
    return h(
      "div",
      { class: "pc-matter-line", "data-control": "class" in look },
      h("span", { class: "pc-ellipsis", title: name }, name),
      h("span", { class: "pc-matter-axis" }, bar),
      h("span", { class: "pc-number", title: exact(value) }, short(value)),
    );
  };

  return {
    element,
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
    },
    update(picture, theme) {
      const { state, matter, progress } = picture;
      if (state === null) return;
      const refusal = refusalOf(picture, "matter");
      const nothing = picture.tracks.length === 0 && bestCandidate(picture.front) === null;
      const going = progress.get("matter");
      set(run, { hidden: going === undefined });
      if (going !== undefined)
        run.style.width = `${(100 * going.done) / Math.max(1, going.total)}%`;
      set(measure, {
        "data-off": refusal !== null || going !== undefined || nothing,
        title: nothing
          ? "There is no optimised input yet: start first"
          : "Ablate the unit, and at least five random ones",
      });
      set(why, { hidden: refusal === null });
      say(why, refusal ?? "");
      set(none, { hidden: matter !== null || refusal !== null || going !== undefined });
      set(body, { hidden: matter === null });
      say(subject, matter === null ? "" : `on ${matter.subject}`);
      if (matter === null) return;
      const stale = matter.objective !== state.objective;
      set(element, { "data-stale": stale });
      const now = [matter, theme];
      if (now.every((each, i) => each === shown[i])) return;
      shown = now;
      const blue = css(lineColours(theme).logprob);
      const { activation, corpus_maximum: most, kl, controls } = matter;
      const tall = Math.max(1e-9, Math.abs(activation), Math.abs(most ?? 0));
      const wide = Math.max(1e-9, kl, ...controls.map((each) => each.kl));
      const usual = median(controls.map((each) => each.kl));
      const larger = controls.filter((each) => each.kl >= kl).length;
      // Of a sum each control has one for every term.
      const along = controls.every(({ address }) =>
        address.split(", ").every((each) => each.includes("[random ")),
      );
      const others = `${controls.length} random ${along ? "directions" : "units"} of its layer`;
      const beside =
        larger === 0
          ? `more than each of the ${others}`
          : `and ${larger} of the ${others} change it as much or more`;
      say(
        sentence,
        `Ablated to its ${matter.how}, ${matter.unit} changes the output by ${short(kl)}, ${beside} (their median is ${short(usual)}).`,
      );
      bars.replaceChildren(
        h("div", { class: "pc-title" }, "activation"),
        line("on the optimised input", activation, tall, { colour: blue }),
        ...(most === null
          ? []
          : [
              line("largest of the corpus", most, tall, {
                class: "pc-matter-bar pc-matter-before",
              }),
            ]),
        h("div", { class: "pc-title" }, matter.measured),
        line(matter.unit, kl, wide, { colour: blue }),
        ...controls.map((each) =>
          line(each.address, each.kl, wide, { class: "pc-matter-bar pc-swatch-control" }),
        ),
      );
      say(note, `${stale ? `Of another unit, ${matter.objective}. ` : ""}${matter.note}`.trim());
    },
  };
}

function median(values: readonly number[]): number {
  const order = [...values].sort((a, b) => a - b);
  const half = Math.floor(order.length / 2);
  const [a, b] = [order[half - 1] ?? 0, order[half] ?? 0];
  return order.length % 2 === 1 ? b : (a + b) / 2;
}
