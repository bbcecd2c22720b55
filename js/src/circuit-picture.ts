// What CircuitAblator shows besides its session: what is declared of circuits, and what was measured.
// News of something older than what is shown is dropped; what is stale stays until there is better.
import type {
  AblatorBody,
  Checked,
  CircuitState,
  Down,
  EdgeBody,
  EffectMap,
  Faithful,
  Graph,
  PatchingMap,
} from "./messages";
import { emptyPicture, type Picture } from "./picture";
import type { Unpacked } from "./transport";

/** What is declared of circuits. */
export type Circuit = Unpacked<CircuitState>;
export type Direction = PatchingMap["direction"];
export type Over = PatchingMap["over"];
export type Replacement = EffectMap["how"];

export interface CircuitPicture extends Picture {
  circuitRevision: number;
  circuit: Circuit | null;
  map: Unpacked<EffectMap> | null;
  /** By `patchingKey`. */
  patching: Map<string, Unpacked<PatchingMap>>;
  graph: Unpacked<Graph> | null;
  checked: Checked | null;
  faithful: Unpacked<Faithful> | null;
  /** What was asked of single edges of the graph, by address. */
  edges: Map<string, EdgeBody>;
}

export function emptyCircuit(): CircuitPicture {
  return {
    ...emptyPicture(),
    circuitRevision: -1,
    circuit: null,
    map: null,
    patching: new Map(),
    graph: null,
    checked: null,
    faithful: null,
    edges: new Map(),
  };
}

export function patchingKey(direction: Direction, over: Over): string {
  return `${direction} ${over}`;
}

/** Takes a message of this view's own in; false for what is older than what is shown. */
export function takeCircuit(picture: CircuitPicture, message: Unpacked<Down>): boolean {
  switch (message.kind) {
    case "circuit":
      return takeState(picture, message.revision, message.circuit);
    case "map":
      return takeMap(picture, message.map);
    case "patched":
      return takePatching(picture, message.patching);
    case "graph":
      return takeGraph(picture, message.graph);
    case "checked":
      return takeChecked(picture, message.checked);
    case "faithful":
      return takeFaithful(picture, message.faithful);
    default:
      return false;
  }
}

export function takeAblator(picture: CircuitPicture, body: Unpacked<AblatorBody>): void {
  takeState(picture, body.revision, body.circuit);
  if (body.map !== null) takeMap(picture, body.map);
  for (const patching of body.patching) takePatching(picture, patching);
  if (body.graph !== null) takeGraph(picture, body.graph);
  if (body.checked !== null) takeChecked(picture, body.checked);
  if (body.faithful !== null) takeFaithful(picture, body.faithful);
}

function takeState(picture: CircuitPicture, revision: number, circuit: Circuit): boolean {
  if (revision < picture.circuitRevision) return false;
  picture.circuitRevision = revision;
  picture.circuit = circuit;
  // An edge's effect is of this prompt, metric and stack: of other ones it is another.
  if ((picture.graph?.revision ?? -1) < circuit.holds_since.graph) picture.edges.clear();
  return true;
}

function takeMap(picture: CircuitPicture, map: Unpacked<EffectMap>): boolean {
  if (map.revision < (picture.map?.revision ?? -1)) return false;
  picture.map = map;
  return true;
}

function takePatching(picture: CircuitPicture, patching: Unpacked<PatchingMap>): boolean {
  const key = patchingKey(patching.direction, patching.over);
  if (patching.revision < (picture.patching.get(key)?.revision ?? -1)) return false;
  picture.patching.set(key, patching);
  return true;
}

function takeGraph(picture: CircuitPicture, graph: Unpacked<Graph>): boolean {
  const before = picture.graph;
  if (before !== null && graph.revision < before.revision) return false;
  if (before !== null && !isSameGraph(before, graph)) {
    // What was measured of another graph says nothing of this one.
    picture.edges.clear();
    picture.faithful = null;
  }
  picture.graph = graph;
  return true;
}

function takeChecked(picture: CircuitPicture, checked: Checked): boolean {
  if (checked.revision < (picture.checked?.revision ?? -1)) return false;
  picture.checked = checked;
  return true;
}

function takeFaithful(picture: CircuitPicture, faithful: Unpacked<Faithful>): boolean {
  if (faithful.revision < (picture.faithful?.revision ?? -1)) return false;
  // Without sizes it says that nothing is measured of this graph.
  picture.faithful = faithful.sizes.length > 0 ? faithful : null;
  return true;
}

/** Whether it is the same one again, such as with more exact values, or at a later revision. */
export function isSameGraph(a: Unpacked<Graph>, b: Unpacked<Graph>): boolean {
  return (
    a.method === b.method &&
    a.of === b.of &&
    a.how === b.how &&
    a.total === b.total &&
    a.nodes.join() === b.nodes.join() &&
    same(a.source, b.source) &&
    same(a.reader, b.reader) &&
    same(a.estimate, b.estimate)
  );
}

function same(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  return a.length === b.length && Array.from(a).every((value, i) => Object.is(value, b[i]));
}

/** The address of a component: column `heads` is the MLP. */
export function componentOf(circuit: Circuit, index: number): string {
  const columns = columnsOf(circuit);
  const [layer, column] = [Math.floor(index / columns), index % columns];
  return column < circuit.heads ? `L${layer}.H${column}` : `L${layer}.mlp`;
}

/** Heads, and the MLP where there is one. */
export function columnsOf(circuit: Circuit): number {
  return circuit.heads + (circuit.mlp ? 1 : 0);
}

/** Where a component is in the map; -1 for what is none. */
export function indexOfComponent(circuit: Circuit, address: string): number {
  const parts = /^L(\d+)\.(?:H(\d+)|mlp)$/.exec(address);
  if (parts === null) return -1;
  const [layer, column] = [Number(parts[1]), Number(parts[2] ?? circuit.heads)];
  const columns = columnsOf(circuit);
  const known = layer < circuit.layers && column < columns;
  return known && (parts[2] === undefined || column < circuit.heads)
    ? layer * columns + column
    : -1;
}

/** The largest absolute value that is a number; 0 where there is none. */
export function peakOf(values: Iterable<number>): number {
  let most = 0;
  for (const value of values) if (Math.abs(value) > most) most = Math.abs(value);
  return most;
}

/** Whether an exact value contradicts its estimate: in sign, or by more than half of itself. */
export function disagreement(estimate: number, exact: number): EdgeBody["disagree"] {
  if (Number.isNaN(estimate) || Number.isNaN(exact)) return null;
  if (estimate * exact < 0) return "sign";
  return Math.abs(estimate - exact) > 0.5 * Math.abs(exact) ? "half" : null;
}
