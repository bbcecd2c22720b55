// The circuit as a graph: layers from bottom to top, an edge as wide as its effect and in the colour
// of its sign. A click switches a node or an edge out of the circuit, or back in.
import { onResize } from "./canvas";
import {
  type Addresses,
  type CircuitEdge,
  type CircuitNode,
  labelOf,
  levelOf,
  sharersOf,
  strengthOf,
} from "./circuit-edges";
import type { Circuit } from "./circuit-picture";
import { css, LIGHT, type Rgb, redBlue, type Theme } from "./colour";
import { focused, h, keyed, s, say, set } from "./dom";
import { count, signed } from "./format";
import { type GraphLayout, layoutGraph, pathOf } from "./graph-layout";
import { mix } from "./heat-bar";

export interface GraphPicture {
  nodes: readonly CircuitNode[];
  /** Strongest first. */
  edges: readonly CircuitEdge[];
  circuit: Circuit;
  /** What is looked at in the list: a node's id or an edge's address. */
  looked: string | null;
  /** The node that is being named. */
  chosen: string | null;
  stale: boolean;
  /** While false, someone drags: nodes stay where they are. */
  settled: boolean;
}

export interface CircuitGraphActions {
  switch(addresses: Addresses): void;
  /** A node's id or an edge's address is under the pointer, or has the focus. */
  look(what: string | null): void;
  /** A node is to be named. */
  choose(id: string): void;
}

export interface CircuitGraph {
  element: HTMLElement;
  update(picture: GraphPicture): void;
  paint(theme: Theme): void;
  /** The drawing as it is, for a file. */
  drawn(): { svg: SVGSVGElement; width: number; height: number } | null;
}

/** Okabe and Ito's colours, for groups. */
const GROUPS: readonly Rgb[] = [
  [230, 159, 0],
  [0, 158, 115],
  [204, 121, 167],
  [86, 180, 233],
  [213, 94, 0],
  [240, 228, 66],
];
const LONGEST = 14; // letters of a name
const WIDE = 7; // pixels, of the strongest edge

export function groupColour(index: number): Rgb {
  return GROUPS[index % GROUPS.length] as Rgb;
}

/** The groups of some nodes, in the order of their names. */
export function groupsOf(nodes: readonly CircuitNode[]): string[] {
  return [...new Set(nodes.map((node) => node.group))].filter((group) => group !== "").sort();
}

