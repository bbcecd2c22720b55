"""Activation patching equals plain TransformerLens hooked passes, one patch at a time."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import pytest
import torch

from patchclamp import KL, Ablate, Cut, Knockout, LogitDifference, Loss, Patch
from patchclamp.engine.engine import Engine
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference
from patchclamp.errors import AddressError, InputError, Stopped
from patchclamp.methods.activation_patching import (
    Direction,
    Over,
    Patched,
    activation_patching,
    patching_cost,
    patching_edits,
)
from patchclamp.methods.task import Task
from patchclamp.models.language_model import LanguageModel
from patchclamp.sites import Site
from tests.unit import planted, tiny
from tests.unit.pairs import DIFFERS, EXACT, LENGTH, Plain, assert_same, on_worker, task_on
from tests.unit.test_engine import Counter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from patchclamp.interventions import Intervention
    from patchclamp.methods.task import Side

MODELS = ["native", "gpt2", "llama", "neox"]
KINDS: list[Over] = ["resid_pre", "attn", "mlp", "head"]
STACKS: Mapping[str, Sequence[Intervention]] = {
    "an ablation": [Ablate("L1.H2"), Ablate("L2.mlp@5:", how="zero")],
    "another run's": [Patch("L1.H1@4:", source="contrast")],
    "a cut": [Cut("L0.H1->L3.mlp"), Cut("L1.mlp->logits", how="zero")],
    "no attention": [Knockout("L[1:3].H*[*<-2]")],
}


def patched(task: Task, direction: Direction, over: Over) -> Patched:
    *_, last = on_worker(task, lambda: list(activation_patching(task, direction, over)))
    return last


def check(task: Task, direction: Direction, over: Over) -> None:
    """Compare all patches with hooked passes."""
    plain, anatomy = Plain(task), task.engine.model.anatomy
    side: Side = "corrupt" if direction == "denoise" else "clean"
    value = cache(partial(plain.values, "clean" if side == "corrupt" else "corrupt"))
    columns = anatomy.n_heads if over == "head" else task.length
    truth = torch.zeros(anatomy.n_layers, columns)
    for layer in range(anatomy.n_layers):
        for column in range(columns):
            if over == "head":
                hook = anatomy.hook(Site("head", layer, column, "z"))
                index, places = column, list(range(task.length))
            else:
                hook, index, places = anatomy.hook(Site(over, layer)), None, [column]
            truth[layer, column] = plain.put([(hook, index, places)], value, side)
    found = patched(task, direction, over)
    assert (found.direction, found.over) == (direction, over)
    assert found.done == found.total == truth.numel()
    assert abs(found.clean - plain.level("clean")) <= EXACT * plain.largest
    assert abs(found.corrupt - plain.level("corrupt")) <= EXACT * plain.largest
    assert_same(found.values, truth, plain.level(side), plain.largest)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("over", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_patch_gives_what_a_hooked_pass_gives(
    name: str, over: Over, direction: Direction
) -> None:
    check(task_on(name, pairs=2), direction, over)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("stack", STACKS)
def test_it_is_so_under_a_stack_which_acts_on_the_clean_side(
    stack: str, direction: Direction
) -> None:
    task = task_on("llama", pairs=2, stack=STACKS[stack], bos=True)
    check(task, direction, "resid_pre")
    check(task, direction, "head")


@pytest.mark.parametrize("metric", [KL(), Loss()])
def test_it_is_so_of_other_metrics(metric: KL | Loss) -> None:
    check(task_on("gpt2", pairs=2, metric=metric), "denoise", "mlp")
    check(task_on("gpt2", pairs=2, metric=metric), "noise", "head")


@pytest.mark.parametrize("name", ["bert", "gemma3", "opt"])
def test_it_is_so_of_encoders_and_of_norms_after_the_components(name: str) -> None:
    check(task_on(name, pairs=2, bos=True), "denoise", "attn")
    check(task_on(name, pairs=2, bos=True), "noise", "resid_pre")


def test_a_share_is_0_at_the_corrupt_and_1_at_the_clean_metric() -> None:
    found = patched(task_on("llama"), "denoise", "resid_pre")
    assert bool(found.share[:, :DIFFERS].abs().max() <= 1e-6)  # nothing differs there yet
    # The whole stream that differs, put in at once, would be the clean run; one place is a part.
    clean = Patched("denoise", "resid_pre", 3.0, 1.0, torch.tensor([[1.0, 3.0, 0.0]]), 3, 3)
    assert clean.share.tolist() == [[0.0, 1.0, -0.5]]
    same = Patched("denoise", "resid_pre", 1.0, 1.0, torch.ones(1, 2), 2, 2)
    assert bool(same.share.isnan().all())


def test_in_a_model_whose_circuit_is_known_only_its_heads_bring_the_answer_back() -> None:
    known = planted.induction()
    clean, corrupt = (
        tuple(Input(tuple(ids), has_bos=False) for ids in side.tolist())
        for side in (known.clean, known.corrupt)
    )
    engine, metric = Engine.of(known.model), LogitDifference(*known.answers[0])
    task = Task(engine, clean, corrupt, metric, known.answers, Reference(engine, clean))
    found = patched(task, "noise", "head")
    assert found.clean == pytest.approx(known.clean_metric, abs=1e-4)
    assert found.corrupt == pytest.approx(known.corrupt_metric, abs=1e-4)
    anatomy = known.model.anatomy
    for layer in range(anatomy.n_layers):
        for head in range(anatomy.n_heads):
            effect = float(found.values[layer, head]) - found.clean
            assert effect == pytest.approx(known.nodes.get(f"L{layer}.H{head}", 0.0), abs=1e-3)


# Short cuts, filling in, stopping -----------------------------------------------------------------


@pytest.fixture
def counted() -> Iterator[tuple[Task, Counter]]:
    model = LanguageModel(tiny.hugging_face("llama"), None, name="llama")
    task = task_on(model)
    counter = Counter(task.engine)
    yield task, counter
    counter.close()


def test_where_nothing_differs_nothing_is_run(counted: tuple[Task, Counter]) -> None:
    task, counter = counted
    patched(task, "denoise", "attn")  # the prompts' own runs
    counter.take()
    found = patched(task, "denoise", "attn")
    assert bool((found.values[:, :DIFFERS] == found.corrupt).all())
    # What is captured of the other side, then from each place on: 7 places of 3 pairs in 4 layers.
    calls = [call for call in counter.take() if call[2] != 3 * LENGTH]
    rows = [sum(n for layer, _, n in calls if layer == at) for at in range(4)]
    least = 3 * sum(range(1, LENGTH - DIFFERS + 1))
    assert all(least * (at + 1) <= n <= 1.5 * least * (at + 1) for at, n in enumerate(rows))
    # Heads are patched from the first differing position on.
    patched(task, "denoise", "head")
    counter.take()
    patched(task, "denoise", "head")
    calls = [call for call in counter.take() if call[2] != 3 * LENGTH]
    assert [n for layer, _, n in calls if layer == 3] == [3 * 4 * (LENGTH - DIFFERS)] * 4


def test_the_cost_is_known_before_anything_runs(counted: tuple[Task, Counter]) -> None:
    task, counter = counted
    counter.take()
    cost = on_worker(task, lambda: patching_cost(task, "head"))
    assert counter.take() == []
    assert cost.passes == pytest.approx(4 * (4 + 3 + 2 + 1) / 4 * (LENGTH - DIFFERS) / LENGTH)
    steps = on_worker(task, lambda: list(activation_patching(task, "denoise", "head")))
    assert cost.chunks == len(steps)


def test_it_fills_in_from_the_last_layer_on(counted: tuple[Task, Counter]) -> None:
    task = task_on(counted[0].engine.model, pairs=40)
    steps = on_worker(task, lambda: list(activation_patching(task, "noise", "mlp")))
    assert len(steps) > 8
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    for step in steps:
        known = ~step.values.isnan()
        assert int(known.sum()) == step.done
        assert torch.equal(step.values[known], steps[-1].values[known])
    assert steps[-1].done == steps[-1].total == 4 * LENGTH
    begun = next(step for step in steps if step.done > 4 * DIFFERS)
    assert bool(begun.values[:3, DIFFERS:].isnan().all())


def test_it_stops_before_the_next_block(counted: tuple[Task, Counter]) -> None:
    task, counter = counted
    whole = patched(task, "denoise", "resid_pre")
    counter.take()
    seen: list[Patched] = []

    def job() -> None:
        found = activation_patching(task, "denoise", "resid_pre", should_stop=lambda: bool(seen))
        seen.extend(found)

    with pytest.raises(Stopped):
        on_worker(task, job)
    # The other side's values, then one chunk in the last layer.
    assert [layer for layer, *_ in counter.take()] == [0, 1, 2, 3, 3]
    assert torch.equal(patched(task, "denoise", "resid_pre").values, whole.values)


# Bad input ----------------------------------------------------------------------------------------


def test_what_cannot_be_patched_is_said() -> None:
    task = task_on("gpt2")
    with pytest.raises(InputError, match="knows denoise, noise, not 'up'"):
        patched(task, "up", "mlp")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="knows resid_pre, attn, mlp, head, not 'neuron'"):
        patched(task, "noise", "neuron")  # type: ignore[arg-type]
    alone = Task(task.engine, task.clean, None, task.metric, task.tokens, task.reference)
    with pytest.raises(InputError, match="There is no corrupt prompt"):
        patched(alone, "noise", "mlp")
    attention_only = task_on(planted.induction().model)
    with pytest.raises(AddressError, match="mlp"):
        patching_edits(attention_only, "mlp")


def test_equal_prompts_give_the_same_metric_everywhere() -> None:
    made = task_on("llama")
    task = Task(made.engine, made.clean, made.clean, made.metric, made.tokens, made.reference)
    found = patched(task, "denoise", "resid_pre")
    assert float((found.values - found.clean).abs().max()) <= 1e-5
