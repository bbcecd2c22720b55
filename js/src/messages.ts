// Generated from widgets/patchclamp/views/messages/ by `npm run types`. Do not edit.

export type Up =
  | Hello
  | Edit
  | Add
  | Remove
  | Move
  | Solo
  | Select
  | Reset
  | Undo
  | Redo
  | Prompt
  | Target
  | Rank
  | Complete
  | Curve
  | Generate
  | Stop
  | Code
  | Tokens
  | Inspect
  | Head
  | Tiles
  | Cell
  | Assess
  | Compose
  | Knock
  | Second
  | Align
  | Objective
  | Pairs
  | Pair
  | Survey
  | Ablations
  | Drill
  | Patching
  | Find
  | Size
  | Switch
  | Annotate
  | Edge
  | Check
  | Interact
  | Export
  | Import;
export type Down =
  | ReplyOk
  | ReplyError
  | StateUpdate
  | ResultUpdate
  | Progress
  | CurveUpdate
  | EffectsUpdate
  | Generated
  | Status
  | AttentionUpdate
  | GridUpdate
  | ScoresUpdate
  | CircuitUpdate
  | MapUpdate
  | PatchingUpdate
  | GraphUpdate
  | CheckUpdate
  | FaithfulUpdate;

/**
 * What travels between a view in the page and its Python half.
 */
export interface Messages {
  up: Up;
  down: Down;
  snapshot: Snapshot;
}
/**
 * The view is there and wants everything: state, last result, curves, effects.
 */
export interface Hello {
  id: number;
  kind: "hello";
}
/**
 * Change what is named of one row, leave the rest; a drag sends many and ends with `final`.
 *
 * All edits of a row up to the one with `final` are one undo step.
 */
export interface Edit {
  id: number;
  kind: "edit";
  key: number;
  /**
   * In raw units; absent means unchanged (null is refused: JSON makes it of NaN).
   */
  value?: number | null;
  op?: ("set" | "add" | "scale" | "ablate") | null;
  /**
   * What stands after the @: "" (all but a beginning-of-sequence token), "-1", "all", "3,5".
   */
  positions?: string | null;
  muted?: boolean | null;
  /**
   * For `ablate` (mean, zero, resample) and `knockout` (renormalise, zero, contrast) only.
   */
  how?: ("mean" | "zero" | "resample" | "renormalise" | "contrast") | null;
  final?: boolean;
}
/**
 * Put a new row at the end of the stack; an address that has a row already is only selected.
 */
export interface Add {
  id: number;
  kind: "add";
  /**
   * May end in positions, "L12.N304@-1", and may name a direction of the session.
   */
  address: string;
  op?: "set" | "add" | "scale" | "ablate";
  /**
   * In raw units; absent or null means a value that changes nothing yet.
   */
  value?: number | null;
}
/**
 * Take one row out.
 */
export interface Remove {
  id: number;
  kind: "remove";
  key: number;
}
/**
 * Put one row at place `index` of the stack, counted from 0.
 */
export interface Move {
  id: number;
  kind: "move";
  key: number;
  index: number;
}
/**
 * Mute all rows but this one; the same again gives the others back what they had.
 */
export interface Solo {
  id: number;
  kind: "solo";
  key: number;
}
/**
 * Make one row the selected one, or none.
 */
export interface Select {
  id: number;
  kind: "select";
  key: number | null;
}
/**
 * Empty the stack (undo brings it back).
 */
export interface Reset {
  id: number;
  kind: "reset";
}
/**
 * Take the last step back.
 */
export interface Undo {
  id: number;
  kind: "undo";
}
/**
 * Do the step again that was taken back.
 */
export interface Redo {
  id: number;
  kind: "redo";
}
/**
 * Run another text.
 */
export interface Prompt {
  id: number;
  kind: "prompt";
  text: string;
  /**
   * False while it is being typed: texts up to the one with `final` are one undo step.
   */
  final?: boolean;
}
/**
 * Let the metric be the log-probability of this token.
 */
export interface Target {
  id: number;
  kind: "target";
  token: number;
}
/**
 * List the neurons that matter most on the prompt. The reply's body is a `RankBody`.
 */
export interface Rank {
  id: number;
  kind: "rank";
  by: "activation" | "direct" | "gradient";
  /**
   * One position of the prompt, negative ones from its end; null is the last token.
   */
  position?: number | null;
  count?: number;
  /**
   * Whether neurons behind the massive-activation mask are listed too.
   */
  massive?: boolean;
}
/**
 * What could stand where this is being typed. The reply's body is a `CompleteBody`.
 */
export interface Complete {
  id: number;
  kind: "complete";
  prefix: string;
}
/**
 * Measure the row's dose-response curve; it fills in by `CurveUpdate`s.
 */
