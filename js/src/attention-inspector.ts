// AttentionInspector: read, find, compare and knock out attention of a live model.
//
// Python declares (state, attention) and computes (result, grid, scores, tiles); this file wires
// those messages to the parts that show them, and what is looked at in one part to all others.
import { attentionLines } from "./attention-lines";
import {
  type AttentionPicture,
  addressOf,
  emptyAttention,
  followTarget,
  headKey,
  scoreOf,
  takeAttention,
  takeInspector,
} from "./attention-picture";
import type { Theme } from "./colour";
import { composition } from "./composition";
import { button, h, say, set } from "./dom";
import { exact, quoted, short, signed } from "./format";
import { createFrame, type Host } from "./frame";
import { headScores, valuesOf } from "./head-scores";
import type { HeadAddress } from "./heads-grid";
import { headsPanel } from "./heads-panel";
import { heatColour } from "./heat-bar";
import { knockForm } from "./knock-form";
import type { AttentionState, Knock } from "./messages";
import { metricReading } from "./metric";
import { newest } from "./newest";
import { nextToken } from "./next-token";
import { patternPanel } from "./pattern-panel";
import { prompt } from "./prompt";
import type { Format } from "./save-buttons";
import { download, fileName, headsSvg, patternSvg, toPng } from "./save-picture";
import { secondPrompt } from "./second-prompt";
import { segments } from "./segments";
import { keyItem, showStack, stackOf, stackSection } from "./stack-section";
import { type Cell, isDifference, type Look, type Mode } from "./tiles";
import type { Shade } from "./tokens";

/** How long the pointer rests before the lines follow it, in milliseconds. */
const REST = 60;
/** How long a head stays locked before its composition is asked for. */
const SETTLE = 400;

