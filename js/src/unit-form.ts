// What is maximised: a unit, or a sum of weighted ones, a row each. An address that does not exist
// is refused beside it, and whoever starts waits for what was typed last to be taken.
//
// Classes: .pc-unit-form > .pc-term (input.pc-weight, .pc-combobox, select, .pc-term-label, ×)
import { acceptAddresses } from "./address";
import { combobox, type Suggestion } from "./combobox";
import { button, childSignal, h, keyed, say, select, set } from "./dom";
import { parse, setting } from "./format";
import type { MaximizerState, TermUp } from "./messages";

type Term = MaximizerState["terms"][number];
type How = NonNullable<Term["how"]>;

export interface UnitForm {
  element: HTMLElement;
  update(state: MaximizerState): void;
  refuse(sentence: string): void;
  /** Sends what is typed and not yet taken; false when it was refused. */
  settled(): Promise<boolean>;
}

export interface UnitFormActions {
  complete(prefix: string): Promise<{ items: string[]; labels: string[] | null }>;
  /** Rejects with a sentence. */
  aim(terms: TermUp[]): Promise<unknown>;
  changed(): void;
}

const HOWS: Record<How, readonly [label: string, title: string]> = {
  channel: ["channel", "The mean over all its positions"],
  centre: ["centre", "Its middle position"],
  peak: ["peak", "Its largest position"],
  last: ["last token", "Its value at the last token"],
};

interface Row {
  element: HTMLElement;
  dispose(): void;
  update(term: Term, state: MaximizerState): void;
  /** What its boxes say; null while it names nothing. */
  read(): TermUp | null;
  input: HTMLInputElement;
}

