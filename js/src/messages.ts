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
  | Import
  | Aim
  | Options
  | Climb
  | Pause
  | Scrub
  | Facets
  | Diverse
  | Dream
  | Rivals
  | Examples
  | Piece
  | Own
  | Matter
  | Discriminate
  | Load
  | Save
  | Sift
  | Page
  | Meet
  | Shade
  | Weigh
  | Hold
  | Build;
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
  | FaithfulUpdate
  | MaximizerUpdate
  | FrameUpdate
  | TracksUpdate
  | FrontUpdate
  | ExamplesUpdate
  | OwnUpdate
  | MatterUpdate
  | DiscriminationUpdate
  | AtlasUpdate
  | CardUpdate;

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
 * Maximise this sum of units. What was optimised for another one stays until a start.
 */
export interface Aim {
  id: number;
  kind: "aim";
  /**
   * @minItems 1
   * @maxItems 16
   */
  terms:
    | [TermUp]
    | [TermUp, TermUp]
    | [TermUp, TermUp, TermUp]
    | [TermUp, TermUp, TermUp, TermUp]
    | [TermUp, TermUp, TermUp, TermUp, TermUp]
    | [TermUp, TermUp, TermUp, TermUp, TermUp, TermUp]
    | [TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp]
    | [TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp]
    | [TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp]
    | [TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp]
    | [TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp, TermUp]
    | [
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp
      ]
    | [
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp
      ]
    | [
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp
      ]
    | [
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp
      ]
    | [
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp,
        TermUp
      ];
  /**
   * False while a weight is being dragged: all up to the one with `final` are one undo step.
   */
  final?: boolean;
}
/**
 * One unit of an objective as the page says it.
 */
export interface TermUp {
  address: string;
  weight?: number;
  /**
   * Null is what is usual: the mean over space, or the last token.
   */
  how?: ("channel" | "centre" | "peak" | "last") | null;
}
/**
 * Optimise pictures otherwise, from the next start on. What is absent (or null) stays.
 */
export interface Options {
  id: number;
  kind: "options";
  steps?: number | null;
  /**
   * Of every free dimension of the input; 0 channels or fixed sizes are the model's own.
   */
  size?: number | null;
  seed?: number | null;
  parameterization?: ("fourier" | "pixel") | null;
  /**
   * How the picture is moved before each step: crops under noise, or a little as in Lucid.
   */
  transforms?: ("crops" | "lucid" | "none") | null;
  /**
   * How fast the weight of a frequency falls; 1 is 1/f.
   */
  decay?: number | null;
  rate?: number | null;
  l2?: number | null;
  tv?: number | null;
  blur?: number | null;
  /**
   * From noise, or from the session's input.
   */
  start?: ("noise" | "input") | null;
  final?: boolean;
}
/**
 * Optimise the picture, or go on where a picture of whatever kind was paused.
 */
export interface Climb {
  id: number;
  kind: "climb";
  /**
   * From the first step, even where something is paused.
   */
  again?: boolean;
}
/**
 * Hold what is being optimised; `climb` (of prompts `dream`) goes on with it.
 */
export interface Pause {
  id: number;
  kind: "pause";
}
/**
 * A kept frame of a track: the nearest to the step. The reply's body is a `FrameBody`.
 */
export interface Scrub {
  id: number;
  kind: "scrub";
  track: number;
  step: number;
}
/**
 * One picture a facet: the unit's top images are clustered, and each cluster starts one.
 */
export interface Facets {
  id: number;
  kind: "facets";
  /**
   * How many; null lets the images say.
   */
  count?: number | null;
}
/**
 * Several pictures at once that are kept from looking alike; needs no images.
 */
export interface Diverse {
  id: number;
  kind: "diverse";
  count?: number;
  strength?: number;
}
/**
 * Start a search for prompts (EPO), or go on where it was paused. What is null stays.
 */
export interface Dream {
  id: number;
  kind: "dream";
  /**
   * From the first iteration, even where a search is paused.
   */
  again?: boolean;
  /**
   * Tokens of the prompt, without a beginning-of-sequence token.
   */
  length?: number | null;
  population?: number | null;
  children?: number | null;
  iterations?: number | null;
  /**
   * How many tokens a position's gradient may propose.
   */
  top?: number | null;
  /**
   * At most so long.
   */
  seconds?: number | null;
  seed?: number | null;
  start?: ("random" | "examples") | null;
}
/**
 * Search by a plainer method; its candidates join the plot.
 */
