// The Python half of an AttentionInspector with made-up heads: one looks at the previous token, one
// at earlier copies, one at what came after them, others at the first token or all over the place.
// Knock-outs really change the patterns, so that everything that should move does.
import type {
  AttentionState,
  CellBody,
  Down,
  GridPart,
  HeadBody,
  InspectorBody,
  KnockedOut,
  PackedArray,
  PromptToken,
  Row,
  Scores,
  Snapshot,
  TilesBody,
  Up,
} from "../src/messages";
import type { Look, Mode } from "../src/tiles";
import { FakeKernel, type FakeModel, type FakeOptions, packed, resultOf, row } from "./fake-kernel";

const TILE = 128;
const MOST_PIXELS = 24;

export interface FakeInspectorOptions extends FakeOptions {
  layers?: number;
  heads?: number;
  causal?: boolean;
  head?: [number, number] | null;
  second?: string;
  look?: Look;
  mode?: Mode;
  /** A cell of the locked head that is not a number. */
  hole?: [number, number];
  /** Scores that were measured already. */
  measured?: Scores["names"];
  /** No message answers `tiles`. */
  withoutTiles?: boolean;
}

export const REPEATED =
  "The cat sat on the mat while a dog slept . The cat sat on the mat while a dog".split(/(?= )/);

export function tokensOf(texts: readonly string[], bos = true): PromptToken[] {
  return [...(bos ? ["<|im_start|>"] : []), ...texts].map((text, position) => ({
    position,
    id: idOf(text),
    text,
    bos: bos && position === 0,
  }));
}

function idOf(text: string): number {
  let id = 7;
  for (const letter of text.trim().toLowerCase())
    id = (31 * id + (letter.codePointAt(0) ?? 0)) % 49152;
  return id;
}

const NAMES: Scores["names"] = [
  "previous",
  "duplicate",
  "induction",
  "current",
  "first",
  "entropy",
  "distance",
];

export class FakeInspector extends FakeKernel {
  attention: AttentionState;
  readonly knocked: (KnockedOut & { how: string })[] = [];
  private readonly seen = new Map<string, Float32Array>();
  private measured: Set<string>;

  constructor(
    model: FakeModel,
    readonly more: FakeInspectorOptions = {},
  ) {
    const tokens = tokensOf(REPEATED, more.causal !== false);
    super(model, {
      ...more,
      state: { tokens, prompt: REPEATED.join(""), ...more.state },
    });
    this.measured = new Set(more.measured ?? []);
    this.attention = {
      layers: more.layers ?? 6,
      heads: more.heads ?? 8,
      causal: more.causal ?? true,
      head: more.head === undefined ? [3, 2] : more.head,
      look: more.look ?? "now",
      mode: more.mode ?? "weight",
      stamps: { now: "n1", before: "b1", second: null },
      acting: false,
      knocked_out: [],
      second: null,
      refusals: {
        value: null,
        contribution:
          more.causal === false ? "an encoder has no next token whose logit it could be." : null,
        knockout: null,
        prediction:
          more.causal === false
            ? "This model is an encoder: it predicts no next token, so there is no metric."
            : null,
      },
    };
    if (more.second !== undefined) this.compare(more.second);
    if (more.causal === false) this.state = { ...this.state, metric: null };
    for (const each of this.state.rows) this.reread(each);
    this.restamp();
  }

  // --- patterns ---
  tokens(look: Look): PromptToken[] {
    return look === "second"
      ? (this.attention.second?.tokens ?? this.state.tokens)
      : this.state.tokens;
  }

  /** All cells of a head: [destination * length + source]. */
  cells(layer: number, head: number, look: Look, mode: Mode = "weight"): Float32Array {
    const stamp = this.stamp(look);
    const key = [layer, head, look, mode, stamp].join();
    const known = this.seen.get(key);
    if (known !== undefined) return known;
    const made = this.make(layer, head, look, mode);
    this.seen.set(key, made);
    return made;
  }

