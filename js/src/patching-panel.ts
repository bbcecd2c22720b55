// Activation patching: values of the one run put into the other, place by place, and how far the
// metric comes along. A heat map of layers by positions, or by heads, that fills in.
import {
  type CircuitPicture,
  type Direction,
  type Over,
  patchingKey,
  peakOf,
} from "./circuit-picture";
import type { Theme } from "./colour";
import { button, h, say, set } from "./dom";
import { short, single } from "./format";
import { type HeatScale, heatBar } from "./heat-bar";
import { type HeatMapPicture, heatMap, type LabelPiece } from "./heat-map";
import type { PatchingMap } from "./messages";
import { labelOf } from "./pattern";
import { type Format, saveButtons } from "./save-buttons";
import { segments } from "./segments";
import type { Unpacked } from "./transport";

export interface PatchingPanel {
  element: HTMLElement;
  update(picture: CircuitPicture): void;
  paint(theme: Theme): void;
  refuse(sentence: string): void;
  /** What is drawn now, for a file, and what it is called. */
  drawn(): { picture: HeatMapPicture; title: string; what: string } | null;
}

export interface PatchingActions {
  start(direction: Direction, over: Over): void;
  stop(): void;
  /** A head was pressed. */
  select(address: string): void;
  changed(): void;
  save(format: Format): void;
  announce(text: string): void;
}

type Reading = "share" | "raw";

const DIRECTIONS = [
  {
    value: "denoise",
    label: "denoise",
    title: "Clean values into the corrupt run: where is enough to bring the answer back?",
  },
  {
    value: "noise",
    label: "noise",
    title: "Corrupt values into the clean run: what does the answer need?",
  },
] as const;
const OVERS = [
  { value: "resid_pre", label: "residual stream", title: "What enters each block, by position" },
  { value: "attn", label: "attention", title: "What each block's attention writes, by position" },
  { value: "mlp", label: "MLP", title: "What each block's MLP writes, by position" },
  { value: "head", label: "heads", title: "Each head's output, at all positions at once" },
] as const;
const READINGS = [
  {
    value: "share",
    label: "recovered share",
    title: "(patched − corrupt) / (clean − corrupt): 1 is the clean run, 0 the corrupt one",
  },
  { value: "raw", label: "raw", title: "The metric after patching" },
] as const;

/** The share of what separates clean from corrupt; NaN where nothing does. */
export function recovered(value: number, clean: number, corrupt: number): number {
  return clean === corrupt ? Number.NaN : (value - corrupt) / (clean - corrupt);
}

