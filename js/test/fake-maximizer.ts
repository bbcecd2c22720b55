// The Python half of an ActivationMaximizer with made-up pictures and prompts: a run climbs and
// sends frames, a search fills a front, and everything that should move does.
import type {
  Candidate,
  CorpusExamples,
  Discrimination,
  Down,
  Effect,
  Example,
  Frame,
  Front,
  Matters,
  MaximizerBody,
  MaximizerState,
  PackedArray,
  Picture,
  Row,
  Snapshot,
  Track,
  Up,
} from "../src/messages";
import { EIFFEL, type FakeModel, packed, row } from "./fake-kernel";

type Family = MaximizerState["family"];

export interface FakeMaximizerOptions {
  family?: Family;
  /** What there is already. */
  climbed?: boolean;
  facets?: number;
  dreamed?: boolean;
  measured?: boolean;
  own?: boolean;
  mattered?: boolean;
  discriminated?: boolean;
  refusals?: Partial<Record<MaximizerState["modes"][number]["mode"], string>>;
  /** Rows of the stack of a language model's session. */
  stacked?: Row[];
  state?: Partial<MaximizerState>;
  /** Of the picture, in pixels. */
  side?: number;
  channels?: 1 | 3;
  /** Milliseconds between frames. */
  pace?: number;
  steps?: number;
}

const TOP = "_blocks.9:c17";
const LABELS: Record<string, string> = {
  "_blocks.9:c17": "",
  "_blocks.9:c3": "",
  "_blocks.9:c170": "",
  "_fc:c207": "golden retriever",
  "_fc:c281": "tabby cat",
  "L12.N304": "",
};
const MODES = [
  "climb",
  "facets",
  "diverse",
  "dream",
  "greedy",
  "single",
  "examples",
  "own",
  "matter",
  "discriminate",
] as const;

/** A message's arrays, numbered as they come. */
class Buffers {
  readonly views: DataView[] = [];
  floats(numbers: ArrayLike<number>, shape: number[] = [numbers.length]): PackedArray {
    this.views.push(packed(numbers));
    return { buffer: this.views.length - 1, dtype: "float32", shape };
  }
  bytes(bytes: Uint8Array, shape: number[] = [bytes.length]): PackedArray {
    // At an odd offset of a larger buffer, as a comm delivers them.
    const buffer = new ArrayBuffer(bytes.length + 8);
    new Uint8Array(buffer, 3, bytes.length).set(bytes);
    this.views.push(new DataView(buffer, 3, bytes.length));
    return { buffer: this.views.length - 1, dtype: "uint8", shape };
  }
}

const noise = (seed: number) => {
  const x = Math.sin(seed * 12.9898) * 43758.5453;
  return x - Math.floor(x);
};

/** A value between 0 and 1: petals around a centre, which come out of noise as `share` grows. */
function texture(x: number, y: number, channel: number, style: number, share: number): number {
  const [u, v] = [x - 0.5 + 0.05 * style, y - 0.5];
  const radius = Math.hypot(u, v);
  const angle = Math.atan2(v, u);
  const petals = Math.cos((5 + style) * angle + 9 * radius * (1 + 0.3 * style));
  const rings = Math.cos(26 * radius + style);
  const pattern =
    0.5 + 0.3 * petals * Math.exp(-3 * radius) + 0.2 * rings * Math.cos(channel * 1.7 + style);
  const grain = noise(x * 91.7 + y * 317.1 + channel * 7 + style);
  return Math.min(1, Math.max(0, (1 - share) * (0.35 + 0.3 * grain) + share * pattern));
}

export function pixelsOf(side: number, channels: 1 | 3, style: number, share: number): Uint8Array {
  const pixels = new Uint8Array(side * side * channels);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      for (let channel = 0; channel < channels; channel++) {
        pixels[(row * side + column) * channels + channel] = Math.round(
          255 * texture(column / side, row / side, channel, style, share),
        );
      }
    }
  }
  return pixels;
}

const WORDS = [
  " the",
  " harbour",
  " of",
  " Reykjavik",
  " lies",
  " frozen",
  "\n",
  " and",
  " ships",
  " wait",
  " in",
  " ice",
  " until",
  " spring",
  " comes",
];
const PROMPT_WORDS = [
  " frost",
  "bitten",
  " harbour",
  " ice",
  " winter",
  " glacier",
  " ship",
  "s",
  " cold",
  " Antarctic",
  "\n",
  "<b>",
];

