"""Every token alone: exact, all of them, and the planted one first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from patchclamp.engine.engine import Engine
from patchclamp.methods.objective import objective
from patchclamp.methods.random_prompts import random_prompts
from patchclamp.methods.single_token import single_tokens
from tests.unit import letters, tiny
from tests.unit.searched import ABOUT, last, on_worker, plainly, planted
from tests.unit.test_engine import Counter

if TYPE_CHECKING:
    from patchclamp.methods.front import Generation


@pytest.mark.parametrize("read", [True, False])
def test_every_token_is_what_a_plain_pass_says(read: bool) -> None:
    model = letters.model("llama") if read else tiny.model("neox")
    score = objective(model, "L2.N5")
    found = last(model, lambda engine: single_tokens(engine, score, tokens="all"))
    assert found.activations.shape == (tiny.VOCAB,)
    truth = []
    for token in range(tiny.VOCAB):
        ids = [token] if model.bos_id is None else [model.bos_id, token]
        truth.append(plainly(model, score, ids))
    activations, cross_entropies, largest = torch.tensor(truth).T
    most = float(largest.max())
    assert float((found.activations - activations).abs().max()) <= 1e-5 * most
    assert float(activations.std()) >= 1e-3 * most
    if model.bos_id is None:
        assert bool(found.cross_entropies.isnan().all())
        assert found.generation.front.candidates == ()
    else:
        assert float((found.cross_entropies - cross_entropies).abs().max()) <= 1e-5 * most
        assert found.generation.front.best is not None
        assert found.generation.front.best.activation == pytest.approx(float(activations.max()))


def test_it_finds_the_token_that_was_planted() -> None:
    model = planted()
    found = last(model, lambda engine: single_tokens(engine, objective(model, "L1.N3")))
    token, activation = found.top(1)[0]
    assert token == ABOUT[3]
    assert activation == pytest.approx(10, abs=1e-4)
    assert found.top(2)[1][1] < 1


def test_only_ordinary_tokens_are_tried_unless_asked_for() -> None:
    model = letters.model()
    found = last(model, lambda engine: single_tokens(engine, objective(model, "L1.N5")))
    assert found.activations[[letters.PAD, letters.BOS, letters.EOS]].isnan().all()
    assert not {token for token, _ in found.top(100)} & {0, 1, 2}
    assert found.generation.front.tokens_tried == int(found.activations.isfinite().sum())


def test_it_says_how_far_it_is_and_runs_one_row_a_token_up_to_the_unit() -> None:
    model = letters.model()
    counter = Counter(Engine.of(model))
    score = objective(model, "L1.N5")

    def job() -> tuple[list[float], list[tuple[int, str, int]]]:
        steps = single_tokens(Engine.of(model), score, tokens="all")
        first = next(steps).share
        calls = counter.take()
        return [first, *(state.share for state in steps)], calls

    shares, calls = on_worker(model, job)
    counter.close()
    assert shares[-1] == 1
    assert shares == sorted(shares)
    own = len(Engine.of(model).passes.shells["plain"].blocks)
    assert calls[own:] == [(0, "plain", tiny.VOCAB), (1, "hooked", tiny.VOCAB)]


def test_random_prompts_are_run_as_they_are_and_drawn_by_their_seed() -> None:
    model = letters.model()
    score = objective(model, "L2.N5")

    def draw(seed: int) -> Generation:
        return last(model, lambda engine: random_prompts(engine, score, 20, length=5, seed=seed))

    one, again, other = draw(1), draw(1), draw(2)
    assert one.front.tokens_tried == 20
    assert one.front.candidates == again.front.candidates != other.front.candidates
    assert one.front.best is not None
    activation, cross_entropy, largest = plainly(model, score, one.front.best.ids)
    assert one.front.best.activation == pytest.approx(activation, abs=1e-5 * largest)
    assert one.front.best.cross_entropy == pytest.approx(cross_entropy, abs=1e-5 * largest)
