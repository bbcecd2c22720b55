"""What each intervention of a stack does to the metric, beside matched random controls.

The effect of an intervention is the metric with the whole stack minus the metric without that
intervention. Its control is the same stack with the intervention replaced by one on a random neuron
of the same layer that changes what is written to the residual stream by the same norm at every
position, so that an effect of the size of any push of that strength is seen as such. Massive-
activation neurons are never drawn. Where a norm stands between the MLP and the residual stream
(Gemma 2 and 3), the norm is that of what enters it. The control of a direction is a random
direction at the same place, along which the same norm is added at every position. The control of a
knock-out is the same cells in random other heads of the same layer, as many heads as it has; heads
that the stack acts on are not drawn, and where too few are left there is no control.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from patchclamp.interventions import Add, Intervention, Knockout
from patchclamp.methods.massive import massive_neurons
from patchclamp.models.weights import neuron_writes
from patchclamp.sites import Site, SiteSet

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from patchclamp.engine.experiment import Experiment
    from patchclamp.methods.metric import Measure
    from patchclamp.models.anatomy import Anatomy

SEEDS = 5
_TRIES = 8


@dataclass(frozen=True)
class Control:
    """What matched random neurons, directions or heads do to the metric.

    Attributes:
        median: the median effect.
        low: the least.
        high: the largest.
        seeds: how many were drawn.
        neurons: which neurons were drawn; none where something else was.
        heads: which heads were drawn, those of one draw joined by commas.
    """

    median: float
    low: float
    high: float
    seeds: int
    neurons: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()

    @property
    def of(self) -> Literal["neurons", "directions", "heads"]:
        """What was drawn."""
        if self.heads:
            return "heads"
        return "neurons" if self.neurons else "directions"


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
    measure: Measure,
    seeds: int = SEEDS,
    should_stop: Callable[[], bool] | None = None,
) -> Generator[Effect, None, None]:
    """Measure every intervention of a stack, exactly, with its random controls.

    Runs on the model's worker.

    Args:
        experiment: the input and stack.
        measure: what to measure, on the experiment's input.
        seeds: how many random neurons, directions or draws of heads for each control.
        should_stop: asked before every block.

    Yields:
        One effect for each intervention that is not muted, in order.

    Raises:
        MetricError: when the metric is no number under one of the stacks.
    """
    stack = experiment.stack
    for index, intervention in enumerate(stack):
        if intervention.muted:
            continue
        without = (*stack[:index], *stack[index + 1 :])
        drawn = _controls(experiment, without, index, seeds, should_stop)
        stacks = [stack, without, *((*without[:index], c, *without[index:]) for c in drawn)]
        found: list[float] = []
        for _, logits in experiment.sweep(stacks, rows=measure.rows, should_stop=should_stop):
            found += measure.finite(logits).tolist()
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
                tuple(_heads_of(c) for c in drawn if isinstance(c, Knockout)),
            )
        yield Effect(index, with_it - without_it, control)


def _controls(
    experiment: Experiment,
    without: tuple[Intervention, ...],
    index: int,
    seeds: int,
    should_stop: Callable[[], bool] | None,
) -> list[Add] | list[Knockout]:
    """Draw what does as much as an intervention of a neuron, a direction or attention cells."""
    intervention = experiment.stack[index]
    if isinstance(intervention, Knockout):
        return _random_heads(experiment, intervention, seeds)
    site = intervention.site
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


def _random_heads(experiment: Experiment, knocked: Knockout, seeds: int) -> list[Knockout]:
    """Draw other heads of the same layers, in which the same cells are knocked out."""
    anatomy = experiment.engine.model.anatomy
    taken = {head for other in experiment.stack for head in _acted_on(other, anatomy)}
    sites = anatomy.expand(knocked.site)
    layers: dict[int, list[int]] = {}
    for site in sites:
        heads = layers.setdefault(site.layer or 0, [])
        if site.index not in heads:
            heads.append(site.index or 0)
    free = {
        layer: [head for head in range(anatomy.n_heads) if (layer, head) not in taken]
        for layer in layers
    }
    if any(len(free[layer]) < len(heads) for layer, heads in layers.items()):
        return []
    generator = torch.Generator().manual_seed(sum(h for heads in layers.values() for h in heads))
    drawn: dict[frozenset[tuple[int, int]], Knockout] = {}
    for _ in range(_TRIES * seeds):  # the same heads may come again; they count once
        to: dict[tuple[int, int], int] = {}
        for layer, heads in layers.items():
            order = torch.randperm(len(free[layer]), generator=generator)[: len(heads)].tolist()
            chosen_heads = (free[layer][place] for place in order)
            to |= {(layer, head): new for head, new in zip(heads, chosen_heads, strict=True)}
        moved = [replace(site, index=to[site.layer or 0, site.index or 0]) for site in sites]
        chosen = frozenset((layer, head) for (layer, _), head in to.items())
        target = moved[0] if len(moved) == 1 else SiteSet(sites=tuple(moved))
        drawn.setdefault(chosen, Knockout(target, knocked.how))
    return list(drawn.values())[:seeds]


def _acted_on(intervention: Intervention, anatomy: Anatomy) -> set[tuple[int, int]]:
    """The heads, as (layer, head), that an intervention reads or edits."""
    found: set[tuple[int, int]] = set()
    for site in anatomy.expand(intervention.site):
        for end in site.ends or (site,):
            if end.kind not in {"head", "cell"} or end.layer is None or end.index is None:
                continue
            heads = [end.index]
            if end.part in {"k", "v"}:  # heads that share a key/value head share what is done to it
                shared = anatomy.kv_head(end.index)
                heads = [head for head in range(anatomy.n_heads) if anatomy.kv_head(head) == shared]
            found |= {(end.layer, head) for head in heads}
    return found


def _heads_of(knocked: Knockout) -> str:
    sites = knocked.site.sites if isinstance(knocked.site, SiteSet) else (knocked.site,)
    return ", ".join(dict.fromkeys(f"L{site.layer}.H{site.index}" for site in sites))


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
