"""The messages between a view in the page and its Python half.

Intent goes up, state comes down. Every gesture is one small `Up` message with an id; Python
validates it here, answers it with one `Reply` under the same id, and says what changed with the
other `Down` messages. The TypeScript types are generated from these classes (`schema.py`), so the
two sides cannot drift. Nothing here needs torch or numpy.

Numbers on the wire are raw values: units (standard deviations, multiples of the peak) are the
page's matter. `parse_up` is the only door for what comes from the page.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from patchclamp.errors import PatchclampError

MAX_MESSAGE = 65_536
"""How many characters of JSON, about, one message from the page may hold."""

MAX_DEPTH = 16
MAX_SAFE_INTEGER = 2**53 - 1  # what a number in JavaScript holds exactly


class MessageError(PatchclampError):
    """A message from the page that cannot be read; nothing was changed by it.

    Attributes:
        id: the message's own id where it had a usable one, so that the answer finds its gesture.
        field: the part of the message that was wrong, None when it is the whole.
    """

    def __init__(self, sentence: str, *, id: int | None = None, field: str | None = None) -> None:  # noqa: A002
        super().__init__(sentence)
        self.id = id
        self.field = field


class Message(BaseModel):
    """One value on the wire: immutable, with exactly these fields."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )


Id = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Key = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Address = Annotated[str, Field(min_length=1, max_length=400)]
Positions = Annotated[str, Field(max_length=400)]
Operation = Literal["set", "add", "scale", "ablate"]
How = Literal["mean", "zero", "resample"]
Measure = Literal["activation", "direct", "gradient"]
Side = Literal["baseline", "clamped"]
Job = Literal["curve", "control", "generate", "rank", "reference"]


class PackedArray(Message):
    """Where an array lies: binary buffer number `buffer` of the same message, C order."""

    buffer: int
    dtype: Literal["float32", "float16", "float64", "uint8", "int32", "bool"]
    shape: list[int]


class _AnyArray:
    """Marks a field that holds an array in Python and travels as a `PackedArray`."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def check(value: Any) -> Any:
            if hasattr(value, "__array__") or isinstance(value, PackedArray):
                return value
            if isinstance(value, Mapping):
                return PackedArray.model_validate(value)
            raise ValueError(f"should be an array, not {type(value).__name__}")

        return core_schema.no_info_plain_validator_function(check)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(PackedArray.__pydantic_core_schema__)


Array = Annotated[Any, _AnyArray]


# --- up: what a person did -----------------------------------------------------------------------


class Up(Message):
    """A gesture. `id` grows with each message of one view; the reply carries it back."""

    id: Id


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
    """For `ablate` only."""
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


class Target(Up):
    """Let the metric be the log-probability of this token."""

    kind: Literal["target"]
    token: Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]


class Rank(Up):
    """List the neurons that matter most on the prompt. The reply's body is a `RankBody`."""

    kind: Literal["rank"]
    by: Measure
    position: Annotated[int, Field(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)] | None = None
    """One position of the prompt, negative ones from its end; null is the last token."""
    count: Annotated[int, Field(ge=1, le=200)] = 20
    massive: bool = False
    """Whether neurons behind the massive-activation mask are listed too."""


class Complete(Up):
    """What could stand where this is being typed. The reply's body is a `CompleteBody`."""

    kind: Literal["complete"]
    prefix: Annotated[str, Field(max_length=400)]


class Curve(Up):
    """Measure the row's dose-response curve; it fills in by `CurveUpdate`s."""

    kind: Literal["curve"]
    key: Key


class Generate(Up):
    """Continue the prompt, baseline and clamped, with one seed; streams `Generated`s."""

    kind: Literal["generate"]
    count: Annotated[int, Field(ge=1, le=2000)] = 40
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    temperature: Annotated[FiniteFloat, Field(ge=0, le=100)] = 0.0
    """0 is greedy."""


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


AnyUp = Annotated[
    Hello
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
    | Tokens,
    Field(discriminator="kind"),
]

UP: TypeAdapter[AnyUp] = TypeAdapter(AnyUp)


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
    """What the stack's effect is measured on."""

    label: str
    target: TokenName
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
    metric: BeforeAfter
    """Nats."""
    moved: Array
    """float32 [positions]: KL(before || after) of the prediction there, in nats."""
    work: Work


class DoseResponse(Message):
    """A row's curve; as many points as are measured so far, by growing value."""

    values: Array
    """float32 [points], raw units."""
    logprob: Array
    """float32 [points]: the target's log-probability at the last position, nats."""
    kl: Array
    """float32 [points]: KL(baseline || clamped) at the last position, nats."""


