"""Clamping a neuron that writes a token moves that token, as an edit by hand does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp.engine.engine import Engine
from patchclamp.engine.surroundings import input_of
from patchclamp.errors import InputError
from patchclamp.methods.token_effect import TokenEffect, random_neurons, token_effect
from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny

if TYPE_CHECKING:
    from patchclamp.engine.queue import Task

TOKEN = 31
PROMPTS = [tiny.ids(6, 1), tiny.ids(9, 2), tiny.ids(4, 3)]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    made = LanguageModel(tiny.hugging_face("llama"), None)
    with torch.no_grad():  # L2.N8 writes what reads the token
        reading = made.bridge.unembed.original_component.weight[TOKEN]
        made.bridge.blocks[2].mlp.out.original_component.weight[:, 8] = reading
    return made


def measured(
    model: LanguageModel, neurons: list[tuple[int, int]], value: float = 3.0
) -> list[TokenEffect]:
    engine = Engine.of(model)
    inputs = [input_of(model, ids) for ids in PROMPTS]
    job: Any = lambda stop: token_effect(  # noqa: E731 (its own type says less)
        engine, inputs, neurons, TOKEN, value, should_stop=stop
    )
    task: Task[list[TokenEffect]] = engine.queue.submit(job)
    return task.result()


def by_hand(
    model: LanguageModel, ids: torch.Tensor, neuron: tuple[int, int], value: float | None
) -> float:
    """The token's log-probability with the neuron set at all positions, by TransformerLens."""
    layer, index = neuron

    def edit(values: torch.Tensor, hook: object) -> torch.Tensor:
        changed = values.clone()
        if value is not None:
            changed[..., index] = value
        return changed

    hooks: list[Any] = [(f"blocks.{layer}.mlp.out.hook_in", edit)]
    with torch.no_grad():
        logits = model.bridge.run_with_hooks(ids[None], fwd_hooks=hooks)
    return float(logits[0, -1].log_softmax(-1)[TOKEN])


def test_effects_are_those_of_an_edit_by_hand(model: LanguageModel) -> None:
    found = measured(model, [(2, 8), (1, 3)])
    for effect, neuron in zip(found, [(2, 8), (1, 3)], strict=True):
        for ids, (up, down) in zip(PROMPTS, effect.each, strict=True):
            plain = by_hand(model, ids, neuron, None)
            assert up == pytest.approx(by_hand(model, ids, neuron, 3.0) - plain, abs=1e-4)
            assert down == pytest.approx(by_hand(model, ids, neuron, -3.0) - plain, abs=1e-4)
        assert effect.up == pytest.approx(sum(up for up, _ in effect.each) / 3)


def test_a_planted_neuron_moves_its_token_more_than_random_ones(model: LanguageModel) -> None:
    engine = Engine.of(model)
    beside = random_neurons(engine, 2, 5, seed=0, apart=[(2, 8)])
    planted, *others = measured(model, [(2, 8), *beside])
    assert planted.up > 0.5
    assert planted.down < -0.5
    assert planted.up - planted.down > 2 * max(abs(o.up - o.down) for o in others)


def test_random_neurons_are_of_the_layer_and_none_that_is_kept_apart(model: LanguageModel) -> None:
    engine = Engine.of(model)
    apart = [(1, index) for index in range(40)]
    drawn = random_neurons(engine, 1, 20, seed=3, apart=apart)
    assert drawn == [(1, index) for index in range(40, 48)]
    assert random_neurons(engine, 1, 4, seed=1) == random_neurons(engine, 1, 4, seed=1)
    assert random_neurons(engine, 1, 4, seed=1) != random_neurons(engine, 1, 4, seed=2)


def test_what_cannot_be_measured_is_a_sentence(model: LanguageModel) -> None:
    engine = Engine.of(model)
    with pytest.raises(InputError, match="there are none"):
        next(token_effect(engine, [], [(0, 0)], TOKEN, 1.0))
    with pytest.raises(InputError, match="Clamped to 0"):
        measured(model, [(0, 0)], 0.0)
