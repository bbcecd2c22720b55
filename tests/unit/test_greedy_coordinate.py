"""Greedy coordinate gradient climbs, and does not compute what it does not need."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp.engine.candidates import Candidates
from patchclamp.engine.engine import Engine
from patchclamp.errors import InputError
from patchclamp.methods.greedy_coordinate import Draw, Greedy, greedy, propose
from patchclamp.methods.objective import objective
from tests.unit import tiny
from tests.unit.searched import ABOUT, in_a_row, last, on_worker, parents_of, plainly, planted
from tests.unit.test_engine import Counter

if TYPE_CHECKING:
    from patchclamp.engine.candidates import Score
    from patchclamp.methods.front import Generation
    from patchclamp.models.language_model import LanguageModel

SMALL: dict[str, Any] = {"length": 4, "children": 24, "top_k": 6, "iterations": 12}


def run(model: LanguageModel, score: Score, **options: Any) -> Generation:
    return last(model, lambda engine: greedy(engine, score, Greedy(**{**SMALL, **options})))


def test_it_finds_the_prompt_that_was_planted() -> None:
    model = planted()
    best = run(model, in_a_row(model)).front.best
    assert best is not None
    assert best.ids == ABOUT[:4]


def test_a_penalty_trades_activation_for_fluency() -> None:
    model = tiny.model("llama")
    score = objective(model, "L1.N5")
    free, dear = (run(model, score, penalty=p, iterations=20).population[0] for p in (0.0, 20.0))
    assert free.activation > dear.activation + 1
    assert dear.cross_entropy < free.cross_entropy - 0.5
    for candidate in (free, dear):
        activation, cross_entropy, largest = plainly(model, score, candidate.ids)
        assert candidate.activation == pytest.approx(activation, abs=1e-5 * largest)
        assert candidate.cross_entropy == pytest.approx(cross_entropy, abs=1e-5 * largest)


def test_without_a_penalty_swaps_run_only_to_the_unit() -> None:
    model = tiny.model("llama")
    counter = Counter(Engine.of(model))
    score = objective(model, "L1.N5")
    above: list[int] = []

    def job() -> None:
        for state in greedy(Engine.of(model), score, Greedy(**{**SMALL, "iterations": 1})):
            calls = counter.take()
            if 0 < state.share < 1:
                above.extend(layer for layer, _, _ in calls if layer > 1)
                assert any(layer == 1 for layer, _, _ in calls)

    on_worker(model, job)
    counter.close()
    assert above == []


def test_it_goes_to_the_best_child_even_where_that_is_worse() -> None:
    model = tiny.model("llama")
    found: list[float] = []

    def job() -> None:
        score = objective(model, "L1.N5")
        steps = greedy(
            Engine.of(model), score, Greedy(**{**SMALL, "iterations": 30, "children": 6})
        )
        found.extend(state.population[0].activation for state in steps if state.share == 1)

    on_worker(model, job)
    assert max(found) > found[0] + 0.5
    assert any(later < earlier for earlier, later in itertools.pairwise(found))


def test_the_same_seed_gives_the_same_search() -> None:
    model = tiny.model("llama")
    score = objective(model, "L1.N5")
    one, again, other = (run(model, score, seed=seed).population for seed in (3, 3, 4))
    assert one == again
    assert one != other


def test_swaps_are_drawn_among_the_best_of_each_position_each_once() -> None:
    model = tiny.model("llama")

    def job() -> None:
        candidates = Candidates(Engine.of(model), objective(model, "L1.N5"), 4)
        prompt = parents_of(candidates, 1, slopes=True)[0]
        usable = torch.ones(tiny.VOCAB, dtype=torch.bool)
        usable[30:] = False
        rng = torch.Generator().manual_seed(0)
        swaps = propose(candidates, prompt, 7, Draw(0.5, 400, 5, "uniform"), usable, rng)
        assert len(swaps) == len(set(swaps)) == 4 * 5
        assert {swap.parent for swap in swaps} == {7}
        assert prompt.slopes is not None
        scores = (prompt.slopes[0] - 0.5 * prompt.slopes[1]) @ candidates.embeddings.T
        scores[:, 30:] = -torch.inf
        for place in candidates.swappable:
            scores[place, prompt.ids[place]] = -torch.inf
            drawn = {swap.token for swap in swaps if swap.position == place}
            assert drawn == set(scores[place].topk(5).indices.tolist())

    on_worker(model, job)


def test_a_rounding_that_exchanges_neighbours_in_the_ranking_draws_the_same_swaps() -> None:
    model = tiny.model("llama")

    def job() -> None:
        candidates = Candidates(Engine.of(model), objective(model, "L1.N5"), 4)
        prompt = parents_of(candidates, 1, slopes=True)[0]
        usable = torch.ones(tiny.VOCAB, dtype=torch.bool)

        def drawn(k: int) -> list[Any]:
            rng = torch.Generator().manual_seed(0)
            return propose(candidates, prompt, 0, Draw(0.5, 30, k, "late"), usable, rng)

        # One token more to draw from is a larger change than another order of the same ones.
        one, other = drawn(40), drawn(41)
        assert len(set(one) & set(other)) >= 0.8 * len(one)

    on_worker(model, job)


def test_positions_are_drawn_by_what_a_swap_there_costs_or_all_alike() -> None:
    for places, chances in (("late", [1 / 4, 1 / 3, 1 / 2, 1]), ("uniform", [1] * 4)):
        draw = Draw(0.0, 8000, 1, places)  # type: ignore[arg-type] # one of the two words
        drawn = torch.tensor(draw.positions(4, torch.Generator().manual_seed(0)))
        shares = torch.bincount(drawn, minlength=4) / len(drawn)
        assert torch.allclose(shares, torch.tensor(chances) / sum(chances), atol=0.02)
    with pytest.raises(InputError, match="'late' or 'uniform', not 'early'"):
        Draw(0.0, 1, 1, "early").positions(4, torch.Generator())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["children", "top_k"])
def test_a_number_that_cannot_be_is_a_sentence(name: str) -> None:
    model = tiny.model("llama")
    with pytest.raises(InputError, match=f"{name} is a number of at least 1, not 0"):
        run(model, objective(model, "L1.N5"), **{name: 0})
