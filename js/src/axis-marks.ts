// What stands on ActivationMaximizer's axis: what was optimised, the corpus, the user's own.
import type { AxisMark, AxisPicture } from "./activation-axis";
import { type Candidate, type MaximizerPicture, trackOf } from "./maximizer-picture";
import { frameAt } from "./optimised-panel";

/** What is looked at of what was optimised. */
interface Looked {
  track: number | null;
  step: number | null;
  candidate: Candidate | null;
}

/** Only what is of one and the same unit stands on one axis. */
export function axisMarks(
  picture: MaximizerPicture,
  { track, step, candidate }: Looked,
): AxisPicture {
  const { state, front, examples: measured, own: mine } = picture;
  const now = state?.objective ?? "";
  const shown = trackOf(picture, track);
  const all = [shown?.objective, front?.objective, measured?.objective, mine?.objective];
  const of = all.includes(now) ? now : (all.find((each) => each !== undefined) ?? now);
  const marks: AxisMark[] = [];
  for (const each of picture.tracks) {
    if (each.objective !== of) continue;
    const main = each.key === track;
    const at = (main ? frameAt(picture, each.key, step) : null) ?? picture.latest.get(each.key);
    const value = at?.value ?? each.value;
    if (value === null) continue;
    const label = each.kind === "climb" ? "optimised" : each.label;
    marks.push({ kind: "optimised", value, words: label, main });
  }
  if (front !== null && front.objective === of) {
    for (const each of front.candidates) {
      if (each.kind === "corpus" || each.kind === "own") continue;
      const main = each.key === candidate?.key;
      if (main || each.front) {
        marks.push({
          kind: each.kind,
          value: each.activation,
          words: main ? "optimised" : each.text,
          main,
        });
      }
    }
  }
  const corpusThere = measured !== null && measured.objective === of;
  if (corpusThere && measured.maximum !== null) {
    marks.push({
      kind: "corpus",
      value: measured.maximum,
      words: "best of the corpus",
      main: true,
    });
  }
  if (mine !== null && mine.objective === of) {
    marks.push({ kind: "own", value: mine.activation, words: "your own", main: true });
  }
  const histogram = corpusThere
    ? { edges: measured.edges, counts: measured.counts, count: measured.count }
    : null;
  return { marks, histogram, stale: of !== now };
}
