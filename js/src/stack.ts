// The stack of interventions: one row each, in the order in which they apply.
import { onResize } from "./canvas";
import { LIGHT, type Theme } from "./colour";
import { type CurvePicture, drawCurve, readCurve } from "./curve";
import { button, childSignal, copy, focused, h, keyed, say, select, set } from "./dom";
import { effectCell, effectScale } from "./effect";
import { exact, parse, short, typed } from "./format";
import type { Effect, PromptToken, Row } from "./messages";
import type { EditGesture, Gesture } from "./requests";
import { fromUnit, hasUnit, sliderScale, spoken, toUnit, type Unit } from "./units";

export interface StackActions {
  /** Changes a row; `final` ends the gesture. */
  edit(edit: EditGesture): void;
  /** Sends a gesture; a refusal is shown beside row `key`. */
  act(gesture: Gesture, key: number): void;
  selectedTokens(): number[];
  /** Whether the row has edits that Python has not confirmed. */
  holds(key: number): boolean;
  /** Someone took or let go of a slider. */
  touched(): void;
  /** Something worth saying to who cannot see it. */
  announce(text: string): void;
}

export interface RowPicture {
  curve: CurvePicture["curve"];
  /** Whether the curve is of an earlier stack. */
  stale: boolean;
  /** Done and total of the curve that is being measured. */
  progress: { done: number; total: number } | null;
  effect: Effect | null;
  /** Whether an effect is on its way. */
  waiting: boolean;
}

export interface StackPicture {
  rows: readonly Row[];
  selected: number | null;
  tokens: readonly PromptToken[];
  of(key: number): RowPicture;
  effects: Iterable<Effect>;
  live: boolean;
}

export interface Stack {
  element: HTMLElement;
  /** The row whose slider is held down, if any. */
  dragging(): boolean;
  update(picture: StackPicture): void;
  paint(theme: Theme): void;
  refuse(key: number, sentence: string): void;
}

const OPERATIONS = [
  ["set", "set"],
  ["add", "add"],
  ["scale", "scale"],
  ["ablate", "ablate"],
] as const;
const HOW = [
  ["mean", "to mean"],
  ["zero", "to zero"],
  ["resample", "resample"],
] as const;
const KNOCKOUT_HOW = [
  ["renormalise", "renormalise"],
  ["zero", "to zero"],
  ["contrast", "second prompt's"],
] as const;
const UNITS: readonly (readonly [Unit, string, string])[] = [
  ["raw", "raw", "The activation as the model has it"],
  ["sd", "sd", "Standard deviations on the reference texts: from the mean for set, from 0 for add"],
  ["peak", "× max", "Multiples of the largest value observed on the prompt"],
];
const SELECTED = "@";
const POSITIONS = [
  ["", "all tokens"],
  ["-1", "last token"],
  [SELECTED, "selected tokens"],
  ["new", "generated only"],
  ["all", "all, BOS too"],
] as const;
const ROW_TYPE = "application/x-patchclamp-row";
/** Half the width of the slider's handle, in pixels at the normal type size (see the CSS). */
const INSET = 7;

