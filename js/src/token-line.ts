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

export function activationColour(value: number, scale: ActivationScale, theme: Theme): Rgb {
  return oranges((value - scale.low) / (scale.high - scale.low || 1), theme);
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
  update(scale: ActivationScale, words?: string): void;
  paint(theme: Theme): void;
}

export function activationBar(signal: AbortSignal): ActivationBar {
  const word = h("span", { class: "pc-word" }, "activation");
  const low = h("span", { class: "pc-number" });
  const high = h("span", { class: "pc-number" });
  const canvas = h("canvas", { class: "pc-bar", "aria-hidden": "true" });
  const zero = h("span", { class: "pc-number pc-scale-zero" }, "0");
  const element = h(
    "div",
    { class: "pc-heat-bar" },
    word,
    low,
    h("span", { class: "pc-heat-scale" }, canvas, zero),
    high,
  );
  let scale: ActivationScale = { low: 0, high: 1 };
  let theme = LIGHT;
  const draw = () => drawBar(canvas, (share) => oranges(share, theme));
  onResize(canvas, draw, signal);

  return {
    element,
    update(next, words = "activation") {
      scale = next;
      say(word, words);
      say(low, short(scale.low));
      say(high, short(scale.high));
      set(low, { title: exact(scale.low) });
      set(high, { title: exact(scale.high) });
      const at = -scale.low / (scale.high - scale.low || 1);
      set(zero, { hidden: !(at > 0.08 && at < 0.92) });
      zero.style.left = `${100 * at}%`;
    },
    paint(next) {
      theme = next;
      draw();
    },
  };
}
