// What is worked on: one prompt with its corrupt twin, or a set of prompt pairs that comes with the
// package, stepped through one by one.
import { capped } from "./capped";
import type { Circuit } from "./circuit-picture";
import { button, focused, h, keyed, say, set } from "./dom";
import { parse, quoted } from "./format";
import type { PairSet, PromptPair, State } from "./messages";
import type { Gesture } from "./requests";
import { textEditor } from "./text-editor";

export interface PairsPanel {
  /** Stands above the prompt. */
  element: HTMLElement;
  /** The corrupt prompt: stands below it. */
  corrupt: HTMLElement;
  update(circuit: Circuit, state: State): void;
}

export interface PairsActions {
  ask(gesture: Gesture): Promise<unknown>;
  changed(): void;
}

const COUNT = 16;
const LISTED = 24;

export function pairsPanel(signal: AbortSignal, actions: PairsActions): PairsPanel {
  let circuit: Circuit | null = null;
  let state: State | null = null;
  let editing = false;
  let listing = false;

  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  };
  const ask = (gesture: Gesture) =>
    actions.ask(gesture).then(
      () => refuse(""),
      (refused: Error) => {
        refuse(refused.message);
        actions.changed();
      },
    );

  const choice = h("select", { class: "pc-select", "aria-label": "Prompts", "data-live": true });
  choice.addEventListener("change", () => void take(), { signal });
  const field = (name: string, value: string) => {
    const input = h("input", {
      type: "text",
      inputmode: "numeric",
      class: "pc-input pc-small pc-number",
      "aria-label": name,
      autocomplete: "off",
      value,
      "data-live": true,
    });
    input.addEventListener("change", () => void take(), { signal });
    return input;
  };
  const count = field("How many pairs", String(COUNT));
  const seed = field("Seed of the pairs", "0");
  const countField = h("label", { class: "pc-field" }, count, "pairs");
  const seedField = h("label", { class: "pc-field" }, "seed", seed);
  const back = button(
    "‹",
    {
      class: "pc-button pc-quiet",
      "aria-label": "Previous pair",
      title: "Previous pair",
      "data-live": true,
    },
    () => step(-1),
    signal,
  );
  const next = button(
    "›",
    {
      class: "pc-button pc-quiet",
      "aria-label": "Next pair",
      title: "Next pair",
      "data-live": true,
    },
    () => step(1),
    signal,
  );
  const at = h("span", { class: "pc-number" });
  const list = button(
    "list",
    { class: "pc-button pc-quiet", "aria-expanded": "false" },
    () => {
      listing = !listing;
      actions.changed();
    },
    signal,
  );
  const stepper = h("span", { class: "pc-field pc-stepper" }, back, at, next, list);
  const about = h("p", { class: "pc-muted pc-small-print" });
  const body = h("tbody");
  const rows = new Map<string | number, Row>();
  const limit = capped(signal, "pairs", LISTED, actions.changed);
  const table = h(
    "div",
    { class: "pc-pairs-list", hidden: true },
    h(
      "table",
      { class: "pc-pairs" },
      h("caption", { class: "pc-hidden" }, "The pairs of the set"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ...["", "clean", "corrupt", "answer", "wrong"].map((name) =>
            h(
              "th",
              { scope: "col" },
              name === "" ? h("span", { class: "pc-hidden" }, "pair") : name,
            ),
          ),
        ),
      ),
      body,
    ),
  );
  const element = h(
    "section",
    { class: "pc-pairs-panel", "aria-label": "Prompt pairs" },
    h(
      "div",
      { class: "pc-line" },
      h("label", { class: "pc-field" }, "prompts", choice),
      countField,
      seedField,
      stepper,
    ),
    about,
    error,
    table,
    limit.element,
  );

  // --- the corrupt prompt ---
  const words = h("p", { class: "pc-corrupt-text" });
  const edit = button(
    "edit",
    { class: "pc-button pc-quiet pc-edit", "data-live": true },
    () => open(),
    signal,
  );
  const remove = button(
    "×",
    {
      class: "pc-button pc-quiet pc-remove",
      "aria-label": "Remove the corrupt prompt",
      title: "Remove the corrupt prompt",
      "data-live": true,
    },
    () => void ask({ kind: "second", text: null }),
    signal,
  );
  const add = button(
    "+ corrupt prompt",
    {
      class: "pc-button pc-quiet",
      title: "The same prompt with another answer, of as many tokens",
      "data-live": true,
    },
    () => open(),
    signal,
  );
  const editor = textEditor(signal, {
    label: "Corrupt prompt",
    placeholder: "The same prompt with another answer, of as many tokens",
    doing: ["take", "takes"],
    take: (text) => void send(text),
    cancel: () => shut(),
  });
  const looking = h(
    "div",
    { class: "pc-looking" },
    h("span", { class: "pc-word pc-which" }, "corrupt"),
    words,
    edit,
    remove,
  );
  const why = h("p", { class: "pc-muted pc-small-print" });
  const corruptError = h("p", { class: "pc-error", role: "alert", hidden: true });
  const corrupt = h(
    "section",
    { class: "pc-corrupt", "aria-label": "Corrupt prompt" },
    looking,
    add,
    editor.element,
    corruptError,
    why,
  );

  function refuseCorrupt(sentence: string): void {
    say(corruptError, sentence);
    set(corruptError, { hidden: sentence === "" });
  }
  function open(): void {
    editing = true;
    show();
    editor.open(circuit?.contrast ?? state?.prompt ?? "");
  }
  function shut(): void {
    editing = false;
    refuseCorrupt("");
    show();
    (circuit?.contrast === null ? add : edit).focus();
  }
  async function send(text: string): Promise<void> {
    if (text === "") {
      refuseCorrupt("The corrupt prompt is empty; type at least one word.");
      return;
    }
    try {
      await actions.ask({ kind: "second", text });
      shut();
    } catch (refused) {
      refuseCorrupt((refused as Error).message);
    }
  }
  function show(): void {
    const has = circuit !== null && circuit.contrast !== null;
    const fixed = circuit?.pairs != null;
    set(looking, { hidden: !has || editing });
    set(add, { hidden: has || editing || fixed });
    set(editor.element, { hidden: !editing });
    for (const each of [edit, remove]) set(each, { hidden: fixed });
  }

  // --- the set ---
  function take(): Promise<void> {
    const name = choice.value;
    if (name === "") return ask({ kind: "pairs", name: null });
    const [many, start] = [parse(count.value), parse(seed.value)];
    const wrong = [count, seed].find((input) => !Number.isInteger(parse(input.value) ?? 0.5));
    if (wrong !== undefined || many === null || start === null) {
      refuse(`“${wrong?.value ?? ""}” is no whole number; ${COUNT} would be.`);
      return Promise.resolve();
    }
    return ask({ kind: "pairs", name, count: many, seed: start });
  }
  function step(by: number): void {
    const pairs = circuit?.pairs;
    if (!pairs) return;
    const index = (pairs.shown + by + pairs.count) % pairs.count;
    void ask({ kind: "pair", index });
  }

  interface Row {
    element: HTMLElement;
    update(pair: PromptPair, shown: boolean): void;
  }
  function row(index: number): Row {
    const press = button(
      String(index + 1),
      {
        class: "pc-button pc-quiet pc-number",
        "aria-label": `Show pair ${index + 1}`,
        "data-live": true,
      },
      () => void ask({ kind: "pair", index }),
      signal,
    );
    const cells = (["clean", "corrupt", "answer", "wrong"] as const).map((of) => ({
      of,
      cell: h("td", { class: "pc-token-text" }),
    }));
    const element = h("tr", {}, h("td", {}, press), ...cells.map(({ cell }) => cell));
    return {
      element,
      update(pair, shown) {
        for (const { of, cell } of cells) {
          say(cell, pair[of]);
          set(cell, { title: pair[of] });
        }
        set(element, { "data-shown": shown });
        set(press, { "aria-pressed": shown ? "true" : "false" });
      },
    };
  }
  function showList(pairs: PairSet): void {
    set(table, { hidden: !listing });
    set(limit.element, { hidden: true });
    set(list, {
      "aria-expanded": listing ? "true" : "false",
      "aria-pressed": listing ? "true" : "false",
    });
    if (!listing) return;
    const shown = limit.take(pairs.pairs.map((pair, index) => ({ pair, index })));
    const parts = keyed(
      body,
      rows,
      shown,
      ({ index }) => index,
      ({ index }) => row(index),
    );
    for (const [i, { pair, index }] of shown.entries()) {
      parts[i]?.update(pair, index === pairs.shown);
    }
  }

  return {
    element,
    corrupt,
    update(now, session) {
      circuit = now;
      state = session;
      const { pairs, sets } = now;
      const wanted = ["", ...sets.map((each) => each.name)];
      if ([...choice.options].map((option) => option.value).join() !== wanted.join()) {
        choice.replaceChildren(
          h("option", { value: "" }, "this prompt alone"),
          ...sets.map(({ name, about }) =>
            h("option", { value: name, title: about }, name.replaceAll("-", " ")),
          ),
        );
      }
      const name = pairs?.name ?? "";
      if (!wanted.includes(name)) choice.append(h("option", { value: name }, name));
      choice.value = name;
      for (const part of [countField, seedField, stepper]) set(part, { hidden: pairs === null });
      if (pairs !== null) {
        const typing = focused(element);
        if (typing !== count) count.value = String(pairs.count);
        if (typing !== seed) seed.value = String(pairs.seed);
        say(at, `pair ${pairs.shown + 1} of ${pairs.count}`);
        const pair = pairs.pairs[pairs.shown];
        const tokens =
          pair === undefined ? "" : ` Answer ${quoted(pair.answer)}, wrong ${quoted(pair.wrong)}.`;
        const note = pairs.note === "" ? "" : ` ${pairs.note}`;
        say(about, `${sentence(pairs.about)}${tokens}${note}`);
        showList(pairs);
      } else {
        set(table, { hidden: true });
        set(limit.element, { hidden: true });
      }
      set(about, { hidden: pairs === null });
      for (const each of [back, next]) set(each, { "data-off": (pairs?.count ?? 0) < 2 });
      words.replaceChildren(...difference(session.prompt ?? "", now.contrast ?? ""));
      say(why, now.contrast !== null && now.refusals.corrupt !== null ? now.refusals.corrupt : "");
      show();
    },
  };
}

function sentence(words: string): string {
  return words === "" || /[.!?]$/.test(words) ? words : `${words}.`;
}

/** The corrupt text, with what differs from the clean one marked. */
export function difference(clean: string, corrupt: string): (Node | string)[] {
  if (clean === corrupt) return [corrupt];
  const [a, b] = [[...clean], [...corrupt]];
  let start = 0;
  while (start < Math.min(a.length, b.length) && a[start] === b[start]) start++;
  let end = 0;
  while (
    end < Math.min(a.length, b.length) - start &&
    a[a.length - 1 - end] === b[b.length - 1 - end]
  ) {
    end++;
  }
  // Whole words: half of one says little.
  while (start > 0 && !/\s/.test(b[start - 1] ?? "")) start--;
  while (end > 0 && !/\s/.test(b[b.length - end] ?? "")) end--;
  const middle = b.slice(start, b.length - end).join("");
  if (middle === "") return [corrupt];
  return [
    b.slice(0, start).join(""),
    h("mark", { class: "pc-differs" }, middle),
    b.slice(b.length - end).join(""),
  ].filter((part) => part !== "");
}
