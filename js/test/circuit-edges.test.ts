import { expect, test } from "vitest";
import {
  addressesOf,
  type CircuitEdge,
  edgesOf,
  levelOf,
  nodeOf,
  nodesOf,
  type Selected,
  sharersOf,
  thresholdOf,
} from "../src/circuit-edges";
import { componentOf, disagreement, indexOfComponent } from "../src/circuit-picture";
import { readAt, shareOf, sizeAt } from "../src/faithfulness-plot";
import { single } from "../src/format";
import { difference } from "../src/pairs-panel";
import { recovered } from "../src/patching-panel";

const OWN = { heads: 4, kv_heads: 4 };
const SHARED = { heads: 6, kv_heads: 2 };
const NODES = ["embed", "L0.H1", "L1.H2:q", "L1.H0:k", "L0.mlp", "logits"];

function graph(of: "edges" | "nodes" = "edges") {
  const numbers = (...values: number[]) => Float32Array.from(values);
  return {
    revision: 1,
    method: "eap" as const,
    of,
    how: "mean" as const,
    nodes: NODES,
    source: numbers(0, 1, 1, 4),
    reader: numbers(4, 2, 3, 5),
    estimate: numbers(-2, 1, 0.5, -0.25),
    exact: numbers(-1.9, -1, Number.NaN, Number.NaN),
    total: 40,
    clean: 1,
    corrupt: 0,
    sizes: numbers(1, 4, 12, 40),
    thresholds: numbers(2, 0.25, 0.1, 0.001),
    note: "",
  };
}
const chosen = (changes: Partial<Selected> = {}): Selected => ({
  size: 3,
  edges: 3,
  added: [],
  removed: [],
  inside: null,
  notes: [],
  ...changes,
});
const addresses = (edges: readonly CircuitEdge[], inside = true) =>
  edges.filter((edge) => edge.inside === inside).map((edge) => edge.address);

test("a circuit is its strongest edges, with what was switched in and without what was switched out", () => {
  expect(addresses(edgesOf(graph(), chosen(), 2, OWN))).toEqual([
    "embed->L0.mlp",
    "L0.H1->L1.H2:q",
  ]);
  const switched = chosen({ added: ["L0.mlp->logits"], removed: ["L0.H1"] });
  const edges = edgesOf(graph(), switched, 3, OWN);
  expect(addresses(edges)).toEqual(["embed->L0.mlp", "L0.mlp->logits"]);
  expect(addresses(edges, false)).toEqual(["L0.H1->L1.H2:q", "L0.H1->L1.H0:k"]);
});

test("what Python says is inside counts, but while a slider is at another size", () => {
  const marked = chosen({ inside: Float32Array.from([1, 0, 2, 1]) });
  expect(addresses(edgesOf(graph(), marked, 3, OWN))).toEqual(["embed->L0.mlp", "L0.mlp->logits"]);
  expect(addresses(edgesOf(graph(), marked, 3, OWN), false)).toEqual(["L0.H1->L1.H0:k"]);
  expect(addresses(edgesOf(graph(), marked, 1, OWN))).toEqual(["embed->L0.mlp"]);
  // Which edges so many nodes have between them only Python knows.
  expect(edgesOf(graph("nodes"), marked, 1, OWN)).toHaveLength(3);
});

test("estimates that exact values contradict are flagged", () => {
  const [, other] = edgesOf(graph(), chosen(), 4, OWN);
  expect(other?.disagree).toBe("sign");
  expect(disagreement(1, 0.6)).toBe("half");
  expect(disagreement(1, 0.7)).toBeNull();
  expect(disagreement(1, Number.NaN)).toBeNull();
});

test("shared keys and values are a node of their own, below the heads that read them", () => {
  expect(nodeOf("L1.H0:k", OWN)).toBe("L1.H0");
  expect(nodeOf("L1.H0:k", SHARED)).toBe("L1.H0:kv");
  expect(nodeOf("L1.H2:q", SHARED)).toBe("L1.H2");
  expect(sharersOf("L1.H3:kv", SHARED)).toEqual(["L1.H3", "L1.H4", "L1.H5"]);
  expect(addressesOf("L1.H3:kv", SHARED)).toEqual(["L1.H3:k", "L1.H3:v"]);
  expect(addressesOf("L1.H3", OWN)).toEqual(["L1.H3", "L1.H3:k", "L1.H3:v"]);
  expect(addressesOf("L1.mlp", OWN)).toEqual(["L1.mlp"]);
  const order = ["embed", "L0.H1:kv", "L0.H1", "L0.mlp", "L1.H0", "logits"];
  expect([...order].sort((a, b) => levelOf(a) - levelOf(b))).toEqual(order);
});

