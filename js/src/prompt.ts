// The prompt: tokens to look at, a text to edit. A view that follows what is typed shows both.

import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { count } from "./format";
import type { Result, State } from "./messages";
import { type TokenStrip, tokenStrip } from "./tokens";

type Prompted = Pick<State, "prompt" | "tokens" | "max_tokens">;

export interface Prompt {
  element: HTMLElement;
  strip: TokenStrip;
  update(
    state: Prompted,
    moved: Float32Array | null,
    settled: boolean,
    movedAs?: Result["moved_as"],
  ): void;
  paint(theme: Theme): void;
}

export interface PromptActions {
  /** Runs a text; `final` is false while it is being typed. */
  run(text: string, final: boolean): Promise<unknown>;
  onSelect(): void;
  onHover?(position: number | null): void;
}

/** How long nobody types before a text that is followed live is sent, in milliseconds. */
export const PAUSE = 400;

/** `live`: what is typed runs after a pause, and the tokens stay in sight. */
export function prompt(
  signal: AbortSignal,
  actions: PromptActions,
  { live = false, pause = PAUSE }: { live?: boolean; pause?: number } = {},
): Prompt {
  const strip = tokenStrip(signal, {
    select: actions.onSelect,
    ...(actions.onHover && { hover: actions.onHover }),
  });
  const edit = button(
    "edit",
    { class: "pc-button pc-quiet pc-edit", "data-live": true, "aria-expanded": "false" },
    () => (editor.hidden ? open() : finish()),
    signal,
  );
  const box = h("textarea", {
    class: "pc-input pc-textarea",
    rows: 3,
    "aria-label": "Prompt",
    spellcheck: "false",
    "data-live": true,
  });
  const hint = h("span", { class: "pc-muted" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const apply = button(live ? "done" : "apply", { "data-live": true }, () => finish(), signal);
  const cancel = button("cancel", { class: "pc-button pc-quiet" }, () => giveUp(), signal);
  const editor = h(
    "div",
    { class: "pc-editor", hidden: true },
    box,
    error,
    h("div", { class: "pc-line" }, apply, cancel, hint),
  );
  const looking = h("div", { class: "pc-looking" }, strip.element, edit);
  const element = h("section", { class: "pc-prompt", "aria-label": "Prompt" }, looking, editor);
  let state: Prompted | null = null;
  let typing: ReturnType<typeof setTimeout> | undefined;
  /** The text before it was edited, and the last one that was sent since. */
  let began = "";
  let last = { text: "", final: true };
  /** One text is on its way at a time; of those typed meanwhile only the newest goes after it. */
  let onItsWay = false;
  let waiting = false;
  signal.addEventListener("abort", () => clearTimeout(typing), { once: true });

  box.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) finish();
      else if (event.key === "Escape") giveUp();
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
    { signal },
  );
  if (live) {
    box.addEventListener(
      "input",
      () => {
        refuse("");
        clearTimeout(typing);
        typing = setTimeout(() => void follow(), pause);
      },
      { signal },
    );
    // Whoever leaves the text for something else has typed it.
    box.addEventListener(
      "blur",
      () => {
        if (!editor.hidden && (box.value !== last.text || !last.final)) void send(box.value);
      },
      { signal },
    );
  }

  function open(): void {
    if (state === null || state.prompt === null) return;
    began = state.prompt;
    last = { text: began, final: true };
    box.value = began;
    refuse("");
    looking.hidden = !live;
    editor.hidden = false;
    set(edit, { "aria-expanded": "true" });
    box.focus();
  }
  function close(): void {
    stopTyping();
    editor.hidden = true;
    looking.hidden = false;
    set(edit, { "aria-expanded": "false" });
    edit.focus();
  }
  function refuse(sentence: string): void {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
    set(box, { "aria-invalid": sentence === "" ? null : "true" });
  }
  function stopTyping(): void {
    clearTimeout(typing);
    typing = undefined;
  }

  async function follow(): Promise<void> {
    typing = undefined;
    if (onItsWay) {
      waiting = true;
      return;
    }
    const text = box.value;
    if (text === "" || text === last.text) return;
    onItsWay = true;
    last = { text, final: false };
    try {
      await actions.run(text, false);
      refuse("");
    } catch (refused) {
      refuse((refused as Error).message);
    }
    onItsWay = false;
    if (waiting && !editor.hidden) {
      waiting = false;
      void follow();
    }
  }

  /** A text for good; false when it was refused. */
  async function send(text: string): Promise<boolean> {
    stopTyping();
    waiting = false;
    if (text === "") {
      refuse("The prompt is empty; type at least one word.");
      return false;
    }
    last = { text, final: true };
    try {
      await actions.run(text, true);
      refuse("");
      return true;
    } catch (refused) {
      refuse((refused as Error).message);
      return false;
    }
  }

  function finish(): void {
    const known = live && last.final && box.value === last.text && error.hidden;
    if (known) close();
    else void send(box.value).then((taken) => (taken ? close() : undefined));
  }

  /** Everything as it was before. */
  function giveUp(): void {
    const back = last.text !== began || !last.final;
    close();
    if (back) void send(began);
  }

  return {
    element,
    strip,
    update(next, moved, settled, movedAs = "kl") {
      state = next;
      strip.update(next.tokens, moved, settled, movedAs);
      const editable = next.prompt !== null;
      set(edit, {
        "data-off": !editable,
        title: editable
          ? "Edit the prompt"
          : "This session was given token ids, so there is no text to edit",
      });
      const ways = live
        ? "runs while you type · Enter is done, Esc takes it back"
        : "Enter applies, Shift+Enter breaks the line, Esc cancels";
      say(hint, `${ways} · ${count(next.tokens.length, "token")} of ${next.max_tokens} now`);
    },
    paint: (theme) => strip.paint(theme),
  };
}
