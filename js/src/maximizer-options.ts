// How it is optimised, folded away behind one word: of pictures, and of prompts. What is changed
// holds from the next start on.
import { h, say, select, set } from "./dom";
import { parse, setting } from "./format";
import type { ClimbOptions, DreamOptions, MaximizerState } from "./messages";
import { segments } from "./segments";

/** What a person may change of pictures. */
export type PictureChange = Partial<
  Pick<
    ClimbOptions,
    | "steps"
    | "seed"
    | "parameterization"
    | "transforms"
    | "decay"
    | "rate"
    | "l2"
    | "tv"
    | "blur"
    | "start"
  > & { size: number }
>;
/** And of prompts; null is no limit of time. */
export type PromptChange = Partial<Omit<DreamOptions, "seconds"> & { seconds: number }>;

export interface OptionsPanel {
  /** The folded part. */
  element: HTMLElement;
  /** Of the line above: stays in sight. */
  seed: HTMLElement;
  update(state: MaximizerState): void;
  refuse(sentence: string): void;
  /** What was changed of prompts since the last start. */
  prompts(): PromptChange;
}

export interface OptionsActions {
  /** Rejects with a sentence. */
  change(change: PictureChange): Promise<unknown>;
}

interface Spec {
  name: string;
  label: string;
  title: string;
  whole: boolean;
}

const PICTURES: readonly (Spec & { name: keyof PictureChange })[] = [
  { name: "steps", label: "steps", title: "Steps of the optimiser", whole: true },
  { name: "size", label: "size", title: "Height and width, in pixels", whole: true },
  {
    name: "decay",
    label: "decay",
    title: "How fast the weight of a frequency f falls: 1 is 1/f; more makes coarse shapes easier",
    whole: false,
  },
  { name: "rate", label: "rate", title: "Learning rate of Adam", whole: false },
  { name: "l2", label: "L2", title: "Penalty on the squared distance from grey", whole: false },
  { name: "tv", label: "TV", title: "Penalty on differences between neighbours", whole: false },
  {
    name: "blur",
    label: "blur",
    title: "Penalty on the distance from its blurred self",
    whole: false,
  },
];
const PROMPTS: readonly (Spec & { name: Exclude<keyof PromptChange, "start"> })[] = [
  { name: "length", label: "tokens", title: "Length of the prompt, in tokens", whole: true },
  { name: "population", label: "population", title: "Prompts kept along the front", whole: true },
  {
    name: "children",
    label: "children",
    title: "Swaps tried of each prompt in an iteration",
    whole: true,
  },
  { name: "iterations", label: "iterations", title: "At most so many", whole: true },
  {
    name: "top",
    label: "top-k",
    title: "Tokens that a position's gradient may propose",
    whole: true,
  },
  { name: "seconds", label: "seconds", title: "At most so long; empty: no limit", whole: false },
];