export function patchingPanel(signal: AbortSignal, actions: PatchingActions): PatchingPanel {
  let direction: Direction = "denoise";
  let over: Over = "resid_pre";
  let reading: Reading = "share";
  let gamma: HeatScale["gamma"] = 1;
  let shown: Unpacked<PatchingMap> | null = null;
  let drawn: HeatMapPicture | null = null;
  let unit = "";
  let hovered: number | null = null;
  /** What was started last: its progress is on its way. */
  let running = "";

  const directions = segments<Direction>(
    "Which way",
    DIRECTIONS,
    (next) => {
      direction = next;
      actions.changed();
    },
    { signal, live: false },
  );
  const overs = segments<Over>(
    "What is patched",
    OVERS,
    (next) => {
      over = next;
      actions.changed();
    },
    { signal, live: false },
  );
  const readings = segments<Reading>(
    "What is shown",
    READINGS,
    (next) => {
      reading = next;
      actions.changed();
    },
    { signal, live: false },
  );
  const start = button("start", { "data-live": true }, () => begin(), signal);
  const stop = button("stop", { "data-live": true, hidden: true }, () => actions.stop(), signal);
  const count = h("span", { class: "pc-muted pc-number" });
  const grid = heatMap(signal, "Patched places; arrow keys move", {
    hover(cell, by) {
      hovered = cell;
      read();
      if (by === "keys" && cell !== null) actions.announce(note(cell));
    },
    press(cell) {
      if (shown?.over !== "head") return;
      const heads = shown.columns.length;
      actions.select(`L${Math.floor(cell / heads)}.H${cell % heads}`);
    },
  });
  const bar = heatBar(signal, (next) => {
    gamma = next;
    actions.changed();
  });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const first = h("p", { class: "pc-note" });
  const where = h("p", { class: "pc-where pc-values" });
  const words = h("p", { class: "pc-muted pc-small-print" });
  const below = h(
    "div",
    { class: "pc-patching-below" },
    where,
    h("div", { class: "pc-line pc-under" }, bar.element, readings.element),
    words,
  );
  const element = h(
    "section",
    { class: "pc-part pc-patching", "aria-label": "Activation patching" },
    run,
    h(
      "div",
      { class: "pc-line pc-section-head" },
      h("h3", { class: "pc-title" }, "patch activations"),
      directions.element,
      overs.element,
      h("span", { class: "pc-group" }, start, stop),
      count,
      h(
        "span",
        { class: "pc-group pc-to-end" },
        ...saveButtons("the patching", actions.save, signal),
      ),
    ),
    error,
    first,
    grid.element,
    below,
  );

  function begin(): void {
    running = patchingKey(direction, over);
    actions.start(direction, over);
  }
  function refuse(sentence: string): void {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
    if (sentence !== "") running = "";
  }
  function placeOf(cell: number): string {
    if (shown === null) return "";
    const wide = shown.columns.length;
    const [layer, column] = [Math.floor(cell / wide), cell % wide];
    if (shown.over === "head") return `L${layer}.H${column}`;
    return `L${layer}.${shown.over}@${column}`;
  }
  function note(cell: number): string {
    if (shown === null) return "";
    const value = shown.values[cell] ?? Number.NaN;
    if (Number.isNaN(value)) return `${placeOf(cell)}  not measured yet`;
    const share = recovered(value, shown.clean, shown.corrupt);
    return `${placeOf(cell)}  ${reading === "share" ? short(share) : short(value)}`;
  }
  function read(): void {
    if (shown === null || hovered === null) {
      say(where, "");
      return;
    }
    const value = shown.values[hovered] ?? Number.NaN;
    const share = recovered(value, shown.clean, shown.corrupt);
    const column =
      shown.over === "head"
        ? ""
        : ` ${JSON.stringify(shown.columns[hovered % shown.columns.length])}`;
    say(
      where,
      Number.isNaN(value)
        ? `${placeOf(hovered)}${column}  not measured yet`
        : `${placeOf(hovered)}${column}  ${single(value)}${unit === "" ? "" : ` ${unit}`}, ${single(share)} of what separates clean from corrupt`,
    );
  }

  return {
    element,
    refuse,
    drawn: () =>
      drawn === null || shown === null
        ? null
        : {
            picture: drawn,
            title: `Activation patching, ${shown.direction === "denoise" ? "denoising" : "noising"}, ${OVERS.find((each) => each.value === shown?.over)?.label}`,
            what: reading === "share" ? "recovered share" : unit,
          },
    update(picture) {
      const { circuit, state } = picture;
      if (circuit === null || state === null) return;
      unit = circuit.unit;
      const key = patchingKey(direction, over);
      shown = picture.patching.get(key) ?? null;
      directions.update(direction);
      overs.update(over, {
        mlp: circuit.mlp ? null : "this model's blocks have no MLP.",
      });
      const same = shown !== null && shown.clean === shown.corrupt;
      readings.update(same ? "raw" : reading, {
        share: same ? "clean and corrupt do not differ in the metric." : null,
      });
      const progress = picture.progress.get("patching") ?? null;
      if (progress === null && !picture.busy) running = "";
      const mine = progress !== null && (running === key || running === "");
      set(run, { hidden: progress === null });
      if (progress !== null) {
        run.style.width = `${(100 * progress.done) / Math.max(1, progress.total)}%`;
      }
      const why = circuit.refusals.corrupt ?? circuit.refusals.prediction;
      const stale = shown !== null && shown.revision < circuit.holds_since.patching;
      const whole = shown !== null && shown.done >= shown.total && !stale;
      set(start, { "data-off": why !== null, hidden: progress !== null });
      say(start, shown === null ? "start" : whole ? "again" : stale ? "measure again" : "go on");
      set(stop, { hidden: progress === null });
      say(count, mine && progress !== null ? `${progress.done} of ${progress.total}` : "");
      say(
        first,
        why ??
          (direction === "denoise"
            ? "Puts values of the clean run into the corrupt one, place by place, to see which bring the answer back: press start."
            : "Puts values of the corrupt run into the clean one, place by place, to see which the answer needs: press start."),
      );
      set(first, { hidden: shown !== null });
      for (const part of [grid.element, below]) set(part, { hidden: shown === null });
      if (shown === null) return;
      const { clean, corrupt } = shown;
      const byShare = reading === "share" && !same;
      const values = byShare
        ? shown.values.map((value) => recovered(value, clean, corrupt))
        : shown.values;
      const scale: HeatScale = {
        signed: true,
        peak:
          Math.max(byShare ? 1 : Math.max(Math.abs(clean), Math.abs(corrupt)), peakOf(values)) || 1,
        gamma,
      };
      const { columns } = shown;
      const tokens = shown.over === "head" ? null : state.tokens;
      drawn = {
        rows: Array.from({ length: circuit.layers }, (_, layer) => `L${layer}`),
        columns: columns.map((text, i): LabelPiece[] => {
          if (tokens === null) return [{ text, mark: false }];
          const token = tokens.length === columns.length ? tokens[i] : undefined;
          const pieces = labelOf(token ?? { position: i, id: -1, text, bos: false });
          // Repeated tokens are told apart.
          return [...pieces, { text: ` ${i}`, mark: true }];
        }),
        turned: tokens !== null,
        values,
        scale,
        stale,
        apart: null,
        crossed: new Set(),
        dashed: new Set(),
        selected: new Set(),
        note,
      };
      grid.update(drawn);
      bar.update(scale, byShare ? "recovered share" : `metric${unit === "" ? "" : `, ${unit}`}`);
      const pairs = shown.pairs > 1 ? `, averaged over ${shown.pairs} pairs` : "";
      const filling = shown.done < shown.total ? `${shown.done} of ${shown.total} measured. ` : "";
      say(
        words,
        `${filling}Clean ${short(clean)}, corrupt ${short(corrupt)}${pairs}. ${shown.note}`.trim(),
      );
      set(words, { title: `clean ${single(clean)}\ncorrupt ${single(corrupt)}` });
      read();
    },
    paint(theme) {
      grid.paint(theme);
      bar.paint(theme);
    },
  };
}
