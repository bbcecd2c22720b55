"""The messages that only ActivationMaximizer knows: pictures and prompts that drive a unit.

Activations are of the objective, in the model's own units. A *track* is one optimisation that runs
(the plain picture, a facet, one of a diverse set); a *frame* is its picture at one step, and the
frames that are kept of it (within a stated budget) can be scrubbed through. Prompts found by search
are *candidates*: those that no other candidate beats in activation and in cross-entropy at once are
the *front*.

A picture is bytes or numbers with its sizes beside it (`Picture`); which renderer draws it is
declared with the model's input. Every array's sizes are said in its description or beside it.
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from .shared import Effect, PromptToken, Row, TokenName
from .wire import MAX_SAFE_INTEGER, Address, Array, Key, Message, Up

Renderer = Literal["image", "curve", "raster"]
Family = Literal["image", "curve", "raster", "prompt"]
"""What is optimised: a stimulus that this renderer draws, or a prompt."""
UnitHow = Literal["channel", "centre", "peak", "last"]
"""Which number of a unit: its mean over space, its middle position, its largest position, or (of a
language model) its value at the last token."""
MaximizerMode = Literal[
    "climb",
    "facets",
    "diverse",
    "dream",
    "greedy",
    "single",
    "examples",
    "own",
    "matter",
    "discriminate",
]
"""What can be done: a picture; one a facet; a diverse set; EPO; greedy coordinate and single-token
search; examples of a corpus; the user's own input; whether the unit matters; most discriminative
stimuli."""
TrackKind = Literal["climb", "facet", "diverse"]
CandidateKind = Literal["epo", "greedy", "single", "corpus", "own"]

Whole = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Amount = Annotated[FiniteFloat, Field(ge=0, le=1e6)]


# --- up: what a person did -----------------------------------------------------------------------


class TermUp(Message):
    """One unit of an objective as the page says it."""

    address: Address
    weight: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] = 1.0
    how: UnitHow | None = None
    """Null is what is usual: the mean over space, or the last token."""


class Aim(Up):
    """Maximise this sum of units. What was optimised for another one stays until a start."""

    kind: Literal["aim"]
    terms: Annotated[list[TermUp], Field(min_length=1, max_length=16)]
    final: bool = True
    """False while a weight is being dragged: all up to the one with `final` are one undo step."""


class Options(Up):
    """Optimise pictures otherwise, from the next start on. What is absent (or null) stays."""

    kind: Literal["options"]
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Of every free dimension of the input; 0 channels or fixed sizes are the model's own."""
    seed: Seed | None = None
    parameterization: Literal["fourier", "pixel"] | None = None
    transforms: Literal["crops", "lucid", "none"] | None = None
    """How the picture is moved before each step: crops under noise, or a little as in Lucid."""
    decay: Annotated[FiniteFloat, Field(ge=0, le=4)] | None = None
    """How fast the weight of a frequency falls; 1 is 1/f."""
    rate: Annotated[FiniteFloat, Field(gt=0, le=100)] | None = None
    l2: Amount | None = None
    tv: Amount | None = None
    blur: Amount | None = None
    start: Literal["noise", "input"] | None = None
    """From noise, or from the session's input."""
    final: bool = True


class Climb(Up):
    """Optimise the picture, or go on where a picture of whatever kind was paused."""

    kind: Literal["climb"]
    again: bool = False
    """From the first step, even where something is paused."""


class Pause(Up):
    """Hold what is being optimised; `climb` (of prompts `dream`) goes on with it."""

    kind: Literal["pause"]


class Scrub(Up):
    """A kept frame of a track: the nearest to the step. The reply's body is a `FrameBody`."""

    kind: Literal["scrub"]
    track: Whole
    step: Whole


class Facets(Up):
    """One picture a facet: the unit's top images are clustered, and each cluster starts one."""

    kind: Literal["facets"]
    count: Annotated[int, Field(ge=1, le=12)] | None = None
    """How many; null lets the images say."""


