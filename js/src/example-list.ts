// Inputs that were measured: texts as lines of shaded tokens, stimuli as small pictures, each with
// its activation. A click puts one into the session.
import { css, type Theme } from "./colour";
import { button, childSignal, h, keyed, say, set } from "./dom";
import { exact, short } from "./format";
import type { Measured } from "./maximizer-picture";
import { roving } from "./roving";
import { stimulusView } from "./stimulus";
import { type ActivationScale, activationColour, activationShare, tokenLine } from "./token-line";

export interface ExampleList {
  element: HTMLElement;
  /** `where` draws a stimulus' map over it. */
  update(
    examples: readonly Measured[],
    scale: ActivationScale,
    theme: Theme,
    where?: boolean,
  ): void;
}

interface Part {
  element: HTMLElement;
  dispose(): void;
  update(example: Measured, scale: ActivationScale, theme: Theme, where: boolean): void;
}

export function exampleList(
  signal: AbortSignal,
  name: string,
  load: ((index: number) => void) | null,
): ExampleList {
  const element = h("ul", { class: "pc-example-list", "aria-label": name });
  const parts = new Map<string | number, Part>();
  const stops = load === null ? null : roving(element, "button", signal);

  return {
    element,
    update(examples, scale, theme, where = false) {
      set(element, { "data-of": examples[0]?.picture ? "stimuli" : "texts" });
      const shown = keyed(
        element,
        parts,
        examples.map((example, index) => ({ example, index })),
        // A list that fills in has others at its places: what a part is made for stays the same.
        ({ example, index }) => `${index} ${example.picture === null ? "text" : "stimulus"}`,
        ({ example, index }) => part(example, index),
      );
      examples.forEach((example, i) => {
        shown[i]?.update(example, scale, theme, where);
      });
      stops?.refresh();
    },
  };

  function part(first: Measured, index: number): Part {
    const own = childSignal(signal);
    const value = h("span", { class: "pc-number pc-example-value" });
    if (first.picture !== null) {
      const view = stimulusView(own.signal, "", true);
      const map = h("canvas", { class: "pc-map", "aria-hidden": "true", hidden: true });
      view.element.append(map);
      const caption = h("span", { class: "pc-example-name" });
      const inner = [
        view.element,
        h("span", {}, h("span", { class: "pc-hidden" }, "activation "), value),
        caption,
      ];
      const holder =
        load === null
          ? h("div", { class: "pc-example" }, ...inner)
          : button("", { class: "pc-example", "data-live": true }, () => load(index), own.signal);
      if (load !== null) holder.append(...inner);
      let mapped: unknown[] = [];
      return {
        element: h("li", {}, holder),
        dispose: own.abort,
        update(example, scale, theme, where) {
          view.update(example.picture);
          view.paint(theme);
          say(value, short(example.activation));
          say(caption, example.name);
          const click = load === null ? "" : "\nClick puts it into the session";
          const named = example.name === "" ? "" : `${example.name}\n`;
          set(holder, { title: `${named}activation ${exact(example.activation)}${click}` });
          const now = [example.map, where, scale.low, scale.high, theme];
          if (now.every((each, i) => each === mapped[i])) return;
          mapped = now;
          set(map, { hidden: !where || example.map === null });
          if (where && example.map !== null) drawMap(map, example, scale, theme);
        },
      };
    }
    const line = tokenLine();
    const caption = h("span", { class: "pc-example-name" });
    const go =
      load === null
        ? null
        : button(
            "load",
            { class: "pc-button pc-quiet pc-load", "data-live": true },
            () => load(index),
            own.signal,
          );
    return {
      element: h(
        "li",
        { class: "pc-example-text" },
        value,
        h("span", { class: "pc-example-line" }, line.element),
        h("span", { class: "pc-example-end" }, caption, go),
      ),
      dispose: own.abort,
      update(example, scale, theme) {
        line.update(example.tokens, example.activations, scale, theme, example.at);
        say(value, short(example.activation));
        set(value, { title: exact(example.activation) });
        say(caption, example.name);
        if (go !== null) {
          set(go, {
            "aria-label": `Load example ${index + 1}, activation ${short(example.activation)}`,
            title: "Put this text into the session",
          });
        }
      },
    };
  }
}

/** The unit at each position, over the picture. */
function drawMap(
  canvas: HTMLCanvasElement,
  { map, map_height: height, map_width: width }: Measured,
  scale: ActivationScale,
  theme: Theme,
): void {
  const pen = canvas.getContext("2d");
  if (pen === null || map === null) return;
  canvas.width = width;
  canvas.height = height;
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const value = map[row * width + column] as number;
      const alpha = Math.min(0.85, activationShare(value, scale));
      pen.fillStyle = css(activationColour(value, scale, theme), alpha);
      pen.fillRect(column, row, 1, 1);
    }
  }
}
