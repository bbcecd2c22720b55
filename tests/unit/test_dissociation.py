"""Double dissociation: what two tasks need apart is found where it was planted, and only there.

The planted model answers `<s> x y A` with x and `<s> x y B` with y. L1.H1 copies x: its query is
what L0.H1 wrote, the token A; L1.H2 copies y, and its query is the token B itself. A query that is
not there leaves a head with the same attention to all four places: it writes a quarter of each
token. So on `<s> x y A` the logit of x is 1 + 1/4, of y, `<s>` and A 1/4 (times LOUD); on
`<s> x y B` it is y that has most. Without its head a task has four equals, and is never right.
The other heads write where no answer is read.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp import KL, LogitDifference
from patchclamp.engine.engine import Engine
from patchclamp.engine.hooks import Step
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference
from patchclamp.errors import InputError
from patchclamp.methods import dissociation
from patchclamp.methods.massive import massive_neurons
from patchclamp.methods.task import Task
from patchclamp.sites import Site
from tests.unit import planted, tiny
from tests.unit.pairs import Plain, assert_same, on_worker, put, task_on

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from patchclamp.methods.dissociation import Among
    from patchclamp.models.language_model import LanguageModel

A, B = 11, 12
LOUD = 64.0  # the scale of the answer, above what reaches the junk tokens' logits
MODELS = ["native", "gpt2", "llama", "neox"]


def asks(space: slice, token: int, place: int) -> dict[str, Tensor]:
    """A head that attends to one place where a code stands in a space, and writes the answer."""
    q, k = (torch.zeros(planted.D_HEAD, planted.D_MODEL) for _ in range(2))
    q[0, space.start + token] = k[0, planted.PLACE.start + place] = planted.HARD
    return {
        "q": q,
        "k": k,
        "v": planted._reads(planted.TOKEN),
        "o": planted._writes(planted.ANSWER, LOUD),
    }


@cache
def two_tasks_model() -> LanguageModel:
    hand = planted._Hand(5, n_layers=2, n_heads=4, attn_only=True)
    for layer, head in ((0, 0), (0, 2), (0, 3), (1, 0), (1, 3)):
        hand.noisy_head(layer, head)
    carries = {"v": planted._reads(planted.TOKEN), "o": planted._writes(planted.PREVIOUS)}
    hand.head(0, 1, **planted._at_place(3, **carries))
    hand.head(1, 1, **asks(planted.PREVIOUS, A, 1))
    hand.head(1, 2, **asks(planted.TOKEN, B, 2))
    return hand.finished("planted-two-tasks")


def task_of(asked: int, letters: Sequence[int]) -> Task:
    """Pairs of one task; corrupt prompts have another answer and nothing else changed."""
    clean: list[Input] = []
    corrupt: list[Input] = []
    answers: list[tuple[int, int]] = []
    for place, answer in enumerate(letters):
        wrong, filler = (letters[(place + step) % len(letters)] for step in (1, 2))
        for told, prompts in ((answer, clean), (wrong, corrupt)):
            told_in_order = (told, filler) if asked == A else (filler, told)
            ids = (planted.BEGINNING, *told_in_order, asked)
            prompts.append(Input(ids, has_bos=False))
        answers.append((answer, wrong))
    engine = Engine.of(two_tasks_model())
    metric = LogitDifference(*answers[0])
    reference = Reference(engine, tuple(clean))
    return Task(engine, tuple(clean), tuple(corrupt), metric, tuple(answers), reference)


def measured(task: Task, steps: Callable[[], Generator[None, None, Tensor]]) -> Tensor:
    """What steps of work on the model's worker come to."""

    def job(stop: object) -> Any:
        return steps()

    found: Tensor = task.engine.queue.submit(job).result()
    return found


def choosing() -> tuple[Task, Task]:
    return task_of(A, (1, 2, 3, 4)), task_of(B, (1, 2, 3, 4))


def measuring() -> tuple[Task, Task]:
    return task_of(A, (5, 6, 7, 8, 9)), task_of(B, (6, 7, 8, 9, 10))


