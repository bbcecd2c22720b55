"""What was found of circuits, as the messages that a page draws and as tables."""

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from patchclamp.methods.circuit import Circuit, Selection
from patchclamp.methods.edge_attribution import EdgeScores
from patchclamp.methods.edge_effect import EdgeEffect, disagreement
from patchclamp.methods.faithfulness import Checked, Curve, sizes_of
from patchclamp.sites import Site

from . import messages as say
from .component_pictures import floats

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

T = TypeVar("T")

SHOWN_EDGES = 400
"""So many of the strongest edges a page gets."""
_SIZES = 60  # circuit sizes whose threshold a page knows
_MOVED = 10  # next tokens that an edge moves most


@dataclass(frozen=True, eq=False)
class Found:
    """Edges that were scored, the circuit that is shown first, and what is exact by now.

    Attributes:
        number: tells what was found apart.
        scores: of all edges.
        selection: the circuit that is shown first.
        exact: measured effects by (reader, source).
        asked: the call that found it.
        said: what a reader must know, sentence by sentence.
        key: what the edges were scored on; None where that was elsewhere.
        metric: what was measured, as JSON; None of a function of the user's.
        about: the prompts, as JSON.
    """

    number: int
    scores: EdgeScores
    selection: Selection
    exact: Mapping[tuple[int, int], float]
    asked: str
    said: tuple[str, ...] = ()
    key: Hashable = None
    metric: Mapping[str, Any] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    #: What was computed of the scores, which stay when more becomes exact.
    _known: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def strongest(self) -> list[tuple[int, int]]:
        """(reader, source) of the edges that are shown, the largest absolute score first."""
        return self._once("strongest", lambda: self.scores.ranked()[:SHOWN_EDGES])

    @property
    def steps(self) -> tuple[list[int], list[float]]:
        """Circuit sizes, evenly on a logarithm, and the least absolute score in each."""

        def steps() -> tuple[list[int], list[float]]:
            of = self.selection.of
            sizes = sizes_of(self.scores.total(of), _SIZES)
            return sizes, [self.scores.threshold(size, of) for size in sizes]

        return self._once("steps", steps)

    def edges_of(self, selection: Selection) -> int:
        """How many edges a selection comes to."""
        key = selection.size, selection.of, selection.added, selection.removed
        return self._once(key, lambda: int(selection.mask(self.scores).sum()))

    def inside(self, selection: Selection) -> "NDArray[np.uint8]":
        """Of each edge that is shown: 1 in the circuit, 2 taken out of it by hand, 0 not in it."""
        kept = selection.mask(self.scores)
        whole = replace(selection, removed=frozenset()).mask(self.scores)
        marks = kept.int() + 2 * (whole & ~kept).int()
        return np.asarray([int(marks[at]) for at in self.strongest], dtype=np.uint8)

    def _once(self, what: Hashable, compute: Callable[[], T]) -> T:
        if what not in self._known:
            self._known[what] = compute()
        found: T = self._known[what]
        return found

    def saying(self, sentence: str) -> "Found":
        """The same, with one more thing that a reader must know."""
        return replace(self, said=(*self.said, sentence))

    def note(self) -> str:
        """All that a reader must know."""
        wrong = [disagreement(float(self.scores.values[at]), v) for at, v in self.exact.items()]
        signs, halves = wrong.count("sign"), wrong.count("half")
        said = [self.scores.note, *self.said]
        if wrong:
            told = "none is contradicted by its exact value"
            if signs or halves:
                told = f"{signs} have the other sign and {halves} are off by more than half"
            said.append(f"Of {len(wrong)} estimates that were measured exactly, {told}.")
        return " ".join(sentence for sentence in said if sentence)

    def message(self, revision: int) -> say.Graph:
        """For the page."""
        scores, places = self.scores, self.strongest
        graph = scores.graph
        nodes: dict[str, int] = {}

        def number(site: Site) -> int:
            return nodes.setdefault(site.address, len(nodes))

        source = [number(graph.sources[at]) for _, at in places]
        reader = [number(graph.readers[at]) for at, _ in places]
        nan = float("nan")
        sizes, thresholds = self.steps
        return say.Graph(
            revision=revision,
            method=scores.method,
            of=self.selection.of,
            how=scores.how,
            nodes=list(nodes),
            source=np.asarray(source, dtype=np.int32),
            reader=np.asarray(reader, dtype=np.int32),
            estimate=np.asarray([float(scores.values[at]) for at in places], dtype=np.float32),
            exact=np.asarray([self.exact.get(at, nan) for at in places], dtype=np.float32),
            total=graph.n_edges,
            clean=number_or_none(scores.clean),
            corrupt=number_or_none(scores.corrupt),
            sizes=np.asarray(sizes, dtype=np.int32),
            thresholds=np.asarray(thresholds, dtype=np.float32),
            note=self.note(),
        )

    def frame(self) -> "pd.DataFrame":
        """One edge a row, the largest absolute score first."""
        table = self.scores.frame(self.strongest)
        exact = [self.exact.get(at, float("nan")) for at in self.strongest]
        table["exact"] = exact
        table["disagree"] = [
            disagreement(*pair) for pair in zip(table["estimate"], exact, strict=True)
        ]
        return table