  private make(layer: number, head: number, look: Look, mode: Mode): Float32Array {
    const n = this.tokens(look).length;
    if (look === "difference" || look === "second-difference") {
      const now = this.cells(layer, head, "now", mode);
      if (look === "difference") {
        const before = this.cells(layer, head, "before", mode);
        return now.map((value, i) => value - (before[i] as number));
      }
      const other = this.cells(layer, head, "second", mode);
      const partners = this.attention.second?.partners ?? [];
      const m = this.attention.second?.tokens.length ?? 0;
      return now.map((value, i) => {
        const [d, s] = [partners[Math.floor(i / n)] ?? null, partners[i % n] ?? null];
        return d === null || s === null ? Number.NaN : value - (other[d * m + s] as number);
      });
    }
    if (mode !== "weight") {
      const weights = this.cells(layer, head, look);
      const { value, contribution, scale } = this.factors(layer, head, look);
      return weights.map((weight, i) =>
        mode === "value"
          ? weight * (value[i % n] as number)
          : weight * (contribution[i % n] as number) * (scale[Math.floor(i / n)] as number),
      );
    }
    const tokens = this.tokens(look);
    const cells = new Float32Array(n * n);
    for (let d = 0; d < n; d++) {
      const to = this.attention.causal ? d + 1 : n;
      let sum = 0;
      for (let s = 0; s < to; s++) {
        const value = Math.exp(score(tokens, layer, head, d, s));
        cells[d * n + s] = value;
        sum += value;
      }
      for (let s = 0; s < to; s++) cells[d * n + s] = (cells[d * n + s] as number) / sum;
    }
    if (look === "now") {
      for (const each of this.knocked) if (!each.muted) this.apply(each, layer, head, cells, n);
      const hole = this.more.hole;
      if (hole) cells[hole[0] * n + hole[1]] = Number.NaN;
    }
    return cells;
  }

  private apply(
    each: KnockedOut,
    layer: number,
    head: number,
    cells: Float32Array,
    n: number,
  ): void {
    const [low = 0, high = 0] = each.layers;
    if (layer < low || layer >= high || !(each.heads?.includes(head) ?? true)) return;
    const [d0 = 0, d1 = n] = each.destinations ?? [];
    const [s0 = 0, s1 = n] = each.sources ?? [];
    for (let d = d0; d < Math.min(d1, n); d++) {
      const cellsOf = cells.subarray(d * n, (d + 1) * n);
      cellsOf.fill(0, s0, Math.min(s1, n));
      const rest = cellsOf.reduce((sum, value) => sum + value, 0);
      if (each.how === "renormalise" && rest > 0)
        cellsOf.forEach((value, i) => {
          cellsOf[i] = value / rest;
        });
    }
  }

  private factors(layer: number, head: number, look: Look) {
    const n = this.tokens(look).length;
    const wave = (i: number) => Math.sin(1.7 * i + layer + 2.3 * head);
    return {
      value: Float32Array.from({ length: n }, (_, i) => (i === 0 ? 0.2 : 1.6 + wave(i))),
      contribution: Float32Array.from({ length: n }, (_, i) =>
        i === 0 ? 0.01 : 0.6 * wave(3 * i),
      ),
      scale: Float32Array.from({ length: n }, (_, i) => 1 + 0.2 * Math.cos(i)),
    };
  }

  stamp(look: Look): string {
    const { now, before, second } = this.attention.stamps;
    return {
      now,
      before,
      second: second ?? "",
      difference: `${now}-${before}`,
      "second-difference": `${now}-${second}`,
    }[look];
  }

  restamp(): void {
    const text = this.state.tokens.map((token) => token.text).join("");
    const acting = this.knocked.filter((each) => !each.muted);
    this.attention = {
      ...this.attention,
      acting: this.state.rows.some((each) => !each.muted),
      knocked_out: [...this.knocked],
      stamps: {
        before: `b${idOf(text)}`,
        now: `n${idOf(text + JSON.stringify(acting))}`,
        second:
          this.attention.second === null ? null : `s${idOf(JSON.stringify(this.attention.second))}`,
      },
    };
  }