export interface Curve {
  id: number;
  kind: "curve";
  key: number;
}
/**
 * Continue the prompt, baseline and clamped, with one seed; streams `Generated`s.
 */
export interface Generate {
  id: number;
  kind: "generate";
  count?: number;
  seed?: number;
  /**
   * 0 is greedy.
   */
  temperature?: number;
}
/**
 * End this view's long work (curves, ranking, controls, generation) where it is.
 */
export interface Stop {
  id: number;
  kind: "stop";
}
/**
 * The stack as Python that needs TransformerLens alone. The reply's body is a `CodeBody`.
 */
export interface Code {
  id: number;
  kind: "code";
}
/**
 * Which tokens of the vocabulary a target could be. The reply's body is a `TokensBody`.
 */
export interface Tokens {
  id: number;
  kind: "tokens";
  query: string;
}
/**
 * Look at something else; what is absent stays. The reply has no body; `attention` follows.
 */
export interface Inspect {
  id: number;
  kind: "inspect";
  /**
   * Lock this head: its layer and its number.
   */
  head?: [number, number] | null;
  look?: ("now" | "before" | "difference" | "second" | "second-difference") | null;
  mode?: ("weight" | "value" | "contribution") | null;
}
/**
 * What a head's picture needs besides its tiles. The reply's body is a `HeadBody`.
 */
export interface Head {
  id: number;
  kind: "head";
  layer: number;
  head: number;
  look?: "now" | "before" | "difference" | "second" | "second-difference";
}
/**
 * Tiles of a head's pattern. The reply's body is a `TilesBody`.
 */
export interface Tiles {
  id: number;
  kind: "tiles";
  layer: number;
  head: number;
  look?: "now" | "before" | "difference" | "second" | "second-difference";
  /**
   * For the two differences; the other looks send weights whatever it says.
   */
  mode?: "weight" | "value" | "contribution";
  /**
   * Row and column of each, counted in tiles.
   *
   * @minItems 1
   * @maxItems 64
   */
  tiles: [[number, number], ...[number, number][]];
}
/**
 * One cell, exactly. The reply's body is a `CellBody`.
 */
export interface Cell {
  id: number;
  kind: "cell";
  layer: number;
  head: number;
  look?: "now" | "before" | "difference" | "second" | "second-difference";
  destination: number;
  source: number;
}
/**
 * Measure a score that costs runs of its own; fills in by `ScoresUpdate`s.
 */
export interface Assess {
  id: number;
  kind: "assess";
  score: "effect" | "random_induction";
}
/**
 * Composition of a head with all others. The reply's body is a `ComposeBody`.
 */
export interface Compose {
  id: number;
  kind: "compose";
  layer: number;
  head: number;
}
/**
 * Knock out cells of heads' patterns; just the same again takes the knock-out back.
 *
 * The reply's body is a `KnockBody`.
 */
export interface Knock {
  id: number;
  kind: "knock";
  /**
   * @minItems 2
   * @maxItems 2
   */
  layers: [number, number];
  /**
   * Which heads of these layers; null for all.
   */
  heads?: [number, ...number[]] | null;
  /**
   * Null for all.
   */
  destinations?: [number, number] | null;
  sources?: [number, number] | null;
  how?: "renormalise" | "zero" | "contrast";
}
/**
 * Look at a second prompt beside the first (the session's contrast); null takes it away.
 */
export interface Second {
  id: number;
  kind: "second";
  text: string | null;
}
/**
 * Say which token of the second prompt stands for which of the first.
 */
export interface Align {
  id: number;
  kind: "align";
  /**
   * Anew, by position or by the longest common run of tokens.
   */
  by?: ("position" | "tokens") | null;
  /**
   * One position of the prompt and its partner in the second one, or null for none.
   */
  pair?: [number | null, number | null] | null;
}
/**
 * Measure something else. Absent tokens stay what they are where the metric has any.
 */
export interface Objective {
  id: number;
  kind: "objective";
  metric: "logit_difference" | "log_prob" | "kl" | "loss";
  token?: number | null;
  against?: number | null;
}
/**
 * Work on a set of prompt pairs that comes with the package; null: on the prompt alone.
 */
export interface Pairs {
  id: number;
  kind: "pairs";
  name: string | null;
  count?: number;
  seed?: number;
}
/**
 * Show another pair of the set: it becomes the session's prompt and contrast.
 */
export interface Pair {
  id: number;
  kind: "pair";
  index: number;
}
/**
 * Measure what ablating each component does; estimates first, exact values fill in.
 */
export interface Survey {
  id: number;
  kind: "survey";
  how?: "mean" | "zero" | "resample" | "corrupt";
}
/**
 * Ablate components, or take their ablations back where every one of them is ablated.
 *
 * `solo` ablates just these, and mutes every other row of the stack; again gives them back.
 */