def selection(chosen: Selection, found: Found | None) -> say.Selection:
    """Which edges are in the circuit, for the page."""
    return say.Selection(
        size=chosen.size,
        edges=0 if found is None else found.edges_of(chosen),
        added=sorted(chosen.added),
        removed=sorted(chosen.removed),
        inside=None if found is None else found.inside(chosen),
        notes=[
            say.NodeNote(address=n.address, pinned=n.pinned, name=n.name, group=n.group)
            for n in chosen.notes
        ],
    )


def checked(found: Checked, revision: int) -> say.Checked:
    """A circuit by itself, for the page."""
    return say.Checked(
        revision=revision,
        edges=found.edges,
        clean=found.clean,
        corrupt=found.corrupt,
        circuit=found.circuit,
        without=number_or_none(found.without),
        faithfulness=number_or_none(found.faithfulness),
        completeness=number_or_none(found.completeness),
    )


def curve(found: Curve, revision: int) -> say.Faithful:
    """Faithfulness against size, for the page."""
    low, median, high = band(found)
    return say.Faithful(
        revision=revision,
        sizes=found.sizes.numpy().astype(np.int32),
        faithfulness=floats(found.faithfulness),
        completeness=floats(found.completeness),
        random_low=low,
        random_median=median,
        random_high=high,
        seeds=found.random.shape[1],
        done=found.done,
        total=found.total,
    )


def no_curve(revision: int) -> say.Faithful:
    """That nothing is measured of the sizes of a new graph's circuits."""
    nothing = np.zeros(0, dtype=np.float32)
    return say.Faithful(
        revision=revision,
        sizes=np.zeros(0, dtype=np.int32),
        faithfulness=nothing,
        completeness=nothing,
        random_low=nothing,
        random_median=nothing,
        random_high=nothing,
        seeds=0,
        done=0,
        total=0,
    )


def curve_frame(found: Curve) -> "pd.DataFrame":
    """One size a row."""
    import pandas as pd

    low, median, high = band(found)
    return pd.DataFrame(
        {
            "size": found.sizes.numpy(),
            "faithfulness": floats(found.faithfulness),
            "completeness": floats(found.completeness),
            "random_low": low,
            "random_median": median,
            "random_high": high,
        }
    )


def band(found: Curve) -> "tuple[NDArray[np.float32], ...]":
    """The least, the middle and the largest of the random circuits that are measured, by size."""
    rows = [row[~np.isnan(row)] for row in floats(found.random)]
    each = [[f(row) if len(row) else np.nan for row in rows] for f in (np.min, np.median, np.max)]
    return tuple(np.asarray(part, dtype=np.float32) for part in each)


def edge_body(
    address: str, estimate: float, found: EdgeEffect, text: Callable[[int], str]
) -> say.EdgeBody:
    """What one edge does, for the page."""
    return say.EdgeBody(
        address=address,
        estimate=number_or_none(estimate),
        exact=found.exact,
        before=found.before,
        after=found.after,
        disagree=disagreement(estimate, found.exact),
        top=[
            say.Share(id=token, text=text(token), before=before, after=after)
            for token, before, after in found.moved(_MOVED)
        ],
    )


def circuit_text(circuit: Circuit) -> str:
    """A circuit as the text of a file, short enough to be taken back in by the page."""
    return json.dumps(circuit.to_json(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def number_or_none(value: float) -> float | None:
    """A number, or None for NaN, which JSON does not know."""
    return None if np.isnan(value) else value
