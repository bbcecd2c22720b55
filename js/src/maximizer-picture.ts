// What ActivationMaximizer shows: what is declared, tracks with their frames and curves, the front
// of prompts, examples, and what was measured. Frames are kept within a budget of the page's own.
import type {
  CorpusExamples,
  Discrimination,
  Down,
  Example,
  Frame,
  Front,
  Matters,
  MaximizerBody,
  MaximizerState,
  Picture as StimulusPicture,
  Track,
  TrackCurve,
} from "./messages";
import { emptyShown, type Picture, type Shown, takeEffects } from "./picture";
import type { Unpacked } from "./transport";

export type Stimulus = Unpacked<StimulusPicture>;
export type StimulusFrame = Unpacked<Frame>;
export type Optimised = Unpacked<Track>;
export type Found = Unpacked<Front>;
export type Candidate = Found["candidates"][number];
export type Measured = Unpacked<Example>;
export type Corpus = Unpacked<CorpusExamples>;
export type Discriminated = Unpacked<Discrimination>;
export type Mode = MaximizerState["modes"][number]["mode"];

export interface Curve {
  stride: number;
  /** NaN where a message got lost. */
  values: number[];
}

export interface MaximizerPicture extends Shown {
  state: MaximizerState | null;
  tracks: readonly Optimised[];
  /** The objective of each track: value i is at step i times the stride. */
  curves: Map<number, Curve>;
  /** By track: the newest frame. */
  latest: Map<number, StimulusFrame>;
  /** By track and step: every frame that the page holds. */
  held: Map<number, Map<number, StimulusFrame>>;
  front: Found | null;
  examples: Corpus | null;
  own: Measured | null;
  matter: Matters | null;
  discrimination: Discriminated | null;
  /** What the rows of the session's stack do to its prompt. */
  stack: Pick<Picture, "effects" | "effectsRevision">;
}

/** Bytes of frames that the page keeps; Python keeps its own and gives any of them again. */
const BUDGET = 8 * 2 ** 20;

export function emptyMaximizer(): MaximizerPicture {
  return {
    ...emptyShown(),
    state: null,
    tracks: [],
    curves: new Map(),
    latest: new Map(),
    held: new Map(),
    front: null,
    examples: null,
    own: null,
    matter: null,
    discrimination: null,
    stack: { effectsRevision: -1, effects: new Map() },
  };
}

/** Takes a message of this view's own in; false for what is older than what is shown. */
export function takeMaximizer(picture: MaximizerPicture, message: Unpacked<Down>): boolean {
  switch (message.kind) {
    case "maximizer":
      if (message.revision < picture.revision) return false;
      // A run that begins has nothing of an earlier failure left to say; one that ends may have.
      if (!isRunning(picture) && runs(message.state)) picture.failure = "";
      picture.revision = message.revision;
      picture.state = message.state;
      return true;
    case "frame":
      // A track that began again has nothing of what it had.
      if (message.frame.step < (picture.latest.get(message.frame.track)?.step ?? 0)) {
        picture.held.delete(message.frame.track);
      }
      takeCurve(picture, message.curve);
      takeFrame(picture, message.frame);
      return true;
    case "tracks":
      takeTracks(picture, message.tracks);
      return true;
    case "front":
      picture.front = message.front;
      return true;
    case "examples":
      picture.examples = message.examples;
      return true;
    case "own":
      picture.own = message.own;
      return true;
    case "matter":
      picture.matter = message.matter;
      return true;
    case "effects":
      picture.failure = "";
      return takeEffects(picture.stack, message.revision, message.rows);
    case "discrimination":
      picture.discrimination = message.discrimination;
      return true;
    default:
      return false;
  }
}

export function takeBody(picture: MaximizerPicture, body: Unpacked<MaximizerBody>): void {
  if (body.revision >= picture.revision) {
    picture.revision = body.revision;
    picture.state = body.state;
  }
  takeTracks(picture, body.tracks);
  for (const curve of body.curves) takeCurve(picture, curve);
  for (const frame of body.frames) takeFrame(picture, frame);
  picture.front = body.front;
  picture.examples = body.examples;
  picture.own = body.own;
  picture.matter = body.matter;
  picture.discrimination = body.discrimination;
  if (body.effects_revision !== null) {
    takeEffects(picture.stack, body.effects_revision, body.effects);
  }
}

