// A stand-in for anywidget's model, and for the Python half behind it: enough arithmetic that
// everything the view shows moves when it should. The real one is tested in JupyterLab.
import type { Down, Effect, HelloBody, Result, Row, Snapshot, State, Up } from "../src/messages";

type Listener = (...args: never[]) => void;

/** anywidget's model, as far as the view uses it. */
export class FakeModel {
  readonly sent: Up[] = [];
  readonly listeners = new Map<string, Set<Listener>>();
  onSend: (message: Up) => void = () => undefined;
  /** Of hosts that make other widgets' views. */
  widget_manager?: {
    get_model(id: string): Promise<unknown>;
    create_view(model: unknown): Promise<{ el: HTMLElement; remove(): void }>;
  };
  constructor(readonly traits: Record<string, unknown> = { live: true }) {}

  get(name: string): unknown {
    return this.traits[name];
  }
  on(event: string, listener: Listener): void {
    const known = this.listeners.get(event) ?? new Set();
    this.listeners.set(event, known.add(listener));
  }
  off(event: string, listener: Listener): void {
    this.listeners.get(event)?.delete(listener);
  }
  send(message: unknown): void {
    this.sent.push(message as Up);
    this.onSend(message as Up);
  }
  /** A message from Python. */
  say(message: unknown, buffers: DataView[] = []): void {
    for (const listener of this.listeners.get("msg:custom") ?? []) {
      (listener as (message: unknown, buffers: DataView[]) => void)(message, buffers);
    }
  }
  trigger(event: string): void {
    for (const listener of this.listeners.get(event) ?? []) (listener as () => void)();
  }
  kinds(): string[] {
    return this.sent.map((message) => message.kind);
  }
  count(): number {
    return [...this.listeners.values()].reduce((sum, each) => sum + each.size, 0);
  }
}

/** float32 numbers as a comm delivers them: a view into a larger buffer, at an odd offset. */
export function packed(numbers: ArrayLike<number>, offset = 3): DataView {
  const buffer = new ArrayBuffer(offset + 4 * numbers.length + 5);
  const view = new DataView(buffer, offset, 4 * numbers.length);
  Array.from(numbers).forEach((number, i) => {
    view.setFloat32(4 * i, number, true);
  });
  return view;
}

export const EIFFEL = [
  "<|im_start|>",
  "The",
  " Eiffel",
  " Tower",
  " is",
  " located",
  " in",
  " the",
  " city",
  " of",
];

const CITIES = [
  [" Paris", 7042, 0.703],
  [" London", 4541, 0.031],
  [" Lyon", 40032, 0.026],
  [" France", 4649, 0.021],
  [" Rome", 9023, 0.014],
  [" Berlin", 11930, 0.011],
  [" the", 260, 0.0093],
  [" Nice", 22914, 0.0071],
  [" New", 1412, 0.0064],
  [" Brussels", 31337, 0.0052],
  [" Tokyo", 19286, 0.0031],
] as const;

export function row(changes: Partial<Row> = {}): Row {
  return {
    key: 1,
    address: "L12.N304",
    op: "set",
    label: "set L12.N304 to 8 at the last token",
    value: 8,
    how: null,
    positions: "-1",
    muted: false,
    massive: false,
    editable: true,
    range: { low: -6, high: 12 },
    sd: 1.12,
    mean: 0.31,
    peak: 4.06,
    observed: 2.37,
    ...changes,
  };
}

export function state(changes: Partial<State> = {}): State {
  return {
    model: "smollm2",
    device: "cpu",
    dtype: "float32",
    tokens: EIFFEL.map((text, position) => ({
      position,
      id: 100 + position,
      text,
      bos: position === 0,
    })),
    prompt: EIFFEL.slice(1).join(""),
    max_tokens: 8192,
    rows: [],
    selected: null,
    metric: { label: 'log p(" Paris")', target: { id: 7042, text: " Paris" }, against: null },
    directions: [],
    can_undo: false,
    can_redo: false,
    notes: [],
    reference: { ready: true },
    ...changes,
  };
}

/** How strongly the whole stack pushes away from Paris: the fake's only mechanism. */
function push(rows: readonly Row[]): number {
  return rows.reduce((sum, each) => sum + (each.muted ? 0 : strength(each, each.value)), 0);
}

