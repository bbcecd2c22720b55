"""Prompts tried, against a plain loop that runs each whole prompt by itself.

What is tried are the swaps that EPO itself proposes for a population of eight random prompts of 12
tokens and an MLP neuron in the middle of the default model. The loop runs each prompt once with
TransformerLens' ``run_with_hooks``, without gradients, and takes activation and cross-entropy from
that run: no batches, no keys and values reused. Both sides give the same numbers for the same
candidates, or the benchmark ends. Ours computes everything of every candidate here; a search may
leave out cross-entropies that cannot matter, which is not counted.

Of the loop so many prompts are timed, and the time is counted up: it is the same for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from patchclamp import load
from patchclamp.engine.candidates import Candidates
from patchclamp.engine.engine import Engine
from patchclamp.methods.epo import Evolution
from patchclamp.methods.greedy_coordinate import Draw, candidates_of, first_prompts, propose
from patchclamp.methods.objective import objective
from patchclamp.methods.vocabulary import allowed
from patchclamp.models import catalogue
from tests.benchmarks.measure import Figure, faster, in_turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchclamp.engine.candidates import Prompt, Swap
    from patchclamp.methods.front import Candidate

UNIT = "L15.N304"
SAMPLE = 16  # prompts of the loop
EXACT = 1e-5


def figures(rounds: int = 2) -> Iterator[Figure]:
    """Measure on the default model."""
    yield tokens_tried(rounds)


def tokens_tried(rounds: int) -> Figure:
    """One iteration's swaps of EPO, as time for each."""
    model = load(catalogue.SMOLLM2.name)
    engine = Engine.of(model)
    score = objective(model, UNIT)
    how = Evolution()
    candidates = Candidates(engine, score, how.length)

    def prepare(_: object) -> tuple[list[Prompt], list[Swap]]:
        rng = torch.Generator().manual_seed(how.seed)
        usable = allowed(model, how.tokens)
        parents = candidates.prompts(first_prompts(candidates, usable, how.population, rng, ()))
        penalties = how.ladder().tolist()
        return parents, [
            swap
            for number, (parent, penalty) in enumerate(zip(parents, penalties, strict=True))
            for swap in propose(
                candidates,
                parent,
                number,
                Draw(penalty, how.children, how.top_k, how.places),
                usable,
                rng,
            )
        ]

    parents, swaps = engine.queue.submit(prepare).result()

    def ours(_: float) -> list[Candidate]:
        def job(_: object) -> list[Candidate]:
            return [
                candidate
                for tried in candidates.swaps(parents, swaps)
                for candidate in candidates_of(parents, swaps, tried)
            ]

        return engine.queue.submit(job).result()

    found = {candidate.ids: candidate for candidate in ours(0.0)}
    sample = list(found)[:: max(1, len(found) // SAMPLE)][:SAMPLE]

    def loop(_: float) -> list[tuple[float, float, float]]:
        return [alone(ids) for ids in sample]

    def alone(ids: tuple[int, ...]) -> tuple[float, float, float]:
        taken: dict[str, torch.Tensor] = {}

        def keep(tensor: torch.Tensor, hook: object) -> None:
            del hook
            taken[score.hooks[0]] = tensor

        hooks: list[Any] = [(score.hooks[0], keep)]
        with torch.no_grad():
            logits = model.bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=hooks)[0]
            losses = -logits[:-1].log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])
            activation = float(score.value(taken, start=len(candidates.front))[0])
        return activation, float(losses.mean()), float(logits.abs().max())

    for ids, (activation, cross_entropy, largest) in zip(sample, loop(0.0), strict=True):
        one = found[ids]
        off = max(abs(one.activation - activation), abs(one.cross_entropy - cross_entropy))
        if not off <= EXACT * largest:
            raise ValueError(f"They differ by {off / largest:.1e} of the largest logit.")
    t = in_turns({"loop": loop, "ours": ours}, rounds)
    each = {
        "loop": [seconds / len(sample) for seconds in t["loop"]],
        "ours": [seconds / len(found) for seconds in t["ours"]],
    }
    name = f"epo-tokens-tried:T={how.length}:{len(found)}-swaps:loop/ours"
    return faster(name, each["loop"], each["ours"], 3)
