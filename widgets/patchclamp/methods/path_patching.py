"""What an edge carries, replaced exactly: path patching of single edges and of any set of them.

Path patching (Wang et al., "Interpretability in the Wild", 2022; Goldowsky-Dill et al., "Localizing
Model Behavior with Path Patching", 2023): the reader of an edge reads the residual stream in which
the source's contribution is that of another run; everything else in the run follows. See
:mod:`patchclamp.engine.edges` for what an edge is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from patchclamp.engine.edges import EdgeRuns, Graph
from patchclamp.errors import InputError
from patchclamp.methods.levels import averaged, level

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from patchclamp.methods.task import Replacement, Task

    ShouldStop = Callable[[], bool]


def edge_runs(
    task: Task,
    how: Replacement = "corrupt",
    *,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> EdgeRuns:
    """Return what runs a task's prompts with edges cut; runs of the model are needed to make it.

    Runs on the model's worker. The task's stack does not act.

    Args:
        task: the prompt pairs.
        how: what edges carry when they are cut.
        seed: of what is resampled.
        should_stop: asked before every block.

    Raises:
        ModelError: when the model has no graph of components.
        InputError: when there is no corrupt prompt, or it is the clean one.
    """
    graph = Graph.of(task.engine.model.anatomy)
    batch = task.base(stack=False)
    values = task.replaced(graph.hook_points(), how, seed=seed, should_stop=should_stop)
    first = int(batch.has_bos and batch.length > 1)
    if how == "corrupt":
        apart = (batch.ids != task.base("corrupt").ids).any(0).nonzero().flatten().tolist()
        if not apart:
            msg = "The corrupt prompts are the clean ones: an edge would carry what it carries."
            raise InputError(msg)
        first = min(apart)
    return EdgeRuns(batch, graph, values, first)


def cut_levels(
    task: Task,
    runs: EdgeRuns,
    cuts: Sequence[Tensor],
    *,
    should_stop: ShouldStop | None = None,
) -> Generator[tuple[int, Tensor], None, None]:
    """Measure the metric with each of some sets of edges cut.

    Args:
        task: what is measured.
        runs: what runs it.
        cuts: Bool[reader, source] each.
        should_stop: asked before every block.

    Yields:
        After each chunk how many cuts are done, and Float[cut], the metric averaged over the pairs:
        NaN until all of them are in.

    Raises:
        MetricError: when the metric gives no finite number.
    """
    task.measure(should_stop)
    yield from averaged(task, len(cuts), runs.run(cuts, task.rows, should_stop=should_stop))


def with_cut(
    task: Task, runs: EdgeRuns, cut: Tensor, should_stop: ShouldStop | None = None
) -> float:
    """Return the metric with one set of edges cut, averaged over the pairs."""
    *_, (_, found) = cut_levels(task, runs, [cut], should_stop=should_stop)
    return float(found[0])


def exact_edges(
    task: Task,
    runs: EdgeRuns,
    edges: Sequence[tuple[int, int]],
    *,
    should_stop: ShouldStop | None = None,
) -> Generator[tuple[int, Tensor], None, None]:
    """Measure what cutting each of some edges alone does to the metric, exactly.

    Runs on the model's worker.

    Args:
        task: what is measured.
        runs: what runs it.
        edges: (reader, source) each.
        should_stop: asked before every block.

    Yields:
        After each chunk how many edges are done, and Float[edge], the metric with the edge cut
        minus without; NaN where it is not measured yet.
    """
    clean = level(task.without_stack(), should_stop=should_stop)
    cuts = []
    for edge in edges:
        cut = torch.zeros_like(runs.graph.exists)
        cut[edge] = True
        cuts.append(cut)
    for done, measured in cut_levels(task, runs, cuts, should_stop=should_stop):
        yield done, measured - clean
