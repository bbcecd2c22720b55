// What is put in the place of a component's output, as a choice.
import type { Replacement } from "./circuit-picture";
import { select, set } from "./dom";

const REPLACEMENTS: readonly (readonly [Replacement, string, string])[] = [
  ["mean", "its mean", "Its mean over the reference texts"],
  ["zero", "zero", "Nothing"],
  ["resample", "resampled", "Its value at a random position of the reference texts"],
  ["corrupt", "corrupt", "Its value on the corrupt prompt"],
];

export interface ReplacementChoice {
  element: HTMLSelectElement;
  /** `refused` says why there is no corrupt value; null where there is. */
  update(how: Replacement, refused: string | null): void;
}

export function replacements(
  signal: AbortSignal,
  name: string,
  choose: (how: Replacement) => void,
): ReplacementChoice {
  const element = select(
    REPLACEMENTS.map(([value, label]) => [value, label] as const),
    { "aria-label": name, "data-live": true },
    (value) => choose(value as Replacement),
    signal,
  );
  return {
    element,
    update(how, refused) {
      for (const option of element.options) {
        const why = option.value === "corrupt" ? refused : null;
        option.disabled = why !== null;
        option.title = why ?? REPLACEMENTS.find(([value]) => value === option.value)?.[2] ?? "";
      }
      element.value = how;
      set(element, { title: refused === null ? null : `No corrupt values: ${refused}` });
    },
  };
}
