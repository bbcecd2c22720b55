"""A batch of inputs equals plain TransformerLens hooked passes, and computes less than they do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp import Ablate, Add, Clamp, Cut, Knockout, Patch, Scale
from patchclamp.engine.batch import Batch, Spot
from patchclamp.engine.hooks import Step
from patchclamp.engine.plan import Input
from patchclamp.errors import BudgetError, InputError, Stopped
from patchclamp.models.language_model import LanguageModel
from patchclamp.sites import Site
from tests.unit import tiny
from tests.unit.pairs import EXACT, LENGTH, SEEN, Plain, on_worker, put, task_on
from tests.unit.test_engine import Counter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from patchclamp.engine.batch import Edit
    from patchclamp.interventions import Intervention
    from patchclamp.methods.task import Task

DIRECTION = torch.linspace(-1, 1, 32).tolist()
STACKS: Mapping[str, Sequence[Intervention]] = {
    "none": [],
    "an ablation": [Ablate("L1.H2"), Ablate("L2.mlp@5:", how="zero")],
    "another run's": [Patch("L1.H1@4:", source="contrast"), Patch("L2.mlp", source="contrast")],
    "a cut": [Cut("L0.H1->L3.mlp"), Cut("L1.mlp->L2.H0:q", how="zero"), Cut("embed->L2.H1:v")],
    "a cut of the contrast": [Cut("L0.mlp->L2.mlp", how="contrast")],
    "cuts that cross": [Cut("L0.H1->L2.mlp"), Cut("L1.mlp->L3.mlp", how="zero")],
    "a cut to the logits": [Cut("L1.mlp->logits", how="zero"), Clamp("L0.N3@2", 4.0)],
    "no attention": [Knockout("L[1:3].H*[*<-2]"), Knockout("L3.H0[7:10<-0:5]", how="zero")],
    "another pattern": [Knockout("L1.H*[4:10<-0:10]", how="contrast")],
    "the stream": [Add("L1.resid_post@6:", 1.5, direction=DIRECTION), Scale("L2.attn", 0.5)],
    "what is edited": [Scale("L2.H1", 3.0), Clamp("L2.N5", 2.0), Scale("L2.resid_pre", 1.5)],
}
EVERYWHERE, LATE = None, (6, 8)
EDITS: list[list[tuple[str, tuple[int, ...] | None]]] = [
    [],
    [("L0.H3", EVERYWHERE)],
    [("L1.H0", EVERYWHERE)],
    [("L1.H3", LATE)],
    [("L1.mlp", (7,))],
    [("L2.H1", EVERYWHERE)],
    [("L2.H1:q", (9,))],
    [("L2.H3:k", (4,))],
    [("L2.H3:v", EVERYWHERE)],
    [("L2.N5", EVERYWHERE)],
    [("L2.N7", LATE)],
    [("L2.resid_pre", (5,))],
    [("L2.attn", (8,))],
    [("L3.mlp", (9,))],
    [("L3.H2", (8,))],
    [("L3.resid_post", (9,))],
    [("L0.H1", (5,)), ("L2.mlp", EVERYWHERE), ("L3.H0", (2, 9))],
    [("L1.H1", LATE), ("L1.H2", LATE), ("L3.resid_post", (9,))],
    [("L3.H1", (7,)), ("L3.H1", (9,)), ("L3.N40", LATE)],
]


def spots(task: Task, edit: Sequence[tuple[str, tuple[int, ...] | None]]) -> Edit:
    anatomy = task.engine.model.anatomy
    return tuple(Spot.of(Site.parse(address), anatomy, places) for address, places in edit)


def other_values(task: Task, edits: Sequence[Edit]) -> dict[str, torch.Tensor]:
    """Read the corrupt runs' values by plain hooks, Float[item, pos, ...]; moved, so as to show."""
    plain = Plain(task)
    hooks = {spot.hook for edit in edits for spot in edit}
    return {
        hook: 2 * torch.stack([plain.values("corrupt", hook, n) for n in range(task.n_pairs)])
        for hook in hooks
    }


