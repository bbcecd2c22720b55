"""Activation patching equals plain TransformerLens hooked passes, one patch at a time."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch

from patchclamp.methods.activation_patching import Direction, Over, activation_patching
from patchclamp.sites import Site
from tests.unit.pairs import EXACT, Plain, assert_same, on_worker, task_on

MODELS = ["native", "gpt2", "llama", "neox"]


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("over", ["resid_pre", "attn", "mlp", "head"])
@pytest.mark.parametrize("name", MODELS)
def test_a_patch_gives_what_a_hooked_pass_gives(
    name: str, over: Over, direction: Direction
) -> None:
    task = task_on(name)
    plain, anatomy = Plain(task), task.engine.model.anatomy
    side, other = ("corrupt", "clean") if direction == "denoise" else ("clean", "corrupt")
    value = cache(partial(plain.values, other))
    columns = anatomy.n_heads if over == "head" else task.length
    truth = torch.zeros(anatomy.n_layers, columns)
    for layer in range(anatomy.n_layers):
        for column in range(columns):
            if over == "head":
                hook = anatomy.hook(Site("head", layer, column, "z"))
                index, places = column, plain.everywhere()
            else:
                hook, index, places = anatomy.hook(Site(over, layer)), None, [column]
            truth[layer, column] = plain.put([(hook, index, places)], value, side)
    *_, last = on_worker(task, lambda: list(activation_patching(task, direction, over)))
    assert last.done == last.total == truth.numel()
    assert abs(last.clean - plain.level("clean")) <= EXACT * plain.largest
    assert abs(last.corrupt - plain.level("corrupt")) <= EXACT * plain.largest
    assert_same(last.values, truth, plain.level(side), plain.largest)
