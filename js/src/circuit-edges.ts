// Which edges are in the circuit: the strongest, but for what was switched by hand; and the nodes
// that they run between. With shared keys and values a key/value head is a node of its own.
import { type Circuit, disagreement } from "./circuit-picture";
import type { EdgeBody, Graph, NodeNote } from "./messages";
import type { Unpacked } from "./transport";

export interface CircuitEdge {
  /** "L3.H1->L7.H2:q" */
  address: string;
  source: string;
  /** With its part, "L7.H2:q". */
  reader: string;
  /** The nodes that it is drawn between. */
  from: string;
  to: string;
  estimate: number;
  /** NaN where it was not measured. */
  exact: number;
  disagree: EdgeBody["disagree"];
  /** False: it was taken out by hand. */
  inside: boolean;
}

/** At least one, as messages want it. */
export type Addresses = [string, ...string[]];

export interface CircuitNode {
  /** What it is drawn as: "L5.H3", "L5.mlp", "embed", "logits", "L7.H0:kv". */
  id: string;
  /** What it is called when it is named. */
  address: string;
  /** What is switched with it: what it reads and what it writes. */
  addresses: Addresses;
  name: string;
  group: string;
  pinned: boolean;
  /** False: it was taken out by hand. */
  inside: boolean;
  /** How many of the edges listed come in and go out. */
  incoming: number;
  outgoing: number;
}

/** What the heads of a model share. */
type Sharing = Pick<Circuit, "heads" | "kv_heads">;
export type Selected = NonNullable<Circuit["selection"]>;

/** The address of an edge of the graph. */
export function edgeAddress(graph: Unpacked<Graph>, index: number): string {
  const source = graph.nodes[graph.source[index] ?? -1] ?? "";
  const reader = graph.nodes[graph.reader[index] ?? -1] ?? "";
  return `${source}->${reader}`;
}

/** The strength of an edge: exact where that was measured. */
export function strengthOf(edge: Pick<CircuitEdge, "estimate" | "exact">): number {
  return Number.isNaN(edge.exact) ? edge.estimate : edge.exact;
}

/**
 * The edges of a circuit of `size`, strongest first, and those taken out of it by hand. Of edges
 * that the page was not sent nothing is known but how many they are. Python says which they are;
 * until it has, while a slider moves, they are the strongest.
 */
export function edgesOf(
  graph: Unpacked<Graph>,
  selection: Selected,
  size: number,
  sharing: Sharing,
): CircuitEdge[] {
  const added = new Set(selection.added);
  const removed = new Set(selection.removed);
  const marks = selection.inside?.length === graph.source.length ? selection.inside : null;
  const known = marks !== null && (size === selection.size || graph.of === "nodes");
  const result: CircuitEdge[] = [];
  for (let i = 0; i < graph.source.length; i++) {
    const source = graph.nodes[graph.source[i] ?? -1];
    const reader = graph.nodes[graph.reader[i] ?? -1];
    if (source === undefined || reader === undefined) continue;
    const address = `${source}->${reader}`;
    const to = nodeOf(reader, sharing);
    const out = [address, source, reader, to].some((each) => removed.has(each));
    const mark = known ? marks[i] : i < size || added.has(address) ? (out ? 2 : 1) : 0;
    if (mark === 0) continue;
    const estimate = graph.estimate[i] ?? Number.NaN;
    const exact = graph.exact[i] ?? Number.NaN;
    result.push({
      address,
      source,
      reader,
      from: source,
      to,
      estimate,
      exact,
      disagree: disagreement(estimate, exact),
      inside: mark === 1,
    });
  }
  return result;
}

/** The node that a reader is drawn as. */
export function nodeOf(reader: string, { heads, kv_heads }: Sharing): string {
  const [component = reader, part] = reader.split(":");
  return kv_heads < heads && (part === "k" || part === "v") ? `${component}:kv` : component;
}

/** The nodes of some edges, with what was said of them; pinned ones also without an edge. */
export function nodesOf(
  edges: readonly CircuitEdge[],
  selection: Selected,
  sharing: Sharing,
): CircuitNode[] {
  const removed = new Set(selection.removed);
  const notes = new Map(selection.notes.map((note) => [note.address, note]));
  const nodes = new Map<string, CircuitNode>();
  const add = (id: string): CircuitNode => {
    const known = nodes.get(id);
    if (known !== undefined) return known;
    const addresses = addressesOf(id, sharing);
    const [address] = addresses;
    const note = notes.get(address);
    // What is put back is what was taken out.
    const [out, ...more] = addresses.filter((each) => removed.has(each));
    const node: CircuitNode = {
      id,
      address,
      addresses: out === undefined ? addresses : [out, ...more],
      name: note?.name ?? "",
      group: note?.group ?? "",
      pinned: note?.pinned ?? false,
      inside: out === undefined,
      incoming: 0,
      outgoing: 0,
    };
    nodes.set(id, node);
    return node;
  };
  for (const edge of edges) {
    add(edge.from).outgoing += 1;
    add(edge.to).incoming += 1;
  }
  for (const note of selection.notes) if (note.pinned) add(idOf(note, sharing));
  return [...nodes.values()].sort((a, b) => levelOf(a.id) - levelOf(b.id) || compare(a.id, b.id));
}

function idOf({ address }: NodeNote, sharing: Sharing): string {
  return nodeOf(address, sharing);
}

/** What a node is called in messages; first its own name. */
export function addressesOf(id: string, { heads, kv_heads }: Sharing): Addresses {
  if (id.endsWith(":kv")) return [id.replace(/kv$/, "k"), id.replace(/kv$/, "v")];
  // A head with keys and values of its own goes with them.
  return /\.H\d+$/.test(id) && kv_heads >= heads ? [id, `${id}:k`, `${id}:v`] : [id];
}

/** How high a node stands: in each layer keys and values, then heads, then the MLP. */
export function levelOf(id: string): number {
  const parts = /^L(\d+)\.(?:H\d+(:kv)?|mlp)$/.exec(id);
  if (parts === null) return id === "logits" ? Number.POSITIVE_INFINITY : -1;
  return 3 * Number(parts[1]) + (id.endsWith(".mlp") ? 2 : parts[2] === undefined ? 1 : 0);
}

/** The query heads that read a key/value head. */
export function sharersOf(id: string, { heads, kv_heads }: Sharing): string[] {
  const parts = /^L(\d+)\.H(\d+):kv$/.exec(id);
  if (parts === null || kv_heads === 0) return [];
  const group = Math.round(heads / kv_heads);
  return Array.from({ length: group }, (_, i) => `L${parts[1]}.H${Number(parts[2]) + i}`);
}

/** What stands on a node: its name, or its address; of a key/value head what it is. */
export function labelOf(node: Pick<CircuitNode, "id" | "name">): string {
  if (node.name !== "") return node.name;
  return node.id.endsWith(":kv") ? node.id.replace(":kv", " k,v") : node.id;
}

/** By numbers inside of addresses: "L2.H10" after "L2.H9". */
function compare(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}

/** How many edges there are above a threshold, the other way round: the least score of a size. */
export function thresholdOf(graph: Unpacked<Graph>, size: number): number {
  const { sizes, thresholds, estimate } = graph;
  if (graph.of === "edges" && size >= 1 && size <= estimate.length)
    return Math.abs(estimate[size - 1] ?? Number.NaN);
  let at = sizes.findIndex((each) => each >= size);
  if (at < 0) at = sizes.length - 1;
  return thresholds[at] ?? Number.NaN;
}