export interface Rivals {
  id: number;
  kind: "rivals";
  /**
   * Greedy coordinate search, or every token of the vocabulary as a prompt of one token.
   */
  method: "greedy" | "single";
}
/**
 * Measure the unit on the corpus; fills in by `ExamplesUpdate`s.
 */
export interface Examples {
  id: number;
  kind: "examples";
}
/**
 * A piece of a file that `own` will name: an image as PNG, JPEG or WebP, of 4 MB at most.
 *
 * A message is at most 64 KB: the page cuts the file's base64 text into pieces of 48 KB.
 */
export interface Piece {
  id: number;
  kind: "piece";
  name: string;
  /**
   * Counted from 0; they come in order, and 0 starts the file afresh.
   */
  index: number;
  of: number;
  /**
   * Base64; a multiple of four characters in every piece.
   */
  data: string;
}
/**
 * Measure an input of the user's; an `OwnUpdate` follows. Both null: take it away.
 */
export interface Own {
  id: number;
  kind: "own";
  /**
   * Of a language model the text; of a curve or a raster its numbers, one row a line.
   */
  text?: string | null;
  /**
   * The name of a file that came in pieces.
   */
  piece?: string | null;
}
/**
 * Ablate the unit on the optimised input, beside random units; a `MatterUpdate` follows.
 */
export interface Matter {
  id: number;
  kind: "matter";
  /**
   * Of prompts, which; null takes the one with the largest activation.
   */
  candidate?: number | null;
  /**
   * Of pictures, which, at its last step; null takes the one that is highest.
   */
  track?: number | null;
}
/**
 * Find one stimulus for each cluster of these units (most discriminative stimuli).
 */
export interface Discriminate {
  id: number;
  kind: "discriminate";
  /**
   * Addresses; a part alone, "_fc", stands for all of its channels.
   *
   * @minItems 1
   * @maxItems 1024
   */
  units: [string, ...string[]];
  /**
   * How many there are at first, about twice as many as are expected.
   */
  clusters?: number;
  seed?: number;
}
/**
 * Put a prompt or a picture into the session (one step of undo); exactly one of these.
 */
export interface Load {
  id: number;
  kind: "load";
  candidate?: number | null;
  track?: number | null;
  /**
   * With `track`: a kept frame; null is the last.
   */
  step?: number | null;
  /**
   * Which quantile group of the corpus, and which example of it.
   */
  example?: [number, number] | null;
  /**
   * Of most discriminative stimuli.
   */
  stimulus?: number | null;
}
/**
 * What is shown as a file. The reply's body is a `SaveBody`.
 */
export interface Save {
  id: number;
  kind: "save";
  /**
   * A sheet of pictures (png), the frames of a track (gif, webp), or a table (csv).
   */
  what: "sheet" | "animation" | "history" | "front";
  format: "png" | "gif" | "webp" | "csv";
  /**
   * Of an animation; null is the one that is highest.
   */
  track?: number | null;
}
/**
 * Show these neurons only, in this order. What is absent (or null) is not asked for.
 */
export interface Sift {
  id: number;
  kind: "sift";
  /**
   * Text of a token that stands out of the matrix, whatever its case and spaces; "" for any.
   */
  token?: string;
  matrix?: "down" | "up" | "gate";
  /**
   * First and last layer.
   */
  layers?: [number, number] | null;
  /**
   * Only neurons that are at least so special.
   */
  least?: number | null;
  /**
   * Whether what is brushed in the scatter plot counts; false takes the brush away.
   */
  brushed?: boolean;
  order?: "address" | "score" | "z" | "firing" | "mean" | "sd" | "peak";
  falling?: boolean;
}
/**
 * Some rows of the table. The reply's body is a `PageBody`.
 */
export interface Page {
  id: number;
  kind: "page";
  start: number;
  count: number;
}
/**
 * Show a neuron's card, or none; the plot marks it. The reply's body is a `CardBody`.
 */
export interface Meet {
  id: number;
  kind: "meet";
  address: string | null;
}
/**
 * What the neuron does at every token around an example. The reply's body is a `ShadeBody`.
 */
export interface Shade {
  id: number;
  kind: "shade";
  address: string;
  /**
   * The example's.
   */
  place: number;
}
/**
 * Clamp a neuron and see what it does to its token. The reply's body is a `WeighBody`.
 */
