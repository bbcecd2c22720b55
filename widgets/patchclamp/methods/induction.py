"""Are these the induction heads? Knock them out, and see whether a repeat can still be foretold.

An induction head looks for an earlier occurrence of the current token, attends to the token after
it, and says that this comes next (Elhage et al., "A Mathematical Framework for Transformer
Circuits", 2021; Olsson et al., "In-context Learning and Induction Heads", 2022). On random tokens
that come twice nothing else can foretell the second half. So, with the loss

    L(half) = mean over the tokens t of a half of -log p(x[t] | x[< t]),   in nats,

a set of induction heads is one without which L(second half) rises towards L(first half), while it
does not without as many other heads of the same layers. That a head attends to the right token
(:func:`patchclamp.methods.head_scores.random_induction`) does not show this: what it attends to may
not matter.

There are two ways of knocking a head out:

- *ablate*: what the whole head reads is put to its mean over random tokens that do not repeat;
- *cells*: only its attention from each token of the second half to the token after that one's first
  occurrence is taken away, the rest of the row scaled up to one. All else that the head does stays.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.functional import cross_entropy

from patchclamp.engine.experiment import Experiment
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference, Surroundings
from patchclamp.errors import InputError, ModelError
from patchclamp.interventions import Ablate, Knockout
from patchclamp.methods.head_scores import repeated_tokens
from patchclamp.sites import Site, SiteSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from patchclamp.engine.engine import Engine
    from patchclamp.engine.plan import Stack
    from patchclamp.interventions import Intervention

    ShouldStop = Callable[[], bool]

How = Literal["ablate", "cells"]
_REFERENCE = 8
_REFERENCE_SEED = 2**31  # far from the seeds that people take for their own sequences


@dataclass(frozen=True)
class Losses:
    """Mean losses on random tokens that come twice, in nats.

    Attributes:
        first: of the tokens the first time.
        second: of the tokens the second time, without the first of them, which nothing foretells.
    """

    first: float
    second: float


@dataclass(frozen=True)
class Trial:
    """The losses without some heads.

    Attributes:
        heads: which.
        losses: the losses without them.
    """

    heads: tuple[Site, ...]
    losses: Losses


@dataclass(frozen=True)
class KnockOut:
    """What knocking out some heads does to the loss on a repeat, beside random heads.

    Attributes:
        how: in which way they were knocked out.
        before: the losses with all heads.
        found: the trial without the heads in question.
        controls: trials without as many other heads of the same layers, one a seed.
    """

    how: How
    before: Losses
    found: Trial
    controls: tuple[Trial, ...]

    @property
    def rise(self) -> float:
        """How much the loss on the second half rises without the heads, in nats."""
        return self.found.losses.second - self.before.second

    @property
    def control_rises(self) -> tuple[float, ...]:
        """The same without each random set of heads."""
        return tuple(trial.losses.second - self.before.second for trial in self.controls)


def induction_cells(given: Input, length: int) -> list[tuple[int, int]]:
    """Return the cells that an induction head reads in random tokens that come twice.

    Args:
        given: what :func:`patchclamp.methods.head_scores.repeated_tokens` drew.
        length: how many tokens come twice.

    Returns:
        Destination and source of each: a token of the second half, and the token after its first
        occurrence.

    >>> induction_cells(Input((5, 6, 7, 5, 6, 7), has_bos=False), 3)
    [(3, 1), (4, 2), (5, 3)]
    """
    end = len(given.ids)
    return [(place, place - length + 1) for place in range(end - length, end)]


def losses(
    engine: Engine,
    stacks: Callable[[Input], Sequence[Stack]],
    *,
    length: int = 25,
    batch: int = 4,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> list[Losses]:
    """Measure the loss on repeated random tokens under several stacks of interventions.

    Means are taken over random tokens that do not repeat. Runs on the model's worker.

    Args:
        engine: what runs the model.
        stacks: the stacks for an input; as many for each.
        length: tokens of each half.
        batch: how many sequences are drawn.
        seed: of what is drawn.
        should_stop: asked before every block.

    Returns:
        The losses under each stack, means over the sequences.

    Raises:
        InputError: when the model has too few tokens or too short a context.
        ModelError: when the model foretells no next token.
    """
    model = engine.model
    if not model.anatomy.causal:
        msg = f"{model.name} is an encoder, which foretells no next token: it has no such loss."
        raise ModelError(msg)
    found: list[Tensor] = []
    reference = Reference(engine, _unrepeated(engine, length))
    surroundings = Surroundings(engine, reference)
    inputs = repeated_tokens(model, length=length, batch=batch, seed=seed)
    # All layers' means in one pass, not one after the other.
    ablated = [iv.site for stack in stacks(inputs[0]) for iv in stack if isinstance(iv, Ablate)]
    sites = [site for some in ablated for site in model.anatomy.expand(some)]
    hooks = list(dict.fromkeys(model.anatomy.hook(site) for site in sites))
    for _ in reference.measure(hooks, should_stop=should_stop):
        pass
    for given in inputs:
        # The context tells runs with this reference set from runs with another one.
        experiment = Experiment(engine, given, (), surroundings, ("induction", reference.inputs))
        start = len(given.ids) - 2 * length
        rows = range(max(start - 1, 0), len(given.ids) - 1)
        targets = torch.tensor(given.ids[rows.start + 1 :])
        each: list[Tensor] = []
        for _, logits in experiment.sweep(stacks(given), rows, should_stop):
            log_probs = logits.float().cpu().transpose(1, 2)
            each.append(cross_entropy(log_probs, targets.expand(len(logits), -1), reduction="none"))
        found.append(torch.cat(each))
    mean = torch.stack(found).double().mean(0)  # [stack, token]
    first, second = mean[:, :-length], mean[:, 1 - length :]
    return [Losses(float(a), float(b)) for a, b in zip(first.mean(1), second.mean(1), strict=True)]


def knock_out_heads(
    engine: Engine,
    heads: SiteSet | Site | str | Iterable[Site | str],
    *,
    how: How = "ablate",
    seeds: int = 10,
    length: int = 25,
    batch: int = 4,
    seed: int = 0,
) -> KnockOut:
    """Knock out some heads together, and as many random ones, and measure the loss on a repeat.

    A random set has as many heads of each layer as the set in question, and none of its members.
    Waits for the model's worker.

    Args:
        engine: what runs the model.
        heads: the heads in question: addresses, or a set such as "{L5.H3, L6.H0}".
        how: "ablate" or "cells"; see this module.
        seeds: how many random sets, 5 at least; where the layers have fewer, all that there are.
        length: tokens of each half.
        batch: how many sequences are drawn.
        seed: of what is drawn: another one than that of the scores that the heads were found by.

    Raises:
        AddressError: when the model lacks a head, or a layer has too few others.
        InputError: when there are too few seeds, or the tokens do not fit the model.
        InterventionError: when the model's attention cannot be edited.
        ModelError: when the model foretells no next token.
        Stopped: when it was stopped.
    """
    if seeds < 5:
        msg = f"A control takes at least 5 random sets of heads, not {seeds}."
        raise InputError(msg)
    anatomy = engine.model.anatomy
    chosen = SiteSet.of(*([heads] if isinstance(heads, SiteSet | Site | str) else heads))
    own = frozenset(anatomy.expand(chosen))
    if not own:
        msg = "There is no head to knock out: the set is empty."
        raise InputError(msg)
    if wrong := [str(site) for site in own if site.kind != "head"]:
        msg = f"{wrong[0]} is no head: knock_out_heads takes heads such as L5.H3."
        raise InputError(msg)
    # A draw can come twice where a layer has few other heads: then go on with the next seed.
    drawn: dict[frozenset[Site], None] = {}
    for draw in range(20 * seeds):
        drawn.setdefault(frozenset(anatomy.expand(chosen.random(draw, anatomy))))
        if len(drawn) == seeds:
            break
    sets = [own, *drawn]

    def stacks(given: Input) -> list[Stack]:
        cells = induction_cells(given, length)
        return [(), *(tuple(_without(_ordered(some), how, cells)) for some in sets)]

    def job(stop: ShouldStop) -> list[Losses]:
        return losses(engine, stacks, length=length, batch=batch, seed=seed, should_stop=stop)

    before, *after = engine.queue.submit(job).result()
    found, *controls = (
        Trial(tuple(_ordered(some)), measured) for some, measured in zip(sets, after, strict=True)
    )
    return KnockOut(how, before, found, tuple(controls))


def counts(trial: Trial) -> dict[int, int]:
    """Return how many heads of a trial each layer has."""
    return dict(sorted(Counter(site.layer or 0 for site in trial.heads).items()))


def _ordered(heads: frozenset[Site]) -> list[Site]:
    return sorted(heads, key=lambda site: (site.layer or 0, site.index or 0))


def _without(heads: list[Site], how: How, cells: list[tuple[int, int]]) -> list[Intervention]:
    if how == "ablate":
        return [Ablate(head) for head in heads]
    return [
        Knockout(SiteSet.of(*(Site("cell", head.layer, head.index, cell=c) for c in cells)))
        for head in heads
    ]


def _unrepeated(engine: Engine, length: int) -> tuple[Input, ...]:
    """Draw random tokens that do not repeat, to take means over."""
    drawn = repeated_tokens(engine.model, length=length, batch=_REFERENCE, seed=_REFERENCE_SEED)
    return tuple(Input(one.ids[: len(one.ids) - length], one.has_bos) for one in drawn)
