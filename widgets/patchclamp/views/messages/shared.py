"""The messages of every view on a session: the prompt, the stack, the metric, the prediction."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from .wire import MAX_MESSAGE, MAX_SAFE_INTEGER, Address, Array, Key, Message, Positions, Up

Operation = Literal["set", "add", "scale", "ablate"]
How = Literal["mean", "zero", "resample", "renormalise", "contrast"]
Job = Literal[
    "curve",
    "control",
    "generate",
    "rank",
    "reference",
    "scores",
    "grid",
    "map",
    "patching",
    "find",
    "faithful",
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
    "atlas",
]


# --- up: what a person did -----------------------------------------------------------------------


class Hello(Up):
    """The view is there and wants everything: state, last result, curves, effects."""

    kind: Literal["hello"]


class Edit(Up):
    """Change what is named of one row, leave the rest; a drag sends many and ends with `final`.

    All edits of a row up to the one with `final` are one undo step.
    """

    kind: Literal["edit"]
    key: Key
    value: FiniteFloat | None = None
    """In raw units; absent means unchanged (null is refused: JSON makes it of NaN)."""
    op: Operation | None = None
    positions: Positions | None = None
    """What stands after the @: "" (all but a beginning-of-sequence token), "-1", "all", "3,5"."""
    muted: bool | None = None
    how: How | None = None
    """For `ablate` (mean, zero, resample) and `knockout` (renormalise, zero, contrast) only."""
    final: bool = True


class Add(Up):
    """Put a new row at the end of the stack; an address that has a row already is only selected."""

    kind: Literal["add"]
    address: Address
    """May end in positions, "L12.N304@-1", and may name a direction of the session."""
    op: Operation = "set"
    value: FiniteFloat | None = None
    """In raw units; absent or null means a value that changes nothing yet."""


class Remove(Up):
    """Take one row out."""

    kind: Literal["remove"]
    key: Key


class Move(Up):
    """Put one row at place `index` of the stack, counted from 0."""

    kind: Literal["move"]
    key: Key
    index: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]


class Solo(Up):
    """Mute all rows but this one; the same again gives the others back what they had."""

    kind: Literal["solo"]
    key: Key


class Select(Up):
    """Make one row the selected one, or none."""

    kind: Literal["select"]
    key: Key | None


class Reset(Up):
    """Empty the stack (undo brings it back)."""

    kind: Literal["reset"]


class Undo(Up):
    """Take the last step back."""

    kind: Literal["undo"]


class Redo(Up):
    """Do the step again that was taken back."""

    kind: Literal["redo"]


class Prompt(Up):
    """Run another text."""

    kind: Literal["prompt"]
    text: Annotated[str, Field(max_length=MAX_MESSAGE)]
    final: bool = True
    """False while it is being typed: texts up to the one with `final` are one undo step."""


class Target(Up):
    """Let the metric be the log-probability of this token."""

    kind: Literal["target"]
    token: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]


class Complete(Up):
    """What could stand where this is being typed. The reply's body is a `CompleteBody`."""

    kind: Literal["complete"]
    prefix: Annotated[str, Field(max_length=400)]


class Stop(Up):
    """End this view's long work (curves, ranking, controls, generation) where it is."""

    kind: Literal["stop"]


class Code(Up):
    """The stack as Python that needs TransformerLens alone. The reply's body is a `CodeBody`."""

    kind: Literal["code"]


class Tokens(Up):
    """Which tokens of the vocabulary a target could be. The reply's body is a `TokensBody`."""

    kind: Literal["tokens"]
    query: Annotated[str, Field(max_length=400)]


# --- parts of what comes down --------------------------------------------------------------------


class TokenName(Message):
    """A token of the vocabulary."""

    id: int
    text: str


class PromptToken(Message):
    """A token of the prompt."""

    position: int
    id: int
    text: str
    bos: bool
    """Whether it is the beginning-of-sequence token that the text got."""


class Range(Message):
    """From where to where a slider goes, raw units."""

    low: FiniteFloat
    high: FiniteFloat


