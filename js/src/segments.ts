// A few choices side by side, of which one holds: radio buttons that look like one control.
import { h, set } from "./dom";

export interface Choice<Value extends string> {
  value: Value;
  label: string;
  /** What it means. */
  title: string;
}

export interface Segments<Value extends string> {
  element: HTMLElement;
  /** `refused` says in a sentence why a choice cannot be had now. */
  update(value: Value, refused?: Partial<Record<Value, string | null>>): void;
}

/** `live`: the choices need a kernel. */
export function segments<Value extends string>(
  name: string,
  choices: readonly Choice<Value>[],
  choose: (value: Value) => void,
  { signal, live = true }: { signal: AbortSignal; live?: boolean },
): Segments<Value> {
  const group = `pc-${Math.floor(Math.random() * 1e9)}`;
  const parts = choices.map((choice) => {
    const input = h("input", {
      type: "radio",
      name: group,
      value: choice.value,
      "data-live": live,
    });
    const element = h(
      "label",
      { class: "pc-segment", title: choice.title },
      input,
      h("span", {}, choice.label),
    );
    return { choice, input, element };
  });
  const element = h(
    "span",
    { class: "pc-segments", role: "radiogroup", "aria-label": name },
    ...parts.map((part) => part.element),
  );
  element.addEventListener(
    "change",
    (event) => choose((event.target as HTMLInputElement).value as Value),
    { signal },
  );
  // An arrow key chooses, and is nobody else's.
  element.addEventListener(
    "keydown",
    (event) => {
      if (event.key.startsWith("Arrow") && !event.altKey) event.stopPropagation();
    },
    { signal },
  );
  return {
    element,
    update(value, refused = {}) {
      for (const { choice, input, element: part } of parts) {
        const why = refused[choice.value] ?? null;
        set(part, { title: why === null ? choice.title : `${choice.label}: ${why}` });
        set(part, { "data-refused": why !== null });
        set(input, { "data-off": why !== null });
        if (!live) input.disabled = why !== null;
        input.checked = choice.value === value;
      }
    },
  };
}
