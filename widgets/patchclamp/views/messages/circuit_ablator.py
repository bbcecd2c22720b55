"""The messages that only CircuitAblator knows: prompt pairs, effects of components, circuits.

Effects are of the metric, averaged over the prompt pairs: in nats for log-probabilities, KL and
loss, in logits for a logit difference. An address names a component ("L5.H3", "L5.mlp", "embed",
"logits") or an edge ("L3.H1->L7.H2:q"); with grouped-query attention a key/value head is named by
the first query head that uses it ("L7.H0:k").
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from .shared import Effect, Result, Share, State
from .wire import MAX_IMPORT, MAX_SAFE_INTEGER, Address, Array, Message, Up

Replacement = Literal["mean", "zero", "resample", "corrupt"]
"""What is put in the place of a component's output: its mean over the reference texts, nothing, its
value at a random reference position, or its value on the corrupt prompt."""
Direction = Literal["denoise", "noise"]
"""Clean values into the corrupt run, or corrupt values into the clean run."""
Over = Literal["resid_pre", "attn", "mlp", "head"]
Finder = Literal["attribution", "eap", "eap-ig", "acdc"]
MetricKind = Literal["logit_difference", "log_prob", "kl", "loss", "custom"]

Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Addresses = Annotated[list[Address], Field(max_length=1024)]
Named = Annotated[str, Field(max_length=60)]


# --- up: what a person did -----------------------------------------------------------------------


class Objective(Up):
    """Measure something else. Absent tokens stay what they are where the metric has any."""

    kind: Literal["objective"]
    metric: Literal["logit_difference", "log_prob", "kl", "loss"]
    token: Count | None = None
    against: Count | None = None


class Pairs(Up):
    """Work on a set of prompt pairs that comes with the package; null: on the prompt alone."""

    kind: Literal["pairs"]
    name: Named | None
    count: Annotated[int, Field(ge=1, le=1000)] = 16
    seed: Count = 0


class Pair(Up):
    """Show another pair of the set: it becomes the session's prompt and contrast."""

    kind: Literal["pair"]
    index: Count


class Survey(Up):
    """Measure what ablating each component does; estimates first, exact values fill in."""

    kind: Literal["survey"]
    how: Replacement = "mean"


class Ablations(Up):
    """Ablate components, or take their ablations back where every one of them is ablated.

    `solo` ablates just these, and mutes every other row of the stack; again gives them back.
    """

    kind: Literal["ablations"]
    addresses: Annotated[list[Address], Field(min_length=1, max_length=1024)]
    how: Replacement = "mean"
    solo: bool = False


class Drill(Up):
    """Look into a component. The reply's body is a `DrillBody`."""

    kind: Literal["drill"]
    address: Address
    how: Replacement = "mean"


class Patching(Up):
    """Patch activations between the clean and the corrupt run; fills in by `PatchingUpdate`s."""

    kind: Literal["patching"]
    direction: Direction = "denoise"
    over: Over = "resid_pre"


class Find(Up):
    """Score all edges (or components); a `GraphUpdate` follows."""

    kind: Literal["find"]
    method: Finder = "eap-ig"
    of: Literal["edges", "nodes"] = "edges"
    how: Replacement = "corrupt"
    steps: Annotated[int, Field(ge=1, le=100)] = 5
    """Of the integrated gradients."""
    threshold: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """Of ACDC: an edge goes whose removal changes the metric by less; null takes a twentieth of
    what separates clean from corrupt."""
    runs: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    """Of ACDC: the most edges that are tried; what is not tried stays in."""


class Size(Up):
    """Let the circuit be so many of the strongest edges; a `CheckUpdate` follows."""

    kind: Literal["size"]
    count: Count
    final: bool = True


class Switch(Up):
    """Take nodes or edges out of the circuit, or put them back in; a `CheckUpdate` follows."""

    kind: Literal["switch"]
    addresses: Annotated[list[Address], Field(min_length=1, max_length=1024)]


class Annotate(Up):
    """Pin, name or group nodes; what is absent stays. An empty name or group takes it away."""

    kind: Literal["annotate"]
    addresses: Annotated[list[Address], Field(min_length=1, max_length=1024)]
    pinned: bool | None = None
    name: Named | None = None
    group: Named | None = None


class Edge(Up):
    """What one edge does, exactly. The reply's body is an `EdgeBody`."""

    kind: Literal["edge"]
    address: Address


class Check(Up):
    """Measure faithfulness against size, with random circuits; fills in by `FaithfulUpdate`s."""

    kind: Literal["check"]


class Interact(Up):
    """Ablate A, B, and both. The reply's body is an `InteractBody`."""

    kind: Literal["interact"]
    a: Annotated[list[Address], Field(min_length=1, max_length=1024)]
    b: Annotated[list[Address], Field(min_length=1, max_length=1024)]
    how: Replacement = "mean"