export interface Ablations {
  id: number;
  kind: "ablations";
  /**
   * @minItems 1
   * @maxItems 1024
   */
  addresses: [string, ...string[]];
  how?: "mean" | "zero" | "resample" | "corrupt";
  solo?: boolean;
}
/**
 * Look into a component. The reply's body is a `DrillBody`.
 */
export interface Drill {
  id: number;
  kind: "drill";
  address: string;
  how?: "mean" | "zero" | "resample" | "corrupt";
}
/**
 * Patch activations between the clean and the corrupt run; fills in by `PatchingUpdate`s.
 */
export interface Patching {
  id: number;
  kind: "patching";
  direction?: "denoise" | "noise";
  over?: "resid_pre" | "attn" | "mlp" | "head";
}
/**
 * Score all edges (or components); a `GraphUpdate` follows.
 */
export interface Find {
  id: number;
  kind: "find";
  method?: "attribution" | "eap" | "eap-ig" | "acdc";
  of?: "edges" | "nodes";
  how?: "mean" | "zero" | "resample" | "corrupt";
  /**
   * Of the integrated gradients.
   */
  steps?: number;
  /**
   * Of ACDC: an edge goes whose removal changes the metric by less; null takes a twentieth of
   * what separates clean from corrupt.
   */
  threshold?: number | null;
  /**
   * Of ACDC: the most edges that are tried; what is not tried stays in.
   */
  runs?: number;
}
/**
 * Let the circuit be so many of the strongest edges; a `CheckUpdate` follows.
 */
export interface Size {
  id: number;
  kind: "size";
  count: number;
  final?: boolean;
}
/**
 * Take nodes or edges out of the circuit, or put them back in; a `CheckUpdate` follows.
 */
export interface Switch {
  id: number;
  kind: "switch";
  /**
   * @minItems 1
   * @maxItems 1024
   */
  addresses: [string, ...string[]];
}
/**
 * Pin, name or group nodes; what is absent stays. An empty name or group takes it away.
 */
export interface Annotate {
  id: number;
  kind: "annotate";
  /**
   * @minItems 1
   * @maxItems 1024
   */
  addresses: [string, ...string[]];
  pinned?: boolean | null;
  name?: string | null;
  group?: string | null;
}
/**
 * What one edge does, exactly. The reply's body is an `EdgeBody`.
 */
export interface Edge {
  id: number;
  kind: "edge";
  address: string;
}
/**
 * Measure faithfulness against size, with random circuits; fills in by `FaithfulUpdate`s.
 */
export interface Check {
  id: number;
  kind: "check";
}
/**
 * Ablate A, B, and both. The reply's body is an `InteractBody`.
 */
export interface Interact {
  id: number;
  kind: "interact";
  /**
   * @minItems 1
   * @maxItems 1024
   */
  a: [string, ...string[]];
  /**
   * @minItems 1
   * @maxItems 1024
   */
  b: [string, ...string[]];
  how?: "mean" | "zero" | "resample" | "corrupt";
}
/**
 * The circuit as a file. The reply's body is an `ExportBody`.
 */
export interface Export {
  id: number;
  kind: "export";
  format?: "json" | "code";
}
/**
 * Take a circuit from the text of a file that `export` wrote.
 */
export interface Import {
  id: number;
  kind: "import";
  text: string;
}
/**
 * The gesture was taken; results up to `revision` are still to come.
 */
export interface ReplyOk {
  kind: "reply";
  id: number;
  ok: true;
  revision: number;
  body:
    | (
        | HelloBody
        | InspectorBody
        | AblatorBody
        | AddBody
        | RankBody
        | CompleteBody
        | TokensBody
        | CodeBody
        | HeadBody
        | TilesBody
        | CellBody
        | ComposeBody
        | KnockBody
        | DrillBody
        | EdgeBody
        | InteractBody
        | ExportBody
      )
    | null;
}
/**
 * Answers `hello`: all there is.
 */
export interface HelloBody {
  of: "hello";
  /**
   * The session's, which `state` is of.
   */
  revision: number;
  state: State;
  /**
   * The revision that `result` is of; older than `revision` while a run is on its way.
   */
  result_revision: number | null;
  result: Result | null;
  curves: CurveEntry[];
  effects_revision: number | null;
  effects: Effect[];
  generated: GeneratedText[];
}
/**
 * Everything that is declared: the prompt, the stack, the metric. Never the fruit of a run.
 */
