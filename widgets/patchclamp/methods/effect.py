"""What each intervention of a stack does to the metric, beside matched random controls.

The effect of an intervention is the metric with the whole stack minus the metric without that
intervention. Its control is the same stack with the intervention replaced by one on a random neuron
of the same layer that changes what is written to the residual stream by the same norm at every
position, so that an effect of the size of any push of that strength is seen as such. Massive-
activation neurons are never drawn. Where a norm stands between the MLP and the residual stream
(Gemma 2 and 3), the norm is that of what enters it. The control of a direction is a random
direction at the same place, along which the same norm is added at every position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.interventions import Add, Intervention
from patchclamp.methods.massive import massive_neurons
from patchclamp.models.weights import neuron_writes
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from patchclamp.engine.experiment import Experiment
    from patchclamp.methods.metric import Metric

SEEDS = 5


@dataclass(frozen=True)
class Control:
    """What matched random neurons, or directions, do to the metric.

    Attributes:
        median: the median effect.
        low: the least.
        high: the largest.
        seeds: how many were drawn.
        neurons: which neurons were drawn; none where directions were.
    """

    median: float
    low: float
    high: float
    seeds: int
    neurons: tuple[str, ...]


@dataclass(frozen=True)
class Effect:
    """What one intervention does to the metric.

    Attributes:
        index: which of the stack.
        effect: metric with it minus metric without it.
        control: the same of random neurons; None where there is no such control.
    """

    index: int
    effect: float
    control: Control | None


def effects(
    experiment: Experiment,
    *,
    metric: Metric,
    tokens: tuple[int, ...],
    seeds: int = SEEDS,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[Effect, None, None]:
    """Measure every intervention of a stack, exactly, with its random controls.

    Runs on the model's worker.

    Args:
        experiment: the input and stack.
        metric: what to measure.
        tokens: the ids that the metric is about.
        seeds: how many random neurons for each control.
        should_stop: asked before every block.

    Yields:
        One effect for each intervention that is not muted, in order.
    """
    stack = experiment.stack
    for index, intervention in enumerate(stack):
        if intervention.muted:
            continue
        without = (*stack[:index], *stack[index + 1 :])
        drawn = _controls(experiment, without, index, seeds, should_stop)
        stacks = [stack, without, *((*without[:index], c, *without[index:]) for c in drawn)]
        found: list[float] = []
        for _, logits in experiment.sweep(stacks, should_stop=should_stop):
            found += metric.of(logits[:, -1], tokens).tolist()
        with_it, without_it, *controls = found
        control = None
        if controls:
            pushed = torch.tensor(controls) - without_it
            control = Control(
                float(pushed.median()),
                float(pushed.min()),
                float(pushed.max()),
                len(drawn),
                tuple(
                    c.site.address
                    for c in drawn
                    if isinstance(c.site, Site) and c.site.kind == "neuron"
                ),
            )
        yield Effect(index, with_it - without_it, control)


def _controls(
    experiment: Experiment,
    without: tuple[Intervention, ...],
    index: int,
    seeds: int,
    should_stop: Callable[[], bool] | None,
) -> list[Add]:
    """Draw what pushes the stream as far as a neuron's or a direction's intervention does."""
    site = experiment.stack[index].site
    if not isinstance(site, Site) or site.kind not in {"neuron", "direction"}:
        return []
    model = experiment.engine.model
    read = Site("neuron", site.layer, site.index, "post") if site.kind == "neuron" else site
    hook = model.anatomy.hook(read)
    length = experiment.length
    where = site.positions.indices(0, length, length, experiment.given.has_bos)
    if not where:
        return []
    after = experiment.capture([hook], should_stop=should_stop)[hook][where]
    before = experiment.under(without).capture([hook], should_stop=should_stop)[hook][where]
    change = (after - before).float()
    if site.kind == "direction":
        return _random_directions(model.anatomy.home(site).at(where), change, seeds)
    return _random_neurons(experiment, site.at(where), change[:, site.index or 0], seeds)


def _random_directions(home: Site, change: Tensor, seeds: int) -> list[Add]:
    """Draw directions at a component, to be added as far as a change, Float[pos, d], goes."""
    generator = torch.Generator().manual_seed(home.layer or 0)
    drawn = torch.randn(seeds, change.shape[-1], generator=generator)
    lengths = tuple(change.norm(dim=-1).tolist())
    return [Add(home, lengths, direction=(d / d.norm()).tolist()) for d in drawn]


def _random_neurons(experiment: Experiment, site: Site, change: Tensor, seeds: int) -> list[Add]:
    """Draw neurons of a layer, to be pushed as a neuron's change, Float[pos], pushes the stream.

    Neurons that another intervention of the stack acts on are not drawn: it would undo the push.
    """
    model = experiment.engine.model
    layer, neuron = site.layer or 0, site.index or 0
    norms = neuron_writes(model.bridge, layer).float().norm(dim=-1)
    taken = set(massive_neurons(experiment.surroundings.reference, model.anatomy))
    for other in experiment.stack:
        sites = model.anatomy.expand(other.site)
        taken |= {(s.layer or 0, s.index or 0) for s in sites if s.kind == "neuron"}
    free = [n for n in range(len(norms)) if (layer, n) not in taken and float(norms[n]) > 0]
    generator = torch.Generator().manual_seed(neuron)
    chosen = [free[i] for i in torch.randperm(len(free), generator=generator)[:seeds].tolist()]
    pushes = change * norms[neuron]
    return [
        Add(
            Site("neuron", layer, n, "post", positions=site.positions),
            tuple((pushes / norms[n]).tolist()),
        )
        for n in chosen
    ]