export function circuitGraph(signal: AbortSignal, actions: CircuitGraphActions): CircuitGraph {
  const shared = s("g");
  const lines = s("g", { class: "pc-edges" });
  const strokes = new Map<string | number, Stroke>();
  const knots = s("g", { class: "pc-nodes" });
  const svg = s(
    "svg",
    {
      class: "pc-graph-svg",
      role: "group",
      "aria-label":
        "Graph of the circuit, layers from bottom to top; arrow keys move between nodes, Enter switches one, N names it",
    },
    shared,
    lines,
    knots,
  );
  const element = h("div", { class: "pc-graph-box" });
  element.append(svg);
  let picture: GraphPicture | null = null;
  let theme = LIGHT;
  let placed: GraphLayout | null = null;
  /** What the layout was made of: the same again is not made again. */
  let made = "";
  let hovered: string | null = null;
  /** The one node that the Tab key reaches. */
  let roving: string | null = null;
  const looks = new WeakMap<SVGElement, string>();
  let ticket = 0;
  signal.addEventListener("abort", () => cancelAnimationFrame(ticket), { once: true });
  const soon = () => {
    cancelAnimationFrame(ticket);
    ticket = requestAnimationFrame(draw);
  };

  const unitOf = () => Number.parseFloat(getComputedStyle(element).fontSize) / 13;
  const nameOf = (node: CircuitNode) => {
    const label = labelOf(node);
    return label.length > LONGEST ? `${label.slice(0, LONGEST - 1)}…` : label;
  };

  function place(now: GraphPicture): GraphLayout | null {
    const width = element.clientWidth;
    if (width < 1) return null;
    const unit = unitOf();
    const key = JSON.stringify([
      now.nodes.map((node) => nameOf(node)),
      now.edges.map((edge) => edge.address),
      Math.round(width),
      unit,
    ]);
    if (key === made || (!now.settled && placed !== null)) return placed;
    made = key;
    const there = new Set(now.nodes.map((node) => node.id));
    const most = Math.max(...now.edges.map((edge) => Math.abs(strengthOf(edge))), 0) || 1;
    return layoutGraph(
      now.nodes.map((node) => ({
        id: node.id,
        level: levelOf(node.id),
        width: (Math.max(4, nameOf(node).length) * 6.7 + (node.pinned ? 24 : 14)) * unit,
      })),
      now.edges.map((edge) => ({
        id: edge.address,
        from: edge.from,
        to: edge.to,
        strength: Math.abs(strengthOf(edge)) / most,
      })),
      { width, unit },
      now.nodes.flatMap((node) =>
        sharersOf(node.id, now.circuit)
          .filter((head) => there.has(head))
          .map((head) => ({ from: node.id, to: head, strength: 1 })),
      ),
    );
  }

  function draw(): void {
    const now = picture;
    if (now === null) return;
    placed = place(now);
    if (placed === null) return;
    const { width, height } = placed;
    const unit = unitOf();
    const most = Math.max(...now.edges.map((edge) => Math.abs(strengthOf(edge))), 0) || 1;
    set(svg, { viewBox: `0 0 ${width} ${height}`, width, height });
    const focus = hovered ?? now.looked;
    const near = focus === null ? null : nearOf(focus, now);
    const dim = (what: string) => near !== null && !near.has(what);
    const quiet = css(mix(theme.background, theme.ink, 0.35));

    shared.replaceChildren(...structure(now, placed, quiet, near));
    // The strongest first: thin lines lie over wide ones, where they can be seen and hit.
    const { edges: ways } = placed;
    const seen = now.edges.filter((edge) => ways.has(edge.address));
    const parts = keyed(lines, strokes, seen, (edge) => edge.address, stroke);
    for (const [i, edge] of seen.entries()) {
      const part = parts[i];
      if (part === undefined) continue;
      const value = strengthOf(edge);
      // One edge is often far stronger than all others: by the root, those can be told apart too.
      const wide = Math.max(1, WIDE * Math.sqrt(Math.abs(value) / most)) * unit;
      const faint = dim(edge.address) ? 0.12 : edge.inside ? 0.85 : 0.7;
      set(part.element, { "data-inside": edge.inside, opacity: faint });
      const d = pathOf(ways.get(edge.address) ?? []);
      set(part.seen, {
        d,
        stroke: edge.inside ? css(redBlue(Math.sign(value) * 0.85, theme)) : quiet,
        "stroke-width": edge.inside ? wide : unit,
        "stroke-dasharray": edge.inside ? null : `${3 * unit} ${3 * unit}`,
      });
      set(part.hit, { d, "stroke-width": Math.max(10 * unit, wide + 4 * unit) });
      say(part.title, edgeWords(edge));
    }

    const groups = groupsOf(now.nodes);
    const known = new Map(
      [...knots.children].map((each) => [(each as SVGElement).dataset.node, each]),
    );
    if (!now.nodes.some((node) => node.id === roving)) roving = now.nodes[0]?.id ?? null;
    const knotted: SVGElement[] = [];
    for (const node of now.nodes) {
      const at = placed.nodes.get(node.id);
      if (at === undefined) continue;
      const knot = (known.get(node.id) as SVGGElement | undefined) ?? s("g", { class: "pc-node" });
      const group = groups.indexOf(node.group);
      set(knot, {
        "data-node": node.id,
        role: "button",
        tabindex: node.id === roving ? 0 : -1,
        transform: `translate(${round(at.x)} ${round(at.y)})`,
        opacity: dim(node.id) ? 0.35 : 1,
        "aria-pressed": node.inside ? "true" : "false",
        "aria-disabled": element.closest("[data-dead]") !== null ? "true" : null,
        "aria-label": spoken(node),
      });
      // What stands under a pointer that is down stays: a click is of one and the same element.
      const look = JSON.stringify([node, at, theme, group, node.id === now.chosen]);
      if (looks.get(knot) !== look) {
        looks.set(knot, look);
        knot.replaceChildren(...insideOf(node, at, group, now, unit));
      }
      knotted.push(knot);
    }
    const held = [...knots.children];
    if (held.length !== knotted.length || held.some((each, i) => each !== knotted[i])) {
      // What moves in the page loses the focus.
      const had = focused(element);
      knots.replaceChildren(...knotted);
      if (had instanceof SVGElement && knots.contains(had)) had.focus();
    }
    svg.style.opacity = now.stale ? "0.6" : "";
  }

  /** A node's box, its group's colour, its words and its pin. */
  function insideOf(
    node: CircuitNode,
    at: { width: number; height: number },
    group: number,
    now: GraphPicture,
    unit: number,
  ): SVGElement[] {
    const [left, top] = [-at.width / 2, -at.height / 2];
    const ground = mix(theme.background, theme.ink, 0.05);
    const quiet = css(mix(theme.background, theme.ink, 0.35));
    const ink = css(theme.ink);
    return [
      s("title", {}, titleOf(node, now.circuit)),
      s("rect", {
        x: left,
        y: top,
        width: at.width,
        height: at.height,
        rx: 3,
        fill: css(node.inside ? ground : theme.background),
        stroke:
          node.id === now.chosen
            ? accentOf(svg)
            : node.inside
              ? css(mix(theme.background, theme.ink, 0.55))
              : quiet,
        "stroke-width": node.id === now.chosen ? 2 * unit : 1,
        "stroke-dasharray": node.inside ? null : `${3 * unit} ${2 * unit}`,
      }),
      ...(group < 0
        ? []
        : [
            s("rect", {
              x: left,
              y: top,
              width: 4 * unit,
              height: at.height,
              rx: 2,
              fill: css(groupColour(group)),
            }),
          ]),
      s(
        "text",
        {
          x: node.pinned ? -5 * unit : 0,
          y: 4 * unit,
          "text-anchor": "middle",
          "font-size": 11 * unit,
          fill: node.inside ? ink : css(mix(theme.background, theme.ink, 0.65)),
          "text-decoration": node.inside ? null : "line-through",
        },
        nameOf(node),
      ),
      ...(node.pinned ? [pin(at.width / 2 - 9 * unit, unit, ink)] : []),
    ];
  }

  interface Stroke {
    element: SVGGElement;
    seen: SVGPathElement;
    hit: SVGPathElement;
    title: SVGTitleElement;
  }
  function stroke({ address }: CircuitEdge): Stroke {
    const title = s("title");
    const seen = s("path", { fill: "none" });
    const hit = s("path", { class: "pc-edge-hit", fill: "none", stroke: "transparent" });
    return {
      element: s("g", { class: "pc-edge", "data-edge": address }, title, seen, hit),
      seen,
      hit,
      title,
    };
  }

  /** Shared keys and values reach their heads: thin lines that carry no number. */
  function structure(
    now: GraphPicture,
    layout: GraphLayout,
    colour: string,
    near: ReadonlySet<string> | null,
  ): SVGElement[] {
    return now.nodes.flatMap((node) =>
      sharersOf(node.id, now.circuit).flatMap((head) => {
        const [from, to] = [layout.nodes.get(node.id), layout.nodes.get(head)];
        if (from === undefined || to === undefined) return [];
        const d = pathOf([
          { x: from.x, y: from.y - from.height / 2 },
          { x: to.x, y: to.y + to.height / 2 },
        ]);
        const dim = near !== null && !(near.has(node.id) && near.has(head));
        return [
          s("path", {
            class: "pc-shared",
            d,
            fill: "none",
            stroke: colour,
            "stroke-width": 1,
            "stroke-dasharray": "1 2",
            opacity: dim ? 0.2 : 1,
          }),
        ];
      }),
    );
  }

  function round(x: number): number {
    return Math.round(x * 10) / 10;
  }

  // --- gestures ---
  const whatOf = (target: EventTarget | null): { node?: string; edge?: string } => {
    const part = (target as Element).closest<SVGElement>("[data-node], [data-edge]");
    const { node, edge } = part?.dataset ?? {};
    return { ...(node !== undefined && { node }), ...(edge !== undefined && { edge }) };
  };
  const press = (event: Event, choose: boolean) => {
    const { node, edge } = whatOf(event.target);
    const found = picture?.nodes.find((each) => each.id === node);
    if (found !== undefined && choose) actions.choose(found.id);
    else if (element.closest("[data-dead]") !== null) return;
    else if (found !== undefined) actions.switch(found.addresses);
    else if (edge !== undefined) actions.switch([edge]);
  };
  const look = (what: string | null) => {
    if (what === hovered) return;
    hovered = what;
    actions.look(what);
    soon();
  };
  svg.addEventListener("click", (event) => press(event, event.shiftKey), { signal });
  svg.addEventListener(
    "pointerover",
    (event) => {
      const { node, edge } = whatOf(event.target);
      look(node ?? edge ?? null);
    },
    { signal },
  );
  svg.addEventListener("pointerleave", () => look(null), { signal });
  knots.addEventListener(
    "focusin",
    (event) => {
      const { node } = whatOf(event.target);
      if (node === undefined) return;
      rove(node);
      look(node);
    },
    { signal },
  );
  knots.addEventListener("focusout", () => look(null), { signal });
  knots.addEventListener(
    "keydown",
    (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { node } = whatOf(event.target);
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
        event.key
      ];
      if (way !== undefined && node !== undefined) {
        const next = nearest(placed, node, way as [number, number]);
        if (next !== null) {
          rove(next);
          knots.querySelector<SVGElement>(`[data-node="${CSS.escape(next)}"]`)?.focus();
        }
      } else if (event.key === "Enter" || event.key === " ") press(event, event.shiftKey);
      else if (event.key.toLowerCase() === "n") press(event, true);
      else return;
      event.preventDefault();
      event.stopPropagation();
    },
    { signal },
  );
  function rove(id: string): void {
    roving = id;
    for (const knot of knots.children) {
      set(knot, { tabindex: (knot as SVGElement).dataset.node === id ? 0 : -1 });
    }
  }

  onResize(element, soon, signal);

  return {
    element,
    update(next) {
      picture = next;
      soon();
    },
    paint(next) {
      theme = next;
      soon();
    },
    drawn: () => (placed === null ? null : { svg, width: placed.width, height: placed.height }),
  };
}

