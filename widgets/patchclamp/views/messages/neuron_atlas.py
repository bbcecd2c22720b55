"""The messages that only NeuronAtlas knows: a table of all neurons, and one neuron's card.

The table is sifted and sorted in Python; the page asks for the rows that it shows. Every answer
about rows carries the number of the sifting that it is of (`table`), so that rows of an older one
are not shown in a newer.
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from .shared import TokenName
from .wire import MAX_SAFE_INTEGER, Address, Array, Message, Up

AtlasMatrix = Literal["down", "up", "gate"]
"""What a neuron writes, or one of the two things it reads with."""
AtlasColumn = Literal["address", "score", "z", "firing", "mean", "sd", "peak"]
"""What the table is sorted by: the place in the model; how special the decoded matrix is; how far
the token that is searched for stands out of it; how often the neuron fires; its mean, standard
deviation and largest absolute value on the corpus."""

Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]


# --- up: what a person did -----------------------------------------------------------------------


class Sift(Up):
    """Show these neurons only, in this order. What is absent (or null) is not asked for."""

    kind: Literal["sift"]
    token: Annotated[str, Field(max_length=100)] = ""
    """Text of a token that stands out of the matrix, whatever its case and spaces; "" for any."""
    matrix: AtlasMatrix = "down"
    layers: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    """First and last layer."""
    least: FiniteFloat | None = None
    """Only neurons that are at least so special."""
    brushed: bool = True
    """Whether what is brushed in the scatter plot counts; false takes the brush away."""
    order: AtlasColumn = "score"
    falling: bool = True


class Page(Up):
    """Some rows of the table. The reply's body is a `PageBody`."""

    kind: Literal["page"]
    start: Count
    count: Annotated[int, Field(ge=1, le=400)]


class Meet(Up):
    """Show a neuron's card, or none; the plot marks it. The reply's body is a `CardBody`."""

    kind: Literal["meet"]
    address: Address | None


class Shade(Up):
    """What the neuron does at every token around an example. The reply's body is a `ShadeBody`."""

    kind: Literal["shade"]
    address: Address
    place: Count
    """The example's."""


class Weigh(Up):
    """Clamp a neuron and see what it does to its token. The reply's body is a `WeighBody`."""

    kind: Literal["weigh"]
    address: Address
    token: Count


class Hold(Up):
    """Put the neuron into the session's stack and show a NeuronClamp of it under the card."""

    kind: Literal["hold"]
    address: Address


class Build(Up):
    """Build the atlas, or go on with one that was stopped."""

    kind: Literal["build"]


# --- what answers carry ---------------------------------------------------------------------------


class AtlasRow(Message):
    """A neuron of the table. What the atlas does not hold is null."""

    address: str
    score: FiniteFloat | None
    """How special the matrix's tokens are: standard deviations above permuted weights."""
    token: str
    """The token that stands out most of the matrix; "" where none was decoded."""
    sign: Literal[-1, 1]
    """Whether it stands out upwards or downwards."""
    z: FiniteFloat | None
    """How far the token that is searched for stands out, in standard deviations."""
    firing: FiniteFloat | None
    """Share of the corpus's tokens at which it fires."""
    mean: FiniteFloat | None
    sd: FiniteFloat | None
    peak: FiniteFloat | None
    massive: bool
    """Whether it is one of the handful that carry the model whatever it reads."""


class PageBody(Message):
    """Answers `page`."""

    of: Literal["page"] = "page"
    table: int
    start: int
    rows: list[AtlasRow]
    """Fewer than were asked for at the table's end."""


class DecodedToken(Message):
    """A token that stands out of a neuron's weights."""

    id: int
    text: str
    z: FiniteFloat


class DecodedSide(Message):
    """One matrix of a neuron, decoded in one direction, the foremost token first."""

    matrix: AtlasMatrix
    sign: Literal[-1, 1]
    tokens: list[DecodedToken]


class AtlasExample(Message):
    """A token of the corpus and what the neuron did there."""

    group: str
    """"top", or which part of the distribution it was drawn from."""
    value: FiniteFloat
    place: int
    before: str
    token: str
    after: str


