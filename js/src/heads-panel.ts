// All heads, with the order and the choice of them: by a score, some layers, at least so much.
import {
  type AttentionPicture,
  addressOf,
  type ScoreName,
  scoreOf,
  thumbsNow,
  touches,
} from "./attention-picture";
import type { Theme } from "./colour";
import { button, h, say, select, set } from "./dom";
import { parse, short } from "./format";
import { SCORES, valuesOf } from "./head-scores";
import { type HeadAddress, type HeadsPicture, headsGrid, thumbsPeak } from "./heads-grid";
import { type HeatBar, type HeatScale, heatBar } from "./heat-bar";
import { type Format, saveButtons } from "./save-buttons";
import { isSigned, type Look } from "./tiles";

export interface HeadsPanel {
  element: HTMLElement;
  update(picture: AttentionPicture, look: Look, locked: HeadAddress | null): void;
  sortBy(name: ScoreName | null): void;
  sorted(): ScoreName | null;
  paint(theme: Theme): void;
  /** What is drawn now, for a file. */
  drawn(): HeadsPicture | null;
}

export interface HeadsPanelActions {
  lock(head: HeadAddress): void;
  /** The order or the choice has changed. */
  changed(): void;
  save(format: Format): void;
  /** Says something to who cannot see it. */
  announce(text: string): void;
}

