"""Effects of components equal plain TransformerLens hooked passes, one component at a time."""

from __future__ import annotations

import math
from functools import cache, partial
from typing import TYPE_CHECKING

import pytest
import torch

from patchclamp import KL, Ablate, Custom, Cut, Knockout, LogProb, Loss, Patch
from patchclamp.engine.surroundings import Reference
from patchclamp.errors import AddressError, InputError, MetricError, Stopped
from patchclamp.methods.ablation import (
    NO_ESTIMATE,
    component_effects,
    component_estimates,
    components,
    effects_cost,
    into_head,
    into_mlp,
    why_no_estimate,
)
from patchclamp.methods.levels import level
from patchclamp.methods.task import Task
from patchclamp.models.language_model import LanguageModel
from patchclamp.sites import Site
from tests.unit import tiny
from tests.unit.pairs import EXACT, SEEN, Plain, assert_same, on_worker, task_on
from tests.unit.test_engine import Counter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from patchclamp.interventions import Intervention
    from patchclamp.methods.ablation import ComponentEffects
    from patchclamp.methods.metric import Metric
    from patchclamp.methods.task import Replacement

MODELS = ["native", "gpt2", "llama", "neox"]
STACKS: Mapping[str, Sequence[Intervention]] = {
    "an ablation": [Ablate("L1.H2"), Ablate("L2.mlp@5:", how="zero")],
    "another run's": [Patch("L1.H1@4:", source="contrast")],
    "a cut": [Cut("L0.H1->L3.mlp"), Cut("L1.mlp->logits", how="zero")],
    "no attention": [Knockout("L[1:3].H*[*<-2]")],
}


def effects(task: Task, how: Replacement) -> ComponentEffects:
    *_, last = on_worker(task, lambda: list(component_effects(task, how)))
    return last


def check(task: Task, how: Replacement) -> None:
    """Compare all effects with hooked passes."""
    plain, anatomy = Plain(task), task.engine.model.anatomy
    value = cache(partial(plain.replacement, how))
    base = plain.level()
    table = components(anatomy)
    truth = torch.full((anatomy.n_layers, anatomy.n_heads + 1), torch.nan)
    for place, site in table.items():
        index = None if site.kind == "mlp" else site.index
        truth[place] = plain.put([(anatomy.hook(site), index, plain.everywhere())], value) - base
    found = effects(task, how)
    assert found.how == how
    assert found.done == found.total == len(table) == truth.numel()
    assert abs(found.baseline - base) <= EXACT * plain.largest
    assert_same(found.values, truth, 0.0, plain.largest)


@pytest.mark.parametrize("how", ["mean", "zero", "corrupt"])
@pytest.mark.parametrize("name", MODELS)
def test_the_effect_of_a_component_is_that_of_a_hooked_pass(name: str, how: Replacement) -> None:
    check(task_on(name), how)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_it_is_so_under_a_stack(name: str, stack: str) -> None:
    check(task_on(name, pairs=2, stack=STACKS[stack], bos=True), "mean")


METRICS: Mapping[str, Metric] = {
    "the likeliest token": LogProb(),
    "kl": KL(),
    "loss": Loss(),
    "custom": Custom(lambda logits: logits[:, -1].square().mean(-1)),
}


@pytest.mark.parametrize("stack", [[], [Ablate("L1.H2")]])
@pytest.mark.parametrize("metric", METRICS)
def test_it_is_so_of_every_metric(metric: str, stack: list[Intervention]) -> None:
    check(task_on("llama", pairs=2, metric=METRICS[metric], stack=stack), "corrupt")


@pytest.mark.parametrize("name", ["bert", "gemma3"])
def test_it_is_so_of_encoders_and_of_norms_after_the_components(name: str) -> None:
    check(task_on(name, pairs=2, bos=True), "corrupt")


@pytest.mark.parametrize("how", ["mean", "zero", "resample", "corrupt"])
def test_ablating_a_component_in_the_stack_does_what_the_map_says(how: Replacement) -> None:
    task = task_on("llama", stack=[Ablate("L2.H3", how="zero")], bos=True)
    found = effects(task, how)
    for address, place in (("L0.H2", (0, 2)), ("L2.H1", (2, 1)), ("L3.mlp", (3, 4))):
        clicked = Patch(address) if how == "corrupt" else Ablate(address, how)
        under = task.under((*task.stack, clicked))
        effect = on_worker(task, partial(level, under)) - found.baseline
        assert effect == pytest.approx(float(found.values[place]), abs=1e-5)
        assert abs(effect) > 1e-3