class Diverse(Up):
    """Several pictures at once that are kept from looking alike; needs no images."""

    kind: Literal["diverse"]
    count: Annotated[int, Field(ge=2, le=12)] = 4
    strength: Amount = 1.0


class Dream(Up):
    """Start a search for prompts (EPO), or go on where it was paused. What is null stays."""

    kind: Literal["dream"]
    again: bool = False
    """From the first iteration, even where a search is paused."""
    length: Annotated[int, Field(ge=1, le=128)] | None = None
    """Tokens of the prompt, without a beginning-of-sequence token."""
    population: Annotated[int, Field(ge=1, le=64)] | None = None
    children: Annotated[int, Field(ge=1, le=1024)] | None = None
    iterations: Annotated[int, Field(ge=1, le=100_000)] | None = None
    top: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """How many tokens a position's gradient may propose."""
    seconds: Annotated[FiniteFloat, Field(gt=0, le=86_400)] | None = None
    """At most so long."""
    seed: Seed | None = None
    start: Literal["random", "examples"] | None = None


class Rivals(Up):
    """Search by a plainer method; its candidates join the plot."""

    kind: Literal["rivals"]
    method: Literal["greedy", "single"]
    """Greedy coordinate search, or every token of the vocabulary as a prompt of one token."""


class Examples(Up):
    """Measure the unit on the corpus; fills in by `ExamplesUpdate`s."""

    kind: Literal["examples"]


class Piece(Up):
    """A piece of a file that `own` will name: an image as PNG, JPEG or WebP, of 4 MB at most.

    A message is at most 64 KB: the page cuts the file's base64 text into pieces of 48 KB.
    """

    kind: Literal["piece"]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    index: Annotated[int, Field(ge=0, le=1000)]
    """Counted from 0; they come in order, and 0 starts the file afresh."""
    of: Annotated[int, Field(ge=1, le=1000)]
    data: Annotated[str, Field(max_length=49_152)]
    """Base64; a multiple of four characters in every piece."""


class Own(Up):
    """Measure an input of the user's; an `OwnUpdate` follows. Both null: take it away."""

    kind: Literal["own"]
    text: Annotated[str, Field(max_length=32_768)] | None = None
    """Of a language model the text; of a curve or a raster its numbers, one row a line."""
    piece: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The name of a file that came in pieces."""


class Matter(Up):
    """Ablate the unit on the optimised input, beside random units; a `MatterUpdate` follows."""

    kind: Literal["matter"]
    candidate: Whole | None = None
    """Of prompts, which; null takes the one with the largest activation."""
    track: Whole | None = None
    """Of pictures, which, at its last step; null takes the one that is highest."""


class Discriminate(Up):
    """Find one stimulus for each cluster of these units (most discriminative stimuli)."""

    kind: Literal["discriminate"]
    units: Annotated[list[Address], Field(min_length=1, max_length=1024)]
    """Addresses; a part alone, "_fc", stands for all of its channels."""
    clusters: Annotated[int, Field(ge=2, le=64)] = 8
    """How many there are at first, about twice as many as are expected."""
    seed: Seed = 0


class Load(Up):
    """Put a prompt or a picture into the session (one step of undo); exactly one of these."""

    kind: Literal["load"]
    candidate: Whole | None = None
    track: Whole | None = None
    step: Whole | None = None
    """With `track`: a kept frame; null is the last."""
    example: Annotated[list[Whole], Field(min_length=2, max_length=2)] | None = None
    """Which quantile group of the corpus, and which example of it."""
    stimulus: Whole | None = None
    """Of most discriminative stimuli."""


class Save(Up):
    """What is shown as a file. The reply's body is a `SaveBody`."""

    kind: Literal["save"]
    what: Literal["sheet", "animation", "history", "front"]
    """A sheet of pictures (png), the frames of a track (gif, webp), or a table (csv)."""
    format: Literal["png", "gif", "webp", "csv"]
    track: Whole | None = None
    """Of an animation; null is the one that is highest."""


# --- parts of what comes down --------------------------------------------------------------------


