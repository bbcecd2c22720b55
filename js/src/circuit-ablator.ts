// CircuitAblator: cut, patch, find and check circuits of a live model.
//
// Python declares (state, circuit) and computes (result, map, patching, graph, checks); this file
// wires those messages to the parts that show them, and what is selected in one part to all others.
import { acceptAddresses } from "./address";
import { circuitControls } from "./circuit-controls";
import {
  type Addresses,
  type CircuitEdge,
  type CircuitNode,
  edgesOf,
  nodesOf,
  type Selected,
} from "./circuit-edges";
import { circuitFile } from "./circuit-file";
import { circuitGraph, groupColour, groupsOf } from "./circuit-graph";
import { circuitList } from "./circuit-list";
import {
  type Circuit,
  type CircuitPicture,
  emptyCircuit,
  type Replacement,
  takeAblator,
  takeCircuit,
} from "./circuit-picture";
import { circuitSize } from "./circuit-size";
import { css, redBlue, type Theme } from "./colour";
import { componentMap, type Measured } from "./component-map";
import { componentTable } from "./component-table";
import { button, h, say, select, set } from "./dom";
import { drillKey, drillPanel } from "./drill-panel";
import { edgeReading, type Looked } from "./edge-reading";
import { short } from "./format";
import { createFrame, type Host } from "./frame";
import { interactionPanel } from "./interaction-panel";
import type { DrillBody, Graph } from "./messages";
import { metricChooser } from "./metric-chooser";
import { newest } from "./newest";
import { nextToken } from "./next-token";
import { pairsPanel } from "./pairs-panel";
import { patchingPanel } from "./patching-panel";
import { prompt } from "./prompt";
import type { Gesture } from "./requests";
import { type Format, saveButtons } from "./save-buttons";
import { heatMapSvg } from "./save-heat-map";
import { keyItem, showStack, stackOf, stackSection } from "./stack-section";
import { download, fileName, pageSvg, toPng } from "./svg";
import type { Unpacked } from "./transport";

/** How long the pointer rests on an edge before Python is asked what it does, in milliseconds. */
const REST = 120;
/** How long a component stays selected before it is looked into. */
const SETTLE = 300;
/** A check that never comes (its run was overtaken) must not hold up the next size for good. */
const GIVE_UP = 10_000;
/** How many edges are drawn at most. */
const DRAWN = [30, 60, 150] as const;