export interface State {
  model: string;
  device: string;
  dtype: string;
  tokens: PromptToken[];
  /**
   * The text; null when the session was given token ids.
   */
  prompt: string | null;
  max_tokens: number;
  rows: Row[];
  selected: number | null;
  /**
   * Null until the first run has said which token is on top.
   */
  metric: Metric | null;
  /**
   * Addresses of the session's named directions, ready for `add`.
   */
  directions: string[];
  can_undo: boolean;
  can_redo: boolean;
  /**
   * What a reader must know: the massive-activation mask, a short cut that does not hold.
   */
  notes: string[];
  reference: Reference;
}
/**
 * A token of the prompt.
 */
export interface PromptToken {
  position: number;
  id: number;
  text: string;
  /**
   * Whether it is the beginning-of-sequence token that the text got.
   */
  bos: boolean;
}
/**
 * One intervention of the stack. What is null is not measured yet, or has no meaning here.
 */
export interface Row {
  key: number;
  /**
   * Without positions.
   */
  address: string;
  /**
   * "set", "add", "scale", "ablate"; another word for what this view shows but cannot edit.
   */
  op: string;
  /**
   * All of it in words, for ARIA and for rows that cannot be edited.
   */
  label: string;
  /**
   * Raw units; null for `ablate` and what has no one number.
   */
  value: number | null;
  how: string | null;
  positions: string;
  muted: boolean;
  /**
   * Whether the neuron is behind the massive-activation mask (wrecks everything when touched).
   */
  massive: boolean;
  /**
   * False: it can be muted, moved, removed, and that is all.
   */
  editable: boolean;
  range: Range | null;
  /**
   * Over the reference texts.
   */
  sd: number | null;
  mean: number | null;
  /**
   * The largest absolute value on the prompt (without a beginning-of-sequence token).
   */
  peak: number | null;
  /**
   * The value on the prompt, baseline, at the first position that the row touches.
   */
  observed: number | null;
}
/**
 * From where to where a slider goes, raw units.
 */
export interface Range {
  low: number;
  high: number;
}
/**
 * What the stack's effect is measured on: of tokens, or KL, loss, a function of the user's.
 */
export interface Metric {
  label: string;
  target: TokenName;
  /**
   * The second token of a logit difference.
   */
  against: TokenName | null;
}
/**
 * A token of the vocabulary.
 */
export interface TokenName {
  id: number;
  text: string;
}
/**
 * The texts that means and standard deviations are taken over.
 */
export interface Reference {
  ready: boolean;
}
/**
 * What the model does under the stack at one revision.
 */
export interface Result {
  /**
   * Both sides' most probable next tokens, by the larger of the two probabilities.
   */
  top: Share[];
  /**
   * In its unit; null for an encoder, which predicts no next token (then `top` is empty).
   */
  metric: BeforeAfter | null;
  moved: PackedArray;
  /**
   * KL(before || after) in nats; of an encoder 1 - cosine of the last layer's output.
   */
  moved_as: "kl" | "cosine";
  work: Work;
}
/**
 * A next token's probability before and after the stack.
 */
export interface Share {
  id: number;
  text: string;
  before: number;
  after: number;
}
/**
 * One number on the baseline and under the stack.
 */
export interface BeforeAfter {
  before: number;
  after: number;
}
/**
 * Where an array lies: binary buffer number `buffer` of the same message, C order.
 */
export interface PackedArray {
  buffer: number;
  dtype: "float32" | "float16" | "float64" | "uint8" | "int32" | "bool";
  shape: number[];
}
/**
 * What a run really recomputed.
 */
export interface Work {
  blocks: number;
  positions: number;
  seconds: number;
  way: string;
}
/**
 * A curve and the revision that it was measured at.
 */
export interface CurveEntry {
  key: number;
  revision: number;
  curve: DoseResponse;
}
/**
 * A row's curve; as many points as are measured so far, by growing value.
 */
export interface DoseResponse {
  values: PackedArray;
  logprob: PackedArray;
  kl: PackedArray;
}
/**
 * What one row does to the metric, beside the random control (null: none can be drawn).
 */
export interface Effect {
  key: number;
  /**
   * The metric with the whole stack minus the metric without this row, in its unit.
   */
  effect: number;
  control: Control | null;
}
/**
 * What the same does at random: to neurons or heads of the same layer, or along directions.
 */
export interface Control {
  median: number;
  low: number;
  high: number;
  seeds: number;
  of: "neurons" | "directions" | "heads";
}
/**
 * A continuation so far.
 */
export interface GeneratedText {
  side: "baseline" | "clamped";
  text: string;
  tokens: number;
  done: boolean;
}
/**
 * Answers `hello` of an AttentionInspector: all there is but the tiles.
 */
