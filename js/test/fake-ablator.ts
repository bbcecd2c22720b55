// The Python half of a CircuitAblator with made-up components: a few matter much, most hardly. What
// is ablated changes the map, what is switched changes the circuit, so that everything that should
// move does.
import type {
  AblatorBody,
  Checked,
  CircuitState,
  EdgeBody,
  EffectMap,
  Faithful,
  Graph,
  PackedArray,
  PairSet,
  PatchingMap,
  Row,
  Selection,
  Snapshot,
  Up,
} from "../src/messages";
import { FakeKernel, type FakeModel, type FakeOptions, packed, resultOf, row } from "./fake-kernel";

export interface FakeAblatorOptions extends FakeOptions {
  layers?: number;
  heads?: number;
  kvHeads?: number;
  mlp?: boolean;
  /** Whether there is a map, a patching, a circuit, a curve already. */
  mapped?: boolean;
  patched?: boolean;
  found?: boolean;
  curved?: boolean;
  /** A set of pairs, or a prompt alone. */
  pairs?: boolean;
  contrast?: string | null;
  refusals?: Partial<CircuitState["refusals"]>;
  metricKind?: CircuitState["metric_kind"];
  /** Of the circuit. */
  size?: number;
  selection?: Partial<Selection>;
  /** How many of the strongest edges are sent. */
  sent?: number;
}

interface Edge {
  source: string;
  reader: string;
  estimate: number;
  exact: number;
}

const CLEAN = 2.1034567;
const CORRUPT = -1.0412345;

export const CAPITALS: PairSet = {
  name: "capitals",
  about: "The capital of a country, asked for in a sentence",
  seed: 0,
  count: 16,
  shown: 2,
  note: "",
  pairs: [
    ["France", "Germany", " Paris", " Berlin"],
    ["Italy", "Spain", " Rome", " Madrid"],
    ["Japan", "China", " Tokyo", " Beijing"],
    ["Egypt", "Kenya", " Cairo", " Nairobi"],
  ]
    .flatMap((each) => [each, each, each, each])
    .map(([clean, corrupt, answer = "", wrong = ""]) => ({
      clean: `The capital of ${clean} is the city of`,
      corrupt: `The capital of ${corrupt} is the city of`,
      answer,
      wrong,
    })),
};

/** Between 0 and 1, the same for the same words. */
function chance(words: string): number {
  let hash = 2166136261;
  for (const letter of words) hash = Math.imul(hash ^ letter.charCodeAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 15), 2246822507);
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}

/** Heavy-tailed and signed. */
function weight(words: string): number {
  const normal =
    Math.sqrt(-2 * Math.log(chance(`${words}a`) + 1e-9)) * Math.cos(6.283 * chance(`${words}b`));
  const size = words === "embed" || words === "logits" ? 6 : Math.exp(1.3 * normal);
  return size * (chance(`${words}s`) < 0.68 ? -1 : 1);
}

function levelOf(component: string): number {
  if (component === "embed") return -1;
  if (component === "logits") return 1e6;
  return 2 * Number(/\d+/.exec(component)?.[0]) + (component.endsWith("mlp") ? 1 : 0);
}

/** Whether an edge, or what it runs between, was taken out. */
function gone({ source, reader }: Edge, removed: ReadonlySet<string>): boolean {
  const [component = reader] = reader.split(":");
  const own = reader.endsWith(":q") || !reader.includes(":");
  return (
    removed.has(`${source}->${reader}`) ||
    removed.has(source) ||
    removed.has(reader) ||
    (own && removed.has(component))
  );
}

export class FakeAblator extends FakeKernel {
  circuit: CircuitState;
  mapHow: EffectMap["how"] | null;
  mapDone = Number.POSITIVE_INFINITY;
  /** Long work goes no further than this for now. */
  holdAt = Number.POSITIVE_INFINITY;
  edges: Edge[] = [];
  found: { method: Graph["method"]; of: Graph["of"]; how: Graph["how"]; revision: number } | null =
    null;
  curved: boolean;
  patched: PatchingMap["over"][];
  readonly more: FakeAblatorOptions;
  private nextRow = 700;
  private running = 0;

