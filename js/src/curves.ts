// Dose-response curves, and when to ask for them: once things rest, for rows whose surroundings changed. A
// row's own value is the curve's axis, so dragging it makes nothing stale.
import type { CurveEntry } from "./messages";
import type { Picture } from "./picture";
import type { Unpacked } from "./transport";

export type Curve = Unpacked<CurveEntry>["curve"] & { revision: number };

/** The picture of a view that draws dose-response curves. */
export interface CurvesPicture extends Picture {
  curves: Map<number, Curve>;
}

/** Keeps a row's curve unless it has a newer one; false when it has. */
export function takeCurve(picture: CurvesPicture, news: Unpacked<CurveEntry>): boolean {
  const { key, revision, curve } = news;
  if (revision < (picture.curves.get(key)?.revision ?? -1)) return false;
  picture.curves.set(key, { revision, ...curve });
  return true;
}

export interface CurveSchedule {
  /** `resting` is false while someone drags or a result is on its way. */
  update(picture: CurvesPicture, resting: boolean): void;
  /** Whether the curve shown for a row is of other surroundings than it has now. */
  stale(key: number): boolean;
  /** The curves that are there are taken to be of this state. */
  accept(picture: CurvesPicture): void;
}

const SETTLE = 400;

export function curveSchedule(
  signal: AbortSignal,
  ask: (key: number) => void,
  settle: number = SETTLE,
): CurveSchedule {
  const asked = new Map<number, string>();
  let now = new Map<number, string>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });

  return {
    update(picture, resting) {
      now = signatures(picture);
      for (const key of asked.keys()) if (!now.has(key)) asked.delete(key);
      clearTimeout(timer);
      if (!resting || [...now].every(([key, signature]) => asked.get(key) === signature)) return;
      timer = setTimeout(() => {
        for (const [key, signature] of now) {
          if (asked.get(key) === signature) continue;
          asked.set(key, signature);
          ask(key);
        }
      }, settle);
    },
    stale: (key) => asked.get(key) !== now.get(key),
    accept(picture) {
      now = signatures(picture);
      for (const key of picture.curves.keys()) {
        const signature = now.get(key);
        if (signature !== undefined) asked.set(key, signature);
      }
    },
  };
}

function signatures(picture: Picture): Map<number, string> {
  const result = new Map<number, string>();
  const { state } = picture;
  if (state === null || state.metric === null) return result;
  const tokens = state.tokens.map((token) => token.id);
  const { target, against } = state.metric;
  for (const row of state.rows) {
    if (row.value === null || row.range === null || !row.editable) continue;
    const others = state.rows.map((each) =>
      each.key === row.key
        ? "this"
        : each.muted
          ? "muted"
          : [each.address, each.op, each.value, each.how, each.positions],
    );
    const own = [row.address, row.op, row.positions, row.range.low, row.range.high];
    result.set(row.key, JSON.stringify([tokens, target.id, against?.id, others, own]));
  }
  return result;
}