class Control(Message):
    """What the same change does to random neurons of the same layer, or random directions there."""

    median: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    seeds: int
    of: Literal["neurons", "directions"] = "neurons"


class Effect(Message):
    """What one row does to the metric, beside the random control (null: none can be drawn)."""

    key: Key
    effect: FiniteFloat
    """The metric with the whole stack minus the metric without this row, nats."""
    control: Control | None


class Ranked(Message):
    """A neuron of a ranking."""

    address: Address
    value: FiniteFloat
    massive: bool


# --- bodies of replies ---------------------------------------------------------------------------


class AddBody(Message):
    """Answers `add`."""

    of: Literal["add"] = "add"
    key: Key
    existed: bool
    """The address had this row already; nothing was added."""


class RankBody(Message):
    """Answers `rank`, best first."""

    of: Literal["rank"] = "rank"
    by: Measure
    items: list[Ranked]


class CompleteBody(Message):
    """Answers `complete`."""

    of: Literal["complete"] = "complete"
    items: list[str]


class TokensBody(Message):
    """Answers `tokens`."""

    of: Literal["tokens"] = "tokens"
    items: list[TokenName]


class CodeBody(Message):
    """Answers `code`."""

    of: Literal["code"] = "code"
    text: str


class CurveEntry(Message):
    """A curve and the revision that it was measured at."""

    key: Key
    revision: int
    curve: DoseResponse


class GeneratedText(Message):
    """A continuation so far."""

    side: Side
    text: str
    tokens: int
    done: bool


class HelloBody(Message):
    """Answers `hello`: all there is."""

    of: Literal["hello"] = "hello"
    revision: int
    """The session's, which `state` is of."""
    state: State
    result_revision: int | None
    """The revision that `result` is of; older than `revision` while a run is on its way."""
    result: Result | None
    curves: list[CurveEntry]
    effects_revision: int | None
    effects: list[Effect]
    generated: list[GeneratedText]


Body = Annotated[
    HelloBody | AddBody | RankBody | CompleteBody | TokensBody | CodeBody, Field(discriminator="of")
]


# --- down: what there is now ---------------------------------------------------------------------


class ReplyOk(Message):
    """The gesture was taken; results up to `revision` are still to come."""

    kind: Literal["reply"] = "reply"
    id: int
    ok: Literal[True] = True
    revision: int
    body: Body | None = None


class ReplyError(Message):
    """The gesture was refused and changed nothing."""

    kind: Literal["reply"] = "reply"
    id: int | None
    """Null when the message had no readable id."""
    ok: Literal[False] = False
    revision: int
    error: str
    """A sentence for a person."""
    field: str | None = None
    """Which part of the message it is about, such as "address"."""


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


class CurveUpdate(Message):
    """A curve, filling in; each replaces the one before."""

    kind: Literal["curve"] = "curve"
    key: Key
    revision: int
    curve: DoseResponse


class EffectsUpdate(Message):
    """The effect of every row that is not muted, beside its control."""

    kind: Literal["effects"] = "effects"
    revision: int
    rows: list[Effect]


class Generated(Message):
    """One more token of one side, or a few that came at once; `index` 0 starts it afresh."""

    kind: Literal["generated"] = "generated"
    side: Side
    text: str
    """What it adds; may be empty while a character is not whole, and in a closing message."""
    token: int
    """The last of them; -1 in the message that closes a stopped side."""
    index: int
    done: bool


class Status(Message):
    """What Python is busy with. An `error` is about the newest run; the last picture stays."""

    kind: Literal["status"] = "status"
    busy: bool
    what: str
    error: str | None = None
    revision: int
    """With an error: the revision whose run failed; no result of it will come."""


AnyDown = (
    ReplyOk
    | ReplyError
    | StateUpdate
    | ResultUpdate
    | Progress
    | CurveUpdate
    | EffectsUpdate
    | Generated
    | Status
)


class Snapshot(Message):
    """The last picture at rest, for saved pages: what `hello` answers, with its buffers as text.

    Its `PackedArray`s point into `buffers`, each of which is base64. `cut` names what was left out
    to stay inside the size limit. A page made by `to_html` has this trait alone;
    where there is a kernel, there is a trait `live`, which is true.
    """

    hello: HelloBody
    buffers: list[str]
    cut: list[str]


# --- reading what comes from the page ------------------------------------------------------------


