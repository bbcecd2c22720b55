// The request loop. Gestures that happen once go up in order; edits of a dragged slider go up one
// at a time, and of those that wait only the newest is sent. The engine's pace is the drag's pace.
import type {
  AddBody,
  CardBody,
  CellBody,
  CodeBody,
  CompleteBody,
  ComposeBody,
  DrillBody,
  EdgeBody,
  Edit,
  ExportBody,
  FrameBody,
  HeadBody,
  InteractBody,
  KnockBody,
  LoadBody,
  PageBody,
  RankBody,
  ReplyError,
  ReplyOk,
  SaveBody,
  ShadeBody,
  TilesBody,
  TokensBody,
  Up,
  WeighBody,
} from "./messages";
import type { Everything } from "./picture";
import { type Unpacked, unpack } from "./transport";

type WithoutId<T> = T extends { id: number } ? Omit<T, "id"> : never;
export type Gesture = WithoutId<Exclude<Up, Edit>>;
export type EditGesture = Omit<Edit, "id" | "kind">;
export type Answer = Unpacked<ReplyOk>;

/** What each gesture's reply carries. */
type Bodies = {
  hello: Everything;
  add: AddBody;
  rank: RankBody;
  complete: CompleteBody;
  tokens: TokensBody;
  code: CodeBody;
  head: Unpacked<HeadBody>;
  tiles: Unpacked<TilesBody>;
  cell: CellBody;
  compose: Unpacked<ComposeBody>;
  knock: KnockBody;
  drill: Unpacked<DrillBody>;
  edge: EdgeBody;
  interact: InteractBody;
  export: ExportBody;
  scrub: Unpacked<FrameBody>;
  load: LoadBody;
  save: Unpacked<SaveBody>;
  page: PageBody;
  meet: Unpacked<CardBody>;
  shade: Unpacked<ShadeBody>;
  weigh: WeighBody;
};
type BodyOf<Kind extends string> = Kind extends keyof Bodies ? Bodies[Kind] : null;

/** "asking": nothing heard yet. "busy": alive as far as is known, but silent for a while. */
export type Kernel = "asking" | "live" | "busy" | "gone";

/** A gesture that was refused, in a sentence for a person. */
export class Refused extends Error {
  constructor(
    sentence: string,
    readonly field: string | null = null,
  ) {
    super(sentence);
  }
}

/** The part of an anywidget model that the loop needs. */
export interface Wire {
  send(content: unknown): void;
  on(event: string, callback: (...args: never[]) => void): void;
  off(event: string, callback: (...args: never[]) => void): void;
}

export interface Requests {
  readonly kernel: Kernel;
  /** Sends a gesture; resolves with the reply's body, rejects with `Refused`. */
  ask<G extends Gesture>(gesture: G): Promise<BodyOf<G["kind"]>>;
  /** Changes a row, latest wins; refusals go to `onRefusedEdit`. */
  edit(edit: EditGesture): void;
  /** Whether this row has edits that the state shown cannot know of yet. */
  holds(key: number): boolean;
  /** Tell the loop what has arrived. */
  sawState(revision: number): void;
  sawResult(revision: number): void;
  sawFailure(revision: number): void;
}

export interface RequestsOptions {
  wire: Wire;
  signal: AbortSignal;
  /** Whether the host has a kernel for this view, as far as the page shows it. */
  connected: () => boolean;
  onKernel: (kernel: Kernel) => void;
  onMessage: (message: unknown, buffers: DataView[]) => void;
  onRefusedEdit: (key: number, refused: Refused) => void;
  /** The state shown has caught up with the edits of a row: `holds` has become false. */
  onReleased: (key: number) => void;
  /** How long silence lasts before it is called busy. */
  patience?: number;
}

const PATIENCE = 2000;
/** These are answered by the model's worker, after what it has to do before. */
const SLOW = new Set([
  ...["add", "rank", "generate", "curve", "code", "tokens"],
  ...["head", "tiles", "cell", "assess", "compose", "knock", "second", "align"],
  ...["objective", "pairs", "pair", "survey", "ablations", "drill", "patching", "find", "size"],
  ...["switch", "edge", "check", "interact", "export", "import"],
  ...["climb", "facets", "diverse", "dream", "rivals", "examples", "own", "matter"],
  ...["discriminate", "load", "save"],
  ...["sift", "page", "meet", "shade", "weigh", "hold", "build"],
]);
/** An edit whose result never comes (its run was overtaken) must not hold up the next for good. */
const GIVE_UP = 10_000;
const GONE =
  "No kernel is connected to this view: start it and run the cell again, then repeat this.";

// Ids only have to differ between the views of one comm, which may be open in two browser tabs.
let lastId = Math.floor(Math.random() * 2 ** 40);

interface Waiting {
  /** These may compute before they reply; then silence is no sign of a busy kernel. */
  slow: boolean;
  resolve(reply: Answer): void;
  reject(refused: Refused): void;
}

