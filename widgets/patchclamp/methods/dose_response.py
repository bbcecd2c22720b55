"""Dose and response: what the prediction does while one intervention's value goes over a range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InterventionError
from patchclamp.methods.divergence import kl_divergence

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from patchclamp.engine.experiment import Experiment
    from patchclamp.methods.metric import Measure

CHUNK = 8
"""How many values are measured between two looks at the result."""


@dataclass(frozen=True)
class Dose:
    """The response to one value.

    Attributes:
        value: the intervention's value.
        metric: the metric; NaN where the model's output is no longer finite.
        kl: KL(baseline || intervened) of the next-token prediction, in nats; NaN there too.
    """

    value: float
    metric: float
    kl: float


def dose_response(
    experiment: Experiment,
    index: int,
    values: Sequence[float],
    *,
    measure: Measure,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[list[Dose], None, None]:
    """Measure the prediction for many values of one intervention of the stack.

    Exact: every value is a run of its own, in batches that start where the intervention acts. Runs
    on the model's worker.

    Args:
        experiment: the input and stack.
        index: which intervention of the stack.
        values: the values, in the order in which they are wanted.
        measure: what to measure, on the experiment's input.
        should_stop: asked before every block.

    Yields:
        The doses of each chunk of values.

    Raises:
        InterventionError: when the intervention has no value to vary.
        MetricError: when the metric is no number though the model's output is; what was measured
            before was yielded.
    """
    stack = experiment.stack
    if not isinstance(stack[index].value, float):
        msg = f"{stack[index]!r} has no single value to vary."
        raise InterventionError(msg)
    baseline = experiment.under(()).outcome(should_stop=should_stop).logits[-1]
    rows = tuple(dict.fromkeys((*measure.rows, experiment.length - 1)))
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        stacks = [(*stack[:index], stack[index].with_value(v), *stack[index + 1 :]) for v in part]
        doses = []
        for begin, logits in experiment.sweep(stacks, rows=rows, should_stop=should_stop):
            read = logits[:, : len(measure.rows)]
            found = measure(read)
            sound = read.flatten(1).isfinite().all(-1)
            measure.check(found[sound], read[sound])
            found = found.where(sound, torch.nan)
            kl = kl_divergence(baseline, logits[:, -1])
            doses += [
                Dose(float(v), m, k)
                for v, m, k in zip(part[begin:], found.tolist(), kl.tolist(), strict=False)
            ]
        yield doses
