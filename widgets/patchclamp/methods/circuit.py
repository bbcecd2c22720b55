"""A circuit as a value: which edges are in it, what was said of its nodes, what was measured.

A :class:`Selection` says which of some scored edges are in: so many of the strongest, but for what
was switched by hand. A :class:`Circuit` is what it comes to: edges by their addresses, which can be
kept in a file, loaded, drawn by networkx, and cut again in the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from patchclamp.engine.edges import Graph
from patchclamp.errors import AddressError, InputError
from patchclamp.methods.edge_attribution import EdgeScores
from patchclamp.methods.task import REPLACEMENTS
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Iterable

    import networkx as nx
    from torch import Tensor

    from patchclamp.methods.edge_attribution import Method, Of
    from patchclamp.methods.task import Replacement
    from patchclamp.models.anatomy import Anatomy

FORMAT = 1


@dataclass(frozen=True)
class NodeNote:
    """What somebody said of a node.

    Attributes:
        address: which.
        pinned: whether it is shown even where it has no edge.
        name: what it is called; empty for nothing.
        group: what it belongs to; empty for nothing.
    """

    address: str
    pinned: bool = False
    name: str = ""
    group: str = ""


@dataclass(frozen=True)
class Selection:
    """Which of some scored edges are in a circuit.

    Attributes:
        size: how many of the strongest; of nodes where ``of`` says so.
        of: whether the strongest edges or the strongest nodes are taken.
        added: edges that were switched in by hand.
        removed: edges and nodes that were switched out by hand.
        notes: what was said of nodes.
    """

    size: int
    of: Of = "edges"
    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    notes: tuple[NodeNote, ...] = ()

    def mask(self, scores: EdgeScores) -> Tensor:
        """Return Bool[reader, source], the edges that are in."""
        graph = scores.graph
        kept = scores.top(self.size, self.of)
        chosen = scores.chosen if self.of == "edges" else None
        if chosen is not None and self.size == self.chosen_size(scores):
            kept = chosen.clone()
        # A node that is out takes its edges along, but for one that was switched in itself.
        return (kept & ~graph.cut(sorted(self.removed))) | graph.cut(sorted(self.added))

    @staticmethod
    def chosen_size(scores: EdgeScores) -> int | None:
        """Return the size of the circuit that a method chose itself; None where it chose none."""
        return None if scores.chosen is None else int(scores.chosen.sum())

    def switched(self, address: str, scores: EdgeScores) -> Selection:
        """Return the selection with a node or an edge switched out, or in again.

        Raises:
            AddressError: when there is no such node or edge, or a node has no edge to switch.
        """
        site = Site.parse(address)
        edges = scores.graph.cut([address])
        is_edge = site.kind == "edge"
        named = scores.graph.edge(*edges.nonzero()[0].tolist()) if is_edge else site.address
        now = self.mask(scores)
        if named in self.removed:
            return replace(self, removed=self.removed - {named})
        if bool((now & edges).any()):
            inside = {each for each in self.added if bool((scores.graph.cut([each]) & edges).any())}
            top = scores.top(self.size, self.of) & edges
            gone = frozenset([named]) if not is_edge or bool(top.any()) else frozenset[str]()
            return replace(self, added=self.added - inside, removed=self.removed | gone)
        if not is_edge:
            msg = (
                f"{named} has no edge in the circuit to switch: switch in one of its edges, or "
                "make the circuit larger."
            )
            raise AddressError(msg)
        return replace(self, added=self.added | {named})

    def annotated(
        self,
        addresses: Iterable[str],
        *,
        pinned: bool | None = None,
        name: str | None = None,
        group: str | None = None,
    ) -> Selection:
        """Return the selection with something said of nodes; what is None stays."""
        notes = {note.address: note for note in self.notes}
        said = {"pinned": pinned, "name": name, "group": group}
        changes = {word: what for word, what in said.items() if what is not None}
        for address in addresses:
            note = replace(notes.get(address, NodeNote(address)), **changes)  # type: ignore[arg-type] # each has its field's type
            notes[address] = note
        empty = {address for address, note in notes.items() if note == NodeNote(address)}
        return replace(
            self, notes=tuple(note for address, note in notes.items() if address not in empty)
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "size": self.size,
            "of": self.of,
            "added": sorted(self.added),
            "removed": sorted(self.removed),
            "notes": [asdict(note) for note in self.notes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selection:
        """Make a selection of what :meth:`to_json` gave.

        Raises:
            InputError: when it is not one.
        """
        try:
            return cls(
                int(data["size"]),
                "nodes" if data["of"] == "nodes" else "edges",
                frozenset(map(str, data["added"])),
                frozenset(map(str, data["removed"])),
                tuple(NodeNote(**note) for note in data["notes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            msg = f"This is no selection of a circuit ({type(error).__name__}: {error})."
            raise InputError(msg) from error


@dataclass(frozen=True)
class CircuitEdge:
    """An edge of a circuit.

    Attributes:
        address: such as "L3.H1->L7.H2:q".
        estimate: what cutting it does to the metric, estimated; None where it is not known.
        exact: the same, measured; None where it was not.
    """

    address: str
    estimate: float | None = None
    exact: float | None = None


@dataclass(frozen=True)
class Circuit:
    """Edges of one model, and where they come from.

    Attributes:
        model: the model's name.
        edges: the edges, strongest first.
        how: what all other edges carry when only the circuit is left.
        method: how they were found.
        metric: what was measured, as JSON; None of a function of the user's.
        about: what it was found on, such as the prompt set, as JSON.
        notes: what was said of nodes.
        clean: the metric of the model.
        corrupt: the metric with every edge cut.
        faithfulness: the share of the metric that it keeps; None where it was not measured.
        completeness: the share that is left without it.
    """

    model: str
    edges: tuple[CircuitEdge, ...]
    how: Replacement = "corrupt"
    method: Method = "eap-ig"
    metric: Mapping[str, Any] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[NodeNote, ...] = ()
    clean: float = float("nan")
    corrupt: float = float("nan")
    faithfulness: float | None = None
    completeness: float | None = None

    def mask(self, graph: Graph) -> Tensor:
        """Return Bool[reader, source], its edges.

        Raises:
            AddressError: when the model has no such edge.
        """
        return graph.cut([edge.address for edge in self.edges])

    def scores(self, anatomy: Anatomy) -> EdgeScores:
        """Return its edges as scores; all others have none.

        Raises:
            AddressError: when the model has no such edge.
            ModelError: when the model has no graph of components.
        """
        graph = Graph.of(anatomy)
        values = torch.where(graph.exists, 0.0, torch.nan)
        for edge in self.edges:
            known = edge.estimate if edge.estimate is not None else edge.exact
            values[graph.cut([edge.address])] = torch.nan if known is None else known
        mask = self.mask(graph)
        return EdgeScores(graph, values, self.method, self.how, self.clean, self.corrupt, mask)

    def nodes(self) -> list[str]:
        """The sources and readers that its edges join, in no special order; parts left out."""
        found: dict[str, None] = {}
        for edge in self.edges:
            site = Site.parse(edge.address)
            found |= {end.address: None for end in (site.source, site.destination)}
        return list(found)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON: a NaN is null."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        data |= {
            "edges": [asdict(edge) for edge in self.edges],
            "notes": [asdict(note) for note in self.notes],
            "about": dict(self.about),
            "metric": None if self.metric is None else dict(self.metric),
        }
        for name in ("clean", "corrupt"):
            data[name] = None if math.isnan(data[name]) else data[name]
        return {"format": FORMAT, "kind": "patchclamp circuit", **data}

    @classmethod
    def from_json(cls, data: object) -> Circuit:
        """Make a circuit of what :meth:`to_json` gave.

        Raises:
            InputError: when it is no circuit of this version.
        """
        if not isinstance(data, Mapping) or data.get("kind") != "patchclamp circuit":
            msg = "This is no circuit that patchclamp wrote."
            raise InputError(msg)
        if data.get("format") != FORMAT:
            msg = f"This circuit is of a version that is not read here: {data.get('format')!r}."
            raise InputError(msg)
        try:
            known = {item.name: data[item.name] for item in fields(cls)}
            known["edges"] = tuple(CircuitEdge(**edge) for edge in known["edges"])
            known["notes"] = tuple(NodeNote(**note) for note in known["notes"])
            for name in ("clean", "corrupt"):
                known[name] = float("nan") if known[name] is None else float(known[name])
            for edge in known["edges"]:
                if Site.parse(edge.address).kind != "edge":
                    msg = f"{edge.address} is no edge."
                    raise InputError(msg)
            if known["how"] not in REPLACEMENTS:
                msg = f"There is no replacement {known['how']!r}."
                raise InputError(msg)
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"This circuit cannot be read ({type(error).__name__}: {error})."
            raise InputError(msg) from error

    def save(self, path: str | Path) -> None:
        """Write it to a JSON file."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read it from a JSON file.

        Raises:
            InputError: when the file holds no circuit.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            msg = f"{path} holds no circuit: {error}."
            raise InputError(msg) from error
        return cls.from_json(data)

    def to_networkx(self) -> nx.MultiDiGraph:
        """Return it as a directed graph of networkx.

        Nodes are components ("embed", "L5.H3", "L5.mlp", "logits") with their layer, and the name,
        group and pin that they were given; an edge has `address`, `part` ("q", "k", "v" or None),
        `estimate` and `exact`. Edges into several parts of one head are several, so the graph is a
        `MultiDiGraph`.
        """
        import networkx as nx

        graph = nx.MultiDiGraph(model=self.model, how=self.how)
        notes = {note.address: note for note in self.notes}
        for edge in self.edges:
            site = Site.parse(edge.address)
            ends = [_component(end) for end in (site.source, site.destination)]
            for end, given in zip(ends, (site.source, site.destination), strict=True):
                note = notes.get(end, NodeNote(end))
                graph.add_node(
                    end, layer=given.layer, name=note.name, group=note.group, pinned=note.pinned
                )
            part = site.destination.part
            graph.add_edge(
                ends[0],
                ends[1],
                key=part or "",
                address=edge.address,
                part=part,
                estimate=edge.estimate,
                exact=edge.exact,
            )
        return graph


def circuit_of(
    selection: Selection,
    scores: EdgeScores,
    model: str,
    *,
    exact: Mapping[tuple[int, int], float] | None = None,
    **known: Any,
) -> Circuit:
    """Make the circuit that a selection of scored edges comes to.

    Args:
        selection: which edges.
        scores: of all of them.
        model: the model's name.
        exact: measured effects by (reader, source).
        known: further attributes of :class:`Circuit`.
    """
    mask = selection.mask(scores)
    measured = exact or {}
    edges = []
    for place in scores.ranked():
        if bool(mask[place]):
            value = float(scores.values[place])
            edges.append(
                CircuitEdge(
                    scores.graph.edge(*place),
                    None if math.isnan(value) else value,
                    measured.get(place),
                )
            )
    return Circuit(
        model,
        tuple(edges),
        scores.how,
        scores.method,
        notes=selection.notes,
        clean=scores.clean,
        corrupt=scores.corrupt,
        **known,
    )


def _component(end: Site) -> str:
    """The node that an end of an edge belongs to: a head, whichever part is read."""
    return end.address if end.kind != "head" else f"L{end.layer}.H{end.index}"