export class FakeMaximizer {
  revision = 1;
  state: MaximizerState;
  tracks: Track[] = [];
  /** Values by step, from 0 on. */
  readonly values = new Map<number, number[]>();
  front: Front | null = null;
  examples: ((buffers: Buffers) => CorpusExamples) | null = null;
  own: ((buffers: Buffers) => Example) | null = null;
  matter: Matters | null = null;
  discrimination: ((buffers: Buffers) => Discrimination) | null = null;
  loaded: unknown[] = [];
  pieces = "";
  /** While true, a running track waits. */
  held = false;
  private past: MaximizerState[] = [];
  private future: MaximizerState[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;
  private nextTrack = 1;
  readonly side: number;
  readonly channels: 1 | 3;

  constructor(
    readonly model: FakeModel,
    readonly options: FakeMaximizerOptions = {},
  ) {
    const family = options.family ?? "image";
    this.side = options.side ?? 64;
    this.channels = options.channels ?? 3;
    const prompt = family === "prompt";
    const refusal = (mode: (typeof MODES)[number]): string | null => {
      const given = options.refusals?.[mode];
      if (given !== undefined) return given;
      if (prompt && ["climb", "facets", "diverse", "discriminate"].includes(mode)) {
        return "A language model takes a prompt, not a picture; search for prompts instead.";
      }
      if (!prompt && ["dream", "greedy", "single"].includes(mode)) {
        return "This model takes a stimulus, not a prompt; optimise a picture instead.";
      }
      return null;
    };
    this.state = {
      model: prompt ? "smollm2" : family === "image" ? "efficientnet-lite0" : "retina",
      device: "cpu",
      dtype: "float32",
      family,
      shape: prompt ? [] : family === "image" ? [this.channels, null, null] : [4, 120],
      objective: prompt ? "L12.N304" : TOP,
      fixed: null,
      terms: [
        {
          address: prompt ? "L12.N304" : TOP,
          weight: 1,
          how: prompt ? "last" : "channel",
          label: "",
        },
      ],
      hows: prompt ? ["last", "peak"] : ["channel", "centre", "peak"],
      options: prompt
        ? null
        : {
            steps: options.steps ?? 256,
            size: family === "image" ? this.side : null,
            smallest: 32,
            seed: 0,
            parameterization: "fourier",
            transforms: "crops",
            decay: 1.25,
            rate: 0.05,
            l2: 0,
            tv: 0,
            blur: 0,
            start: "noise",
          },
      dreaming: prompt
        ? {
            length: 12,
            population: 8,
            children: 32,
            iterations: 300,
            top: 512,
            seconds: null,
            seed: 0,
            start: "random",
          }
        : null,
      modes: MODES.map((mode) => ({ mode, refusal: refusal(mode) })),
      activity: null,
      input: prompt ? "The harbour of Reykjavik" : "goldfish.jpg",
      tokens: prompt
        ? EIFFEL.map((text, position) => ({
            position,
            id: 100 + position,
            text,
            bos: position === 0,
          }))
        : [],
      strip: prompt
        ? {
            prompt: EIFFEL.slice(1).join(""),
            max_tokens: 8192,
            rows: options.stacked ?? [],
            selected: null,
            metric: 'log p(" Paris")',
          }
        : null,
      corpus: prompt ? "412 English passages" : "24 sample pictures",
      can_undo: false,
      can_redo: false,
      notes: [],
      ...options.state,
    };
    if (options.climbed) this.addTrack("climb", "picture", this.total(), "done");
    if (options.facets) {
      for (let i = 0; i < options.facets; i++) {
        this.addTrack("facet", `facet ${i + 1}`, this.total(), "done", i + 1);
      }
    }
    if (options.dreamed) this.front = this.frontAt(48, "paused");
    if (options.measured) this.examples = (buffers) => this.corpus(buffers);
    if (options.own) this.own = (buffers) => this.example(buffers, 2.31, 7);
    if (options.mattered) this.matter = this.ablated();
    if (options.discriminated) this.discrimination = (buffers) => this.discriminated(buffers);
    model.onSend = (message) => setTimeout(() => this.take(message), 2);
  }

  total(): number {
    return this.state.options?.steps ?? 300;
  }

  // --- what there is ---
  picture(buffers: Buffers, style: number, share: number): Picture {
    const { family } = this.state;
    const base = { channels: 1, low: 0, high: 1, coding: "raw" as const };
    if (family === "curve" || family === "raster") {
      const [height, width] = family === "curve" ? [3, 120] : [16, 60];
      const values = Float32Array.from({ length: height * width }, (_, i) => {
        const [row, t] = [Math.floor(i / width), i % width];
        const wave =
          Math.sin((t / width) * (6 + 3 * row) + style) * Math.exp(-((t - 70) ** 2) / 1500);
        return share * wave + (1 - share) * (noise(i + style) - 0.5);
      });
      return {
        ...base,
        renderer: family,
        height,
        width,
        low: -1,
        pixels: null,
        values: buffers.floats(values, [height, width]),
      };
    }
    return {
      ...base,
      renderer: "image",
      height: this.side,
      width: this.side,
      channels: this.channels,
      pixels: buffers.bytes(pixelsOf(this.side, this.channels, style, share), [
        this.side,
        this.side,
        this.channels,
      ]),
      values: null,
    };
  }

  valueAt(track: number, step: number): number {
    return (
      (9 + 1.7 * track) * (1 - Math.exp((-3 * step) / this.total())) + 0.25 * noise(step) - 0.4
    );
  }

  frame(buffers: Buffers, key: number, step: number): Frame {
    return {
      track: key,
      step,
      total: this.total(),
      value: this.valueAt(key, step),
      picture: this.picture(buffers, key, Math.min(1, step / (0.7 * this.total()))),
    };
  }

  addTrack(
    kind: Track["kind"],
    label: string,
    step: number,
    status: Track["status"],
    members = 0,
  ): Track {
    const key = this.nextTrack;
    this.nextTrack += 1;
    const track: Track = {
      key,
      kind,
      label,
      objective: this.state.objective,
      status,
      step,
      total: this.total(),
      value: step > 0 ? this.valueAt(key, step - 1) : null,
      best: step > 0 ? this.valueAt(key, step - 1) : null,
      kept: { buffer: -1, dtype: "int32", shape: [0] },
      budget: 32 * 2 ** 20,
      members: Array.from({ length: members > 0 ? 6 : 0 }) as Picture[],
      member_count: members > 0 ? 4 + 3 * members : 0,
      note: "",
    };
    this.tracks.push(track);
    this.values.set(
      key,
      Array.from({ length: step }, (_, i) => this.valueAt(key, i)),
    );
    return track;
  }

  keptOf(track: Track): number[] {
    const every = Math.max(1, Math.floor(this.total() / 32));
    const kept: number[] = [];
    for (let step = 0; step < track.step - 1; step += every) kept.push(step);
    if (track.step > 0) kept.push(track.step - 1);
    return kept;
  }

  tracksOf(buffers: Buffers): Track[] {
    return this.tracks.map((track) => ({
      ...track,
      kept: buffers.floats(this.keptOf(track)),
      members: track.members.map((_, i) => this.picture(buffers, track.key + 0.21 * (i + 1), 0.9)),
    }));
  }

  example(buffers: Buffers, activation: number, index: number): Example {
    const { family } = this.state;
    const prompt = family === "prompt";
    const words = Array.from(
      { length: 14 },
      (_, i) => WORDS[(i * 3 + index * 5) % WORDS.length] as string,
    );
    const at = 9;
    return {
      objective: this.state.objective,
      activation,
      name: prompt ? `text ${index}, token 40` : `picture ${index}.jpg`,
      tokens: prompt ? words.map((text, i) => ({ id: 200 + i, text })) : [],
      activations: prompt
        ? buffers.floats(
            words.map((_, i) => (i === at ? activation : activation * 0.6 * noise(i + 13 * index))),
          )
        : null,
      at: prompt ? at : null,
      cross_entropy: prompt ? 3.1 + 0.1 * index : null,
      picture: prompt ? null : this.picture(buffers, index / 3, 0.8),
      map:
        family === "image"
          ? buffers.floats(
              Array.from({ length: 49 }, (_, i) => activation * 1.2 * noise(i + index)),
              [7, 7],
            )
          : null,
      map_height: family === "image" ? 7 : 0,
      map_width: family === "image" ? 7 : 0,
    };
  }

  corpus(buffers: Buffers, done = 412): CorpusExamples {
    const bins = 48;
    const edges = Array.from({ length: bins + 1 }, (_, i) => -0.4 + (5.2 * i) / bins);
    const counts = Array.from({ length: bins }, (_, i) => Math.round(9000 * Math.exp(-i / 4.2)));
    const names = ["top", "90th to 99th percentile", "around the median", "bottom"];
    let index = 0;
    return {
      objective: this.state.objective,
      corpus: this.state.corpus,
      done,
      total: 412,
      count: 38_112,
      mean: 0.081,
      sd: 0.42,
      maximum: 4.71,
      edges: buffers.floats(edges),
      counts: buffers.floats(counts),
      groups: names.map((name, g) => ({
        name,
        low: 4.2 - 1.4 * g,
        high: 4.71 - 1.4 * g,
        examples: Array.from({ length: g === 0 ? 9 : 4 }, (_, i) => {
          index += 1;
          return this.example(buffers, 4.71 - 1.4 * g - 0.09 * i, index);
        }),
      })),
      low: 0,
      high: 4.71,
      note: "",
    };
  }

  candidate(
    key: number,
    kind: Candidate["kind"],
    activation: number,
    entropy: number | null,
  ): Candidate {
    const length = kind === "single" ? 1 : 12;
    const tokens = Array.from({ length }, (_, i) => ({
      id: 300 + 50 * key + i,
      text: PROMPT_WORDS[(i * 5 + key * 7) % PROMPT_WORDS.length] as string,
    }));
    return {
      key,
      kind,
      tokens,
      text: tokens.map((token) => token.text).join(""),
      activation,
      cross_entropy: entropy,
      activations: null,
      front: false,
    };
  }

  frontAt(iteration: number, status: Front["status"]): Front {
    const candidates: Candidate[] = [];
    const reach = 1 - Math.exp(-iteration / 40);
    for (let i = 0; i < 14; i++) {
      const entropy = 3 + i * 0.75;
      const peak = reach * 14 * (1 - Math.exp(-(entropy - 2.4) / 3.5));
      const made = this.candidate(i + 1, "epo", peak * (i % 2 === 0 ? 1 : 0.78), entropy);
      candidates.push({ ...made, front: i % 2 === 0 });
    }
    for (let i = 0; i < 8; i++) {
      candidates.push(this.candidate(40 + i, "corpus", 4.7 - 0.4 * i, 2.4 + 0.3 * noise(i)));
    }
    return {
      objective: this.state.objective,
      candidates,
      method: "epo",
      status,
      iteration,
      iterations: 300,
      tried: iteration * 256,
      seconds: iteration * 0.61,
      note: "",
    };
  }

  frontOf(buffers: Buffers): Front | null {
    if (this.front === null) return null;
    return {
      ...this.front,
      candidates: this.front.candidates.map((each) => ({
        ...each,
        activations: buffers.floats(
          each.tokens.map((_, i) =>
            i === each.tokens.length - 1
              ? each.activation
              : each.activation * 0.5 * noise(i + each.key),
          ),
        ),
      })),
    };
  }

  ablated(): Matters {
    const module = this.state.family !== "prompt";
    return {
      objective: this.state.objective,
      unit: module ? TOP : "L12.N304",
      subject: module ? "the picture at step 256" : "“ frost harbour ice”",
      how: "mean",
      activation: 9.8,
      corpus_maximum: 4.71,
      kl: 1.83,
      measured: "KL(as it is || ablated) of the prediction, nats",
      controls: [31, 4, 88, 102, 57].map((index, i) => ({
        address: module ? `_blocks.9:c${index}` : `L12.N${index}`,
        kl: [0.021, 0.008, 0.11, 0.043, 0.017][i] as number,
      })),
      note: "",
    };
  }

  discriminated(buffers: Buffers): Discrimination {
    const [units, clusters] = [24, 3];
    const labels = Array.from({ length: units }, (_, i) => (i * 7) % clusters);
    return {
      units: Array.from({ length: units }, (_, i) => `_fc:c${i}`),
      clusters,
      labels: buffers.floats(labels),
      responses: buffers.floats(
        Array.from({ length: clusters * units }, (_, i) => {
          const [row, unit] = [Math.floor(i / units), i % units];
          return labels[unit] === row ? 3 + noise(i) : 0.7 * noise(i + 5);
        }),
        [clusters, units],
      ),
      stimuli: Array.from({ length: clusters }, (_, i) => this.picture(buffers, i, 1)),
      value: 0.83,
      iteration: 12,
      iterations: 20,
      status: "done",
      note: "",
    };
  }

  hello(all = false): { body: MaximizerBody; buffers: DataView[] } {
    const buffers = new Buffers();
    const frames = this.tracks
      .filter((track) => track.step > 0)
      .flatMap((track) =>
        (all ? this.keptOf(track) : [track.step - 1]).map((step) =>
          this.frame(buffers, track.key, step),
        ),
      );
    return {
      body: {
        of: "maximizer",
        revision: this.revision,
        state: this.state,
        tracks: this.tracksOf(buffers),
        curves: this.tracks.map((track) => ({
          track: track.key,
          start: 0,
          stride: 1,
          values: buffers.floats(this.values.get(track.key) ?? []),
        })),
        frames,
        front: this.frontOf(buffers),
        examples: this.examples?.(buffers) ?? null,
        own: this.own?.(buffers) ?? null,
        matter: this.matter,
        discrimination: this.discrimination?.(buffers) ?? null,
        effects_revision: this.revision,
        effects: this.effects(),
      },
      buffers: buffers.views,
    };
  }

  /** The trait that a saved page draws from. */
  snapshot(): Snapshot {
    const { body, buffers } = this.hello(true);
    return {
      hello: body,
      cut: [],
      buffers: buffers.map((view) => {
        let text = "";
        for (let i = 0; i < view.byteLength; i++) text += String.fromCharCode(view.getUint8(i));
        return btoa(text);
      }),
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
  declare(changes: Partial<MaximizerState>): void {
    this.revision += 1;
    this.state = { ...this.state, ...changes };
    this.push({ kind: "maximizer", revision: this.revision, state: this.state });
  }
  sayTracks(): void {
    const buffers = new Buffers();
    this.push({ kind: "tracks", tracks: this.tracksOf(buffers) }, buffers.views);
  }
  sayFrame(key: number, from: number, to: number): void {
    const buffers = new Buffers();
    const values = (this.values.get(key) ?? []).slice(from, to);
    this.push(
      {
        kind: "frame",
        frame: this.frame(buffers, key, to - 1),
        curve: { track: key, start: from, stride: 1, values: buffers.floats(values) },
      },
      buffers.views,
    );
  }
  effects(): Effect[] {
    return (this.state.strip?.rows ?? []).map(({ key }) => ({
      key,
      effect: -0.61 * key,
      control: { median: 0.02, low: -0.04, high: 0.07, seeds: 5, of: "neurons" },
    }));
  }
  /** Gives the stack other rows, and says what they do once the state is known. */
  restack(rows: Row[]): void {
    const { strip } = this.state;
    if (strip === null) return;
    this.past.push(this.state);
    this.future = [];
    this.declare({ strip: { ...strip, rows }, can_undo: true });
    this.push({ kind: "effects", revision: this.revision, rows: this.effects() });
  }
  sayFront(): void {
    const buffers = new Buffers();
    this.push({ kind: "front", front: this.frontOf(buffers) }, buffers.views);
  }
  sayExamples(done = 412): void {
    const buffers = new Buffers();
    this.examples = (into) => this.corpus(into, done);
    this.push({ kind: "examples", examples: this.examples(buffers) }, buffers.views);
  }

  // --- running ---
  /** One round of everything that runs: eight steps of each track, or an iteration. */
  step(): void {
    const { activity } = this.state;
    if (activity === null || activity.paused) return;
    if (activity.mode === "dream") {
      const iteration = (this.front?.iteration ?? 0) + 2;
      this.front = this.frontAt(iteration, "running");
      this.sayFront();
    } else {
      for (const track of this.tracks) {
        if (track.status !== "running") continue;
        const to = Math.min(track.total, track.step + 8);
        const values = this.values.get(track.key) ?? [];
        for (let step = track.step; step < to; step++) values.push(this.valueAt(track.key, step));
        const from = track.step;
        track.step = to;
        track.value = track.best = this.valueAt(track.key, to - 1);
        this.sayFrame(track.key, from, to);
        if (to === track.total) track.status = "done";
      }
      if (this.tracks.every((track) => track.status !== "running")) {
        this.sayTracks();
        this.declare({ activity: null });
      }
    }
    this.run();
  }
  run(): void {
    clearTimeout(this.timer);
    const { activity } = this.state;
    if (activity === null || activity.paused || this.held) return;
    this.timer = setTimeout(() => this.step(), this.options.pace ?? 20);
  }
  end(status: "stopped" | "paused"): void {
    clearTimeout(this.timer);
    for (const track of this.tracks) if (track.status === "running") track.status = status;
    if (this.front?.status === "running") this.front = { ...this.front, status };
    this.sayTracks();
    if (this.front !== null) this.sayFront();
  }
  private begin(mode: NonNullable<MaximizerState["activity"]>["mode"]): void {
    this.declare({ activity: { mode, paused: false } });
    this.run();
  }

  private rows(): Row[] {
    return this.state.strip?.rows ?? [];
  }

  take(message: Up): unknown {
    switch (message.kind) {
      case "hello": {
        const { body, buffers } = this.hello();
        return this.reply(message.id, body, buffers);
      }
      case "edit": {
        const { id, kind: _kind, key, final: _final, ...changes } = message;
        this.restack(
          this.rows().map((each) => (each.key === key ? { ...each, ...changes } : each) as Row),
        );
        return this.reply(id);
      }
      case "add": {
        const key = Math.max(0, ...this.rows().map((each) => each.key)) + 1;
        this.restack([...this.rows(), row({ key, address: message.address, value: 2.37 })]);
        return this.reply(message.id, { of: "add", key, existed: false });
      }
      case "remove":
        this.restack(this.rows().filter((each) => each.key !== message.key));
        return this.reply(message.id);
      case "reset":
        this.restack([]);
        return this.reply(message.id);
      case "complete": {
        const items = Object.keys(LABELS).filter(
          (each) => each.startsWith(message.prefix) || LABELS[each]?.includes(message.prefix),
        );
        const labels = items.map((each) => LABELS[each] ?? "");
        return this.reply(message.id, { of: "complete", items, labels });
      }
      case "aim": {
        const unknown = message.terms.find((each) => LABELS[each.address] === undefined);
        if (unknown !== undefined) {
          return this.refuse(
            message.id,
            `There is no unit ${unknown.address}; the nearest is ${TOP}.`,
            "terms",
          );
        }
        this.past.push(this.state);
        this.future = [];
        const terms = message.terms.map((each) => ({
          address: each.address,
          weight: each.weight ?? 1,
          how: each.address.startsWith("_fc") ? null : (each.how ?? "channel"),
          label: LABELS[each.address] ?? "",
        }));
        this.declare({
          terms,
          objective: terms
            .map((each) => (each.weight === 1 ? each.address : `${each.weight} × ${each.address}`))
            .join(" + "),
          can_undo: true,
          can_redo: false,
        });
        return this.reply(message.id);
      }
      case "undo":
      case "redo": {
        const [from, to] =
          message.kind === "undo" ? [this.past, this.future] : [this.future, this.past];
        const back = from.pop();
        if (back === undefined) return this.refuse(message.id, "There is nothing to undo.");
        to.push(this.state);
        this.declare({
          ...back,
          can_undo: this.past.length > 0,
          can_redo: this.future.length > 0,
        });
        return this.reply(message.id);
      }
      case "options": {
        const { id, kind, final, ...changes } = message;
        if (changes.size !== undefined && changes.size !== null && changes.size < 32) {
          return this.refuse(id, "The network takes no picture under 32 pixels.", "size");
        }
        const options = this.state.options as NonNullable<MaximizerState["options"]>;
        this.declare({ options: { ...options, ...(changes as Partial<typeof options>) } });
        return this.reply(id);
      }
      case "climb": {
        const { activity } = this.state;
        if (activity?.paused && !message.again) {
          for (const track of this.tracks) if (track.status === "paused") track.status = "running";
          this.begin(activity.mode);
        } else {
          this.tracks = [];
          this.addTrack("climb", "picture", 0, "running");
          this.sayTracks();
          this.begin("climb");
        }
        return this.reply(message.id);
      }
      case "facets":
      case "diverse": {
        const many = message.count ?? 3;
        this.tracks = [];
        for (let i = 0; i < many; i++) {
          const facet = message.kind === "facets";
          this.addTrack(
            facet ? "facet" : "diverse",
            `${facet ? "facet" : "picture"} ${i + 1}`,
            0,
            "running",
            facet ? i + 1 : 0,
          );
        }
        this.sayTracks();
        this.begin(message.kind);
        return this.reply(message.id);
      }
      case "dream":
        if (message.again) this.front = null;
        this.front = this.frontAt(this.front?.iteration ?? 0, "running");
        this.begin("dream");
        return this.reply(message.id);
      case "rivals": {
        const from = message.method === "greedy" ? 60 : 80;
        const added = Array.from({ length: 6 }, (_, i) =>
          message.method === "greedy"
            ? this.candidate(from + i, "greedy", 5 + i, 9 + 0.3 * i)
            : this.candidate(from + i, "single", 3 + 0.5 * i, 8 + 0.8 * i),
        );
        const front = this.front ?? this.frontAt(0, "done");
        this.front = { ...front, candidates: [...front.candidates, ...added] };
        this.sayFront();
        return this.reply(message.id);
      }
      case "pause":
        if (this.state.activity === null) return this.refuse(message.id, "Nothing runs.");
        this.end("paused");
        this.declare({ activity: { ...this.state.activity, paused: true } });
        return this.reply(message.id);
      case "stop":
        this.end("stopped");
        this.declare({ activity: null });
        return this.reply(message.id);
      case "scrub": {
        const buffers = new Buffers();
        const frame = this.frame(buffers, message.track, message.step);
        return this.reply(message.id, { of: "frame", frame }, buffers.views);
      }
      case "examples":
        this.push({ kind: "progress", job: "examples", key: null, done: 100, total: 412 });
        setTimeout(() => {
          this.sayExamples();
          this.push({ kind: "progress", job: "examples", key: null, done: 412, total: 412 });
        }, 30);
        return this.reply(message.id);
      case "piece":
        this.pieces = message.index === 0 ? message.data : this.pieces + message.data;
        return this.reply(message.id);
      case "own": {
        const gone = !message.text && !message.piece;
        if (message.text === "") return this.refuse(message.id, "The text is empty.", "text");
        const buffers = new Buffers();
        this.own = gone ? null : (into) => this.example(into, 2.31, 7);
        this.push({ kind: "own", own: this.own?.(buffers) ?? null }, buffers.views);
        return this.reply(message.id);
      }
      case "matter":
        this.matter = this.ablated();
        this.push({ kind: "matter", matter: this.matter });
        return this.reply(message.id);
      case "discriminate": {
        const buffers = new Buffers();
        this.discrimination = (into) => this.discriminated(into);
        this.push(
          { kind: "discrimination", discrimination: this.discrimination(buffers) },
          buffers.views,
        );
        return this.reply(message.id);
      }
      case "load": {
        this.loaded.push(message);
        const found = this.front?.candidates.find((each) => each.key === message.candidate);
        const input = found?.text ?? "a picture";
        const tokens = (found?.tokens ?? []).map((token, position) => ({
          ...token,
          position,
          bos: false,
        }));
        this.declare({ input, tokens, can_undo: true });
        return this.reply(message.id, { of: "load", input });
      }
      case "save": {
        const buffers = new Buffers();
        const data = buffers.bytes(new Uint8Array([137, 80, 78, 71]));
        const body = {
          of: "save",
          name: `patchclamp-${message.what}.${message.format}`,
          mime: "image/png",
          data,
        };
        return this.reply(message.id, body, buffers.views);
      }
      default:
        return this.refuse(message.id, `This view knows no ${message.kind}.`, "kind");
    }
  }
}
