"""What one edge does: the metric and the prediction with what it carries replaced, exactly.

And whether a first-order estimate of that is to be believed: it is not where it has the other sign,
or is off by more than half of the exact value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from patchclamp.engine.edges import EdgeRuns
    from patchclamp.methods.task import Task

    ShouldStop = Callable[[], bool]

Disagreement = Literal["sign", "half"]


@dataclass(frozen=True, eq=False)
class EdgeEffect:
    """What cutting one edge does.

    Attributes:
        before: the metric with nothing cut, averaged over the pairs.
        after: the metric with the edge cut.
        probabilities: Float[side, vocab], of one pair's next token, before and after.
    """

    before: float
    after: float
    probabilities: Tensor

    @property
    def exact(self) -> float:
        """What cutting it does to the metric."""
        return self.after - self.before

    def moved(self, count: int) -> list[tuple[int, float, float]]:
        """Return the next tokens whose probability moves most: id, before, after."""
        before, after = self.probabilities
        most = (after - before).abs().topk(min(count, len(before))).indices.tolist()
        return [(token, float(before[token]), float(after[token])) for token in most]


def edge_effect(
    task: Task,
    runs: EdgeRuns,
    edge: tuple[int, int],
    *,
    pair: int = 0,
    should_stop: ShouldStop | None = None,
) -> EdgeEffect:
    """Cut one edge, on every pair; runs on the model's worker.

    Args:
        task: the pairs and the metric.
        runs: what runs them.
        edge: its (reader, source).
        pair: whose next tokens are wanted.
        should_stop: asked before every block.

    Raises:
        MetricError: when the metric gives no finite number.
        Stopped: when ``should_stop`` said so.
    """
    cut = torch.zeros_like(runs.graph.exists)
    cut[edge] = True
    wanted = [row % task.length for row in task.rows]
    rows = sorted({*wanted, task.length - 1})
    measured = [rows.index(row) for row in wanted]
    task.measure(should_stop)
    levels = torch.zeros(2, dtype=torch.double)
    shown: dict[int, Tensor] = {}
    nothing = torch.zeros_like(cut)
    for pairs, logits in runs.run([nothing, cut], rows, should_stop=should_stop):
        values = task.score(logits[:, measured], [item for _, item in pairs]).cpu().double()
        for (side, item), value, found in zip(pairs, values, logits, strict=True):
            levels[side] += value / task.n_pairs
            if item == pair:
                shown[side] = found[-1].float().softmax(-1).cpu()
    before, after = levels.tolist()
    return EdgeEffect(before, after, torch.stack([shown[0], shown[1]]))


def disagreement(estimate: float, exact: float) -> Disagreement | None:
    """Say how an estimate is contradicted by what was measured; None where it is not, or is NaN.

    >>> disagreement(0.4, -0.1), disagreement(0.4, 1.0), disagreement(0.8, 1.0)
    ('sign', 'half', None)
    """
    if estimate != estimate or exact != exact:  # noqa: PLR0124 (only NaN differs from itself)
        return None
    if estimate * exact < 0:
        return "sign"
    return "half" if abs(estimate - exact) > abs(exact) / 2 else None