class Picture(Message):
    """A stimulus, ready to be drawn by its renderer.

    Exactly one of `pixels` and `values` is there. `raw` pixels are uint8 [height, width, channels]
    (channels 1 or 3, 0 = the lowest and 255 = the highest value of the declared range); `jpeg` and
    `png` pixels are the bytes of such a file, for saved pages. `values` are float32: of a curve
    [height = channels, width = time], of a raster [height = rows, width = time].
    """

    renderer: Renderer
    height: int
    width: int
    channels: int
    """1 or 3; of curves and rasters 1."""
    low: FiniteFloat
    high: FiniteFloat
    """The declared range of its values."""
    coding: Literal["raw", "jpeg", "png"]
    pixels: Array | None
    values: Array | None


class Frame(Message):
    """The picture of a track at a step."""

    track: int
    step: int
    """At which it was seen, counted from 0, as in `Track.kept` and in the curve."""
    total: int
    """How many steps there will be."""
    value: FiniteFloat
    """The objective there."""
    picture: Picture


class TrackCurve(Message):
    """The objective along the steps of a track.

    Value number `start` + i is at step (`start` + i) * `stride`.
    """

    track: int
    start: int
    """Values before it are known; 0 starts the curve afresh."""
    stride: int
    """1, or more where a run is so long that its curve is thinned."""
    values: Array
    """float32 [values]"""


class Track(Message):
    """An optimisation: what it is, how far it is, which of its frames are kept."""

    key: int
    kind: TrackKind
    objective: str
    """What it maximises, as `MaximizerState.objective` said then."""
    label: str
    """Such as "picture", "facet 2"."""
    status: Literal["waiting", "running", "paused", "stopped", "failed", "done"]
    step: int
    """How many it has taken."""
    total: int
    value: FiniteFloat | None
    """The objective at its last step; null before the first."""
    best: FiniteFloat | None
    """The largest so far."""
    kept: Array
    """int32 [frames]: the steps whose frames are kept, growing; `scrub` gives any of them."""
    budget: int
    """Bytes that kept frames may take; older ones are thinned beyond it."""
    members: list[Picture]
    """Of a facet: the images that it started from."""
    member_count: int
    """How many there were; `members` are the first of them."""
    note: str
    """What a reader must know, such as that the start was inside a dead ReLU; may be empty."""


class Candidate(Message):
    """A prompt: found by a search, of the corpus, or the user's."""

    key: int
    kind: CandidateKind
    tokens: list[TokenName]
    """Without a beginning-of-sequence token."""
    text: str
    activation: FiniteFloat
    cross_entropy: FiniteFloat | None
    """Nats a token, of the tokens given those before; null where there is nothing to predict."""
    activations: Array | None
    """float32 [tokens]: the objective at each token, where it was measured."""
    front: bool
    """Whether no other candidate of its kind beats it in both."""


class Front(Message):
    """All candidates there are, of every method."""

    objective: str
    """What they were measured by; stale where it is not the state's objective."""
    candidates: list[Candidate]
    """At most some 500: of a single-token search the best."""
    method: Literal["epo", "greedy", "single"] | None
    """Which search the next four are of: the one that runs, or ran last."""
    status: Literal["running", "paused", "stopped", "failed", "done"]
    iteration: int
    iterations: int
    tried: int
    """Prompts (of a single-token search tokens) that were measured."""
    seconds: FiniteFloat
    note: str


class Example(Message):
    """An input measured: a text with the objective at each token, or a stimulus with its map."""

    objective: str
    """By what."""
    activation: FiniteFloat
    name: str
    """Where it is from: "text 12, token 40", "goldfish.jpg"; may be empty."""
    tokens: list[TokenName]
    """Of a text, as many as are shown; of a stimulus none."""
    activations: Array | None
    """Of a text: float32 [tokens], the objective at each token, on the scale of all examples."""
    at: int | None
    """Of a text: which token the activation is of."""
    cross_entropy: FiniteFloat | None
    picture: Picture | None
    map: Array | None
    """Of a stimulus: float32 [map_height, map_width], the unit at each position."""
    map_height: int
    map_width: int


