// Two ablations, each by itself and both at once: what they do together beyond their sum.
import { addressButton } from "./address";
import type { CircuitPicture, Replacement } from "./circuit-picture";
import { LIGHT, type Theme } from "./colour";
import { button, childSignal, h, keyed, say, set } from "./dom";
import { placeBar, signedBar } from "./effect";
import { alike, count, exact, short } from "./format";
import type { InteractBody } from "./messages";

export interface InteractionPanel {
  element: HTMLElement;
  update(picture: CircuitPicture, selected: readonly string[], how: Replacement): void;
  paint(theme: Theme): void;
}

export interface InteractionActions {
  interact(a: string[], b: string[]): Promise<InteractBody>;
  select(address: string): void;
  changed(): void;
}

type Side = "a" | "b";

export function interactionPanel(
  signal: AbortSignal,
  actions: InteractionActions,
): InteractionPanel {
  const sides: Record<Side, string[]> = { a: [], b: [] };
  let body: InteractBody | null = null;
  /** Of what the numbers are: other sides or another replacement make them old. */
  let measured = "";
  let asking = false;
  let theme = LIGHT;
  let selected: readonly string[] = [];
  let how: Replacement = "mean";
  let shown: CircuitPicture | null = null;

  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  };
  const parts = { a: part("a"), b: part("b") };
  const measure = button("measure", { "data-live": true }, () => void go(), signal);
  const first = h(
    "p",
    { class: "pc-note" },
    "Select a component, or brush several, in the map; take them as A, then others as B.",
  );
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const lines = {
    a: line("A", "Ablating A alone"),
    b: line("B", "Ablating B alone"),
    sum: line("A + B, added", "What both would do if they did not interact"),
    both: line("A and B", "Ablating both at once"),
    interaction: line("interaction", "Both, minus A, minus B"),
  };
  const control = h("span", { class: "pc-control-bar" });
  lines.interaction.axis.prepend(control);
  set(lines.sum.element, { "data-sum": true });
  const bars = h(
    "div",
    { class: "pc-interaction-bars" },
    ...Object.values(lines).map((each) => each.element),
  );
  const words = h("p", {});
  const note = h("p", { class: "pc-muted pc-small-print" });
  const result = h("div", { class: "pc-interaction-result", hidden: true }, bars, words, note);
  const element = h(
    "section",
    { class: "pc-part pc-interaction", "aria-label": "Interaction of two ablations" },
    run,
    h(
      "div",
      { class: "pc-line pc-section-head" },
      h("h3", { class: "pc-title" }, "interaction"),
      parts.a.element,
      parts.b.element,
      measure,
    ),
    first,
    error,
    result,
  );

  function line(name: string, title: string) {
    const bar = signedBar();
    const value = h("span", { class: "pc-number" });
    const element = h(
      "div",
      { class: "pc-bar-line", title },
      h("span", {}, name),
      bar.element,
      value,
    );
    return {
      element,
      axis: bar.element,
      update(number: number, word: string, scale: number) {
        bar.update(number, scale, theme);
        say(value, word);
        set(value, { title: exact(number) });
      },
    };
  }

  interface Part {
    element: HTMLElement;
    update(): void;
  }
  function part(side: Side): Part {
    const name = side.toUpperCase();
    const list = h("span", { class: "pc-side-list" });
    const known = new Map<string | number, { element: HTMLElement; dispose(): void }>();
    const take = button(
      `take as ${name}`,
      { "aria-label": `take as ${name} what is selected` },
      () => {
        sides[side] = [...selected];
        refuse("");
        actions.changed();
      },
      signal,
    );
    const clear = button(
      "×",
      {
        class: "pc-button pc-quiet pc-remove",
        "aria-label": `Empty ${name}`,
        title: `Empty ${name}`,
      },
      () => {
        sides[side] = [];
        actions.changed();
      },
      signal,
    );
    return {
      element: h(
        "span",
        { class: "pc-side-of", role: "group", "aria-label": name },
        h("span", { class: "pc-word" }, name),
        list,
        take,
        clear,
      ),
      update() {
        keyed(
          list,
          known,
          sides[side],
          (address) => address,
          (address) => {
            const { signal: own, abort } = childSignal(signal);
            return {
              element: addressButton(address, () => actions.select(address), own),
              dispose: abort,
            };
          },
        );
        set(clear, { hidden: sides[side].length === 0 });
        const same = selected.length > 0 && selected.join() === sides[side].join();
        take.disabled = selected.length === 0 || same;
        set(take, {
          title:
            selected.length === 0
              ? "Select components in the map or the table first"
              : selected.join(", "),
        });
      },
    };
  }

  function keyOf(): string {
    const since = shown?.circuit?.holds_since.map ?? 0;
    return JSON.stringify([sides, how, since]);
  }
  async function go(): Promise<void> {
    const common = sides.a.filter((address) => sides.b.includes(address));
    if (common.length > 0) {
      refuse(
        `${common.join(", ")} ${common.length === 1 ? "is" : "are"} in both A and B; an interaction is of two different things.`,
      );
      return;
    }
    asking = true;
    const key = keyOf();
    actions.changed();
    try {
      body = await actions.interact(sides.a, sides.b);
      measured = key;
      refuse("");
    } catch (refused) {
      refuse((refused as Error).message);
    }
    asking = false;
    actions.changed();
  }

  function show(): void {
    if (body === null) return;
    const { effect_a, effect_b, both, interaction, seeds } = body;
    const sum = effect_a + effect_b;
    const numbers = [effect_a, effect_b, sum, both, interaction];
    const scale = Math.max(...numbers.map(Math.abs), body.control ?? 0, 1e-9);
    const said = alike(numbers).map((word, i) => ((numbers[i] ?? 0) > 0 ? `+${word}` : word));
    const each = [lines.a, lines.b, lines.sum, lines.both, lines.interaction];
    each.forEach((line, i) => {
      line.update(numbers[i] ?? 0, said[i] ?? "", scale);
    });
    set(control, { hidden: body.control === null });
    const wide = (body.control ?? 0) / scale;
    placeBar(control, -wide, wide);
    const much = `${short(Math.abs(interaction))} ${shown?.circuit?.unit ?? ""}`.trim();
    const random = body.control === null ? Number.POSITIVE_INFINITY : Math.abs(body.control);
    const kind =
      Math.abs(interaction) <= random && body.control !== null
        ? "No more than A has with random components in B’s place: the two about add up."
        : interaction * sum > 0
          ? `Both at once do ${much} more than their sum: each stands in for the other.`
          : `Both at once do ${much} less than their sum: they do the same work, or undo each other’s.`;
    say(words, kind);
    say(
      note,
      body.control === null
        ? body.note
        : `Hatched: the largest interaction of A with ${count(seeds, "random draw")} in B’s place, ±${exact(Number(body.control.toPrecision(3)))}.`,
    );
  }

  return {
    element,
    update(picture, now, replacement) {
      shown = picture;
      selected = now;
      how = replacement;
      for (const each of [parts.a, parts.b]) each.update();
      const ready = sides.a.length > 0 && sides.b.length > 0;
      set(measure, {
        "data-off": !ready || asking,
        title: ready
          ? `Ablated to ${how === "zero" ? "zero" : `the ${how}`}, as in the map`
          : "Take components as A and as B first",
      });
      set(first, { hidden: ready || body !== null });
      set(run, { hidden: !asking });
      set(result, { hidden: body === null, "data-stale": body !== null && measured !== keyOf() });
      show();
    },
    paint(next) {
      theme = next;
      show();
    },
  };
}
