// Text with each token shaded by the activation there, and the bar of that scale. One scale for
// all texts of a view, so that what is pale in one is pale in the other.
import { drawBar, onResize } from "./canvas";
import { css, inkOn, LIGHT, oranges, type Rgb, type Theme } from "./colour";
import { h, say, set, tokenText } from "./dom";
import { exact, quoted, short } from "./format";

/** From which activation to which Oranges go. */
export interface ActivationScale {
  low: number;
  high: number;
}

export interface ShadedToken {
  text: string;
}

export interface TokenLine {
  element: HTMLElement;
  update(
    tokens: readonly ShadedToken[],
    activations: Float32Array | null,
    scale: ActivationScale,
    theme: Theme,
    /** The token that the text's activation is of. */
    at?: number | null,
  ): void;
}

/** Where the colours begin: at zero, where there is a zero among the values. */
function baseOf({ low, high }: ActivationScale): number {
  return low < 0 && high > 0 ? 0 : low;
}

/** From 0 at the beginning of the scale to 1 at its end. */
export function activationShare(value: number, scale: ActivationScale): number {
  const base = baseOf(scale);
  return Math.min(1, Math.max(0, (value - base) / (scale.high - base || 1)));
}

export function activationColour(value: number, scale: ActivationScale, theme: Theme): Rgb {
  return oranges(activationShare(value, scale), theme);
}

export function tokenLine(): TokenLine {
  const element = h("span", { class: "pc-token-line" });
  let shown: unknown[] = [];

  return {
    element,
    update(tokens, activations, scale, theme, at = null) {
      const now = [tokens, activations, scale.low, scale.high, theme, at];
      if (now.every((each, i) => each === shown[i])) return;
      shown = now;
      element.replaceChildren(
        ...tokens.flatMap((token, i) => {
          const value = activations?.[i] ?? Number.NaN;
          const chip = h("span", { class: "pc-shaded" }, ...tokenText(token.text));
          const known = Number.isFinite(value);
          set(chip, {
            title: known ? `${quoted(token.text)} ${exact(value)}` : quoted(token.text),
            "data-at": i === at,
          });
          if (known) {
            const ground = activationColour(value, scale, theme);
            chip.style.backgroundColor = css(ground);
            chip.style.color = css(inkOn(ground, theme));
          }
          return [chip, h("wbr")];
        }),
      );
    },
  };
}

export interface ActivationBar {
  element: HTMLElement;
  update(scale: ActivationScale): void;
  paint(theme: Theme): void;
}

export function activationBar(signal: AbortSignal): ActivationBar {
  const word = h("span", { class: "pc-word" }, "activation");
  const low = h("span", { class: "pc-number" });
  const high = h("span", { class: "pc-number" });
  const canvas = h("canvas", { class: "pc-bar", "aria-hidden": "true" });
  const element = h(
    "div",
    { class: "pc-heat-bar" },
    word,
    low,
    h("span", { class: "pc-heat-scale" }, canvas),
    high,
  );
  let theme = LIGHT;
  const draw = () => drawBar(canvas, (share) => oranges(share, theme));
  onResize(canvas, draw, signal);

  return {
    element,
    update(scale) {
      const base = baseOf(scale);
      say(low, short(base));
      say(high, short(scale.high));
      set(low, {
        title: scale.low < base ? `and below, down to ${exact(scale.low)}` : exact(base),
      });
      set(high, { title: exact(scale.high) });
    },
    paint(next) {
      theme = next;
      draw();
    },
  };
}