export function headsPanel(signal: AbortSignal, actions: HeadsPanelActions): HeadsPanel {
  let sort: ScoreName | null = null;
  /** Only this layer's heads, after a double click on one of them. */
  let solo: number | null = null;
  let gamma: HeatScale["gamma"] = 1;
  let shown: AttentionPicture | null = null;
  let drawn: HeadsPicture | null = null;
  /** What the picture was made of: the same again is not made again. */
  let made: readonly unknown[] = [];

  const grid = headsGrid(signal, {
    hover(head, by) {
      if (head === null || by !== "keys" || shown === null) return;
      actions.announce(`${addressOf(head.layer, head.head)} ${note(shown, head)}`);
    },
    lock: actions.lock,
    solo(head) {
      solo = solo === head.layer ? null : head.layer;
      actions.lock(head);
      actions.changed();
    },
  });
  const bar: HeatBar = heatBar(signal, (next) => {
    gamma = next;
    actions.changed();
  });
  const order = select(
    [["", "layer"], ...Object.entries(SCORES).map(([name, { label }]) => [name, label] as const)],
    { "aria-label": "Heads sorted by" },
    (name) => {
      sort = name === "" ? null : (name as ScoreName);
      actions.changed();
    },
    signal,
  );
  const field = (name: string, title: string) => {
    const input = h("input", {
      type: "text",
      inputmode: "decimal",
      class: "pc-input pc-small pc-number",
      "aria-label": name,
      title,
      autocomplete: "off",
    });
    input.addEventListener("input", () => actions.changed(), { signal });
    return input;
  };
  const first = field("First layer shown", "Only heads from this layer on");
  const last = field("Last layer shown", "Only heads up to this layer");
  const least = field("Least score shown", "Only heads whose score is at least this");
  const leastField = h("label", { class: "pc-field" }, "≥", least);
  const all = button(
    "all heads",
    { class: "pc-button pc-quiet", hidden: true },
    () => {
      solo = null;
      for (const input of [first, last, least]) input.value = "";
      actions.changed();
    },
    signal,
  );
  const count = h("span", {}, "heads");
  const legend = h("p", { class: "pc-muted pc-small-print" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const element = h(
    "section",
    { class: "pc-part pc-heads-panel", "aria-label": "All heads" },
    run,
    h(
      "div",
      { class: "pc-line pc-panel-head" },
      h("h3", { class: "pc-title" }, count),
      h("label", { class: "pc-field" }, "by", order),
    ),
    h(
      "div",
      { class: "pc-line" },
      h("label", { class: "pc-field" }, "layers", first),
      h("label", { class: "pc-field" }, "–", last),
      leastField,
      all,
      h("span", { class: "pc-group pc-to-end" }, ...saveButtons("the heads", actions.save, signal)),
    ),
    error,
    h("div", { class: "pc-heads-scroll" }, grid.element),
    h("div", { class: "pc-line pc-under" }, bar.element),
    legend,
  );

  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  };

  /** A field's number; undefined for one that is empty, null for what is no number. */
  const numberIn = (input: HTMLInputElement): number | null | undefined =>
    input.value.trim() === "" ? undefined : parse(input.value);

  /** The heads to show, in order; null for all, layer by layer. */
  function chosen(picture: AttentionPicture): HeadAddress[] | null {
    const { attention } = picture;
    if (attention === null) return null;
    const fields = [first, last, least].map(numberIn);
    const wrong = [first, last, least].find((_, i) => fields[i] === null);
    refuse(wrong === undefined ? "" : `“${wrong.value}” is not a number; 3 or 0.5 would be.`);
    const [from = 0, to = attention.layers - 1, lowest = null] = fields.map(
      (each) => each ?? undefined,
    );
    const low = sort === null ? null : lowest;
    const some = solo !== null || from > 0 || to < attention.layers - 1 || low !== null;
    set(all, { hidden: !some });
    if (sort === null && !some) return null;
    const heads: (HeadAddress & { score: number })[] = [];
    for (let layer = 0; layer < attention.layers; layer++) {
      if (layer < from || layer > to || (solo !== null && layer !== solo)) continue;
      for (let head = 0; head < attention.heads; head++) {
        const score = sort === null ? 0 : scoreOf(picture, sort, layer, head);
        if (low === null || score >= low) heads.push({ layer, head, score });
      }
    }
    // What has no score comes last.
    const rank = (score: number) => (Number.isNaN(score) ? Number.NEGATIVE_INFINITY : score);
    if (sort !== null) heads.sort((a, b) => rank(b.score) - rank(a.score) || 0);
    return heads;
  }

  function note(picture: AttentionPicture, { layer, head }: HeadAddress): string {
    const name = sort ?? bestScore(picture, layer, head);
    if (name === null) return "";
    return `${SCORES[name].label} ${short(scoreOf(picture, name, layer, head))}`;
  }

  return {
    element,
    sorted: () => sort,
    sortBy(name) {
      sort = sort === name ? null : name;
      order.value = sort ?? "";
      actions.changed();
    },
    drawn: () => drawn,
    update(picture, look, locked) {
      const { attention } = picture;
      if (attention === null) return;
      shown = picture;
      const progress = picture.progress.get("grid") ?? null;
      set(run, { hidden: progress === null });
      if (progress !== null) {
        run.style.width = `${(100 * progress.done) / Math.max(1, progress.total)}%`;
      }
      set(leastField, { hidden: sort === null });
      for (const [input, value] of [
        [first, 0],
        [last, attention.layers - 1],
      ] as const) {
        set(input, { placeholder: value });
      }
      for (const option of order.options) {
        option.disabled =
          option.value !== "" && valuesOf(picture, option.value as ScoreName).length === 0;
      }
      const of = [
        ...[attention, picture.scores, look, locked?.layer, locked?.head, gamma, sort, solo],
        ...[first.value, last.value, least.value, ...[...(picture.grid.get(look)?.values() ?? [])]],
      ];
      if (of.length === made.length && of.every((each, i) => each === made[i])) return;
      made = of;
      const thumbs = thumbsNow(picture, look);
      const signed = isSigned(look, "weight");
      const scale: HeatScale = { signed, peak: signed ? thumbsPeak(thumbs) || 1 : 1, gamma };
      const heads = chosen(picture);
      drawn = {
        layers: attention.layers,
        heads: attention.heads,
        thumbs,
        order: heads,
        selected: locked,
        touched: touchedHeads(picture),
        scale,
        note: (head) => (shown === null ? "" : note(shown, head)),
      };
      grid.update(drawn);
      bar.update(scale, signed ? "change of weight" : "weight");
      const total = attention.layers * attention.heads;
      say(
        count,
        heads === null || heads.length === total ? `${total} heads` : `${heads.length} of ${total}`,
      );
      const block = Math.max(1, ...[...thumbs.values()].map((each) => each.block));
      say(
        legend,
        block === 1
          ? ""
          : `Each pixel is the ${signed ? "cell furthest from 0" : "largest"} of ${block} × ${block} cells.`,
      );
      set(legend, { hidden: block === 1 });
    },
    paint(theme) {
      grid.paint(theme);
      bar.paint(theme);
    },
  };
}

/** The share at which a head stands out most, to say something of it before anything is chosen. */
function bestScore(picture: AttentionPicture, layer: number, head: number): ScoreName | null {
  const kinds: ScoreName[] = ["previous", "duplicate", "induction", "current", "first"];
  const best = kinds
    .map((name) => ({ name, score: scoreOf(picture, name, layer, head) }))
    .filter(({ score }) => !Number.isNaN(score))
    .sort((a, b) => b.score - a.score)[0];
  return best?.name ?? null;
}

function touchedHeads(picture: AttentionPicture): HeadAddress[] {
  const { attention } = picture;
  if (attention === null) return [];
  const acting = attention.knocked_out.filter((each) => !each.muted);
  const result: HeadAddress[] = [];
  for (let layer = 0; layer < attention.layers; layer++) {
    for (let head = 0; head < attention.heads; head++) {
      if (acting.some((each) => touches(each, layer, head))) result.push({ layer, head });
    }
  }
  return result;
}