  constructor(model: FakeModel, more: FakeAblatorOptions = {}) {
    const { pairs = true } = more;
    const set = pairs ? CAPITALS : null;
    super(model, {
      ...more,
      state: {
        metric: {
          label: 'logit " Paris" − " Berlin"',
          target: { id: 7042, text: " Paris" },
          against: { id: 11930, text: " Berlin" },
        },
        ...promptOf(set?.pairs[set.shown]?.clean ?? "The capital of France is the city of"),
        ...more.state,
      },
    });
    this.more = more;
    this.mapHow = more.mapped === false ? null : "mean";
    this.curved = more.curved ?? false;
    this.patched = more.patched ? ["resid_pre"] : [];
    this.circuit = {
      layers: more.layers ?? 4,
      heads: more.heads ?? 3,
      kv_heads: more.kvHeads ?? more.heads ?? 3,
      mlp: more.mlp ?? true,
      metric_kind: more.metricKind ?? "logit_difference",
      unit: more.metricKind === "kl" || more.metricKind === "loss" ? "nats" : "logits",
      sets: [
        { name: "capitals", about: "Capital cities" },
        { name: "pronouns", about: "Gendered pronouns" },
        { name: "indirect-objects", about: "Indirect objects" },
      ],
      pairs: set,
      contrast:
        more.contrast === undefined
          ? (set?.pairs[set.shown]?.corrupt ?? "The capital of Germany is the city of")
          : more.contrast,
      ablated: [],
      selection: null,
      holds_since: { map: 0, patching: 0, graph: 0, checked: 0 },
      refusals: { corrupt: null, edges: null, prediction: null, ...more.refusals },
    };
    if (this.circuit.refusals.prediction !== null) this.state = { ...this.state, metric: null };
    this.circuit = { ...this.circuit, ablated: this.ablatedOf(this.state.rows) };
    if (more.found) this.find("eap-ig", "edges", "corrupt");
    if (more.selection && this.circuit.selection) {
      this.select({ ...this.circuit.selection, ...more.selection });
    }
  }

  // --- what is made up ---
  components(): string[] {
    const { layers, heads, mlp } = this.circuit;
    return Array.from({ length: layers }, (_, layer) => [
      ...Array.from({ length: heads }, (_, head) => `L${layer}.H${head}`),
      ...(mlp ? [`L${layer}.mlp`] : []),
    ]).flat();
  }

  effectOf(component: string): number {
    if (this.circuit.ablated.includes(component)) return 0;
    return 0.1 * weight(component) * (component.endsWith("mlp") ? 2 : 1);
  }

  effectMap(buffers: DataView[]): EffectMap {
    const { layers, heads, mlp, unit, metric_kind } = this.circuit;
    const all = this.components().map((each) => this.effectOf(each));
    const shape = [layers, heads + (mlp ? 1 : 0)];
    const done = Math.min(all.length, this.mapDone);
    const noEstimate = metric_kind === "kl";
    return {
      revision: this.revision,
      how: this.mapHow ?? "mean",
      baseline: CLEAN,
      estimate: put(
        buffers,
        all.map((value, i) => (noEstimate ? Number.NaN : value * (0.7 + 0.6 * chance(`e${i}`)))),
        shape,
      ),
      exact: put(
        buffers,
        all.map((value, i) => (i < done ? value : Number.NaN)),
        shape,
      ),
      done,
      total: all.length,
      pairs: this.circuit.pairs?.count ?? 1,
      note: noEstimate
        ? `KL has no gradient at the baseline, so there is no estimate of it.`
        : unit && "",
    };
  }

  patchingMap(
    direction: PatchingMap["direction"],
    over: PatchingMap["over"],
    done: number,
    buffers: DataView[],
  ): PatchingMap {
    const { layers, heads } = this.circuit;
    const columns =
      over === "head"
        ? Array.from({ length: heads }, (_, head) => `H${head}`)
        : this.state.tokens.map((token) => token.text);
    const wide = columns.length;
    const values = Array.from({ length: layers * wide }, (_, i) => {
      const [layer, column] = [Math.floor(i / wide), i % wide];
      const [depth, last] = [layer / Math.max(1, layers - 1), wide - 1];
      const subject = Math.min(4, last - 1);
      const share =
        over === "head"
          ? 0.1 * weight(`p${i}`)
          : column === subject
            ? 1 / (1 + Math.exp(9 * (depth - 0.55)))
            : column === last
              ? 1 / (1 + Math.exp(-11 * (depth - 0.62)))
              : column > subject
                ? 0.25 * Math.exp(-30 * (depth - 0.5) ** 2) * chance(`q${i}`)
                : 0;
      const kept = direction === "denoise" ? share : 1 - share;
      return i < done ? CORRUPT + (CLEAN - CORRUPT) * kept : Number.NaN;
    });
    return {
      revision: this.revision,
      direction,
      over,
      columns,
      clean: CLEAN,
      corrupt: CORRUPT,
      values: put(buffers, values, [layers, wide]),
      done: Math.min(done, layers * wide),
      total: layers * wide,
      pairs: this.circuit.pairs?.count ?? 1,
      note: "About 300 runs.",
    };
  }