def named(sites: Sequence[Site]) -> list[str]:
    return [str(site) for site in sites]


def test_patching_scores_what_carries_the_answer_and_not_what_asks_for_it() -> None:
    one, other = choosing()
    heads = dissociation.parts(one, "head")
    for task, shares in (
        (one, {"L1.H1": 0.8, "L1.H2": 0.2}),
        (other, {"L1.H1": 0.2, "L1.H2": 0.8}),
    ):
        found = measured(task, partial(dissociation.patching_shares, task, heads))
        truth = [shares.get(str(head), 0.0) for head in heads]
        assert found.tolist() == pytest.approx(truth, abs=1e-5)


def test_ablation_scores_both() -> None:
    one, other = choosing()
    heads = dissociation.parts(one, "head")
    # L1.H1 alone leaves the quarter of L1.H2; L0.H1 alone leaves two quarters.
    for task, shares in (
        (one, {"L0.H1": 0.3, "L1.H1": 0.4, "L1.H2": 0.1}),
        (other, {"L1.H1": 0.1, "L1.H2": 0.4}),
    ):
        found = measured(task, partial(dissociation.ablation_shares, task, heads, "zero"))
        truth = [shares.get(str(head), 0.0) for head in heads]
        assert found.tolist() == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("by", ["patching", "ablation"])
def test_each_task_falls_without_its_own_heads_and_not_without_the_others(
    by: dissociation.By,
) -> None:
    found = dissociation.dissociate(choosing(), measuring(), by=by, how="zero", sizes=(1, 2))
    assert found.before == (100.0, 100.0)
    assert found.one.chosen.sites[0] in {Site("head", 1, 1, "z"), Site("head", 0, 1, "z")}
    assert named(found.other.chosen.sites) == ["L1.H2"]
    for part in (found.one, found.other):
        assert (part.chosen.own, part.chosen.other) == (100.0, 0.0)
        assert len(part.controls) == 3, "three other heads of the same layer, each drawn once"
    assert found.other.worst_control == 0.0, "L1.H1 is not what the second task needs"
    assert named(found.one.ranking)[-1] == "L1.H2"


def test_a_number_of_parts_that_the_other_task_falls_without_is_not_chosen() -> None:
    task = choosing()[0]
    same = (task, task)  # no part is one's own, so that the ranking is the heads' order
    found = dissociation.dissociate(same, same, how="zero", sizes=(1, 8)).one
    first, second = found.curve
    assert named(first.sites) == ["L0.H0"]
    assert (first.own, first.other) == (0.0, 0.0)
    assert named(second.sites) == ["L0.H0", "L0.H1", "L1.H0", "L1.H1"], "half of a layer at most"
    assert (second.own, second.other) == (100.0, 100.0)
    assert found.chosen.sites == first.sites
    found = dissociation.dissociate(same, same, how="zero", sizes=(1, 8), spare=100).one
    assert found.chosen.sites == second.sites
    found = dissociation.dissociate(same, same, how="zero", sizes=(8,)).one
    assert found.chosen.other == 100.0, "where no number spares the other task, it says so"


@pytest.mark.parametrize("among", ["head", "mlp", "neuron"])
@pytest.mark.parametrize("name", MODELS)
def test_shares_are_those_of_plain_hooked_passes(name: str, among: Among) -> None:
    task = task_on(name)
    plain, anatomy = Plain(task), task.engine.model.anatomy
    sites = dissociation.parts(task, among)[:: 17 if among == "neuron" else 1]
    clean, corrupt = plain.level("clean"), plain.level("corrupt")
    spots = [(anatomy.hook(site), site.index, plain.everywhere()) for site in sites]
    denoised = [plain.put([s], partial(plain.values, "clean"), "corrupt") for s in spots]
    ablated = [plain.put([s], partial(plain.replacement, "mean")) for s in spots]
    apart, scale = clean - corrupt, plain.largest / abs(clean - corrupt)
    found = measured(task, partial(dissociation.patching_shares, task, sites))
    assert_same(found, (torch.tensor(denoised) - corrupt) / apart, 0.0, scale)
    found = measured(task, partial(dissociation.ablation_shares, task, sites, "mean"))
    assert_same(found, (clean - torch.tensor(ablated)) / apart, 0.0, scale)


