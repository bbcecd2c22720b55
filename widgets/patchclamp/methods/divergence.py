"""How far two runs' predictions are apart, position by position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from patchclamp.engine.experiment import Run

_ROWS_AT_ONCE = 64


def kl_divergence(before: Tensor, after: Tensor) -> Tensor:
    """Return KL(before || after) in nats of Float[..., vocab] logits, as Float[...].

    Kullback and Leibler (1951): what it costs to believe ``after`` when ``before`` is true.
    """
    p, q = before.float().log_softmax(-1), after.float().log_softmax(-1)
    # Rounding makes equal predictions differ by about -1e-8.
    return (p.exp() * (p - q)).sum(-1).clamp_min(0)


def kl_by_position(
    before: Run, after: Run, should_stop: Callable[[], bool] | None = None
) -> Tensor:
    """Return Float[pos]: KL(before || after) of the next-token prediction at each position, in nats.

    Positions before the first one that the runs' stacks touch are exactly 0 and cost nothing.
    """
    length = before.experiment.length
    first = after.unchanged_before(before)
    found = torch.zeros(length)
    for start in range(first, length, _ROWS_AT_ONCE):
        if should_stop is not None and should_stop():
            break
        rows = list(range(start, min(start + _ROWS_AT_ONCE, length)))
        found[rows] = kl_divergence(before.rows(rows), after.rows(rows)).cpu()
    return found
