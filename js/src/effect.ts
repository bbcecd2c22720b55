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

export function effectCell(): EffectCell {
  const own = h("span", { class: "pc-effect-bar" });
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
      h("span", { class: "pc-axis", "aria-hidden": "true" }, own),
      h("span", { class: "pc-effect-name" }, "effect"),
      effectValue,
    ),
    controlLine,
  );
  const place = (bar: HTMLElement, from: number, to: number) => {
    const [left, right] = [Math.min(from, to), Math.max(from, to)];
    bar.style.left = `${50 + 50 * left}%`;
    bar.style.width = `${50 * (right - left)}%`;
  };
  return {
    element,
    update(effect, scale, waiting, theme) {
      set(element, { "data-empty": effect === null });
      const none = waiting ? "…" : "–";
      for (const bar of [random, interval]) set(bar, { hidden: !effect?.control });
      if (effect === null) {
        say(effectValue, none);
        say(controlValue, none);
        for (const bar of [own, random, interval]) place(bar, 0, 0);
        set(element, { title: "Not measured" });
        return;
      }
      place(own, 0, effect.effect / scale);
      own.style.backgroundColor = css(redBlue(effect.effect < 0 ? -1 : 1, theme));
      say(effectValue, signed(effect.effect));
      const { control } = effect;
      if (control === null) {
        for (const bar of [random, interval]) place(bar, 0, 0);
        say(controlValue, none);
        set(element, {
          title: `Alone, this row changes the metric by ${exact(effect.effect)}.\nThere is no random control for it.`,
        });
        return;
      }
      place(random, 0, control.median / scale);
      place(interval, control.low / scale, control.high / scale);
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
