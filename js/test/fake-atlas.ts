// The Python half of a NeuronAtlas with made-up neurons: as many as a real model has, sorted and
// sifted as asked, with a card for each. The real one is tested in JupyterLab.
import type {
  AtlasBody,
  AtlasState,
  Card,
  Down,
  PackedArray,
  PageBody,
  Snapshot,
  Up,
  WeighBody,
} from "../src/messages";
import { type FakeModel, packed } from "./fake-kernel";

type Row = PageBody["rows"][number];
type Sift = Extract<Up, { kind: "sift" }>;
type Sifted = AtlasState["sifted"];

export interface FakeAtlasOptions {
  layers?: number;
  each?: number;
  /** Without: there is no atlas yet. */
  built?: boolean;
  corpus?: boolean;
  /** Whose card is shown from the beginning. */
  card?: string | null;
  weighed?: boolean;
  state?: Partial<AtlasState>;
  /** Milliseconds until a page of rows is there. */
  delay?: number;
  /** Of a saved page. */
  scatter?: Uint8Array | null;
}

/** Tokens that a page could take for something else. */
export const ODD = "<img src=x onerror=window.taken=1>";
const WORDS = [
  " dog",
  " Paris",
  "ing",
  " than",
  "\n",
  " their",
  ODD,
  " about",
  " naïve",
  "\t",
  " 1914",
  " protein",
];

const noise = (seed: number) => {
  const x = Math.sin(seed * 12.9898) * 43758.5453;
  return x - Math.floor(x);
};
const word = (seed: number) => WORDS[Math.floor(noise(seed) * WORDS.length)] as string;

export class FakeAtlas {
  revision = 1;
  state: AtlasState;
  weighed: WeighBody | null = null;
  /** While true, pages wait. */
  held = false;
  private order: number[] = [];
  private places: number[] = [];
  private waiting: (() => void)[] = [];
  readonly layers: number;
  readonly each: number;

  constructor(
    readonly model: FakeModel,
    readonly options: FakeAtlasOptions = {},
  ) {
    this.layers = options.layers ?? 30;
    this.each = options.each ?? 1536;
    const corpus = options.corpus ?? true;
    const neurons = this.layers * this.each;
    this.state = {
      model: "smollm2",
      device: "cpu",
      dtype: "float32",
      atlas:
        options.built === false
          ? null
          : {
              folder: "atlas-smollm2",
              model: "smollm2",
              neurons,
              layers: this.layers,
              corpus: corpus ? "English texts that come with patchclamp" : "",
              tokens: corpus ? 52_310 : 0,
              texts: 412,
              split: 3,
              matrices: ["down", "up", "gate"],
              labels: [],
            },
      plan: "Reads the English texts that come with patchclamp once with all 46,080 neurons, and decodes down and up and gate; it goes into atlas-smollm2 and can be stopped and gone on with.",
      sifted: {
        token: "",
        matrix: "down",
        layers: null,
        least: null,
        brush: null,
        order: "score",
        falling: true,
      },
      table: 0,
      count: 0,
      selected: null,
      held: false,
      prompt: "The dog chased the",
      can_undo: false,
      can_redo: false,
      notes: [],
      ...options.state,
    };
    this.places = Array.from({ length: neurons }, (_, i) => i);
    this.sort();
    if (options.card) this.state.selected = options.card;
    if (options.weighed && options.card) this.weighed = this.weigh(options.card, 0);
    model.onSend = (message) => setTimeout(() => this.take(message), 2);
  }

  // --- what there is ---
  row(place: number): Row {
    const corpus = this.options.corpus ?? true;
    const z = noise(place + 0.3) * 9 - 3;
    return {
      address: `L${Math.floor(place / this.each)}.N${place % this.each}`,
      score: 60 * noise(place) ** 6,
      token: word(place),
      sign: noise(place + 0.7) < 0.3 ? -1 : 1,
      z: this.state.sifted.token === "" ? null : z,
      firing: corpus ? noise(place + 0.1) ** 3 : null,
      mean: corpus ? noise(place + 0.2) - 0.5 : null,
      sd: corpus ? 0.2 + noise(place + 0.4) : null,
      peak: corpus ? 1 + 12 * noise(place + 0.5) : null,
      massive: place === 3,
    };
  }

  rows(start: number, count: number): Row[] {
    return this.order.slice(start, start + count).map((place) => this.row(place));
  }

  placeOf(address: string): number | null {
    const found = /^L(\d+)\.N(\d+)$/.exec(address);
    const [layer, index] = [Number(found?.[1]), Number(found?.[2])];
    return layer < this.layers && index < this.each ? layer * this.each + index : null;
  }