def swept(
    batch: Batch, edits: Sequence[Edit], values: Mapping[str, torch.Tensor], rows: Sequence[int]
) -> torch.Tensor:
    """Return Float[edit, item, row, vocab], every pair once."""
    found: dict[tuple[int, int], torch.Tensor] = {}
    for pairs, logits in batch.sweep(edits, values, rows):
        assert not found.keys() & set(pairs)
        found |= dict(zip(pairs, logits, strict=True))
    return torch.stack(
        [
            torch.stack([found[edit, item] for item in range(batch.count)])
            for edit in range(len(edits))
        ]
    )


def check(task: Task, chosen: Sequence[Any], rows: Sequence[int]) -> None:
    """Compare a sweep of a task's clean prompts with plain hooked passes."""
    edits = [spots(task, edit) for edit in chosen]
    values = other_values(task, edits)
    batch = task.base()
    found = on_worker(task, lambda: swept(batch, edits, values, rows))
    plain = Plain(task)
    moved = 0.0
    for index, edit in enumerate(edits):
        for pair in range(task.n_pairs):
            steps = [
                Step(
                    spot.hook,
                    partial(
                        put,
                        value=values[spot.hook][pair],
                        index=spot.index,
                        places=list(spot.positions or plain.everywhere()),
                    ),
                )
                for spot in edit
            ]
            truth = plain.run("clean", pair, steps)[list(rows)]
            largest = truth.abs().max()
            off = float((found[index, pair] - truth).abs().max() / largest)
            assert off <= EXACT, (chosen[index], pair)
            moved = max(
                moved, float((truth - plain.run("clean", pair)[list(rows)]).abs().max() / largest)
            )
    assert moved >= SEEN


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", ["native", "gpt2", "llama", "neox"])
def test_a_sweep_gives_what_hooked_passes_give(name: str, stack: str) -> None:
    check(task_on(name, pairs=2, stack=STACKS[stack]), EDITS, [LENGTH - 1])


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "bert", "gemma", "gemma3"])
def test_it_does_so_with_a_beginning_and_at_all_rows(name: str) -> None:
    rows = range(LENGTH - 1)
    stack = [Ablate("L1.H2")]
    layers = tiny.model(name).anatomy.n_layers
    edits = [edit for edit in EDITS if all(int(a[1]) < layers for a, _ in edit)]
    check(task_on(name, pairs=2, bos=True), edits, rows)
    check(task_on(name, pairs=2, bos=True, stack=stack), edits, rows)


def test_without_a_stack_it_works_on_an_encoder_and_on_delegated_attention() -> None:
    check(task_on("opt", stack=[Knockout("L1.H*[*<-2]")]), EDITS[1:5], [LENGTH - 1])
    check(task_on("bert", stack=[Knockout("L1.H*[*<-2]")]), EDITS[1:5], [LENGTH - 1])


@pytest.mark.parametrize("stack", ["none", "another run's"])
def test_a_small_budget_cuts_a_sweep_into_pieces_and_changes_no_number(stack: str) -> None:
    model = LanguageModel(tiny.hugging_face("llama"), None, name="llama")
    task = task_on(model, pairs=4, stack=STACKS[stack])
    edits = [spots(task, edit) for edit in EDITS]
    values = other_values(task, edits)
    batch, engine = task.base(), task.engine

    def chunks() -> int:
        return len(list(batch.sweep(edits, values)))

    whole = on_worker(task, lambda: swept(batch, edits, values, [-1]))
    few = on_worker(task, chunks)
    cost = on_worker(task, lambda: batch.cost(edits))
    assert cost.chunks == few
    usual, engine.budget = engine.budget, cost.nbytes // 6
    try:
        pieces = on_worker(task, lambda: swept(batch, edits, values, [-1]))
        many = on_worker(task, chunks)
        cheaper = on_worker(task, lambda: batch.cost(edits))
        assert many > 2 * few
        assert cheaper.chunks == many
        assert cheaper.nbytes <= engine.budget
        assert cheaper.passes == pytest.approx(cost.passes, rel=0.3)
        assert float((pieces - whole).abs().max()) <= EXACT * float(whole.abs().max())
        engine.budget = 1000
        with pytest.raises(BudgetError, match="use a shorter prompt or a larger budget"):
            on_worker(task, chunks)
        with pytest.raises(BudgetError, match="use fewer or shorter ones"):
            on_worker(task, lambda: Batch(engine, task.clean).base())
    finally:
        engine.budget = usual


