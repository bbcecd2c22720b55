// The scores of heads: what each is called, what it means, and the locked head's beside all others.
import { type AttentionPicture, scoreOf as read, type ScoreName } from "./attention-picture";
import { blues, css, redBlue, type Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { exact, short, signed } from "./format";

interface Meaning {
  label: string;
  title: string;
  /** From 0 to 1; other scores are drawn beside the largest of all heads. */
  share: boolean;
  /** Costs runs of its own: somebody must want it. */
  measured?: "effect" | "random_induction";
}

export const SCORES: Record<ScoreName, Meaning> = {
  previous: {
    label: "previous token",
    title: "Share of the head's attention that goes to the token just before",
    share: true,
  },
  duplicate: {
    label: "duplicate token",
    title: "Share of its attention that goes to earlier copies of the same token",
    share: true,
  },
  induction: {
    label: "induction",
    title: "Share of its attention that goes to the token after an earlier copy of the same token",
    share: true,
  },
  random_induction: {
    label: "induction, random",
    title:
      "Mean attention from each token of a repeated half of random tokens to the token after its first occurrence",
    share: true,
    measured: "random_induction",
  },
  current: {
    label: "current token",
    title: "Share of its attention that goes to the token itself",
    share: true,
  },
  first: {
    label: "first token",
    title: "Share of its attention that goes to token 0",
    share: true,
  },
  entropy: {
    label: "entropy",
    title: "Of each destination's attention, the mean, in nats: 0 is all on one token",
    share: false,
  },
  distance: {
    label: "distance",
    title: "Mean number of tokens that it looks back, weighted by attention",
    share: false,
  },
  effect: {
    label: "effect of ablating",
    title: "The metric with the head ablated to its mean, minus the metric without, in nats",
    share: false,
    measured: "effect",
  },
};

export interface HeadScores {
  element: HTMLElement;
  update(
    picture: AttentionPicture,
    head: readonly number[],
    sorted: ScoreName | null,
    progress: { done: number; total: number } | null,
    theme: Theme,
  ): void;
}

export interface HeadScoresActions {
  /** Sorts the grid of heads by it. */
  sort(name: ScoreName): void;
  measure(name: "effect" | "random_induction"): void;
}

export function headScores(signal: AbortSignal, actions: HeadScoresActions): HeadScores {
  const lines = (Object.keys(SCORES) as ScoreName[]).map((name) => {
    const { label, title, measured } = SCORES[name];
    const sort = button(
      label,
      {
        class: "pc-button pc-quiet pc-score-name",
        title: `${title}.\nClick sorts the heads by it`,
      },
      () => actions.sort(name),
      signal,
    );
    const bar = h("span", { class: "pc-score-bar" });
    const value = h("span", { class: "pc-number" });
    const measure =
      measured === undefined
        ? null
        : button(
            "measure",
            {
              class: "pc-button pc-measure",
              "data-live": true,
              "aria-label": `Measure ${label} of all heads`,
              title,
            },
            () => actions.measure(measured),
            signal,
          );
    const element = h(
      "tr",
      { "data-score": name },
      h("th", { scope: "row" }, sort),
      h(
        "td",
        { class: measured === "effect" ? "pc-score-axis pc-score-signed" : "pc-score-axis" },
        bar,
      ),
      h("td", { class: "pc-score-value" }, value, measure),
    );
    return { name, sort, bar, value, measure, element };
  });
  const element = h(
    "table",
    { class: "pc-scores" },
    h("caption", { class: "pc-hidden" }, "Scores of the locked head"),
    h(
      "colgroup",
      {},
      h("col", { class: "pc-col-name" }),
      h("col"),
      h("col", { class: "pc-col-value" }),
    ),
    h("tbody", {}, ...lines.map((line) => line.element)),
  );

  return {
    element,
    update(picture, [layer = 0, head = 0], sorted, progress, theme) {
      for (const { name, sort, bar, value, measure, element: line } of lines) {
        const { share, label } = SCORES[name];
        const own = read(picture, name, layer, head);
        const all = valuesOf(picture, name);
        const stale = picture.scores?.stale.includes(name) ?? false;
        const there = all.length > 0;
        const most = share ? 1 : Math.max(1e-9, ...all.map(Math.abs));
        const size = Number.isNaN(own) ? 0 : own / most;
        const width = Math.min(1, Math.abs(size));
        const both = name === "effect";
        bar.style.width = `${(both ? 50 : 100) * width}%`;
        bar.style.left = both ? `${size < 0 ? 50 - 50 * width : 50}%` : "0";
        bar.style.backgroundColor = css(
          both ? redBlue(size < 0 ? -1 : 1, theme) : blues(theme.dark ? 0.9 : 0.85, theme),
        );
        say(value, there ? (both ? signed(own) : short(own)) : "");
        const above = all.filter((each) => each > own).length + 1;
        set(value, {
          title: Number.isNaN(own)
            ? `${label}: not defined here`
            : `${label} ${exact(own)}: place ${above} of ${all.length} heads${
                stale ? "\nMeasured under another prompt, stack or metric" : ""
              }`,
        });
        set(line, { "data-stale": stale });
        set(sort, { "aria-pressed": sorted === name ? "true" : "false" });
        if (measure !== null) {
          // While it fills in, what is there is part of it.
          const whole = all.length === layersAndHeads(picture);
          set(measure, { hidden: whole && !stale, "data-off": progress !== null });
          set(value, { hidden: !measure.hidden && (progress !== null || Number.isNaN(own)) });
          say(
            measure,
            progress !== null
              ? `${Math.round((100 * progress.done) / Math.max(1, progress.total))} %`
              : stale
                ? "again"
                : "measure",
          );
        }
      }
    },
  };
}

function layersAndHeads({ attention }: AttentionPicture): number {
  return attention === null ? 0 : attention.layers * attention.heads;
}

/** The score of every head that has one. */
export function valuesOf(picture: AttentionPicture, name: ScoreName): number[] {
  const { scores, attention } = picture;
  const at = scores?.names.indexOf(name) ?? -1;
  if (scores === null || attention === null || at < 0) return [];
  const size = attention.layers * attention.heads;
  return [...scores.values.subarray(at * size, (at + 1) * size)].filter(
    (value) => !Number.isNaN(value),
  );
}