def test_what_is_resampled_depends_on_the_seed() -> None:
    task = task_on("gpt2")

    def values(seed: int) -> torch.Tensor:
        *_, last = on_worker(task, lambda: list(component_effects(task, "resample", seed=seed)))
        return last.values

    assert torch.equal(values(1), values(1))
    assert float((values(1) - values(2)).abs().max()) > 0.01


# Filling in, stopping, cost -----------------------------------------------------------------------


def test_effects_fill_in_from_the_last_layer_on_and_count_once_all_pairs_are_in() -> None:
    task = task_on("llama", pairs=40)  # several chunks a layer
    steps = on_worker(task, lambda: list(component_effects(task, "corrupt")))
    assert len(steps) > 8
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[-1].total == 20
    for step in steps:
        assert int((~step.values.isnan()).sum()) == step.done
        known = ~step.values.isnan()
        assert torch.equal(step.values[known], steps[-1].values[known])
    first = next(step for step in steps if step.done)
    assert bool(first.values[:-1].isnan().all())
    # Every pair counts the same.
    alone = [effects(task_on("llama", pairs=n + 1), "corrupt") for n in range(2)]
    both = 2 * alone[1].values - alone[0].values
    second = task_on("llama", pairs=2)
    one = Plain(second)
    assert one.level() * 2 - Plain(task_on("llama", pairs=1)).level() == pytest.approx(
        alone[1].baseline * 2 - alone[0].baseline, abs=1e-5
    )
    assert float((both - alone[0].values).abs().max()) > SEEN  # the second pair's are others


@pytest.fixture
def counted() -> Iterator[tuple[Task, Counter]]:
    model = LanguageModel(tiny.hugging_face("llama"), None, name="llama")
    task = task_on(model)
    counter = Counter(task.engine)
    yield task, counter
    counter.close()


def test_the_cost_is_known_before_anything_runs(counted: tuple[Task, Counter]) -> None:
    task, counter = counted
    counter.take()
    cost = on_worker(task, lambda: effects_cost(task, "zero"))
    assert counter.take() == []
    steps = on_worker(task, lambda: list(component_effects(task, "zero")))
    assert cost.chunks == len(steps)
    # Five components in each of four layers, run from their own layer on.
    assert cost.passes == pytest.approx(5 * (4 + 3 + 2 + 1) / 4)
    assert 0 < cost.nbytes < task.engine.budget
    # The prompts differ from the third position on: before that a corrupt value is the clean one.
    cheaper = on_worker(task, lambda: effects_cost(task, "corrupt"))
    assert cheaper.passes == pytest.approx(cost.passes * 7 / 10)


def test_effects_stop_before_the_next_block_and_what_was_measured_was_yielded(
    counted: tuple[Task, Counter],
) -> None:
    task, counter = counted
    on_worker(task, lambda: effects(task, "zero"))  # the prompts' own runs
    counter.take()
    seen: list[ComponentEffects] = []

    def job() -> None:
        seen.extend(component_effects(task, "zero", should_stop=lambda: bool(seen)))

    with pytest.raises(Stopped):
        on_worker(task, job)
    assert [layer for layer, *_ in counter.take()] == [3]
    assert len(seen) == 1
    assert effects(task, "zero").done == 20


def test_a_metric_that_is_no_number_is_said_and_nothing_measured_is_lost() -> None:
    whole = effects(task_on("gpt2", pairs=1), "zero")
    # Fine in the last two layers, and no number below.
    bound = float(whole.values[2:].abs().max())
    assert float(whole.values[:2].abs().max()) > bound + 0.01

    def broken(logits: torch.Tensor) -> torch.Tensor:
        found = logits[:, -1, 5] - logits[:, -1, 20]
        return torch.where((found - whole.baseline).abs() > bound + 0.01, torch.nan, found)

    task = task_on("gpt2", pairs=1, metric=Custom(broken, name="broken"))
    seen: list[ComponentEffects] = []
    with pytest.raises(MetricError, match="'broken' is NaN: the metric itself divides by zero"):
        on_worker(task, lambda: seen.extend(component_effects(task, "zero")))
    measured = ~seen[-1].values.isnan()
    assert bool(measured[2:].all())
    assert not bool(measured[:2].all())
    assert torch.equal(seen[-1].values[measured], whole.values[measured])
    assert effects(task_on("gpt2"), "zero").done == 20