export interface InspectorBody {
  of: "inspector";
  revision: number;
  state: State;
  result_revision: number | null;
  result: Result | null;
  effects_revision: number | null;
  effects: Effect[];
  attention: AttentionState;
  grid: GridPart[];
  scores: Scores | null;
  /**
   * The locked head's, for a saved page.
   */
  head: HeadBody | null;
  /**
   * The locked head's tiles, as many as fit into a saved page.
   */
  tiles: TilesBody[];
}
/**
 * What is looked at. Beside it, `State` has the prompt, the stack and the metric.
 */
export interface AttentionState {
  layers: number;
  heads: number;
  causal: boolean;
  /**
   * The locked head: its layer and its number.
   */
  head: number[] | null;
  look: "now" | "before" | "difference" | "second" | "second-difference";
  mode: "weight" | "value" | "contribution";
  stamps: Stamps;
  /**
   * Whether the stack does anything, so that now and before can differ.
   */
  acting: boolean;
  knocked_out: KnockedOut[];
  second: SecondPrompt | null;
  refusals: Refusals;
}
/**
 * A name for the patterns of each side: tiles of another stamp are of patterns that were.
 */
export interface Stamps {
  now: string;
  before: string;
  second: string | null;
}
/**
 * Cells that an intervention of the stack knocks out, ready to be outlined.
 */
export interface KnockedOut {
  key: number;
  /**
   * From the first to before the second.
   */
  layers: number[];
  heads: number[] | null;
  destinations: number[] | null;
  sources: number[] | null;
  how: string;
  muted: boolean;
}
/**
 * The second prompt and its alignment.
 */
export interface SecondPrompt {
  /**
   * Null when it was given as token ids.
   */
  text: string | null;
  tokens: PromptToken[];
  /**
   * For each position of the prompt, its partner in the second one.
   */
  partners: (number | null)[];
}
/**
 * Why something cannot be had of this model, in a sentence; null where it can.
 */
export interface Refusals {
  value: string | null;
  contribution: string | null;
  knockout: string | null;
  /**
   * An encoder predicts no next token.
   */
  prediction: string | null;
}
/**
 * Small patterns of some layers, for the grid of all heads: weights, whatever the mode.
 */
export interface GridPart {
  look: "now" | "before" | "difference" | "second" | "second-difference";
  /**
   * As in `TilesBody`.
   */
  stamp: string;
  layers: number[];
  thumbs: PackedArray;
  /**
   * A pixel is the largest of `block` x `block` cells (the one furthest from 0); 1 is exact.
   */
  block: number;
  coding: "share" | "signed";
  peaks: PackedArray;
}
/**
 * Scores of all heads; NaN where a score is not measured or not defined.
 */
export interface Scores {
  names: (
    | "previous"
    | "duplicate"
    | "induction"
    | "current"
    | "first"
    | "entropy"
    | "distance"
    | "random_induction"
    | "effect"
  )[];
  values: PackedArray;
  /**
   * Of which patterns; `effect` and `random_induction` say of themselves when they are stale.
   */
  stamp: string;
  /**
   * Measured under another stack, prompt or metric than the present.
   */
  stale: (
    | "previous"
    | "duplicate"
    | "induction"
    | "current"
    | "first"
    | "entropy"
    | "distance"
    | "random_induction"
    | "effect"
  )[];
}
/**
 * Answers `head`. For the differences the three arrays are empty: their tiles hold all.
 */
export interface HeadBody {
  of: "head";
  layer: number;
  head: number;
  look: "now" | "before" | "difference" | "second" | "second-difference";
  stamp: string;
  peaks: Peaks;
  value: PackedArray;
  contribution: PackedArray;
  scale: PackedArray;
  /**
   * The head's direct effect on the target's logit at the last position.
   */
  direct: number | null;
}
/**
 * The largest absolute value of a head's cells in each mode; null where the mode is refused.
 */
export interface Peaks {
  weight: number;
  value: number | null;
  contribution: number | null;
}
/**
 * Answers `tiles`.
 */
export interface TilesBody {
  of: "tiles";
  layer: number;
  head: number;
  look: "now" | "before" | "difference" | "second" | "second-difference";
  mode: "weight" | "value" | "contribution";
  /**
   * The side's stamp; of a difference both, "now-before" or "now-second".
   */
  stamp: string;
  coding: "share" | "signed";
  /**
   * Row and column of each tile, counted in tiles.
   */
  places: number[][];
  /**
   * The peak of each tile's coding; 1 for "share".
   */
  peaks: number[];
  cells: PackedArray;
}
/**
 * Answers `hello` of a CircuitAblator: all there is.
 */