export function optionsPanel(signal: AbortSignal, actions: OptionsActions): OptionsPanel {
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  };
  let state: MaximizerState | null = null;
  const changed: PromptChange = {};

  const send = (change: PictureChange) => {
    actions.change(change).then(
      () => refuse(""),
      (refused: Error) => refuse(refused.message),
    );
  };

  const field = <S extends Spec>(spec: S, take: (value: number) => void) => {
    const input = h("input", {
      type: "text",
      inputmode: "decimal",
      class: "pc-input pc-small pc-number",
      "aria-label": `${spec.label}: ${spec.title}`,
      autocomplete: "off",
      "data-live": true,
    });
    const element = h("label", { class: "pc-field", title: spec.title }, spec.label, input);
    const done = () => {
      const value = parse(input.value);
      if (value === null && spec.name === "seconds" && input.value.trim() === "") {
        delete changed.seconds;
        return;
      }
      const wrong = value === null || (spec.whole && !Number.isInteger(value));
      set(input, { "aria-invalid": wrong ? "true" : null });
      if (wrong) {
        refuse(`“${input.value}” is no ${spec.whole ? "whole " : ""}number for ${spec.label}.`);
        return;
      }
      refuse("");
      take(value);
    };
    input.addEventListener("change", done, { signal });
    input.addEventListener(
      "keydown",
      (event) => {
        if (event.key === "Enter") done();
      },
      { signal },
    );
    return { input, element, spec };
  };

  const pictures = PICTURES.map((spec) => field(spec, (value) => send({ [spec.name]: value })));
  const prompts = PROMPTS.map((spec) =>
    field(spec, (value) => {
      changed[spec.name] = value;
    }),
  );
  const seed = field(
    { name: "seed", label: "seed", title: "The same seed gives the same result", whole: true },
    (value) => {
      if (state?.options) send({ seed: value });
      else changed.seed = value;
    },
  );
  const parameterization = segments<"fourier" | "pixel">(
    "Parameterisation",
    [
      {
        value: "fourier",
        label: "Fourier",
        title: "Frequencies scaled by 1/f^decay, colours decorrelated",
      },
      { value: "pixel", label: "pixels", title: "Each pixel by itself, for comparison" },
    ],
    (value) => send({ parameterization: value }),
    { signal },
  );
  const start = select(
    [
      ["noise", "noise"],
      ["input", "the session's input"],
    ],
    { "aria-label": "Where it starts", "data-live": true },
    (value) => send({ start: value as ClimbOptions["start"] }),
    signal,
  );
  const begin = select(
    [
      ["random", "random tokens"],
      ["examples", "examples of the corpus"],
    ],
    {
      "aria-label": "What a search for prompts starts from",
      title: "Examples: the tokens that lead up to the unit's peaks in the corpus",
      "data-live": true,
    },
    (value) => {
      changed.start = value as DreamOptions["start"];
    },
    signal,
  );
  const transforms = select(
    [
      ["crops", "crops under noise"],
      ["lucid", "a little, as Lucid"],
      ["none", "none"],
    ],
    {
      "aria-label": "Transformations: how the picture is moved before each step",
      "data-live": true,
    },
    (value) => send({ transforms: value as ClimbOptions["transforms"] }),
    signal,
  );
  const moves = h(
    "label",
    { class: "pc-field", title: "How the picture is moved before each step" },
    "transformations",
    transforms,
  );
  const ofPictures = h(
    "div",
    { class: "pc-line" },
    ...pictures.slice(0, 2).map((each) => each.element),
    parameterization.element,
    moves,
    h("label", { class: "pc-field" }, "start from", start),
    ...pictures.slice(2).map((each) => each.element),
  );
  const ofPrompts = h(
    "div",
    { class: "pc-line" },
    h("label", { class: "pc-field" }, "start from", begin),
    ...prompts.map((each) => each.element),
  );
  const element = h(
    "div",
    { class: "pc-options", id: `pc-options-${Math.floor(Math.random() * 1e9)}`, hidden: true },
    ofPictures,
    ofPrompts,
    h("p", { class: "pc-muted pc-small-print" }, "From the next start on."),
    error,
  );

  const fill = (input: HTMLInputElement, value: number | null | undefined) => {
    if (input.matches(":focus") || input.getAttribute("aria-invalid") === "true") return;
    const text = value === null || value === undefined ? "" : setting(value);
    if (input.value !== text) input.value = text;
  };

  return {
    element,
    seed: seed.element,
    refuse,
    prompts: () => ({ ...changed }),
    update(next) {
      state = next;
      const { options, dreaming } = next;
      set(ofPictures, { hidden: options === null });
      set(ofPrompts, { hidden: dreaming === null });
      if (options !== null) {
        const image = next.family === "image";
        for (const { input, element: label, spec } of pictures) {
          const value = options[spec.name as keyof ClimbOptions] as number | null;
          fill(input, value);
          const missing =
            (spec.name === "size" && options.size === null) ||
            (spec.name === "decay" && (!image || options.parameterization !== "fourier"));
          set(label, { hidden: missing });
          if (spec.name === "size") {
            set(label, { title: `${spec.title}; at least ${options.smallest}` });
          }
        }
        set(parameterization.element, { hidden: !image });
        parameterization.update(options.parameterization);
        transforms.value = options.transforms;
        set(moves, { hidden: !image });
        start.value = options.start;
        fill(seed.input, options.seed);
      }
      if (dreaming !== null) {
        for (const { input, spec } of prompts) {
          fill(input, changed[spec.name] ?? dreaming[spec.name]);
        }
        begin.value = changed.start ?? dreaming.start;
        fill(seed.input, changed.seed ?? dreaming.seed);
      }
    },
  };
}