class Export(Up):
    """The circuit as a file. The reply's body is an `ExportBody`."""

    kind: Literal["export"]
    format: Literal["json", "code"] = "json"


class Import(Up):
    """Take a circuit from the text of a file that `export` wrote."""

    kind: Literal["import"]
    text: Annotated[str, Field(max_length=MAX_IMPORT)]


# --- parts of what comes down --------------------------------------------------------------------


class PromptPair(Message):
    """A pair of the set, as texts."""

    clean: str
    corrupt: str
    answer: str
    wrong: str


class PairSet(Message):
    """The set of prompt pairs that effects are averaged over."""

    name: str
    about: str
    seed: int
    count: int
    """How many pairs there are."""
    pairs: list[PromptPair]
    """The first hundred of them."""
    shown: int
    """Which pair is the session's prompt."""
    note: str
    """What was left out when it was made, or empty."""


class SetName(Message):
    """A prompt set that comes with the package."""

    name: str
    about: str


class CircuitRefusals(Message):
    """Why something cannot be had here, in a sentence; null where it can."""

    corrupt: str | None
    """No contrast prompt, or one of another length."""
    edges: str | None
    """A model whose residual stream is no plain sum."""
    prediction: str | None


class NodeNote(Message):
    """What somebody said of a node."""

    address: str
    pinned: bool
    name: str
    group: str


class Selection(Message):
    """Which edges are in the circuit: so many of the strongest, but for what was switched."""

    size: int
    """How many of the strongest."""
    edges: int
    """How many are in the circuit, after switching."""
    added: list[str]
    removed: list[str]
    """Nodes and edges that were switched in and out by hand."""
    inside: Array | None = None
    """uint8 [edges], as many as the graph has, in its order: 1 in the circuit, 2 taken out of it by
    hand, 0 not in it."""
    notes: list[NodeNote]


class HoldsSince(Message):
    """From which revision on what was measured still holds; what is of an earlier one is stale.

    A hand on the circuit makes no patching stale, and one on the stack no graph.
    """

    map: int
    patching: int
    graph: int
    """And the curve of faithfulness, which is of the graph."""
    checked: int


class CircuitState(Message):
    """What is declared. Beside it, `State` has the prompt, the stack and the metric."""

    layers: int
    heads: int
    kv_heads: int
    mlp: bool
    """Whether the blocks have MLPs: the map's last column."""
    metric_kind: MetricKind
    unit: str
    """Of effects: "nats" or "logits", or "" of a function of the user's."""
    sets: list[SetName]
    pairs: PairSet | None
    contrast: str | None
    """The corrupt prompt; null where there is none, or it was given as token ids."""
    ablated: list[str]
    """Heads and MLPs that the stack ablates, without those of muted rows."""
    selection: Selection | None
    holds_since: HoldsSince
    refusals: CircuitRefusals


class EffectMap(Message):
    """What ablating each component does to the metric: with it ablated minus without.

    Rows are layers, columns heads and then, where there are MLPs, the MLP.
    """

    revision: int
    how: Replacement
    baseline: FiniteFloat
    """The metric under the stack as it is, averaged over the pairs."""
    estimate: Array
    """float32 [layers, columns]: first order (attribution patching); NaN where there is none."""
    exact: Array
    """float32 [layers, columns]: NaN where it is not measured yet."""
    done: int
    total: int
    pairs: int
    note: str
    """How much it costs, or why there is no estimate; may be empty."""


class PatchingMap(Message):
    """Activation patching: rows are layers, columns positions, or heads."""

    revision: int
    direction: Direction
    over: Over
    columns: list[str]
    """The tokens of the prompt shown, or "H0", "H1", ..."""
    clean: FiniteFloat
    corrupt: FiniteFloat
    """The metric on either side, averaged over the pairs."""
    values: Array
    """float32 [layers, columns]: the metric after patching, NaN where it is not measured yet."""
    done: int
    total: int
    pairs: int
    note: str
    """How much it costs."""


class Graph(Message):
    """Scores of all edges: what replacing what an edge carries does to the metric, estimated.

    Only the strongest are here, strongest first; `total` says of how many.
    """

    revision: int
    method: Finder
    of: Literal["edges", "nodes"]
    how: Replacement
    nodes: list[str]
    """Addresses that `source` and `reader` point into; readers have a part, "L7.H2:q"."""
    source: Array
    """int32 [edges]"""
    reader: Array
    """int32 [edges]"""
    estimate: Array
    """float32 [edges]"""
    exact: Array
    """float32 [edges]: NaN where it was not measured."""
    total: int
    """How many edges the model has."""
    clean: FiniteFloat | None
    corrupt: FiniteFloat | None
    """The metric with nothing replaced, and with everything; null where a loaded circuit does not
    say."""
    sizes: Array
    """int32 [sizes]: circuit sizes from 1 to all, evenly on a logarithm."""
    thresholds: Array
    """float32 [sizes]: the least |score| of a circuit of that size."""
    note: str
    """What the reader must know: a budget that ran out, how many estimates the exact values
    contradict; may be empty."""