def test_an_estimate_of_a_metric_without_a_gradient_is_refused() -> None:
    task = task_on("gpt2", metric=Custom(lambda x: x[:, -1].argmax(-1).float(), name="blind"))
    with pytest.raises(MetricError, match="'blind' has no gradient"):
        on_worker(task, lambda: component_estimates(task, "zero"))
    assert effects(task, "zero").done == 20


def test_without_a_corrupt_prompt_a_sentence_says_so() -> None:
    made = task_on("gpt2")
    task = Task(made.engine, made.clean, None, made.metric, made.tokens, made.reference)
    assert effects(task, "mean").done == 20
    for job in (
        lambda: effects(task, "corrupt"),
        lambda: component_estimates(task, "corrupt"),
        lambda: into_head(task, 1, 1, "corrupt"),
    ):
        with pytest.raises(InputError, match="There is no corrupt prompt"):
            on_worker(task, job)


# Estimates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stack", [[], [Ablate("L1.H2"), Cut("L0.H1->logits")]])
def test_an_estimate_is_a_gradient_times_a_difference(name: str, stack: list[Intervention]) -> None:
    task = task_on(name, pairs=2, bos=True, stack=stack)
    found = on_worker(task, lambda: component_estimates(task, "mean"))
    plain, anatomy = Plain(task), task.engine.model.anatomy
    truth = torch.zeros_like(found)
    for pair in range(task.n_pairs):
        for (layer, column), site in components(anatomy).items():
            hook = anatomy.hook(site)
            value, grad = plain.gradient(hook, pair)
            product = (plain.replacement("mean", hook, pair) - value)[1:] * grad[1:]
            if site.kind == "head":
                product = product[:, site.index]
            truth[layer, column] += float(product.sum()) / task.n_pairs
    assert_same(found, truth, 0.0, plain.largest)


def test_estimates_of_many_pairs_are_taken_in_parts() -> None:
    task = task_on("llama", pairs=30)
    assert task.base().at_once < 30
    found = on_worker(task, lambda: component_estimates(task, "corrupt"))
    each = []
    for pair in range(30):
        alone = Task(
            task.engine,
            (task.clean[pair],),
            (task.corrupt or ())[pair : pair + 1],
            task.metric,
            task.tokens[pair : pair + 1],
            task.reference,
        )
        each.append(on_worker(task, partial(component_estimates, alone, "corrupt")))
    truth = torch.stack(each).mean(0)
    assert float((found - truth).abs().max()) <= EXACT * float(truth.abs().max())


def test_an_estimate_of_kl_is_refused_in_a_sentence_unless_a_stack_acts() -> None:
    task = task_on("llama", metric=KL())
    assert why_no_estimate(task) == NO_ESTIMATE
    assert bool(on_worker(task, lambda: component_estimates(task, "zero")).isnan().all())
    under = task.under((Ablate("L1.H2"),))
    assert not why_no_estimate(under)
    assert float(on_worker(task, lambda: component_estimates(under, "zero")).abs().max()) > 0.01
    assert not why_no_estimate(task_on("llama"))


# Into a component ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["mean", "corrupt"])
@pytest.mark.parametrize("name", MODELS)
def test_a_heads_parts_and_positions_are_those_of_hooked_passes(
    name: str, how: Replacement
) -> None:
    task = task_on(name, pairs=2, bos=True)
    plain, anatomy = Plain(task), task.engine.model.anatomy
    value = cache(partial(plain.replacement, how))
    base = plain.level()
    found = on_worker(task, lambda: into_head(task, 1, 3, how))
    assert (found.address, list(found.parts)) == ("L1.H3", ["q", "k", "v", "z"])
    places = plain.everywhere()
    truth = []
    for part in found.parts:
        index = anatomy.kv_head(3) if part in {"k", "v"} else 3
        hook = anatomy.hook(Site("head", 1, 3, part))
        truth.append(plain.put([(hook, index, places)], value) - base)
    assert_same(torch.tensor(list(found.parts.values())), torch.tensor(truth), 0, plain.largest)
    hook = anatomy.hook(Site("head", 1, 3, "z"))
    truth = [plain.put([(hook, 3, [place])], value) - base for place in range(task.length)]
    assert_same(found.positions, torch.tensor(truth), 0, plain.largest)
    shared = "L1.H3 has its keys and values in common with L1.H2: replacing them acts on all"
    assert found.note.startswith(shared) if name == "llama" else not found.note


