// What AttentionInspector shows besides its session: what is looked at, the small patterns, the
// scores, what a head's picture needs. News of patterns that were is kept until there is better.
import { type Thumbs, thumbsOf } from "./heads-grid";
import type {
  AttentionState,
  ComposeBody,
  Down,
  GridPart,
  HeadBody,
  InspectorBody,
  KnockedOut,
  Scores,
} from "./messages";
import { emptyPicture, type Picture } from "./picture";
import { type Look, stampOf, type TileCache, tileCache } from "./tiles";
import type { Unpacked } from "./transport";

export interface AttentionPicture extends Picture {
  attentionRevision: number;
  attention: AttentionState | null;
  /** The newest small patterns of every look, by layer. */
  grid: Map<Look, Map<number, { stamp: string; thumbs: Thumbs }>>;
  scores: Unpacked<Scores> | null;
  /** What pictures of heads need besides their tiles, by `headKey`. */
  heads: Map<string, Unpacked<HeadBody>>;
  /** By "layer.head"; it is the weights' alone, and never of another time. */
  compositions: Map<string, Unpacked<ComposeBody>>;
  tiles: TileCache;
  /** The tokens whose logits contributions are of: other ones make other numbers. */
  target: string;
}

export type ScoreName = Scores["names"][number];

export function emptyAttention(): AttentionPicture {
  return {
    ...emptyPicture(),
    attentionRevision: -1,
    attention: null,
    grid: new Map(),
    scores: null,
    heads: new Map(),
    compositions: new Map(),
    tiles: tileCache(),
    target: "",
  };
}

export function headKey(layer: number, head: number, look: Look): string {
  return `${layer}.${head}.${look}`;
}

/** Takes a message of this view's own in; false for what is older than what is shown. */
export function takeAttention(picture: AttentionPicture, message: Unpacked<Down>): boolean {
  switch (message.kind) {
    case "attention":
      return takeState(picture, message.revision, message.attention);
    case "grid":
      takeGrid(picture, message.part);
      return true;
    case "scores":
      picture.scores = message.scores;
      return true;
    default:
      return false;
  }
}

/** Forgets what was said of another target's logit: no stamp tells it from the present one's. */
export function followTarget(picture: AttentionPicture): void {
  const { metric } = picture.state ?? {};
  const target = metric ? `${metric.target.id} ${metric.against?.id}` : "";
  if (target === picture.target) return;
  if (picture.target !== "") {
    picture.heads.clear();
    picture.tiles.keep([]);
  }
  picture.target = target;
}

export function takeInspector(picture: AttentionPicture, body: Unpacked<InspectorBody>): void {
  takeState(picture, body.revision, body.attention);
  for (const part of body.grid) takeGrid(picture, part);
  if (body.scores !== null) picture.scores = body.scores;
  if (body.head !== null) takeHead(picture, body.head);
  for (const tiles of body.tiles) {
    picture.tiles.put(tiles, body.state.tokens.length, body.attention.causal);
  }
}

export function takeHead(picture: AttentionPicture, body: Unpacked<HeadBody>): void {
  picture.heads.set(headKey(body.layer, body.head, body.look), body);
}

function takeState(
  picture: AttentionPicture,
  revision: number,
  attention: AttentionState,
): boolean {
  if (revision < picture.attentionRevision) return false;
  picture.attentionRevision = revision;
  picture.attention = attention;
  return true;
}

function takeGrid(picture: AttentionPicture, part: Unpacked<GridPart>): void {
  const heads = picture.attention?.heads ?? 0;
  if (heads === 0) return;
  const known = picture.grid.get(part.look) ?? new Map();
  picture.grid.set(part.look, known);
  for (const [layer, thumbs] of thumbsOf(part, heads, false)) {
    known.set(layer, { stamp: part.stamp, thumbs });
  }
}

/** The small patterns of a look, those of other patterns than the present marked as stale. */
export function thumbsNow(picture: AttentionPicture, look: Look): Map<number, Thumbs> {
  const stamp = picture.attention === null ? null : stampOf(look, picture.attention.stamps);
  const result = new Map<number, Thumbs>();
  for (const [layer, entry] of picture.grid.get(look) ?? []) {
    result.set(layer, { ...entry.thumbs, stale: entry.stamp !== stamp });
  }
  return result;
}

/** A score of a head; NaN where it is not measured or not defined. */
export function scoreOf(
  picture: AttentionPicture,
  name: ScoreName,
  layer: number,
  head: number,
): number {
  const { scores, attention } = picture;
  const at = scores?.names.indexOf(name) ?? -1;
  if (scores === null || attention === null || at < 0) return Number.NaN;
  const { layers, heads } = attention;
  return scores.values[(at * layers + layer) * heads + head] ?? Number.NaN;
}

/** Whether a knock-out of the stack touches cells of this head. */
export function touches(each: KnockedOut, layer: number, head: number): boolean {
  const [from = 0, to = 0] = each.layers;
  return layer >= from && layer < to && (each.heads?.includes(head) ?? true);
}

export function addressOf(layer: number, head: number): string {
  return `L${layer}.H${head}`;
}
