// One row's effect on the metric beside what the same change does to random neurons: two bars on
// one axis, the control hatched grey with its interval.
import { css, redBlue, type Theme } from "./colour";
import { h, say, set } from "./dom";
import { alike, count, exact, signed } from "./format";
import type { Effect } from "./messages";

export interface EffectCell {
  element: HTMLElement;
  /** `scale` is the largest size on any row's axis, so that rows compare. */
  update(effect: Effect | null, scale: number, waiting: boolean, theme: Theme): void;
}

export function effectScale(effects: Iterable<Effect>): number {
  let scale = 0.01;
  for (const { effect, control } of effects) {
    scale = Math.max(scale, Math.abs(effect));
    if (control) scale = Math.max(scale, Math.abs(control.low), Math.abs(control.high));
  }
  return scale;
}

/** A bar from zero to a value, on an axis that has zero in its middle. */
export interface SignedBar {
  element: HTMLElement;
  /** `scale` is the value at the axis' ends; NaN draws nothing. */
  update(value: number, scale: number, theme: Theme): void;
}

export function signedBar(...more: HTMLElement[]): SignedBar {
  const bar = h("span", { class: "pc-effect-bar" });
  return {
    element: h("span", { class: "pc-axis", "aria-hidden": "true" }, bar, ...more),
    update(value, scale, theme) {
      const known = Number.isFinite(value) && scale > 0;
      placeBar(bar, 0, known ? Math.max(-1, Math.min(1, value / scale)) : 0);
      bar.style.backgroundColor = css(redBlue(value < 0 ? -1 : 1, theme));
    },
  };
}

/** From and to on an axis that goes from -1 to 1. */
export function placeBar(bar: HTMLElement, from: number, to: number): void {
  const [left, right] = [Math.min(from, to), Math.max(from, to)];
  bar.style.left = `${50 + 50 * left}%`;
  bar.style.width = `${50 * (right - left)}%`;
}

export function effectCell(): EffectCell {
  const own = signedBar();
  const random = h("span", { class: "pc-control-bar" });
  const interval = h("span", { class: "pc-interval" });
  const effectValue = h("span", { class: "pc-number" });
  const controlValue = h("span", { class: "pc-number" });
  const controlLine = h(
    "div",
    { class: "pc-effect-line pc-muted" },
    h("span", { class: "pc-axis", "aria-hidden": "true" }, random, interval),
    h("span", { class: "pc-effect-name" }, "control"),
    controlValue,
  );
  const element = h(
    "div",
    { class: "pc-effect" },
    h(
      "div",
      { class: "pc-effect-line" },
      own.element,
      h("span", { class: "pc-effect-name" }, "effect"),
      effectValue,
    ),
    controlLine,
  );
  return {
    element,
    update(effect, scale, waiting, theme) {
      set(element, { "data-empty": effect === null });
      const none = waiting ? "…" : "–";
      for (const bar of [random, interval]) set(bar, { hidden: !effect?.control });
      if (effect === null) {
        say(effectValue, none);
        say(controlValue, none);
        own.update(Number.NaN, scale, theme);
        for (const bar of [random, interval]) placeBar(bar, 0, 0);
        set(element, { title: "Not measured" });
        return;
      }
      own.update(effect.effect, scale, theme);
      say(effectValue, signed(effect.effect));
      const { control } = effect;
      if (control === null) {
        for (const bar of [random, interval]) placeBar(bar, 0, 0);
        say(controlValue, none);
        set(element, {
          title: `Alone, this row changes the metric by ${exact(effect.effect)}.\nThere is no random control for it.`,
        });
        return;
      }
      placeBar(random, 0, control.median / scale);
      placeBar(interval, control.low / scale, control.high / scale);
      const [median, low, high] = alike([control.median, control.low, control.high]);
      say(controlValue, `${median} [${low}, ${high}]`);
      set(element, {
        title:
          `Alone, this row changes the metric by ${exact(effect.effect)}.\n` +
          `${control.of === "heads" ? "The same cells in" : "The same push by"} ` +
          `${count(control.seeds, `random ${control.of.slice(0, -1)}`)} of the layer: median ` +
          `${exact(control.median)}, from ${exact(control.low)} to ${exact(control.high)}.`,
      });
    },
  };
}
