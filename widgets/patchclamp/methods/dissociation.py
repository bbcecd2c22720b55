"""Double dissociation: parts that one task needs and another does not, and the reverse.

Fartale, Kattamuri, Raja, Vats, Prasad and Moharir ("Disentangling Recall and Reasoning in
Transformer Models through Layer-wise Attention and Activation Analysis", 2025) take prompts of two
kinds, of recall and of reasoning, and ask whether a model answers them with different parts.
Written from their abstract; what that leaves open is decided here and said.

1. *Score* every part on both tasks. By *patching* (the paper's way): how much of the way from the
   corrupt prompt's metric to the clean one's the part's clean value brings back,

       share = (metric patched - metric corrupt) / (metric clean - metric corrupt),

   or by *ablation*: the metric that its mean ablation costs, as a share of the same difference. The
   two ask for different things. What is the same in both prompts (that a capital is asked for) is
   never seen by patching, and the answer may hang on it.
2. *Rank* by the share in one task minus that in the other, and ablate the top m together. m is
   chosen on some pairs: that for which the one task falls most while the other is spared, falling
   by no more than a few points. What it does is measured on other pairs.
3. Beside it: as many *random* parts of the same layers.

A part is a head, an MLP or a neuron. Neurons can also be ranked by *selectivity*, how far their
values at the last token lie apart between the two tasks in units of their spread,

    d' = (mean one - mean other) / sqrt((variance one + variance other) / 2)

(as in signal detection; Green and Swets, "Signal Detection Theory and Psychophysics", 1966).
What falls is the share of pairs whose likeliest next token, out of all, is the answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from patchclamp.engine.batch import Spot
from patchclamp.errors import InputError
from patchclamp.methods.levels import differing_positions, level, levels
from patchclamp.methods.massive import massive_neurons
from patchclamp.sites import Site, SiteSet

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from torch import Tensor

    from patchclamp.methods.task import Replacement, Task
    from patchclamp.models.anatomy import Anatomy

    ShouldStop = Callable[[], bool]

Among = Literal["head", "mlp", "neuron"]
By = Literal["patching", "ablation", "selectivity"]
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class Fall:
    """What ablating some parts costs both tasks.

    Attributes:
        sites: the parts.
        own: percentage points of accuracy that the task falls for which they were found.
        other: those that the other task falls.
    """

    sites: tuple[Site, ...]
    own: float
    other: float


@dataclass(frozen=True)
class Found:
    """The parts that one task needs more than the other.

    Attributes:
        ranking: all parts, the one that this task needs most beyond the other first.
        curve: on the pairs that m was chosen on, the fall without the top m, for each m tried.
        chosen: on the other pairs, the fall without the chosen ones.
        controls: on these too, the falls without as many random parts of the same layers; none
            for MLPs, of which a layer has one.
    """

    ranking: tuple[Site, ...]
    curve: tuple[Fall, ...]
    chosen: Fall
    controls: tuple[Fall, ...]

    @property
    def worst_control(self) -> float:
        """The most that the task falls without random parts; NaN where there are none."""
        return max((fall.own for fall in self.controls), default=torch.nan)


@dataclass(frozen=True)
class Dissociation:
    """Whether two tasks need different parts.

    Attributes:
        before: the accuracies of both tasks on the pairs that were not chosen on, in percent.
        one: the parts that the first task needs.
        other: the parts that the second task needs.
    """

    before: tuple[float, float]
    one: Found
    other: Found


def parts(task: Task, among: Among) -> tuple[Site, ...]:
    """Return all heads, MLPs, or neurons but the massive-activation ones; on the worker."""
    anatomy = task.engine.model.anatomy
    layers = range(anatomy.n_layers)
    if among == "head":
        return tuple(Site("head", at, i, "z") for at in layers for i in range(anatomy.n_heads))
    if among == "mlp":
        return tuple(Site("mlp", at) for at in layers if "mlp" in anatomy.hooks[at])
    massive = massive_neurons(task.reference, anatomy)
    return tuple(
        Site("neuron", at, i, "post")
        for at in layers
        for i in range(anatomy.n_neurons(at))
        if (at, i) not in massive
    )


def patching_shares(
    task: Task, sites: Sequence[Site], *, should_stop: ShouldStop | None = None
) -> Generator[None, None, Tensor]:
    """Patch each part's clean value, at all positions, into the corrupt run; on the worker.

    It yields between chunks of work.

    Returns:
        Float[site], shares of the way to the clean prompt's metric; see this module.

    Raises:
        InputError: when there are no corrupt prompts, or the metric is the same on both.
    """
    places = differing_positions(task)
    anatomy = task.engine.model.anatomy
    edits = [(Spot.of(site, anatomy, places),) for site in sites]
    clean, corrupt = _ends(task, should_stop)
    values = task.base("clean").capture(_hooks(sites, anatomy), should_stop)
    runs = levels(task, edits, values, side="corrupt", should_stop=should_stop)
    found = yield from _last(runs)
    return (found - corrupt) / (clean - corrupt)


def ablation_shares(
    task: Task,
    sites: Sequence[Site],
    how: Replacement = "mean",
    *,
    should_stop: ShouldStop | None = None,
) -> Generator[None, None, Tensor]:
    """Ablate each part, at all positions; on the worker.

    It yields between chunks of work.

    Returns:
        Float[site], what it costs as a share of the way to the corrupt prompt's metric.

    Raises:
        InputError: when there are no corrupt prompts, or the metric is the same on both.
    """
    anatomy = task.engine.model.anatomy
    edits = [(Spot.of(site, anatomy),) for site in sites]
    clean, corrupt = _ends(task, should_stop)
    values = task.replaced(_hooks(sites, anatomy), how, should_stop=should_stop)
    found = yield from _last(levels(task, edits, values, should_stop=should_stop))
    return (clean - found) / (clean - corrupt)


def selectivity(
    one: Task, other: Task, sites: Sequence[Site], *, should_stop: ShouldStop | None = None
) -> Tensor:
    """Compare neurons' values at the last token of the clean prompts; on the worker.

    Returns:
        Float[site], d': above 0 where a neuron's value is larger in the first task.
    """
    anatomy = one.engine.model.anatomy
    hooks = _hooks(sites, anatomy)
    both = [task.base().capture(hooks, should_stop) for task in (one, other)]
    by_hook: dict[str, Tensor] = {}
    for hook in hooks:
        a, b = (values[hook][:, -1].double() for values in both)
        spread = ((a.var(0, correction=0) + b.var(0, correction=0)) / 2).sqrt()
        by_hook[hook] = ((a.mean(0) - b.mean(0)) / (spread + _LEAST_SPREAD)).float().cpu()
    return torch.stack([by_hook[anatomy.hook(site)][site.index or 0] for site in sites])


def accuracies(
    task: Task,
    sets: Sequence[Sequence[Site]],
    how: Replacement = "mean",
    *,
    should_stop: ShouldStop | None = None,
) -> Generator[None, None, Tensor]:
    """Ablate each set of parts and see how often the answer is still the likeliest next token.

    On the worker; it yields between chunks of work. The set without a part is the model as it is.

    Args:
        task: the pairs; its metric is about an answer and a wrong one.
        sets: heads, MLPs or neurons that are ablated together, at all positions.
        how: what is put in their place.
        should_stop: asked before every block.

    Returns:
        Float64[set], percent of the pairs.

    Raises:
        InputError: when the metric is not about answers.
    """
    if not all(task.tokens):
        msg = (
            "An accuracy is of prompt pairs with answers: set session.pairs, and a metric of the "
            "answer such as LogitDifference."
        )
        raise InputError(msg)
    anatomy = task.engine.model.anatomy
    edits = [tuple(Spot.of(site, anatomy) for site in some) for some in sets]
    values = task.replaced(
        _hooks((site for some in sets for site in some), anatomy), how, should_stop=should_stop
    )
    answers = torch.tensor([tokens[0] for tokens in task.tokens])
    right = torch.zeros(len(edits), dtype=torch.double)
    for items, logits in task.base().sweep(edits, values, should_stop=should_stop):
        if items:
            edit, item = torch.tensor(items).T
            said = logits[:, -1].argmax(-1).cpu()
            right.index_add_(0, edit, (said == answers[item]).double())
        yield
    return 100 * right / task.n_pairs


def dissociate(
    choosing: tuple[Task, Task],
    measuring: tuple[Task, Task],
    *,
    among: Among = "head",
    by: By = "patching",
    how: Replacement = "mean",
    sizes: Sequence[int] = tuple(range(1, 9)),
    spare: float = 5.0,
    seeds: int = 10,
) -> Dissociation:
    """Find the parts that each of two tasks needs beyond the other, and ablate them.

    Of no layer are more than half of the heads or neurons taken, so that there are as many others
    to draw random ones from. Waits for the model's worker.

    Args:
        choosing: pairs of the first and the second task that parts and their number are chosen on.
        measuring: other pairs of both, on which it is measured what ablating them does.
        among: which parts.
        by: "patching" or "ablation", or for neurons "selectivity"; see this module.
        how: what ablated parts are replaced by.
        sizes: the numbers of parts that are tried.
        spare: how many percentage points the other task may fall on the pairs that the number is
            chosen on; where it falls more for every number, that for which it falls least is taken.
        seeds: how many random sets, 5 at least.

    Raises:
        InputError: when there are too few seeds, no sizes or no parts, or a task lacks corrupt
            prompts or answers.
        Stopped: when it was stopped.
    """
    if seeds < 5:
        msg = f"A control takes at least 5 random sets, not {seeds}."
        raise InputError(msg)
    if not sizes or min(sizes) < 1:
        msg = "sizes are how many parts to ablate together, such as (1, 2, 4)."
        raise InputError(msg)
    if by == "selectivity" and among != "neuron":
        msg = f"Selectivity ranks neurons; take patching or ablation to rank by {among}."
        raise InputError(msg)

    def steps(stop: ShouldStop) -> Generator[None, None, Dissociation]:
        sites = parts(choosing[0], among)
        if not sites:
            msg = f"{choosing[0].engine.model.name} has no {among} to ablate."
            raise InputError(msg)
        beyond = yield from _beyond(choosing, sites, by, how, stop)
        first = yield from accuracies(measuring[0], [()], how, should_stop=stop)
        second = yield from accuracies(measuring[1], [()], how, should_stop=stop)
        limits = tuple(sizes), spare, seeds
        one = yield from _found(_ranked(sites, beyond), choosing, measuring, how, limits, stop)
        turned = (choosing[1], choosing[0]), (measuring[1], measuring[0])
        other = yield from _found(_ranked(sites, -beyond), *turned, how, limits, stop)
        return Dissociation((float(first[0]), float(second[0])), one, other)

    job: Callable[[ShouldStop], Any] = steps
    found: Dissociation = choosing[0].engine.queue.submit(job, priority="sweep").result()
    return found


# --- inside ---------------------------------------------------------------------------------------


def _beyond(
    tasks: tuple[Task, Task], sites: Sequence[Site], by: By, how: Replacement, stop: ShouldStop
) -> Generator[None, None, Tensor]:
    """Return Float[site], what a part is to the first task beyond the second."""
    if by == "selectivity":
        return selectivity(*tasks, sites, should_stop=stop)
    shares: list[Tensor] = []
    for task in tasks:
        if by == "patching":
            found = yield from patching_shares(task, sites, should_stop=stop)
        else:
            found = yield from ablation_shares(task, sites, how, should_stop=stop)
        shares.append(found)
    return shares[0] - shares[1]


def _ranked(sites: Sequence[Site], beyond: Tensor) -> tuple[Site, ...]:
    order = beyond.argsort(descending=True, stable=True).tolist()
    return tuple(sites[i] for i in order)


def _found(
    ranking: tuple[Site, ...],
    choosing: tuple[Task, Task],
    measuring: tuple[Task, Task],
    how: Replacement,
    limits: tuple[tuple[int, ...], float, int],
    stop: ShouldStop,
) -> Generator[None, None, Found]:
    sizes, spare, seeds = limits
    anatomy = choosing[0].engine.model.anatomy
    taken = _at_most_half_a_layer(ranking, anatomy)
    sets = list(dict.fromkeys(taken[:size] for size in sorted(sizes)))
    curve = yield from _falls(choosing, sets, how, stop)
    sparing = [fall for fall in curve if fall.other <= spare]
    # The first of equals is the smallest.
    best = max(sparing, key=lambda fall: fall.own) if sparing else min(curve, key=lambda f: f.other)
    drawn: dict[frozenset[Site], tuple[Site, ...]] = {}
    if best.sites[0].kind != "mlp":
        chosen = SiteSet.of(*best.sites)
        banned = [
            Site("neuron", layer, index, "post")
            for layer, index in massive_neurons(choosing[0].reference, anatomy)
        ]
        for seed in range(20 * seeds):  # few heads to draw from give the same set again
            some = chosen.random(seed, anatomy, exclude=banned).sites
            drawn.setdefault(frozenset(some), some)
            if len(drawn) == seeds:
                break
    falls = yield from _falls(measuring, [best.sites, *drawn.values()], how, stop)
    measured, *controls = falls
    return Found(ranking, tuple(curve), measured, tuple(controls))


def _at_most_half_a_layer(ranking: Iterable[Site], anatomy: Anatomy) -> tuple[Site, ...]:
    room = Counter(
        {
            (kind, layer): count // 2
            for layer in range(anatomy.n_layers)
            for kind, count in (("head", anatomy.n_heads), ("neuron", anatomy.n_neurons(layer)))
        }
    )
    taken: list[Site] = []
    for site in ranking:
        place = (site.kind, site.layer or 0)
        if site.kind == "mlp" or room[place] > 0:
            room[place] -= 1
            taken.append(site)
    return tuple(taken)


def _falls(
    tasks: tuple[Task, Task], sets: Sequence[tuple[Site, ...]], how: Replacement, stop: ShouldStop
) -> Generator[None, None, list[Fall]]:
    """Measure what each set costs the first task, which is its own, and the second."""
    own = yield from accuracies(tasks[0], [(), *sets], how, should_stop=stop)
    other = yield from accuracies(tasks[1], [(), *sets], how, should_stop=stop)
    return [
        Fall(some, float(own[0] - a), float(other[0] - b))
        for some, a, b in zip(sets, own[1:], other[1:], strict=True)
    ]


def _last(runs: Iterable[tuple[int, Tensor]]) -> Generator[None, None, Tensor]:
    """Yield after each chunk of some runs; return what the last one has, which is whole."""
    whole = torch.empty(0)
    for _, found in runs:
        whole = found
        yield
    return whole


def _ends(task: Task, stop: ShouldStop | None) -> tuple[float, float]:
    """Return the metric on the clean and on the corrupt prompts."""
    clean = level(task, should_stop=stop)
    corrupt = level(task, side="corrupt", should_stop=stop)
    if clean == corrupt:
        msg = "The metric is the same on clean and corrupt prompts, so there is nothing to share."
        raise InputError(msg)
    return clean, corrupt


def _hooks(sites: Iterable[Site], anatomy: Anatomy) -> list[str]:
    return list(dict.fromkeys(anatomy.hook(site) for site in sites))
