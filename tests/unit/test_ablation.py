"""Effects of components equal plain TransformerLens hooked passes, one component at a time."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import pytest
import torch

from patchclamp.methods.ablation import component_effects, component_estimates, components
from tests.unit.pairs import EXACT, Plain, assert_same, on_worker, task_on

if TYPE_CHECKING:
    from patchclamp.methods.task import Replacement, Task

MODELS = ["native", "gpt2", "llama", "neox"]


def exact(task: Task, how: Replacement) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """Return what is found and the truth, Float[layer, column] each, baseline, largest logit."""
    plain, anatomy = Plain(task), task.engine.model.anatomy
    value = cache(partial(plain.replacement, how))
    base = plain.level()
    table = components(anatomy)
    truth = torch.full((anatomy.n_layers, anatomy.n_heads + 1), torch.nan)
    for place, site in table.items():
        index = None if site.kind == "mlp" else site.index
        truth[place] = plain.put([(anatomy.hook(site), index, plain.everywhere())], value) - base
    *_, last = on_worker(task, lambda: list(component_effects(task, how)))
    assert last.done == last.total == len(table)
    assert abs(last.baseline - base) <= EXACT * plain.largest
    return last.values, truth, base, plain.largest


@pytest.mark.parametrize("how", ["mean", "zero", "corrupt"])
@pytest.mark.parametrize("name", MODELS)
def test_the_effect_of_a_component_is_that_of_a_hooked_pass(name: str, how: Replacement) -> None:
    found, truth, _, largest = exact(task_on(name), how)
    assert_same(found, truth, 0.0, largest)


def test_an_estimate_is_a_gradient_times_a_difference() -> None:
    task = task_on("llama")
    found = on_worker(task, lambda: component_estimates(task, "corrupt"))
    plain, anatomy = Plain(task), task.engine.model.anatomy
    truth = torch.zeros_like(found)
    for pair in range(task.n_pairs):
        for (layer, column), site in components(anatomy).items():
            hook = anatomy.hook(site)
            held: list[torch.Tensor] = []

            def keep(
                x: torch.Tensor, hook: object, held: list[torch.Tensor] = held
            ) -> torch.Tensor:
                held.append(x.detach().requires_grad_())
                return held[0]

            logits = plain.bridge.run_with_hooks(
                torch.tensor([task.clean[pair].ids]), fwd_hooks=[(hook, keep)]
            )[0, -1]
            answer, wrong = task.tokens[pair]
            (grad,) = torch.autograd.grad(logits[answer] - logits[wrong], held)
            product = (plain.values("corrupt", hook, pair) - held[0][0]) * grad[0]
            if site.kind == "head":
                product = product[:, site.index]
            truth[layer, column] += float(product.detach().sum()) / task.n_pairs
    assert_same(found, truth, 0.0, plain.largest)
