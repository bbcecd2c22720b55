// The distribution of the next token, before and after: baseline thin and grey, intervened solid.
// A click on a token makes it the metric's target.
import { blues, css, redBlue, type Theme } from "./colour";
import { h, keyed, say, set, tokenText } from "./dom";
import { exact, quoted, share, signed } from "./format";
import type { Share } from "./messages";

export interface NextToken {
  element: HTMLElement;
  /** `settled` is false while something is dragged: then rows keep their places. */
  update(top: readonly Share[], target: number | null, settled: boolean, theme: Theme): void;
}

const SHOWN = 10;

interface Line {
  element: HTMLElement;
  update(token: Share, target: boolean, scale: number, theme: Theme): void;
}

export function nextToken(signal: AbortSignal, onTarget: (token: number) => void): NextToken {
  const body = h("tbody");
  const lines = new Map<string | number, Line>();
  const element = h(
    "table",
    { class: "pc-next" },
    h("caption", { class: "pc-hidden" }, "Probability of the next token before and after"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "next token"),
        h("th", { scope: "col", class: "pc-next-bars" }, h("span", { class: "pc-hidden" }, "bars")),
        h("th", { scope: "col", class: "pc-figure" }, "before"),
        h("th", { scope: "col", class: "pc-figure" }, "after"),
        h("th", { scope: "col", class: "pc-figure", title: "Change of log p, in nats" }, "Δ log p"),
      ),
    ),
    body,
  );
  let order: number[] = [];

  body.addEventListener(
    "click",
    (event) => {
      const token = (event.target as Element).closest<HTMLElement>("tr")?.dataset.token;
      const dead = element.closest("[data-dead]") !== null;
      if (token !== undefined && !dead) onTarget(Number(token));
    },
    { signal },
  );

  return {
    element,
    update(top, target, settled, theme) {
      const shown = arrange(top, settled ? [] : order, target);
      order = shown.map((token) => token.id);
      const scale = Math.max(0.05, ...top.map((token) => Math.max(token.before, token.after)));
      const parts = keyed(
        body,
        lines,
        shown,
        (token) => token.id,
        (token) => line(token),
      );
      for (const [i, token] of shown.entries()) {
        parts[i]?.update(token, token.id === target, scale, theme);
      }
    },
  };
}

/**
 * The tokens to show: most probable first, the target always among them. Tokens in `order` keep
 * their places, and newcomers take those of the tokens that left.
 */
export function arrange(
  top: readonly Share[],
  order: readonly number[],
  target: number | null,
): Share[] {
  const best = top.slice(0, SHOWN);
  const wanted = top.find((token) => token.id === target);
  if (wanted !== undefined && !best.includes(wanted)) best[best.length - 1] = wanted;
  const stays = new Set(order);
  const newcomers = best.filter((token) => !stays.has(token.id));
  const kept = order.map((id) => best.find((token) => token.id === id) ?? newcomers.shift());
  return [...kept.filter((token) => token !== undefined), ...newcomers];
}

function line(first: Share): Line {
  const before = h("span", { class: "pc-bar-before" });
  const after = h("span", { class: "pc-bar-after" });
  const was = h("td", { class: "pc-figure pc-number pc-muted" });
  const is = h("td", { class: "pc-figure pc-number" });
  const change = h("td", { class: "pc-figure pc-number" });
  const name = h(
    "button",
    { type: "button", class: "pc-button pc-token", "data-live": true },
    ...tokenText(first.text),
  );
  const element = h(
    "tr",
    { "data-token": first.id },
    h("th", { scope: "row" }, name),
    h("td", { class: "pc-next-bars", "aria-hidden": "true" }, before, after),
    was,
    is,
    change,
  );
  return {
    element,
    update(token, target, scale, theme) {
      before.style.width = `${(100 * token.before) / scale}%`;
      after.style.width = `${(100 * token.after) / scale}%`;
      after.style.backgroundColor = css(blues(theme.dark ? 0.9 : 1, theme));
      say(was, share(token.before));
      say(is, share(token.after));
      set(was, { title: exact(token.before) });
      set(is, { title: exact(token.after) });
      const shift = Math.log(token.after) - Math.log(token.before);
      say(change, Number.isFinite(shift) ? (Math.abs(shift) < 5e-4 ? "0" : signed(shift)) : "–");
      set(change, { title: Number.isFinite(shift) ? exact(shift) : null });
      const strength = Math.min(1, Math.abs(shift) / 0.05) > 0.2 ? Math.sign(shift) : 0;
      change.style.color = strength === 0 ? "" : css(inkOf(strength, theme));
      set(element, { "data-target": target });
      set(name, {
        "aria-pressed": target ? "true" : "false",
        "aria-label": `${quoted(token.text)}${target ? ", the metric's target" : ""}`,
        title: target
          ? `The metric's target: token ${token.id}, ${quoted(token.text)}`
          : `Token ${token.id}, ${quoted(token.text)}. Click makes it the metric's target`,
      });
    },
  };
}

/** Signed text: the scale's ends, which are readable on the background in both themes. */
export function inkOf(sign: number, theme: Theme): ReturnType<typeof redBlue> {
  return redBlue(sign < 0 ? -1 : 1, theme);
}
