// Where the nodes of a circuit stand and how its edges run: layers from bottom to top, in the width
// that there is. The order within a row, and the way around other nodes, are dagre's. A circuit has
// its ranks already, so only those parts of dagre are here: half of it, and half of its nodes.
//
/*! dagre and graphlib: Copyright (c) 2012-2014 Chris Pettitt

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
import { run as normalize } from "@dagrejs/dagre/lib/normalize.js";
import order from "@dagrejs/dagre/lib/order/index.js";
import { positionX } from "@dagrejs/dagre/lib/position/bk.js";
import { Graph } from "@dagrejs/graphlib";

export interface GraphNode {
  id: string;
  /** Rows are levels, the lowest at the bottom; two nodes of one level have no edge between them. */
  level: number;
  /** In pixels. */
  width: number;
}

export interface GraphEdge {
  id: string;
  from: string;
  to: string;
  /** From 0 to 1: strong edges run straighter. */
  strength: number;
}

export interface Point {
  x: number;
  y: number;
}

export interface GraphLayout {
  width: number;
  height: number;
  /** The middle of each node. */
  nodes: Map<string, Point & { width: number; height: number }>;
  /** Points of a smooth line, from the bottom up. */
  edges: Map<string, Point[]>;
}

export interface GraphBox {
  width: number;
  /** CSS pixels to one pixel at the normal type size. */
  unit: number;
}

const HIGH = 24; // of a node: easily hit
const GAP = 10; // between the nodes of a row
const PITCH = [34, 56] as const; // from row to row
const TALL = 720; // all rows, where that leaves room for edges between them
const PAD = 4;
const ASIDE = 5; // between edges that run together
/** So many edges are laid out whole; of more, each node's strongest: dagre gives a long edge a place in
    every row that it passes, and would make a picture of them alone. */
const WHOLE = 90;

/** `links` hold nodes together, and are drawn by whoever wants that. */
export function layoutGraph(
  nodes: readonly GraphNode[],
  edges: readonly GraphEdge[],
  { width, unit }: GraphBox,
  links: readonly Omit<GraphEdge, "id">[] = [],
): GraphLayout {
  const rows = rowsOf(nodes, width - 2 * PAD, unit);
  const rowOf = new Map(rows.flatMap((row, i) => row.map((node) => [node.id, i] as const)));
  const pitch = Math.min(PITCH[1], Math.max(PITCH[0], TALL / Math.max(1, rows.length))) * unit;
  const height = Math.max(1, rows.length - 1) * pitch + (HIGH + 2 * PAD) * unit;
  const held = links.map((link, i) => ({ ...link, id: ` ${i}` }));
  const rough = arrange(nodes, [...held, ...edges], rowOf, unit);
  const placed: GraphLayout = { width, height, nodes: new Map(), edges: new Map() };

  // Dagre's picture is as wide as it likes: it is pressed together, or drawn out a little.
  const press = Math.min(2, (width - 2 * PAD) / Math.max(1, rough.width));
  const stretch = (x: number) => width / 2 + (x - rough.width / 2) * press;
  rows.forEach((row, i) => {
    const y = height - PAD * unit - (HIGH / 2) * unit - i * pitch;
    const wanted = row.map((node) => ({ node, x: stretch(rough.nodes.get(node.id) ?? 0) }));
    for (const { node, x } of apart(wanted, width, GAP * unit)) {
      placed.nodes.set(node.id, { x, y, width: node.width, height: HIGH * unit });
    }
  });

  const ends = portsOf(edges, placed);
  for (const edge of edges) {
    const port = ends.get(edge.id);
    if (port === undefined) continue;
    const [from, to] = port;
    const between = (rough.edges.get(edge.id) ?? [])
      .map(({ x, row }) => ({ x: stretch(x), y: height - (PAD + HIGH / 2) * unit - row * pitch }))
      .filter(({ y }) => y < from.y - pitch / 2 && y > to.y + pitch / 2);
    placed.edges.set(edge.id, [from, ...between, to]);
  }
  return placed;
}

/** Rows from the bottom up: one a level, or several where a level does not fit. */
function rowsOf(nodes: readonly GraphNode[], width: number, unit: number): GraphNode[][] {
  const levels = new Map<number, GraphNode[]>();
  for (const node of nodes) levels.set(node.level, [...(levels.get(node.level) ?? []), node]);
  return [...levels.keys()]
    .sort((a, b) => a - b)
    .flatMap((level) => {
      const rows: GraphNode[][] = [[]];
      let used = 0;
      for (const node of levels.get(level) ?? []) {
        if (used > 0 && used + node.width > width) {
          rows.push([]);
          used = 0;
        }
        rows.at(-1)?.push(node);
        used += node.width + GAP * unit;
      }
      return rows;
    });
}

