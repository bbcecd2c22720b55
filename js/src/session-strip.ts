// The session's prompt and its stack of interventions, in a view whose own work runs without them.
import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import type { Frame } from "./frame";
import type { MaximizerPicture } from "./maximizer-picture";
import type { MaximizerState } from "./messages";
import { prompt } from "./prompt";
import { keyItem, showStack, stackOf, stackSection } from "./stack-section";

export interface SessionStrip {
  element: HTMLElement;
  update(picture: MaximizerPicture, dead: boolean): void;
  paint(theme: Theme): void;
  /** A row's edit was refused. */
  refuse(key: number, sentence: string): void;
  /** A key that empties the stack was pressed; false where there is none. */
  reset(): boolean;
}

export function sessionStrip(signal: AbortSignal, frame: Frame): SessionStrip {
  const { requests, soon } = frame;
  const text = prompt(signal, {
    run: (typed, final) => requests.ask({ kind: "prompt", text: typed, final }),
    onSelect: soon,
  });
  const rows = stackOf(signal, frame, () => text.strip.selected());
  let free: string | null = null;
  const hold = button(
    "hold",
    {
      class: "pc-button pc-hold",
      "data-live": true,
      title: "Put the unit into the stack, at the value that it has at the prompt's last token",
    },
    () => {
      if (free !== null) frame.act({ kind: "add", address: free });
    },
    signal,
  );
  const empty = h(
    "p",
    { class: "pc-note pc-first" },
    "Nothing in the stack: hold the unit to see what it does to this prompt.",
  );
  const stacked = stackSection(signal, frame, rows, empty);
  const note = h("p", { class: "pc-note pc-apart" });
  const element = h(
    "section",
    { class: "pc-part pc-session", "aria-label": "The session's prompt and stack" },
    h(
      "div",
      { class: "pc-line pc-column-head" },
      h("h3", { class: "pc-title" }, "in the session"),
      hold,
    ),
    text.element,
    note,
    stacked.element,
  );
  let state: MaximizerState | null = null;

  return {
    element,
    refuse: (key, sentence) => rows.refuse(key, sentence),
    reset() {
      if ((state?.strip?.rows.length ?? 0) === 0) return false;
      frame.act({ kind: "reset" });
      return true;
    },
    paint(theme) {
      text.paint(theme);
      rows.paint(theme);
      stacked.legend(keyItem("control", "random control"));
    },
    update(picture, dead) {
      state = picture.state;
      const strip = state?.strip ?? null;
      set(element, { hidden: strip === null });
      if (state === null || strip === null) return;
      const { tokens } = state;
      text.update({ ...strip, tokens }, null, true);
      showStack(rows, stacked, picture.stack, picture.revision, { ...strip, tokens }, !dead);
      free = unheld(state);
      say(hold, `hold ${free ?? ""}`);
      set(hold, { hidden: free === null });
      set(note, { hidden: strip.rows.length === 0 });
      const on = strip.metric === "" ? "" : ` Their effects are on ${strip.metric}.`;
      say(note, `Searches and all else above run on the model without these rows.${on}`);
    },
  };
}

/** The first unit that is maximised and has no row; null where each has one, or can have none. */
function unheld(state: MaximizerState): string | null {
  const there = new Set(state.strip?.rows.map((row) => row.address));
  for (const { address } of state.terms) {
    if (address.startsWith("logits[")) continue; // what is predicted cannot be held
    if (!there.has(address.split("@", 1)[0] ?? address)) return address;
  }
  return null;
}