  // --- bodies ---
  headBody(layer: number, head: number, look: Look, buffers: DataView[]): HeadBody {
    const most = (mode: Mode) =>
      this.cells(layer, head, look, mode).reduce(
        (best, value) => (Math.abs(value) > best ? Math.abs(value) : best),
        0,
      );
    const empty = look === "difference" || look === "second-difference";
    const made = this.factors(layer, head, look);
    const none = new Float32Array();
    return {
      of: "head",
      layer,
      head,
      look,
      stamp: this.stamp(look),
      peaks: {
        weight: most("weight"),
        value: most("value"),
        contribution: this.attention.refusals.contribution === null ? most("contribution") : null,
      },
      value: put(buffers, empty ? none : made.value),
      contribution: put(buffers, empty ? none : made.contribution),
      scale: put(buffers, empty ? none : made.scale),
      direct: this.attention.causal ? 0.1234567 * Math.sin(layer + head) : null,
    };
  }

  tilesBody(
    layer: number,
    head: number,
    look: Look,
    mode: Mode,
    places: readonly (readonly [number, number])[],
    buffers: DataView[],
  ): TilesBody {
    const signed = look === "difference" || look === "second-difference";
    const cells = this.cells(layer, head, look, signed ? mode : "weight");
    const n = this.tokens(look).length;
    const peaks: number[] = [];
    const bytes: number[] = [];
    for (const [r, c] of places) {
      const values: number[] = [];
      for (let d = r * TILE; d < Math.min(n, (r + 1) * TILE); d++) {
        const end = Math.min(n, (c + 1) * TILE);
        for (let s = c * TILE; s < (this.attention.causal ? Math.min(end, d + 1) : end); s++) {
          values.push(cells[d * n + s] as number);
        }
      }
      const peak = signed
        ? values.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 0)
        : 1;
      peaks.push(peak);
      for (const value of values) bytes.push(signed ? codeSigned(value, peak) : codeShare(value));
    }
    return {
      of: "tiles",
      layer,
      head,
      look,
      mode,
      stamp: this.stamp(look),
      coding: signed ? "signed" : "share",
      places: places.map((place) => [...place]),
      peaks,
      cells: putBytes(buffers, bytes),
    };
  }

  gridPart(layers: number[], buffers: DataView[]): GridPart {
    const { heads, look } = this.attention;
    const n = this.tokens(look).length;
    const block = Math.ceil(n / MOST_PIXELS);
    const size = Math.ceil(n / block);
    const signed = look === "difference" || look === "second-difference";
    const peaks: number[] = [];
    const bytes: number[] = [];
    for (const layer of layers) {
      for (let head = 0; head < heads; head++) {
        const cells = this.cells(layer, head, look);
        const most = new Float32Array(size * size);
        cells.forEach((value, i) => {
          const at = Math.floor(Math.floor(i / n) / block) * size + Math.floor((i % n) / block);
          if (Math.abs(value) > Math.abs(most[at] as number)) most[at] = value;
        });
        const peak = signed ? Math.max(...most.map(Math.abs)) : 1;
        peaks.push(peak);
        for (const value of most) bytes.push(signed ? codeSigned(value, peak) : codeShare(value));
      }
    }
    return {
      look,
      stamp: this.stamp(look),
      layers,
      thumbs: putBytes(buffers, bytes),
      block,
      coding: signed ? "signed" : "share",
      peaks: put(buffers, Float32Array.from(peaks)),
    };
  }

  scores(buffers: DataView[]): Scores {
    const { layers, heads } = this.attention;
    const tokens = this.state.tokens;
    const n = tokens.length;
    const names = [...NAMES, ...(["random_induction", "effect"] as const)].filter(
      (name) => NAMES.includes(name) || this.measured.has(name),
    );
    const values = new Float32Array(names.length * layers * heads);
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < heads; head++) {
        const cells = this.cells(layer, head, "now");
        const sum = (holds: (d: number, s: number) => boolean) =>
          cells.reduce((all, w, i) => (holds(Math.floor(i / n), i % n) ? all + w : all), 0) / n;
        const made: Record<string, number> = {
          previous: sum((d, s) => d === s + 1),
          current: sum((d, s) => d === s),
          first: sum((_, s) => s === 0),
          duplicate: sum((d, s) => s < d && tokens[s]?.id === tokens[d]?.id),
          induction: sum((d, s) => s > 0 && s <= d && tokens[s - 1]?.id === tokens[d]?.id),
          entropy: cells.reduce((all, w) => (w > 0 ? all - w * Math.log(w) : all), 0) / n,
          distance:
            cells.reduce((all, w, i) => all + w * Math.abs(Math.floor(i / n) - (i % n)), 0) / n,
          random_induction: kindOf(layer, head) === "induction" ? 0.91 : 0.02,
          effect: 0.6 * Math.sin(5.1 * layer + 1.3 * head) ** 5,
        };
        names.forEach((name, i) => {
          values[(i * layers + layer) * heads + head] = made[name] as number;
        });
      }
    }
    return {
      names,
      values: put(buffers, values, [names.length, layers, heads]),
      stamp: this.attention.stamps.now,
      stale: [],
    };
  }

  cellBody(message: Extract<Up, { kind: "cell" }>): CellBody {
    const { layer, head, look = "now", destination, source } = message;
    const n = this.tokens(look).length;
    const at = (mode: Mode) => {
      const value = this.cells(layer, head, look, mode)[destination * n + source] ?? Number.NaN;
      return Number.isNaN(value) ? null : value;
    };
    return {
      of: "cell",
      layer,
      head,
      look,
      stamp: this.stamp(look),
      destination,
      source,
      weight: at("weight"),
      value: at("value"),
      contribution: this.attention.refusals.contribution === null ? at("contribution") : null,
    };
  }

  everything(): { body: InspectorBody; buffers: DataView[] } {
    const { result, moved } = this.outcome();
    const buffers = [packed(moved)];
    const { head, look, mode, layers } = this.attention;
    const [layer = 0, number = 0] = head ?? [];
    const count = Math.ceil(this.tokens(look).length / TILE);
    const places: [number, number][] = [];
    for (let r = 0; r < count; r++) {
      for (let c = 0; c < (this.attention.causal ? r + 1 : count); c++) places.push([r, c]);
    }
    const kept = head === null || this.more.withoutTiles ? [] : places.slice(0, 6);
    return {
      buffers,
      body: {
        of: "inspector",
        revision: this.revision,
        state: this.state,
        result_revision: this.revision,
        result,
        effects_revision: this.revision,
        effects: this.effects(),
        attention: this.attention,
        grid: [
          this.gridPart(
            Array.from({ length: layers }, (_, i) => i),
            buffers,
          ),
        ],
        scores: this.scores(buffers),
        head: head === null ? null : this.headBody(layer, number, look, buffers),
        tiles: kept.length === 0 ? [] : [this.tilesBody(layer, number, look, mode, kept, buffers)],
      },
    };
  }

  private outcome() {
    const weight = this.knocked.filter((each) => !each.muted).length;
    const acting = this.state.rows.some((each) => !each.muted);
    const fake = acting ? [row({ value: 2.37 + 1.5 * Math.min(4, weight) })] : [];
    const { result, moved } = resultOf(fake, this.state.tokens.length);
    if (this.attention.causal) return { result, moved };
    return {
      moved: moved.map((value) => value / 20),
      result: { ...result, top: [], metric: null, moved_as: "cosine" as const },
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

  // --- what changes ---
  /** A row of the stack that is a knock-out becomes cells again. */
  private reread(each: Row): void {
    const found = this.knocked.find((one) => one.key === each.key);
    if (found !== undefined) Object.assign(found, { muted: each.muted });
  }

  private compare(text: string): void {
    const tokens = tokensOf(text.match(/\s?\S+/g) ?? [], this.attention.causal);
    this.attention = {
      ...this.attention,
      second: {
        text,
        tokens,
        partners: this.state.tokens.map((_, i) => (i < tokens.length ? i : null)),
      },
    };
  }

  override change(rows: Row[], remember = true): void {
    for (let i = this.knocked.length - 1; i >= 0; i--) {
      const own = rows.find((each) => each.key === this.knocked[i]?.key);
      if (own === undefined) this.knocked.splice(i, 1);
      else Object.assign(this.knocked[i] as KnockedOut, { muted: own.muted });
    }
    super.change(rows, remember);
    this.news();
  }

  override result(): void {
    this.computed += 1;
    const { result, moved } = this.outcome();
    this.push({ kind: "result", revision: this.revision, result }, [packed(moved)]);
    this.push({ kind: "effects", revision: this.revision, rows: this.effects() });
    const buffers: DataView[] = [];
    const layers = Array.from({ length: this.attention.layers }, (_, i) => i);
    this.push({ kind: "grid", part: this.gridPart(layers, buffers) }, buffers);
    const more: DataView[] = [];
    this.push({ kind: "scores", scores: this.scores(more) }, more);
  }

  news(): void {
    this.restamp();
    this.push({ kind: "attention", revision: this.revision, attention: this.attention });
  }

  override take(message: Up): unknown {
    switch (message.kind) {
      case "hello": {
        const { body, buffers } = this.everything();
        return this.reply(message.id, body, buffers);
      }
      case "inspect": {
        const { head, look, mode } = message;
        if (head && head[0] >= this.attention.layers) {
          return this.refuse(message.id, `There is no layer ${head[0]}.`, "head");
        }
        this.attention = {
          ...this.attention,
          ...(head && { head }),
          ...(look && { look }),
          ...(mode && { mode }),
        };
        this.reply(message.id);
        this.news();
        if (look) {
          const buffers: DataView[] = [];
          const layers = Array.from({ length: this.attention.layers }, (_, i) => i);
          this.push({ kind: "grid", part: this.gridPart(layers, buffers) }, buffers);
        }
        return;
      }
      case "head": {
        const buffers: DataView[] = [];
        const body = this.headBody(message.layer, message.head, message.look ?? "now", buffers);
        return this.reply(message.id, body, buffers);
      }
      case "tiles": {
        if (this.more.withoutTiles) return;
        const buffers: DataView[] = [];
        const { layer, head, look = "now", mode = "weight", tiles } = message;
        const body = this.tilesBody(layer, head, look, mode, tiles, buffers);
        return this.reply(message.id, body, buffers);
      }
      case "cell":
        return this.reply(message.id, this.cellBody(message));
      case "assess": {
        this.reply(message.id);
        this.push({ kind: "progress", job: "scores", key: null, done: 12, total: 48 });
        const end = () => {
          if (this.held) {
            setTimeout(end, 20);
            return;
          }
          this.measured.add(message.score);
          this.push({ kind: "progress", job: "scores", key: null, done: 48, total: 48 });
          const buffers: DataView[] = [];
          this.push({ kind: "scores", scores: this.scores(buffers) }, buffers);
        };
        setTimeout(end, 40);
        return;
      }
      case "compose": {
        const { layers, heads } = this.attention;
        const buffers: DataView[] = [];
        const way = (k: number) =>
          put(
            buffers,
            Float32Array.from({ length: layers * heads }, (_, i) =>
              Math.floor(i / heads) === message.layer
                ? Number.NaN
                : 0.2 * Math.sin(3.3 * i + k) ** 9,
            ),
            [layers, heads],
          );
        const body = {
          of: "compose",
          layer: message.layer,
          head: message.head,
          q: way(0),
          k: way(1),
          v: way(2),
          baseline: 0.0421,
        };
        return this.reply(message.id, body, buffers);
      }
      case "knock": {
        const { id, kind, how = "renormalise", ...where } = message;
        const cells = {
          layers: where.layers,
          heads: where.heads ?? null,
          destinations: where.destinations ?? null,
          sources: where.sources ?? null,
          how,
        };
        if (how === "contrast" && this.attention.second === null) {
          return this.refuse(id, "There is no second prompt to take the weights from.", "how");
        }
        const same = this.knocked.find(
          ({ key: _, muted: __, ...each }) => JSON.stringify(each) === JSON.stringify(cells),
        );
        if (same !== undefined) {
          this.change(this.state.rows.filter((each) => each.key !== same.key));
          return this.reply(id, { of: "knock", key: null });
        }
        const key = 500 + this.revision;
        this.knocked.push({ key, ...cells, muted: false });
        this.change([...this.state.rows, knockRow(key, cells)]);
        return this.reply(id, { of: "knock", key });
      }
      case "second": {
        if (message.text === null)
          this.attention = { ...this.attention, second: null, look: "now" };
        else this.compare(message.text);
        this.reply(message.id);
        return this.news();
      }
      case "align": {
        const { second } = this.attention;
        if (second === null) return this.refuse(message.id, "There is no second prompt.");
        const partners = [...second.partners];
        const [mine, other] = message.pair ?? [];
        if (typeof mine === "number") partners[mine] = other ?? null;
        this.attention = {
          ...this.attention,
          second: {
            ...second,
            partners:
              message.by === "tokens"
                ? this.state.tokens.map((token) => {
                    const at = second.tokens.findIndex((each) => each.id === token.id);
                    return at < 0 ? null : at;
                  })
                : message.by === "position"
                  ? this.state.tokens.map((_, i) => (i < second.tokens.length ? i : null))
                  : partners,
          },
        };
        this.reply(message.id);
        return this.news();
      }
      case "add": {
        const key = 900 + this.revision;
        this.change([
          ...this.state.rows,
          row({
            key,
            address: message.address,
            op: "ablate",
            how: "mean",
            value: null,
            range: null,
            positions: "",
            label: `ablate ${message.address} to its mean`,
          }),
        ]);
        return this.reply(message.id, { of: "add", key, existed: false });
      }
      default:
        return super.take(message);
    }
  }

  override push(message: Down, buffers: DataView[] = []): void {
    super.push(message, buffers);
  }
}

function knockRow(key: number, cells: Omit<KnockedOut, "key" | "muted">): Row {
  const [low = 0, high = 0] = cells.layers;
  const layers = high - low === 1 ? `L${low}` : `L[${low}:${high}]`;
  const heads = cells.heads === null ? "H*" : `H${cells.heads.join(",")}`;
  const span = (part: number[] | null) => {
    const [from = 0, to = 0] = part ?? [];
    return part === null ? "*" : to - from === 1 ? `${from}` : `${from}:${to}`;
  };
  const whole = cells.destinations === null && cells.sources === null;
  const at = whole ? "" : `[${span(cells.destinations)}<-${span(cells.sources)}]`;
  const address = `${layers}.${heads}${at}`;
  return row({
    key,
    address,
    op: "knock out",
    label: `knock out ${address}, ${cells.how === "renormalise" ? "the rest renormalised" : "weight to zero"}`,
    value: null,
    how: null,
    positions: "",
    editable: false,
    range: null,
    sd: null,
    mean: null,
    peak: null,
    observed: null,
  });
}

const KINDS = ["first", "previous", "induction", "current", "duplicate", "wide", "first", "wide"];

function kindOf(layer: number, head: number): string {
  return KINDS[(3 * layer + head * 5 + ((layer * head) % 3)) % KINDS.length] as string;
}

function score(
  tokens: readonly PromptToken[],
  layer: number,
  head: number,
  d: number,
  s: number,
): number {
  const noise = 0.9 * Math.sin(12.9898 * d + 78.233 * s + 3 * layer + head) + (s === 0 ? 1.6 : 0);
  const kind = kindOf(layer, head);
  const strong = 4.5;
  if (kind === "previous" && d === s + 1) return strong + noise;
  if (kind === "current" && d === s) return strong + noise;
  if (kind === "first" && s === 0) return strong + 1;
  if (kind === "duplicate" && s < d && tokens[s]?.id === tokens[d]?.id) return strong + noise;
  if (kind === "induction" && s > 0 && s <= d && tokens[s - 1]?.id === tokens[d]?.id) {
    return strong + 1 + noise;
  }
  return noise - 0.03 * Math.abs(d - s);
}

export function codeShare(value: number): number {
  if (Number.isNaN(value)) return 255;
  if (value < 1e-6) return 0;
  return Math.min(254, Math.max(1, Math.round(1 + 253 * (1 - Math.log(value) / Math.log(1e-6)))));
}

export function codeSigned(value: number, peak: number): number {
  if (Number.isNaN(value)) return 255;
  const size = Math.abs(value) / peak;
  if (!(size >= 1e-4)) return 128;
  const k = Math.min(126, Math.max(1, Math.round(126 * (1 - Math.log(size) / Math.log(1e-4)))));
  return 128 + Math.sign(value) * k;
}

function put(buffers: DataView[], numbers: Float32Array, shape = [numbers.length]): PackedArray {
  buffers.push(packed(numbers));
  return { buffer: buffers.length - 1, dtype: "float32", shape };
}

function putBytes(buffers: DataView[], bytes: readonly number[]): PackedArray {
  const whole = new Uint8Array(bytes.length + 3);
  whole.set(bytes, 3);
  buffers.push(new DataView(whole.buffer, 3));
  return { buffer: buffers.length - 1, dtype: "uint8", shape: [bytes.length] };
}
