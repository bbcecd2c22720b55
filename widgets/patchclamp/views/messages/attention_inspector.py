"""The messages that only AttentionInspector knows: patterns in tiles, scores of heads, knock-outs.

A pattern travels as tiles of `TILE` x `TILE` cells, one byte a cell, row by row. In a causal model
the tiles above the diagonal do not exist, and a tile on the diagonal holds its lower triangle only,
row after row (`n (n + 1) / 2` bytes). What a byte means, its *coding*:

- "share", for weights from 0 to 1: 0 is less than 1e-6, 255 is not a number, and c from 1 to 254
  is 1e-6 ** (1 - (c - 1) / 253).
- "signed", for differences: 128 is less than 1e-4 of the tile's `peak`, 255 is not a number (no
  partner in the other prompt), and 128 +- k, k from 1 to 126, is +- peak * 1e-4 ** (1 - k / 126).

Weights are all that a side has to send: a value-weighted pattern is the weights times a number for
each source, and the contribution to a logit is the weights times a number for each source and one
for each destination (`HeadBody`). A difference is the exception and is sent in the mode looked at.
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from .shared import Effect, PromptToken, Result, State
from .wire import MAX_MESSAGE, MAX_SAFE_INTEGER, Array, Key, Message, Up

TILE = 128
"""Rows and columns of a tile."""

Look = Literal["now", "before", "difference", "second", "second-difference"]
"""Which pattern: under the stack, without it, now - before, the second prompt's, now - second's."""
Mode = Literal["weight", "value", "contribution"]
Coding = Literal["share", "signed"]
KnockoutHow = Literal["renormalise", "zero", "contrast"]
Score = Literal[
    "previous",
    "duplicate",
    "induction",
    "current",
    "first",
    "entropy",
    "distance",
    "random_induction",
    "effect",
]

Index = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Span = Annotated[list[Index], Field(min_length=2, max_length=2)]
"""From the first to before the second."""


# --- up: what a person did -----------------------------------------------------------------------


class Inspect(Up):
    """Look at something else; what is absent stays. The reply has no body; `attention` follows."""

    kind: Literal["inspect"]
    head: Span | None = None
    """Lock this head: its layer and its number."""
    look: Look | None = None
    mode: Mode | None = None


class Head(Up):
    """What a head's picture needs besides its tiles. The reply's body is a `HeadBody`."""

    kind: Literal["head"]
    layer: Index
    head: Index
    look: Look = "now"


class Tiles(Up):
    """Tiles of a head's pattern. The reply's body is a `TilesBody`."""

    kind: Literal["tiles"]
    layer: Index
    head: Index
    look: Look = "now"
    mode: Mode = "weight"
    """For the two differences; the other looks send weights whatever it says."""
    tiles: Annotated[list[Span], Field(min_length=1, max_length=64)]
    """Row and column of each, counted in tiles."""


class Cell(Up):
    """One cell, exactly. The reply's body is a `CellBody`."""

    kind: Literal["cell"]
    layer: Index
    head: Index
    look: Look = "now"
    destination: Index
    source: Index


class Assess(Up):
    """Measure a score that costs runs of its own; fills in by `ScoresUpdate`s."""

    kind: Literal["assess"]
    score: Literal["effect", "random_induction"]


class Compose(Up):
    """Composition of a head with all others. The reply's body is a `ComposeBody`."""

    kind: Literal["compose"]
    layer: Index
    head: Index


class Knock(Up):
    """Knock out cells of heads' patterns; just the same again takes the knock-out back.

    The reply's body is a `KnockBody`.
    """

    kind: Literal["knock"]
    layers: Span
    heads: Annotated[list[Index], Field(min_length=1, max_length=512)] | None = None
    """Which heads of these layers; null for all."""
    destinations: Span | None = None
    """Null for all."""
    sources: Span | None = None
    how: KnockoutHow = "renormalise"


class Second(Up):
    """Look at a second prompt beside the first (the session's contrast); null takes it away."""

    kind: Literal["second"]
    text: Annotated[str, Field(max_length=MAX_MESSAGE)] | None


class Align(Up):
    """Say which token of the second prompt stands for which of the first."""

    kind: Literal["align"]
    by: Literal["position", "tokens"] | None = None
    """Anew, by position or by the longest common run of tokens."""
    pair: Annotated[list[Index | None], Field(min_length=2, max_length=2)] | None = None
    """One position of the prompt and its partner in the second one, or null for none."""


# --- parts of what comes down --------------------------------------------------------------------


class KnockedOut(Message):
    """Cells that an intervention of the stack knocks out, ready to be outlined."""

    key: Key
    layers: list[int]
    """From the first to before the second."""
    heads: list[int] | None
    destinations: list[int] | None
    sources: list[int] | None
    how: str
    muted: bool


class SecondPrompt(Message):
    """The second prompt and its alignment."""

    text: str | None
    """Null when it was given as token ids."""
    tokens: list[PromptToken]
    partners: list[int | None]
    """For each position of the prompt, its partner in the second one."""


