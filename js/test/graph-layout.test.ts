import { expect, test } from "vitest";
import { type GraphEdge, type GraphNode, layoutGraph, pathOf } from "../src/graph-layout";

/** A graph of so many levels, each with some nodes, and edges from each to some above. */
function made(levels: number, wide: number, reach: number) {
  const nodes: GraphNode[] = [];
  const edges: GraphEdge[] = [];
  for (let level = 0; level < levels; level++) {
    for (let i = 0; i < wide; i++) {
      nodes.push({ id: `${level}.${i}`, level, width: 50 });
      for (let up = 1; up <= reach && level + up < levels; up++) {
        const to = `${level + up}.${(i * 7 + up) % wide}`;
        edges.push({ id: `${level}.${i}->${to}`, from: `${level}.${i}`, to, strength: 1 / up });
      }
    }
  }
  return { nodes, edges };
}

for (const [what, levels, wide, reach, width] of [
  ["a few", 4, 3, 2, 700],
  ["many in a narrow place", 12, 9, 3, 450],
] as const) {
  test(`nodes stand in rows inside the width, apart from each other (${what})`, () => {
    const { nodes, edges } = made(levels, wide, reach);
    const { nodes: placed, height } = layoutGraph(nodes, edges, { width, unit: 1 });
    expect(placed.size).toBe(nodes.length);
    const all = [...placed.values()];
    for (const a of all) {
      expect(a.x - a.width / 2).toBeGreaterThanOrEqual(0);
      expect(a.x + a.width / 2).toBeLessThanOrEqual(width);
      expect(a.y - a.height / 2).toBeGreaterThanOrEqual(0);
      expect(a.y + a.height / 2).toBeLessThanOrEqual(height);
      for (const b of all) {
        if (a === b) continue;
        const near = Math.abs(a.x - b.x) < a.width && Math.abs(a.y - b.y) < a.height;
        expect(near).toBe(false);
      }
    }
    for (const low of nodes) {
      for (const high of nodes) {
        if (low.level >= high.level) continue;
        expect(placed.get(low.id)?.y).toBeGreaterThan(placed.get(high.id)?.y ?? 0);
      }
    }
  });
}

test("an edge leaves its node at the top, arrives at the other's bottom, and goes up all the way", () => {
  const { nodes, edges } = made(6, 4, 4);
  const { nodes: placed, edges: lines } = layoutGraph(nodes, edges, { width: 600, unit: 1 });
  for (const edge of edges) {
    const line = lines.get(edge.id) ?? [];
    const [from, to] = [placed.get(edge.from), placed.get(edge.to)];
    expect(line.at(0)?.y).toBe((from?.y ?? 0) - (from?.height ?? 0) / 2);
    expect(line.at(-1)?.y).toBe((to?.y ?? 0) + (to?.height ?? 0) / 2);
    const ys = line.map((point) => point.y);
    expect(ys).toEqual([...ys].sort((a, b) => b - a));
    expect(pathOf(line)).toMatch(/^M[\d. -]+(C[\d. -]+)+$/);
  }
});

test("an edge that passes a row goes around the nodes that stand there", () => {
  const nodes: GraphNode[] = [0, 1, 2].map((level) => ({ id: `${level}`, level, width: 80 }));
  const edge = (from: string, to: string) => ({ id: `${from}->${to}`, from, to, strength: 1 });
  const edges = [edge("0", "1"), edge("1", "2"), edge("0", "2")];
  const { nodes: placed, edges: lines } = layoutGraph(nodes, edges, { width: 500, unit: 1 });
  const middle = placed.get("1");
  const passing = lines.get("0->2")?.find((point) => point.y === middle?.y);
  expect(Math.abs((passing?.x ?? 0) - (middle?.x ?? 0))).toBeGreaterThanOrEqual(40);
});

test("the same graph is laid out the same, and an empty one not at all", () => {
  const { nodes, edges } = made(8, 5, 3);
  const twice = [0, 1].map(() => layoutGraph(nodes, edges, { width: 640, unit: 1 }));
  expect(twice[0]?.nodes).toEqual(twice[1]?.nodes);
  expect(layoutGraph([], [], { width: 640, unit: 1 }).nodes.size).toBe(0);
});

test("150 edges over 60 rows are laid out while nobody notices", () => {
  const { nodes, edges } = made(30, 3, 2);
  const begin = performance.now();
  layoutGraph(nodes, edges.slice(0, 150), { width: 900, unit: 1 });
  expect(performance.now() - begin).toBeLessThan(1500);
});
