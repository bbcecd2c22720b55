// The locked head's pattern, large, with its bar, its tools, the value under the pointer, and the
// asking for what is not there: tiles, factors, the exact value of a cell.
import { type AttentionPicture, addressOf, headKey, takeHead, touches } from "./attention-picture";
import type { Theme } from "./colour";
import { h, say, select, set } from "./dom";
import { exact, quoted, short, signed as withSign } from "./format";
import type { HeadAddress } from "./heads-grid";
import { type HeatBar, type HeatScale, heatBar } from "./heat-bar";
import type { CellBody, HeadBody, Knock, PromptToken } from "./messages";
import { newest } from "./newest";
import { type PatternPicture, pattern } from "./pattern";
import type { Requests } from "./requests";
import { type Format, saveButtons } from "./save-buttons";
import { segments } from "./segments";
import {
  type Area,
  type Cell,
  factorsOf,
  isDifference,
  isSigned,
  type Look,
  type Mode,
  type PatternCells,
  type Place,
  patternCells,
  stampOf,
} from "./tiles";
import type { Unpacked } from "./transport";

export interface PatternPanel {
  element: HTMLElement;
  update(
    picture: AttentionPicture,
    head: HeadAddress | null,
    look: Look,
    mode: Mode,
    dead: boolean,
  ): void;
  paint(theme: Theme): void;
  cells(): PatternCells | null;
  scale(): HeatScale;
  /** Asks for what these cells lack. */
  need(area: Area): void;
  ask(places: readonly Place[]): void;
  point(cell: Partial<Cell> | null): void;
  how(): NonNullable<Knock["how"]>;
  /** Changes between looking and knocking out. */
  toggleTool(): void;
  refuse(sentence: string): void;
  /** What is drawn, for a file; null before a head is locked. */
  drawn(): {
    picture: PatternPicture;
    area: Area;
    cell: number;
    title: string;
    what: string;
  } | null;
}

export interface PatternPanelActions {
  requests: Requests;
  /** Something came in: paint again. */
  changed(): void;
  hover(cell: Cell | null): void;
  lock(cell: Cell | null): void;
  brush(area: Area): void;
  save(format: Format): void;
}

type Tool = "inspect" | "knock";
interface CellQuestion {
  layer: number;
  head: number;
  look: Look;
  stamp: string;
  destination: number;
  source: number;
}

const WHAT: Record<Mode, string> = {
  weight: "weight",
  value: "value-weighted",
  contribution: "logits",
};
const LOOKS: Record<Look, string> = {
  now: "now",
  before: "before the stack",
  difference: "now − before",
  second: "second prompt",
  "second-difference": "now − second prompt",
};
const LINE_AFTER = 150;