export function unitForm(signal: AbortSignal, actions: UnitFormActions): UnitForm {
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const fixed = h("span", { class: "pc-fixed-objective" });
  const fixedWhy = h("span", { class: "pc-muted pc-small-print" });
  const fixedLine = h("div", { class: "pc-line", hidden: true }, fixed, fixedWhy);
  const list = h("div", { class: "pc-terms", role: "group", "aria-label": "What is maximised" });
  const add = button(
    "+ term",
    {
      class: "pc-button pc-quiet pc-add-term",
      "data-live": true,
      title: "Add another unit to the sum; a negative weight takes it off",
    },
    () => {
      adding = true;
      show();
      rows.get(terms.length)?.input.focus();
    },
    signal,
  );
  const element = h("div", { class: "pc-unit-form" }, fixedLine, list, error);
  const rows = new Map<string | number, Row>();
  let state: MaximizerState | null = null;
  let terms: readonly Term[] = [];
  let adding = false;
  let going: Promise<boolean> = Promise.resolve(true);

  const refuse = (sentence: string) => {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  };

  const send = (): Promise<boolean> => {
    const wanted = [...rows.values()].map((row) => row.read()).filter((each) => each !== null);
    if (wanted.length === 0) {
      show();
      return Promise.resolve(true);
    }
    const now = terms.map(({ address, weight, how }) => ({ address, weight, how }));
    if (JSON.stringify(wanted) === JSON.stringify(now)) {
      refuse("");
      return Promise.resolve(true);
    }
    going = actions.aim(wanted).then(
      () => {
        refuse("");
        adding = false;
        actions.changed();
        return true;
      },
      (refused: Error) => {
        refuse(refused.message);
        actions.changed();
        return false;
      },
    );
    return going;
  };

  const suggest = async (prefix: string): Promise<Suggestion[]> => {
    const { items, labels } = await actions.complete(prefix);
    return items.map((value, i) => ({
      value,
      content: [
        h("span", {}, value),
        h("span", { class: "pc-muted pc-option-label" }, labels?.[i] ?? ""),
      ],
    }));
  };

  const row = (index: number): Row => {
    const own = childSignal(signal);
    let term: Term | null = null;
    const weight = h("input", {
      type: "text",
      inputmode: "decimal",
      class: "pc-input pc-small pc-number pc-weight",
      "aria-label": `Weight of unit ${index + 1}`,
      autocomplete: "off",
      "data-live": true,
    });
    const times = h("span", { class: "pc-muted", "aria-hidden": "true" }, "×");
    const box = combobox({
      name: index === 0 ? "Unit" : `Unit ${index + 1}`,
      placeholder: "a unit's address",
      suggest,
      take(value) {
        box.input.value = value;
        void send();
      },
      signal: own.signal,
    });
    box.input.addEventListener(
      "blur",
      () => {
        if (box.input.value.trim() === "" && term !== null) box.input.value = term.address;
        else if (term !== null && box.input.value.trim() !== term.address) void send();
        else if (term === null && box.input.value.trim() !== "") void send();
      },
      { signal: own.signal },
    );
    box.input.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Escape" || term === null || box.input.value === term.address) return;
        box.input.value = term.address;
        refuse("");
        event.stopPropagation();
      },
      { signal: own.signal },
    );
    const how = select(
      [],
      { "aria-label": `Which number of unit ${index + 1}`, "data-live": true },
      () => void send(),
      own.signal,
    );
    const label = h("span", { class: "pc-term-label pc-muted" });
    const remove = button(
      "×",
      {
        class: "pc-button pc-quiet pc-remove",
        "data-live": true,
        "aria-label": `Remove unit ${index + 1}`,
        title: "Take this unit out of the sum",
      },
      () => {
        rows.delete(index);
        element.remove();
        own.abort();
        adding = false;
        void send().then(() => show());
      },
      own.signal,
    );
    for (const type of ["change", "keydown"] as const) {
      weight.addEventListener(
        type,
        (event) => {
          if (event instanceof KeyboardEvent && event.key !== "Enter") return;
          if (parse(weight.value) === null) {
            set(weight, { "aria-invalid": "true" });
            refuse("The weight is not a number; type one such as -0.5.");
            return;
          }
          set(weight, { "aria-invalid": null });
          void send();
        },
        { signal: own.signal },
      );
    }
    const element = h("div", { class: "pc-term" }, weight, times, box.element, how, label, remove);
    let hows = "";
    return {
      element,
      input: box.input,
      dispose: own.abort,
      update(next, now) {
        const many = terms.length + (adding ? 1 : 0) > 1;
        set(element, { "data-many": many });
        for (const part of [weight, times, remove]) set(part, { hidden: !many });
        if (now.hows.join() !== hows) {
          hows = now.hows.join();
          how.replaceChildren(
            ...now.hows.map((each) =>
              h("option", { value: each, title: HOWS[each][1] }, HOWS[each][0]),
            ),
          );
        }
        set(how, { hidden: now.hows.length < 2 || next.how === null });
        // What someone is typing into stays as it is.
        term = next;
        if (error.hidden && !box.input.matches(":focus")) box.input.value = next.address;
        if (error.hidden && !weight.matches(":focus")) weight.value = setting(next.weight);
        if (next.how !== null) how.value = next.how;
        set(how, { title: next.how === null ? null : HOWS[next.how][1] });
        say(label, next.label);
        set(label, { title: next.label });
      },
      read() {
        const address = box.input.value.trim();
        if (address === "") return null;
        const amount = weight.value === "" ? 1 : (parse(weight.value) ?? 1);
        // Another channel of the same part is taken alike; what else is named, in the usual way.
        const same = term !== null && partOf(address) === partOf(term.address);
        return { address, weight: amount, how: same ? (how.value as How) || null : null };
      },
    };
  };

  /** A row that names nothing yet. */
  const blank: Term = { address: "", weight: 1, how: null, label: "" };

  function show(): void {
    if (state === null) return;
    const now = state;
    set(fixedLine, { hidden: now.fixed === null });
    set(list, { hidden: now.fixed !== null });
    say(fixed, now.objective);
    say(fixedWhy, now.fixed ?? "");
    const shown = adding ? [...terms, blank] : terms;
    const parts = keyed(
      list,
      rows,
      shown.map((_, index) => index),
      (index) => index,
      row,
    );
    shown.forEach((term, index) => {
      parts[index]?.update(term, now);
    });
    parts.at(-1)?.element.append(add);
  }

  acceptAddresses(
    element,
    (address) => {
      const first = rows.get(0);
      if (first === undefined || state?.fixed !== null) return;
      first.input.value = address;
      void send();
    },
    signal,
  );

  return {
    element,
    refuse,
    async settled() {
      await going;
      return send();
    },
    update(next) {
      state = next;
      if (next.terms !== terms) {
        const more = next.terms.length > terms.length;
        terms = next.terms;
        if (more) adding = false;
        refuse("");
      }
      show();
    },
  };
}

/** What stands before the last colon: "_blocks.9" of "_blocks.9:c17". */
function partOf(address: string): string {
  const colon = address.lastIndexOf(":");
  return colon < 0 ? address.replace(/\d+$/, "") : address.slice(0, colon);
}
