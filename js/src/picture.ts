// What every view shows of its session, kept by revision: news that is older than what is shown is
// dropped. What only one view knows (curves, patterns) it keeps beside this.
import type {
  AblatorBody,
  AtlasBody,
  Down,
  Effect,
  HelloBody,
  InspectorBody,
  MaximizerBody,
  Result,
  Snapshot,
  State,
} from "./messages";
import { decodeBuffers, type Unpacked, unpack } from "./transport";

/** What any view declares, and the line at its top shows. */
export type Declared = Pick<
  State,
  "model" | "device" | "dtype" | "notes" | "can_undo" | "can_redo"
>;

/** What the frame around any view shows, whatever its session is of. */
export interface Shown {
  revision: number;
  state: Declared | null;
  /** Long work by job and row, "curve:3". */
  progress: Map<string, { done: number; total: number }>;
  busy: boolean;
  what: string;
  /** Why the newest run failed, until one does not. */
  failure: string;
}

/** What a view on a prompt and a stack of interventions shows. */
export interface Picture extends Shown {
  state: State | null;
  resultRevision: number;
  result: Unpacked<Result> | null;
  effectsRevision: number;
  effects: Map<number, Effect>;
}

/** What answers `hello`: of each view its own. */
export type Everything =
  | Unpacked<HelloBody>
  | Unpacked<InspectorBody>
  | Unpacked<AblatorBody>
  | Unpacked<MaximizerBody>
  | Unpacked<AtlasBody>;

/** "own": the view that the message is for must take it in itself. */
export type News = "state" | "result" | "failure" | "other" | "old" | "own";

export function emptyShown(): Shown {
  return {
    revision: -1,
    state: null,
    progress: new Map(),
    busy: false,
    what: "",
    failure: "",
  };
}

export function emptyPicture(): Picture {
  return {
    ...emptyShown(),
    state: null,
    resultRevision: -1,
    result: null,
    effectsRevision: -1,
    effects: new Map(),
  };
}

/** Whether it is of a session with a stack, whose changes have results. */
export function hasStack(shown: Shown): shown is Picture {
  return "effects" in shown;
}

/** Takes a message in; says what kind of news it was, "old" for none. */
export function take(shown: Shown, message: Unpacked<Down>): News {
  switch (message.kind) {
    case "progress": {
      const name = message.key === null ? message.job : `${message.job}:${message.key}`;
      if (message.done >= message.total) shown.progress.delete(name);
      else shown.progress.set(name, { done: message.done, total: message.total });
      return "other";
    }
    case "status":
      shown.busy = message.busy;
      shown.what = message.what;
      if (!message.busy) shown.progress.clear();
      if (message.error === null) return "other";
      if (hasStack(shown) && message.revision < shown.resultRevision) return "old";
      shown.failure = message.error;
      return "failure";
    default:
      return hasStack(shown) ? takeOfStack(shown, message) : "own";
  }
}

function takeOfStack(picture: Picture, message: Unpacked<Down>): News {
  switch (message.kind) {
    case "state":
      if (message.revision < picture.revision) return "old";
      picture.revision = message.revision;
      picture.state = message.state;
      forgetRows(picture, picture.effects);
      return "state";
    case "result":
      if (message.revision < picture.resultRevision) return "old";
      picture.resultRevision = message.revision;
      picture.result = message.result;
      picture.failure = "";
      return "result";
    case "effects":
      return takeEffects(picture, message.revision, message.rows) ? "other" : "old";
    default:
      return "own";
  }
}

/** Effects of a stack's rows: those that a message brings replace the older. */
export function takeEffects(
  kept: Pick<Picture, "effects" | "effectsRevision">,
  revision: number,
  rows: readonly Effect[],
): boolean {
  if (revision < kept.effectsRevision) return false;
  kept.effectsRevision = revision;
  kept.effects = new Map(rows.map((row) => [row.key, row]));
  return true;
}

/** Takes everything in at once; of what came meanwhile, the newer stays. */
export function takeAll(picture: Picture, hello: Everything): void {
  if (hello.of === "maximizer" || hello.of === "atlas") return; // show no results of a stack
  if (hello.revision >= picture.revision) {
    picture.revision = hello.revision;
    picture.state = hello.state;
  }
  if (hello.result !== null && (hello.result_revision ?? -1) >= picture.resultRevision) {
    picture.resultRevision = hello.result_revision ?? -1;
    picture.result = hello.result;
  }
  if (hello.effects_revision !== null) takeEffects(picture, hello.effects_revision, hello.effects);
  forgetRows(picture, picture.effects);
}

/** A saved page's picture; null for a trait that holds none (not written yet, or damaged). */
export function readSnapshot(trait: unknown): Everything | null {
  const snapshot = trait as Partial<Snapshot> | null | undefined;
  if (!snapshot?.hello?.state) return null;
  try {
    return unpack(snapshot.hello, decodeBuffers(snapshot.buffers ?? []));
  } catch {
    return null;
  }
}

/** Drops what is kept of rows that the stack has no longer. */
export function forgetRows(picture: Picture, kept: Map<number, unknown>): void {
  const there = new Set(picture.state?.rows.map((row) => row.key));
  for (const key of kept.keys()) if (!there.has(key)) kept.delete(key);
}