class Histogram(Message):
    """A neuron's values on the corpus."""

    edges: Array
    """float32 [bins + 1], raw units."""
    counts: Array
    """float32 [bins]"""
    quantiles: list[FiniteFloat]
    """At 1, 10, 50, 90 and 99 %."""
    error: FiniteFloat
    """Bound of their relative error."""


class Neighbour(Message):
    """A neuron that is like this one, or a site that it feeds."""

    address: str
    value: FiniteFloat
    """Cosine, or how strongly it is read."""
    token: str
    """Its own foremost token; may be empty."""


class Card(Message):
    """All about one neuron."""

    row: AtlasRow
    decoded: list[DecodedSide]
    histogram: Histogram | None
    examples: list[AtlasExample]
    writes_like: list[Neighbour]
    """Neurons whose output vectors are most alike (cosine)."""
    fires_like: list[Neighbour]
    """Neurons whose values on the sampled tokens are most alike (correlation)."""
    feeds: list[Neighbour]
    """Later neurons and heads that read most of what it writes, sign included."""
    labels: list[Neighbour]
    """Labels of the corpus it tells from the others best, by average precision; `address` is the
    label."""
    note: str


class CardBody(Message):
    """Answers `meet`; null when no neuron is shown."""

    of: Literal["card"] = "card"
    card: Card | None


class ShadeBody(Message):
    """Answers `shade`."""

    of: Literal["shade"] = "shade"
    address: str
    place: int
    tokens: list[TokenName]
    values: Array
    """float32 [tokens], raw units."""
    at: int
    """Which of the tokens is the example's."""


class Weighed(Message):
    """What clamping one neuron does to a token's log-probability, nats, mean over the prompts."""

    address: str
    up: FiniteFloat
    """Clamped so that it writes the token more."""
    down: FiniteFloat
    """Clamped the other way."""


class WeighBody(Message):
    """Answers `weigh`."""

    of: Literal["weigh"] = "weigh"
    token: str
    neuron: Weighed
    controls: list[Weighed]
    """Random neurons of the layer, clamped alike."""
    value: FiniteFloat
    """What was clamped to, in raw units; the other way is its negative."""
    prompts: int
    note: str


# --- down: what there is now ---------------------------------------------------------------------


class AtlasSummary(Message):
    """What the atlas is of."""

    folder: str
    model: str
    neurons: int
    layers: int
    corpus: str
    """Its name; "" where no corpus was read."""
    tokens: int
    texts: int
    split: int
    """How many texts were longer than a window, and cut."""
    matrices: list[AtlasMatrix]
    labels: list[str]


class Sifted(Message):
    """How the table is sifted and sorted now."""

    token: str
    matrix: AtlasMatrix
    layers: list[int] | None
    least: FiniteFloat | None
    brush: list[FiniteFloat] | None
    """Least and largest firing rate, least and largest score, where the scatter plot is brushed."""
    order: AtlasColumn
    falling: bool


class AtlasState(Message):
    """Everything that is declared."""

    model: str
    device: str
    dtype: str
    atlas: AtlasSummary | None
    """Null until one is built or opened."""
    plan: str
    """What `build` would do, and about how long it takes."""
    sifted: Sifted
    table: int
    """The number of this sifting; `page` answers carry it."""
    count: int
    """How many rows it has."""
    selected: str | None
    """The address whose card is shown."""
    held: bool
    """Whether a NeuronClamp is shown under the card."""
    prompt: str | None
    """The session's text."""
    can_undo: bool
    can_redo: bool
    notes: list[str]


class AtlasBody(Message):
    """Answers `hello` of a NeuronAtlas: all there is."""

    of: Literal["atlas"] = "atlas"
    revision: int
    state: AtlasState
    start: int
    """Of `rows`, which the page need not ask for."""
    rows: list[AtlasRow]
    card: Card | None
    weighed: WeighBody | None
    scatter: Array | None
    """In a saved page only: uint8 [bytes], the scatter plot as a PNG file."""


class AtlasUpdate(Message):
    """After every change of what is declared."""

    kind: Literal["atlas"] = "atlas"
    revision: int
    state: AtlasState


class CardUpdate(Message):
    """After a card was shown, put away, or weighed from Python."""

    kind: Literal["card"] = "card"
    card: Card | None
    weighed: WeighBody | None