def parse_up(content: object, buffers: Sequence[object] = ()) -> AnyUp:
    """Read a message from the page.

    Args:
        content: what the comm delivered, JSON decoded; may be anything.
        buffers: what came with it; no gesture has any.

    Raises:
        MessageError: with one readable sentence; its `id` is the message's own where it had one.
    """
    if not isinstance(content, Mapping):
        raise MessageError(
            f"A message from the view is an object with a kind and an id, not {_name(content)}."
        )
    given = content.get("id")
    known = type(given) is int and 0 <= given <= MAX_SAFE_INTEGER
    ident = given if known else None
    if weight(content) > MAX_MESSAGE:
        raise MessageError(
            f"The message is larger than the {MAX_MESSAGE // 1024} KB that a view may send; "
            "nothing was changed. A long prompt can be set from Python: session.input = text.",
            id=ident,
        )
    if buffers:
        raise MessageError("No message from a view carries binary data; this one did.", id=ident)
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        shown = repr(kind[:40]) if isinstance(kind, str) else _name(kind)
        raise MessageError(
            f"There is no message of kind {shown}; there are {', '.join(_KINDS)}.",
            id=ident,
            field="kind",
        )
    if kind == "edit" and "value" in content and content["value"] is None:
        raise MessageError(
            "The value is not a finite number; NaN and infinity cannot be set.",
            id=ident,
            field="value",
        )
    try:
        return UP.validate_python(dict(content))
    except ValidationError as error:
        raise _readable(kind, error, ident) from None


_KINDS: tuple[str, ...] = tuple(
    part["$ref"].rsplit("/", 1)[-1].lower() for part in UP.json_schema()["oneOf"]
)


def weight(content: object) -> int:
    """About how many characters of JSON this is; stops counting beyond `MAX_MESSAGE`.

    Looking stops early, so that 10 MB of junk cost no more than 64 KB of it. Deeper nesting than
    any message has counts as too large.
    """
    total = 0
    waiting: list[tuple[object, int]] = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return MAX_MESSAGE + 1
        if isinstance(value, str | bytes | bytearray):
            total += len(value) + 2
        elif isinstance(value, memoryview):
            total += value.nbytes
        elif isinstance(value, Mapping | list | tuple):
            total += 2 + len(value)
            if total + len(value) > MAX_MESSAGE:
                return MAX_MESSAGE + 1
            if isinstance(value, Mapping):
                waiting.extend((part, depth + 1) for pair in value.items() for part in pair)
            else:
                waiting.extend((part, depth + 1) for part in value)
        elif isinstance(value, int) and not isinstance(value, bool):
            total += 1 + value.bit_length() // 3
        else:
            total += 8
        if total > MAX_MESSAGE:
            return total
    return total


def _readable(kind: str, error: ValidationError, ident: int | None) -> MessageError:
    """The first thing that is wrong, as a sentence."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"] if part != kind]
    field = path[0][:40] if path else None
    where = f"In the message {kind!r}"
    given = first["input"]
    what = first["type"]
    if what == "extra_forbidden":
        allowed = ", ".join(name for name in _fields(kind))
        return MessageError(
            f"{where} there is no {field!r}; there are {allowed}.", id=ident, field=field
        )
    if what == "missing":
        return MessageError(f"{where}, {field!r} is missing.", id=ident, field=field)
    if isinstance(given, float) and not math.isfinite(given):
        return MessageError(
            f"The {field} is not a finite number; NaN and infinity cannot be set.",
            id=ident,
            field=field,
        )
    if what in {"string_too_long", "string_too_short"}:
        limit = first.get("ctx", {})
        length = len(given) if isinstance(given, str) else 0
        bound = limit.get("max_length") or limit.get("min_length")
        if not length:
            return MessageError(f"{where}, {field!r} is empty.", id=ident, field=field)
        least = "at least" if what == "string_too_short" else "at most"
        return MessageError(
            f"{where}, {field!r} may have {least} {bound} characters, not {length}.",
            id=ident,
            field=field,
        )
    said = first["msg"].removeprefix("Input ").rstrip(".")
    return MessageError(
        f"{where}, {field!r} {said[:1].lower()}{said[1:]}, not {_name(given)}.",
        id=ident,
        field=field,
    )


def _fields(kind: str) -> list[str]:
    for part in Up.__subclasses__():
        if part.__name__.lower() == kind:
            return list(part.model_fields)
    return []


def _name(value: object) -> str:
    """A value in a sentence: itself when it is short, otherwise what it is."""
    match value:
        case None | True | False:
            said = {None: "null", True: "true", False: "false"}[value]
        case int() if value.bit_length() > 64:  # printing it could take long, or be refused
            said = "a very large number"
        case int() | float():
            said = repr(value)
        case str():
            said = repr(value if len(value) <= 40 else value[:40] + "…")
        case list() | tuple():
            said = "a list"
        case _:
            said = "an object"
    return said