@pytest.fixture
def counted() -> Iterator[tuple[Task, Counter]]:
    model = LanguageModel(tiny.hugging_face("llama"), None, name="llama")
    task = task_on(model, pairs=3)
    counter = Counter(task.engine)
    yield task, counter
    counter.close()


def test_a_sweep_computes_only_what_an_edit_can_change(counted: tuple[Task, Counter]) -> None:
    task, counter = counted
    batch = task.base()
    on_worker(task, batch.base)
    every = 3 * LENGTH
    assert counter.take() == [(layer, "plain", every) for layer in range(4)]

    def run(*addresses: str, places: tuple[int, ...] | None = None) -> list[tuple[int, str, int]]:
        edits = [spots(task, [(address, places)]) for address in addresses]
        values = other_values(task, edits)
        counter.take()
        on_worker(task, lambda: swept(batch, edits, values, [-1]))
        return counter.take()

    # Three pairs under two edits of one layer go at once; that layer's block alone is hooked.
    assert run("L2.H0", "L2.mlp") == [(2, "hooked", 2 * every), (3, "plain", 2 * every)]
    # From the position of the edit on.
    late = 3 * (LENGTH - 6)
    assert run("L2.H0", places=LATE) == [(2, "hooked", late), (3, "plain", late)]
    # The last layers come first.
    assert [layer for layer, *_ in run("L0.mlp", "L3.mlp")] == [3, 0, 1, 2, 3]
    on_worker(task, lambda: batch.logits([-1]))
    assert counter.take() == []  # they are read from what is kept