export function createRequests(options: RequestsOptions): Requests {
  const { wire, signal, onKernel, onMessage, onRefusedEdit, onReleased, connected } = options;
  const patience = options.patience ?? PATIENCE;
  const waiting = new Map<number, Waiting>();
  const pending = new Map<number, EditGesture>();
  const unseen = new Map<number, { id: number; revision: number | null }>();
  let inFlight: { id: number; revision: number | null } | null = null;
  let stateRevision = -1;
  let resultRevision = -1;
  let kernel: Kernel = "asking";
  let silence: ReturnType<typeof setTimeout> | undefined;
  let giveUp: ReturnType<typeof setTimeout> | undefined;

  const become = (next: Kernel) => {
    if (next === kernel) return;
    kernel = next;
    onKernel(next);
  };

  const listen = () => {
    clearTimeout(silence);
    silence = undefined;
    if ([...waiting.values()].some((each) => !each.slow)) {
      silence = setTimeout(() => become("busy"), patience);
    }
  };

  const post = (gesture: object, kind: string, settle: Pick<Waiting, "resolve" | "reject">) => {
    lastId += 1;
    const id = lastId;
    if (kernel === "gone") {
      settle.reject(new Refused(GONE));
      return id;
    }
    const slow = SLOW.has(kind);
    waiting.set(id, { slow, ...settle });
    try {
      wire.send({ ...gesture, kind, id });
    } catch {
      // A disposed comm throws; that is how some hosts say that the kernel is gone.
      lost();
      return id;
    }
    if (silence === undefined) listen();
    return id;
  };

  const lost = () => {
    become("gone");
    clearTimeout(silence);
    clearTimeout(giveUp);
    silence = undefined;
    inFlight = null;
    pending.clear();
    unseen.clear();
    const given = [...waiting.values()];
    waiting.clear();
    for (const each of given) each.reject(new Refused(GONE));
  };

  const release = (key: number, flight: object) => {
    if (unseen.get(key) !== flight) return;
    unseen.delete(key);
    if (!pending.has(key)) onReleased(key);
  };

  const postEdit = (edit: EditGesture) => {
    const flight: { id: number; revision: number | null } = { id: -1, revision: null };
    inFlight = flight;
    unseen.set(edit.key, flight);
    flight.id = post(edit, "edit", {
      resolve: (reply) => {
        flight.revision = reply.revision;
        if (stateRevision >= reply.revision) release(edit.key, flight);
        clearTimeout(giveUp);
        if (inFlight === flight) giveUp = setTimeout(land, GIVE_UP);
        settle();
      },
      reject: (refused) => {
        if (inFlight === flight) inFlight = null;
        onRefusedEdit(edit.key, refused);
        release(edit.key, flight);
        pump();
      },
    });
  };

  const land = () => {
    inFlight = null;
    clearTimeout(giveUp);
    pump();
  };

  const settle = () => {
    if (inFlight !== null && inFlight.revision !== null && resultRevision >= inFlight.revision) {
      land();
    }
  };

  const pump = () => {
    if (inFlight !== null || kernel === "gone") return;
    const next = pending.values().next();
    if (next.done) return;
    pending.delete(next.value.key);
    postEdit(next.value);
  };

  const onCustom = (message: unknown, buffers: DataView[] = []) => {
    if (message === null || typeof message !== "object" || !("kind" in message)) return;
    become("live");
    if (message.kind === "reply") {
      const reply = message as ReplyOk | ReplyError;
      const asked = reply.id === null ? undefined : waiting.get(reply.id);
      if (asked === undefined || reply.id === null) return; // another view's, or given up
      waiting.delete(reply.id);
      listen();
      if (reply.ok) asked.resolve(unpack(reply, buffers));
      else asked.reject(new Refused(reply.error, reply.field));
      return;
    }
    listen();
    onMessage(message, buffers);
  };

  // JupyterLab's widget manager says when the comm comes and goes; hosts without that event fall
  // silent. It calls back with the view as `this`, which alone knows what has become of the comm.
  function onComm(this: { model?: { comm_live?: boolean } } | undefined): void {
    const live = this?.model?.comm_live ?? connected();
    if (!live) lost();
    else if (kernel === "gone") become("asking");
  }

  wire.on("msg:custom", onCustom);
  wire.on("comm_live_update", onComm);
  if (!connected()) queueMicrotask(() => (signal.aborted ? undefined : lost()));
  signal.addEventListener(
    "abort",
    () => {
      wire.off("msg:custom", onCustom);
      wire.off("comm_live_update", onComm);
      clearTimeout(silence);
      clearTimeout(giveUp);
      waiting.clear();
      pending.clear();
    },
    { once: true },
  );

  return {
    get kernel() {
      return kernel;
    },
    ask(gesture) {
      // What was dragged before comes before; otherwise "undo" would undo something older.
      if (gesture.kind !== "stop") {
        for (const edit of [...pending.values()]) {
          pending.delete(edit.key);
          postEdit(edit);
        }
      }
      const { kind, ...rest } = gesture;
      return new Promise((resolve, reject) => {
        post(rest, kind, {
          resolve: (reply) => resolve(reply.body as never),
          reject,
        });
      });
    },
    edit(edit) {
      const earlier = pending.get(edit.key);
      pending.delete(edit.key);
      pending.set(edit.key, { ...earlier, ...edit });
      pump();
    },
    holds(key) {
      return pending.has(key) || unseen.has(key);
    },
    sawState(revision) {
      stateRevision = Math.max(stateRevision, revision);
      for (const [key, flight] of [...unseen]) {
        if (flight.revision !== null && stateRevision >= flight.revision) release(key, flight);
      }
    },
    sawResult(revision) {
      resultRevision = Math.max(resultRevision, revision);
      settle();
    },
    sawFailure(revision) {
      resultRevision = Math.max(resultRevision, revision);
      settle();
    },
  };
}