function strength(each: Row, value: number | null): number {
  const weight = { "L12.N304": 0.42, "L5.N99": -0.05, "L20.N1017": 0.18 }[each.address] ?? 0.02;
  if (each.op === "ablate") return -weight * (each.observed ?? 0) * 1.5;
  const change =
    each.op === "scale"
      ? ((value ?? 1) - 1) * (each.observed ?? 1)
      : each.op === "add"
        ? (value ?? 0)
        : (value ?? 0) - (each.observed ?? 0);
  return (
    weight * change + 0.25 * Math.max(0, Math.abs(weight * change) - 1.2) ** 1.5 * Math.sign(weight)
  );
}

function distribution(pushed: number): number[] {
  const raw = CITIES.map(
    ([, , p], i) =>
      p * Math.exp(i === 0 ? -pushed : i === 1 ? 1.1 * pushed : 0.1 * pushed * Math.cos(i)),
  );
  const rest = 1 - CITIES.reduce((sum, [, , p]) => sum + p, 0);
  const sum = raw.reduce((a, b) => a + b, rest);
  return raw.map((p) => p / sum);
}

export function resultOf(
  rows: readonly Row[],
  tokens: number,
): { result: Result; moved: Float32Array } {
  const pushed = push(rows);
  const [before, after] = [distribution(0), distribution(pushed)];
  const kl = before.reduce((sum, p, i) => sum + p * Math.log(p / (after[i] as number)), 0);
  const touched = rows.some((each) => !each.muted && each.positions === "");
  const moved = Float32Array.from({ length: tokens }, (_, i) =>
    i === tokens - 1
      ? Math.max(0, kl)
      : touched && i > 0
        ? Math.max(0, kl) * (0.1 + 0.35 * Math.abs(Math.sin(2.1 * i)))
        : 0,
  );
  return {
    moved,
    result: {
      top: CITIES.map(([text, id], i) => ({
        id,
        text,
        before: before[i] as number,
        after: after[i] as number,
      })).sort((a, b) => Math.max(b.before, b.after) - Math.max(a.before, a.after)),
      metric: { before: Math.log(before[0] as number), after: Math.log(after[0] as number) },
      moved: { buffer: 0, dtype: "float32", shape: [tokens] },
      moved_as: "kl",
      work: { blocks: 18, positions: 1, seconds: 0.0274, way: "resumed" },
    },
  };
}

export interface FakeOptions {
  /** Milliseconds from an edit to its result. */
  delay?: number;
  rows?: Row[];
  state?: Partial<State>;
  effects?: boolean;
}

/** The Python half: keeps a stack with undo, answers everything, pushes state before results. */
export class FakeKernel {
  revision = 1;
  state: State;
  computed = 0;
  /** While true, results wait. */
  held = false;
  private past: Row[][] = [];
  private future: Row[][] = [];
  private open = false;
  private nextKey = 100;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private stopped = 0;

  constructor(
    readonly model: FakeModel,
    readonly options: FakeOptions = {},
  ) {
    this.state = state({ rows: options.rows ?? [], ...options.state });
    model.onSend = (message) => setTimeout(() => this.take(message), 2);
  }

