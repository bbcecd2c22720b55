// A circuit as a file, and back: saved and opened as JSON, copied as code.
import { button, h } from "./dom";
import { codeCopy, type Frame } from "./frame";
import { download } from "./svg";

export interface CircuitFile {
  /** The buttons. */
  element: HTMLElement;
  /** The code, where a page may not copy. */
  listing: HTMLElement;
}

export function circuitFile(
  signal: AbortSignal,
  frame: Pick<Frame, "requests" | "announce">,
  refuse: (sentence: string) => void,
): CircuitFile {
  const { requests, announce } = frame;
  const save = button(
    "save",
    { "data-live": true, title: "Save the circuit as a JSON file" },
    () => {
      requests.ask({ kind: "export", format: "json" }).then(
        ({ name, text }) => {
          refuse("");
          download(name, text, "application/json");
          announce(`Saved ${name}`);
        },
        (refused: Error) => refuse(refused.message),
      );
    },
    signal,
  );
  const chosen = h("input", {
    type: "file",
    accept: ".json,application/json",
    class: "pc-hidden",
    tabindex: -1,
    "aria-label": "A circuit's file",
  });
  const open = button(
    "open",
    { "data-live": true, title: "Take a circuit from a file that “save” wrote" },
    () => chosen.click(),
    signal,
  );
  chosen.addEventListener("change", () => void read(), { signal });
  const code = codeCopy(
    signal,
    { ...frame, complain: refuse },
    {
      ask: async () => (await requests.ask({ kind: "export", format: "code" })).text,
      title: "Python that makes the circuit again",
      name: "The circuit as Python",
      below: "the circuit",
    },
  );

  async function read(): Promise<void> {
    const [file] = chosen.files ?? [];
    if (file === undefined) return;
    try {
      await requests.ask({ kind: "import", text: await file.text() });
      refuse("");
      announce(`Opened ${file.name}`);
    } catch (refused) {
      refuse((refused as Error).message);
    }
    chosen.value = ""; // the same file again is news
  }

  return {
    element: h("span", { class: "pc-group pc-circuit-file" }, open, save, code.button, chosen),
    listing: code.listing,
  };
}
