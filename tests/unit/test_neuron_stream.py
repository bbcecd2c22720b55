"""A corpus pass hands over the very values that TransformerLens' hook points see."""

from __future__ import annotations

import pytest
import torch

from patchclamp.engine.engine import Engine
from patchclamp.engine.neuron_stream import NeuronStream
from patchclamp.errors import ModelError, Stopped
from patchclamp.models.language_model import LanguageModel
from patchclamp.sites import Site
from tests.unit import tiny

NAMES = ["llama", "gpt2", "neox", "gemma3", "opt", "native"]


def streamed(engine: Engine, ids: torch.Tensor) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}

    def run(_stop: object) -> None:
        NeuronStream(engine).run(ids, lambda layer, values: found.update({layer: values.clone()}))

    engine.queue.submit(run).result()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_hook_points(name: str) -> None:
    model = tiny.model(name)
    ids = torch.stack([tiny.ids(9, seed) for seed in range(3)])
    found = streamed(Engine.of(model), ids)
    assert list(found) == [0, 1, 2, 3]
    bridge = tiny.fresh_bridge(name)
    hooks = {layer: model.anatomy.hook(Site("neuron", layer, 0, "post")) for layer in found}
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids, names_filter=list(hooks.values()))
    for layer, hook in hooks.items():
        truth = cache[hook]
        assert truth.abs().max() > 1e-3
        bound = 1e-5 * float(truth.abs().max())
        torch.testing.assert_close(found[layer].reshape(truth.shape), truth, rtol=0, atol=bound)


def test_plain_blocks_are_run_and_nothing_is_left_on_them() -> None:
    engine = Engine.of(tiny.model("llama"))
    streamed(engine, tiny.ids(5)[None])

    def look(_stop: object) -> tuple[bool, int]:
        stream = NeuronStream(engine)
        blocks = engine.passes.shells["plain"].blocks
        hooks = sum(len(m._forward_pre_hooks) for block in blocks for m in block.modules())
        return stream.plain, hooks

    assert engine.queue.submit(look).result() == (True, 0)


def test_padding_on_the_right_changes_nothing_to_its_left() -> None:
    engine = Engine.of(tiny.model("llama"))
    ids = tiny.ids(6)
    padded = torch.cat([ids, torch.zeros(4, dtype=torch.long)])[None]
    alone, beside = streamed(engine, ids[None]), streamed(engine, padded)
    for layer, values in alone.items():
        torch.testing.assert_close(beside[layer][:, :6], values, rtol=1e-4, atol=1e-5)


def test_a_stopped_pass_leaves_no_hook() -> None:
    engine = Engine.of(tiny.model("llama"))

    def run(_stop: object) -> int:
        stream = NeuronStream(engine)
        with pytest.raises(Stopped):
            stream.run(tiny.ids(5)[None], lambda *_: None, should_stop=lambda: True)
        blocks = engine.passes.shells["plain"].blocks
        return sum(len(m._forward_pre_hooks) for block in blocks for m in block.modules())

    assert engine.queue.submit(run).result() == 0


def test_a_model_without_neurons_is_a_sentence() -> None:
    from patchclamp.models.loading import load

    model = load("induction-2l")
    assert isinstance(model, LanguageModel)
    with pytest.raises(ModelError, match="no MLP neurons"):
        NeuronStream(Engine.of(model))