  hello(): { body: HelloBody; buffers: DataView[] } {
    const { result, moved } = resultOf(this.state.rows, this.state.tokens.length);
    const buffers = [packed(moved)];
    const curves = this.state.rows
      .filter((each) => each.value !== null && each.range !== null && each.editable)
      .map((each) => {
        const { values, logprob, kl } = this.curveOf(each);
        const first = buffers.length;
        buffers.push(packed(values), packed(logprob), packed(kl));
        const array = (i: number) => ({
          buffer: first + i,
          dtype: "float32" as const,
          shape: [values.length],
        });
        return {
          key: each.key,
          revision: this.revision,
          curve: { values: array(0), logprob: array(1), kl: array(2) },
        };
      });
    return {
      buffers,
      body: {
        of: "hello",
        revision: this.revision,
        state: this.state,
        result_revision: this.revision,
        result,
        curves,
        effects_revision: this.options.effects === false ? null : this.revision,
        effects: this.options.effects === false ? [] : this.effects(),
        generated: [
          {
            side: "baseline",
            text: " Paris, France. It is the most visited paid monument in the world, and was built in 1889 by Gustave Eiffel's company.",
            tokens: 30,
            done: true,
          },
          {
            side: "clamped",
            text: " London, England. It is the tallest structure in the city, and stands on the south bank of the River Thames.",
            tokens: 28,
            done: true,
          },
        ],
      },
    };
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

  effects(): Effect[] {
    return this.state.rows
      .filter((each) => !each.muted)
      .map((each) => {
        const pushed = push([each]);
        const effect =
          Math.log(distribution(pushed)[0] as number) - Math.log(distribution(0)[0] as number);
        const wild = 0.03 * Math.abs(each.value ?? 1);
        return {
          key: each.key,
          effect,
          control:
            each.editable && each.address.includes("N")
              ? { median: -0.3 * wild, low: -1.1 * wild, high: 0.5 * wild, seeds: 5, of: "neurons" }
              : null,
        };
      });
  }

  curveOf(each: Row): { values: number[]; logprob: number[]; kl: number[] } {
    const { low, high } = each.range ?? { low: 0, high: 1 };
    const values = Array.from({ length: 25 }, (_, i) => low + ((high - low) * i) / 24);
    const others = push(this.state.rows.filter((other) => other.key !== each.key));
    const points = values.map((value) => distribution(others + strength(each, value)));
    const base = distribution(0);
    return {
      values,
      logprob: points.map((p) => Math.log(p[0] as number)),
      kl: points.map((p) =>
        base.reduce((sum, b, i) => sum + b * Math.log(b / (p[i] as number)), 0),
      ),
    };
  }

  reply(id: number, body: unknown = null, buffers: DataView[] = []): void {
    this.model.say({ kind: "reply", id, ok: true, revision: this.revision, body }, buffers);
  }
  refuse(id: number, error: string, field: string | null = null): void {
    this.model.say({ kind: "reply", id, ok: false, revision: this.revision, error, field });
  }
  push(message: Down, buffers: DataView[] = []): void {
    this.model.say(message, buffers);
  }

  change(rows: Row[], remember = true): void {
    if (remember) {
      this.past.push(this.state.rows);
      this.future = [];
    }
    this.revision += 1;
    this.state = {
      ...this.state,
      rows,
      can_undo: this.past.length > 0,
      can_redo: this.future.length > 0,
    };
    this.push({ kind: "state", revision: this.revision, state: this.state });
    this.compute();
  }

  compute(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (!this.held) this.result();
    }, this.options.delay ?? 20);
  }

  result(): void {
    this.computed += 1;
    const { result, moved } = resultOf(this.state.rows, this.state.tokens.length);
    this.push({ kind: "result", revision: this.revision, result }, [packed(moved)]);
    if (this.options.effects !== false) {
      this.push({ kind: "effects", revision: this.revision, rows: this.effects() });
    }
  }

  take(message: Up): unknown {
    const { rows } = this.state;
    const at = (key: number) => rows.findIndex((each) => each.key === key);
    switch (message.kind) {
      case "hello": {
        const { body, buffers } = this.hello();
        this.reply(message.id, body, buffers);
        return;
      }
      case "edit": {
        const index = at(message.key);
        if (index < 0) return this.refuse(message.id, `There is no row ${message.key}.`, "key");
        const { id, kind, key, final, ...changes } = message;
        const old = rows[index] as Row;
        const next = { ...old, ...changes } as Row;
        if (changes.op === "ablate") Object.assign(next, { value: null, how: "mean", range: null });
        else if (changes.op && old.op === "ablate")
          Object.assign(next, { value: 1, range: { low: -6, high: 12 } });
        this.change(rows.with(index, next), !this.open);
        this.open = final === false;
        return this.reply(id);
      }
      case "add": {
        const [address, positions = ""] = message.address.split("@") as [string, string?];
        if (!/^L\d+\.N\d+$/.test(address)) {
          return this.refuse(
            message.id,
            `“${address}” names nothing; a neuron is written like L12.N304.`,
            "address",
          );
        }
        this.nextKey += 1;
        const key = this.nextKey;
        this.change([
          ...rows,
          row({ key, address, positions, op: message.op ?? "set", value: 2.37 }),
        ]);
        return this.reply(message.id, { of: "add", key, existed: false });
      }
      case "remove":
        this.change(rows.filter((each) => each.key !== message.key));
        return this.reply(message.id);
      case "move": {
        const next = [...rows];
        const [moved] = next.splice(at(message.key), 1);
        next.splice(message.index, 0, moved as Row);
        this.change(next);
        return this.reply(message.id);
      }
      case "solo":
        this.change(rows.map((each) => ({ ...each, muted: each.key !== message.key })));
        return this.reply(message.id);
      case "select":
        this.state = { ...this.state, selected: message.key };
        this.push({ kind: "state", revision: this.revision, state: this.state });
        return this.reply(message.id);
      case "reset":
        this.change([]);
        return this.reply(message.id);
      case "undo":
      case "redo": {
        const [from, to] =
          message.kind === "undo" ? [this.past, this.future] : [this.future, this.past];
        const back = from.pop();
        if (back === undefined)
          return this.refuse(message.id, `There is nothing to ${message.kind}.`);
        to.push(rows);
        this.change(back, false);
        return this.reply(message.id);
      }
      case "prompt": {
        if (message.text.trim() === "")
          return this.refuse(message.id, "The prompt is empty.", "text");
        const words = ["<|im_start|>", ...(message.text.match(/\n|\s?[^\s]+|\s/g) ?? [])];
        this.state = {
          ...this.state,
          prompt: message.text,
          tokens: words.map((text, position) => ({
            position,
            id: 500 + position + text.length,
            text,
            bos: position === 0,
          })),
        };
        this.change(rows);
        return this.reply(message.id);
      }
      case "target": {
        const text = CITIES.find(([, id]) => id === message.token)?.[0] ?? "?";
        this.state = {
          ...this.state,
          metric: { label: `log p("${text}")`, target: { id: message.token, text }, against: null },
        };
        this.change(rows);
        return this.reply(message.id);
      }
      case "rank": {
        const items = Array.from({ length: message.count ?? 20 }, (_, i) => ({
          address: i === 2 ? "L12.N304" : `L${(7 * i + 3) % 30}.N${(i * 397 + 41) % 1536}`,
          value: (message.by !== "activation" && i % 3 === 1 ? -1 : 1) * 9.13 * Math.exp(-i / 7),
          massive: false,
        }));
        setTimeout(() => this.reply(message.id, { of: "rank", by: message.by, items }), 30);
        return;
      }
      case "complete": {
        const items = [
          "L12.N3",
          "L12.N30",
          "L12.N300",
          "L12.N301",
          "L12.N302",
          "L12.N303",
          "L12.N304",
        ];
        return this.reply(message.id, {
          of: "complete",
          items: items.filter((each) => each.startsWith(message.prefix)),
        });
      }
      case "tokens":
        return this.reply(message.id, {
          of: "tokens",
          items: CITIES.filter(([text]) =>
            text.toLowerCase().includes(message.query.toLowerCase()),
          ).map(([text, id]) => ({ id, text })),
        });
      case "curve": {
        const each = rows[at(message.key)];
        this.reply(message.id);
        if (each === undefined) return;
        const { values, logprob, kl } = this.curveOf(each);
        const array = (buffer: number) => ({
          buffer,
          dtype: "float32" as const,
          shape: [values.length],
        });
        this.push(
          {
            kind: "curve",
            key: each.key,
            revision: this.revision,
            curve: { values: array(0), logprob: array(1), kl: array(2) },
          },
          [packed(values), packed(logprob), packed(kl)],
        );
        return;
      }
      case "generate": {
        this.reply(message.id);
        this.stopped += 1;
        const mine = this.stopped;
        const words = " and so on and on".match(/\s\w+/g) as string[];
        let index = 0;
        const step = () => {
          if (mine !== this.stopped) return;
          for (const side of ["baseline", "clamped"] as const) {
            this.push({
              kind: "generated",
              side,
              text: words[index % words.length] as string,
              token: 1,
              index,
              done: index + 1 >= (message.count ?? 40),
            });
          }
          index += 1;
          if (index < (message.count ?? 40)) setTimeout(step, 10);
        };
        step();
        return;
      }
      case "stop":
        this.stopped += 1;
        return this.reply(message.id);
      case "code":
        return this.reply(message.id, { of: "code", text: "import torch\n" });
      default:
        return this.refuse(message.id, `This view knows no ${message.kind}.`, "kind");
    }
  }
}