export interface AblatorBody {
  of: "ablator";
  revision: number;
  state: State;
  result_revision: number | null;
  result: Result | null;
  effects_revision: number | null;
  effects: Effect[];
  circuit: CircuitState;
  map: EffectMap | null;
  patching: PatchingMap[];
  graph: Graph | null;
  checked: Checked | null;
  faithful: Faithful | null;
}
/**
 * What is declared. Beside it, `State` has the prompt, the stack and the metric.
 */
export interface CircuitState {
  layers: number;
  heads: number;
  kv_heads: number;
  /**
   * Whether the blocks have MLPs: the map's last column.
   */
  mlp: boolean;
  metric_kind: "logit_difference" | "log_prob" | "kl" | "loss" | "custom";
  /**
   * Of effects: "nats" or "logits", or "" of a function of the user's.
   */
  unit: string;
  sets: SetName[];
  pairs: PairSet | null;
  /**
   * The corrupt prompt; null where there is none, or it was given as token ids.
   */
  contrast: string | null;
  /**
   * Heads and MLPs that the stack ablates, without those of muted rows.
   */
  ablated: string[];
  selection: Selection | null;
  holds_since: HoldsSince;
  refusals: CircuitRefusals;
}
/**
 * A prompt set that comes with the package.
 */
export interface SetName {
  name: string;
  about: string;
}
/**
 * The set of prompt pairs that effects are averaged over.
 */
export interface PairSet {
  name: string;
  about: string;
  seed: number;
  /**
   * How many pairs there are.
   */
  count: number;
  /**
   * The first hundred of them.
   */
  pairs: PromptPair[];
  /**
   * Which pair is the session's prompt.
   */
  shown: number;
  /**
   * What was left out when it was made, or empty.
   */
  note: string;
}
/**
 * A pair of the set, as texts.
 */
export interface PromptPair {
  clean: string;
  corrupt: string;
  answer: string;
  wrong: string;
}
/**
 * Which edges are in the circuit: so many of the strongest, but for what was switched.
 */
export interface Selection {
  /**
   * How many of the strongest.
   */
  size: number;
  /**
   * How many are in the circuit, after switching.
   */
  edges: number;
  added: string[];
  /**
   * Nodes and edges that were switched in and out by hand.
   */
  removed: string[];
  /**
   * uint8 [edges], as many as the graph has, in its order: 1 in the circuit, 2 taken out of it by
   * hand, 0 not in it.
   */
  inside: {
    buffer: number;
    dtype: "float32" | "float16" | "float64" | "uint8" | "int32" | "bool";
    shape: number[];
  } | null;
  notes: NodeNote[];
}
/**
 * What somebody said of a node.
 */
export interface NodeNote {
  address: string;
  pinned: boolean;
  name: string;
  group: string;
}
/**
 * From which revision on what was measured still holds; what is of an earlier one is stale.
 *
 * A hand on the circuit makes no patching stale, and one on the stack no graph.
 */
export interface HoldsSince {
  map: number;
  patching: number;
  /**
   * And the curve of faithfulness, which is of the graph.
   */
  graph: number;
  checked: number;
}
/**
 * Why something cannot be had here, in a sentence; null where it can.
 */
export interface CircuitRefusals {
  /**
   * No contrast prompt, or one of another length.
   */
  corrupt: string | null;
  /**
   * A model whose residual stream is no plain sum.
   */
  edges: string | null;
  prediction: string | null;
}
/**
 * What ablating each component does to the metric: with it ablated minus without.
 *
 * Rows are layers, columns heads and then, where there are MLPs, the MLP.
 */
export interface EffectMap {
  revision: number;
  how: "mean" | "zero" | "resample" | "corrupt";
  /**
   * The metric under the stack as it is, averaged over the pairs.
   */
  baseline: number;
  estimate: PackedArray;
  exact: PackedArray;
  done: number;
  total: number;
  pairs: number;
  /**
   * How much it costs, or why there is no estimate; may be empty.
   */
  note: string;
}
/**
 * Activation patching: rows are layers, columns positions, or heads.
 */
export interface PatchingMap {
  revision: number;
  direction: "denoise" | "noise";
  over: "resid_pre" | "attn" | "mlp" | "head";
  /**
   * The tokens of the prompt shown, or "H0", "H1", ...
   */
  columns: string[];
  clean: number;
  /**
   * The metric on either side, averaged over the pairs.
   */
  corrupt: number;
  values: PackedArray;
  done: number;
  total: number;
  pairs: number;
  /**
   * How much it costs.
   */
  note: string;
}
/**
 * Scores of all edges: what replacing what an edge carries does to the metric, estimated.
 *
 * Only the strongest are here, strongest first; `total` says of how many.
 */