class Row(Message):
    """One intervention of the stack. What is null is not measured yet, or has no meaning here."""

    key: Key
    address: str
    """Without positions."""
    op: str
    """"set", "add", "scale", "ablate"; another word for what this view shows but cannot edit."""
    label: str
    """All of it in words, for ARIA and for rows that cannot be edited."""
    value: FiniteFloat | None
    """Raw units; null for `ablate` and what has no one number."""
    how: str | None
    positions: str
    muted: bool
    massive: bool
    """Whether the neuron is behind the massive-activation mask (wrecks everything when touched)."""
    editable: bool
    """False: it can be muted, moved, removed, and that is all."""
    range: Range | None
    sd: FiniteFloat | None
    """Over the reference texts."""
    mean: FiniteFloat | None
    peak: FiniteFloat | None
    """The largest absolute value on the prompt (without a beginning-of-sequence token)."""
    observed: FiniteFloat | None
    """The value on the prompt, baseline, at the first position that the row touches."""


class Metric(Message):
    """What the stack's effect is measured on: of tokens, or KL, loss, a function of the user's."""

    label: str
    target: TokenName
    """What it is about; of a metric without tokens the next token that is likeliest without
    interventions."""
    against: TokenName | None = None
    """The second token of a logit difference."""


class Reference(Message):
    """The texts that means and standard deviations are taken over."""

    ready: bool


class State(Message):
    """Everything that is declared: the prompt, the stack, the metric. Never the fruit of a run."""

    model: str
    device: str
    dtype: str
    tokens: list[PromptToken]
    prompt: str | None
    """The text; null when the session was given token ids."""
    max_tokens: int
    rows: list[Row]
    selected: Key | None
    metric: Metric | None
    """Null until the first run has said which token is on top."""
    directions: list[str]
    """Addresses of the session's named directions, ready for `add`."""
    can_undo: bool
    can_redo: bool
    notes: list[str]
    """What a reader must know: the massive-activation mask, a short cut that does not hold."""
    reference: Reference


class Share(Message):
    """A next token's probability before and after the stack."""

    id: int
    text: str
    before: FiniteFloat
    after: FiniteFloat


class BeforeAfter(Message):
    """One number on the baseline and under the stack."""

    before: FiniteFloat
    after: FiniteFloat


class Work(Message):
    """What a run really recomputed."""

    blocks: int
    positions: int
    seconds: FiniteFloat
    way: str


class Result(Message):
    """What the model does under the stack at one revision."""

    top: list[Share]
    """Both sides' most probable next tokens, by the larger of the two probabilities."""
    metric: BeforeAfter | None
    """In its unit; null for an encoder, which predicts no next token (then `top` is empty)."""
    moved: Array
    """float32 [positions]: how far the prediction there moved."""
    moved_as: Literal["kl", "cosine"] = "kl"
    """KL(before || after) in nats; of an encoder 1 - cosine of the last layer's output."""
    work: Work


class Control(Message):
    """What the same does at random: to neurons or heads of the same layer, or along directions."""

    median: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    seeds: int
    of: Literal["neurons", "directions", "heads"] = "neurons"


class Effect(Message):
    """What one row does to the metric, beside the random control (null: none can be drawn)."""

    key: Key
    effect: FiniteFloat
    """The metric with the whole stack minus the metric without this row, in its unit."""
    control: Control | None


# --- bodies of replies ---------------------------------------------------------------------------


class AddBody(Message):
    """Answers `add`."""

    of: Literal["add"] = "add"
    key: Key
    existed: bool
    """The address had this row already; nothing was added."""


class CompleteBody(Message):
    """Answers `complete`."""

    of: Literal["complete"] = "complete"
    items: list[str]
    labels: list[str] | None = None
    """What each is in words, such as the name of a class, "" for none; null where nothing is."""


class TokensBody(Message):
    """Answers `tokens`."""

    of: Literal["tokens"] = "tokens"
    items: list[TokenName]


class CodeBody(Message):
    """Answers `code`."""

    of: Literal["code"] = "code"
    text: str


# --- down: what there is now ---------------------------------------------------------------------


class StateUpdate(Message):
    """After every change, whoever made it."""

    kind: Literal["state"] = "state"
    revision: int
    state: State


class ResultUpdate(Message):
    """A run is done. One of an older revision than the one shown is dropped."""

    kind: Literal["result"] = "result"
    revision: int
    result: Result


class Progress(Message):
    """Long work goes on."""

    kind: Literal["progress"] = "progress"
    job: Job
    key: Key | None = None
    done: int
    total: int


class EffectsUpdate(Message):
    """The effect of every row that is not muted, beside its control."""

    kind: Literal["effects"] = "effects"
    revision: int
    rows: list[Effect]


class Status(Message):
    """What Python is busy with. An `error` is about the newest run; the last picture stays."""

    kind: Literal["status"] = "status"
    busy: bool
    what: str
    error: str | None = None
    revision: int
    """With an error: the revision whose run failed; no result of it will come."""
