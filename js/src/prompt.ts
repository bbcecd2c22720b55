// The prompt: tokens to look at, a text to edit.

import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { count } from "./format";
import type { State } from "./messages";
import { type TokenStrip, tokenStrip } from "./tokens";

export interface Prompt {
  element: HTMLElement;
  strip: TokenStrip;
  update(state: State, moved: Float32Array | null, settled: boolean): void;
  paint(theme: Theme): void;
}

export function prompt(
  signal: AbortSignal,
  actions: { run(text: string): Promise<unknown>; onSelect(): void },
): Prompt {
  const strip = tokenStrip(signal, actions.onSelect);
  const edit = button(
    "edit",
    { class: "pc-button pc-quiet pc-edit", "data-live": true },
    open,
    signal,
  );
  const box = h("textarea", {
    class: "pc-input pc-textarea",
    rows: 3,
    "aria-label": "Prompt",
    spellcheck: "false",
  });
  const hint = h("span", { class: "pc-muted" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const apply = button("apply", {}, () => void send(), signal);
  const cancel = button("cancel", { class: "pc-button pc-quiet" }, close, signal);
  const editor = h(
    "div",
    { class: "pc-editor", hidden: true },
    box,
    error,
    h("div", { class: "pc-line" }, apply, cancel, hint),
  );
  const looking = h("div", { class: "pc-looking" }, strip.element, edit);
  const element = h("section", { class: "pc-prompt", "aria-label": "Prompt" }, looking, editor);
  let state: State | null = null;

  box.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) void send();
      else if (event.key === "Escape") close();
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
    { signal },
  );

  function open(): void {
    if (state === null || state.prompt === null) return;
    box.value = state.prompt;
    refuse("");
    looking.hidden = true;
    editor.hidden = false;
    box.focus();
  }
  function close(): void {
    editor.hidden = true;
    looking.hidden = false;
    edit.focus();
  }
  function refuse(sentence: string): void {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
    set(box, { "aria-invalid": sentence === "" ? null : "true" });
  }
  async function send(): Promise<void> {
    const text = box.value;
    if (text === "") {
      refuse("The prompt is empty; type at least one word.");
      return;
    }
    try {
      await actions.run(text);
      refuse("");
      close();
    } catch (refused) {
      refuse((refused as Error).message);
    }
  }

  return {
    element,
    strip,
    update(next, moved, settled) {
      state = next;
      strip.update(next.tokens, moved, settled);
      const editable = next.prompt !== null;
      set(edit, {
        "data-never": !editable,
        title: editable
          ? "Edit the prompt"
          : "This session was given token ids, so there is no text to edit",
      });
      say(
        hint,
        `Enter applies, Shift+Enter breaks the line, Esc cancels · ${count(next.tokens.length, "token")} of ${next.max_tokens} now`,
      );
    },
    paint: (theme) => strip.paint(theme),
  };
}