/** What belongs to what is looked at: an edge's ends, a node's edges and their other ends. */
function nearOf(what: string, { nodes, edges, circuit }: GraphPicture): Set<string> | null {
  const near = new Set([what]);
  let known = nodes.some((node) => node.id === what);
  for (const edge of edges) {
    if (edge.address !== what && edge.from !== what && edge.to !== what) continue;
    known = true;
    for (const each of [edge.address, edge.from, edge.to]) near.add(each);
  }
  for (const node of nodes) {
    const sharers = sharersOf(node.id, circuit);
    if (node.id === what) for (const head of sharers) near.add(head);
    else if (sharers.includes(what)) near.add(node.id);
  }
  return known ? near : null;
}

/** The node that lies nearest in a direction; null for none. */
function nearest(
  placed: GraphLayout | null,
  from: string,
  [dx, dy]: readonly [number, number],
): string | null {
  const at = placed?.nodes.get(from);
  if (placed === null || at === undefined) return null;
  let best: string | null = null;
  let least = Number.POSITIVE_INFINITY;
  for (const [id, other] of placed.nodes) {
    const [x, y] = [other.x - at.x, other.y - at.y];
    const along = x * dx + y * dy;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (along < 4 || (dy === 0 && Math.abs(y) > 4)) continue;
    const far = dy === 0 ? along : 4 * along + aside;
    if (far < least) [least, best] = [far, id];
  }
  return best;
}