export interface Graph {
  revision: number;
  method: "attribution" | "eap" | "eap-ig" | "acdc";
  of: "edges" | "nodes";
  how: "mean" | "zero" | "resample" | "corrupt";
  /**
   * Addresses that `source` and `reader` point into; readers have a part, "L7.H2:q".
   */
  nodes: string[];
  source: PackedArray;
  reader: PackedArray;
  estimate: PackedArray;
  exact: PackedArray;
  /**
   * How many edges the model has.
   */
  total: number;
  clean: number | null;
  /**
   * The metric with nothing replaced, and with everything; null where a loaded circuit does not
   * say.
   */
  corrupt: number | null;
  sizes: PackedArray;
  thresholds: PackedArray;
  /**
   * What the reader must know: a budget that ran out, how many estimates the exact values
   * contradict; may be empty.
   */
  note: string;
}
/**
 * The circuit by itself, and the model without it, exactly.
 */
export interface Checked {
  revision: number;
  edges: number;
  clean: number;
  corrupt: number;
  /**
   * The metric with everything outside of the circuit replaced.
   */
  circuit: number;
  /**
   * The metric with the circuit replaced and everything else as it is; null while it is measured,
   * after `circuit`.
   */
  without: number | null;
  /**
   * (circuit - corrupt) / (clean - corrupt); null where these two do not differ.
   */
  faithfulness: number | null;
  /**
   * The same of the model without the circuit: near 0 when the circuit is all there is; null
   * while it is measured, too.
   */
  completeness: number | null;
}
/**
 * Faithfulness against circuit size, filling in; NaN where it is not measured yet.
 */
export interface Faithful {
  revision: number;
  sizes: PackedArray;
  faithfulness: PackedArray;
  completeness: PackedArray;
  random_low: PackedArray;
  random_median: PackedArray;
  random_high: PackedArray;
  seeds: number;
  done: number;
  total: number;
}
/**
 * Answers `add`.
 */
export interface AddBody {
  of: "add";
  key: number;
  /**
   * The address had this row already; nothing was added.
   */
  existed: boolean;
}
/**
 * Answers `rank`, best first.
 */
export interface RankBody {
  of: "rank";
  by: "activation" | "direct" | "gradient";
  items: Ranked[];
}
/**
 * A neuron of a ranking.
 */
export interface Ranked {
  address: string;
  value: number;
  massive: boolean;
}
/**
 * Answers `complete`.
 */
export interface CompleteBody {
  of: "complete";
  items: string[];
}
/**
 * Answers `tokens`.
 */
export interface TokensBody {
  of: "tokens";
  items: TokenName[];
}
/**
 * Answers `code`.
 */
export interface CodeBody {
  of: "code";
  text: string;
}
/**
 * Answers `cell`: float32 values, exactly; null where there is none or it is not a number.
 */
export interface CellBody {
  of: "cell";
  layer: number;
  head: number;
  look: "now" | "before" | "difference" | "second" | "second-difference";
  stamp: string;
  destination: number;
  source: number;
  weight: number | null;
  value: number | null;
  contribution: number | null;
}
/**
 * Answers `compose`: scores minus those of random matrices of the same shapes.
 *
 * A row of each array is a layer: of heads in earlier layers the locked head reads (through its
 * Q, K or V), of heads in later layers it is read (through theirs). NaN in its own layer.
 */
export interface ComposeBody {
  of: "compose";
  layer: number;
  head: number;
  q: PackedArray;
  k: PackedArray;
  v: PackedArray;
  /**
   * The random matrices' mean, which was subtracted.
   */
  baseline: number;
}
/**
 * Answers `knock`.
 */
export interface KnockBody {
  of: "knock";
  /**
   * Of the new row; null when a knock-out was taken back.
   */
  key: number | null;
}
/**
 * Answers `drill`: exact effects of a component's parts.
 */
export interface DrillBody {
  of: "drill";
  address: string;
  how: "mean" | "zero" | "resample" | "corrupt";
  /**
   * Of a head its parts "q", "k", "v", "z"; of an MLP none.
   */
  parts: string[];
  part_effects: PackedArray;
  /**
   * The tokens of the prompt shown.
   */
  positions: string[];
  position_effects: PackedArray;
  /**
   * Of an MLP its strongest neurons; massive-activation neurons are left out.
   */
  neurons: NeuronEffect[];
  /**
   * How many neurons there are.
   */
  total: number;
  /**
   * Such as which heads share its keys and values; may be empty.
   */
  note: string;
}
/**
 * A neuron of an MLP that was looked into.
 */
export interface NeuronEffect {
  address: string;
  estimate: number | null;
  exact: number;
}
/**
 * Answers `edge`.
 */
