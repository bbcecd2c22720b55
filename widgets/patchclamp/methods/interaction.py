"""The interaction of two ablations: what both do beyond what each does by itself.

    interaction = effect of A and B - effect of A - effect of B

It is 0 where A and B act on the metric independently. Of two components that back each other up,
each does little alone and both together much; of two in a row, the second does nothing once the
first is gone (Wang et al., "Interpretability in the Wild", 2022, found both). Two ablations of
anything interact somewhat, as norms and the metric are not linear. So its control is A with random
components of the same kinds in B's place: heads and neurons of the same layers; another layer's
MLP, attention or residual stream, as a layer has only one. Components of A and B and
massive-activation neurons are not drawn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from patchclamp.engine.batch import Spot
from patchclamp.errors import InputError
from patchclamp.methods.levels import all_levels, level
from patchclamp.methods.massive import massive_neurons
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patchclamp.engine.batch import Edit
    from patchclamp.methods.task import Replacement, Task
    from patchclamp.models.anatomy import Anatomy

    ShouldStop = Callable[[], bool]

SEEDS = 5
KINDS = frozenset({"neuron", "head", "mlp", "attn", "resid_pre", "resid_post"})
"""What can be replaced."""

_TRIES = 8


@dataclass(frozen=True)
class Interaction:
    """Effects of two ablations, each minus the metric without any; averaged over the pairs.

    Attributes:
        effect_a: of A alone.
        effect_b: of B alone.
        both: of A and B together.
        interaction: both - effect_a - effect_b.
        control: the largest absolute interaction of A with random components in B's place; None
            where too few are left to draw from.
        seeds: how many were drawn.
        note: why there is no control, in a sentence; empty where there is one.
    """

    effect_a: float
    effect_b: float
    both: float
    interaction: float
    control: float | None
    seeds: int
    note: str = ""


def interaction(
    task: Task,
    a: Sequence[Site],
    b: Sequence[Site],
    how: Replacement,
    *,
    seeds: int = SEEDS,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> Interaction:
    """Measure what replacing A, B, and both does, exactly, with a control; see this module.

    Runs on the model's worker.

    Args:
        task: the pairs and the metric; its stack stays in place.
        a: components, such as L5.H3, L5.mlp or L5.N304, at the positions of their addresses.
        b: others.
        how: what they are replaced by.
        seeds: how many random B's are drawn.
        seed: of what is drawn and resampled.
        should_stop: asked before every block.

    Raises:
        InputError: when A or B is empty, both have a component in common, or there are no corrupt
            prompts to replace by.
        AddressError: when the model has no such component.
        MetricError: when the metric is no number under one of the ablations.
        Stopped: when ``should_stop`` said so.
    """
    edit_a, edit_b = (_edit(task, sites, name) for sites, name in ((a, "A"), (b, "B")))
    own = _cells(edit_a, task)
    common = [str(site) for site in b if own & _cells(_edit(task, [site], "B"), task)]
    if common:
        msg = (
            f"A and B both have {', '.join(common)}: how two ablations interact can only be said "
            "of different components."
        )
        raise InputError(msg)
    drawn, note = _controls(task, a, b, seeds, seed, should_stop)
    edits: list[Edit] = [edit_a, edit_b, (*edit_a, *edit_b)]
    for sites in drawn:
        other = _edit(task, sites, "B")
        edits += [other, (*edit_a, *other)]
    hooks = list(dict.fromkeys(spot.hook for edit in edits for spot in edit))
    values = task.replaced(hooks, how, seed=seed, should_stop=should_stop)
    baseline = level(task, should_stop=should_stop)
    found = all_levels(task, edits, values, should_stop=should_stop)
    effect_a, *others = (found - baseline).tolist()
    alone, together = others[0::2], others[1::2]
    each = [both - effect_a - one for one, both in zip(alone, together, strict=True)]
    return Interaction(
        effect_a,
        alone[0],
        together[0],
        each[0],
        max(map(abs, each[1:]), default=None),
        len(drawn),
        note,
    )


def _edit(task: Task, sites: Sequence[Site], name: str) -> Edit:
    """Return what ablating some sites at once puts where.

    Raises:
        InputError: when there are none, or one has no value that can be replaced.
        AddressError: when the model has none such.
    """
    if not sites:
        msg = f"{name} is empty: name at least one component to ablate, such as L5.H3."
        raise InputError(msg)
    anatomy, length = task.engine.model.anatomy, task.length
    spots = []
    for site in sites:
        anatomy.check(site, length)
        if site.kind not in KINDS or site.part == "act":
            msg = (
                f"{site} has no value that can be replaced: name heads (L5.H3), MLPs (L5.mlp) or "
                "neurons (L5.N7)."
            )
            raise InputError(msg)
        positions = None
        if not site.positions.is_default:
            has_bos = task.base().has_bos
            positions = tuple(site.positions.indices(0, length, length, has_bos))
        spots.append(Spot.of(site, anatomy, positions))
    return tuple(dict.fromkeys(spots))


def _cells(edit: Edit, task: Task) -> set[tuple[str, int | None, int]]:
    """Return everything that an edit touches, position by position."""
    everywhere = task.base().positions
    return {
        (spot.hook, spot.index, place)
        for spot in edit
        for place in (everywhere if spot.positions is None else spot.positions)
    }


def _controls(
    task: Task,
    a: Sequence[Site],
    b: Sequence[Site],
    seeds: int,
    seed: int,
    should_stop: ShouldStop | None,
) -> tuple[list[list[Site]], str]:
    """Draw components in B's place, several times; or say why there are too few."""
    anatomy = task.engine.model.anatomy
    used = {_place(site, anatomy) for site in (*a, *b)}
    if any(site.kind == "neuron" for site in b):
        used |= {
            _place(Site("neuron", layer, index, "post"), anatomy)
            for layer, index in massive_neurons(task.reference, anatomy, should_stop)
        }
    wanted: dict[Site, int] = {}  # how many like this one
    for site in {_place(site, anatomy): site for site in b}.values():
        like = replace(site, layer=0) if site.index is None else replace(site, index=0)
        wanted[like] = wanted.get(like, 0) + 1
    pools: dict[Site, list[Site]] = {}
    for like, count in wanted.items():
        every = {_place(site, anatomy): site for site in _alike(like, anatomy)}
        pools[like] = [site for place, site in every.items() if place not in used]
        if len(pools[like]) < count:
            what = f"{like.kind}s" if like.index is None else f"{like.kind}s in layer {like.layer}"
            msg = (
                f"There is no control: B has {count} {what}, and A and B leave {len(pools[like])} "
                "to draw from."
            )
            return [], msg
    generator = random.Random(seed)  # noqa: S311 (a control, not a secret)
    drawn: dict[frozenset[Site], None] = {}
    for _ in range(seeds * _TRIES):
        if len(drawn) < seeds:
            one = (site for like, n in wanted.items() for site in generator.sample(pools[like], n))
            drawn[frozenset(one)] = None
    return [sorted(sites, key=str) for sites in drawn], ""


def _place(site: Site, anatomy: Anatomy) -> tuple[str, int | None]:
    spot = Spot.of(site, anatomy)
    return spot.hook, spot.index


def _alike(site: Site, anatomy: Anatomy) -> list[Site]:
    """Return what could stand in a site's place."""
    if site.index is None:
        layers = range(anatomy.n_layers)
        return [replace(site, layer=n) for n in layers if site.kind in anatomy.hooks[n]]
    layer = site.layer or 0
    count = anatomy.n_heads if site.kind == "head" else anatomy.n_neurons(layer)
    return [replace(site, index=index) for index in range(count)]