export function patternPanel(signal: AbortSignal, actions: PatternPanelActions): PatternPanel {
  const { requests } = actions;
  let tool: Tool = "inspect";
  let gamma: HeatScale["gamma"] = 1;
  let scale: HeatScale = { signed: false, peak: 1, gamma };
  let picture: AttentionPicture | null = null;
  let tokens: readonly PromptToken[] = [];
  let cells: PatternCells | null = null;
  let made = "";
  let madeOf: Unpacked<HeadBody> | null = null;
  let stale: PatternCells | null = null;
  let mode: Mode = "weight";
  let dead = false;
  let hovered: Cell | null = null;
  let locked: Cell | null = null;
  let answer: CellBody | null = null;
  let drawn: PatternPicture | null = null;
  /** On their way, and asked for and not got: asking again would get as little. */
  const asked = new Set<string>();
  let lacking = new Set<string>();
  let headAsked = "";
  let lineTimer: ReturnType<typeof setTimeout> | undefined;
  signal.addEventListener("abort", () => clearTimeout(lineTimer), { once: true });

  const view = pattern(signal, {
    hover(cell, by) {
      hovered = cell;
      set(values, { "aria-live": by === "keys" ? "polite" : "off" });
      read();
      actions.hover(cell);
    },
    lock(cell) {
      locked = cell;
      read();
      actions.lock(cell);
      actions.changed();
    },
    brush: actions.brush,
    missing: (places) => ask(places),
  });
  const bar: HeatBar = heatBar(signal, (next) => {
    gamma = next;
    actions.changed();
  });
  const title = h("h3", { class: "pc-pattern-title" });
  const tools = segments<Tool>(
    "What a click on a cell does",
    [
      { value: "inspect", label: "inspect", title: "A click keeps a cell in sight (K changes)" },
      {
        value: "knock",
        label: "knock out",
        title: "A click knocks a cell out, a drag many; the same again takes it back (K changes)",
      },
    ],
    (chosen) => {
      tool = chosen;
      actions.changed();
    },
    { signal },
  );
  const how = select(
    [
      ["renormalise", "renormalise"],
      ["zero", "to zero"],
      ["contrast", "second prompt's"],
    ],
    {
      "aria-label": "How attention is knocked out",
      title:
        "renormalise: the rest of the row is scaled up to 1, as if the score were minus infinity · to zero: the rest stays · second prompt's: the cells take the weight that they have there",
      "data-live": true,
    },
    () => undefined,
    signal,
  );
  const where = h("span", { class: "pc-where" });
  const value = h("span", { class: "pc-number pc-exact" });
  const values = h("p", { class: "pc-line pc-values" }, where, value);
  const error = h("p", { class: "pc-error", role: "alert", hidden: true });
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const element = h(
    "section",
    { class: "pc-part pc-pattern-panel", "aria-label": "Pattern of the locked head" },
    run,
    h(
      "div",
      { class: "pc-line pc-panel-head" },
      title,
      h(
        "span",
        { class: "pc-group pc-to-end" },
        ...saveButtons("the pattern", actions.save, signal),
      ),
    ),
    h("div", { class: "pc-line" }, tools.element, h("label", { class: "pc-field" }, how)),
    error,
    view.element,
    h("div", { class: "pc-line pc-under" }, bar.element),
    values,
  );

  // --- asking ---
  const tileRequests = newest(
    (question: { cells: PatternCells; places: Place[] }) => {
      const { layer, head, look, mode: of } = question.cells.name;
      const places = question.places.map(([row, column]) => [row, column] as [number, number]);
      for (const place of question.places) asked.add(keyOf(question.cells, place));
      return requests.ask({
        kind: "tiles",
        layer,
        head,
        look,
        mode: of,
        tiles: places as [[number, number], ...[number, number][]],
      });
    },
    (body, question) => {
      // The prompt may have changed on the way: bytes of another pattern have another length.
      const own = [question.cells, cells].find((each) => each?.name.stamp === body.stamp);
      if (own) picture?.tiles.put(body, own.length, own.causal);
      for (const place of question.places) {
        const key = keyOf(question.cells, place);
        asked.delete(key);
        if (question.cells.tile(place) === undefined) lacking.add(key);
      }
      refuse("");
      actions.changed();
    },
    (reason, question) => {
      for (const place of question.places) {
        const key = keyOf(question.cells, place);
        asked.delete(key);
        lacking.add(key);
      }
      refuse(reason.message);
    },
  );
  const headRequests = newest(
    (question: { layer: number; head: number; look: Look }) =>
      requests.ask({ kind: "head", ...question }),
    (body) => {
      if (picture !== null) takeHead(picture, body);
      actions.changed();
    },
    (reason) => refuse(reason.message),
  );
  const cellRequests = newest(
    ({ stamp: _, ...question }: CellQuestion) => requests.ask({ kind: "cell", ...question }),
    (body, { stamp }) => {
      if (body.stamp !== stamp) return;
      answer = body;
      showValue();
    },
    () => undefined, // the tile's value stays
  );

  function ask(places: readonly Place[]): void {
    const of = cells;
    if (of === null || dead) return;
    const wanted = places.filter((place) => {
      const key = keyOf(of, place);
      return !lacking.has(key) && !asked.has(key);
    });
    if (wanted.length === 0) return;
    tileRequests.ask({ cells: of, places: wanted.slice(0, 64) });
    showRun();
  }

  function showRun(): void {
    clearTimeout(lineTimer);
    lineTimer = setTimeout(() => set(run, { hidden: !tileRequests.busy() }), LINE_AFTER);
  }

  function refuse(sentence: string): void {
    say(error, sentence);
    set(error, { hidden: sentence === "" });
  }

  // --- the value of a cell ---
  function read(): void {
    const cell = hovered ?? locked;
    answer = null;
    if (cell === null || cells === null || dead || beyond(cell)) cellRequests.ask(null);
    else {
      const { layer, head, look, stamp } = cells.name;
      cellRequests.ask({ layer, head, look, stamp, ...cell });
    }
    showValue();
  }

  function beyond({ destination, source }: Cell): boolean {
    return cells === null || (cells.causal && source > destination);
  }

  function showValue(): void {
    const cell = hovered ?? locked;
    set(values, { "data-empty": cell === null });
    if (cell === null || cells === null) {
      say(where, tool === "knock" ? "Click a cell, or drag over some." : "");
      say(value, "");
      return;
    }
    const [to, from] = [nameOf(tokens[cell.destination]), nameOf(tokens[cell.source])];
    say(where, `${cell.destination} ${to} reads ${cell.source} ${from}`);
    if (beyond(cell)) {
      say(value, "nothing: it comes later");
      return;
    }
    const known = answer?.destination === cell.destination && answer.source === cell.source;
    if (known && answer !== null) {
      const parts = [
        `weight ${answer.weight === null ? "not a number" : exact(answer.weight)}`,
        ...(answer.value === null ? [] : [`value-weighted ${exact(answer.value)}`]),
        ...(answer.contribution === null
          ? []
          : [`logits ${answer.contribution > 0 ? "+" : ""}${exact(answer.contribution)}`]),
      ];
      say(value, parts.join(" · "));
      set(value, { "data-exact": true });
      return;
    }
    const near = cells.valueAt(cell.destination, cell.source);
    set(value, { "data-exact": null });
    say(
      value,
      near === null
        ? "…"
        : Number.isNaN(near)
          ? "not a number"
          : `${WHAT[mode]} ≈ ${scale.signed ? withSign(near) : short(near)}`,
    );
  }

  // --- what to draw ---
  function follow(
    now: AttentionPicture,
    head: HeadAddress | null,
    look: Look,
  ): Unpacked<HeadBody> | null {
    const { attention, state } = now;
    const stamp = attention === null ? null : stampOf(look, attention.stamps);
    if (head === null || attention === null || stamp === null || state === null) {
      cells = null;
      made = "";
      return null;
    }
    const { layer, head: number } = head;
    const key = headKey(layer, number, look);
    const body = now.heads.get(key) ?? null;
    const question = `${key} ${stamp} ${now.target}`;
    if (!dead && body?.stamp !== stamp && headAsked !== question) {
      headAsked = question;
      headRequests.ask({ layer, head: number, look });
    }
    const factors = factorsOf(body, look, mode);
    const length = tokensOf(now, look).length;
    const name = { layer, head: number, look, mode, stamp };
    const whole = mode === "weight" || isDifference(look);
    const next = [key, mode, stamp, length, attention.causal, now.target].join();
    if (next === made && (whole || madeOf === body)) return body;
    const before = cells;
    [made, madeOf] = [next, body];
    cells =
      factors === null ? null : patternCells(now.tiles, name, length, attention.causal, factors);
    const was = before?.name;
    if (was?.layer !== layer || was.head !== number || was.look !== look || before === null) {
      stale = null;
    } else if (was.stamp !== stamp) stale = before.length === length ? before : null;
    lacking = new Set();
    refuse("");
    const looks = ["now", "before", "second", "difference", "second-difference"] as const;
    const stamps = looks.map((each) => stampOf(each, attention.stamps));
    now.tiles.keep([stale?.name.stamp ?? null, ...stamps].filter((each) => each !== null));
    read();
    return body;
  }

  /** The end of the scale: all of a weight; otherwise the head's own largest. */
  function scaleOf(body: Unpacked<HeadBody> | null, look: Look): HeatScale {
    const signed = isSigned(look, mode);
    if (mode === "weight" && !isDifference(look)) return { signed, peak: 1, gamma };
    const peak = body?.peaks[mode];
    if (peak) return { signed, peak, gamma };
    return { signed, peak: signed === scale.signed ? scale.peak : 1, gamma };
  }

  return {
    element,
    cells: () => cells,
    scale: () => scale,
    ask,
    need(area) {
      if (cells !== null) ask(cells.missing(area));
    },
    point: (cell) => view.point(cell),
    how: () => how.value as NonNullable<Knock["how"]>,
    toggleTool() {
      if (picture?.attention?.refusals.knockout) return;
      tool = tool === "inspect" ? "knock" : "inspect";
      actions.changed();
    },
    refuse,
    drawn() {
      if (drawn === null || cells === null) return null;
      const { layer, head, look } = cells.name;
      return {
        picture: drawn,
        area: view.visible(),
        cell: view.zoom(),
        title: `${addressOf(layer, head)}, ${WHAT[mode]}, ${LOOKS[look]}`,
        what: WHAT[mode],
      };
    },
    update(now, head, look, nextMode, isDead) {
      const { attention } = now;
      if (attention === null) return;
      picture = now;
      mode = nextMode;
      dead = isDead;
      tokens = tokensOf(now, look);
      if (locked !== null && Math.max(locked.destination, locked.source) >= tokens.length) {
        locked = null;
      }
      const body = follow(now, head, look);
      scale = scaleOf(body, look);
      const outlined =
        head === null || look === "before" || look === "second"
          ? []
          : attention.knocked_out.filter((each) => touches(each, head.layer, head.head));
      drawn = {
        tokens,
        cells,
        stale,
        scale,
        outlines: outlined.map(({ destinations, sources, muted }) => ({
          destinations: destinations === null ? null : [destinations[0] ?? 0, destinations[1] ?? 0],
          sources: sources === null ? null : [sources[0] ?? 0, sources[1] ?? 0],
          muted,
        })),
        locked,
        brush: tool === "knock" && !dead,
      };
      view.update(drawn);
      const refusal = attention.refusals.knockout;
      tools.update(tool, { knock: refusal });
      set(how, { "data-off": refusal !== null });
      const contrast = how.options[2] as HTMLOptionElement;
      contrast.disabled = attention.second === null;
      if (contrast.disabled && how.value === "contrast") how.value = "renormalise";
      say(title, head === null ? "" : addressOf(head.layer, head.head));
      const change = isDifference(look) ? "change of " : "";
      bar.update(scale, `${change}${WHAT[mode]}`);
      showRun();
      showValue();
    },
    paint(theme) {
      view.paint(theme);
      bar.paint(theme);
    },
  };
}

/** Rows and columns are the prompt's tokens, of the second prompt's own pattern that one's. */
function tokensOf(picture: AttentionPicture, look: Look): readonly PromptToken[] {
  const own = picture.state?.tokens ?? [];
  return look === "second" ? (picture.attention?.second?.tokens ?? own) : own;
}

function nameOf(token: PromptToken | undefined): string {
  return token === undefined ? "" : token.bos ? "BOS" : quoted(token.text);
}

function keyOf(cells: PatternCells, [row, column]: Place): string {
  const { layer, head, look, mode, stamp } = cells.name;
  return [layer, head, look, mode, stamp, row, column].join();
}