export interface Weigh {
  id: number;
  kind: "weigh";
  address: string;
  token: number;
}
/**
 * Put the neuron into the session's stack and show a NeuronClamp of it under the card.
 */
export interface Hold {
  id: number;
  kind: "hold";
  address: string;
}
/**
 * Build the atlas, or go on with one that was stopped.
 */
export interface Build {
  id: number;
  kind: "build";
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
        | MaximizerBody
        | AtlasBody
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
        | FrameBody
        | LoadBody
        | SaveBody
        | PageBody
        | CardBody
        | ShadeBody
        | WeighBody
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
 * Answers `hello` of an ActivationMaximizer: all there is.
 */
export interface MaximizerBody {
  of: "maximizer";
  revision: number;
  state: MaximizerState;
  tracks: Track[];
  /**
   * One a track, whole.
   */
  curves: TrackCurve[];
  /**
   * The last of each track; in a saved page kept ones too, as many as fit, growing steps.
   */
  frames: Frame[];
  front: Front | null;
  examples: CorpusExamples | null;
  own: Example | null;
  matter: Matters | null;
  discrimination: Discrimination | null;
  effects_revision: number | null;
  /**
   * Of the rows of the stack, as `EffectsUpdate` has them.
   */
  effects: Effect[];
}
/**
 * Everything that is declared, and what runs. Never the fruit of a run.
 */
export interface MaximizerState {
  model: string;
  device: string;
  dtype: string;
  family: "image" | "curve" | "raster" | "prompt";
  /**
   * Of a stimulus, without the batch; null for a free size. Empty of a language model.
   */
  shape: (number | null)[];
  /**
   * In words: "_blocks.9:c17 - 0.5 x _blocks.9:c3".
   */
  objective: string;
  /**
   * Why the objective cannot be changed here (a Python function), or null.
   */
  fixed: string | null;
  /**
   * Empty where the objective is a Python function.
   */
  terms: Term[];
  /**
   * Which a unit can be taken by, where it has more than one number.
   */
  hows: ("channel" | "centre" | "peak" | "last")[];
  /**
   * Null of a language model.
   */
  options: ClimbOptions | null;
  /**
   * Null of what is no language model.
   */
  dreaming: DreamOptions | null;
  modes: ModeState[];
  activity: Activity | null;
  /**
   * The session's input: its text, or its name; may be empty.
   */
  input: string;
  /**
   * Of the session's prompt.
   */
  tokens: PromptToken[];
  /**
   * What examples are taken from; empty where there is nothing.
   */
  corpus: string;
  /**
   * Null of a module, whose session has no stack.
   */
  strip: Strip | null;
  can_undo: boolean;
  can_redo: boolean;
  notes: string[];
}
/**
 * One unit of the objective.
 */
export interface Term {
  address: string;
  weight: number;
  /**
   * Null of a unit that is one number.
   */
  how: ("channel" | "centre" | "peak" | "last") | null;
  /**
   * What it is in words, such as the name of a class; may be empty.
   */
  label: string;
}
/**
 * How pictures are optimised from the next start on.
 */
export interface ClimbOptions {
  steps: number;
  /**
   * Null where every size is the model's own.
   */
  size: number | null;
  /**
   * The least size that it takes.
   */
  smallest: number;
  seed: number;
  parameterization: "fourier" | "pixel";
  transforms: "crops" | "lucid" | "none";
  decay: number;
  rate: number;
  l2: number;
  tv: number;
  blur: number;
  start: "noise" | "input";
}
/**
 * How prompts are searched for from the next start on.
 */
export interface DreamOptions {
  length: number;
  population: number;
  children: number;
  iterations: number;
  top: number;
  seconds: number | null;
  seed: number;
  start: "random" | "examples";
}
/**
 * Whether something can be done here.
 */
export interface ModeState {
  mode:
    | "climb"
    | "facets"
    | "diverse"
    | "dream"
    | "greedy"
    | "single"
    | "examples"
    | "own"
    | "matter"
    | "discriminate";
  /**
   * Why not, in a sentence; null where it can.
   */
  refusal: string | null;
}
/**
 * What is being optimised, or paused.
 */
export interface Activity {
  mode:
    | "climb"
    | "facets"
    | "diverse"
    | "dream"
    | "greedy"
    | "single"
    | "examples"
    | "own"
    | "matter"
    | "discriminate";
  paused: boolean;
}
/**
 * A language model's session: its prompt, and its stack of interventions.
 *
 * Searches, examples and everything else that is measured here run on the model without the stack.
 */
export interface Strip {
  /**
   * The text; null when the session was given token ids.
   */
  prompt: string | null;
  max_tokens: number;
  rows: Row[];
  selected: number | null;
  /**
   * What the rows' effects are measured on; "" until a run has said which token is on top.
   */
  metric: string;
}
/**
 * An optimisation: what it is, how far it is, which of its frames are kept.
 */
export interface Track {
  key: number;
  kind: "climb" | "facet" | "diverse";
  /**
   * What it maximises, as `MaximizerState.objective` said then.
   */
  objective: string;
  /**
   * Such as "picture", "facet 2".
   */
  label: string;
  status: "waiting" | "running" | "paused" | "stopped" | "failed" | "done";
  /**
   * How many it has taken.
   */
  step: number;
  total: number;
  /**
   * The objective at its last step; null before the first.
   */
  value: number | null;
  /**
   * The largest so far.
   */
  best: number | null;
  kept: PackedArray;
  /**
   * Bytes that kept frames may take; older ones are thinned beyond it.
   */
  budget: number;
  /**
   * Of a facet: the images that it started from.
   */
  members: Picture[];
  /**
   * How many there were; `members` are the first of them.
   */
  member_count: number;
  /**
   * What a reader must know, such as that the start was inside a dead ReLU; may be empty.
   */
  note: string;
}
/**
 * A stimulus, ready to be drawn by its renderer.
 *
 * Exactly one of `pixels` and `values` is there. `raw` pixels are uint8 [height, width, channels]
 * (channels 1 or 3, 0 = the lowest and 255 = the highest value of the declared range); `jpeg` and
 * `png` pixels are the bytes of such a file, for saved pages. `values` are float32: of a curve
 * [height = channels, width = time], of a raster [height = rows, width = time].
 */
export interface Picture {
  renderer: "image" | "curve" | "raster";
  height: number;
  width: number;
  /**
   * 1 or 3; of curves and rasters 1.
   */
  channels: number;
  low: number;
  /**
   * The declared range of its values.
   */
  high: number;
  coding: "raw" | "jpeg" | "png";
  pixels: {
    buffer: number;
    dtype: "float32" | "float16" | "float64" | "uint8" | "int32" | "bool";
    shape: number[];
  } | null;
  values: {
    buffer: number;
    dtype: "float32" | "float16" | "float64" | "uint8" | "int32" | "bool";
    shape: number[];
  } | null;
}
/**
 * The objective along the steps of a track.
 *
 * Value number `start` + i is at step (`start` + i) * `stride`.
 */
export interface TrackCurve {
  track: number;
  /**
   * Values before it are known; 0 starts the curve afresh.
   */
  start: number;
  /**
   * 1, or more where a run is so long that its curve is thinned.
   */
  stride: number;
  values: PackedArray;
}
/**
 * The picture of a track at a step.
 */
export interface Frame {
  track: number;
  /**
   * At which it was seen, counted from 0, as in `Track.kept` and in the curve.
   */
  step: number;
  /**
   * How many steps there will be.
   */
  total: number;
  /**
   * The objective there.
   */
  value: number;
  picture: Picture;
}
/**
 * All candidates there are, of every method.
 */
export interface Front {
  /**
   * What they were measured by; stale where it is not the state's objective.
   */
  objective: string;
  /**
   * At most some 500: of a single-token search the best.
   */
  candidates: Candidate[];
  /**
   * Which search the next four are of: the one that runs, or ran last.
   */
  method: ("epo" | "greedy" | "single") | null;
  status: "running" | "paused" | "stopped" | "failed" | "done";
  iteration: number;
  iterations: number;
  /**
   * Prompts (of a single-token search tokens) that were measured.
   */
  tried: number;
  seconds: number;
  note: string;
}
/**
 * A prompt: found by a search, of the corpus, or the user's.
 */
export interface Candidate {
  key: number;
  kind: "epo" | "greedy" | "single" | "corpus" | "own";
  /**
   * Without a beginning-of-sequence token.
   */
  tokens: TokenName[];
  text: string;
  activation: number;
  /**
   * Nats a token, of the tokens given those before; null where there is nothing to predict.
   */
  cross_entropy: number | null;
  /**
   * float32 [tokens]: the objective at each token, where it was measured.
   */
  activations: {
    buffer: number;
    dtype: "float32" | "float16" | "float64" | "uint8" | "int32" | "bool";
    shape: number[];
  } | null;
  /**
   * Whether no other candidate of its kind beats it in both.
   */
  front: boolean;
}
/**
 * The unit on the corpus.
 */
export interface CorpusExamples {
  /**
   * What was measured; stale where it is not the state's objective.
   */
  objective: string;
  /**
   * What it is and how large.
   */
  corpus: string;
  done: number;
  /**
   * Texts or stimuli.
   */
  total: number;
  /**
   * Activations (tokens or stimuli) measured.
   */
  count: number;
  mean: number | null;
  sd: number | null;
  maximum: number | null;
  edges: PackedArray;
  counts: PackedArray;
  /**
   * Highest first.
   */
  groups: ExampleGroup[];
  low: number;
  /**
   * The one scale that tokens and maps are shaded on.
   */
  high: number;
  note: string;
}
/**
 * Examples of one part of the distribution.
 */
export interface ExampleGroup {
  /**
   * "top", "90th to 99th percentile", ...
   */
  name: string;
  low: number;
  /**
   * Activations that fall into it.
   */
  high: number;
  examples: Example[];
}
/**
 * An input measured: a text with the objective at each token, or a stimulus with its map.
 */
export interface Example {
  /**
   * By what.
   */
  objective: string;
  activation: number;
  /**
   * Where it is from: "text 12, token 40", "goldfish.jpg"; may be empty.
   */
  name: string;
  /**
   * Of a text, as many as are shown; of a stimulus none.
   */
  tokens: TokenName[];
  /**
   * Of a text: float32 [tokens], the objective at each token, on the scale of all examples.
   */
  activations: {
    buffer: number;
    dtype: "float32" | "float16" | "float64" | "uint8" | "int32" | "bool";
    shape: number[];
  } | null;
  /**
   * Of a text: which token the activation is of.
   */
  at: number | null;
  cross_entropy: number | null;
  picture: Picture | null;
  /**
   * Of a stimulus: float32 [map_height, map_width], the unit at each position.
   */
  map: {
    buffer: number;
    dtype: "float32" | "float16" | "float64" | "uint8" | "int32" | "bool";
    shape: number[];
  } | null;
  map_height: number;
  map_width: number;
}
/**
 * Whether the unit matters on the optimised input.
 */
export interface Matters {
  objective: string;
  /**
   * Which unit was ablated.
   */
  unit: string;
  /**
   * On what: a prompt, or a picture at a step.
   */
  subject: string;
  /**
   * To what it was ablated: "mean" or "zero".
   */
  how: string;
  /**
   * The objective on it.
   */
  activation: number;
  /**
   * Of the shipped corpus; null where it was not measured.
   */
  corpus_maximum: number | null;
  /**
   * KL(as it is || unit ablated) of the output, nats, or what `measured` says.
   */
  kl: number;
  /**
   * What the numbers are, in words: a KL, or the relative change of an output that is no
   * distribution.
   */
  measured: string;
  /**
   * At least five random units of the same layer, ablated alike.
   */
  controls: RandomUnit[];
  note: string;
}
/**
 * What ablating another unit of the same layer does.
 */
export interface RandomUnit {
  address: string;
  kl: number;
}
/**
 * Most discriminative stimuli, filling in: units in clusters, one stimulus a cluster.
 */
export interface Discrimination {
  units: string[];
  clusters: number;
  labels: PackedArray;
  responses: PackedArray;
  /**
   * One a cluster.
   */
  stimuli: Picture[];
  /**
   * How well the stimuli tell the clusters apart: at most the logarithm of their number, and 0
   * where all clusters answer alike.
   */
  value: number | null;
  iteration: number;
  iterations: number;
  status: "running" | "stopped" | "failed" | "done";
  note: string;
}
/**
 * Answers `hello` of a NeuronAtlas: all there is.
 */
export interface AtlasBody {
  of: "atlas";
  revision: number;
  state: AtlasState;
  /**
   * Of `rows`, which the page need not ask for.
   */
  start: number;
  rows: AtlasRow[];
  card: Card | null;
  weighed: WeighBody | null;
  /**
   * In a saved page only: uint8 [bytes], the scatter plot as a PNG file.
   */
  scatter: {
    buffer: number;
    dtype: "float32" | "float16" | "float64" | "uint8" | "int32" | "bool";
    shape: number[];
  } | null;
}
/**
 * Everything that is declared.
 */
export interface AtlasState {
  model: string;
  device: string;
  dtype: string;
  /**
   * Null until one is built or opened.
   */
  atlas: AtlasSummary | null;
  /**
   * What `build` would do, and about how long it takes.
   */
  plan: string;
  sifted: Sifted;
  /**
   * The number of this sifting; `page` answers carry it.
   */
  table: number;
  /**
   * How many rows it has.
   */
  count: number;
  /**
   * The address whose card is shown.
   */
  selected: string | null;
  /**
   * Whether a NeuronClamp is shown under the card.
   */
  held: boolean;
  /**
   * The session's text.
   */
  prompt: string | null;
  can_undo: boolean;
  can_redo: boolean;
  notes: string[];
}
/**
 * What the atlas is of.
 */
export interface AtlasSummary {
  folder: string;
  model: string;
  neurons: number;
  layers: number;
  /**
   * Its name; "" where no corpus was read.
   */
  corpus: string;
  tokens: number;
  texts: number;
  /**
   * How many texts were longer than a window, and cut.
   */
  split: number;
  matrices: ("down" | "up" | "gate")[];
  labels: string[];
}
/**
 * How the table is sifted and sorted now.
 */
export interface Sifted {
  token: string;
  matrix: "down" | "up" | "gate";
  layers: number[] | null;
  least: number | null;
  /**
   * Least and largest firing rate, least and largest score, where the scatter plot is brushed.
   */
  brush: number[] | null;
  order: "address" | "score" | "z" | "firing" | "mean" | "sd" | "peak";
  falling: boolean;
}
/**
 * A neuron of the table. What the atlas does not hold is null.
 */
export interface AtlasRow {
  address: string;
  /**
   * How special the matrix's tokens are: standard deviations above permuted weights.
   */
  score: number | null;
  /**
   * The token that stands out most of the matrix; "" where none was decoded.
   */
  token: string;
  /**
   * Whether it stands out upwards or downwards.
   */
  sign: -1 | 1;
  /**
   * How far the token that is searched for stands out, in standard deviations.
   */
  z: number | null;
  /**
   * Share of the corpus's tokens at which it fires.
   */
  firing: number | null;
  mean: number | null;
  sd: number | null;
  peak: number | null;
  /**
   * Whether it is one of the handful that carry the model whatever it reads.
   */
  massive: boolean;
}
/**
 * All about one neuron.
 */
export interface Card {
  row: AtlasRow;
  decoded: DecodedSide[];
  histogram: Histogram | null;
  examples: AtlasExample[];
  /**
   * Neurons whose output vectors are most alike (cosine).
   */
  writes_like: Neighbour[];
  /**
   * Neurons whose values on the sampled tokens are most alike (correlation).
   */
  fires_like: Neighbour[];
  /**
   * Later neurons and heads that read most of what it writes, sign included.
   */
  feeds: Neighbour[];
  /**
   * Labels of the corpus it tells from the others best, by average precision; `address` is the
   * label.
   */
  labels: Neighbour[];
  note: string;
}
/**
 * One matrix of a neuron, decoded in one direction, the foremost token first.
 */
export interface DecodedSide {
  matrix: "down" | "up" | "gate";
  sign: -1 | 1;
  tokens: DecodedToken[];
}
/**
 * A token that stands out of a neuron's weights.
 */
export interface DecodedToken {
  id: number;
  text: string;
  z: number;
}
/**
 * A neuron's values on the corpus.
 */
export interface Histogram {
  edges: PackedArray;
  counts: PackedArray;
  /**
   * At 1, 10, 50, 90 and 99 %.
   */
  quantiles: number[];
  /**
   * Bound of their relative error.
   */
  error: number;
}
/**
 * A token of the corpus and what the neuron did there.
 */
export interface AtlasExample {
  /**
   * "top", or which part of the distribution it was drawn from.
   */
  group: string;
  value: number;
  place: number;
  before: string;
  token: string;
  after: string;
}
/**
 * A neuron that is like this one, or a site that it feeds.
 */
export interface Neighbour {
  address: string;
  /**
   * Cosine, or how strongly it is read.
   */
  value: number;
  /**
   * Its own foremost token; may be empty.
   */
  token: string;
}
/**
 * Answers `weigh`.
 */
export interface WeighBody {
  of: "weigh";
  token: string;
  neuron: Weighed;
  /**
   * Random neurons of the layer, clamped alike.
   */
  controls: Weighed[];
  /**
   * What was clamped to, in raw units; the other way is its negative.
   */
  value: number;
  prompts: number;
  note: string;
}
/**
 * What clamping one neuron does to a token's log-probability, nats, mean over the prompts.
 */
export interface Weighed {
  address: string;
  /**
   * Clamped so that it writes the token more.
   */
  up: number;
  /**
   * Clamped the other way.
   */
  down: number;
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
  /**
   * What each is in words, such as the name of a class, "" for none; null where nothing is.
   */
  labels: string[] | null;
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
 * Answers `scrub`.
 */
export interface FrameBody {
  of: "frame";
  frame: Frame;
}
/**
 * Answers `load`.
 */
export interface LoadBody {
  of: "load";
  /**
   * What the session's input is now.
   */
  input: string;
}
/**
 * Answers `save`.
 */
export interface SaveBody {
  of: "save";
  /**
   * A file name.
   */
  name: string;
  mime: string;
  data: PackedArray;
}
/**
 * Answers `page`.
 */
export interface PageBody {
  of: "page";
  table: number;
  start: number;
  /**
   * Fewer than were asked for at the table's end.
   */
  rows: AtlasRow[];
}
/**
 * Answers `meet`; null when no neuron is shown.
 */
export interface CardBody {
  of: "card";
  card: Card | null;
}
/**
 * Answers `shade`.
 */
export interface ShadeBody {
  of: "shade";
  address: string;
  place: number;
  tokens: TokenName[];
  values: PackedArray;
  /**
   * Which of the tokens is the example's.
   */
  at: number;
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
    | "faithful"
    | "climb"
    | "facets"
    | "diverse"
    | "dream"
    | "greedy"
    | "single"
    | "examples"
    | "own"
    | "matter"
    | "discriminate"
    | "atlas";
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
 * After every change of what is declared, or of what runs.
 */
export interface MaximizerUpdate {
  kind: "maximizer";
  revision: number;
  state: MaximizerState;
}
/**
 * A track has a newer picture; ten a second at most, the newest of each track.
 */
export interface FrameUpdate {
  kind: "frame";
  frame: Frame;
  curve: TrackCurve;
}
/**
 * Which tracks there are; replaces the list. A key that is gone takes its frames along.
 */
export interface TracksUpdate {
  kind: "tracks";
  tracks: Track[];
}
/**
 * Candidates; each replaces the one before.
 */
export interface FrontUpdate {
  kind: "front";
  front: Front | null;
}
/**
 * Examples, filling in; each replaces the one before.
 */
export interface ExamplesUpdate {
  kind: "examples";
  examples: CorpusExamples | null;
}
/**
 * The user's own input was measured; null where it was taken away.
 */
export interface OwnUpdate {
  kind: "own";
  own: Example | null;
}
/**
 * What ablating the unit does; null when the unit has changed.
 */
export interface MatterUpdate {
  kind: "matter";
  matter: Matters | null;
}
/**
 * Most discriminative stimuli, filling in; each replaces the one before.
 */
export interface DiscriminationUpdate {
  kind: "discrimination";
  discrimination: Discrimination | null;
}
/**
 * After every change of what is declared.
 */
export interface AtlasUpdate {
  kind: "atlas";
  revision: number;
  state: AtlasState;
}
/**
 * After a card was shown, put away, or weighed from Python.
 */
export interface CardUpdate {
  kind: "card";
  card: Card | null;
  weighed: WeighBody | null;
}
/**
 * The last picture at rest, for saved pages: what `hello` answers, with its buffers as text.
 *
 * Its `PackedArray`s point into `buffers`, each of which is base64. `cut` names what was left out
 * to stay inside the size limit. A page made by `to_html` has this trait alone;
 * where there is a kernel, there is a trait `live`, which is true.
 */
export interface Snapshot {
  hello: HelloBody | InspectorBody | AblatorBody | MaximizerBody | AtlasBody;
  buffers: string[];
  cut: string[];
}