  find(method: Graph["method"], of: Graph["of"], how: Graph["how"]): void {
    const { heads, kv_heads } = this.circuit;
    const group = Math.round(heads / kv_heads);
    const sources = ["embed", ...this.components()];
    const readers = [
      ...this.components().flatMap((each) => {
        const head = Number(/H(\d+)/.exec(each)?.[1]);
        if (Number.isNaN(head)) return [each];
        return [`${each}:q`, ...(head % group === 0 ? [`${each}:k`, `${each}:v`] : [])];
      }),
      "logits",
    ];
    const edges: Edge[] = [];
    for (const source of sources) {
      for (const reader of readers) {
        if (levelOf(source) >= levelOf(reader.split(":")[0] ?? "")) continue;
        const [a, b] = [Math.abs(weight(source)), Math.abs(weight(reader.split(":")[0] ?? ""))];
        const own = Math.exp(2 * chance(`${source}${reader}`));
        const estimate = -Math.sign(weight(`${source}>${reader}`)) * 0.004 * a * b * own;
        edges.push({ source, reader, estimate: -estimate, exact: Number.NaN });
      }
    }
    edges.sort((x, y) => Math.abs(y.estimate) - Math.abs(x.estimate));
    edges.slice(0, 40).forEach((edge, i) => {
      edge.exact = edge.estimate * (i % 11 === 4 ? -0.4 : i % 7 === 3 ? 0.5 : 0.95);
    });
    this.edges = edges;
    this.found = { method, of, how, revision: this.revision };
    const size = this.more.size ?? Math.max(1, Math.round(edges.length / 10));
    this.select({ size, edges: size, added: [], removed: [], inside: null, notes: [] });
  }

  /** Takes a selection and counts its edges. */
  select(selection: Selection): void {
    const added = new Set(selection.added);
    const removed = new Set(selection.removed);
    const edges = this.edges.filter(
      (edge, i) =>
        (i < selection.size || added.has(`${edge.source}->${edge.reader}`)) && !gone(edge, removed),
    ).length;
    this.circuit = { ...this.circuit, selection: { ...selection, edges } };
  }

  graph(buffers: DataView[]): Graph | null {
    if (this.found === null) return null;
    const { method, of, how, revision } = this.found;
    const sent = this.edges.slice(0, this.more.sent ?? 400);
    const nodes = [...new Set(sent.flatMap((edge) => [edge.source, edge.reader]))];
    const total = this.edges.length;
    const sizes = [...new Set(Array.from({ length: 40 }, (_, i) => Math.round(total ** (i / 39))))];
    return {
      revision,
      method,
      of,
      how,
      nodes,
      source: putWhole(
        buffers,
        sent.map((edge) => nodes.indexOf(edge.source)),
      ),
      reader: putWhole(
        buffers,
        sent.map((edge) => nodes.indexOf(edge.reader)),
      ),
      estimate: put(
        buffers,
        sent.map((edge) => edge.estimate),
      ),
      exact: put(
        buffers,
        sent.map((edge) => edge.exact),
      ),
      total,
      clean: CLEAN,
      corrupt: CORRUPT,
      sizes: putWhole(buffers, sizes),
      thresholds: put(
        buffers,
        sizes.map((size) => Math.abs(this.edges[size - 1]?.estimate ?? 0)),
      ),
      note: "Of the 40 strongest edges, 4 have an exact effect of the other sign.",
    };
  }

