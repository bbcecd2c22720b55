// The selected component, and what is inside it: a head's query, key, value and output and where
// they matter, an MLP's neurons.
import { addressButton } from "./address";
import { type CircuitPicture, indexOfComponent, peakOf, type Replacement } from "./circuit-picture";
import { redBlue, type Theme } from "./colour";
import { button, childSignal, h, keyed, say, set } from "./dom";
import { signedBar } from "./effect";
import { exact, signed, single } from "./format";
import type { DrillBody, NeuronEffect, State } from "./messages";
import { type Shade, tokenStrip } from "./tokens";
import type { Unpacked } from "./transport";

export interface DrillPanel {
  element: HTMLElement;
  update(picture: CircuitPicture, selected: readonly string[], how: Replacement): void;
  paint(theme: Theme): void;
  refuse(sentence: string): void;
}

export interface DrillActions {
  /** Looks into the selected component, and from then on into each one that is selected. */
  drill(): void;
  toggle(addresses: string[]): void;
  solo(address: string): void;
  /** Puts a neuron into the stack, or takes it out. */
  neuron(address: string): void;
  /** Ablates a component at some positions alone. */
  at(address: string, positions: readonly number[]): void;
}

const PARTS: Record<string, string> = {
  q: "query",
  k: "key",
  v: "value",
  z: "output",
};

