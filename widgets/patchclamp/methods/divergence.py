"""How far two runs' predictions are apart, position by position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from patchclamp.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from patchclamp.engine.experiment import Run

_ROWS_AT_ONCE = 64


def kl_divergence(before: Tensor, after: Tensor) -> Tensor:
    """Return KL(before || after) in nats of Float[..., vocab] logits, as Float[...].

    Kullback and Leibler (1951): what it costs to believe ``after`` when ``before`` is true.
    """
    log_p, log_q = before.float().log_softmax(-1), after.float().log_softmax(-1)
    p, d = log_p.exp(), log_p - log_q
    # Sum of p d - p + q: the same, as both sum to 1, and every term is about p d^2 / 2 for small d;
    # rounding of the softmax, of first order in d, would otherwise show as 1e-8 nats.
    near = p * (d + torch.expm1(-d.clamp_min(-1)))
    far = p * d - p + log_q.exp()
    return torch.where(d > -1, near, far).sum(-1).clamp_min(0)


def kl_by_position(
    before: Run, after: Run, should_stop: Callable[[], bool] | None = None
) -> Tensor:
    """Return Float[pos]: KL(before || after) in nats of the prediction after each position.

    Positions before the first one that the runs' stacks touch are exactly 0 and cost nothing.

    Raises:
        Stopped: when ``should_stop`` said so.
    """
    steps = kl_in_steps(before, after)
    while True:
        if should_stop is not None and should_stop():
            msg = "Stopped before it was finished."
            raise Stopped(msg)
        try:
            next(steps)
        except StopIteration as end:
            found: Tensor = end.value
            return found


def kl_in_steps(before: Run, after: Run) -> Generator[None, None, Tensor]:
    """Do what :func:`kl_by_position` does, and yield before every 64 positions."""
    length = before.experiment.length
    found = torch.zeros(length)
    for start in range(after.unchanged_before(before), length, _ROWS_AT_ONCE):
        yield
        rows = list(range(start, min(start + _ROWS_AT_ONCE, length)))
        found[rows] = kl_divergence(before.rows(rows), after.rows(rows)).cpu()
    return found


def cosine_distance_by_position(
    before: Run, after: Run, should_stop: Callable[[], bool] | None = None
) -> Tensor:
    """Return Float[pos]: 1 - cosine of the two runs' last residual streams, position by position.

    What a run of a model that predicts no next token, an encoder, can be compared by. Runs of one
    stack are exactly 0 apart; NaN where a residual stream is not finite.

    Raises:
        Stopped: when ``should_stop`` said so.
    """
    p, q = (
        torch.nn.functional.normalize(run.compute(should_stop).trace.residual[-1].double(), dim=-1)
        for run in (before, after)
    )
    # Half the squared chord: the same as 1 - p q, without its rounding where they hardly differ.
    distance: Tensor = (p - q).square().sum(-1) / 2
    return distance.float().cpu()
