"""Greedy coordinate gradient: one prompt, improved by one token at a time.

The gradient of an objective f by a prompt's one-hot tokens says, to first order, what each token of
the vocabulary would do in each place. An iteration draws swaps at random among the ``top_k`` best
of each position, tries them all, and goes on from the best one, even where that is worse than what
it came from (so the search does not end in the first dead end). The objective here is a unit's
activation less a fixed penalty times the cross-entropy in nats a token::

    f(t) = activation(t) - penalty * cross_entropy(t)

With a penalty of 0 only the blocks up to the unit are run for a swap, and only the prompt that is
chosen gets a cross-entropy.

Source: Zou, Wang, Carlini, Nasr, Kolter and Fredrikson, "Universal and Transferable Adversarial
Attacks on Aligned Language Models" (2023), whose loss is that of a wanted continuation; the search
is the same. It follows AutoPrompt (Shin et al., 2020), which takes one position at a time.

Positions are not drawn alike, unless asked for (``places="uniform"``, as published): the chance of
each is inverse to how many positions a swap there leaves to be computed, itself and all after it.
So each position gets the same share of the time, and the last ones, on which a unit that is read at
the last position mostly depends, are tried most. Whether that finds stronger prompts in the same
time was compared on one neuron of SmolLM2 only.

Which token is taken of the best ones is decided by a hash and not by rank: where the rounding of
another machine exchanges two neighbours in the ranking, the same seed still draws the same swap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from patchclamp.engine.candidates import Candidates, Prompt, Swap
from patchclamp.errors import InputError
from patchclamp.methods.front import Candidate, Search
from patchclamp.methods.vocabulary import allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from patchclamp.engine.candidates import Score, Tried
    from patchclamp.engine.engine import Engine
    from patchclamp.methods.front import Generation
    from patchclamp.methods.vocabulary import Tokens

    ShouldStop = Callable[[], bool]

Places = Literal["late", "uniform"]
_PRIME = 2**31 - 1


@dataclass(frozen=True)
class Greedy:
    """How to search.

    Attributes:
        length: how many tokens a prompt has, besides a beginning-of-sequence token.
        children: how many swaps an iteration tries.
        top_k: among how many tokens of each position they are drawn.
        penalty: activation given up for a nat a token.
        iterations: when to end; None for no end.
        seconds: when to end; None for no end.
        seed: of what is drawn.
        tokens: ``"ordinary"`` or ``"all"``, see :mod:`patchclamp.methods.vocabulary`.
        places: ``"late"`` draws the last positions most, ``"uniform"`` all alike.
    """

    length: int = 12
    children: int = 256
    top_k: int = 512
    penalty: float = 0.0
    iterations: int | None = 300
    seconds: float | None = None
    seed: int = 0
    tokens: Tokens = "ordinary"
    places: Places = "late"


def greedy(
    engine: Engine,
    objective: Score,
    how: Greedy | None = None,
    *,
    start: Sequence[int] | None = None,
    should_stop: ShouldStop | None = None,
) -> Generator[Generation, None, Generation]:
    """Search for a prompt of a high activation by greedy coordinate gradient.

    It computes where it is called, so it belongs on the model's worker.

    Args:
        engine: what runs the model.
        objective: what to maximise.
        how: sizes, budget and seed.
        start: the token ids to begin with, without a beginning-of-sequence token; random without.
        should_stop: asked before every block.

    Yields:
        Where it stands, after each chunk of swaps: its population is the one prompt.

    Raises:
        InputError: for a length or a number that cannot be, or a start of another length.
        ModelError: for a model that is not causal.
        MetricError: when a number is not finite, or the objective has no gradient.
        Stopped: when ``should_stop`` said so.
    """
    how = how or Greedy()
    _counts(children=how.children, top_k=how.top_k)
    search = Search(how.iterations, how.seconds)
    draw = Draw(how.penalty, how.children, how.top_k, how.places)
    candidates = Candidates(engine, objective, how.length)
    usable = allowed(engine.model, how.tokens)
    rng = torch.Generator().manual_seed(how.seed)
    begin = first_prompts(candidates, usable, 1, rng, () if start is None else (start,))
    current = candidates.prompts(begin, should_stop=should_stop)[0]
    search.take([found(current)])
    state = search.state([found(current)])
    yield from search.give(state)
    while not search.over():
        swaps = propose(candidates, current, 0, draw, usable, rng)
        best, chosen, done = -torch.inf, swaps[0], 0
        asked: list[float] = [best]

        def worth(scores: Tensor, least: Tensor, asked: list[float] = asked) -> Tensor:
            if not how.penalty:
                return torch.zeros_like(scores, dtype=torch.bool)
            return scores - how.penalty * least > asked[0]

        for tried in candidates.swaps([current], swaps, worth=worth, should_stop=should_stop):
            search.take(candidates_of([current], swaps, tried))
            done += len(tried.items)
            values = tried.activations
            if how.penalty:
                values = values - how.penalty * tried.cross_entropies
            if len(values) and float(values.max()) > best:
                best = float(values.max())
                chosen = swaps[tried.items[int(values.argmax())]]
                asked[0] = best
            state = search.state([found(current)], done / (len(swaps) + 1))
            yield from search.give(state)
            if search.over():
                return state
        current = candidates.prompts([swapped(current, chosen)], should_stop=should_stop)[0]
        search.archive.add([found(current)])
        search.iteration += 1
        state = search.state([found(current)])
        yield from search.give(state)
    return state


@dataclass(frozen=True)
class Draw:
    """How swaps of one prompt are drawn.

    Attributes:
        penalty: activation given up for a nat a token.
        children: how many.
        top_k: among how many tokens of each position.
        places: ``"late"`` or ``"uniform"``.
    """

    penalty: float
    children: int
    top_k: int
    places: Places

    def positions(self, length: int, rng: torch.Generator) -> list[int]:
        """Draw which of some tokens are swapped.

        Raises:
            InputError: for another word than "late" and "uniform".
        """
        if self.places not in get_args(Places):
            msg = f"Places are {' or '.join(map(repr, get_args(Places)))}, not {self.places!r}."
            raise InputError(msg)
        left = torch.arange(length, 0, -1, dtype=torch.float64)
        chances = 1 / left if self.places == "late" else torch.ones_like(left)
        drawn: list[int] = torch.multinomial(
            chances, self.children, replacement=True, generator=rng
        ).tolist()
        return drawn


def propose(
    candidates: Candidates,
    prompt: Prompt,
    parent: int,
    draw: Draw,
    usable: Tensor,
    rng: torch.Generator,
) -> list[Swap]:
    """Draw swaps among those that the gradient finds best; each at most once.

    Args:
        candidates: what runs the prompts.
        prompt: the prompt to change, with its slopes.
        parent: its number, for the swaps.
        draw: how many, and among what.
        usable: Bool[vocab], which tokens may be drawn.
        rng: draws position and token.

    Returns:
        Swaps in the order in which they were drawn; fewer than ``children`` where two are the same.
    """
    assert prompt.slopes is not None  # noqa: S101 (who proposes asked for them)
    up, dear = prompt.slopes
    places = candidates.swappable
    slope = (up - draw.penalty * dear)[places.start :]
    positions = draw.positions(len(places), rng)
    multipliers = torch.randint(1, _PRIME, (draw.children,), generator=rng)
    with torch.no_grad():
        scores = (slope @ candidates.embeddings.T).float().cpu()
    scores[:, ~usable] = -torch.inf
    drawn: dict[Swap, None] = {}
    pools: dict[int, Tensor] = {}
    for place, multiplier in zip(positions, multipliers, strict=True):
        if place not in pools:
            pools[place] = _pool(scores[place], prompt.ids[places[place]], draw.top_k, usable)
        pool = pools[place]
        if len(pool):
            token = int(pool[((pool + 1) * multiplier % _PRIME).argmin()])
            drawn[Swap(parent, places[place], token)] = None
    return list(drawn)


def _pool(scores: Tensor, now: int, top_k: int, usable: Tensor) -> Tensor:
    """Return the tokens that may come in a place: the best by the gradient, all where it is 0."""
    scores = scores.clone()
    scores[now] = -torch.inf
    here = scores[scores > -torch.inf]
    if not len(here):
        return torch.zeros(0, dtype=torch.long)
    if bool(here.max() == here.min()):
        every = usable.clone()
        every[now] = False
        return every.nonzero().flatten()
    best: Tensor = scores.topk(min(top_k, len(here))).indices
    return best


def first_prompts(
    candidates: Candidates,
    usable: Tensor,
    count: int,
    rng: torch.Generator,
    start: Sequence[Sequence[int]],
) -> list[tuple[int, ...]]:
    """Return what a search begins with: random prompts, or those that were given.

    Raises:
        InputError: when one has another length or no such tokens, or no token may be used.
    """
    tokens = usable.nonzero().flatten()
    if len(tokens) < 2:
        msg = "There are not two tokens that may be used: allow all with tokens='all'."
        raise InputError(msg)
    if start:
        rows = [candidates.engine.model.check_ids(list(one)).tolist() for one in start]
    else:
        drawn = torch.randint(len(tokens), (count, candidates.length), generator=rng)
        rows = tokens[drawn].tolist()
    for row in rows:
        if len(row) != candidates.length:
            msg = f"A prompt to begin with has {len(row)} tokens, not {candidates.length}."
            raise InputError(msg)
    return [(*candidates.front, *row) for row in rows]


def swapped(prompt: Prompt, swap: Swap) -> tuple[int, ...]:
    """Return a prompt's ids with one token swapped."""
    ids = list(prompt.ids)
    ids[swap.position] = swap.token
    return tuple(ids)


def found(prompt: Prompt) -> Candidate:
    """Return a prompt as a candidate."""
    return Candidate(prompt.ids, prompt.activation, prompt.cross_entropy)


def candidates_of(
    parents: Sequence[Prompt], swaps: Sequence[Swap], tried: Tried
) -> list[Candidate]:
    """Return what was tried as candidates; of unknown cross-entropy where nobody asked for it."""
    return [
        Candidate(swapped(parents[swaps[item].parent], swaps[item]), activation, cross_entropy)
        for item, activation, cross_entropy in zip(
            tried.items, tried.activations.tolist(), tried.cross_entropies.tolist(), strict=True
        )
    ]


def _counts(**counts: int) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or count < 1:
            msg = f"{name} is a number of at least 1, not {count!r}."
            raise InputError(msg)
