"""The messages that only NeuronClamp knows: curves, rankings, continuations."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from .shared import Effect, Result, State
from .wire import MAX_SAFE_INTEGER, Address, Array, Key, Message, Up

Measure = Literal["activation", "direct", "gradient"]
Side = Literal["baseline", "clamped"]


class Rank(Up):
    """List the neurons that matter most on the prompt. The reply's body is a `RankBody`."""

    kind: Literal["rank"]
    by: Measure
    position: Annotated[int, Field(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)] | None = None
    """One position of the prompt, negative ones from its end; null is the last token."""
    count: Annotated[int, Field(ge=1, le=200)] = 20
    massive: bool = False
    """Whether neurons behind the massive-activation mask are listed too."""


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


class DoseResponse(Message):
    """A row's curve; as many points as are measured so far, by growing value."""

    values: Array
    """float32 [points], raw units."""
    logprob: Array
    """float32 [points]: the target's log-probability at the last position, nats."""
    kl: Array
    """float32 [points]: KL(baseline || clamped) at the last position, nats."""


class Ranked(Message):
    """A neuron of a ranking."""

    address: Address
    value: FiniteFloat
    massive: bool


class RankBody(Message):
    """Answers `rank`, best first."""

    of: Literal["rank"] = "rank"
    by: Measure
    items: list[Ranked]


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


class CurveUpdate(Message):
    """A curve, filling in; each replaces the one before."""

    kind: Literal["curve"] = "curve"
    key: Key
    revision: int
    curve: DoseResponse


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
