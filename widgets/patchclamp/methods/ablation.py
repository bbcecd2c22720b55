"""What each component does: the metric with a head or an MLP replaced, minus the metric without.

Replaced is what the component writes, at all positions but that of a beginning-of-sequence token;
by what, see :mod:`patchclamp.methods.task`. Everything downstream follows. Effects are averaged
over the pairs and keep the metric's unit; the stack of the task stays in place, the replacement
comes after it.

Two ways to have them:

- *exact* (:func:`component_effects`): a run for every component.
- *estimated* (:func:`component_estimates`): the sum over positions of
  (replacement - value) · gradient of the metric by the value. One forward and one backward pass for
  all components together (attribution patching: Nanda, "Attribution Patching: Activation Patching
  At Industrial Scale", 2023; Syed, Rager and Conmy, "Attribution Patching Outperforms Automated
  Circuit Discovery", 2023). It is first order, and wrong where a component's output is far from
  what replaces it.

A component is looked into in the same way: a head's queries, keys, values and output, an MLP's
neurons, and either at single positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.batch import Spot
from patchclamp.errors import MetricError
from patchclamp.methods.levels import all_levels, differing_positions, level, levels
from patchclamp.methods.massive import massive_neurons
from patchclamp.methods.metric import KL
from patchclamp.models.weights import neuron_writes
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from torch import Tensor

    from patchclamp.engine.batch import Cost, Edit
    from patchclamp.methods.task import Replacement, Task
    from patchclamp.models.anatomy import Anatomy

    ShouldStop = Callable[[], bool]

NO_ESTIMATE = (
    "There is no estimate of a KL divergence: it has its minimum at the baseline, so that its "
    "gradient there is 0 whatever a component does. Take the exact effects, or another metric."
)
PARTS = ("q", "k", "v", "z")


@dataclass(frozen=True, eq=False)
class ComponentEffects:
    """Effects of components, as far as they are measured.

    Attributes:
        how: what components are replaced by.
        baseline: the metric under the task's stack, averaged over the pairs.
        values: Float[layer, column], effects; columns are the heads and, in a model with MLPs, last
            the MLP. NaN where it was not measured yet, or there is no such component.
        done: how many components are measured on all pairs.
        total: how many there are.
    """

    how: Replacement
    baseline: float
    values: Tensor
    done: int
    total: int


@dataclass(frozen=True)
class NeuronEffect:
    """What a neuron does.

    Attributes:
        address: the neuron.
        estimate: the first-order estimate; None where there is none.
        exact: the effect.
    """

    address: str
    estimate: float | None
    exact: float


@dataclass(frozen=True, eq=False)
class Parts:
    """Exact effects of a component's parts.

    Attributes:
        address: the component.
        how: what is put in their place.
        baseline: the metric under the task's stack.
        parts: of a head, the effect of its "q", "k", "v" and "z", where the model has them.
        positions: Float[pos], the effect of its output at each position alone.
        neurons: of an MLP, the strongest neurons, the largest absolute effect first.
        total: how many neurons it has.
        note: what else must be known, in a sentence; may be empty.
    """

    address: str
    how: Replacement
    baseline: float
    parts: Mapping[str, float]
    positions: Tensor
    neurons: tuple[NeuronEffect, ...] = ()
    total: int = 0
    note: str = ""


def components(anatomy: Anatomy) -> dict[tuple[int, int], Site]:
    """Return the heads and MLPs of a model by (layer, column) of the map of effects."""
    heads = {
        (layer, head): Site("head", layer, head, "z")
        for layer in range(anatomy.n_layers)
        for head in range(anatomy.n_heads)
        if "head:z" in anatomy.hooks[layer]
    }
    mlps = {
        (layer, anatomy.n_heads): Site("mlp", layer)
        for layer in range(anatomy.n_layers)
        if "mlp" in anatomy.hooks[layer]
    }
    return heads | mlps


def why_no_estimate(task: Task) -> str:
    """Return a sentence where a first-order estimate says nothing; empty where it does."""
    # Under a stack the run is away from the baseline, and the gradient is not 0.
    return NO_ESTIMATE if isinstance(task.metric, KL) and not task.stack else ""


def component_estimates(
    task: Task,
    how: Replacement,
    *,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> Tensor:
    """Estimate what replacing each head and MLP does, to first order; see this module.

    Runs on the model's worker.

    Args:
        task: the pairs and the metric.
        how: what components are replaced by.
        seed: of what is resampled.
        should_stop: asked before every block.

    Returns:
        Float[layer, column] as in :class:`ComponentEffects`. All NaN for a KL divergence without a
        stack, whose gradient at the baseline is 0: :func:`why_no_estimate` says so in a sentence.

    Raises:
        MetricError: when the metric is no number, or has no gradient.
        InputError: when there are no corrupt prompts to replace by.
        Stopped: when ``should_stop`` said so.
    """
    anatomy = task.engine.model.anatomy
    table = components(anatomy)
    found = _empty(anatomy)
    if why_no_estimate(task):
        return found
    products = _attributions(task, _hooks(table.values(), anatomy), how, seed, should_stop)
    for (layer, column), site in table.items():
        product = products[anatomy.hook(site)]
        found[layer, column] = (product if site.index is None else product[site.index]).sum()
    return found


def component_effects(
    task: Task,
    how: Replacement,
    *,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> Generator[ComponentEffects, None, None]:
    """Measure what replacing each head and MLP does, exactly; see this module.

    Runs on the model's worker; the last layers, which cost least, come first.

    Args:
        task: the pairs and the metric.
        how: what components are replaced by.
        seed: of what is resampled.
        should_stop: asked before every block.

    Yields:
        What is measured so far, after each chunk; the last one is whole.

    Raises:
        MetricError: when the metric is no number with some component replaced; what was measured
            before was yielded.
        InputError: when there are no corrupt prompts to replace by.
        Stopped: when ``should_stop`` said so.
    """
    anatomy = task.engine.model.anatomy
    table = components(anatomy)
    baseline = level(task, should_stop=should_stop)
    values = task.replaced(_hooks(table.values(), anatomy), how, seed=seed, should_stop=should_stop)
    edits = component_edits(task, how)
    rows, columns = (torch.tensor(axis) for axis in zip(*table, strict=True))
    for done, measured in levels(task, edits, values, should_stop=should_stop):
        found = _empty(anatomy)
        found[rows, columns] = measured - baseline
        yield ComponentEffects(how, baseline, found, done, len(edits))


def component_edits(task: Task, how: Replacement) -> list[Edit]:
    """Return the runs of :func:`component_effects`, one for each of :func:`components`."""
    anatomy = task.engine.model.anatomy
    places = _places(task, how)
    return [(Spot.of(site, anatomy, places),) for site in components(anatomy).values()]


def effects_cost(task: Task, how: Replacement) -> Cost:
    """Say what :func:`component_effects` takes; nothing is run. On the model's worker.

    Raises:
        BudgetError: when one run alone needs more memory than there is.
    """
    return task.base().cost(component_edits(task, how), task.rows)


def into_head(
    task: Task,
    layer: int,
    head: int,
    how: Replacement,
    *,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> Parts:
    """Measure what replacing a head's queries, keys, values and output does, and where.

    Keys and values are a key/value head's, so that with grouped-query attention replacing them acts
    on every head that shares it; the note says which. Runs on the model's worker.

    Args:
        task: the pairs and the metric.
        layer: the head's layer.
        head: the query head.
        how: what they are replaced by.
        seed: of what is resampled.
        should_stop: asked before every block.

    Raises:
        AddressError: when the model has no such head.
        MetricError: when the metric is no number with something replaced.
        InputError: when there are no corrupt prompts to replace by.
        Stopped: when ``should_stop`` said so.
    """
    anatomy = task.engine.model.anatomy
    whole = Site("head", layer, head, "z")
    anatomy.check(whole)
    sites = {
        part: Site("head", layer, head, part)
        for part in PARTS
        if f"head:{part}" in anatomy.hooks[layer]
    }
    edits: dict[str, Edit] = {
        part: (Spot.of(site, anatomy, _places(task, how)),) for part, site in sites.items()
    }
    edits |= _by_position(task, whole, how)
    values = task.replaced(_hooks(sites.values(), anatomy), how, seed=seed, should_stop=should_stop)
    baseline = level(task, should_stop=should_stop)
    found = _measured(task, edits, values, baseline, should_stop)
    return Parts(
        str(whole),
        how,
        baseline,
        {part: found[part] for part in sites},
        _positions(task, found),
        note=_sharing(anatomy, layer, head),
    )


def into_mlp(
    task: Task,
    layer: int,
    how: Replacement,
    *,
    count: int = 12,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> Parts:
    """Measure what replacing an MLP's strongest neurons does, and its output at each position.

    The neurons are those with the largest estimate. Where there is none (see
    :func:`why_no_estimate`; or the metric has no gradient), those whose replacement changes most
    what is written to the residual stream; the note says why. Massive-activation neurons are left
    out. Runs on the model's worker.

    Args:
        task: the pairs and the metric.
        layer: the MLP's layer.
        how: what neurons, and the output, are replaced by.
        count: how many neurons are measured.
        seed: of what is resampled.
        should_stop: asked before every block.

    Raises:
        AddressError: when the model has no such MLP.
        MetricError: when the metric is no number with something replaced.
        InputError: when there are no corrupt prompts to replace by.
        Stopped: when ``should_stop`` said so.
    """
    anatomy = task.engine.model.anatomy
    whole = Site("mlp", layer)
    hook = anatomy.hook(whole)
    total = anatomy.n_neurons(layer)
    neurons: list[tuple[int, float | None]] = []
    hooks, note = [hook], ""
    edits: dict[str, Edit] = _by_position(task, whole, how)
    if total:
        post = anatomy.hook(Site("neuron", layer, 0, "post"))
        hooks.append(post)
        neurons, note = _strongest(task, layer, how, count, seed, should_stop)
        for index, _ in neurons:
            spot = Spot(post, index, _places(task, how))
            edits[f"N{index}"] = (spot,)
    values = task.replaced(hooks, how, seed=seed, should_stop=should_stop)
    baseline = level(task, should_stop=should_stop)
    found = _measured(task, edits, values, baseline, should_stop)
    measured = [
        NeuronEffect(f"L{layer}.N{index}", estimate, found[f"N{index}"])
        for index, estimate in neurons
    ]
    measured.sort(key=lambda neuron: -abs(neuron.exact))
    return Parts(
        str(whole),
        how,
        baseline,
        {},
        _positions(task, found),
        neurons=tuple(measured),
        total=total,
        note=note,
    )


# --- inside ---------------------------------------------------------------------------------------


def _hooks(sites: Iterable[Site], anatomy: Anatomy) -> list[str]:
    return list(dict.fromkeys(anatomy.hook(site) for site in sites))


def _empty(anatomy: Anatomy) -> Tensor:
    """Return Float[layer, column] of NaN."""
    return torch.full((anatomy.n_layers, anatomy.n_heads + (not anatomy.attn_only)), torch.nan)


def _places(task: Task, how: Replacement) -> tuple[int, ...]:
    """Return where a component is replaced, without places where that changes nothing."""
    places = task.base().positions
    if how != "corrupt":
        return places
    differing = set(differing_positions(task))
    return tuple(place for place in places if place in differing)


def _by_position(task: Task, site: Site, how: Replacement) -> dict[str, Edit]:
    """Return one edit for each position at which replacing what stands there can do something."""
    places = differing_positions(task) if how == "corrupt" else range(task.length)
    anatomy = task.engine.model.anatomy
    return {f"@{place}": (Spot.of(site, anatomy, (place,)),) for place in places}


def _measured(
    task: Task,
    edits: Mapping[str, Edit],
    values: Mapping[str, Tensor],
    baseline: float,
    should_stop: ShouldStop | None,
) -> dict[str, float]:
    """Return the effect of each edit."""
    found = all_levels(task, list(edits.values()), values, should_stop=should_stop)
    return dict(zip(edits, (found - baseline).tolist(), strict=True))


def _positions(task: Task, found: Mapping[str, float]) -> Tensor:
    """Return Float[pos], 0 at the positions where nothing can change."""
    return torch.tensor([found.get(f"@{place}", 0.0) for place in range(task.length)])


def _attributions(
    task: Task,
    hooks: Sequence[str],
    how: Replacement,
    seed: int,
    should_stop: ShouldStop | None,
) -> dict[str, Tensor]:
    """Return Float[...] by hook point: (replacement - value) · gradient, summed over positions.

    It has the hook point's shape at one position, and is averaged over the pairs.
    """
    batch, measure = task.base(), task.measure(should_stop)

    def objective(logits: Tensor, items: Sequence[int]) -> Tensor:
        return measure.at(items).differentiable(logits)

    replaced = task.replaced(hooks, how, seed=seed, should_stop=should_stop)
    places = list(batch.positions)
    total: dict[str, Tensor] = {}
    # Values and gradients at every hook point are held at once: only of so many pairs.
    for begin in range(0, batch.count, batch.at_once):
        items = list(range(begin, min(begin + batch.at_once, batch.count)))
        graded, _, _ = batch.gradients(
            hooks, objective, task.rows, items=items, should_stop=should_stop
        )
        for hook, (value, grad) in graded.items():
            put = replaced[hook].to(value)
            put = put[items] if put.shape[0] > 1 else put
            product = ((put - value) * grad)[:, places].sum((0, 1))
            total[hook] = total[hook] + product if hook in total else product
    return {hook: product / batch.count for hook, product in total.items()}


def _strongest(
    task: Task,
    layer: int,
    how: Replacement,
    count: int,
    seed: int,
    should_stop: ShouldStop | None,
) -> tuple[list[tuple[int, float | None]], str]:
    """Return a layer's neurons that are worth measuring, with their estimates, or why none."""
    model = task.engine.model
    hook = model.anatomy.hook(Site("neuron", layer, 0, "post"))
    estimates: Tensor | None = None
    why = why_no_estimate(task)
    if not why:
        try:
            estimates = _attributions(task, [hook], how, seed, should_stop)[hook].cpu().float()
        except MetricError as error:  # no gradient; a number it may be all the same
            why = str(error)
    if estimates is None:
        batch = task.base()
        value = batch.capture([hook], should_stop)[hook]
        replaced = task.replaced([hook], how, seed=seed, should_stop=should_stop)[hook]
        moved = (replaced.to(value) - value)[:, list(batch.positions)].abs().sum(1).mean(0)
        size = (moved * neuron_writes(model.bridge, layer).norm(dim=-1)).cpu().float()
    else:
        size = estimates.abs()
    massive = massive_neurons(task.reference, model.anatomy, should_stop)
    left_out = [index for at, index in massive if at == layer]
    size[left_out] = -1
    best = size.topk(max(0, min(count, len(size) - len(left_out)))).indices.tolist()
    known = None if estimates is None else estimates.tolist()
    return [(index, None if known is None else known[index]) for index in best], why


def _sharing(anatomy: Anatomy, layer: int, head: int) -> str:
    own = anatomy.kv_head(head)
    others = [
        f"L{layer}.H{other}"
        for other in range(anatomy.n_heads)
        if other != head and anatomy.kv_head(other) == own
    ]
    if not others:
        return ""
    return (
        f"L{layer}.H{head} has its keys and values in common with {', '.join(others)}: replacing "
        "them acts on all of these heads."
    )