function render(host: Host) {
  const { signal } = host;
  const picture: AttentionPicture = emptyAttention();
  /** What was chosen here and Python has not confirmed yet. */
  let wanted: { head?: HeadAddress; look?: Look; mode?: Mode } = {};
  /** Whether Python has taken what was chosen: the next news of it is the truth. */
  let taken = true;
  /** The token that the strip or the lines are about: under the pointer, or the one selected. */
  let hovered: number | null = null;
  let resting: ReturnType<typeof setTimeout> | undefined;
  let settling: ReturnType<typeof setTimeout> | undefined;
  /** Somebody has asked for composition: then it follows the locked head. */
  let composing = false;
  let composed = "";

  const frame = createFrame(host, {
    name: "AttentionInspector",
    className: "pc-attention-inspector",
    needs: [
      "other heads, knocking out and comparing",
      "look at other heads, knock out and compare",
    ],
    counted: ["reference", "control", "grid", "scores"],
    picture,
    take(message, news) {
      if (news === "state") followTarget(picture);
      if (news !== "own") return news !== "old";
      const fresh = takeAttention(picture, message);
      if (fresh && message.kind === "attention" && taken) wanted = {};
      return fresh;
    },
    takeAll(everything) {
      if (everything.of !== "inspector") return;
      followTarget(picture);
      takeInspector(picture, everything);
    },
    paint,
    theme(theme) {
      text.paint(theme);
      second.paint(theme);
      heads.paint(theme);
      large.paint(theme);
      lines.paint(theme);
      rows.paint(theme);
      stacked.legend(keyItem("control", "random control"));
    },
    refusedEdit: (key, refused) => rows.refuse(key, refused.message),
    key(event) {
      if (event.key.toLowerCase() !== "k" || event.altKey) return false;
      large.toggleTool();
      return true;
    },
  });
  const { requests, announce, soon } = frame;

  // --- the parts, from top to bottom ---
  const text = prompt(
    signal,
    {
      run: (typed, final) => requests.ask({ kind: "prompt", text: typed, final }),
      onSelect: () => {
        shade();
        soon();
      },
      onHover: (position) => lookAt(position, "strip"),
    },
    { live: true },
  );
  const metric = metricReading(signal, {
    search: async (query) => (await requests.ask({ kind: "tokens", query })).items,
    target: (token) => chooseTarget(token),
  });
  const second = secondPrompt(signal, {
    ask: (gesture) => requests.ask(gesture),
    selected: () => text.strip.selected(),
    point: (positions) => text.strip.point(positions),
    announce,
  });
  const modes = segments<Mode>(
    "What a cell says",
    [
      {
        value: "weight",
        label: "weight",
        title: "The attention weight: of each row, the shares add up to 1",
      },
      {
        value: "value",
        label: "value-weighted",
        title:
          "Weight times the norm of what the source's value writes to the residual stream (‖v W_O‖)",
      },
      {
        value: "contribution",
        label: "contribution",
        title:
          "What the cell writes straight to the target's logit: weight times value, through W_O, the final norm as it stands, and the unembedding",
      },
    ],
    (mode) => inspect({ mode }),
    { signal, live: false },
  );
  const looks = segments<Look>(
    "Which pattern",
    [
      { value: "now", label: "now", title: "Under the stack, as it stands" },
      { value: "before", label: "before", title: "Without the stack" },
      { value: "difference", label: "difference", title: "Now minus before" },
      { value: "second", label: "second", title: "The second prompt's" },
      { value: "second-difference", label: "− second", title: "Now minus the second prompt's" },
    ],
    (look) => inspect({ look }),
    { signal },
  );
  const lookError = h("p", { class: "pc-error", role: "alert", hidden: true });
  const heads = headsPanel(signal, {
    lock,
    changed: soon,
    save: (format) => void save("heads", format),
    announce,
  });
  const large = patternPanel(signal, {
    requests,
    changed: soon,
    hover: (cell) => hoverCell(cell),
    lock(cell) {
      if (cell !== null) form.suggest(cell.source, cell.destination);
    },
    brush({ destinations, sources }) {
      const head = lockedHead();
      if (head === null) return;
      knock(
        {
          layers: [head.layer, head.layer + 1],
          heads: [head.head],
          destinations: [...destinations],
          sources: [...sources],
        },
        large.refuse,
      );
    },
    save: (format) => void save("pattern", format),
  });
  const most = button(
    "the head with the most induction",
    { "data-live": true },
    () => lock(likely()),
    signal,
  );
  const first = h(
    "p",
    { class: "pc-note pc-first" },
    "No head is locked: click one among all heads, or take ",
    most,
    ".",
  );
  const locked = h("h3", { class: "pc-address-title" });
  const scores = headScores(signal, {
    sort: (name) => heads.sortBy(name),
    measure: (score) => {
      requests
        .ask({ kind: "assess", score })
        .then(() => refuseHead(""))
        .catch((refused: Error) => refuseHead(refused.message));
    },
  });
  const direct = h("p", {
    class: "pc-line pc-direct",
    title:
      "What the head writes straight to the target's logit at the last position, through the final norm as it stands",
  });
  const ablate = button(
    "ablate",
    { "data-live": true },
    () => {
      const head = lockedHead();
      if (head === null) return;
      requests.ask({ kind: "add", address: addressOf(head.layer, head.head), op: "ablate" }).then(
        () => refuseHead(""),
        (refused: Error) => refuseHead(refused.message),
      );
    },
    signal,
  );
  const knockHead = button(
    "knock out",
    { "data-live": true },
    () => {
      const head = lockedHead();
      if (head === null) return;
      knock({ layers: [head.layer, head.layer + 1], heads: [head.head] }, refuseHead);
    },
    signal,
  );
  const headError = h("p", { class: "pc-error", role: "alert", hidden: true });
  const compositionPart = composition(signal, {
    measure() {
      composing = true;
      composed = "";
      soon();
    },
    lock: (layer, head) => lock({ layer, head }),
  });
  const compositions = newest(
    (head: HeadAddress) => requests.ask({ kind: "compose", ...head }),
    (body) => {
      picture.compositions.set(`${body.layer}.${body.head}`, body);
      soon();
    },
    (refused) => {
      compositionPart.refuse(refused.message);
      composing = false;
      soon();
    },
  );
  const side = h(
    "section",
    { class: "pc-part pc-head-panel", "aria-label": "The locked head" },
    h(
      "div",
      { class: "pc-line pc-panel-head" },
      locked,
      h("span", { class: "pc-group pc-to-end" }, ablate, knockHead),
    ),
    headError,
    scores.element,
    h("div", {}, direct, compositionPart.element),
  );
  const lines = attentionLines(signal, {
    hover(token) {
      large.point(
        token === null
          ? null
          : token.side === "destination"
            ? { destination: token.position }
            : { source: token.position },
      );
      lookAt(token?.position ?? null, "lines");
    },
    lock(token) {
      text.strip.select(token === null ? [] : [token.position]);
      shade();
      soon();
    },
    missing: (places) => large.ask(places),
  });
  const form = knockForm(signal, {
    knock: (gesture) => requests.ask({ kind: "knock", ...gesture, how: large.how() }),
  });
  const between = h(
    "section",
    { class: "pc-part pc-between", "aria-label": "Lines between tokens" },
    lines.element,
    form.element,
  );
  const rows = stackOf(signal, frame, () => text.strip.selected());
  const stacked = stackSection(
    signal,
    frame,
    rows,
    h(
      "p",
      { class: "pc-note pc-first" },
      "Nothing is knocked out yet: choose “knock out” above the pattern and click a cell, or ablate the head.",
    ),
  );
  const next = nextToken(signal, (token) => chooseTarget(token));
  const encoder = h("p", { class: "pc-note", hidden: true });
  const distribution = h(
    "section",
    { class: "pc-part pc-distribution", "aria-label": "Next token" },
    next.element,
  );
  frame.body.append(
    h(
      "div",
      { class: "pc-head" },
      h("div", { class: "pc-prompts" }, text.element, second.element),
      metric.element,
    ),
    frame.failure,
    h(
      "div",
      { class: "pc-line pc-looks", role: "toolbar", "aria-label": "What is drawn" },
      modes.element,
      looks.element,
      lookError,
    ),
    h(
      "div",
      { class: "pc-attention" },
      heads.element,
      h("div", { class: "pc-middle" }, first, large.element),
      side,
    ),
    h("div", { class: "pc-lower" }, between, distribution, encoder),
    stacked.element,
    frame.foot,
  );

  // --- what is looked at ---
  function lockedHead(): HeadAddress | null {
    if (wanted.head !== undefined) return wanted.head;
    const [layer, head] = picture.attention?.head ?? [];
    return layer === undefined || head === undefined ? null : { layer, head };
  }
  function look(): Look {
    return wanted.look ?? picture.attention?.look ?? "now";
  }
  function mode(): Mode {
    return wanted.mode ?? picture.attention?.mode ?? "weight";
  }
  function lock(head: HeadAddress): void {
    inspect({ head });
  }
  /** Looks at something else at once; Python follows. */
  function inspect(change: typeof wanted): void {
    wanted = { ...wanted, ...change };
    soon();
    if (frame.dead()) return;
    taken = false;
    const { head, ...rest } = change;
    const gesture = { ...rest, ...(head && { head: [head.layer, head.head] as [number, number] }) };
    requests.ask({ kind: "inspect", ...gesture }).then(
      () => {
        taken = true;
        refuseLook("");
      },
      (refused: Error) => {
        taken = true;
        wanted = {};
        refuseLook(refused.message);
        soon();
      },
    );
  }
  function refuseLook(sentence: string): void {
    say(lookError, sentence);
    set(lookError, { hidden: sentence === "" });
  }
  function refuseHead(sentence: string): void {
    say(headError, sentence);
    set(headError, { hidden: sentence === "" });
  }

  /** What tells a head worth beginning with: without a repeated token there is no induction. */
  function likelyBy(): "induction" | "previous" | null {
    const kinds = ["induction", "previous"] as const;
    return kinds.find((name) => valuesOf(picture, name).length > 0) ?? null;
  }
  function likely(): HeadAddress {
    const { attention } = picture;
    const name = likelyBy() ?? "induction";
    let best: HeadAddress = { layer: 0, head: 0 };
    let top = Number.NEGATIVE_INFINITY;
    for (let layer = 0; layer < (attention?.layers ?? 0); layer++) {
      for (let head = 0; head < (attention?.heads ?? 0); head++) {
        const score = scoreOf(picture, name, layer, head);
        if (score > top) [top, best] = [score, { layer, head }];
      }
    }
    return best;
  }

  /** A token is looked at somewhere: the strip, the matrix and the lines show what is about it. */
  function lookAt(position: number | null, from: "strip" | "lines"): void {
    hovered = position;
    shade();
    if (from === "lines") return;
    large.point(position === null ? null : { destination: position, source: position });
    lines.point(position === null ? null : { side: "destination", position });
  }

  function hoverCell(cell: Cell | null): void {
    // Two chips, nothing more: this must be painted with the pointer's very frame.
    const first = look() !== "second";
    text.strip.point(cell === null || !first ? [] : [cell.destination, cell.source]);
    second.point(cell === null || !first ? null : cell.source);
    clearTimeout(resting);
    resting = setTimeout(
      () => lines.point(cell && { side: "destination", position: cell.destination }),
      REST,
    );
  }

  /** Shades the prompt by where a token looks and what looks at it. */
  function shade(): void {
    const chosen = text.strip.selected();
    const position = hovered ?? (chosen.length === 1 ? (chosen[0] as number) : null);
    second.point(position);
    text.strip.shade(position === null ? null : shadeOf(position));
  }

  function shadeOf(position: number): Shade | null {
    const cells = large.cells();
    const token = picture.state?.tokens[position];
    if (cells === null || token === undefined || cells.length !== picture.state?.tokens.length) {
      return null;
    }
    const outgoing = cells.row(position);
    const incoming = cells.column(position);
    if (outgoing === null || incoming === null) {
      const all = [0, cells.length] as const;
      const own = [position, position + 1] as const;
      large.need({ destinations: own, sources: all });
      large.need({ destinations: all, sources: own });
      if (outgoing === null) return null;
    }
    const theme = frame.theme();
    const scale = large.scale();
    const from = scale.signed ? -scale.peak : 0;
    const name = token.bos ? "BOS" : quoted(token.text);
    return {
      ...(cells.causal
        ? {
            values: outgoing.map((value, i) => (i <= position ? value : (incoming?.[i] ?? 0))),
            under: null,
            legend: `← ${name} looks at · looks at ${name} →`,
          }
        : {
            values: outgoing,
            under: incoming,
            legend: `shade: what ${name} looks at · line: what looks at it`,
          }),
      ends: [short(from), short(scale.peak)],
      colour: (value) => heatColour(value, scale, theme),
      along: (share) => heatColour(from + share * (scale.peak - from), scale, theme),
    };
  }

  // --- gestures ---
  function knock(
    gesture: Pick<Knock, "layers" | "heads" | "destinations" | "sources">,
    refuse: (sentence: string) => void,
  ): void {
    requests.ask({ kind: "knock", ...gesture, how: large.how() }).then(
      ({ key }) => {
        refuse("");
        announce(key === null ? "The knock-out is taken back" : "Knocked out");
      },
      (refused: Error) => refuse(refused.message),
    );
  }
  function chooseTarget(token: number): void {
    requests.ask({ kind: "target", token }).then(
      () => metric.refuse(""),
      (refused: Error) => metric.refuse(refused.message),
    );
  }
  async function save(what: "heads" | "pattern", format: Format): Promise<void> {
    const theme = frame.theme();
    const font = getComputedStyle(frame.root).getPropertyValue("--pc-code") || "monospace";
    const seen = large.drawn();
    const grid = heads.drawn();
    if (what === "pattern" ? seen === null : grid === null) return;
    const head = lockedHead();
    const [svg, parts] =
      what === "pattern" && seen !== null
        ? [
            patternSvg(seen.picture, seen.area, seen.cell, { ...seen, theme, font }),
            [head === null ? "head" : addressOf(head.layer, head.head), mode(), look()],
          ]
        : [
            headsSvg(grid as NonNullable<typeof grid>, {
              title: `All heads, ${look()}`,
              what: "weight",
              theme,
              font,
            }),
            ["heads", look()],
          ];
    const name = fileName(["patchclamp", ...parts], format);
    if (format === "svg") download(name, svg, "image/svg+xml");
    else download(name, await toPng(svg));
    announce(`Saved ${name}`);
  }

  // --- showing it ---
  function paint(dead: boolean): void {
    const { state, result, attention } = picture;
    if (state === null || attention === null) return;
    const theme = frame.theme();
    const head = lockedHead();
    const { refusals } = attention;
    text.update(state, result?.moved ?? null, true, result?.moved_as);
    second.update(attention.second, state.tokens);
    metric.update(state.metric, result?.metric ?? null, theme);
    modes.update(mode(), modeRefusals(attention, dead));
    looks.update(look(), lookRefusals(attention));
    heads.update(picture, look(), head);
    large.update(picture, head, look(), mode(), dead);
    set(first, { hidden: head !== null || dead });
    const kind = likelyBy();
    say(
      most,
      `the head with the most ${kind === "previous" ? "previous-token attention" : "induction"}`,
    );
    set(most, { "data-off": kind === null, title: kind ? null : "The heads are being scored" });
    set(large.element, { hidden: head === null });
    showHead(head, attention, theme);
    lines.update({
      tokens: large.drawn()?.picture.tokens ?? state.tokens,
      cells: large.cells(),
      scale: large.scale(),
      locked: lockedToken(),
    });
    set(between, { hidden: head === null });
    form.update(attention, state.tokens);
    shade();
    showStack(rows, stacked, picture, picture.revision, state, !dead);
    const why = refusals.prediction;
    for (const part of [metric.element, distribution]) set(part, { hidden: why !== null });
    say(encoder, why ?? "");
    set(encoder, { hidden: why === null });
    next.update(result?.top ?? [], state.metric?.target.id ?? null, true, theme);
  }

  function lockedToken(): { side: "destination"; position: number } | null {
    const chosen = text.strip.selected();
    return chosen.length === 1 ? { side: "destination", position: chosen[0] as number } : null;
  }

  function modeRefusals(attention: AttentionState, dead: boolean): Partial<Record<Mode, string>> {
    const { value, contribution } = attention.refusals;
    const kernel =
      dead && isDifference(look()) ? "differences in another unit need a kernel." : null;
    const why = (own: string | null, chosen: Mode) => own ?? (mode() === chosen ? null : kernel);
    const [a, b, c] = [why(null, "weight"), why(value, "value"), why(contribution, "contribution")];
    return {
      ...(a !== null && { weight: a }),
      ...(b !== null && { value: b }),
      ...(c !== null && { contribution: c }),
    };
  }

  function lookRefusals(attention: AttentionState): Partial<Record<Look, string>> {
    const same = "nothing in the stack acts, so it is the same as now.";
    const none = "there is no second prompt; add one under the first.";
    return {
      ...(!attention.acting && { before: same, difference: same }),
      ...(attention.second === null && { second: none, "second-difference": none }),
    };
  }

  function showHead(head: HeadAddress | null, attention: AttentionState, theme: Theme): void {
    set(side, { hidden: head === null });
    if (head === null) return;
    const address = addressOf(head.layer, head.head);
    say(locked, address);
    const progress = picture.progress.get("scores") ?? null;
    scores.update(picture, [head.layer, head.head], heads.sorted(), progress, theme);
    set(ablate, {
      title: `Hold what ${address} writes at its mean on the reference texts`,
      "aria-label": `Ablate ${address}`,
    });
    const refusal = attention.refusals.knockout;
    set(knockHead, {
      title: refusal ?? `Knock out all attention of ${address}; again takes it back`,
      "aria-label": `Knock out ${address}`,
      "data-off": refusal !== null,
    });
    const body = picture.heads.get(headKey(head.layer, head.head, "now"));
    const fresh = body !== undefined && body.stamp === attention.stamps.now;
    set(direct, { hidden: !fresh || body.direct === null });
    if (fresh && body.direct !== null) {
      const target = picture.state?.metric?.target.text ?? "";
      direct.replaceChildren(
        h("span", { class: "pc-muted" }, "direct on"),
        h("span", { class: "pc-token-text" }, quoted(target)),
        h("span", { class: "pc-number pc-to-end", title: exact(body.direct) }, signed(body.direct)),
      );
    }
    const key = `${head.layer}.${head.head}`;
    const known = picture.compositions.get(key) ?? null;
    compositionPart.update(known, attention.heads, composing && known === null);
    if (composing && known === null && composed !== key && !frame.dead()) {
      composed = key;
      clearTimeout(settling);
      settling = setTimeout(() => compositions.ask(head), SETTLE);
    }
  }

  signal.addEventListener(
    "abort",
    () => {
      clearTimeout(resting);
      clearTimeout(settling);
    },
    { once: true },
  );
  frame.start();
}

export default { render };
