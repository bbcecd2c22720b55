// A text field with suggestions from Python, after the ARIA combobox pattern.
import { childSignal, h, set } from "./dom";

export interface Suggestion {
  value: string;
  /** What is shown; plain text, or nodes made from text. */
  content: (Node | string)[];
}

export interface Combobox {
  element: HTMLElement;
  input: HTMLInputElement;
  clear(): void;
  close(): void;
}

export interface ComboboxOptions {
  name: string;
  placeholder: string;
  suggest(typed: string): Promise<Suggestion[]>;
  /** Something was chosen from the list, or typed and entered. */
  take(value: string, fromList: boolean): void;
  /** Whether something must be chosen from the list (otherwise what is typed counts too). */
  strict?: boolean;
  signal: AbortSignal;
}

let boxes = 0;

export function combobox(options: ComboboxOptions): Combobox {
  const { suggest, take, signal } = options;
  boxes += 1;
  const id = `pc-list-${boxes}-${Math.floor(Math.random() * 1e9)}`;
  const input = h("input", {
    type: "text",
    class: "pc-input",
    role: "combobox",
    "aria-label": options.name,
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": id,
    placeholder: options.placeholder,
    spellcheck: "false",
    autocomplete: "off",
    autocapitalize: "off",
    "data-live": true,
  });
  const list = h("div", { class: "pc-list", role: "listbox", id, "aria-label": options.name });
  list.hidden = true;
  const element = h("div", { class: "pc-combobox" }, input, list);
  let shown: Suggestion[] = [];
  let active = -1;
  let asked = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const mark = (next: number) => {
    active = next;
    [...list.children].forEach((option, i) => {
      set(option, { "aria-selected": i === active ? "true" : "false" });
      if (i === active) option.scrollIntoView({ block: "nearest" });
    });
    set(input, { "aria-activedescendant": active >= 0 ? `${id}-${active}` : null });
  };
  const close = () => {
    asked += 1;
    clearTimeout(timer);
    list.hidden = true;
    set(input, { "aria-expanded": "false", "aria-activedescendant": null });
    active = -1;
  };
  const open = (suggestions: Suggestion[]) => {
    shown = suggestions;
    list.replaceChildren(
      ...suggestions.map(({ content }, i) =>
        h("div", { class: "pc-option", role: "option", id: `${id}-${i}` }, ...content),
      ),
    );
    list.hidden = suggestions.length === 0;
    set(input, { "aria-expanded": suggestions.length > 0 ? "true" : "false" });
    mark(-1);
  };
  const ask = () => {
    asked += 1;
    const mine = asked;
    suggest(input.value).then(
      (suggestions) => {
        // Only the newest question's answer counts, and only while someone waits for it.
        if (mine === asked && !signal.aborted) open(suggestions);
      },
      () => (mine === asked ? close() : undefined),
    );
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, 60);
  };
  const choose = (index: number) => {
    const chosen = shown[index];
    if (chosen === undefined) return;
    close();
    take(chosen.value, true);
  };

  input.addEventListener("input", soon, { signal });
  input.addEventListener("focus", soon, { signal });
  input.addEventListener("blur", close, { signal });
  input.addEventListener(
    "keydown",
    (event) => {
      const { key } = event;
      if (key === "ArrowDown" && list.hidden) ask();
      else if (key === "ArrowDown") mark(Math.min(shown.length - 1, active + 1));
      else if (key === "ArrowUp" && !list.hidden) mark(Math.max(-1, active - 1));
      else if (key === "Enter") {
        if (!list.hidden && active >= 0) choose(active);
        else if (options.strict) choose(0);
        else if (input.value.trim() !== "") {
          close();
          take(input.value.trim(), false);
        }
      } else if (key === "Tab" && !list.hidden && active >= 0) {
        input.value = shown[active]?.value ?? input.value;
        close();
        return;
      } else if (key === "Escape" && !list.hidden) {
        close();
        event.stopPropagation();
      } else return;
      event.preventDefault();
    },
    { signal },
  );
  // Not "click": the field would lose its focus, and the list with it, before one arrives.
  list.addEventListener(
    "pointerdown",
    (event) => {
      event.preventDefault();
      const option = (event.target as Element).closest(".pc-option");
      if (option !== null) choose([...list.children].indexOf(option));
    },
    { signal },
  );
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });

  return {
    element,
    input,
    clear() {
      input.value = "";
      close();
    },
    close,
  };
}

/** A field that appears in the place of a button and goes when it is done. */
export function inPlace(
  opener: HTMLElement,
  box: Combobox,
  parent: AbortSignal,
): { open(): void; close(): void } {
  box.element.hidden = true;
  let last: ReturnType<typeof childSignal> | null = null;
  const close = () => {
    last?.abort();
    last = null;
    box.clear();
    box.element.hidden = true;
    opener.hidden = false;
  };
  return {
    close,
    open() {
      opener.hidden = true;
      box.element.hidden = false;
      box.input.focus();
      last = childSignal(parent);
      const { signal } = last;
      box.input.addEventListener("blur", close, { signal });
      box.input.addEventListener(
        "keydown",
        (event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          close();
          opener.focus();
        },
        { signal },
      );
    },
  };
}