export interface EdgeBody {
  of: "edge";
  address: string;
  estimate: number | null;
  exact: number;
  before: number;
  /**
   * The metric without and with what the edge carries replaced.
   */
  after: number;
  /**
   * Whether the estimate has the other sign, or is off by more than half of the exact value.
   */
  disagree: ("sign" | "half") | null;
  /**
   * Next tokens of the prompt shown, whose probability it moves most.
   */
  top: Share[];
}
/**
 * Answers `interact`.
 */
export interface InteractBody {
  of: "interact";
  a: string[];
  b: string[];
  effect_a: number;
  effect_b: number;
  both: number;
  /**
   * both - effect_a - effect_b: 0 where the two add up.
   */
  interaction: number;
  /**
   * The largest absolute interaction of A with random components in B's place.
   */
  control: number | null;
  seeds: number;
  /**
   * Why there is no control; empty where there is one.
   */
  note: string;
}
/**
 * Answers `export`.
 */
export interface ExportBody {
  of: "export";
  /**
   * A file name.
   */
  name: string;
  text: string;
}
/**
 * The gesture was refused and changed nothing.
 */
export interface ReplyError {
  kind: "reply";
  /**
   * Null when the message had no readable id.
   */
  id: number | null;
  ok: false;
  revision: number;
  /**
   * A sentence for a person.
   */
  error: string;
  /**
   * Which part of the message it is about, such as "address".
   */
  field: string | null;
}
/**
 * After every change, whoever made it.
 */
export interface StateUpdate {
  kind: "state";
  revision: number;
  state: State;
}
/**
 * A run is done. One of an older revision than the one shown is dropped.
 */
export interface ResultUpdate {
  kind: "result";
  revision: number;
  result: Result;
}
/**
 * Long work goes on.
 */
export interface Progress {
  kind: "progress";
  job:
    | "curve"
    | "control"
    | "generate"
    | "rank"
    | "reference"
    | "scores"
    | "grid"
    | "map"
    | "patching"
    | "find"
    | "faithful";
  key: number | null;
  done: number;
  total: number;
}
/**
 * A curve, filling in; each replaces the one before.
 */
export interface CurveUpdate {
  kind: "curve";
  key: number;
  revision: number;
  curve: DoseResponse;
}
/**
 * The effect of every row that is not muted, beside its control.
 */
export interface EffectsUpdate {
  kind: "effects";
  revision: number;
  rows: Effect[];
}
/**
 * One more token of one side, or a few that came at once; `index` 0 starts it afresh.
 */
export interface Generated {
  kind: "generated";
  side: "baseline" | "clamped";
  /**
   * What it adds; may be empty while a character is not whole, and in a closing message.
   */
  text: string;
  /**
   * The last of them; -1 in the message that closes a stopped side.
   */
  token: number;
  index: number;
  done: boolean;
}
/**
 * What Python is busy with. An `error` is about the newest run; the last picture stays.
 */
export interface Status {
  kind: "status";
  busy: boolean;
  what: string;
  error: string | null;
  /**
   * With an error: the revision whose run failed; no result of it will come.
   */
  revision: number;
}
/**
 * After every change of what is looked at, and of the session.
 */
export interface AttentionUpdate {
  kind: "attention";
  revision: number;
  attention: AttentionState;
}
/**
 * Some layers of the grid are there.
 */
export interface GridUpdate {
  kind: "grid";
  part: GridPart;
}
/**
 * Scores, filling in; each replaces the one before.
 */
export interface ScoresUpdate {
  kind: "scores";
  scores: Scores;
}
/**
 * After every change of what is declared.
 */
export interface CircuitUpdate {
  kind: "circuit";
  revision: number;
  circuit: CircuitState;
}
/**
 * Effects of components, filling in; each replaces the one before.
 */
export interface MapUpdate {
  kind: "map";
  map: EffectMap;
}
/**
 * Patching, filling in; each replaces the one before of its direction and its `over`.
 */
export interface PatchingUpdate {
  kind: "patched";
  patching: PatchingMap;
}
/**
 * Edges were scored; exact values of the strongest fill in.
 */
export interface GraphUpdate {
  kind: "graph";
  graph: Graph;
}
/**
 * The circuit as it is now was measured.
 */
export interface CheckUpdate {
  kind: "checked";
  checked: Checked;
}
/**
 * The curve of faithfulness, filling in; each replaces the one before.
 */
export interface FaithfulUpdate {
  kind: "faithful";
  faithful: Faithful;
}
/**
 * The last picture at rest, for saved pages: what `hello` answers, with its buffers as text.
 *
 * Its `PackedArray`s point into `buffers`, each of which is base64. `cut` names what was left out
 * to stay inside the size limit. A page made by `to_html` has this trait alone;
 * where there is a kernel, there is a trait `live`, which is true.
 */
export interface Snapshot {
  hello: HelloBody | InspectorBody | AblatorBody;
  buffers: string[];
  cut: string[];
}
