"""Every token of the vocabulary as a prompt of one token: the simplest search, and an exact one.

What a unit does on each token alone (after the beginning-of-sequence token, where the model has
one) is known without any gradient: all of them are run, in batches, up to the unit's layer. The
cross-entropy of such a prompt is -log p(token | beginning of sequence), which one run gives for
all; without a beginning-of-sequence token there is none (NaN), and no front.

Bills et al., "Language models can explain neurons in language models" (OpenAI, 2023), is one place
where neurons are looked at token by token; EPO's authors compare with what is found in texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.candidates import Candidates, Swap
from patchclamp.methods.front import Candidate, Search
from patchclamp.methods.greedy_coordinate import candidates_of
from patchclamp.methods.vocabulary import allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from patchclamp.engine.candidates import Score
    from patchclamp.engine.engine import Engine
    from patchclamp.methods.front import Generation
    from patchclamp.methods.vocabulary import Tokens

    ShouldStop = Callable[[], bool]

_SHOWN = 10
_AT_ONCE = 4096  # swaps that are planned at a time


@dataclass(frozen=True, eq=False)
class SingleTokens:
    """What every token does alone.

    Attributes:
        activations: Float[vocab]; NaN for tokens that were not tried.
        cross_entropies: Float[vocab], nats.
        generation: the last state of the search, with its front.
    """

    activations: Tensor
    cross_entropies: Tensor
    generation: Generation

    def top(self, count: int = _SHOWN) -> list[tuple[int, float]]:
        """Return the strongest tokens and their activations."""
        ranked = self.activations.nan_to_num(-torch.inf).topk(min(count, len(self.activations)))
        return [
            (int(token), float(value))
            for value, token in zip(ranked.values, ranked.indices, strict=True)
            if value > -torch.inf
        ]


def single_tokens(
    engine: Engine,
    objective: Score,
    *,
    tokens: Tokens = "ordinary",
    should_stop: ShouldStop | None = None,
) -> Generator[Generation, None, SingleTokens]:
    """Run every token of the vocabulary as a prompt of its own.

    It computes where it is called, so it belongs on the model's worker.

    Args:
        engine: what runs the model.
        objective: what is measured.
        tokens: ``"ordinary"`` or ``"all"``, see :mod:`patchclamp.methods.vocabulary`.
        should_stop: asked before every block.

    Yields:
        Where it stands, after each batch: ``share`` of the vocabulary is done, and the population
        is the ten strongest tokens.

    Returns:
        What every token does.

    Raises:
        ModelError: for a model that is not causal.
        MetricError: when a number is not finite.
        Stopped: when ``should_stop`` said so; what was yielded before holds.
    """
    search = Search(None, None)
    candidates = Candidates(engine, objective, 1)
    every = allowed(engine.model, tokens).nonzero().flatten().tolist()
    activations = torch.full((engine.model.anatomy.d_vocab,), torch.nan)
    cross_entropies = activations.clone()
    first = (*candidates.front, every[0])
    parents = candidates.prompts([first], slopes=False, should_stop=should_stop)
    place = len(candidates.front)
    strongest: list[Candidate] = []
    state = search.state(strongest, 0.0)
    for begin in range(0, len(every), _AT_ONCE):
        swaps = [Swap(0, place, token) for token in every[begin : begin + _AT_ONCE]]
        for tried in candidates.swaps(parents, swaps, should_stop=should_stop):
            which = [swaps[item].token for item in tried.items]
            activations[which] = tried.activations.float().cpu()
            cross_entropies[which] = tried.cross_entropies.float().cpu()
            new = candidates_of(parents, swaps, tried)
            search.take(new)
            strongest = sorted([*strongest, *new], key=lambda c: -c.activation)[:_SHOWN]
            search.iteration = int(search.tried == len(every))
            state = search.state(strongest, search.tried / len(every))
            yield from search.give(state)
    return SingleTokens(activations, cross_entropies, state)