@pytest.mark.parametrize(("layer", "most"), [(0, 256), (2, 512), (3, 1024)])
def test_many_runs_go_in_chunks_of_so_many_rows_that_each_takes_as_long(
    counted: tuple[Task, Counter], layer: int, most: int
) -> None:
    task, counter = counted
    edits = [spots(task, [(f"L{layer}.H0", (place,))]) for place in range(LENGTH)] * 20
    values = other_values(task, edits)
    batch = task.base()
    on_worker(task, batch.base)
    counter.take()
    on_worker(task, lambda: swept(batch, edits, values, [-1]))
    rows = [n for at, _, n in counter.take() if at == layer]
    assert max(rows) <= most
    # Each place is run from itself on, or hardly earlier: more chunks, but fewer rows in all.
    least = 20 * task.n_pairs * sum(range(1, LENGTH + 1))
    assert least <= sum(rows) < 1.1 * least
    assert len(rows) <= LENGTH + least / most
    # Logits of many positions take their time, too.
    counter.take()
    on_worker(task, lambda: swept(batch, edits, values, range(LENGTH)))
    runs = [n // LENGTH for at, _, n in counter.take() if at == layer]
    assert max(runs) == 256 // LENGTH


def test_a_sweep_stops_before_the_next_block_and_leaves_no_hook(
    counted: tuple[Task, Counter],
) -> None:
    task, counter = counted
    batch = task.base()
    edits = [spots(task, [("L1.H0", EVERYWHERE)])]
    values = other_values(task, edits)
    on_worker(task, batch.base)
    counter.take()
    asked = iter([False, True])
    with pytest.raises(Stopped):
        on_worker(task, lambda: list(batch.sweep(edits, values, should_stop=lambda: next(asked))))
    assert [layer for layer, *_ in counter.take()] == [1]
    points = task.engine.passes.bridge.hook_dict.values()
    assert not sum(len(point.fwd_hooks) + len(point._forward_hooks) for point in points)
    check(task, EDITS[1:4], [LENGTH - 1])


@pytest.mark.parametrize("stack", ["none", "another run's", "a cut", "what is edited"])
@pytest.mark.parametrize("name", ["native", "gpt2", "llama", "neox"])
def test_what_is_captured_is_what_stands_there(name: str, stack: str) -> None:
    task = task_on(name, stack=STACKS[stack])
    anatomy = task.engine.model.anatomy
    sites = ["L2.H0", "L2.mlp", "L3.N0", "L3.attn", "L2.resid_post"]
    hooks = [anatomy.hook(Site.parse(address)) for address in sites]
    found = on_worker(task, lambda: task.base().capture(hooks))
    plain = Plain(task)
    for hook in hooks:
        truth = torch.stack([plain.values("clean", hook, n) for n in range(3)])
        assert found[hook].shape == truth.shape
        assert float((found[hook] - truth).abs().max()) <= EXACT * float(truth.abs().max())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("stack", ["none", "another run's", "a cut to the logits", "no attention"])
@pytest.mark.parametrize("name", ["native", "gpt2", "llama", "neox"])
def test_gradients_are_those_of_a_hooked_pass(name: str, stack: str, frozen: bool) -> None:
    made = tiny.native() if name == "native" else tiny.hugging_face(name)
    task = task_on(LanguageModel(made, None, name=name), pairs=2, stack=STACKS[stack])
    task.engine.model.bridge.requires_grad_(not frozen)
    anatomy = task.engine.model.anatomy
    sites = ["L1.H0", "L1.H0:q", "L1.mlp", "L2.N0", "L2.resid_pre"]
    hooks = [anatomy.hook(Site.parse(address)) for address in sites]
    batch = task.base()

    def objective(logits: torch.Tensor, items: Sequence[int]) -> torch.Tensor:
        # Each input's own logits, row by row, so that a mix-up would show.
        rows = torch.tensor([[1.0, 2.0], [3.0, -1.0]])[list(items)]
        return (logits.log_softmax(-1)[:, :, 7] * rows).sum(-1)

    found, (final, slope), value = on_worker(
        task, lambda: batch.gradients(hooks, objective, (3, -1))
    )
    plain = Plain(task)
    last = anatomy.hooks[-1]["resid_post"]
    for pair in range(2):
        held: dict[str, torch.Tensor] = {}

        def keep(x: torch.Tensor, _: object, held: dict[str, torch.Tensor], hook: str) -> Any:
            held[hook] = (x if x.requires_grad else x.detach().requires_grad_()).view_as(x)
            return held[hook]

        steps = [Step(hook, partial(keep, held=held, hook=hook)) for hook in [*hooks, last]]
        with torch.enable_grad():
            logits = plain.run("clean", pair, steps, grad=True)[[3, -1]]
            truth = objective(logits[None], [pair])
        grads = torch.autograd.grad(truth.sum(), list(held.values()))
        assert float((value[pair] - truth[0].detach()).abs()) <= EXACT * plain.largest
        for hook, grad in zip(held, grads, strict=True):
            x, g = (final, slope) if hook == last else found[hook]
            assert float((x[pair] - held[hook][0].detach()).abs().max()) <= EXACT * float(
                x.abs().max()
            )
            near = EXACT * float(grad.abs().max())  # 0 where the stack replaces what follows
            assert float((g[pair] - grad[0]).abs().max()) <= near
        assert sum(bool(grad.any()) for grad in grads) >= len(hooks)
    assert all(parameter.grad is None for parameter in task.engine.model.bridge.parameters())


def test_inputs_that_cannot_be_run_together_are_refused() -> None:
    engine = task_on("gpt2").engine
    one = Input((5, 6, 7), has_bos=False)
    with pytest.raises(InputError, match="no input"):
        Batch(engine, ())
    with pytest.raises(InputError, match=r"have one length; these have \[2, 3\] tokens"):
        Batch(engine, (one, Input((5, 6), has_bos=False)))
    with pytest.raises(InputError, match="beginning-of-sequence token, or none does"):
        Batch(engine, (one, Input((5, 6, 7), has_bos=True)))
