"""Random prompts: what a search finds that does not search, the control of all others.

Tokens are drawn alike from those that a search may use. What the best of many random prompts does
is what any search has to beat, and how unlikely such prompts are says what a cross-entropy means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from patchclamp.engine.candidates import Candidates
from patchclamp.methods.front import Search
from patchclamp.methods.greedy_coordinate import first_prompts, found
from patchclamp.methods.vocabulary import allowed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from patchclamp.engine.candidates import Score
    from patchclamp.engine.engine import Engine
    from patchclamp.methods.front import Generation
    from patchclamp.methods.vocabulary import Tokens

    ShouldStop = Callable[[], bool]

_AT_ONCE = 16


def random_prompts(
    engine: Engine,
    objective: Score,
    count: int,
    *,
    length: int = 12,
    seed: int = 0,
    tokens: Tokens = "ordinary",
    should_stop: ShouldStop | None = None,
) -> Generator[Generation, None, Generation]:
    """Try random prompts. Computes where it is called, so it belongs on the model's worker.

    Args:
        engine: what runs the model.
        objective: what is measured.
        count: how many.
        length: of how many tokens, besides a beginning-of-sequence token.
        seed: of what is drawn.
        tokens: ``"ordinary"`` or ``"all"``, see :mod:`patchclamp.methods.vocabulary`.
        should_stop: asked before every block.

    Yields:
        Where it stands, after each batch; its population are the last prompts that were tried.

    Raises:
        InputError: for a length that does not fit.
        ModelError: for a model that is not causal.
        MetricError: when a number is not finite.
        Stopped: when ``should_stop`` said so; what was yielded before holds.
    """
    search = Search(None, None)
    candidates = Candidates(engine, objective, length)
    rng = torch.Generator().manual_seed(seed)
    drawn = first_prompts(candidates, allowed(engine.model, tokens), count, rng, ())
    state = search.state(())
    for begin in range(0, count, _AT_ONCE):
        some = drawn[begin : begin + _AT_ONCE]
        new = [found(p) for p in candidates.prompts(some, slopes=False, should_stop=should_stop)]
        search.take(new)
        search.iteration = int(search.tried == count)
        state = search.state(new, search.tried / count)
        yield from search.give(state)
    return state
