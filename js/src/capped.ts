// A list that begins with its first few, says so, and shows all on request.
import { button, h, say, set } from "./dom";

export interface Capped {
  /** The sentence with its button; hidden while everything is shown. */
  element: HTMLElement;
  /** The items to show; `total` says of how many they are the first, where that is more. */
  take<Item>(items: readonly Item[], total?: number): readonly Item[];
}

/** `what` is what is listed, "components"; `first` says which those are: "the first", "the largest". */
export function capped(
  signal: AbortSignal,
  what: string,
  most: number,
  changed: () => void,
  first: () => string = () => "the first",
): Capped {
  let all = false;
  const words = h("span");
  const more = button(
    "",
    { class: "pc-button pc-quiet pc-more" },
    () => {
      all = !all;
      changed();
    },
    signal,
  );
  const element = h(
    "p",
    { class: "pc-line pc-muted pc-small-print pc-capped", hidden: true },
    words,
    more,
  );
  return {
    element,
    take(items, total = items.length) {
      const over = items.length > most || total > items.length;
      const listed = all ? items.length : Math.min(most, items.length);
      set(element, { hidden: !over });
      const number = (each: number) => each.toLocaleString("en-US");
      say(
        words,
        listed === total
          ? `All ${number(total)} ${what} are listed.`
          : `Of ${number(total)} ${what}, ${first()} ${number(listed)} are listed.`,
      );
      say(more, `list ${number(all ? most : items.length)}`);
      set(more, { hidden: items.length <= most });
      return items.slice(0, listed);
    },
  };
}