class ExampleGroup(Message):
    """Examples of one part of the distribution."""

    name: str
    """"top", "90th to 99th percentile", ..."""
    low: FiniteFloat
    high: FiniteFloat
    """Activations that fall into it."""
    examples: list[Example]


class CorpusExamples(Message):
    """The unit on the corpus."""

    objective: str
    """What was measured; stale where it is not the state's objective."""
    corpus: str
    """What it is and how large."""
    done: int
    total: int
    """Texts or stimuli."""
    count: int
    """Activations (tokens or stimuli) measured."""
    mean: FiniteFloat | None
    sd: FiniteFloat | None
    maximum: FiniteFloat | None
    edges: Array
    """float32 [bins + 1]: of the histogram."""
    counts: Array
    """int32 [bins]"""
    groups: list[ExampleGroup]
    """Highest first."""
    low: FiniteFloat
    high: FiniteFloat
    """The one scale that tokens and maps are shaded on."""
    note: str


class RandomUnit(Message):
    """What ablating another unit of the same layer does."""

    address: str
    kl: FiniteFloat


class Matters(Message):
    """Whether the unit matters on the optimised input."""

    objective: str
    unit: str
    """Which unit was ablated."""
    subject: str
    """On what: a prompt, or a picture at a step."""
    how: str
    """To what it was ablated: "mean" or "zero"."""
    activation: FiniteFloat
    """The objective on it."""
    corpus_maximum: FiniteFloat | None
    """Of the shipped corpus; null where it was not measured."""
    kl: FiniteFloat
    """KL(as it is || unit ablated) of the output, nats, or what `measured` says."""
    measured: str
    """What the numbers are, in words: a KL, or the relative change of an output that is no
    distribution."""
    controls: list[RandomUnit]
    """At least five random units of the same layer, ablated alike."""
    note: str


class Discrimination(Message):
    """Most discriminative stimuli, filling in: units in clusters, one stimulus a cluster."""

    units: list[str]
    clusters: int
    labels: Array
    """int32 [units]: which cluster each is in."""
    responses: Array
    """float32 [clusters, units]: what each stimulus does to each unit, as a share of the largest
    response that the unit gave to any."""
    stimuli: list[Picture]
    """One a cluster."""
    value: FiniteFloat | None
    """How well the stimuli tell the clusters apart: at most the logarithm of their number, and 0
    where all clusters answer alike."""
    iteration: int
    iterations: int
    status: Literal["running", "stopped", "failed", "done"]
    note: str


class Term(Message):
    """One unit of the objective."""

    address: str
    weight: FiniteFloat
    how: UnitHow | None
    """Null of a unit that is one number."""
    label: str
    """What it is in words, such as the name of a class; may be empty."""


class ClimbOptions(Message):
    """How pictures are optimised from the next start on."""

    steps: int
    size: int | None
    """Null where every size is the model's own."""
    smallest: int
    """The least size that it takes."""
    seed: int
    parameterization: Literal["fourier", "pixel"]
    transforms: Literal["crops", "lucid", "none"]
    decay: FiniteFloat
    rate: FiniteFloat
    l2: FiniteFloat
    tv: FiniteFloat
    blur: FiniteFloat
    start: Literal["noise", "input"]


class DreamOptions(Message):
    """How prompts are searched for from the next start on."""

    length: int
    population: int
    children: int
    iterations: int
    top: int
    seconds: FiniteFloat | None
    seed: int
    start: Literal["random", "examples"]


class ModeState(Message):
    """Whether something can be done here."""

    mode: MaximizerMode
    refusal: str | None
    """Why not, in a sentence; null where it can."""


class Activity(Message):
    """What is being optimised, or paused."""

    mode: MaximizerMode
    paused: bool