function render(host: Host) {
  const { signal } = host;
  const picture: CircuitPicture = emptyCircuit();
  /** Components, the one that was selected first in front. */
  let selected: string[] = [];
  let how: Replacement | null = null;
  let measured: Measured = "exact";
  /** What was found inside of components, and since when what it was found under holds. */
  const drilled = new Map<string, { body: Unpacked<DrillBody>; since: number }>();
  /** Somebody has looked inside: then that follows the selection. */
  let drilling = false;
  let drillAsked = "";
  /** The size that was chosen here and Python has not confirmed. */
  let wanted: { size: number; since: number } | null = null;
  let looked: string | null = null;
  let chosen: string | null = null;
  let edgeRefused = { address: "", sentence: "" };
  let most: number = DRAWN[1];
  let resting: ReturnType<typeof setTimeout> | undefined;
  let settling: ReturnType<typeof setTimeout> | undefined;
  let onChecked: (() => void) | null = null;

  const frame = createFrame(host, {
    name: "CircuitAblator",
    className: "pc-circuit-ablator",
    needs: ["ablating, patching and finding circuits", "ablate, patch and find circuits"],
    counted: ["reference", "control", "map", "patching", "find", "faithful"],
    picture,
    take(message, news) {
      // A run that failed, or that is over, brings no check.
      if (news === "failure" || (message.kind === "status" && !message.busy)) onChecked?.();
      if (news !== "own") return news !== "old";
      const fresh = takeCircuit(picture, message);
      if (fresh && message.kind === "checked") onChecked?.();
      return fresh;
    },
    takeAll(everything) {
      if (everything.of === "ablator") takeAblator(picture, everything);
    },
    paint,
    theme(theme) {
      text.paint(theme);
      map.paint(theme);
      drill.paint(theme);
      size.paint(theme);
      graph.paint(theme);
      patching.paint(theme);
      interaction.paint(theme);
      rows.paint(theme);
      stacked.legend(keyItem("control", "random control"));
      graphLegend(theme);
    },
    refusedEdit: (key, refused) => rows.refuse(key, refused.message),
    ended: () => onChecked?.(),
  });
  const { requests, announce, soon } = frame;

  /** Sends a gesture; `refuse` hears of a refusal, and of "" when it was taken. */
  function ask(gesture: Gesture, refuse: (sentence: string) => void): void {
    if (frame.dead()) return;
    requests.ask(gesture).then(
      () => refuse(""),
      (refused: Error) => {
        refuse(refused.message);
        soon();
      },
    );
  }

  // --- the prompt and the metric ---
  const text = prompt(
    signal,
    {
      run: (typed, final) => requests.ask({ kind: "prompt", text: typed, final }),
      onSelect: () => soon(),
    },
    { live: true },
  );
  const pairs = pairsPanel(signal, {
    ask: (gesture) => requests.ask(gesture),
    changed: soon,
  });
  const metric = metricChooser(signal, {
    search: async (query) => (await requests.ask({ kind: "tokens", query })).items,
    objective: (gesture) => ask({ kind: "objective", ...gesture }, metric.refuse),
  });

  // --- components ---
  const toggle = (addresses: string[]) => {
    const [first, ...more] = addresses;
    if (first === undefined) return;
    ask({ kind: "ablations", addresses: [first, ...more], how: replacement() }, map.refuse);
  };
  const solo = (address: string) =>
    ask({ kind: "ablations", addresses: [address], how: replacement(), solo: true }, map.refuse);
  const survey = (by: Replacement) => ask({ kind: "survey", how: by }, map.refuse);
  const choose = (addresses: readonly string[], more: boolean) => {
    const others = selected.filter((each) => !addresses.includes(each));
    // Once more takes it out again.
    const same = more && addresses.every((each) => selected.includes(each));
    selected = same ? others : more ? [...others, ...addresses] : [...addresses];
    soon();
  };
  const map = componentMap(signal, {
    survey,
    choose(choice) {
      measured = choice.measured ?? measured;
      if (choice.how !== undefined && choice.how !== replacement()) {
        how = choice.how;
        // Numbers of another replacement are of something else.
        if (picture.map !== null) survey(choice.how);
      }
      soon();
    },
    toggle,
    solo,
    select: choose,
    hover: (address) => table.point(address),
    changed: soon,
    save: (format) => void saveMap("map", format),
    announce,
  });
  const table = componentTable(signal, {
    select: (address, more) => choose([address], more),
    toggle: (address) => toggle([address]),
    solo,
    hover: (address) => map.point(address),
    changed: soon,
  });
  const drill = drillPanel(
    signal,
    {
      drill() {
        drilling = true;
        drillAsked = "";
        soon();
      },
      toggle,
      solo,
      neuron: (address) => toggle([address]),
      at: (address, positions) =>
        ask(
          { kind: "add", address: `${address}@${positions.join(",")}`, op: "ablate" },
          drill.refuse,
        ),
    },
    () => {
      const key = drillKey(selected[0] ?? "", replacement());
      const found = drilled.get(key);
      return {
        body: found?.body ?? null,
        stale: found !== undefined && found.since < holdsSince(),
        asked: drilling && drillAsked === `${key} ${holdsSince()}`,
      };
    },
  );
  const drills = newest(
    ({ address, how }: { address: string; how: Replacement; since: number }) =>
      requests.ask({ kind: "drill", address, how }),
    (body, { since }) => {
      drilled.set(drillKey(body.address, body.how), { body, since });
      soon();
    },
    (refused) => {
      drill.refuse(refused.message);
      drilling = false;
      soon();
    },
  );
  const next = nextToken(signal, (token) => ask({ kind: "target", token }, metric.refuse));
  const distribution = h(
    "section",
    { class: "pc-part pc-distribution", "aria-label": "Next token" },
    next.element,
  );
  const side = h("div", { class: "pc-component-side" }, drill.element, distribution);
  const components = h(
    "section",
    { class: "pc-components-section", "aria-label": "Components" },
    map.element,
    table.element,
    side,
  );

  // --- the stack ---
  const rows = stackOf(signal, frame, () => text.strip.selected());
  const stacked = stackSection(
    signal,
    frame,
    rows,
    h("p", { class: "pc-note pc-first" }, "Nothing is ablated: click a cell of the map."),
  );
  acceptAddresses(
    stacked.element,
    (address) => {
      if (picture.circuit?.ablated.includes(address)) announce(`${address} is ablated already`);
      else toggle([address]);
    },
    signal,
  );

  // --- the circuit ---
  const circuitError = h("p", { class: "pc-error", role: "alert", hidden: true });
  const refuseCircuit = (sentence: string) => {
    say(circuitError, sentence);
    set(circuitError, { hidden: sentence === "" });
  };
  const controls = circuitControls(signal, {
    find: (gesture) => ask({ kind: "find", ...gesture }, controls.refuse),
    stop: () => frame.halt(),
    changed: soon,
  });
  const sizes = newest(
    async (question: { count: number; final: boolean }) => {
      // The next size waits for what this one keeps: the model's pace is the drag's pace. It may
      // be known already, and be there before the reply.
      const checked = question.final || !checkable() ? null : checkedOnce();
      await requests.ask({ kind: "size", ...question });
      await checked;
    },
    () => undefined,
    (refused) => {
      onChecked?.();
      wanted = null;
      size.refuse(refused.message);
      soon();
    },
  );
  const size = circuitSize(signal, {
    size(count, final) {
      wanted = { size: count, since: picture.circuitRevision };
      sizes.ask({ count, final });
      soon();
    },
    check: () => ask({ kind: "check" }, size.refuse),
    save: (format) => void savePage(size.drawn(), "faithfulness", format),
  });
  const switchOver = (addresses: Addresses) => ask({ kind: "switch", addresses }, refuseCircuit);
  const look = (what: string | null) => {
    if (what === looked) return;
    looked = what;
    const node = what === null || what.includes("->") ? null : what;
    map.point(node);
    clearTimeout(resting);
    if (what?.includes("->") && !picture.edges.has(what) && !frame.dead()) {
      resting = setTimeout(() => edges.ask(what), REST);
    } else edges.ask(null);
    soon();
  };
  const edges = newest(
    (address: string) => requests.ask({ kind: "edge", address }),
    (body) => {
      picture.edges.set(body.address, body);
      soon();
    },
    (refused, address) => {
      edgeRefused = { address, sentence: refused.message };
      soon();
    },
  );
  const graph = circuitGraph(signal, {
    switch: switchOver,
    look,
    choose: (id) => list.edit(id),
  });
  const reading = edgeReading();
  const list = circuitList(signal, {
    switch: switchOver,
    annotate: (gesture) => ask({ kind: "annotate", ...gesture }, refuseCircuit),
    look,
    choose(id) {
      chosen = id;
      soon();
    },
    changed: soon,
  });
  const file = circuitFile(signal, frame, refuseCircuit);
  const howMany = select(
    DRAWN.map((each) => [String(each), String(each)] as const),
    { "aria-label": "How many edges are drawn at most" },
    (value) => {
      most = Number(value);
      soon();
    },
    signal,
  );
  const sentence = h("p", {}, "");
  const key = h("span", { class: "pc-key pc-muted" });
  const groups = h("span", { class: "pc-key pc-groups" });
  const graphNote = h("p", { class: "pc-muted pc-small-print" });
  const none = h(
    "p",
    { class: "pc-note pc-first" },
    "No circuit yet: ",
    button("score all edges", { "data-live": true }, () => controls.find(), signal),
    " by how much the metric moves when what they carry is replaced, then take the strongest.",
  );
  const run = h("span", { class: "pc-run", "aria-hidden": "true", hidden: true });
  const found = h(
    "div",
    { class: "pc-circuit-found" },
    h(
      "div",
      { class: "pc-circuit-left" },
      h(
        "div",
        { class: "pc-line pc-graph-head" },
        sentence,
        h("label", { class: "pc-field pc-to-end" }, "draw at most", howMany),
        h(
          "span",
          { class: "pc-group" },
          ...saveButtons(
            "the graph",
            (format) => void savePage(graph.drawn(), "graph", format),
            signal,
          ),
        ),
      ),
      graph.element,
      h("div", { class: "pc-line" }, key, groups),
      graphNote,
    ),
    h("div", { class: "pc-circuit-side" }, size.element, reading.element, list.element),
  );
  const circuit = h(
    "section",
    { class: "pc-part pc-circuit", "aria-label": "Circuit" },
    run,
    h(
      "div",
      { class: "pc-line pc-section-head" },
      h("h3", { class: "pc-title" }, "circuit"),
      controls.element,
      file.element,
    ),
    circuitError,
    none,
    found,
    file.listing,
  );

  // --- patching and interaction ---
  const patching = patchingPanel(signal, {
    start: (direction, over) => ask({ kind: "patching", direction, over }, patching.refuse),
    stop: () => frame.halt(),
    select: (address) => choose([address], false),
    changed: soon,
    save: (format) => void saveMap("patching", format),
    announce,
  });
  const interaction = interactionPanel(signal, {
    interact: (a, b) =>
      requests.ask({ kind: "interact", a: a as Addresses, b: b as Addresses, how: replacement() }),
    select: (address) => choose([address], false),
    changed: soon,
  });
  const encoder = h("p", { class: "pc-note", hidden: true });
  frame.body.append(
    h(
      "div",
      { class: "pc-head" },
      h("div", { class: "pc-prompts" }, pairs.element, text.element, pairs.corrupt),
      metric.element,
    ),
    frame.failure,
    encoder,
    components,
    stacked.element,
    circuit,
    h("div", { class: "pc-last" }, patching.element, interaction.element),
    frame.foot,
  );

  // --- what is chosen ---
  function replacement(): Replacement {
    return how ?? picture.map?.how ?? "mean";
  }
  function sizeNow(): number {
    return wanted?.size ?? picture.circuit?.selection?.size ?? 0;
  }
  /** Whether there is something to put in the place of what edges carry. */
  function checkable(): boolean {
    return picture.graph?.how !== "corrupt" || picture.circuit?.refusals.corrupt === null;
  }
  /** Resolves with the next check, or when none is to come. */
  function checkedOnce(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        onChecked = null;
        resolve();
      };
      const timer = setTimeout(done, GIVE_UP);
      onChecked = done;
    });
  }

  // --- files ---
  function caption(title: string, what: string) {
    const font = getComputedStyle(frame.root).getPropertyValue("--pc-code") || "monospace";
    return { title, what, theme: frame.theme(), font };
  }
  async function hand(svg: string, name: string, format: Format): Promise<void> {
    const file = fileName(["patchclamp", name], format);
    if (format === "svg") download(file, svg, "image/svg+xml");
    else download(file, await toPng(svg));
    announce(`Saved ${file}`);
  }
  async function saveMap(what: "map" | "patching", format: Format): Promise<void> {
    const unit = picture.circuit?.unit ?? "";
    const drawn = map.drawn();
    const seen =
      what === "patching"
        ? patching.drawn()
        : drawn === null
          ? null
          : {
              picture: drawn,
              title: `Ablating each component, ${measured}`,
              what: unit === "" ? "effect" : `effect, ${unit}`,
            };
    if (seen === null) return;
    await hand(heatMapSvg(seen.picture, caption(seen.title, seen.what)), what, format);
  }
  async function savePage(
    drawn: { svg: SVGSVGElement; width: number; height: number } | null,
    name: string,
    format: Format,
  ): Promise<void> {
    if (drawn === null) return;
    const title = `${name === "graph" ? "Circuit" : "Faithfulness against size"}, ${sentence.textContent}`;
    await hand(pageSvg(drawn, caption(title, "")), name, format);
  }

  // --- showing it ---
  function graphLegend(theme: Theme): void {
    key.replaceChildren(
      keyItem("line", "replacing it lowers the metric: it helps", css(redBlue(-0.85, theme))),
      keyItem("line", "replacing it raises the metric", css(redBlue(0.85, theme))),
      h("span", {}, "width: the root of the effect"),
    );
  }

  function paint(dead: boolean): void {
    const { state, result } = picture;
    const now = picture.circuit;
    if (state === null || now === null) return;
    const theme = frame.theme();
    text.update(state, result?.moved ?? null, true, result?.moved_as);
    pairs.update(now, state);
    metric.update(now, state.metric, result?.metric ?? null, theme);
    const by = replacement();
    const shown = { how: by, measured, selected };
    map.update(picture, shown);
    table.update(picture, shown, theme);
    drill.update(picture, selected, by);
    lookInside(dead);
    showStack(rows, stacked, picture, picture.revision, state, !dead);
    const why = now.refusals.prediction;
    for (const part of [metric.element, distribution]) set(part, { hidden: why !== null });
    say(encoder, why ?? "");
    set(encoder, { hidden: why === null });
    next.update(result?.top ?? [], state.metric?.target.id ?? null, true, theme);
    showCircuit(now, theme);
    patching.update(picture);
    interaction.update(picture, selected, by);
  }

  /** From which revision on what is inside of a component holds. */
  function holdsSince(): number {
    return picture.circuit?.holds_since.map ?? 0;
  }
  function lookInside(dead: boolean): void {
    const [address, ...more] = selected;
    if (!drilling || dead || address === undefined || more.length > 0) return;
    const [key, since] = [drillKey(address, replacement()), holdsSince()];
    const question = `${key} ${since}`;
    if ((drilled.get(key)?.since ?? -1) >= since || drillAsked === question) return;
    drillAsked = question;
    clearTimeout(settling);
    settling = setTimeout(() => drills.ask({ address, how: replacement(), since }), SETTLE);
  }

  /** The edges of the circuit, kept until something makes them others. */
  let kept: { of: readonly unknown[]; edges: CircuitEdge[] } = { of: [], edges: [] };
  function edgesNow(of: Unpacked<Graph>, now: Circuit): CircuitEdge[] {
    const selection = now.selection ?? NOTHING;
    const key = [of, now.selection, sizeNow()];
    if (kept.of.some((each, i) => each !== key[i]) || kept.of.length === 0) {
      kept = { of: key, edges: edgesOf(of, selection, sizeNow(), now) };
    }
    return kept.edges;
  }

  function showCircuit(now: Circuit, theme: Theme): void {
    const { graph: scored } = picture;
    if (
      wanted !== null &&
      !sizes.busy() &&
      !size.dragging() &&
      picture.circuitRevision > wanted.since
    ) {
      wanted = null;
    }
    controls.update(picture);
    const progress = picture.progress.get("find") ?? null;
    set(run, { hidden: progress === null });
    if (progress !== null)
      run.style.width = `${(100 * progress.done) / Math.max(1, progress.total)}%`;
    const refused = now.refusals.edges ?? now.refusals.prediction;
    set(none, { hidden: scored !== null || progress !== null || refused !== null });
    set(found, { hidden: scored === null });
    set(file.element, { "data-empty": scored === null });
    for (const each of file.element.querySelectorAll("button")) {
      if (each.textContent !== "open") set(each, { "data-off": scored === null });
    }
    if (scored === null) return;
    size.update(picture, sizeNow());
    const all = edgesNow(scored, now);
    const drawn = all.slice(0, most);
    const nodes = nodesOf(drawn, now.selection ?? NOTHING, now);
    if (chosen !== null && !nodes.some((node) => node.id === chosen)) chosen = null;
    const stale = scored.revision < now.holds_since.graph;
    graph.update({
      nodes,
      edges: drawn,
      circuit: now,
      looked,
      chosen,
      stale,
      settled: !size.dragging(),
    });
    reading.update(lookedAt(all, nodes), now.unit, theme);
    howMany.value = String(most);
    const inside = drawn.filter((edge) => edge.inside).length;
    const out = all.filter((edge) => !edge.inside).length;
    const sure = wanted === null ? now.selection : null;
    const byNodes = scored.of === "nodes";
    const count = sure !== null ? sure.edges : byNodes ? all.length - out : sizeNow();
    list.update(nodes, all, Math.max(count + out, all.length), chosen, theme);
    const edgesWords = count === 1 ? "one edge" : `${count.toLocaleString("en-US")} edges`;
    const of = byNodes
      ? `${sizeNow().toLocaleString("en-US")} nodes and ${edgesWords}`
      : edgesWords;
    say(
      sentence,
      count === 0
        ? "The circuit is empty: move the slider to the right."
        : count > inside
          ? `The circuit has ${of}; the ${inside} strongest ${inside === 1 ? "is" : "are"} drawn.`
          : `The circuit has ${of}, all drawn.`,
    );
    const names = groupsOf(nodes);
    groups.replaceChildren(
      ...names.map((name, i) => {
        const item = keyItem("group", name);
        const swatch = item.querySelector<HTMLElement>(".pc-swatch");
        if (swatch !== null) swatch.style.backgroundColor = css(groupColour(i));
        return item;
      }),
    );
    const { clean, corrupt, note } = scored;
    const between =
      clean === null || corrupt === null
        ? ""
        : `: ${short(clean)} becomes ${short(corrupt)} with everything replaced`;
    const old = stale ? "Scored under another prompt, metric or stack: find again. " : "";
    say(
      graphNote,
      `${old}${METHOD[scored.method]}; ${scored.of === "nodes" ? "components scored" : "edges scored"}, replaced by ${scored.how === "zero" ? "zero" : `the ${scored.how}`}${between}. ${note}`.trim(),
    );
  }

  function lookedAt(all: readonly CircuitEdge[], nodes: readonly CircuitNode[]): Looked | null {
    if (looked === null) return null;
    const edge = all.find((each) => each.address === looked);
    if (edge !== undefined) {
      return {
        edge,
        body: picture.edges.get(edge.address) ?? null,
        refused: edgeRefused.address === edge.address ? edgeRefused.sentence : "",
      };
    }
    const node = nodes.find((each) => each.id === looked);
    return node === undefined ? null : { node, edges: all };
  }

  signal.addEventListener(
    "abort",
    () => {
      clearTimeout(resting);
      clearTimeout(settling);
      onChecked?.();
    },
    { once: true },
  );
  frame.start();
}

/** A circuit that nobody has chosen yet. */
const NOTHING: Selected = { size: 0, edges: 0, added: [], removed: [], inside: null, notes: [] };

const METHOD: Record<Graph["method"], string> = {
  "eap-ig": "EAP-IG",
  eap: "EAP",
  attribution: "Attribution patching",
  acdc: "ACDC",
};

export default { render };