class Stamps(Message):
    """A name for the patterns of each side: tiles of another stamp are of patterns that were."""

    now: str
    before: str
    second: str | None


class Refusals(Message):
    """Why something cannot be had of this model, in a sentence; null where it can."""

    value: str | None
    contribution: str | None
    knockout: str | None
    prediction: str | None
    """An encoder predicts no next token."""


class AttentionState(Message):
    """What is looked at. Beside it, `State` has the prompt, the stack and the metric."""

    layers: int
    heads: int
    causal: bool
    head: list[int] | None
    """The locked head: its layer and its number."""
    look: Look
    mode: Mode
    stamps: Stamps
    acting: bool
    """Whether the stack does anything, so that now and before can differ."""
    knocked_out: list[KnockedOut]
    second: SecondPrompt | None
    refusals: Refusals


class GridPart(Message):
    """Small patterns of some layers, for the grid of all heads: weights, whatever the mode."""

    look: Look
    stamp: str
    """As in `TilesBody`."""
    layers: list[int]
    thumbs: Array
    """uint8 [layers, heads, n, n]: whole squares, no packing; in the look's coding."""
    block: int
    """A pixel is the largest of `block` x `block` cells (the one furthest from 0); 1 is exact."""
    coding: Coding
    peaks: Array
    """float32 [layers, heads]: the peak of each thumb's coding; 1 for "share"."""


class Scores(Message):
    """Scores of all heads; NaN where a score is not measured or not defined."""

    names: list[Score]
    values: Array
    """float32 [names, layers, heads]"""
    stamp: str
    """Of which patterns; `effect` and `random_induction` say of themselves when they are stale."""
    stale: list[Score]
    """Measured under another stack, prompt or metric than the present."""


# --- bodies of replies ---------------------------------------------------------------------------


class Peaks(Message):
    """The largest absolute value of a head's cells in each mode; null where the mode is refused."""

    weight: FiniteFloat
    value: FiniteFloat | None
    contribution: FiniteFloat | None


class HeadBody(Message):
    """Answers `head`. For the differences the three arrays are empty: their tiles hold all."""

    of: Literal["head"] = "head"
    layer: int
    head: int
    look: Look
    stamp: str
    peaks: Peaks
    value: Array
    """float32 [sources]: a weight times this is its value-weighted cell."""
    contribution: Array
    """float32 [sources]: a weight times this times `scale` of its row is its contribution."""
    scale: Array
    """float32 [destinations]"""
    direct: FiniteFloat | None
    """The head's direct effect on the target's logit at the last position."""


class TilesBody(Message):
    """Answers `tiles`."""

    of: Literal["tiles"] = "tiles"
    layer: int
    head: int
    look: Look
    mode: Mode
    stamp: str
    """The side's stamp; of a difference both, "now-before" or "now-second"."""
    coding: Coding
    places: list[list[int]]
    """Row and column of each tile, counted in tiles."""
    peaks: list[FiniteFloat]
    """The peak of each tile's coding; 1 for "share"."""
    cells: Array
    """uint8: one tile after the other."""


class CellBody(Message):
    """Answers `cell`: float32 values, exactly; null where there is none or it is not a number."""

    of: Literal["cell"] = "cell"
    layer: int
    head: int
    look: Look
    stamp: str
    destination: int
    source: int
    weight: FiniteFloat | None
    value: FiniteFloat | None
    contribution: FiniteFloat | None


class ComposeBody(Message):
    """Answers `compose`: scores minus those of random matrices of the same shapes.

    A row of each array is a layer: of heads in earlier layers the locked head reads (through its
    Q, K or V), of heads in later layers it is read (through theirs). NaN in its own layer.
    """

    of: Literal["compose"] = "compose"
    layer: int
    head: int
    q: Array
    """float32 [layers, heads]"""
    k: Array
    v: Array
    baseline: FiniteFloat
    """The random matrices' mean, which was subtracted."""


class KnockBody(Message):
    """Answers `knock`."""

    of: Literal["knock"] = "knock"
    key: Key | None
    """Of the new row; null when a knock-out was taken back."""


class InspectorBody(Message):
    """Answers `hello` of an AttentionInspector: all there is but the tiles."""

    of: Literal["inspector"] = "inspector"
    revision: int
    state: State
    result_revision: int | None
    result: Result | None
    effects_revision: int | None
    effects: list[Effect]
    attention: AttentionState
    grid: list[GridPart]
    scores: Scores | None
    head: HeadBody | None
    """The locked head's, for a saved page."""
    tiles: list[TilesBody]
    """The locked head's tiles, as many as fit into a saved page."""


# --- down: what there is now ---------------------------------------------------------------------


class AttentionUpdate(Message):
    """After every change of what is looked at, and of the session."""

    kind: Literal["attention"] = "attention"
    revision: int
    attention: AttentionState


class GridUpdate(Message):
    """Some layers of the grid are there."""

    kind: Literal["grid"] = "grid"
    part: GridPart


class ScoresUpdate(Message):
    """Scores, filling in; each replaces the one before."""

    kind: Literal["scores"] = "scores"
    scores: Scores