class Strip(Message):
    """A language model's session: its prompt, and its stack of interventions.

    Searches, examples and everything else that is measured here run on the model without the stack.
    """

    prompt: str | None
    """The text; null when the session was given token ids."""
    max_tokens: int
    rows: list[Row]
    selected: Key | None
    metric: str
    """What the rows' effects are measured on; "" until a run has said which token is on top."""


class MaximizerState(Message):
    """Everything that is declared, and what runs. Never the fruit of a run."""

    model: str
    device: str
    dtype: str
    family: Family
    shape: list[int | None]
    """Of a stimulus, without the batch; null for a free size. Empty of a language model."""
    objective: str
    """In words: "_blocks.9:c17 - 0.5 x _blocks.9:c3"."""
    fixed: str | None
    """Why the objective cannot be changed here (a Python function), or null."""
    terms: list[Term]
    """Empty where the objective is a Python function."""
    hows: list[UnitHow]
    """Which a unit can be taken by, where it has more than one number."""
    options: ClimbOptions | None
    """Null of a language model."""
    dreaming: DreamOptions | None
    """Null of what is no language model."""
    modes: list[ModeState]
    activity: Activity | None
    input: str
    """The session's input: its text, or its name; may be empty."""
    tokens: list[PromptToken]
    """Of the session's prompt."""
    corpus: str
    """What examples are taken from; empty where there is nothing."""
    strip: Strip | None
    """Null of a module, whose session has no stack."""
    can_undo: bool
    can_redo: bool
    notes: list[str]


# --- bodies of replies ---------------------------------------------------------------------------


class FrameBody(Message):
    """Answers `scrub`."""

    of: Literal["frame"] = "frame"
    frame: Frame


class LoadBody(Message):
    """Answers `load`."""

    of: Literal["load"] = "load"
    input: str
    """What the session's input is now."""


class SaveBody(Message):
    """Answers `save`."""

    of: Literal["save"] = "save"
    name: str
    """A file name."""
    mime: str
    data: Array
    """uint8 [bytes]"""


class MaximizerBody(Message):
    """Answers `hello` of an ActivationMaximizer: all there is."""

    of: Literal["maximizer"] = "maximizer"
    revision: int
    state: MaximizerState
    tracks: list[Track]
    curves: list[TrackCurve]
    """One a track, whole."""
    frames: list[Frame]
    """The last of each track; in a saved page kept ones too, as many as fit, growing steps."""
    front: Front | None
    examples: CorpusExamples | None
    own: Example | None
    matter: Matters | None
    discrimination: Discrimination | None
    effects_revision: int | None
    effects: list[Effect]
    """Of the rows of the stack, as `EffectsUpdate` has them."""


# --- down: what there is now ---------------------------------------------------------------------


class MaximizerUpdate(Message):
    """After every change of what is declared, or of what runs."""

    kind: Literal["maximizer"] = "maximizer"
    revision: int
    state: MaximizerState


class FrameUpdate(Message):
    """A track has a newer picture; ten a second at most, the newest of each track."""

    kind: Literal["frame"] = "frame"
    frame: Frame
    curve: TrackCurve
    """What the curve has more since the last `frame` of this track."""


class TracksUpdate(Message):
    """Which tracks there are; replaces the list. A key that is gone takes its frames along."""

    kind: Literal["tracks"] = "tracks"
    tracks: list[Track]


class FrontUpdate(Message):
    """Candidates; each replaces the one before."""

    kind: Literal["front"] = "front"
    front: Front | None


class ExamplesUpdate(Message):
    """Examples, filling in; each replaces the one before."""

    kind: Literal["examples"] = "examples"
    examples: CorpusExamples | None


class OwnUpdate(Message):
    """The user's own input was measured; null where it was taken away."""

    kind: Literal["own"] = "own"
    own: Example | None


class MatterUpdate(Message):
    """What ablating the unit does; null when the unit has changed."""

    kind: Literal["matter"] = "matter"
    matter: Matters | None


class DiscriminationUpdate(Message):
    """Most discriminative stimuli, filling in; each replaces the one before."""

    kind: Literal["discrimination"] = "discrimination"
    discrimination: Discrimination | None
