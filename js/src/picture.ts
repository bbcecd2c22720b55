// All that the view shows, kept by revision: news that is older than what is shown is dropped.
import type { Down, Effect, Generated, HelloBody, Result, Snapshot, State } from "./messages";
import { decodeBuffers, type Unpacked, unpack } from "./transport";

export interface Curve {
  revision: number;
  values: Float32Array;
  logprob: Float32Array;
  kl: Float32Array;
}

export interface Picture {
  revision: number;
  state: State | null;
  resultRevision: number;
  result: Unpacked<Result> | null;
  curves: Map<number, Curve>;
  effectsRevision: number;
  effects: Map<number, Effect>;
  /** Long work by job and row, "curve:3". */
  progress: Map<string, { done: number; total: number }>;
  busy: boolean;
  what: string;
  /** Why the newest run failed, until one does not. */
  failure: string;
}

export type News = "state" | "result" | "failure" | "generated" | "other" | "old";

export function emptyPicture(): Picture {
  return {
    revision: -1,
    state: null,
    resultRevision: -1,
    result: null,
    curves: new Map(),
    effectsRevision: -1,
    effects: new Map(),
    progress: new Map(),
    busy: false,
    what: "",
    failure: "",
  };
}

/** Takes a message in; says what kind of news it was, "old" for none. */
export function take(
  picture: Picture,
  message: Unpacked<Down>,
  onGenerated: (token: Generated) => void,
): News {
  switch (message.kind) {
    case "state":
      if (message.revision < picture.revision) return "old";
      picture.revision = message.revision;
      picture.state = message.state;
      forgetRows(picture);
      return "state";
    case "result":
      if (message.revision < picture.resultRevision) return "old";
      picture.resultRevision = message.revision;
      picture.result = message.result;
      picture.failure = "";
      return "result";
    case "curve": {
      const known = picture.curves.get(message.key);
      if (known !== undefined && message.revision < known.revision) return "old";
      picture.curves.set(message.key, { revision: message.revision, ...message.curve });
      return "other";
    }
    case "effects":
      if (message.revision < picture.effectsRevision) return "old";
      picture.effectsRevision = message.revision;
      picture.effects = new Map(message.rows.map((row) => [row.key, row]));
      return "other";
    case "progress": {
      const name = message.key === null ? message.job : `${message.job}:${message.key}`;
      if (message.done >= message.total) picture.progress.delete(name);
      else picture.progress.set(name, { done: message.done, total: message.total });
      return "other";
    }
    case "status":
      picture.busy = message.busy;
      picture.what = message.what;
      if (!message.busy) picture.progress.clear();
      if (message.error === null) return "other";
      if (message.revision < picture.resultRevision) return "old";
      picture.failure = message.error;
      return "failure";
    case "generated":
      onGenerated(message);
      return "generated";
    default:
      return "old";
  }
}

/** Takes everything in at once; of what came meanwhile, the newer stays. */
export function takeAll(picture: Picture, hello: Unpacked<HelloBody>): void {
  if (hello.revision >= picture.revision) {
    picture.revision = hello.revision;
    picture.state = hello.state;
  }
  if (hello.result !== null && (hello.result_revision ?? -1) >= picture.resultRevision) {
    picture.resultRevision = hello.result_revision ?? -1;
    picture.result = hello.result;
  }
  for (const { key, revision, curve } of hello.curves) {
    if (revision >= (picture.curves.get(key)?.revision ?? -1)) {
      picture.curves.set(key, { revision, ...curve });
    }
  }
  if (hello.effects_revision !== null && hello.effects_revision >= picture.effectsRevision) {
    picture.effectsRevision = hello.effects_revision;
    picture.effects = new Map(hello.effects.map((row) => [row.key, row]));
  }
  forgetRows(picture);
}

/** A saved page's picture; null for a trait that holds none (not written yet, or damaged). */
export function readSnapshot(trait: unknown): Unpacked<HelloBody> | null {
  const snapshot = trait as Partial<Snapshot> | null | undefined;
  if (!snapshot?.hello?.state) return null;
  try {
    const hello = unpack(snapshot.hello, decodeBuffers(snapshot.buffers ?? []));
    return hello.of === "hello" ? hello : null;
  } catch {
    return null;
  }
}

function forgetRows(picture: Picture): void {
  const there = new Set(picture.state?.rows.map((row) => row.key));
  for (const kept of [picture.curves, picture.effects]) {
    for (const key of kept.keys()) if (!there.has(key)) kept.delete(key);
  }
}