function spoken(node: CircuitNode): string {
  const label = labelOf(node);
  const what = label === node.address ? label : `${label}, ${node.address}`;
  const edges = `${count(node.incoming, "edge")} in, ${count(node.outgoing, "edge")} out`;
  return `${what}, ${node.inside ? "in the circuit" : "taken out"}, ${edges}${node.pinned ? ", pinned" : ""}`;
}

function titleOf(node: CircuitNode, circuit: Circuit): string {
  const shared = sharersOf(node.id, circuit);
  return [
    node.name === "" ? node.address : `${node.name}: ${node.address}`,
    shared.length > 0 ? `keys and values of ${shared.join(", ")}` : "",
    node.group === "" ? "" : `group: ${node.group}`,
    node.inside ? "Click takes it out of the circuit, Shift+click names it" : "Click puts it back",
  ]
    .filter((line) => line !== "")
    .join("\n");
}

function pin(x: number, unit: number, colour: string): SVGElement {
  const u = (value: number) => value * unit;
  return s("path", {
    d: `M${x - u(3)} ${-u(4)}h${u(6)}l${-u(1.5)} ${u(4)}h${u(1.5)}v${u(1)}h${-u(6)}v${-u(1)}h${u(1.5)}zM${x} ${u(1)}v${u(4)}`,
    fill: colour,
    stroke: colour,
    "stroke-width": unit,
  });
}

function accentOf(element: Element): string {
  return getComputedStyle(element).getPropertyValue("--pc-accent").trim() || "#1976d2";
}

/** "L3.H1->L7.H2:q, effect −0.41" */
export function edgeWords(edge: CircuitEdge): string {
  return `${edge.address}, effect ${signed(strengthOf(edge))}`;
}
