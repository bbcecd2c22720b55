// The prompt as chips in text order: shade is how far the prediction moved there, underline is
// what is selected.
import { drawBar, onResize } from "./canvas";
import { blues, css, inkOn, LIGHT, type Theme } from "./colour";
import { h, say, set, tokenText } from "./dom";
import { ceilNice, exact, quoted, short } from "./format";
import type { PromptToken } from "./messages";

export interface TokenStrip {
  element: HTMLElement;
  /** Positions that are selected, growing. */
  selected(): number[];
  /** `settled` is false while something is dragged: then the scale may grow but not shrink. */
  update(tokens: readonly PromptToken[], moved: Float32Array | null, settled: boolean): void;
  paint(theme: Theme): void;
}

const LEAST_SCALE = 0.1; // nats: below that nothing has moved that anybody would notice

const REST = 200; // milliseconds

export function tokenStrip(signal: AbortSignal, onSelect: () => void): TokenStrip {
  const list = h("div", {
    class: "pc-chips",
    role: "listbox",
    "aria-multiselectable": "true",
    "aria-label": "Prompt tokens; select positions with Space",
  });
  const bar = h("canvas", { class: "pc-bar", "aria-hidden": "true" });
  const top = h("span", { class: "pc-number" });
  const legend = h(
    "div",
    { class: "pc-legend", title: "How far the prediction at each position moved" },
    h("span", {}, "moved, KL in nats"),
    h("span", { class: "pc-number" }, "0"),
    bar,
    top,
  );
  const element = h("div", { class: "pc-tokens" }, list, legend);

  let tokens: readonly PromptToken[] = [];
  let chips: HTMLElement[] = [];
  let moved: Float32Array | null = null;
  let scale = LEAST_SCALE;
  let theme = LIGHT;
  let anchor = 0;
  const chosen = new Set<number>();
  let shades: string[] = [];
  let painted: Theme | null = null;
  let later: ReturnType<typeof setTimeout> | undefined;
  signal.addEventListener("abort", () => clearTimeout(later), { once: true });

  const paintBar = () => {
    painted = drawBar(bar, (share) => blues(share, theme)) ? theme : null;
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
    list.replaceChildren(
      ...chips.flatMap((chip, i) =>
        tokens[i]?.text.includes("\n") && !tokens[i]?.bos ? [chip, h("br")] : [chip],
      ),
    );
    shades = [];
    // What is predicted next stands after the last token.
    requestAnimationFrame(() => {
      list.scrollTop = list.scrollHeight;
    });
    anchor = Math.min(anchor, Math.max(0, chips.length - 1));
    chips[anchor]?.setAttribute("tabindex", "0");
  };

  const shade = () => {
    chips.forEach((chip, i) => {
      const colour = moved === null ? "" : css(blues((moved[i] as number) / scale, theme));
      if (shades[i] === colour) return; // of a thousand chips a drag moves few
      shades[i] = colour;
      const text = chip.firstElementChild as HTMLElement;
      text.style.backgroundColor = colour;
      text.style.color =
        moved === null ? "" : css(inkOn(blues((moved[i] as number) / scale, theme), theme));
    });
    say(top, short(scale));
    // JupyterLab hides everything for the moment in which it changes its theme.
    if (painted !== theme) paintBar();
  };

  const name = () => {
    chips.forEach((chip, i) => {
      const token = tokens[i] as PromptToken;
      const value = moved?.[i];
      const words = token.bos ? "BOS, beginning of sequence" : quoted(token.text);
      set(chip, {
        "aria-selected": chosen.has(token.position) ? "true" : "false",
        "aria-label": `${token.position}: ${words}${
          value === undefined ? "" : `, moved ${short(value)} nats`
        }`,
        title: `position ${token.position}, token ${token.id} ${token.bos ? token.text : words}${
          value === undefined ? "" : `\nmoved ${exact(value)} nats`
        }`,
      });
    });
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
    onSelect();
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
        onSelect();
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
  onResize(bar, paintBar, signal);

  return {
    element,
    selected: () => [...chosen].sort((a, b) => a - b),
    update(next, shift, settled) {
      const same =
        next.length === tokens.length &&
        next.every((token, i) => token.id === tokens[i]?.id && token.bos === tokens[i]?.bos);
      tokens = next;
      moved = shift !== null && shift.length === next.length ? shift : null;
      if (!same) {
        chosen.clear();
        rebuild();
        onSelect();
      }
      const wanted = ceilNice(Math.max(LEAST_SCALE, ...(moved ?? [])));
      scale = settled || !same ? wanted : Math.max(scale, wanted);
      set(legend, { hidden: moved === null });
      shade();
      if (!same) name();
      else {
        // Words are for reading: they may come when things rest.
        clearTimeout(later);
        later = setTimeout(name, REST);
      }
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
