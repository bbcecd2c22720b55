// The two buttons that save what is seen.
import { button } from "./dom";

export type Format = "svg" | "png";

export function saveButtons(
  what: string,
  save: (format: Format) => void,
  signal: AbortSignal,
): HTMLButtonElement[] {
  return (["svg", "png"] as const).map((format) => {
    const title = `Save ${what} as ${format.toUpperCase()}`;
    return button(
      format.toUpperCase(),
      { class: "pc-button pc-quiet pc-save", title, "aria-label": title },
      () => save(format),
      signal,
    );
  });
}