export function stack(signal: AbortSignal, actions: StackActions): Stack {
  const list = h("ol", {
    class: "pc-rows",
    "aria-label": "Interventions, in the order they apply",
  });
  const rows = new Map<string | number, RowPart>();
  let picture: StackPicture | null = null;
  let theme = LIGHT;

  const move = (key: number, index: number) => {
    const last = (picture?.rows.length ?? 0) - 1;
    if (index < 0 || index > last) return;
    actions.act({ kind: "move", key, index }, key);
  };
  const indexOf = (key: number) => picture?.rows.findIndex((row) => row.key === key) ?? -1;

  list.addEventListener(
    "keydown",
    (event) => {
      const key = keyOf(event.target);
      if (key === null || !event.altKey) return;
      const way = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (way === undefined) return;
      event.preventDefault();
      move(key, indexOf(key) + way);
    },
    { signal },
  );
  list.addEventListener(
    "dragstart",
    (event) => {
      const key = keyOf(event.target);
      if (key === null || !(event.target as Element).classList.contains("pc-grip")) return;
      event.dataTransfer?.setData(ROW_TYPE, String(key));
      const element = rows.get(key)?.element;
      if (element) event.dataTransfer?.setDragImage(element, 8, 8);
    },
    { signal },
  );
  const clearMark = () => {
    for (const row of rows.values()) set(row.element, { "data-drop": null });
  };
  list.addEventListener(
    "dragover",
    (event) => {
      if (!event.dataTransfer?.types.includes(ROW_TYPE)) return;
      const over = keyOf(event.target);
      event.preventDefault();
      clearMark();
      const part = over === null ? undefined : rows.get(over);
      if (part) set(part.element, { "data-drop": below(event, part.element) ? "after" : "before" });
    },
    { signal },
  );
  list.addEventListener("dragend", clearMark, { signal });
  list.addEventListener("dragleave", clearMark, { signal });
  list.addEventListener(
    "drop",
    (event) => {
      const given = event.dataTransfer?.getData(ROW_TYPE);
      const over = keyOf(event.target);
      clearMark();
      if (!given || over === null) return;
      event.preventDefault();
      event.stopPropagation();
      const [from, to] = [indexOf(Number(given)), indexOf(over)];
      const part = rows.get(over);
      if (from < 0 || part === undefined) return;
      const slot = to + (below(event, part.element) ? 1 : 0);
      const index = slot > from ? slot - 1 : slot;
      if (index !== from) move(Number(given), index);
    },
    { signal },
  );

  return {
    element: list,
    dragging: () => [...rows.values()].some((row) => row.dragging()),
    update(next) {
      picture = next;
      const held = focused(list);
      const scale = effectScale(next.effects);
      const parts = keyed(
        list,
        rows,
        next.rows,
        (row) => row.key,
        (row) => rowPart(row, signal, actions),
      );
      for (const [i, row] of next.rows.entries()) parts[i]?.update(row, next, scale);
      // Moving an element takes its focus away; whoever moved it goes on moving it.
      if (held !== null && held !== focused(list) && list.contains(held)) {
        (held as HTMLElement).focus();
      }
      set(list, { hidden: next.rows.length === 0 });
    },
    paint(now) {
      theme = now;
      for (const row of rows.values()) row.paint(theme);
    },
    refuse(key, sentence) {
      rows.get(key)?.refuse(sentence);
    },
  };

  function keyOf(target: EventTarget | null): number | null {
    const element = target instanceof Element ? target.closest<HTMLElement>(".pc-row") : null;
    return element === null ? null : Number(element.dataset.key);
  }

  interface RowPart {
    element: HTMLElement;
    dispose(): void;
    dragging(): boolean;
    update(row: Row, picture: StackPicture, scale: number): void;
    paint(theme: Theme): void;
    refuse(sentence: string): void;
  }

  function rowPart(first: Row, parent: AbortSignal, actions: StackActions): RowPart {
    const { signal, abort } = childSignal(parent);
    let row = first;
    let shown: StackPicture | null = null;
    let scaleOfEffects = 1;
    let value = row.value;
    let unit: Unit = "raw";
    let pointerDown = false;
    let keyDown = false;
    let unfinished = false;
    let hover: number | null = null;
    let axis = sliderScale(row.range, row.value);
    const { key } = row;

    const grip = h(
      "button",
      { type: "button", class: "pc-grip", draggable: true, "data-live": true },
      h("span", { "aria-hidden": "true" }),
    );
    const on = h("input", { type: "checkbox", class: "pc-mute", "data-live": true });
    const address = button(
      "",
      { class: "pc-button pc-address" },
      () => {
        if (shown?.live === false) void copyIt();
        else actions.act({ kind: "select", key: shown?.selected === key ? null : key }, key);
      },
      signal,
    );
    const copyAddress = button(
      "copy",
      { class: "pc-button pc-quiet pc-copy" },
      () => void copyIt(),
      signal,
    );
    const massive = h(
      "span",
      {
        class: "pc-tag",
        title:
          "A massive-activation neuron: touching it wrecks every prediction, whatever it stands for",
      },
      "massive",
    );
    const operation = select(
      OPERATIONS,
      { "data-live": true },
      (op) => actions.edit({ key, op: op as NonNullable<EditGesture["op"]>, final: true }),
      signal,
    );
    const knocks = row.op === "knockout";
    const how = select(
      knocks ? KNOCKOUT_HOW : HOW,
      { "data-live": true, class: "pc-select pc-how" },
      (chosen) =>
        actions.edit({ key, how: chosen as NonNullable<EditGesture["how"]>, final: true }),
      signal,
    );
    const positions = select(
      POSITIONS,
      { "data-live": true, class: "pc-select pc-at" },
      choosePositions,
      signal,
    );
    const slider = h("input", { type: "range", class: "pc-slider", "data-live": true });
    const canvas = h("canvas", { class: "pc-curve", "aria-hidden": "true" });
    const readout = h("span", { class: "pc-readout pc-number", "aria-hidden": "true" });
    const low = h("span", { class: "pc-end pc-number", "aria-hidden": "true" });
    const high = h("span", { class: "pc-end pc-end-high pc-number", "aria-hidden": "true" });
    const progress = h("span", { class: "pc-run", hidden: true, "aria-hidden": "true" });
    const dose = h("div", { class: "pc-dose" }, progress, canvas, slider, low, high, readout);
    const box = h("input", {
      type: "text",
      inputmode: "decimal",
      class: "pc-input pc-box pc-number",
      spellcheck: "false",
      autocomplete: "off",
      "data-live": true,
    });
    const units = select(
      UNITS.map(([name, label]) => [name, label] as const),
      { class: "pc-select pc-unit" },
      (chosen) => {
        unit = chosen as Unit;
        showValue();
      },
      signal,
    );
    const amount = h("div", { class: "pc-amount" }, box, units);
    const words = h("div", { class: "pc-words pc-muted" });
    const effect = effectCell();
    const solo = button(
      "solo",
      { class: "pc-button pc-quiet", "data-live": true },
      () => actions.act({ kind: "solo", key }, key),
      signal,
    );
    const remove = button(
      "×",
      { class: "pc-button pc-quiet pc-remove", "data-live": true },
      () => actions.act({ kind: "remove", key }, key),
      signal,
    );
    const error = h("p", { class: "pc-error", role: "alert", hidden: true });
    const element = h(
      "li",
      { class: "pc-row", "data-key": key },
      grip,
      on,
      h("div", { class: "pc-site" }, address, massive),
      operation,
      positions,
      dose,
      words,
      amount,
      how,
      effect.element,
      h("div", { class: "pc-row-end" }, copyAddress, solo, remove),
      error,
    );

    on.addEventListener("change", () => actions.edit({ key, muted: !on.checked, final: true }), {
      signal,
    });
    on.addEventListener("dblclick", () => actions.act({ kind: "solo", key }, key), { signal });
    element.addEventListener(
      "keydown",
      (event) => {
        if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "c") return;
        if (event.target === box || !document.getSelection()?.isCollapsed) return;
        event.preventDefault();
        void copyIt();
      },
      { signal },
    );

    // --- the slider: many edits, one gesture ---
    const drag = (final: boolean) => {
      if (value !== null) actions.edit({ key, value, final });
    };
    const finish = () => {
      if (!unfinished) return;
      unfinished = false;
      drag(true);
    };
    slider.addEventListener(
      "pointerdown",
      () => {
        pointerDown = true;
        actions.touched();
        // The pointer is usually let go somewhere else.
        const { signal: held, abort: letGo } = childSignal(signal);
        const up = () => {
          letGo();
          pointerDown = false;
          finish();
          actions.touched();
        };
        for (const type of ["pointerup", "pointercancel"]) {
          document.addEventListener(type, up, { signal: held, capture: true });
        }
        globalThis.addEventListener("blur", up, { signal: held });
      },
      { signal },
    );
    slider.addEventListener(
      "input",
      () => {
        value = Number(slider.value);
        unfinished = true;
        refuse("");
        showValue();
        draw();
        drag(false);
      },
      { signal },
    );
    slider.addEventListener("change", () => (pointerDown || keyDown ? undefined : finish()), {
      signal,
    });
    slider.addEventListener(
      "keydown",
      (event) => {
        if (!event.altKey && !event.ctrlKey && !event.metaKey && event.key !== "Tab")
          keyDown = true;
      },
      { signal },
    );
    const release = () => {
      keyDown = false;
      if (!pointerDown) finish();
    };
    slider.addEventListener("keyup", release, { signal });
    slider.addEventListener("blur", release, { signal });
    dose.addEventListener(
      "pointermove",
      (event) => {
        const at = slider.getBoundingClientRect();
        const inset = INSET * unitOf();
        const share = (event.clientX - at.left - inset) / (at.width - 2 * inset);
        hover = axis.low + Math.min(1, Math.max(0, share)) * (axis.high - axis.low);
        draw();
      },
      { signal },
    );
    dose.addEventListener(
      "pointerleave",
      () => {
        hover = null;
        draw();
      },
      { signal },
    );

    // --- the number box ---
    const put = (next: number, final: boolean) => {
      value = next;
      refuse("");
      showValue();
      draw();
      drag(final);
    };
    const enter = () => {
      if (value !== null && box.value === boxText()) return;
      const number = parse(box.value);
      if (number === null) {
        refuse(`“${box.value}” is not a number; 8 or -0.5 would be.`);
        return;
      }
      put(fromUnit(row, unit, number), true);
    };
    box.addEventListener("change", enter, { signal });
    box.addEventListener(
      "focus",
      () => {
        if (value === null) return;
        box.value = String(Number(toUnit(row, unit, value).toPrecision(7)));
        box.select();
      },
      { signal },
    );
    box.addEventListener(
      "blur",
      () => {
        if (parse(box.value) === null) refuse("");
        showValue();
      },
      { signal },
    );
    box.addEventListener(
      "keydown",
      (event) => {
        if (event.key === "Enter") enter();
        else if (event.key === "Escape") {
          refuse("");
          showValue(true);
          event.stopPropagation();
        } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
          if (value === null || event.altKey) return;
          const steps = (event.key === "ArrowUp" ? 1 : -1) * (event.shiftKey ? 10 : 1);
          put(Number((value + steps * axis.step).toPrecision(12)), true);
          showValue(true);
          event.preventDefault();
        }
      },
      { signal },
    );
    onResize(canvas, draw, signal);

    function unitOf(): number {
      return Number.parseFloat(getComputedStyle(slider).fontSize) / 13;
    }

    function choosePositions(chosen: string): void {
      if (chosen !== SELECTED) {
        actions.edit({ key, positions: chosen, final: true });
        return;
      }
      const at = actions.selectedTokens();
      showPositions();
      if (at.length === 0) {
        refuse("No tokens are selected; click some in the prompt above, then choose this again.");
        return;
      }
      refuse("");
      actions.edit({ key, positions: at.join(","), final: true });
    }

    async function copyIt(): Promise<void> {
      const full = row.positions === "" ? row.address : `${row.address}@${row.positions}`;
      const done = await copy(full);
      actions.announce(done ? `Copied ${full}` : `The page may not copy; the address is ${full}`);
      say(copyAddress, done ? "copied" : full);
      setTimeout(() => say(copyAddress, "copy"), 1200);
    }

    function boxText(): string {
      return value === null ? "" : typed(toUnit(row, unit, value));
    }

    function showValue(evenFocused = false): void {
      if (value === null) return;
      if (!hasUnit(row, unit)) unit = "raw";
      if (units.value !== unit) units.value = unit;
      if (slider.value !== String(value)) slider.value = String(value);
      set(slider, { "aria-valuetext": spoken(row, value) });
      say(low, short(toUnit(row, unit, axis.low)));
      say(high, short(toUnit(row, unit, axis.high)));
      if (evenFocused || focused(box) !== box) box.value = boxText();
      set(box, {
        title: `${exact(value)} raw: ${spoken(row, value)}`,
        "aria-invalid": null,
      });
    }

    function showPositions(): void {
      let own = [...positions.options].find((option) => option.value === row.positions);
      if (own === undefined) {
        for (const option of positions.querySelectorAll("[data-own]")) option.remove();
        own = h("option", { value: row.positions, "data-own": true }, `@${row.positions}`);
        positions.prepend(own);
      }
      positions.value = row.positions;
      const names = row.positions
        .split(",")
        .map((part) => shown?.tokens.find((token) => String(token.position) === part)?.text);
      set(positions, {
        title: names.some((name) => name !== undefined) ? names.join(" ") : null,
      });
    }

    function refuse(sentence: string): void {
      say(error, sentence);
      set(error, { hidden: sentence === "" });
      set(box, { "aria-invalid": sentence === "" ? null : "true" });
    }

    function draw(): void {
      if (shown === null || row.value === null) return;
      const { curve } = shown.of(key);
      drawCurve(
        canvas,
        {
          ...axis,
          value,
          observed: row.op === "set" ? row.observed : null,
          mean: row.op === "set" ? row.mean : null,
          sd: row.op === "set" ? row.sd : null,
          curve,
          hover: pointerDown ? null : hover,
          inset: INSET * unitOf(),
        },
        theme,
      );
      const at = pointerDown ? value : (hover ?? null);
      const read = at === null ? null : readCurve(curve, at);
      say(
        readout,
        at === null
          ? ""
          : read === null
            ? short(at)
            : `${short(at)}: log p ${short(read.logprob)}, KL ${short(read.kl)}`,
      );
    }

    return {
      element,
      dispose: abort,
      dragging: () => pointerDown || keyDown,
      refuse,
      paint() {
        draw();
        const own = shown?.of(key);
        if (own) effect.update(own.effect, scaleOfEffects, own.waiting, theme);
      },
      update(next, picture, scale) {
        row = next;
        shown = picture;
        scaleOfEffects = scale;
        const own = picture.of(key);
        // What is under someone's hand, or on its way to Python, is newer than any news.
        const mine = pointerDown || keyDown || actions.holds(key);
        if (!mine && value !== row.value) {
          value = row.value;
          refuse("");
        }
        const numeric = row.value !== null && row.editable;
        const name = row.positions === "" ? row.address : `${row.address}@${row.positions}`;
        set(element, {
          "data-op": row.op,
          "data-muted": row.muted,
          "aria-label": row.label,
          "data-selected": picture.selected === key,
          "data-numeric": numeric,
          "data-fixed": !row.editable,
        });
        set(grip, {
          "aria-label": `Move ${row.address}: Alt+Up or Alt+Down`,
          title: "Drag, or Alt+Up and Alt+Down: later rows see what earlier ones did",
        });
        if (on.checked === row.muted) on.checked = !row.muted;
        set(on, {
          "aria-label": `${row.address} is on`,
          title: "On or muted; double-click mutes all others",
        });
        say(address, row.address);
        set(address, {
          "aria-pressed": picture.selected === key ? "true" : "false",
          title: `${row.label}\nClick selects, Ctrl+C copies ${name}`,
        });
        set(copyAddress, { "aria-label": `Copy ${name}` });
        set(massive, { hidden: !row.massive });
        set(operation, { "aria-label": `What is done to ${row.address}`, hidden: !row.editable });
        operation.value = row.op;
        set(how, {
          "aria-label": `How ${row.address} is ${knocks ? "knocked out" : "ablated"}`,
          hidden: !knocks && (row.op !== "ablate" || !row.editable),
        });
        if (row.how !== null) how.value = row.how;
        set(positions, { "aria-label": `Where ${row.address} is touched`, hidden: !row.editable });
        showPositions();
        for (const part of [dose, amount]) set(part, { hidden: !numeric });
        set(words, { hidden: numeric });
        say(words, row.editable ? ablationWords(row) : row.label);
        if (numeric && !pointerDown) {
          // The scale stays under a moving hand.
          axis = sliderScale(row.range, value);
          set(slider, { min: axis.low, max: axis.high, step: axis.step });
        }
        set(slider, { "aria-label": `Value of ${row.address}` });
        set(box, { "aria-label": `Value of ${row.address} in ${unitWords(unit)}` });
        set(units, {
          "aria-label": `Unit of ${row.address}'s value`,
          hidden: row.op === "scale" || row.op === "ablate",
        });
        for (const option of units.options) {
          const choice = option.value as Unit;
          option.disabled = !hasUnit(row, choice);
          option.title = UNITS.find(([each]) => each === choice)?.[2] ?? "";
        }
        if (numeric) showValue();
        set(solo, {
          "aria-label": `Solo ${row.address}`,
          title: "Mute all others; again gives them back",
        });
        set(remove, { "aria-label": `Remove ${row.address}`, title: "Remove" });
        set(dose, {
          "data-stale": own.stale && own.curve !== null,
          // For who waits for the curve, which a canvas does not tell.
          "data-points": own.curve === null ? null : own.curve.values.length,
        });
        set(progress, { hidden: own.progress === null });
        if (own.progress !== null) {
          const { done, total } = own.progress;
          progress.style.width = `${(100 * done) / Math.max(1, total)}%`;
        }
        effect.update(own.effect, scale, own.waiting, theme);
        draw();
      },
    };
  }
}

function below(event: DragEvent, element: Element): boolean {
  const box = element.getBoundingClientRect();
  return event.clientY > box.top + box.height / 2;
}

function unitWords(unit: Unit): string {
  return { raw: "raw units", sd: "standard deviations", peak: "multiples of the maximum" }[unit];
}

function ablationWords(row: Row): string {
  const now = row.observed === null ? "" : ` (here it is ${short(row.observed)})`;
  if (row.how === "zero") return `held at 0${now}`;
  if (row.how === "resample") return `takes a value from a reference text${now}`;
  const mean = row.mean === null ? "" : ` ${short(row.mean)}`;
  return `held at its mean${mean} on the reference texts${now}`;
}