  private sort(): void {
    const { layers, least, order, falling } = this.state.sifted;
    const kept = this.places.filter((place) => {
      const layer = Math.floor(place / this.each);
      if (layers !== null && (layer < (layers[0] ?? 0) || layer > (layers[1] ?? 0))) return false;
      return least === null || (this.row(place).score ?? 0) >= least;
    });
    const key = (place: number): number => {
      const row = this.row(place);
      return order === "address" ? place : Math.abs(row[order] ?? 0);
    };
    const keys = new Map(kept.map((place) => [place, key(place)]));
    const way = falling ? -1 : 1;
    this.order = kept.sort((a, b) => way * ((keys.get(a) ?? 0) - (keys.get(b) ?? 0)));
    this.state.count = this.state.atlas === null ? 0 : this.order.length;
  }

  card(address: string, floats: (numbers: number[]) => PackedArray): Card {
    const place = this.placeOf(address) ?? 0;
    const row = this.row(place);
    const tokens = (seed: number, sign: number) =>
      Array.from({ length: 10 }, (_, i) => ({
        id: 10 * seed + i,
        text: i === 0 && sign === row.sign ? row.token : word(seed + 7 * i),
        z: sign * (7 - 0.5 * i),
      }));
    const near = (seed: number, sign: number) =>
      Array.from({ length: 8 }, (_, i) => ({
        address: `L${Math.floor(noise(seed + i) * this.layers)}.N${Math.floor(noise(seed + i + 0.5) * this.each)}`,
        value: sign ** i * (0.9 - 0.08 * i),
        token: word(seed + i),
      }));
    const bins = 48;
    const example = (group: string, i: number) => ({
      group,
      value: group === "top" ? 9.2 - 0.7 * i : 2.2 - 0.8 * i,
      place: 100 * group.length + i,
      before: `the quick brown fox of the north jumped over ${i} lazy`,
      token: i === 1 ? ODD : " dog",
      after: " and slept in the shade of a large tree\nuntil the evening",
    });
    return {
      row,
      decoded: (["down", "up", "gate"] as const).flatMap((matrix, m) =>
        ([1, -1] as const).map((sign) => ({
          matrix,
          sign,
          tokens: tokens(place + 3 * m + sign, sign),
        })),
      ),
      histogram: !(this.options.corpus ?? true)
        ? null
        : {
            edges: floats(Array.from({ length: bins + 1 }, (_, i) => -3 + (13 * i) / bins)),
            counts: floats(
              Array.from({ length: bins }, (_, i) =>
                Math.round(9000 * Math.exp(-((i - 11) ** 2) / 60)),
              ),
            ),
            quantiles: [-1.2, -0.6, 0.1, 1.4, 4.2],
            error: 0.01,
          },
      examples: [
        ...Array.from({ length: 8 }, (_, i) => example("top", i)),
        ...["90–99 %", "40–60 %"].flatMap((group) =>
          Array.from({ length: 3 }, (_, i) => example(group, i)),
        ),
      ],
      writes_like: near(place + 1, -1),
      fires_like: near(place + 2, 1),
      feeds: near(place + 3, -1).map((each, i) => ({
        ...each,
        address: i % 3 === 1 ? `L${20 + i}.H${i}:q` : `${each.address}:gate`,
        token: i % 3 === 1 ? "" : each.token,
      })),
      labels: [],
      note: row.massive
        ? "A massive-activation neuron: it carries the model whatever it reads."
        : "",
    };
  }

  weigh(address: string, token: number): WeighBody {
    const place = this.placeOf(address) ?? 0;
    return {
      of: "weigh",
      token: token === 0 ? " dog" : word(token),
      neuron: { address, up: 2.41, down: -1.3 },
      controls: Array.from({ length: 5 }, (_, i) => ({
        address: `L${Math.floor(place / this.each)}.N${11 * i + 4}`,
        up: 0.3 * (noise(i) - 0.5),
        down: 0.3 * (noise(i + 9) - 0.5),
      })),
      value: 18.4,
      prompts: 8,
      note: "",
    };
  }

  hello(): { body: AtlasBody; buffers: DataView[] } {
    const { card, buffers } = this.packedCard(this.state.selected);
    const { scatter } = this.options;
    let drawn: PackedArray | null = null;
    if (scatter) {
      buffers.push(new DataView(scatter.slice().buffer));
      drawn = { buffer: buffers.length - 1, dtype: "uint8", shape: [scatter.length] };
    }
    return {
      body: {
        of: "atlas",
        revision: this.revision,
        state: this.state,
        start: 0,
        rows: this.state.atlas === null ? [] : this.rows(0, 60),
        card,
        weighed: this.weighed,
        scatter: drawn,
      },
      buffers,
    };
  }

