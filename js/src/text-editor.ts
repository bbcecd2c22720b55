// A text typed into a box that opens where it is needed: Enter takes it, Esc leaves it.
import { button, h } from "./dom";

export interface TextEditor {
  /** Hidden until its owner shows it. */
  element: HTMLElement;
  /** Puts a text in, ready to be typed over. */
  open(text: string): void;
}

export interface TextEditorOptions {
  /** What the box is called. */
  label: string;
  placeholder: string;
  /** "compare", "compares". */
  doing: readonly [todo: string, does: string];
  take(text: string): void;
  cancel(): void;
}

export function textEditor(signal: AbortSignal, options: TextEditorOptions): TextEditor {
  const { label, placeholder, doing, take, cancel } = options;
  const box = h("textarea", {
    class: "pc-input pc-textarea",
    rows: 2,
    "aria-label": label,
    placeholder,
    spellcheck: "false",
    "data-live": true,
  });
  const element = h(
    "div",
    { class: "pc-editor", hidden: true },
    box,
    h(
      "div",
      { class: "pc-line" },
      button(doing[0], { "data-live": true }, () => take(box.value), signal),
      button("cancel", { class: "pc-button pc-quiet" }, () => cancel(), signal),
      h("span", { class: "pc-muted" }, `Enter ${doing[1]}, Esc cancels`),
    ),
  );
  box.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) take(box.value);
      else if (event.key === "Escape") cancel();
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
    { signal },
  );
  return {
    element,
    open(text) {
      box.value = text;
      box.focus();
      box.select();
    },
  };
}