export function drillPanel(
  signal: AbortSignal,
  actions: DrillActions,
  found: () => { body: Unpacked<DrillBody> | null; stale: boolean; asked: boolean },
): DrillPanel {
  let address: string | null = null;
  let many: readonly string[] = [];
  let shown: CircuitPicture | null = null;
  let theme: Theme | null = null;

  const title = h("h3", { class: "pc-address-title" });
  const ablate = button("ablate", { "data-live": true }, () => actions.toggle([...many]), signal);
  const solo = button(
    "solo",
    { "data-live": true },
    () => (address === null ? undefined : actions.solo(address)),
    signal,
  );
  const numbers = h("p", { class: "pc-muted" });
  const look = button("look inside", { "data-live": true }, () => actions.drill(), signal);
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const nothing = h(
    "p",
    { class: "pc-note" },
    "No component is selected: click a cell of the map, or an address in the table.",
  );
  const parts = h("div", { class: "pc-bars" });
  const bars = new Map<string | number, Bar>();
  const neurons = h("div", { class: "pc-bars" });
  const neuronBars = new Map<string | number, Bar>();
  const words = h("p", { class: "pc-muted pc-small-print" });
  const strip = tokenStrip(
    signal,
    { select: () => picked() },
    "Effect at each position; select positions with Space",
  );
  const here = button(
    "ablate there",
    { "data-live": true },
    () => (address === null ? undefined : actions.at(address, strip.selected())),
    signal,
  );
  const positions = h(
    "div",
    { class: "pc-drill-positions" },
    h("p", { class: "pc-title" }, "ablated at one position"),
    strip.element,
    h("div", { class: "pc-line" }, here),
  );
  const inside = h("div", { class: "pc-inside" }, parts, neurons, words, positions);
  const element = h(
    "section",
    { class: "pc-part pc-drill", "aria-label": "The selected component" },
    run,
    h(
      "div",
      { class: "pc-line pc-panel-head" },
      title,
      h("span", { class: "pc-group pc-to-end" }, ablate, solo),
    ),
    nothing,
    numbers,
    h("div", { class: "pc-line" }, look),
    error,
    inside,
  );

  interface Bar {
    element: HTMLElement;
    dispose?(): void;
    update(value: number, scale: number, title: string): void;
  }
  function plainBar(name: Node, extra: HTMLElement | null, abort?: () => void): Bar {
    const bar = signedBar();
    const number = h("span", { class: "pc-number" });
    const element = h("div", { class: "pc-bar-line" }, name, bar.element, number, extra);
    return {
      element,
      ...(abort && { dispose: abort }),
      update(value, scale, title) {
        if (theme !== null) bar.update(value, scale, theme);
        say(number, Number.isNaN(value) ? "–" : signed(value));
        set(element, { title });
      },
    };
  }

  function picked(): void {
    const chosen = strip.selected();
    set(here, {
      "data-off": chosen.length === 0,
      title: chosen.length === 0 ? "Select positions above first" : null,
    });
    here.disabled = chosen.length === 0 || element.closest("[data-dead]") !== null;
    say(here, chosen.length > 1 ? `ablate at ${chosen.length} positions` : "ablate there");
  }

  function showParts(body: Unpacked<DrillBody>, scale: number): void {
    const made = keyed(
      parts,
      bars,
      body.parts,
      (part) => part,
      (part) =>
        plainBar(
          h("span", {}, h("span", { class: "pc-number" }, part), ` ${PARTS[part] ?? ""}`),
          null,
        ),
    );
    body.parts.forEach((part, i) => {
      const value = body.part_effects[i] ?? Number.NaN;
      made[i]?.update(
        value,
        scale,
        `The ${PARTS[part] ?? part} of ${body.address} replaced: ${single(value)}`,
      );
    });
  }

  function showNeurons(body: Unpacked<DrillBody>, state: State | null): void {
    const there = new Set(state?.rows.map((row) => row.address));
    const scale = peakOf(body.neurons.map((each) => each.exact));
    const made = keyed(
      neurons,
      neuronBars,
      body.neurons,
      (each) => each.address,
      (each) => neuronBar(each),
    );
    body.neurons.forEach((each, i) => {
      made[i]?.update(
        each.exact,
        scale,
        `${each.address}: ${exact(each.exact)} exact${
          each.estimate === null ? "" : `, ${exact(each.estimate)} estimated`
        }`,
      );
      const add = made[i]?.element.querySelector(".pc-add-neuron");
      if (!add) return;
      const is = there.has(each.address);
      say(add, is ? "×" : "+");
      set(add, {
        "aria-label": is ? `Take ${each.address} out of the stack` : `Ablate ${each.address}`,
        title: is ? "Take it out of the stack" : "Ablate it: puts it into the stack",
      });
    });
    const listed =
      body.neurons.length === 0
        ? ""
        : `The ${body.neurons.length} strongest of ${body.total.toLocaleString("en-US")} neurons; massive-activation neurons are left out.`;
    say(words, [listed, body.note].filter((each) => each !== "").join(" "));
  }
  function neuronBar(first: NeuronEffect): Bar {
    const { address: neuron } = first;
    const { signal: own, abort } = childSignal(signal);
    const toggle = () => actions.neuron(neuron);
    return plainBar(
      addressButton(neuron, toggle, own),
      button("+", { class: "pc-button pc-quiet pc-add-neuron", "data-live": true }, toggle, own),
      abort,
    );
  }

  function showPositions(body: Unpacked<DrillBody>, now: Theme): void {
    const state = shown?.state ?? null;
    const effects = body.position_effects;
    const fits = state !== null && state.tokens.length === effects.length;
    set(positions, { hidden: !fits });
    if (!fits) return;
    const peak = peakOf(effects) || 1;
    strip.update(state.tokens, null, true);
    const shade: Shade = {
      values: effects,
      under: null,
      ends: [signed(-peak), signed(peak)],
      along: (share) => redBlue(2 * share - 1, now),
      colour: (value) => redBlue(value / peak, now),
      legend: "effect on the metric",
      says: (value) => `effect ${single(value)}`,
    };
    strip.shade(shade);
  }

  return {
    element,
    refuse(sentence) {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
    },
    update(picture, selected, how) {
      shown = picture;
      many = selected;
      if (address !== (selected[0] ?? null)) {
        strip.select([]);
        this.refuse("");
      }
      address = selected[0] ?? null;
      const { circuit, map } = picture;
      const one = selected.length === 1;
      set(nothing, { hidden: selected.length > 0 });
      for (const part of [title, ablate, numbers]) set(part, { hidden: selected.length === 0 });
      set(solo, { hidden: !one });
      set(look, { hidden: !one });
      set(inside, { hidden: true });
      set(run, { hidden: true });
      if (circuit === null || address === null) return;
      say(title, one ? address : `${selected.length} components`);
      const back = selected.every((each) => circuit.ablated.includes(each));
      const name = one ? address : `the ${selected.length} selected components`;
      say(ablate, back ? "give back" : "ablate");
      set(ablate, {
        "aria-label": `${back ? "Give back" : "Ablate"} ${name}`,
        "aria-pressed": back ? "true" : "false",
      });
      set(solo, {
        "aria-label": `Solo ${name}`,
        title: "Ablate it alone: every other row of the stack is muted; again gives them back",
      });
      if (!one) {
        say(numbers, selected.join(", "));
        return;
      }
      const at = indexOfComponent(circuit, address);
      const value = map?.exact[at] ?? Number.NaN;
      const estimate = map?.estimate[at] ?? Number.NaN;
      const says = [
        Number.isNaN(value) ? "not measured" : `effect ${signed(value)}`,
        Number.isNaN(estimate) ? "" : `estimate ${signed(estimate)}`,
      ];
      say(numbers, says.filter((word) => word !== "").join(", "));
      set(numbers, { title: Number.isNaN(value) ? null : single(value) });
      const { body, stale, asked } = found();
      set(run, { hidden: !asked || (body !== null && !stale) });
      say(look, body === null ? "look inside" : "look again");
      set(look, {
        hidden: body !== null && (!stale || asked),
        "data-off": asked,
        "aria-label": `Look inside ${address}`,
        title: `Effects of what is inside ${address}, replaced by ${how === "zero" ? "zero" : `its ${how}`}`,
      });
      if (body === null || theme === null) return;
      set(inside, { hidden: false, "data-stale": stale });
      const own = Number.isNaN(value) ? 0 : Math.abs(value);
      showParts(body, Math.max(own, peakOf(body.part_effects)));
      showNeurons(body, picture.state);
      showPositions(body, theme);
      picked();
    },
    paint(next) {
      theme = next;
      strip.paint(next);
    },
  };
}

/** What tells one look inside from another: of what, with what put in its place. */
export function drillKey(address: string, how: Replacement): string {
  return `${address} ${how}`;
}
