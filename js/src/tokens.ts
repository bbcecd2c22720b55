// The prompt as chips in text order: shade is how far the prediction moved there, or whatever else
// a view has to say of each token; underline is what is selected.
import { drawBar, onResize } from "./canvas";
import { blues, css, inkOn, LIGHT, type Rgb, type Theme } from "./colour";
import { h, say, set, tokenText } from "./dom";
import { ceilNice, exact, quoted, short } from "./format";
import type { PromptToken, Result } from "./messages";

export interface TokenStrip {
  element: HTMLElement;
  /** Positions that are selected, growing. */
  selected(): number[];
  select(positions: readonly number[]): void;
  /** `settled` is false while something is dragged: then the scale may grow but not shrink. */
  update(
    tokens: readonly PromptToken[],
    moved: Float32Array | null,
    settled: boolean,
    movedAs?: Result["moved_as"],
  ): void;
  /** Says something else of each token than how far it moved; null says that again. */
  shade(shade: Shade | null): void;
  /** Marks tokens that something points to elsewhere. */
  point(positions: readonly number[]): void;
  paint(theme: Theme): void;
}

/** What chips show instead of how far predictions moved. */
export interface Shade {
  /** Of each token; NaN where there is none. */
  values: Float32Array;
  /** The line under each chip; null for none. */
  under: Float32Array | null;
  /** The scale's ends as words, from left to right, and its colours from 0 to 1. */
  ends: readonly [string, string];
  along(share: number): Rgb;
  /** The colour of a value. */
  colour(value: number): Rgb;
  /** What is shown, for the legend. */
  legend: string;
  /** What is said of a token's value in words, "effect −0.41"; absent: how far it moved. */
  says?(value: number): string;
}

export interface TokenStripActions {
  /** The selection has changed. */
  select(): void;
  /** The pointer or the focus is on a token; null when it has left. */
  hover?(position: number | null): void;
}

/** Below that nothing has moved that anybody would notice. */
const LEAST_SCALE = { kl: 0.1, cosine: 0.01 } as const;
const MOVED = {
  kl: { legend: "moved, KL in nats", unit: " nats" },
  cosine: { legend: "moved, 1 − cosine", unit: "" },
} as const;

const REST = 200; // milliseconds
const RUN = 32; // chips of one layer
const LONG = 8; // runs from which those out of sight are left out, at the price of a line for each