  keeps(size: number): [faithfulness: number, completeness: number] {
    const share = Math.log(Math.max(1, size)) / Math.log(Math.max(2, this.edges.length));
    const faithfulness = 1.04 / (1 + Math.exp(-14 * (share - 0.52))) - 0.01;
    return [faithfulness, 0.97 / (1 + Math.exp(12 * (share - 0.62)))];
  }

  checked(): Checked | null {
    const { selection } = this.circuit;
    if (selection === null) return null;
    const [faithfulness, completeness] = this.keeps(selection.edges);
    const at = (share: number) => CORRUPT + share * (CLEAN - CORRUPT);
    return {
      revision: this.revision,
      edges: selection.edges,
      clean: CLEAN,
      corrupt: CORRUPT,
      circuit: at(faithfulness),
      without: at(completeness),
      faithfulness,
      completeness,
    };
  }

  faithful(done: number, buffers: DataView[]): Faithful {
    const total = this.edges.length;
    const sizes = [...new Set(Array.from({ length: 22 }, (_, i) => Math.round(total ** (i / 21))))];
    const known = (value: (size: number, i: number) => number) =>
      put(
        buffers,
        sizes.map((size, i) => (i < done ? value(size, i) : Number.NaN)),
      );
    const random = (size: number) => {
      const share = Math.log(size) / Math.log(total);
      return 1 / (1 + Math.exp(-30 * (share - 0.92)));
    };
    return {
      revision: this.revision,
      sizes: putWhole(buffers, sizes),
      faithfulness: known((size) => this.keeps(size)[0]),
      completeness: known((size) => this.keeps(size)[1]),
      random_low: known((size, i) => random(size) - 0.03 - 0.03 * chance(`l${i}`)),
      random_median: known(random),
      random_high: known((size, i) => random(size) + 0.03 + 0.06 * chance(`h${i}`)),
      seeds: 5,
      done: Math.min(done, sizes.length),
      total: sizes.length,
    };
  }

  edgeBody(address: string): EdgeBody {
    const edge = this.edges.find(({ source, reader }) => `${source}->${reader}` === address);
    const estimate = edge?.estimate ?? null;
    const exact = Number.isNaN(edge?.exact ?? Number.NaN)
      ? 0.93 * (estimate ?? 0)
      : (edge?.exact ?? 0);
    return {
      of: "edge",
      address,
      estimate,
      exact,
      before: CLEAN,
      after: CLEAN + exact,
      disagree:
        estimate === null
          ? null
          : estimate * exact < 0
            ? "sign"
            : Math.abs(estimate - exact) > Math.abs(exact) / 2
              ? "half"
              : null,
      top: [
        { id: 1, text: " Tokyo", before: 0.612, after: 0.47 },
        { id: 2, text: " Beijing", before: 0.031, after: 0.12 },
        { id: 3, text: " Osaka", before: 0.021, after: 0.018 },
      ],
    };
  }

  // --- the messages ---
  everything(): { body: AblatorBody; buffers: DataView[] } {
    const { result, moved } = resultOf(this.state.rows, this.state.tokens.length);
    const buffers = [packed(moved)];
    const some = this.circuit.refusals.prediction === null;
    return {
      body: {
        of: "ablator",
        revision: this.revision,
        state: this.state,
        result_revision: this.revision,
        result: some ? result : { ...result, top: [], metric: null },
        effects_revision: this.revision,
        effects: this.effects(),
        circuit: this.marked(buffers),
        map: this.mapHow === null ? null : this.effectMap(buffers),
        patching: this.patched.map((over) =>
          this.patchingMap("denoise", over, Number.POSITIVE_INFINITY, buffers),
        ),
        graph: this.graph(buffers),
        checked: this.checked(),
        faithful: this.curved ? this.faithful(Number.POSITIVE_INFINITY, buffers) : null,
      },
      buffers,
    };
  }