class Checked(Message):
    """The circuit by itself, and the model without it, exactly."""

    revision: int
    edges: int
    clean: FiniteFloat
    corrupt: FiniteFloat
    circuit: FiniteFloat
    """The metric with everything outside of the circuit replaced."""
    without: FiniteFloat | None
    """The metric with the circuit replaced and everything else as it is; null while it is measured,
    after `circuit`."""
    faithfulness: FiniteFloat | None
    """(circuit - corrupt) / (clean - corrupt); null where these two do not differ."""
    completeness: FiniteFloat | None
    """The same of the model without the circuit: near 0 when the circuit is all there is; null
    while it is measured, too."""


class Faithful(Message):
    """Faithfulness against circuit size, filling in; NaN where it is not measured yet."""

    revision: int
    sizes: Array
    """int32 [sizes]"""
    faithfulness: Array
    completeness: Array
    random_low: Array
    random_median: Array
    random_high: Array
    """float32 [sizes] each; the random circuits have as many edges into each layer's readers."""
    seeds: int
    done: int
    total: int


class NeuronEffect(Message):
    """A neuron of an MLP that was looked into."""

    address: str
    estimate: FiniteFloat | None
    exact: FiniteFloat


# --- bodies of replies ---------------------------------------------------------------------------


class DrillBody(Message):
    """Answers `drill`: exact effects of a component's parts."""

    of: Literal["drill"] = "drill"
    address: str
    how: Replacement
    parts: list[str]
    """Of a head its parts "q", "k", "v", "z"; of an MLP none."""
    part_effects: Array
    """float32 [parts]"""
    positions: list[str]
    """The tokens of the prompt shown."""
    position_effects: Array
    """float32 [positions]: its output ablated at that position alone."""
    neurons: list[NeuronEffect]
    """Of an MLP its strongest neurons; massive-activation neurons are left out."""
    total: int
    """How many neurons there are."""
    note: str
    """Such as which heads share its keys and values; may be empty."""


class EdgeBody(Message):
    """Answers `edge`."""

    of: Literal["edge"] = "edge"
    address: str
    estimate: FiniteFloat | None
    exact: FiniteFloat
    before: FiniteFloat
    after: FiniteFloat
    """The metric without and with what the edge carries replaced."""
    disagree: Literal["sign", "half"] | None
    """Whether the estimate has the other sign, or is off by more than half of the exact value."""
    top: list[Share]
    """Next tokens of the prompt shown, whose probability it moves most."""


class InteractBody(Message):
    """Answers `interact`."""

    of: Literal["interact"] = "interact"
    a: list[str]
    b: list[str]
    effect_a: FiniteFloat
    effect_b: FiniteFloat
    both: FiniteFloat
    interaction: FiniteFloat
    """both - effect_a - effect_b: 0 where the two add up."""
    control: FiniteFloat | None
    """The largest absolute interaction of A with random components in B's place."""
    seeds: int
    note: str
    """Why there is no control; empty where there is one."""


class ExportBody(Message):
    """Answers `export`."""

    of: Literal["export"] = "export"
    name: str
    """A file name."""
    text: str


class AblatorBody(Message):
    """Answers `hello` of a CircuitAblator: all there is."""

    of: Literal["ablator"] = "ablator"
    revision: int
    state: State
    result_revision: int | None
    result: Result | None
    effects_revision: int | None
    effects: list[Effect]
    circuit: CircuitState
    map: EffectMap | None
    patching: list[PatchingMap]
    graph: Graph | None
    checked: Checked | None
    faithful: Faithful | None


# --- down: what there is now ---------------------------------------------------------------------


class CircuitUpdate(Message):
    """After every change of what is declared."""

    kind: Literal["circuit"] = "circuit"
    revision: int
    circuit: CircuitState


class MapUpdate(Message):
    """Effects of components, filling in; each replaces the one before."""

    kind: Literal["map"] = "map"
    map: EffectMap


class PatchingUpdate(Message):
    """Patching, filling in; each replaces the one before of its direction and its `over`."""

    kind: Literal["patched"] = "patched"
    patching: PatchingMap


class GraphUpdate(Message):
    """Edges were scored; exact values of the strongest fill in."""

    kind: Literal["graph"] = "graph"
    graph: Graph


class CheckUpdate(Message):
    """The circuit as it is now was measured."""

    kind: Literal["checked"] = "checked"
    checked: Checked


class FaithfulUpdate(Message):
    """The curve of faithfulness, filling in; each replaces the one before."""

    kind: Literal["faithful"] = "faithful"
    faithful: Faithful
