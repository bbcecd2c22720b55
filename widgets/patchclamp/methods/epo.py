"""Evolutionary prompt optimization (EPO): prompts for a unit, from fluent to extreme.

A unit's strongest prompt is mostly gibberish, and which activation is worth which fluency is not
for an algorithm to say. So a population of prompts is kept, one for each of a range of penalties::

    f_k(t) = activation(t) - penalty_k * cross_entropy(t)

with the cross-entropy in nats a token by the same model. An iteration takes, from every member, the
gradient of its own f_k by the one-hot tokens, draws children (a random position, a random token of
the ``top_k`` best there), tries them all, and keeps for each penalty the best of all parents and
children. Now and then the population starts anew from one member, the best for a penalty that is
drawn, so that the rest does not stay where it got stuck. The result is the Pareto front of
activation against cross-entropy over everything that was ever tried.

Source: Thompson, Straznickas and Sklar, "Fluent dreaming for language models" (2024), an extension
of greedy coordinate gradient (:mod:`patchclamp.methods.greedy_coordinate`). Written from the paper.
What is our own: gradients of activation and cross-entropy are taken apart, so that a member keeps
them as long as it lives, whatever penalty it is kept for; a child whose cross-entropy could not
make it a member or a point of the front, by what its tokens up to the swap cost alone, is not run
beyond the unit's layer (that changes no result); late positions are drawn more often than early
ones, unless asked for otherwise, and of the best tokens one is drawn by a hash (for both see
``greedy_coordinate``).

Tokens: by default those that a person can type and read (:mod:`patchclamp.methods.vocabulary`). A
prompt of them may still be one that its own text does not give back; as in the paper it is kept.
:func:`patchclamp.methods.vocabulary.as_text` says so by returning None: load the ids then.

Shapes and units: a candidate's ids are as they were run, with the beginning-of-sequence token; its
activation is in the unit's own units, its cross-entropy in nats a token; a penalty is activation
per nat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.candidates import Candidates
from patchclamp.errors import InputError
from patchclamp.methods.front import Search
from patchclamp.methods.greedy_coordinate import (
    Draw,
    Places,
    candidates_of,
    first_prompts,
    found,
    propose,
)
from patchclamp.methods.vocabulary import allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from patchclamp.engine.candidates import Prompt, Score
    from patchclamp.engine.engine import Engine
    from patchclamp.methods.front import Candidate, Generation
    from patchclamp.methods.vocabulary import Tokens

    ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class Evolution:
    """How to search; the defaults are the paper's, but for ``places``.

    Attributes:
        length: how many tokens a prompt has, besides a beginning-of-sequence token.
        population: how many penalties, and so members.
        children: how many swaps an iteration tries of each member.
        top_k: among how many tokens of each position they are drawn.
        penalties: the lowest and the highest, in activation per nat; the others lie between them
            by equal factors.
        iterations: when to end; None for no end.
        seconds: when to end, in seconds of work; None for no end. A result that shall come again
            takes iterations.
        restart: after how many iterations the population starts anew from one member; 0 for never.
        restart_penalties: between which the penalty is drawn for which that member is the best.
        seed: of what is drawn.
        tokens: ``"ordinary"`` or ``"all"``, see :mod:`patchclamp.methods.vocabulary`.
        places: ``"late"`` draws the last positions most, ``"uniform"`` all alike, as in the paper.
    """

    length: int = 12
    population: int = 8
    children: int = 32
    top_k: int = 512
    penalties: tuple[float, float] = (0.1, 10.0)
    iterations: int | None = 300
    seconds: float | None = None
    restart: int = 50
    restart_penalties: tuple[float, float] = (2 / 3, 6.0)
    seed: int = 0
    tokens: Tokens = "ordinary"
    places: Places = "late"

    def check(self) -> None:
        """Say what cannot be.

        Raises:
            InputError: when a number is out of its range.
        """
        for name in ("population", "children", "top_k"):
            if getattr(self, name) < 1:
                msg = f"{name} is a number of at least 1, not {getattr(self, name)!r}."
                raise InputError(msg)
        for low, high in (self.penalties, self.restart_penalties):
            if not (0 < low <= high < math.inf):
                msg = f"Penalties are two numbers above 0, the lower one first, not {low}, {high}."
                raise InputError(msg)

    def ladder(self) -> Tensor:
        """Return Float[population], the penalties from the lowest to the highest.

        >>> [round(p, 2) for p in Evolution(population=3).ladder().tolist()]
        [0.1, 1.0, 10.0]
        """
        low, high = (math.log(p) for p in self.penalties)
        return torch.linspace(low, high, self.population).exp()


def epo(
    engine: Engine,
    objective: Score,
    how: Evolution | None = None,
    *,
    start: Sequence[Sequence[int]] = (),
    should_stop: ShouldStop | None = None,
) -> Generator[Generation, None, Generation]:
    """Search for prompts from fluent to extreme by evolutionary prompt optimization.

    It computes where it is called, so it belongs on the model's worker: hand it to the engine's
    queue as a "sweep", and interactive work goes between its chunks.

    Args:
        engine: what runs the model.
        objective: what to maximise, mostly a :class:`patchclamp.methods.objective.Objective`.
        how: sizes, penalties, budget and seed.
        start: prompts to begin with, as many as one likes, as token ids without a
            beginning-of-sequence token; random ones without.
        should_stop: asked before every block.

    Yields:
        Where it stands, after each chunk of swaps; ``share`` is 1 where an iteration has finished.
        Its population is the member of each penalty, from the lowest to the highest.

    Raises:
        InputError: for a length or a number that cannot be, or a start of another length.
        ModelError: for a model that is not causal.
        MetricError: when a number is not finite, or the objective has no gradient. What was yielded
            before holds.
        Stopped: when ``should_stop`` said so; what was yielded before holds.
    """
    how = how or Evolution()
    how.check()
    search = Search(how.iterations, how.seconds)
    candidates = Candidates(engine, objective, how.length)
    if len(candidates.front) + how.length < 2:
        msg = "A prompt of one token without a beginning-of-sequence token has no cross-entropy."
        raise InputError(msg)
    usable = allowed(engine.model, how.tokens)
    rng = torch.Generator().manual_seed(how.seed)
    penalties = how.ladder().tolist()
    begin = list(dict.fromkeys(first_prompts(candidates, usable, how.population, rng, start)))
    first = [found(p) for p in candidates.prompts(begin, slopes=False, should_stop=should_stop)]
    search.take(first)
    shown = _first_members(first, penalties)
    members = _run(candidates, [one.ids for one in shown], [], should_stop)
    state = search.state(shown)
    yield from search.give(state)
    while not search.over():
        again = bool(how.restart) and (search.iteration + 1) % how.restart == 0
        drawn = float(torch.rand((), generator=rng))
        low, high = how.restart_penalties
        slots = _Slots([*penalties, *([low + (high - low) * drawn] if again else [])])
        parents = list({member.ids: member for member in members}.values())
        slots.offer(shown)
        number = {parent.ids: index for index, parent in enumerate(parents)}
        swaps = list(
            dict.fromkeys(
                swap
                for member, penalty in zip(members, penalties, strict=True)
                for swap in propose(
                    candidates,
                    member,
                    number[member.ids],
                    Draw(penalty, how.children, how.top_k, how.places),
                    usable,
                    rng,
                )
            )
        )

        def worth(scores: Tensor, least: Tensor, slots: _Slots = slots) -> Tensor:
            return slots.wants(scores, least) | ~search.archive.covers(scores, least)

        done = 0
        for tried in candidates.swaps(parents, swaps, worth=worth, should_stop=should_stop):
            children = candidates_of(parents, swaps, tried)
            search.take(children)
            slots.offer(children)
            done += len(children)
            state = search.state(shown, done / (len(swaps) + 1))
            yield from search.give(state)
            if search.over():
                return state
        shown = [slots.best[-1]] * len(members) if again else slots.best
        members = _run(candidates, [one.ids for one in shown], parents, should_stop)
        search.iteration += 1
        state = search.state(shown)
        yield from search.give(state)
    return state


def _first_members(first: Sequence[Candidate], penalties: Sequence[float]) -> list[Candidate]:
    """Return a member for each penalty: all that there are, or of too many the best for each."""
    if len(first) <= len(penalties):
        return [first[place % len(first)] for place in range(len(penalties))]
    slots = _Slots(penalties)
    slots.offer(first)
    return slots.best


class _Slots:
    """For each penalty the best candidate so far.

    Attributes:
        best: one a penalty.
    """

    def __init__(self, penalties: Sequence[float]) -> None:
        self._penalties = torch.tensor(penalties, dtype=torch.float64)
        self._values = torch.full_like(self._penalties, -torch.inf)
        self.best: list[Candidate] = []

    def offer(self, candidates: Sequence[Candidate]) -> None:
        """Take what is better; of equals the first one stays."""
        if not candidates:
            return
        self.best = self.best or [candidates[0]] * len(self._penalties)
        values = self._of(
            torch.tensor([c.activation for c in candidates]),
            torch.tensor([c.cross_entropy for c in candidates]),
        )
        highest, which = values.max(0)
        for slot in (highest > self._values).nonzero().flatten().tolist():
            self._values[slot] = highest[slot]
            self.best[slot] = candidates[int(which[slot])]

    def wants(self, activations: Tensor, cross_entropies: Tensor) -> Tensor:
        """Return Bool[item], whether one would be the best for some penalty."""
        better = self._of(activations.cpu(), cross_entropies.cpu()) > self._values
        return better.any(1).to(activations.device)

    def _of(self, activations: Tensor, cross_entropies: Tensor) -> Tensor:
        return activations.double()[:, None] - self._penalties * cross_entropies.double()[:, None]


def _run(
    candidates: Candidates,
    ids: Sequence[tuple[int, ...]],
    parents: Sequence[Prompt],
    should_stop: ShouldStop | None,
) -> list[Prompt]:
    """Return the members: those that lived keep what is known of them, the others are run."""
    known = {parent.ids: parent for parent in parents}
    new = [one for one in dict.fromkeys(ids) if one not in known]
    known |= {one.ids: one for one in candidates.prompts(new, should_stop=should_stop)}
    return [known[one] for one in ids]