/** What dagre makes of it: where nodes are from left to right, and where edges pass rows. */
function arrange(
  nodes: readonly GraphNode[],
  edges: readonly GraphEdge[],
  rowOf: ReadonlyMap<string, number>,
  unit: number,
): {
  width: number;
  nodes: Map<string, number>;
  edges: Map<string, { x: number; row: number }[]>;
} {
  const graph = new Graph({ multigraph: true, compound: true });
  graph.setGraph({ nodesep: GAP * unit, edgesep: 4 * unit });
  for (const { id, width } of nodes) {
    graph.setNode(id, { width, height: HIGH * unit, rank: rowOf.get(id) ?? 0 });
  }
  const ways = merged(edges);
  for (const [way, [first]] of ways) {
    if (first !== undefined) {
      graph.setEdge(first.from, first.to, { weight: 1 + 3 * first.strength, minlen: 1 }, way);
    }
  }
  normalize(graph);
  order(graph);
  const flat = new Graph({ multigraph: true });
  flat.setGraph(graph.graph());
  for (const id of graph.nodes()) flat.setNode(id, graph.node(id));
  for (const each of graph.edges()) flat.setEdge(each, graph.edge(each));
  const across = nodes.length === 0 ? {} : positionX(flat);

  const half = (id: string) => flat.node(id).width / 2;
  const least = Math.min(...flat.nodes().map((id) => (across[id] ?? 0) - half(id)));
  const most = Math.max(...flat.nodes().map((id) => (across[id] ?? 0) + half(id)));
  const place = (id: string) => (across[id] ?? 0) - least;
  const passed = new Map<string, { x: number; row: number }[]>();
  const chains: string[] = graph.graph().dummyChains ?? [];
  for (const start of chains) {
    const points: { x: number; row: number }[] = [];
    const way: string = graph.node(start).edgeObj.name;
    for (let id: string | undefined = start; id !== undefined && graph.node(id).dummy; ) {
      points.push({ x: place(id), row: graph.node(id).rank });
      id = graph.successors(id)?.[0];
    }
    const same = ways.get(way) ?? [];
    same.forEach((edge, i) => {
      const aside = (i - (same.length - 1) / 2) * ASIDE * unit;
      passed.set(
        edge.id,
        points.map(({ x, row }) => ({ x: x + aside, row })),
      );
    });
  }
  return {
    width: nodes.length === 0 ? 0 : most - least,
    nodes: new Map(nodes.map(({ id }) => [id, place(id)])),
    edges: passed,
  };
}

/** Edges between the same two nodes run together; of many, only those that show how nodes hang. */
function merged(edges: readonly GraphEdge[]): Map<string, GraphEdge[]> {
  const ways = new Map<string, GraphEdge[]>();
  for (const edge of edges) {
    const way = `${edge.from} ${edge.to}`;
    ways.set(way, [...(ways.get(way) ?? []), edge]);
  }
  if (ways.size <= WHOLE) return ways;
  const kept = new Set(skeleton([...ways.values()].flatMap(([first]) => (first ? [first] : []))));
  return new Map([...ways].filter(([, [first]]) => first !== undefined && kept.has(first)));
}

/** Of each node its strongest edge in and its strongest out; `edges` begin with the strongest. */
function skeleton(edges: readonly GraphEdge[]): GraphEdge[] {
  const into = new Set<string>();
  const from = new Set<string>();
  return edges.filter((edge) => {
    const first = !into.has(edge.to) || !from.has(edge.from);
    into.add(edge.to);
    from.add(edge.from);
    return first;
  });
}

/** Moves the nodes of a row apart, as little as need be, and inside the width. */
function apart<Item extends { node: GraphNode; x: number }>(
  row: readonly Item[],
  width: number,
  gap: number,
): Item[] {
  const items = row.map((item) => ({ ...item })).sort((a, b) => a.x - b.x);
  let left = PAD;
  for (const item of items) {
    item.x = Math.max(item.x, left + item.node.width / 2);
    left = item.x + item.node.width / 2 + gap;
  }
  let right = width - PAD;
  for (const item of items.toReversed()) {
    item.x = Math.min(item.x, right - item.node.width / 2);
    right = item.x - item.node.width / 2 - gap;
  }
  return items;
}

/** Where edges leave and enter their nodes: side by side, in the order of their other ends. */
function portsOf(
  edges: readonly GraphEdge[],
  placed: Pick<GraphLayout, "nodes">,
): Map<string, [from: Point, to: Point]> {
  const result = new Map<string, [Point, Point]>();
  for (const edge of edges) {
    const [from, to] = [placed.nodes.get(edge.from), placed.nodes.get(edge.to)];
    if (from === undefined || to === undefined) continue;
    result.set(edge.id, [
      { x: from.x, y: from.y - from.height / 2 },
      { x: to.x, y: to.y + to.height / 2 },
    ]);
  }
  for (const end of [0, 1] as const) {
    const byNode = new Map<string, GraphEdge[]>();
    for (const edge of edges) {
      if (!result.has(edge.id)) continue;
      const id = end === 0 ? edge.from : edge.to;
      byNode.set(id, [...(byNode.get(id) ?? []), edge]);
    }
    for (const [id, own] of byNode) {
      const node = placed.nodes.get(id);
      if (node === undefined || own.length < 2) continue;
      const other = (edge: GraphEdge) => result.get(edge.id)?.[1 - end]?.x ?? 0;
      const room = Math.min(node.width - 12, 7 * (own.length - 1));
      own
        .toSorted((a, b) => other(a) - other(b))
        .forEach((edge, i) => {
          const port = result.get(edge.id)?.[end];
          if (port !== undefined) port.x = node.x + room * (i / (own.length - 1) - 0.5);
        });
    }
  }
  return result;
}

/** A smooth line through points that leaves and arrives upright. */
export function pathOf(points: readonly Point[]): string {
  const [first, ...rest] = points;
  if (first === undefined) return "";
  let path = `M${round(first.x)} ${round(first.y)}`;
  let from = first;
  for (const to of rest) {
    const rise = from.y - to.y;
    const bend = points.length === 2 ? Math.min(rise / 2, 40 + 0.2 * rise) : rise / 2;
    path += `C${round(from.x)} ${round(from.y - bend)} ${round(to.x)} ${round(to.y + bend)} ${round(to.x)} ${round(to.y)}`;
    from = to;
  }
  return path;
}

function round(x: number): number {
  return Math.round(x * 10) / 10;
}