@pytest.mark.parametrize("name", MODELS)
def test_an_accuracy_counts_whose_likeliest_token_is_the_answer(name: str) -> None:
    task = task_on(name, pairs=6)
    plain, anatomy = Plain(task), task.engine.model.anatomy
    sites = [Site("head", 1, 2, "z"), Site("mlp", 2), Site("neuron", 3, 5, "post")]
    said: list[list[int]] = []
    for pair in range(6):
        steps = [
            Step(
                hook := anatomy.hook(site),
                partial(
                    put,
                    value=plain.replacement("mean", hook, pair),
                    index=site.index,
                    places=plain.everywhere(),
                ),
            )
            for site in sites
        ]
        said.append([int(plain.run("clean", pair, some)[-1].argmax()) for some in ([], steps)])
    # What the model says: of every other pair as it is, of the others without the three parts.
    tokens = tuple((said[pair][pair % 2], tiny.VOCAB - 1) for pair in range(6))
    answered = replace(task, tokens=tokens, _kept={})
    truth = [sum(said[pair][k] == tokens[pair][0] for pair in range(6)) / 6 for k in (0, 1)]
    found = measured(answered, partial(dissociation.accuracies, answered, [(), sites], "mean"))
    assert found.tolist() == pytest.approx([100 * share for share in truth])
    assert min(truth) < 1, "the parts change what is said"


def test_selectivity_is_the_distance_of_the_means_in_units_of_the_spread() -> None:
    one = task_on("native", pairs=6)
    assert one.corrupt is not None
    other = replace(one, clean=one.corrupt, corrupt=one.clean, _kept={})
    sites = dissociation.parts(one, "neuron")
    found = on_worker(one, partial(dissociation.selectivity, one, other, sites))
    hook = one.engine.model.anatomy.hook(Site("neuron", 1, 0, "post"))
    plain = Plain(one)
    a, b = (
        torch.stack([plain.values(side, hook, pair)[-1] for pair in range(6)])
        for side in ("clean", "corrupt")
    )
    truth = (a.mean(0) - b.mean(0)) / ((a.var(0, correction=0) + b.var(0, correction=0)) / 2).sqrt()
    mine = torch.tensor([at for at, site in enumerate(sites) if site.layer == 1])
    assert found[mine].tolist() == pytest.approx(truth.tolist(), rel=1e-3, abs=1e-4)


def test_massive_neurons_are_no_parts() -> None:
    task = task_on("llama")
    anatomy = task.engine.model.anatomy
    everything = sum(anatomy.n_neurons(layer) for layer in range(anatomy.n_layers))
    massive = massive_neurons(task.reference, anatomy)
    found = dissociation.parts(task, "neuron")
    assert len(found) == everything - len(massive)
    assert not {(site.layer, site.index) for site in found} & massive


def test_what_cannot_be_compared_is_said_in_a_sentence() -> None:
    one, other = choosing()
    ask = partial(dissociation.dissociate, (one, other), (one, other))
    with pytest.raises(InputError, match="at least 5 random sets, not 3"):
        ask(seeds=3)
    with pytest.raises(InputError, match="sizes are how many parts"):
        ask(sizes=())
    with pytest.raises(InputError, match="Selectivity ranks neurons"):
        ask(by="selectivity")
    with pytest.raises(InputError, match="planted-two-tasks has no mlp to ablate"):
        ask(among="mlp")
    same = replace(one, corrupt=one.clean, _kept={})
    with pytest.raises(InputError, match="the same on clean and corrupt"):
        dissociation.dissociate((same, other), (one, other))
    unanswered = replace(one, metric=KL(), tokens=((),) * one.n_pairs, _kept={})
    with pytest.raises(InputError, match="An accuracy is of prompt pairs with answers"):
        measured(one, partial(dissociation.accuracies, unanswered, [()]))
