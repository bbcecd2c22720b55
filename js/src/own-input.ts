// The user's own input on the same axis: a text, numbers, or a picture, which is made small in the
// page (nothing but what the model takes is sent) and goes up in pieces.
import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { exampleList } from "./example-list";
import { exact, short } from "./format";
import { type MaximizerPicture, refusalOf } from "./maximizer-picture";

export interface OwnInput {
  element: HTMLElement;
  update(picture: MaximizerPicture, theme: Theme): void;
  refuse(sentence: string): void;
}

export interface OwnActions {
  text(text: string): void;
  picture(file: PictureFile): Promise<void>;
  clear(): void;
}

/** A picture as it is sent: base64 in pieces. */
export interface PictureFile {
  name: string;
  pieces: readonly string[];
}

const PIECE = 48 * 1024; // characters of base64, a multiple of four
const LARGEST = 512; // pixels of the shorter side, where the model takes any size

export function ownInput(signal: AbortSignal, actions: OwnActions): OwnInput {
  const value = h("span", { class: "pc-number pc-value" });
  const box = h("textarea", {
    class: "pc-input pc-textarea",
    rows: 3,
    "aria-label": "Your own text",
    placeholder: "a text of your own",
    spellcheck: "false",
    "data-live": true,
  });
  const measure = button(
    "measure",
    { "data-live": true, title: "Measure it (Enter)" },
    () => actions.text(box.value),
    signal,
  );
  const texts = h("div", { class: "pc-own-text" }, box, h("div", { class: "pc-line" }, measure));
  const file = h("input", {
    type: "file",
    accept: "image/png,image/jpeg,image/webp,image/gif,image/*",
    class: "pc-hidden",
    tabindex: -1,
    "aria-hidden": "true",
  });
  const choose = button("choose a picture", { "data-live": true }, () => file.click(), signal);
  const zone = h(
    "div",
    { class: "pc-drop" },
    choose,
    h("span", { class: "pc-muted" }, "or drop or paste one here"),
    file,
  );
  const clear = button(
    "×",
    {
      class: "pc-button pc-quiet pc-remove",
      "data-live": true,
      "aria-label": "Take your own input away",
    },
    actions.clear,
    signal,
  );
  const list = exampleList(signal, "Your own input", null);
  const note = h("p", { class: "pc-muted pc-small-print" });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const why = h("p", { class: "pc-note", hidden: true });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const element = h(
    "section",
    { class: "pc-part pc-own", "aria-label": "Your own input" },
    run,
    h(
      "div",
      { class: "pc-line pc-column-head" },
      h("h3", { class: "pc-title" }, "your own"),
      clear,
      value,
    ),
    why,
    texts,
    zone,
    list.element,
    note,
    error,
  );
  let side = LARGEST;
  let sending = false;

  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  };
  const send = async (given: Blob | null | undefined, name: string) => {
    if (given === null || given === undefined || element.closest("[data-dead]") !== null) return;
    refuse("");
    sending = true;
    set(run, { hidden: false });
    try {
      await actions.picture(await smaller(given, name, side));
    } catch (refused) {
      refuse((refused as Error).message);
    }
    sending = false;
    set(run, { hidden: true });
  };
  box.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      if (box.dataset.lines !== undefined) return;
      event.preventDefault();
      actions.text(box.value);
    },
    { signal },
  );
  file.addEventListener(
    "change",
    () => {
      const [chosen] = file.files ?? [];
      void send(chosen, chosen?.name ?? "");
      file.value = "";
    },
    { signal },
  );
  const dropped = (event: DragEvent) => {
    if (zone.hidden || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    set(zone, { "data-over": event.type === "dragover" });
    if (event.type !== "drop") return;
    const [given] = event.dataTransfer.files;
    void send(given, given?.name ?? "");
  };
  for (const type of ["dragover", "drop", "dragleave"] as const) {
    element.addEventListener(type, dropped, { signal });
  }
  element.addEventListener(
    "paste",
    (event) => {
      const given = [...(event.clipboardData?.files ?? [])].find((each) =>
        each.type.startsWith("image/"),
      );
      if (zone.hidden || given === undefined) return;
      event.preventDefault();
      void send(given, "pasted picture");
    },
    { signal },
  );

  return {
    element,
    refuse,
    update(picture, theme) {
      const { state, own, examples } = picture;
      if (state === null) return;
      const refusal = refusalOf(picture, "own");
      const images = state.family === "image";
      const words = state.family === "prompt";
      set(why, { hidden: refusal === null });
      say(why, refusal ?? "");
      set(texts, { hidden: images || refusal !== null });
      set(zone, { hidden: !images || refusal !== null });
      set(box, {
        "data-lines": !words,
        "aria-label": words ? "Your own text" : "Your own numbers, one row a line",
        placeholder: words ? "a text of your own" : "numbers, one row a line",
      });
      const sizes = state.shape.slice(1).filter((each) => each !== null);
      side = sizes.length > 0 ? Math.max(...sizes) : Math.max(LARGEST, state.options?.size ?? 0);
      const stale = own !== null && own.objective !== null && own.objective !== state.objective;
      set(element, { "data-stale": stale });
      const scale = examples ?? {
        low: Math.min(0, ...(own?.activations ?? [0])),
        high: Math.max(own?.activation ?? 1, ...(own?.activations ?? [0])),
      };
      list.update(own === null ? [] : [own], scale, theme);
      set(clear, { hidden: own === null });
      say(value, own === null ? "" : short(own.activation));
      set(value, { title: own === null ? null : exact(own.activation) });
      say(note, stale ? "Of another unit; measure it again." : "");
      if (!sending) set(run, { hidden: !picture.progress.has("own") });
    },
  };
}

/** A picture no larger than it has to be: its shorter side at most `side` pixels. */
export async function smaller(file: Blob, name: string, side: number): Promise<PictureFile> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(
      `${name === "" ? "The file" : `“${name}”`} is no picture that this browser can read; choose a PNG, a JPEG or a WebP.`,
    );
  }
  const by = Math.min(1, side / Math.min(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * by));
  canvas.height = Math.max(1, Math.round(bitmap.height * by));
  const pen = canvas.getContext("2d");
  if (pen === null) throw new Error("This browser gives no canvas to draw on.");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  // Small ones stay exact; of large photographs nobody sees the difference.
  const exactly = canvas.width * canvas.height <= 256 * 256;
  const url = canvas.toDataURL(exactly ? "image/png" : "image/jpeg", 0.95);
  const data = url.slice(url.indexOf(",") + 1);
  const pieces: string[] = [];
  for (let at = 0; at < data.length; at += PIECE) pieces.push(data.slice(at, at + PIECE));
  return { name: name.slice(0, 200) || "picture", pieces };
}
