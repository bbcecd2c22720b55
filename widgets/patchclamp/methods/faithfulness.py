"""Does a circuit do what the model does, and is it all that does it: faithfulness, completeness.

With m(C) the metric when only the edges of C carry what they carry and all others are cut,

    faithfulness(C) = (m(C) - m(nothing)) / (m(everything) - m(nothing)),

1 for a circuit that keeps all of the metric, 0 for one that keeps none; and *completeness* is the
same of the model without the circuit, faithfulness(everything but C): near 0 when the circuit is
all there is (Wang et al. 2022; in this form Marks et al., "Sparse Feature Circuits", 2024). Both
are beside random circuits that have as many edges from the same layers' kinds of readers: any large
part of a model keeps something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InputError
from patchclamp.methods.path_patching import cut_levels

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from patchclamp.engine.edges import EdgeRuns, Graph
    from patchclamp.methods.edge_attribution import EdgeScores, Of
    from patchclamp.methods.task import Task

    ShouldStop = Callable[[], bool]

SEEDS = 5
"""Random circuits of each size."""


@dataclass(frozen=True)
class Checked:
    """A circuit by itself, and the model without it.

    Attributes:
        edges: how many edges it has.
        clean: the metric of the model, averaged over the pairs.
        corrupt: the metric with every edge cut.
        circuit: the metric with every edge outside of the circuit cut.
        without: the metric with the circuit's edges cut; NaN while it is not measured.
    """

    edges: int
    clean: float
    corrupt: float
    circuit: float
    without: float = float("nan")

    @property
    def faithfulness(self) -> float:
        """The share of the metric that the circuit keeps; NaN where there is nothing to keep."""
        return share(self.circuit, self.clean, self.corrupt)

    @property
    def completeness(self) -> float:
        """The share that is left without the circuit."""
        return share(self.without, self.clean, self.corrupt)


@dataclass(frozen=True, eq=False)
class Curve:
    """Faithfulness against size; NaN where it is not measured yet.

    Attributes:
        sizes: LongTensor[size], how many edges (or nodes) each circuit has.
        faithfulness: Float[size].
        completeness: Float[size].
        random: Float[size, seed], the faithfulness of random circuits of each size.
        done: how many runs of all pairs are done.
        total: how many there are.
    """

    sizes: Tensor
    faithfulness: Tensor
    completeness: Tensor
    random: Tensor
    done: int
    total: int


def share(level: float, clean: float, corrupt: float) -> float:
    """Return how much of what separates clean from corrupt a level keeps; NaN of nothing."""
    return (level - corrupt) / (clean - corrupt) if clean != corrupt else float("nan")


def check(
    task: Task,
    runs: EdgeRuns,
    circuit: Tensor,
    *,
    clean: float,
    corrupt: float,
    should_stop: ShouldStop | None = None,
) -> Generator[Checked, None, None]:
    """Measure a circuit by itself, and then the model without it, exactly.

    Runs on the model's worker.

    Args:
        task: the pairs and the metric.
        runs: what runs them.
        circuit: Bool[reader, source], its edges.
        clean: the metric with no edge cut.
        corrupt: the metric with every edge cut.
        should_stop: asked before every block.

    Yields:
        The circuit alone; then, whole, the model without it as well.
    """
    circuit = circuit & runs.graph.exists
    edges = int(circuit.sum())
    *_, (_, alone) = cut_levels(task, runs, [~circuit], should_stop=should_stop)
    yield Checked(edges, clean, corrupt, float(alone[0]))
    *_, (_, rest) = cut_levels(task, runs, [circuit], should_stop=should_stop)
    yield Checked(edges, clean, corrupt, float(alone[0]), float(rest[0]))


def faithfulness_curve(
    task: Task,
    runs: EdgeRuns,
    scores: EdgeScores,
    sizes: Sequence[int],
    *,
    of: Of = "edges",
    seeds: int = SEEDS,
    should_stop: ShouldStop | None = None,
) -> Generator[Curve, None, None]:
    """Measure circuits of several sizes, beside random ones of the same size.

    Runs on the model's worker. The circuits come first, then what is left without them, then the
    random ones.

    Args:
        task: the pairs and the metric.
        runs: what runs them.
        scores: whose strongest edges the circuits are.
        sizes: how many edges (or nodes).
        of: whether circuits are of edges or of nodes.
        seeds: random circuits of each size.
        should_stop: asked before every block.

    Yields:
        The curve, filling in.

    Raises:
        InputError: when no size is given.
    """
    if not sizes:
        msg = "A curve needs at least one size."
        raise InputError(msg)
    graph = scores.graph
    circuits = [scores.top(size, of) for size in sizes]
    random = [
        random_circuit(graph, circuit, seed=seed) for seed in range(seeds) for circuit in circuits
    ]
    cuts = [*(~c for c in circuits), *circuits, *(~c for c in random)]
    total, count = len(cuts), len(sizes)
    found = torch.full((total,), torch.nan)
    for index, cut in enumerate(cuts):
        *_, (_, level) = cut_levels(task, runs, [cut], should_stop=should_stop)
        found[index] = share(float(level[0]), scores.clean, scores.corrupt)
        yield Curve(
            torch.tensor(list(sizes)),
            found[:count].clone(),
            found[count : 2 * count].clone(),
            found[2 * count :].reshape(seeds, count).T.clone(),
            index + 1,
            total,
        )


def random_circuit(graph: Graph, circuit: Tensor, *, seed: int) -> Tensor:
    """Draw a circuit with as many edges into each layer's queries, keys, values and MLP.

    Args:
        graph: the model's edges.
        circuit: Bool[reader, source], the one that is matched.
        seed: of the draw.

    Returns:
        Bool[reader, source].
    """
    generator = torch.Generator().manual_seed(seed)
    groups: dict[tuple[int, str], list[int]] = {}
    for reader, (layer, site) in enumerate(zip(graph.layers, graph.readers, strict=True)):
        groups.setdefault((layer, site.part or site.kind), []).append(reader)
    drawn = torch.zeros_like(circuit)
    for readers in groups.values():
        count = int((circuit & graph.exists)[readers].sum())
        places = graph.exists[readers].nonzero()
        order = torch.randperm(len(places), generator=generator)[:count]
        drawn[torch.tensor(readers)[places[order, 0]], places[order, 1]] = True
    return drawn


def sizes_of(total: int, count: int = 12) -> list[int]:
    """Return circuit sizes from 1 to all, evenly on a logarithm.

    >>> sizes_of(1000, 4)
    [1, 10, 100, 1000]
    """
    steps = torch.logspace(0, torch.log10(torch.tensor(float(total))).item(), count)
    return sorted({round(size) for size in steps.tolist()})