@pytest.mark.parametrize("how", ["mean", "corrupt"])
@pytest.mark.parametrize("name", MODELS)
def test_an_mlps_strongest_neurons_are_those_of_hooked_passes(name: str, how: Replacement) -> None:
    task = task_on(name, pairs=2, bos=True)
    plain, anatomy = Plain(task), task.engine.model.anatomy
    value = cache(partial(plain.replacement, how))
    base = plain.level()
    found = on_worker(task, lambda: into_mlp(task, 2, how, count=5))
    assert (found.total, len(found.neurons), found.note) == (anatomy.n_neurons(2), 5, "")
    hook = anatomy.hook(Site("neuron", 2, 0, "post"))
    places = plain.everywhere()
    products = []
    for pair in range(2):
        at, grad = plain.gradient(hook, pair)
        products.append(((value(hook, pair) - at) * grad)[places].sum(0))
    estimates = torch.stack(products).mean(0)
    best = estimates.abs().topk(5).indices.tolist()
    assert {neuron.address for neuron in found.neurons} == {f"L2.N{index}" for index in best}
    for neuron in found.neurons:
        index = Site.parse(neuron.address).index or 0
        exact = plain.put([(hook, index, places)], value) - base
        assert neuron.exact == pytest.approx(exact, abs=EXACT * plain.largest)
        assert neuron.estimate == pytest.approx(float(estimates[index]), rel=1e-3)
    sizes = [abs(neuron.exact) for neuron in found.neurons]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > SEEN * plain.largest
    hook = anatomy.hook(Site("mlp", 2))
    truth = [plain.put([(hook, None, [place])], value) - base for place in range(task.length)]
    assert_same(found.positions, torch.tensor(truth), 0, plain.largest)


def test_a_massive_neuron_is_left_out_however_strong_it_is() -> None:
    made = tiny.hugging_face("gpt2")
    with torch.no_grad():  # a neuron that is always at 3,000
        made.transformer.h[2].mlp.c_fc.bias[7] = 3000.0
    task = task_on(LanguageModel(made, None, name="massive"), pairs=1)
    found = on_worker(task, lambda: into_mlp(task, 2, "zero", count=1000))
    assert (found.total, len(found.neurons)) == (128, 127)
    assert "L2.N7" not in {neuron.address for neuron in found.neurons}


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        (KL(), "There is no estimate of a KL divergence"),
        (Custom(lambda x: x.detach()[:, -1, 5], name="blind"), "'blind' has no gradient"),
    ],
)
def test_without_an_estimate_neurons_are_chosen_by_what_they_write(
    metric: Metric, why: str
) -> None:
    task = task_on("gpt2", metric=metric)
    found = on_worker(task, lambda: into_mlp(task, 1, "zero", count=3))
    assert why in found.note
    assert [neuron.estimate for neuron in found.neurons] == [None] * 3
    plain = Plain(task)
    mlp = task.engine.model.bridge.blocks[1].mlp.out.original_component
    hook = task.engine.model.anatomy.hook(Site("neuron", 1, 0, "post"))
    values = torch.stack([plain.values("clean", hook, pair) for pair in range(3)])
    written = values.abs().sum((0, 1)) * mlp.weight.detach().norm(dim=1)
    best = {f"L1.N{index}" for index in written.topk(3).indices.tolist()}
    assert {neuron.address for neuron in found.neurons} == best
    assert all(math.isfinite(neuron.exact) for neuron in found.neurons)
    assert any(abs(neuron.exact) > 1e-3 for neuron in found.neurons)


def test_what_is_not_there_is_said() -> None:
    task = task_on("gpt2")
    with pytest.raises(AddressError, match="layer 1 has 4 heads"):
        on_worker(task, lambda: into_head(task, 1, 9, "zero"))
    with pytest.raises(AddressError, match="layer 8 does not exist"):
        on_worker(task, lambda: into_mlp(task, 8, "zero"))
    with pytest.raises(InputError, match="A replacement is one of mean, zero, resample, corrupt"):
        on_worker(task, lambda: effects(task, "nothing"))  # type: ignore[arg-type]
    empty = Task(
        task.engine, task.clean, task.corrupt, task.metric, task.tokens, Reference(task.engine, ())
    )
    assert effects(empty, "corrupt").done == 20
