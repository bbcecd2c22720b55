"""Swaps equal plain TransformerLens hooked passes, and compute less than they do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp.engine.candidates import Candidates, Swap
from patchclamp.engine.engine import Engine
from patchclamp.errors import BudgetError, InputError, MetricError, ModelError, Stopped
from patchclamp.methods.objective import objective
from patchclamp.models.language_model import LanguageModel
from tests.unit import letters, tiny
from tests.unit.searched import (
    LENGTH,
    numbers,
    on_worker,
    parents_of,
    plainly,
    random_swaps,
)
from tests.unit.test_engine import Counter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patchclamp.engine.candidates import Prompt, Score, Tried
    from patchclamp.methods.objective import How

EXACT = 1e-5
SEEN = 100 * EXACT
ACROSS = torch.linspace(-1, 1, 32)
UNITS: Mapping[str, tuple[Any, How]] = {
    "a neuron": ("L2.N5", "last"),
    "a neuron of the last layer": ("L3.N7", "last"),
    "a neuron's peak": ("L1.N3", "peak"),
    "a head's output": (("L0.H1", ACROSS[:8]), "last"),
    "a direction": (("L2.resid_post[up]", ACROSS), "last"),
    "a logit": (("logits", 7), "last"),
}


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2", "gemma3", "opt", "native"])
def test_swaps_equal_plain_hooked_passes(architecture: str) -> None:
    model = tiny.model(architecture)
    for unit, (what, how) in UNITS.items():
        score = objective(model, what, how)

        def job(score: Score = score) -> tuple[list[Prompt], list[Swap], list[Tried]]:
            candidates = Candidates(Engine.of(model), score, LENGTH)
            parents, swaps = parents_of(candidates), random_swaps(candidates)
            return parents, swaps, list(candidates.swaps(parents, swaps))

        parents, swaps, tried = on_worker(model, job)
        found = numbers(tried)
        assert sorted(found) == list(range(len(swaps)))
        truth, largest = [], 0.0
        for swap in swaps:
            ids = list(parents[swap.parent].ids)
            ids[swap.position] = swap.token
            activation, cross_entropy, logit = plainly(model, score, ids)
            truth.append((activation, cross_entropy))
            largest = max(largest, logit)
        off = torch.tensor(truth) - torch.tensor([found[item] for item in range(len(swaps))])
        assert float(off.abs().max()) <= EXACT * largest, unit
        spread = torch.tensor(truth).std(0)
        assert float(spread[1]) >= SEEN * largest, unit
        # This neuron of OPT's is behind a ReLU that nothing opens: it is equal all the same.
        if (architecture, unit) != ("opt", "a neuron of the last layer"):
            assert float(spread[0]) >= SEEN * largest, unit
        for parent in parents:
            activation, cross_entropy, _ = plainly(model, score, parent.ids)
            assert abs(parent.activation - activation) <= EXACT * largest, unit
            assert abs(parent.cross_entropy - cross_entropy) <= EXACT * largest, unit


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma", "opt", "native"])
def test_slopes_are_those_of_one_hot_tokens(architecture: str) -> None:
    """Against a bridge that embeds a mixture of tokens: half of what it would do, half a step."""
    model = tiny.model(architecture)
    score = objective(model, "L2.N5")
    start = 0 if model.bos_id is None else 1

    def job() -> tuple[Prompt, torch.Tensor]:
        candidates = Candidates(Engine.of(model), score, LENGTH)
        return parents_of(candidates, 1, slopes=True)[0], candidates.embeddings

    prompt, embeddings = on_worker(model, job)
    bridge = tiny.fresh_bridge(architecture)
    place, token = start + 4, 33
    values = []
    for share in (-1e-2, 1e-2):
        taken: dict[str, torch.Tensor] = {}

        def mix(tensor: torch.Tensor, hook: object, share: float = share) -> torch.Tensor:
            new = tensor.clone()
            new[0, place] += share * embeddings[token]
            return new

        def keep(
            tensor: torch.Tensor, hook: object, taken: dict[str, torch.Tensor] = taken
        ) -> None:
            taken[score.hooks[0]] = tensor.double()

        hooks: list[Any] = [("embed.hook_out", mix), (score.hooks[0], keep)]
        with torch.no_grad():
            logits = bridge.run_with_hooks(torch.tensor([prompt.ids]), fwd_hooks=hooks)[0].double()
        losses = -logits[:-1].log_softmax(-1).gather(-1, torch.tensor(prompt.ids[1:])[:, None])
        values.append((float(score.value(taken, start=start)[0]), float(losses.mean())))
    assert prompt.slopes is not None
    for which, slope in enumerate(prompt.slopes):
        truth = (values[1][which] - values[0][which]) / 2e-2
        assert float(slope[place] @ embeddings[token]) == pytest.approx(truth, rel=2e-2, abs=2e-4)


def test_only_the_blocks_and_positions_that_are_needed_are_computed() -> None:
    model = tiny.model("llama")
    engine = Engine.of(model)
    score = objective(model, "L1.N5")
    counter = Counter(engine)
    bos = 1

    def job(position: int, *, worth: bool) -> list[tuple[int, str, int]]:
        candidates = Candidates(engine, score, LENGTH)
        parents = parents_of(candidates, 2)
        counter.take()
        swaps = [Swap(parent, position, token) for parent in (0, 1) for token in range(5, 10)]
        list(
            candidates.swaps(
                parents, swaps, worth=lambda scores, _: torch.full_like(scores, worth).bool()
            )
        )
        return counter.take()

    def run(position: int, *, worth: bool) -> list[tuple[int, str, int]]:
        return on_worker(model, lambda: job(position, worth=worth))

    rows = bos + LENGTH - 3
    # Only the score: two blocks, the unit's one with hooks, from the swap on, all ten in one call.
    assert run(3, worth=False) == [(0, "plain", 10 * rows), (1, "hooked", 10 * rows)]
    # The cross-entropy too: the others, without the last position, which predicts nothing.
    assert run(3, worth=True) == [
        (0, "plain", 10 * rows),
        (1, "hooked", 10 * rows),
        (2, "plain", 10 * (rows - 1)),
        (3, "plain", 10 * (rows - 1)),
    ]
    # In the last position all that is to be predicted was predicted by the parent.
    assert run(bos + LENGTH - 1, worth=True) == [(0, "plain", 10), (1, "hooked", 10)]
    counter.close()


def test_what_is_not_worth_it_has_no_cross_entropy_and_what_is_has_the_same() -> None:
    model = tiny.model("llama")
    score = objective(model, "L2.N5")

    def job() -> tuple[dict[int, tuple[float, float]], dict[int, tuple[float, float]], list[bool]]:
        candidates = Candidates(Engine.of(model), score, LENGTH)
        parents, swaps = parents_of(candidates), random_swaps(candidates)
        every = numbers(list(candidates.swaps(parents, swaps)))
        bounds: list[bool] = []

        def worth(scores: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
            bounds.append(bool((least >= 0).all()))
            return scores > 0

        return every, numbers(list(candidates.swaps(parents, swaps, worth=worth))), bounds

    every, some, bounds = on_worker(model, job)
    assert all(bounds)
    asked = [item for item in some if some[item][1] < float("inf")]
    assert 0 < len(asked) < len(every)
    for item, (activation, cross_entropy) in some.items():
        assert activation == pytest.approx(every[item][0], abs=1e-5)
        if item in asked:
            assert cross_entropy == pytest.approx(every[item][1], abs=1e-5)
        else:
            assert activation <= 0


def test_the_bound_is_what_the_tokens_up_to_the_swap_cost() -> None:
    model = tiny.model("llama")
    score = objective(model, "L2.N5")

    def job() -> tuple[Prompt, dict[int, float], list[Swap]]:
        candidates = Candidates(Engine.of(model), score, LENGTH)
        parents = parents_of(candidates, 1)
        swaps = [Swap(0, place, 30) for place in candidates.swappable]
        seen: dict[int, float] = {}

        def worth(scores: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
            for place, one in zip(reversed(candidates.swappable), least.tolist(), strict=True):
                seen.setdefault(place, one)
            return torch.zeros_like(scores).bool()

        list(candidates.swaps(parents, swaps, worth=worth))
        return parents[0], seen, swaps

    prompt, seen, swaps = on_worker(model, job)
    for swap in swaps:
        ids = list(prompt.ids)
        ids[swap.position] = swap.token
        part = ids[: swap.position + 1]
        _, cross_entropy, _ = plainly(model, score, part)
        assert seen[swap.position] == pytest.approx(
            cross_entropy * (len(part) - 1) / LENGTH, abs=1e-5
        )


def test_the_beginning_of_sequence_token_stands_in_front_and_is_not_swapped() -> None:
    reads = Candidates(Engine.of(letters.model()), objective(letters.model(), "L1.N5"), 3)
    assert (reads.front, list(reads.swappable)) == ((letters.BOS,), [1, 2, 3])
    without = Candidates(Engine.of(tiny.model("native")), _neuron(tiny.model("native")), 3)
    assert (without.front, list(without.swappable)) == ((), [0, 1, 2])


def test_a_prompt_of_one_token_after_nothing_has_no_cross_entropy() -> None:
    model = tiny.model("native")

    def job() -> tuple[Prompt, list[Tried]]:
        candidates = Candidates(Engine.of(model), _neuron(model), 1)
        parents = candidates.prompts([(5,)])
        return parents[0], list(candidates.swaps(parents, [Swap(0, 0, 9)]))

    prompt, tried = on_worker(model, job)
    assert math.isnan(prompt.cross_entropy)
    assert bool(tried[0].cross_entropies.isnan().all())


@pytest.mark.parametrize("length", [0, 64, 1000])
def test_a_length_that_does_not_fit_is_refused(length: int) -> None:
    model = letters.model()
    with pytest.raises(InputError, match="takes 1 to 63 besides its beginning"):
        Candidates(Engine.of(model), objective(model, "L1.N5"), length)


def test_a_prompt_whose_predictions_are_over_the_budget_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = letters.model()
    monkeypatch.setattr(Engine.of(model), "budget", 1000)
    with pytest.raises(BudgetError, match="predictions of a prompt of 7 tokens take"):
        Candidates(Engine.of(model), objective(model, "L1.N5"), LENGTH)


def test_weights_that_change_during_a_search_end_it() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), None)

    def job() -> None:
        candidates = Candidates(Engine.of(model), objective(model, "L1.N5"), LENGTH)
        parents = parents_of(candidates, 1)
        with torch.no_grad():
            next(model.bridge.parameters()).mul_(1.5)
        list(candidates.swaps(parents, [Swap(0, 2, 9)]))

    with pytest.raises(ModelError, match="have changed since this search began"):
        on_worker(model, job)


def test_a_model_that_reads_both_ways_is_refused() -> None:
    model = tiny.model("bert")
    with pytest.raises(ModelError, match="reads both ways"):
        Candidates(Engine.of(model), objective(model, "L1.N5"), 5)


def test_no_finite_number_is_an_error_that_names_the_prompt() -> None:
    model = letters.model()
    huge = objective(model, lambda v: v["L1.N5"][:, -1, 5] / 0.0, paths="L1.N5", name="huge")

    def job() -> None:
        candidates = Candidates(Engine.of(model), huge, 3)
        candidates.prompts([(letters.BOS, 3, 4, 5)], slopes=False)

    with pytest.raises(MetricError, match=r"huge is -?inf on '.*abc': no finite number"):
        on_worker(model, job)


def test_an_objective_without_a_gradient_is_an_error() -> None:
    model = tiny.model("llama")
    cut = objective(model, lambda v: v["L1.N5"][:, -1, 5].detach(), paths="L1.N5", name="cut off")

    def job() -> None:
        parents_of(Candidates(Engine.of(model), cut, 3), 1, slopes=True)

    with pytest.raises(MetricError, match="cut off has no gradient"):
        on_worker(model, job)


def test_stop_takes_effect_within_a_block_and_leaves_the_model_as_it_was() -> None:
    model = tiny.model("llama")
    asked = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 2

    def job() -> None:
        candidates = Candidates(Engine.of(model), _neuron(model), LENGTH)
        candidates.prompts([tuple(tiny.ids(LENGTH + 1).tolist())], should_stop=stop)

    def hooks() -> list[int]:
        # Transformers leaves hooks of its own on a model that was asked for its attention.
        shells = Engine.of(model).passes.shells.values()
        return [len(m._forward_hooks) for shell in shells for m in shell.root.modules()]

    on_worker(model, lambda: Engine.of(model).shortcuts)
    before = hooks()
    with pytest.raises(Stopped):
        on_worker(model, job)
    assert len(asked) == 3
    assert hooks() == before
    assert all(p.grad is None for p in model.bridge.parameters())


def _neuron(model: LanguageModel) -> Any:
    return objective(model, "L1.N5")