  packedCard(address: string | null): { card: Card | null; buffers: DataView[] } {
    const buffers: DataView[] = [];
    if (address === null) return { card: null, buffers };
    const card = this.card(address, (numbers) => {
      buffers.push(packed(numbers));
      return { buffer: buffers.length - 1, dtype: "float32", shape: [numbers.length] };
    });
    return { card, buffers };
  }

  /** The trait that a saved page draws from. */
  snapshot(): Snapshot {
    const { body, buffers } = this.hello();
    return {
      hello: body,
      cut: [],
      buffers: buffers.map((view) =>
        btoa(String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset, view.byteLength))),
      ),
    };
  }

  // --- saying it ---
  reply(id: number, body: unknown = null, buffers: DataView[] = []): void {
    this.model.say({ kind: "reply", id, ok: true, revision: this.revision, body }, buffers);
  }
  refuse(id: number, error: string, field: string | null = null): void {
    this.model.say({ kind: "reply", id, ok: false, revision: this.revision, error, field });
  }
  push(message: Down, buffers: DataView[] = []): void {
    this.model.say(message, buffers);
  }
  declare(changes: Partial<AtlasState>): void {
    this.revision += 1;
    this.state = { ...this.state, ...changes };
    this.push({ kind: "atlas", revision: this.revision, state: this.state });
  }
  sift(changes: Partial<Sifted>): void {
    this.state = { ...this.state, sifted: { ...this.state.sifted, ...changes } };
    this.sort();
    this.declare({ table: this.state.table + 1 });
  }
  /** Answers what was held back. */
  release(): void {
    this.held = false;
    for (const answer of this.waiting.splice(0)) answer();
  }

  // --- what a person did ---
  take(message: Up): unknown {
    switch (message.kind) {
      case "hello": {
        const { body, buffers } = this.hello();
        return this.reply(message.id, body, buffers);
      }
      case "sift":
        return this.sifted(message);
      case "page": {
        const { table } = this.state;
        const rows = this.rows(message.start, message.count);
        const answer = () =>
          this.reply(message.id, { of: "page", table, start: message.start, rows });
        if (this.held) return this.waiting.push(answer);
        return setTimeout(answer, this.options.delay ?? 0);
      }
      case "meet": {
        if (message.address !== null && this.placeOf(message.address) === null) {
          return this.refuse(
            message.id,
            `There is no neuron ${message.address} in this atlas.`,
            "address",
          );
        }
        this.declare({ selected: message.address });
        const { card, buffers } = this.packedCard(message.address);
        return this.reply(message.id, { of: "card", card }, buffers);
      }
      case "shade": {
        if (message.place === 301) {
          return this.refuse(message.id, "The corpus has no token at place 301.");
        }
        const words = [" the", " lazy", " dog", " and", ODD, " slept", "\n", " until"];
        const values = packed([0.1, 0.8, 9.25, 1.4, -0.6, 0.2, 0, 0.3]);
        const body = {
          of: "shade",
          address: message.address,
          place: message.place,
          tokens: words.map((text, id) => ({ id, text })),
          values: { buffer: 0, dtype: "float32", shape: [8] },
          at: 2,
        };
        return this.reply(message.id, body, [values]);
      }
      case "weigh":
        if (message.token === 666) return this.refuse(message.id, "There is no token 666.");
        this.weighed = this.weigh(message.address, message.token);
        return this.reply(message.id, this.weighed);
      case "hold":
        this.declare({ held: true, can_undo: true });
        return this.reply(message.id);
      case "build":
        this.push({
          kind: "status",
          revision: this.revision,
          busy: true,
          what: "building",
          error: null,
        });
        this.push({ kind: "progress", job: "atlas", key: null, done: 40, total: 410 });
        return this.reply(message.id);
      case "stop":
        this.push({ kind: "status", revision: this.revision, busy: false, what: "", error: null });
        return this.reply(message.id);
      case "undo":
      case "redo":
        this.declare({ can_undo: message.kind === "redo", can_redo: message.kind === "undo" });
        return this.reply(message.id);
      default:
        return this.refuse(message.id, `This view knows no ${message.kind}.`, "kind");
    }
  }

  private sifted(message: Sift): unknown {
    const { id, kind: _kind, brushed, ...asked } = message;
    if (asked.token === "zzz") {
      this.reply(id);
      const error = "No token of smollm2 reads 'zzz', which must be one token.";
      return this.push({ kind: "status", revision: this.revision, busy: false, what: "", error });
    }
    if (asked.least !== null && (asked.least ?? 0) > 1e6) {
      return this.refuse(id, "No neuron is that special.", "least");
    }
    this.sift({
      ...(asked as Partial<Sifted>),
      layers: asked.layers ?? null,
      brush: brushed === false ? null : this.state.sifted.brush,
    });
    return this.reply(id);
  }
}
