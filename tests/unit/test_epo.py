"""EPO finds planted prompts, keeps a true front, and the same seed gives the same one."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp.engine.engine import Engine
from patchclamp.errors import AddressError, InputError, MetricError, ModelError, Stopped
from patchclamp.methods import epo as module
from patchclamp.methods.epo import Evolution, epo
from patchclamp.methods.front import Archive, Candidate, Clock
from patchclamp.methods.objective import objective
from patchclamp.methods.vocabulary import allowed, as_text
from tests.unit import letters, tiny
from tests.unit.searched import ABOUT, in_a_row, last, on_worker, plainly, planted

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from patchclamp.engine.candidates import Score
    from patchclamp.methods.front import Generation
    from patchclamp.models.language_model import LanguageModel

SMALL: dict[str, Any] = {"length": 4, "population": 4, "children": 8, "top_k": 6, "iterations": 12}


def run(model: LanguageModel, score: Score, **options: Any) -> Generation:
    return last(model, lambda engine: epo(engine, score, Evolution(**{**SMALL, **options})))


def states(model: LanguageModel, score: Score, **options: Any) -> list[Generation]:
    how = Evolution(**{**SMALL, **options})
    return on_worker(model, lambda: list(epo(Engine.of(model), score, how)))


def test_it_finds_the_prompt_that_was_planted() -> None:
    model = planted()
    found = run(model, in_a_row(model), iterations=30, seed=1)
    assert found.front.best is not None
    assert found.front.best.ids == ABOUT[:4]
    assert found.front.best.activation == pytest.approx(40, abs=1e-4)
    # The control: as many random prompts do not come near.
    draw = torch.Generator().manual_seed(0)
    drawn = torch.randint(tiny.VOCAB, (found.front.tokens_tried, 4), generator=draw).tolist()
    hits = [sum(token == about for token, about in zip(row, ABOUT, strict=False)) for row in drawn]
    assert max(hits) < 4


def test_where_a_closed_relu_gives_no_gradient_all_tokens_are_drawn_from() -> None:
    model = planted("relu")
    found = run(model, objective(model, "L1.N3"), length=2, iterations=40, penalties=(0.01, 0.01))
    assert found.front.best is not None
    assert found.front.best.ids[-1] == ABOUT[3]


def test_the_front_is_what_nothing_that_was_tried_beats() -> None:
    model = tiny.model("llama")
    score = objective(model, "L1.N5")
    found = states(model, score)
    front = found[-1].front
    assert len(front.candidates) > 2
    for one, next_one in itertools.pairwise(front.candidates):
        assert one.cross_entropy < next_one.cross_entropy
        assert one.activation < next_one.activation
    for state in found:
        for member in state.population:
            assert front.activation_at(member.cross_entropy) >= member.activation
    for candidate in front.candidates:
        activation, cross_entropy, largest = plainly(model, score, candidate.ids)
        assert candidate.activation == pytest.approx(activation, abs=1e-5 * largest)
        assert candidate.cross_entropy == pytest.approx(cross_entropy, abs=1e-5 * largest)


def test_members_are_the_best_of_parents_and_children_for_their_penalties() -> None:
    model = tiny.model("llama")
    how = Evolution(**{**SMALL, "restart": 0})
    found = [s for s in states(model, objective(model, "L1.N5"), restart=0) if s.share == 1]
    for before, after in itertools.pairwise(found):
        for penalty, member in zip(how.ladder().tolist(), after.population, strict=True):
            value = member.activation - penalty * member.cross_entropy
            assert (
                value
                >= max(m.activation - penalty * m.cross_entropy for m in before.population) - 1e-5
            )
    first, final = found[0].population, found[-1].population
    assert final[0].activation > first[0].activation + 0.5
    assert final[-1].cross_entropy < first[-1].cross_entropy - 0.2
    assert final[0].activation > final[-1].activation


def test_leaving_out_what_cannot_matter_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("llama")
    score = objective(model, "L1.N5")
    asked: list[bool] = []
    wants = module._Slots.wants

    def noting(self: Any, scores: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        found = wants(self, scores, least)
        asked.extend(found.tolist())
        return found

    monkeypatch.setattr(module._Slots, "wants", noting)
    quick = run(model, score)
    assert not all(asked)
    monkeypatch.setattr(
        module._Slots, "wants", lambda _self, scores, _least: torch.ones_like(scores).bool()
    )
    every = run(model, score)
    assert quick.population == every.population
    assert quick.front.candidates == every.front.candidates
    assert quick.front.tokens_tried == every.front.tokens_tried


def test_the_same_seed_gives_the_same_front_and_another_one_another() -> None:
    model = tiny.model("gpt2")
    score = objective(model, "L2.N5")
    one, again, other = (run(model, score, seed=seed).front.candidates for seed in (3, 3, 4))
    assert one == again
    assert one != other


def test_a_restart_leaves_one_member_for_all_penalties() -> None:
    model = tiny.model("llama")
    found = [
        s.population
        for s in states(model, objective(model, "L1.N5"), iterations=8, restart=4)
        if s.share == 1
    ]
    assert [len(set(population)) == 1 for population in found[1:]] == [
        False, False, False, True, False, False, False, True,
    ]  # fmt: skip


def test_iterations_and_seconds_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("llama")
    score = objective(model, "L1.N5")
    assert run(model, score, iterations=3).front.iteration == 3
    ticks = itertools.count()  # a clock on which every look takes ten milliseconds
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 100)
    monkeypatch.setattr("patchclamp.methods.front.time", clock)
    short = run(model, score, iterations=None, seconds=0.3).front
    assert 0.25 <= short.seconds <= 0.35
    assert short.iteration > 0
    assert run(model, score, iterations=0).front.iteration == 0


def test_it_begins_with_the_prompt_that_is_given() -> None:
    model = letters.model()
    score = objective(model, "L1.N5")
    given = model.to_ids("abcd").tolist()

    def job() -> Generation:
        return next(epo(Engine.of(model), score, Evolution(**SMALL), start=[given[1:]]))

    first = on_worker(model, job)
    assert {member.ids for member in first.population} == {tuple(given)}
    with pytest.raises(InputError, match="has 3 tokens, not 4"):
        on_worker(
            model, lambda: next(epo(Engine.of(model), score, Evolution(**SMALL), start=[[5, 6, 7]]))
        )


def test_of_many_prompts_to_begin_with_it_takes_the_best_for_each_penalty() -> None:
    model = tiny.model("llama")
    score = objective(model, "L1.N5")
    draw = torch.Generator().manual_seed(2)
    given = torch.randint(3, tiny.VOCAB, (20, 4), generator=draw).tolist()
    how = Evolution(**SMALL)
    first = on_worker(model, lambda: next(epo(Engine.of(model), score, how, start=given)))
    front = () if model.bos_id is None else (model.bos_id,)
    alone = [plainly(model, score, (*front, *row)) for row in given]
    assert first.front.tokens_tried == 20
    for penalty, member in zip(how.ladder().tolist(), first.population, strict=True):
        best = max(activation - penalty * cost for activation, cost, _ in alone)
        assert member.activation - penalty * member.cross_entropy == pytest.approx(best, abs=1e-4)


def test_it_yields_between_chunks_so_that_other_work_gets_in() -> None:
    model = tiny.model("llama")
    shares = [s.share for s in states(model, objective(model, "L1.N5"), iterations=2, length=12)]
    assert sum(0 < share < 1 for share in shares) >= 4


def test_time_in_which_others_have_the_model_is_not_counted() -> None:
    clock = Clock()
    clock.pause()
    held = clock.seconds
    assert clock.seconds == held
    clock.resume()
    assert clock.seconds >= held


def test_stop_ends_it_and_what_was_yielded_holds() -> None:
    model = tiny.model("llama")
    held: list[Generation] = []
    stop = False

    def job() -> None:
        nonlocal stop
        score = objective(model, "L1.N5")
        steps: Generator[Generation, None, Generation] = epo(
            Engine.of(model), score, Evolution(**SMALL), should_stop=lambda: stop
        )
        for state in steps:
            held.append(state)
            stop = state.front.iteration == 2

    with pytest.raises(Stopped):
        on_worker(model, job)
    assert held[-1].front.iteration == 2
    assert held[-1].front.candidates


# --- tokens


def test_special_tokens_and_pieces_of_characters_are_left_out_unless_asked_for() -> None:
    model = letters.model()
    ordinary = allowed(model, "ordinary")
    left_out = {model.token_text(int(token)) for token in (~ordinary).nonzero()}
    assert left_out == {"<pad>", "<bos>", "<eos>", "\ufffd"}
    assert bool(allowed(model, "all").all())
    front = run(model, objective(model, "L1.N5")).front
    used = {token for candidate in front.candidates for token in candidate.ids[1:]}
    assert all(ordinary[token] for token in used)
    with pytest.raises(InputError, match="'ordinary' or 'all', not 'some'"):
        run(model, objective(model, "L1.N5"), tokens="some")


def test_a_prompt_whose_text_is_read_otherwise_is_flagged() -> None:
    model = letters.model()
    typed = model.to_ids("ab cd").tolist()
    assert as_text(model, typed) == "ab cd"
    space, c = (model.token_id(piece) for piece in (" ", "c"))
    apart = [*typed[:3], space, c, typed[-1]]
    assert model.text(apart[1:]) == "ab cd"  # the same text, but " c" is one token
    assert as_text(model, apart) is None
    assert as_text(model, typed[1:]) is None  # a text gets a beginning-of-sequence token
    assert as_text(tiny.model("gpt2"), [5, 6]) is None


# --- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 0}, "takes 1 to 63"),
        ({"length": 64}, "takes 1 to 63"),
        ({"population": 0}, "population is a number of at least 1, not 0"),
        ({"children": 0}, "children is a number"),
        ({"penalties": (0.0, 1.0)}, "Penalties are two numbers above 0"),
        ({"penalties": (3.0, 1.0)}, "the lower one first"),
    ],
)
def test_what_cannot_be_is_a_sentence(options: dict[str, Any], said: str) -> None:
    model = letters.model()
    with pytest.raises(InputError, match=said):
        run(model, objective(model, "L1.N5"), **options)


def test_a_unit_that_is_not_there_and_a_model_that_reads_both_ways_are_sentences() -> None:
    with pytest.raises(AddressError):
        objective(tiny.model("llama"), "L99.N5")
    bert = tiny.model("bert")
    with pytest.raises(ModelError, match="reads both ways"):
        run(bert, objective(bert, "L1.N5"))
    native = tiny.model("native")
    with pytest.raises(InputError, match="one token without a beginning"):
        run(native, objective(native, "L1.N5"), length=1)


def test_no_finite_number_and_no_gradient_end_it() -> None:
    model = letters.model()
    neuron = "L1.N5"
    endless = objective(model, lambda v: v[neuron][:, -1, 5] / 0, paths=neuron, name="endless")
    with pytest.raises(MetricError, match=r"endless is .* no finite number"):
        run(model, endless)
    cut = objective(model, lambda v: v[neuron][:, -1, 5].detach(), paths=neuron, name="cut")
    with pytest.raises(MetricError, match="cut has no gradient"):
        run(model, cut)


# --- the front


def _all_unbeaten(candidates: Sequence[Candidate]) -> set[tuple[float, float]]:
    return {
        (a.activation, a.cross_entropy)
        for a in candidates
        if not any(
            (b.activation >= a.activation and b.cross_entropy <= a.cross_entropy)
            and (b.activation, b.cross_entropy) != (a.activation, a.cross_entropy)
            for b in candidates
        )
    }


def test_an_archive_keeps_what_a_comparison_of_all_with_all_keeps() -> None:
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randint(0, 12, (300, 2), generator=generator).tolist()
    candidates = [Candidate((n,), float(a), float(c)) for n, (a, c) in enumerate(drawn)]
    archive = Archive()
    for begin in range(0, 300, 30):
        archive.add(candidates[begin : begin + 30])
        truth = _all_unbeaten(candidates[: begin + 30])
        assert {(c.activation, c.cross_entropy) for c in archive.candidates} == truth
    grid = [(float(a), float(c)) for a in range(13) for c in range(13)]
    covered = archive.covers(torch.tensor([a for a, _ in grid]), torch.tensor([c for _, c in grid]))
    for (act, cost), said in zip(grid, covered.tolist(), strict=True):
        assert said == any(c.activation >= act and c.cross_entropy <= cost for c in candidates)


def test_an_archive_takes_no_prompt_without_a_cross_entropy() -> None:
    archive = Archive()
    archive.add([Candidate((1,), 1.0, math.nan), Candidate((2,), 1.0, math.inf)])
    assert archive.candidates == []