function takeTracks(picture: MaximizerPicture, tracks: readonly Optimised[]): void {
  picture.tracks = tracks;
  const there = new Set(tracks.map((track) => track.key));
  for (const kept of [picture.curves, picture.latest, picture.held]) {
    for (const key of [...kept.keys()]) if (!there.has(key)) kept.delete(key);
  }
}

/** Takes a newer frame of its track in. */
function takeFrame(picture: MaximizerPicture, frame: StimulusFrame): void {
  picture.latest.set(frame.track, frame);
  keep(picture, frame);
}

/** Keeps a frame, such as an old one that was asked for; what came in first goes for want of room. */
export function keep(picture: MaximizerPicture, frame: StimulusFrame): void {
  let steps = picture.held.get(frame.track);
  if (steps === undefined) {
    steps = new Map();
    picture.held.set(frame.track, steps);
  }
  steps.delete(frame.step);
  steps.set(frame.step, frame);
  let bytes = 0;
  for (const each of picture.held.values()) for (const one of each.values()) bytes += bytesOf(one);
  for (const each of picture.held.values()) {
    for (const [step, one] of each) {
      if (bytes <= BUDGET) return;
      if (one === picture.latest.get(one.track) || one === frame) continue;
      each.delete(step);
      bytes -= bytesOf(one);
    }
  }
}

function bytesOf(frame: StimulusFrame): number {
  return (frame.picture.pixels?.byteLength ?? 0) + (frame.picture.values?.byteLength ?? 0);
}

function takeCurve(picture: MaximizerPicture, news: Unpacked<TrackCurve>): void {
  const { track, start, stride, values } = news;
  let curve = picture.curves.get(track);
  if (curve === undefined) {
    curve = { stride, values: [] };
    picture.curves.set(track, curve);
  }
  // Thinned meanwhile: what is there is of another stride, and comes again whole.
  curve.stride = stride;
  const { values: known } = curve;
  while (known.length < start) known.push(Number.NaN);
  known.length = start;
  for (const value of values) known.push(value);
}

/** What a curve says at a step; NaN where it says nothing. */
export function valueAt(curve: Curve | undefined, step: number): number {
  return curve?.values[Math.floor(step / curve.stride)] ?? Number.NaN;
}

/** Steps whose frames can be had: those that Python keeps, and with or without it the page's own. */
export function stepsOf(picture: MaximizerPicture, track: number, dead: boolean): number[] {
  const steps = new Set(picture.held.get(track)?.keys());
  if (!dead) for (const step of trackOf(picture, track)?.kept ?? []) steps.add(step);
  return [...steps].sort((a, b) => a - b);
}

/** The one of `steps` that is nearest; null where there is none. */
export function nearest(steps: readonly number[], step: number): number | null {
  let best: number | null = null;
  for (const each of steps) {
    if (best === null || Math.abs(each - step) < Math.abs(best - step)) best = each;
  }
  return best;
}

export function trackOf(picture: MaximizerPicture, key: number | null): Optimised | null {
  return picture.tracks.find((track) => track.key === key) ?? null;
}

/** How many steps a track has had: frames may be newer than what is said of the track. */
export function taken(picture: MaximizerPicture, track: Optimised): number {
  const latest = picture.latest.get(track.key);
  return Math.max(track.step, latest === undefined ? 0 : latest.step + 1);
}

/** Why a mode cannot be had; null where it can. */
export function refusalOf(picture: MaximizerPicture, mode: Mode): string | null {
  return picture.state?.modes.find((each) => each.mode === mode)?.refusal ?? null;
}

function runs(state: MaximizerState): boolean {
  return state.activity !== null && !state.activity.paused;
}

export function isRunning(picture: MaximizerPicture, mode?: Mode): boolean {
  const activity = picture.state?.activity ?? null;
  return activity !== null && !activity.paused && (mode === undefined || activity.mode === mode);
}

/** The candidate with the largest activation; of prompts found, before those of the corpus. */
export function bestCandidate(front: Found | null): Candidate | null {
  let best: Candidate | null = null;
  for (const each of front?.candidates ?? []) {
    if (each.kind === "corpus" || each.kind === "own") continue;
    if (best === null || each.activation > best.activation) best = each;
  }
  return best;
}

/** The scale of all prompts that were found; the corpus' texts, which are weaker, have their own. */
export function promptScale({ front }: MaximizerPicture): { low: number; high: number } {
  let high = 1e-6;
  for (const each of front?.candidates ?? []) if (each.activation > high) high = each.activation;
  return { low: 0, high };
}