  override snapshot(): Snapshot {
    const { body, buffers } = this.everything();
    return {
      hello: body,
      cut: [],
      buffers: buffers.map((view) =>
        btoa(String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset, view.byteLength))),
      ),
    };
  }

  ablatedOf(rows: readonly Row[]): string[] {
    return rows
      .filter((each) => !each.muted && /\.(H\d+|mlp)$/.test(each.address))
      .map((each) => each.address);
  }

  override change(rows: Row[], remember = true): void {
    super.change(rows, remember);
    this.circuit = {
      ...this.circuit,
      ablated: this.ablatedOf(rows),
      holds_since: { ...this.circuit.holds_since, map: this.revision, patching: this.revision },
    };
    this.news();
  }

  news(): void {
    const buffers: DataView[] = [];
    const circuit = this.marked(buffers);
    this.push({ kind: "circuit", revision: this.revision, circuit }, buffers);
  }

  /** The circuit's state with a mark for each edge that was sent. */
  marked(buffers: DataView[]): CircuitState {
    const { selection } = this.circuit;
    if (selection === null) return this.circuit;
    const [added, removed] = [new Set(selection.added), new Set(selection.removed)];
    const marks = this.edges.slice(0, this.more.sent ?? 400).map((edge, i) => {
      const address = `${edge.source}->${edge.reader}`;
      if (i >= selection.size && !added.has(address)) return 0;
      return gone(edge, removed) && !added.has(address) ? 2 : 1;
    });
    buffers.push(new DataView(Uint8Array.from(marks).buffer));
    const inside = { buffer: buffers.length - 1, dtype: "uint8" as const, shape: [marks.length] };
    return { ...this.circuit, selection: { ...selection, inside } };
  }

  /** Something declared of the circuit changed. */
  declare(selection: Selection): void {
    this.revision += 1;
    this.select(selection);
    this.circuit = {
      ...this.circuit,
      holds_since: { ...this.circuit.holds_since, checked: this.revision },
    };
    this.news();
    setTimeout(() => this.check(), this.options.delay ?? 20);
  }

  check(): void {
    if (this.held) {
      setTimeout(() => this.check(), 10);
      return;
    }
    const checked = this.checked();
    if (checked !== null) this.push({ kind: "checked", checked });
  }

  /** Work in parts, until it is stopped. */
  work(job: "map" | "patching" | "faithful", total: number, step: (done: number) => void): void {
    this.running += 1;
    const mine = this.running;
    const each = Math.max(1, Math.round(total / 4));
    const go = (done: number) => {
      if (mine !== this.running) return;
      if (done > this.holdAt) {
        setTimeout(() => go(done), 10);
        return;
      }
      this.push({ kind: "progress", job, key: null, done, total });
      step(done);
      if (done < total) setTimeout(() => go(Math.min(total, done + each)), 15);
      else
        this.push({ kind: "status", busy: false, what: "", error: null, revision: this.revision });
    };
    this.push({ kind: "status", busy: true, what: job, error: null, revision: this.revision });
    go(0);
  }

  override take(message: Up): unknown {
    switch (message.kind) {
      case "hello": {
        const { body, buffers } = this.everything();
        return this.reply(message.id, body, buffers);
      }
      case "objective": {
        const { metric, token, against } = message;
        const { state } = this;
        const [target, other] = [
          token == null
            ? state.metric?.target
            : { id: token, text: token === 7042 ? " Paris" : " x" },
          against == null ? state.metric?.against : { id: against, text: " y" },
        ];
        this.state = {
          ...state,
          metric: {
            label: metric,
            target: target ?? { id: 0, text: "?" },
            against: metric === "logit_difference" ? (other ?? null) : null,
          },
        };
        this.circuit = {
          ...this.circuit,
          metric_kind: metric,
          unit: metric === "logit_difference" ? "logits" : "nats",
        };
        this.change(this.state.rows);
        return this.reply(message.id);
      }
      case "pairs": {
        const { name, count = 16, seed = 0 } = message;
        if (name !== null && count > 100) {
          return this.refuse(message.id, "The set capitals has 90 pairs; take as many.", "count");
        }
        const pairs = name === null ? null : { ...CAPITALS, name, seed, count, shown: 0 };
        this.circuit = { ...this.circuit, pairs };
        if (pairs !== null) this.show(0);
        this.change(this.state.rows);
        return this.reply(message.id);
      }
      case "pair":
        this.show(message.index);
        this.change(this.state.rows);
        return this.reply(message.id);
      case "second":
        if (message.text?.includes("longer")) {
          return this.refuse(message.id, "The corrupt prompt has 12 tokens, the clean one 10.");
        }
        this.circuit = { ...this.circuit, contrast: message.text };
        this.change(this.state.rows);
        return this.reply(message.id);
      case "survey": {
        this.reply(message.id);
        this.mapHow = message.how ?? "mean";
        this.work("map", this.components().length, (done) => {
          this.mapDone = done;
          const buffers: DataView[] = [];
          this.push({ kind: "map", map: this.effectMap(buffers) }, buffers);
        });
        return;
      }
      case "ablations": {
        const { id, addresses, how = "mean", solo = false } = message;
        const wrong = addresses.find((each) => !/^L\d+\.(H\d+|mlp|N\d+)$/.test(each));
        if (wrong !== undefined) {
          return this.refuse(id, `“${wrong}” is nothing that can be ablated.`, "addresses");
        }
        const there = new Set(
          this.state.rows.filter((each) => !each.muted).map((each) => each.address),
        );
        const rest = this.state.rows.filter((each) => !addresses.includes(each.address));
        if (!solo && addresses.every((each) => there.has(each))) this.change(rest);
        else {
          const made = addresses.map((address) => this.ablation(address, how));
          this.change([...(solo ? rest.map((each) => ({ ...each, muted: true })) : rest), ...made]);
        }
        return this.reply(id);
      }
      case "drill":
        return this.drilled(message.id, message.address, message.how ?? "mean");
      case "patching": {
        const { id, direction = "denoise", over = "resid_pre" } = message;
        if (this.circuit.refusals.corrupt !== null) {
          return this.refuse(id, this.circuit.refusals.corrupt);
        }
        this.reply(id);
        const wide = over === "head" ? this.circuit.heads : this.state.tokens.length;
        this.work("patching", this.circuit.layers * wide, (done) => {
          const buffers: DataView[] = [];
          const patching = this.patchingMap(direction, over, done, buffers);
          this.push({ kind: "patched", patching }, buffers);
        });
        return;
      }
      case "find": {
        const { id, method = "eap-ig", of = "edges", how = "corrupt" } = message;
        this.revision += 1;
        this.find(method, of, how);
        this.reply(id);
        this.news();
        const buffers: DataView[] = [];
        const graph = this.graph(buffers);
        if (graph !== null) this.push({ kind: "graph", graph }, buffers);
        this.check();
        return;
      }
      case "size": {
        const { selection } = this.circuit;
        this.reply(message.id);
        if (selection !== null) this.declare({ ...selection, size: message.count });
        return;
      }
      case "switch": {
        const { selection } = this.circuit;
        if (selection === null) return this.refuse(message.id, "There is no circuit yet.");
        const removed = new Set(selection.removed);
        const touched = (address: string) =>
          this.edges.some(
            (edge, i) =>
              i < selection.size && gone(edge, new Set([address])) && !gone(edge, removed),
          );
        const inside = message.addresses.filter(touched);
        for (const each of inside.length > 0 ? inside : message.addresses) {
          if (inside.length > 0) removed.add(each);
          else if (!removed.delete(each)) {
            return this.refuse(message.id, `${each} has no edge in the circuit to switch.`);
          }
        }
        this.reply(message.id);
        this.declare({ ...selection, removed: [...removed] });
        return;
      }
      case "annotate": {
        const { selection } = this.circuit;
        if (selection === null) return this.refuse(message.id, "There is no circuit yet.");
        const { addresses, pinned, name, group } = message;
        const notes = [...selection.notes];
        for (const address of addresses) {
          const at = notes.findIndex((each) => each.address === address);
          const old = notes[at] ?? { address, pinned: false, name: "", group: "" };
          const next = {
            ...old,
            ...(pinned != null && { pinned }),
            ...(name != null && { name }),
            ...(group != null && { group }),
          };
          if (at < 0) notes.push(next);
          else notes[at] = next;
        }
        this.revision += 1;
        this.circuit = { ...this.circuit, selection: { ...selection, notes } };
        this.reply(message.id);
        return this.news();
      }
      case "edge":
        return this.reply(message.id, this.edgeBody(message.address));
      case "check": {
        this.reply(message.id);
        this.work("faithful", 22, (done) => {
          const buffers: DataView[] = [];
          this.push({ kind: "faithful", faithful: this.faithful(done, buffers) }, buffers);
        });
        return;
      }
      case "interact": {
        const { a, b } = message;
        const of = (side: readonly string[]) =>
          side.reduce((sum, each) => sum + 0.1 * weight(each), 0);
        const [effectA, effectB] = [of(a), of(b)];
        const interaction = 0.8 * (effectA + effectB);
        return this.reply(message.id, {
          of: "interact",
          a,
          b,
          effect_a: effectA,
          effect_b: effectB,
          both: effectA + effectB + interaction,
          interaction,
          control: Math.abs(0.1 * interaction),
          seeds: 5,
          note: "",
        });
      }
      case "export":
        return this.reply(message.id, {
          of: "export",
          name: "capitals-circuit.json",
          text: message.format === "code" ? "import patchclamp as pc\n" : '{"circuit": 1}',
        });
      case "import":
        if (!message.text.startsWith("{")) {
          return this.refuse(message.id, "This is no file of a circuit: it is not JSON.", "text");
        }
        this.reply(message.id);
        if (this.found === null) this.find("eap-ig", "edges", "corrupt");
        this.news();
        return;
      case "stop":
        this.running += 1;
        this.push({ kind: "status", busy: false, what: "", error: null, revision: this.revision });
        return this.reply(message.id);
      default:
        return super.take(message);
    }
  }

  private show(index: number): void {
    const { pairs } = this.circuit;
    const pair = pairs?.pairs[index];
    if (!pairs || pair === undefined) return;
    this.circuit = { ...this.circuit, pairs: { ...pairs, shown: index }, contrast: pair.corrupt };
    this.state = { ...this.state, ...promptOf(pair.clean) };
  }

  private ablation(address: string, how: string): Row {
    this.nextRow += 1;
    return row({
      key: this.nextRow,
      address,
      op: how === "corrupt" ? "patch" : "ablate",
      how: how === "corrupt" ? null : (how as Row["how"]),
      editable: how !== "corrupt",
      label: `ablate ${address} to its ${how}`,
      value: null,
      positions: "",
      range: null,
      sd: null,
      mean: null,
      peak: null,
      observed: null,
    });
  }

  private drilled(id: number, address: string, how: EffectMap["how"]): void {
    const buffers: DataView[] = [];
    const head = /H\d+$/.test(address);
    const effect = 0.1 * weight(address);
    const positions = this.state.tokens.map((token) => token.text);
    const neurons = head
      ? []
      : Array.from({ length: 12 }, (_, i) => ({
          address: address.replace("mlp", `N${(397 * i + 41) % 1536}`),
          estimate: i === 3 ? null : effect * 0.2 * Math.exp(-i / 4) * (i % 3 === 1 ? -1 : 1),
          exact: effect * 0.18 * Math.exp(-i / 4) * (i % 3 === 1 ? -1 : 1),
        }));
    this.reply(
      id,
      {
        of: "drill",
        address,
        how,
        parts: head ? ["q", "k", "v", "z"] : [],
        part_effects: put(
          buffers,
          head ? [0.31, 0.12, 0.62, 1].map((share) => share * effect) : [],
        ),
        positions,
        position_effects: put(
          buffers,
          positions.map(
            (_, i) => effect * (i === positions.length - 1 ? 0.8 : 0.1 * chance(`x${i}`)),
          ),
        ),
        neurons,
        total: head ? 0 : 1536,
        note:
          head && this.circuit.kv_heads < this.circuit.heads
            ? "Its keys and values are shared."
            : "",
      },
      buffers,
    );
  }
}

function promptOf(text: string) {
  const words = ["<|im_start|>", ...text.split(/(?= )/)];
  return {
    prompt: text,
    tokens: words.map((word, position) => ({
      position,
      id: 300 + Math.round(1e4 * chance(word)),
      text: word,
      bos: position === 0,
    })),
  };
}

function put(
  buffers: DataView[],
  numbers: readonly number[],
  shape = [numbers.length],
): PackedArray {
  buffers.push(packed(numbers));
  return { buffer: buffers.length - 1, dtype: "float32", shape };
}

function putWhole(buffers: DataView[], numbers: readonly number[]): PackedArray {
  const view = new DataView(new ArrayBuffer(4 * numbers.length));
  numbers.forEach((number, i) => {
    view.setInt32(4 * i, number, true);
  });
  buffers.push(view);
  return { buffer: buffers.length - 1, dtype: "int32", shape: [numbers.length] };
}