export function tokenStrip(
  signal: AbortSignal,
  actions: TokenStripActions,
  label = "Prompt tokens; select positions with Space",
): TokenStrip {
  const list = h("div", {
    class: "pc-chips",
    role: "listbox",
    "aria-multiselectable": "true",
    "aria-label": label,
  });
  const bar = h("canvas", { class: "pc-bar", "aria-hidden": "true" });
  const bottom = h("span", { class: "pc-number" }, "0");
  const top = h("span", { class: "pc-number" });
  const said = h("span", { class: "pc-said" }, MOVED.kl.legend);
  const legend = h("div", { class: "pc-legend", "data-empty": true }, said, bottom, bar, top);
  const element = h("div", { class: "pc-tokens" }, list, legend);

  let tokens: readonly PromptToken[] = [];
  let chips: HTMLElement[] = [];
  let moved: Float32Array | null = null;
  let movedAs: Result["moved_as"] = "kl";
  let scale: number = LEAST_SCALE.kl;
  let other: Shade | null = null;
  let theme = LIGHT;
  let anchor = 0;
  let pointed: readonly number[] = [];
  const chosen = new Set<number>();
  let shades: string[] = [];
  let painted: unknown = null;
  let later: ReturnType<typeof setTimeout> | undefined;
  signal.addEventListener("abort", () => clearTimeout(later), { once: true });

  const paintBar = () => {
    const along = other?.along ?? ((share: number) => blues(share, theme));
    painted = drawBar(bar, along) ? (other?.along ?? theme) : null;
  };

  const rebuild = () => {
    chips = tokens.map((token) => {
      const text = h(
        "span",
        { class: "pc-chip-text" },
        ...(token.bos ? [h("span", { class: "pc-bos" }, "BOS")] : tokenText(token.text)),
      );
      const at = token.position % 5 === 0 ? String(token.position) : "";
      return h(
        "span",
        { class: "pc-chip", role: "option", tabindex: -1, "data-position": token.position },
        text,
        h("span", { class: "pc-position", "aria-hidden": "true", "data-at": at }),
      );
    });
    const flow = chips.map((chip, i) =>
      tokens[i]?.text.includes("\n") && !tokens[i]?.bos ? [chip, h("br")] : [chip],
    );
    // A browser repaints what shares a layer with a chip that changed: of thousands, a few dozen.
    const runs = Array.from({ length: Math.ceil(flow.length / RUN) }, (_, i) => {
      const run = h("span", { class: "pc-chip-run", role: "presentation" });
      run.append(...flow.slice(i * RUN, (i + 1) * RUN).flat());
      return run;
    });
    list.replaceChildren(...runs);
    // A browser paints all of a box that scrolls, in each frame in which anything is painted:
    // with thousands of chips that alone is longer than a frame.
    set(list, { "data-long": runs.length > LONG });
    shades = [];
    // What is predicted next stands after the last token.
    requestAnimationFrame(() => {
      list.scrollTop = list.scrollHeight;
    });
    anchor = Math.min(anchor, Math.max(0, chips.length - 1));
    chips[anchor]?.setAttribute("tabindex", "0");
  };

  const shade = () => {
    const values = other?.values ?? moved;
    const colour = other?.colour ?? ((value: number) => blues(value / scale, theme));
    const under = other?.under ?? null;
    chips.forEach((chip, i) => {
      const value = values?.[i] ?? Number.NaN;
      const ground =
        values === null ? null : Number.isNaN(value) ? theme.background : colour(value);
      const line = under === null ? "" : css(colour(under[i] ?? 0));
      const now = ground === null ? "" : `${css(ground)} ${line}`;
      if (shades[i] === now) return; // of a thousand chips a drag moves few
      shades[i] = now;
      const text = chip.firstElementChild as HTMLElement;
      text.style.backgroundColor = ground === null ? "" : css(ground);
      text.style.color = ground === null ? "" : css(inkOn(ground, theme));
      text.style.boxShadow = line === "" ? "" : `inset 0 -4px ${line}`;
    });
    say(said, other?.legend ?? MOVED[movedAs].legend);
    say(bottom, other?.ends[0] ?? "0");
    say(top, other?.ends[1] ?? short(scale));
    set(legend, {
      "data-empty": values === null,
      title: other === null ? "How far the prediction at each position moved" : null,
    });
    // JupyterLab hides everything for the moment in which it changes its theme.
    if (painted !== (other?.along ?? theme)) paintBar();
  };

  const name = () => {
    const { unit } = MOVED[movedAs];
    const says = other?.says;
    const values = says === undefined ? moved : (other?.values ?? null);
    const spoken = says ?? ((value: number) => `moved ${short(value)}${unit}`);
    const shown = says ?? ((value: number) => `moved ${exact(value)}${unit}`);
    chips.forEach((chip, i) => {
      const token = tokens[i] as PromptToken;
      const value = values?.[i];
      const words = token.bos ? "BOS, beginning of sequence" : quoted(token.text);
      set(chip, {
        "aria-selected": chosen.has(token.position) ? "true" : "false",
        "aria-label": `${token.position}: ${words}${
          value === undefined ? "" : `, ${spoken(value)}`
        }`,
        title: `position ${token.position}, token ${token.id} ${token.bos ? token.text : words}${
          value === undefined ? "" : `\n${shown(value)}`
        }`,
      });
    });
  };

  /** Words are for reading: they may come when things rest. */
  const soonNamed = () => {
    clearTimeout(later);
    later = setTimeout(name, REST);
  };

  const choose = (index: number, extend: boolean) => {
    const position = tokens[index]?.position;
    if (position === undefined) return;
    if (extend) {
      const [from, to] = [Math.min(anchor, index), Math.max(anchor, index)];
      for (let i = from; i <= to; i++) chosen.add(tokens[i]?.position ?? i);
    } else if (!chosen.delete(position)) {
      chosen.add(position);
    }
    rove(index);
    name();
    actions.select();
  };

  const rove = (index: number) => {
    chips[anchor]?.setAttribute("tabindex", "-1");
    anchor = index;
    chips[anchor]?.setAttribute("tabindex", "0");
  };

  const chipOf = (event: Event) =>
    chips.indexOf((event.target as Element).closest(".pc-chip") as HTMLElement);

  list.addEventListener(
    "click",
    (event) => {
      const index = chipOf(event);
      if (index >= 0) choose(index, event.shiftKey);
    },
    { signal },
  );
  list.addEventListener(
    "keydown",
    (event) => {
      const index = chipOf(event);
      if (index < 0) return;
      const to = {
        ArrowLeft: index - 1,
        ArrowRight: index + 1,
        ArrowUp: lineAbove(chips, index, -1),
        ArrowDown: lineAbove(chips, index, 1),
        Home: 0,
        End: chips.length - 1,
      }[event.key];
      if (event.key === " " || event.key === "Enter") choose(index, event.shiftKey);
      else if (event.key === "Escape" && chosen.size > 0) {
        chosen.clear();
        name();
        actions.select();
        event.stopPropagation();
      } else if (to !== undefined && chips[to]) {
        if (event.shiftKey) choose(to, true);
        else rove(to);
        chips[to]?.focus();
      } else return;
      event.preventDefault();
    },
    { signal },
  );
  const { hover } = actions;
  if (hover !== undefined) {
    const enter = (event: Event) => {
      const index = chipOf(event);
      if (index >= 0) hover(tokens[index]?.position ?? null);
    };
    const leave = () => hover(null);
    list.addEventListener("pointerover", enter, { signal });
    list.addEventListener("pointerleave", leave, { signal });
    list.addEventListener("focusin", enter, { signal });
    list.addEventListener("focusout", leave, { signal });
  }
  onResize(bar, paintBar, signal);

  return {
    element,
    selected: () => [...chosen].sort((a, b) => a - b),
    select(positions) {
      chosen.clear();
      for (const position of positions) chosen.add(position);
      name();
    },
    update(next, shift, settled, as = "kl") {
      const same =
        next.length === tokens.length &&
        next.every(
          (token, i) =>
            token.id === tokens[i]?.id &&
            token.bos === tokens[i]?.bos &&
            token.text === tokens[i]?.text,
        );
      tokens = next;
      moved = shift !== null && shift.length === next.length ? shift : null;
      movedAs = as;
      if (!same) {
        chosen.clear();
        other = null;
        rebuild();
        actions.select();
      }
      const wanted = ceilNice(Math.max(LEAST_SCALE[as], ...(moved ?? [])));
      scale = settled || !same ? wanted : Math.max(scale, wanted);
      shade();
      if (!same) name();
      else soonNamed();
    },
    shade(next) {
      other = next;
      shade();
      if (other?.says !== undefined) soonNamed();
    },
    point(positions) {
      for (const at of pointed) set(chips[at] ?? list, { "data-pointed": null });
      pointed = positions;
      for (const at of pointed) if (chips[at]) set(chips[at], { "data-pointed": true });
    },
    paint(next) {
      theme = next;
      shade();
    },
  };
}

/** The chip nearest in the line above (-1) or below (1). */
function lineAbove(chips: readonly HTMLElement[], index: number, way: -1 | 1): number {
  const from = chips[index]?.getBoundingClientRect();
  if (from === undefined) return index;
  let best = -1;
  let nearest = Number.POSITIVE_INFINITY;
  for (let i = index + way; i >= 0 && i < chips.length; i += way) {
    const box = (chips[i] as HTMLElement).getBoundingClientRect();
    if (Math.abs(box.top - from.top) < 4) continue;
    const distance = Math.abs(box.left - from.left) + 10 * Math.abs(box.top - from.top);
    if (distance < nearest) [nearest, best] = [distance, i];
  }
  return best;
}
