"""The metric under many edits of a task's prompts, averaged over its pairs, filling in.

Ablation, activation patching and interactions are all this: values put in some places, one run for
each, and the metric of what comes out. So are edges that are cut, see
:mod:`patchclamp.methods.path_patching`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from torch import Tensor

    from patchclamp.engine.batch import Edit, Item
    from patchclamp.methods.task import Side, Task

    ShouldStop = Callable[[], bool]


def levels(
    task: Task,
    edits: Sequence[Edit],
    values: Mapping[str, Tensor],
    *,
    side: Side = "clean",
    should_stop: ShouldStop | None = None,
) -> Generator[tuple[int, Tensor], None, None]:
    """Measure every edit on every pair; runs on the model's worker.

    Args:
        task: the pairs and the metric.
        edits: what is done, each in runs of its own.
        values: what is put in, by hook point; see
            :meth:`patchclamp.engine.batch.Batch.sweep`.
        side: whose prompts are run; the clean ones under the task's stack.
        should_stop: asked before every block.

    Yields:
        After each chunk how many edits are done, and Float[edit], the metric under each, averaged
        over the pairs: NaN until all of them are in. The last one is whole.

    Raises:
        MetricError: when the metric is no number; what was measured before was yielded.
        BudgetError: when one run alone needs more memory than there is.
        Stopped: when ``should_stop`` said so.
    """
    task.measure(should_stop)
    sweep = task.base(side).sweep(edits, values, task.rows, should_stop=should_stop)
    yield from averaged(task, len(edits), sweep)


def averaged(
    task: Task, count: int, chunks: Iterable[tuple[list[Item], Tensor]]
) -> Generator[tuple[int, Tensor], None, None]:
    """Measure runs as they come, and average over the pairs.

    Args:
        task: the pairs and the metric.
        count: how many runs there are of each pair.
        chunks: which (run, pair)s, and Float[item, row, vocab], their logits.

    Yields:
        After each chunk how many runs are whole, and Float[run]; NaN until all pairs are in.

    Raises:
        MetricError: when the metric is no number somewhere; what is one was yielded.
    """
    sums = torch.zeros(count, dtype=torch.double)
    left = torch.full((count,), task.n_pairs)
    measure = task.measure()
    for pairs, logits in chunks:
        if pairs:
            of = measure.at([item for _, item in pairs])
            found = of(logits)
            good = found.isfinite().cpu()
            which = torch.tensor([run for run, _ in pairs])[good]
            sums.index_add_(0, which, found.cpu()[good].double())
            left.index_add_(0, which, torch.full_like(which, -1))
        whole = left == 0
        yield int(whole.sum()), torch.where(whole, sums / task.n_pairs, torch.nan).float()
        if pairs:
            of.check(found, logits)  # once what is a number has been told


def all_levels(
    task: Task,
    edits: Sequence[Edit],
    values: Mapping[str, Tensor],
    *,
    side: Side = "clean",
    should_stop: ShouldStop | None = None,
) -> Tensor:
    """Measure every edit on every pair, as :func:`levels` does; returns Float[edit]."""
    result = torch.full((len(edits),), torch.nan)
    for _, found in levels(task, edits, values, side=side, should_stop=should_stop):
        result = found
    return result


def level(task: Task, *, side: Side = "clean", should_stop: ShouldStop | None = None) -> float:
    """Measure one side as it is, the clean one under the task's stack, averaged over the pairs."""
    return float(all_levels(task, [()], {}, side=side, should_stop=should_stop)[0])


def differing_positions(task: Task) -> tuple[int, ...]:
    """Return the positions at which the values of clean and corrupt runs can differ.

    In a causal model those are the positions from the first differing token on. A stack acts on one
    side only, so under one they can differ from the beginning. It is never empty: patching equal
    prompts changes nothing, and is measured at the last position.
    """
    length = task.length
    if task.corrupt is None or task.stack or not task.engine.model.anatomy.causal:
        return tuple(range(length))
    first = min(
        next((at for at in range(length) if one.ids[at] != other.ids[at]), length - 1)
        for one, other in zip(task.clean, task.corrupt, strict=True)
    )
    return tuple(range(first, length))
