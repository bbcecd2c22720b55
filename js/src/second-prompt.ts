// A second prompt beside the first, and which of its tokens stands for which of the first: by
// position, by tokens, or pair by pair. Partners light up on both sides.
import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import type { PromptToken, SecondPrompt } from "./messages";
import type { Gesture } from "./requests";
import { textEditor } from "./text-editor";
import { tokenStrip } from "./tokens";

export interface SecondPart {
  element: HTMLElement;
  update(second: SecondPrompt | null, first: readonly PromptToken[]): void;
  /** A token of the first prompt is looked at; null for none. */
  point(position: number | null): void;
  paint(theme: Theme): void;
}

export interface SecondActions {
  ask(gesture: Gesture): Promise<unknown>;
  /** What is selected in the first prompt. */
  selected(): number[];
  /** Marks tokens of the first prompt. */
  point(positions: readonly number[]): void;
  announce(text: string): void;
}

export function secondPrompt(signal: AbortSignal, actions: SecondActions): SecondPart {
  let second: SecondPrompt | null = null;
  let first: readonly PromptToken[] = [];
  let open = false;

  const strip = tokenStrip(
    signal,
    { select: () => undefined, hover: (position) => hovered(position) },
    "Tokens of the second prompt; Space pairs one with the selected token of the first",
  );
  const add = button(
    "+ second prompt",
    { class: "pc-button pc-quiet", "data-live": true, "aria-expanded": "false" },
    () => edit(),
    signal,
  );
  const change = button(
    "edit",
    { class: "pc-button pc-quiet pc-edit", "data-live": true },
    () => edit(),
    signal,
  );
  const remove = button(
    "×",
    {
      class: "pc-button pc-quiet pc-remove",
      "aria-label": "Remove the second prompt",
      title: "Remove the second prompt",
      "data-live": true,
    },
    () => void send(null),
    signal,
  );
  const align = (by: "position" | "tokens", label: string, title: string) =>
    button(label, { title, "data-live": true }, () => ask({ kind: "align", by }), signal);
  const words = h("span", { class: "pc-muted pc-small-print" });
  const tools = h(
    "div",
    { class: "pc-line pc-align" },
    h("span", { class: "pc-word" }, "align"),
    h(
      "span",
      { class: "pc-group", role: "group", "aria-label": "Align the two prompts" },
      align("position", "by position", "Token 3 here stands for token 3 above"),
      align("tokens", "by tokens", "By the longest run of tokens that both prompts have"),
    ),
    words,
  );
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const editor = textEditor(signal, {
    label: "Second prompt",
    placeholder: "The prompt to compare with",
    doing: ["compare", "compares"],
    take: (text) => void send(text),
    cancel: () => shut(),
  });
  const looking = h(
    "div",
    { class: "pc-looking", hidden: true },
    h("span", { class: "pc-word pc-which" }, "second"),
    strip.element,
    change,
    remove,
  );
  const element = h(
    "section",
    { class: "pc-second", "aria-label": "Second prompt" },
    add,
    looking,
    tools,
    editor.element,
    error,
  );

  // A click pairs rather than selects: what a selection here would be for is the partner.
  const pick = (event: Event) => {
    const chip = (event.target as Element).closest<HTMLElement>(".pc-chip");
    if (chip === null || !strip.element.contains(chip)) return;
    event.stopPropagation();
    event.preventDefault();
    pair(Number(chip.dataset.position));
  };
  strip.element.addEventListener("click", pick, { signal, capture: true });
  strip.element.addEventListener(
    "keydown",
    (event) => {
      if (event.key === " " || event.key === "Enter") pick(event);
    },
    { signal, capture: true },
  );

  function refuse(sentence: string): void {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  }
  function ask(gesture: Gesture): void {
    actions.ask(gesture).then(
      () => refuse(""),
      (refused: Error) => refuse(refused.message),
    );
  }
  function edit(): void {
    open = true;
    show();
    editor.open(second?.text ?? first.map((token) => (token.bos ? "" : token.text)).join(""));
  }
  function shut(): void {
    open = false;
    refuse("");
    show();
    (second === null ? add : change).focus();
  }
  async function send(text: string | null): Promise<void> {
    if (text === "") {
      refuse("The second prompt is empty; type at least one word.");
      return;
    }
    try {
      await actions.ask({ kind: "second", text });
      refuse("");
      open = false;
      show();
    } catch (refused) {
      refuse((refused as Error).message);
    }
  }

  function pair(position: number): void {
    if (element.closest("[data-dead]") !== null) return;
    const [mine, ...more] = actions.selected();
    if (mine === undefined || more.length > 0) {
      refuse("Select one token of the first prompt, then click its partner here.");
      return;
    }
    const was = second?.partners[mine] === position;
    ask({ kind: "align", pair: [mine, was ? null : position] });
    actions.announce(
      was
        ? `Token ${mine} has no partner now`
        : `Token ${mine} of the first prompt is paired with ${position} of the second`,
    );
  }

  function hovered(position: number | null): void {
    if (position === null || second === null) {
      actions.point([]);
      return;
    }
    actions.point(second.partners.flatMap((partner, i) => (partner === position ? [i] : [])));
  }

  function show(): void {
    set(add, { hidden: second !== null || open, "aria-expanded": "false" });
    set(looking, { hidden: second === null || open });
    set(tools, { hidden: second === null });
    set(editor.element, { hidden: !open });
  }

  return {
    element,
    update(next, tokens) {
      second = next;
      first = tokens;
      show();
      if (next === null) return;
      strip.update(next.tokens, null, true);
      set(change, { "data-off": next.text === null });
      const partners = next.partners.filter((partner) => partner !== null).length;
      say(
        words,
        `${partners} of ${tokens.length} paired · select a token above, then click its partner`,
      );
    },
    point(position) {
      const partner = position === null ? null : (second?.partners[position] ?? null);
      strip.point(partner === null ? [] : [partner]);
    },
    paint: (theme) => strip.paint(theme),
  };
}