test("nodes have their names, pinned ones stay without an edge, and what is put back is what was out", () => {
  const note = { pinned: true, name: "mover", group: "late" };
  const selection = chosen({ removed: ["L1.H2:k"], notes: [{ address: "L3.mlp", ...note }] });
  const nodes = nodesOf(edgesOf(graph(), selection, 3, OWN), selection, OWN);
  expect(nodes.map((node) => node.id)).toEqual([
    "embed",
    "L0.H1",
    "L0.mlp",
    "L1.H0",
    "L1.H2",
    "L3.mlp",
  ]);
  expect(nodes.at(-1)).toMatchObject({ ...note, incoming: 0, outgoing: 0 });
  const out = nodes.find((node) => node.id === "L1.H2");
  expect(out).toMatchObject({ inside: false, addresses: ["L1.H2:k"], address: "L1.H2" });
});

test("a size's threshold is that of its last edge, or of the next size that is known", () => {
  expect(thresholdOf(graph(), 2)).toBe(1);
  expect(thresholdOf(graph(), 4)).toBe(0.25);
  expect(thresholdOf(graph(), 9)).toBeCloseTo(0.1, 6);
  expect(thresholdOf(graph("nodes"), 2)).toBe(0.25);
});

test("sizes lie on a logarithm, and every size comes back from its place", () => {
  for (const total of [1, 2, 81, 70651]) {
    expect(sizeAt(shareOf(total, total), total)).toBe(total);
    expect(shareOf(1, total)).toBe(total === 1 ? 1 : 0);
    for (const size of [1, 2, 9, 400].filter((each) => each <= total)) {
      expect(sizeAt(shareOf(size, total), total)).toBe(size);
    }
  }
});

test("between two measured sizes the curve says what lies between, and nothing outside", () => {
  const [sizes, values] = [
    [1, 10, 100, 1000],
    [0, 0.5, Number.NaN, 1],
  ].map((each) => Float32Array.from(each)) as [Float32Array, Float32Array];
  expect(readAt(sizes, values, 10)).toBe(0.5);
  expect(readAt(sizes, values, 100)).toBeCloseTo(0.75, 6);
  expect(readAt(sizes.slice(1), values.slice(1), 5)).toBeNull();
  expect(readAt(sizes, values, 2000)).toBeNull();
});

test("components have addresses, and addresses their place in the map", () => {
  const circuit = { layers: 3, heads: 2, mlp: true } as never;
  const all = Array.from({ length: 9 }, (_, i) => componentOf(circuit, i));
  expect(all.slice(0, 4)).toEqual(["L0.H0", "L0.H1", "L0.mlp", "L1.H0"]);
  expect(all.map((each) => indexOfComponent(circuit, each))).toEqual([...Array(9).keys()]);
  for (const wrong of ["L3.H0", "L0.H2", "L0.N4", "embed"]) {
    expect(indexOfComponent(circuit, wrong), wrong).toBe(-1);
  }
});

test("what differs between two prompts is marked in whole words", () => {
  const marked = (clean: string, corrupt: string) =>
    difference(clean, corrupt).map((part) =>
      typeof part === "string" ? part : `[${part.textContent}]`,
    );
  expect(marked("The capital of France is", "The capital of Finland is").join("")).toBe(
    "The capital of [Finland] is",
  );
  expect(marked("same", "same")).toEqual(["same"]);
  expect(marked("a b c", "x b z").join("")).toBe("[x b z]");
});

test("a share of nothing is no number", () => {
  expect(recovered(1.5, 2, 1)).toBe(0.5);
  expect(recovered(1, 1, 1)).toBeNaN();
});

test("a number that came as float32 has the digits of one", () => {
  for (const value of [0.1, -12.7, 1 / 3, 6.25e-8, 70651]) {
    const text = single(Math.fround(value));
    expect(text.length).toBeLessThan(14);
    expect(Math.fround(Number(text.replace("−", "-")))).toBe(Math.fround(value));
  }
  expect(single(0.1)).toBe("0.1");
});
