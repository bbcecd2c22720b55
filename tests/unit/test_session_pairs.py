"""A session's prompt pairs and circuit: shown, dropped, undone, saved, and what is measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

import patchclamp as pc
from patchclamp.errors import InputError, InterventionError
from patchclamp.methods.circuit import NodeNote, Selection
from patchclamp.models.language_model import LanguageModel
from tests.unit import letters, tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAIRS = (
    pc.Pair("a b c", "a d c", " e", " f"),
    pc.Pair("g b c", "g d c", " h", " i"),
    pc.Pair("k l m", "k n m", " o", " e"),
)
SET = pc.PromptSet("mine", "Letters", 3, PAIRS, "nothing left out")
ANSWER_AND_WRONG = pc.LogitDifference(" e", " f")


def session_with(**options: Any) -> pc.Session:
    return pc.Session(letters.model(), pairs=SET, **options)


def seen(session: pc.Session) -> tuple[Any, ...]:
    """Return all that a pair decides."""
    return (
        session.text,
        session.contrast,
        session.metric,
        None if session.pairs is None else session.pairs.pairs,
        session.shown_pair,
    )


def test_pairs_are_the_input_the_contrast_and_the_metrics_tokens() -> None:
    session = session_with()
    assert seen(session) == ("a b c", "a d c", ANSWER_AND_WRONG, PAIRS, 0)
    model = session.model
    assert session.metric_tokens() == (model.token_id(" e"), model.token_id(" f"))
    assert session.ids.tolist() == model.to_ids("a b c").tolist()
    assert pc.Session(model, "g b c", pairs=SET).shown_pair == 1
    with pytest.raises(InputError, match="the clean prompt of none of the pairs"):
        pc.Session(model, "z", pairs=SET)
    with pytest.raises(InputError, match="leave out contrast="):
        pc.Session(model, pairs=SET, contrast="a d c")
    with pytest.raises(InputError, match="needs an input, a text or token ids, or pairs"):
        pc.Session(model)


@pytest.mark.parametrize(
    ("metric", "named"),
    [
        (pc.LogitDifference(" a", " b"), [pc.LogitDifference(p.answer, p.wrong) for p in PAIRS]),
        (pc.LogProb(" a"), [pc.LogProb(p.answer) for p in PAIRS]),
        (pc.LogProb(), [pc.LogProb(p.answer) for p in PAIRS]),
        (pc.KL(), [pc.KL()] * 3),
        (pc.Loss(), [pc.Loss()] * 3),
    ],
)
def test_the_metric_keeps_its_kind_and_takes_each_shown_pairs_tokens(
    metric: Any, named: list[Any]
) -> None:
    session = pc.Session(letters.model(), "x", metric=metric)
    before = seen(session)
    session.pairs = SET
    for index in (0, 2, 1):
        session.show_pair(index)
        pair = PAIRS[index]
        assert seen(session) == (pair.clean, pair.corrupt, named[index], PAIRS, index)
    shown = []
    while session.undo():
        shown.append(session.shown_pair)
    assert shown == [2, 0, 0]
    assert seen(session) == before  # all of the pairs was one step


def test_setting_pairs_and_showing_one_is_one_step_of_undo_each_and_told_as_pairs() -> None:
    session = pc.Session(letters.model(), "x y", contrast="z", metric=pc.LogProb(" a"))
    kinds: list[str] = []
    session.observe(lambda change: kinds.append(change.kind))
    states = [seen(session)]
    steps: list[Callable[[], object]] = [
        lambda: setattr(session, "pairs", SET),
        lambda: session.show_pair(2),
        lambda: setattr(session, "metric", pc.LogitDifference(" o", " e")),
        lambda: setattr(session, "pairs", None),
    ]
    for step in steps:
        step()
        states.append(seen(session))
    assert kinds == ["pairs", "pairs", "metric", "pairs"]
    assert states[-1][:3] == states[-2][:3]  # the prompt stays when the pairs go
    session.pairs = None
    assert len(kinds) == 4
    for state in states[-2::-1]:
        assert session.undo()
        assert seen(session) == state
    assert not session.can_undo
    for state in states[1:]:
        assert session.redo()
        assert seen(session) == state


@pytest.mark.parametrize(
    ("change", "stay"),
    [
        (lambda s: setattr(s, "metric", pc.LogProb(" h")), True),
        (lambda s: setattr(s, "metric", pc.LogProb()), True),
        (lambda s: setattr(s, "metric", pc.KL()), True),
        (lambda s: setattr(s, "metric", pc.Loss()), True),
        (lambda s: setattr(s, "metric", pc.Custom(lambda x: x[:, -1, 0])), True),
        (lambda s: setattr(s, "metric", pc.LogitDifference(" h", s.model.token_id(" i"))), True),
        (lambda s: setattr(s, "metric", pc.LogitDifference(" h", " e")), False),
        (lambda s: setattr(s, "metric", pc.LogProb(" i")), False),
        (lambda s: setattr(s, "input", "g b c"), True),
        (lambda s: setattr(s, "input", "g b d"), False),
        (lambda s: setattr(s, "contrast", "g d c"), True),
        (lambda s: setattr(s, "contrast", "g e c"), False),
        (lambda s: setattr(s, "contrast", None), False),
        (lambda s: s.add(pc.Ablate("L1.N3")), True),
    ],
)
def test_pairs_go_with_another_prompt_or_token_set_by_hand_and_undo_brings_them_back(
    change: Callable[[pc.Session], object], stay: bool
) -> None:
    session = session_with()
    session.show_pair(1)
    change(session)
    assert (session.pairs == SET) == stay
    assert session.shown_pair == (1 if stay else 0)
    session.undo()
    assert session.pairs == SET
    assert session.shown_pair == 1


def test_a_likeliest_token_stays_the_likeliest_from_pair_to_pair() -> None:
    session = session_with()
    session.metric = pc.LogProb()
    session.show_pair(2)
    assert session.metric == pc.LogProb()
    assert session.task.tokens == ((), (), ())


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        (pc.Pair("a b", "a d c", " e", " f"), "pair 2 has 3 tokens and its corrupt one 4"),
        (pc.Pair("a b", "a d", " e", " f"), "of pair 1 have 4 tokens and those of pair 2 3"),
        (
            pc.Pair("a b c", "a d c", " ef", " f"),
            r"answer of pair 2 must be .* but 2 \(' e', 'f'\)",
        ),
        (pc.Pair("a b c", "a d c", " e", " fg"), "wrong answer of pair 2 must be one token"),
        (pc.Pair("a b c", "a d c", " e", " e"), "pair 2 are one token: ' e'"),
        (pc.Pair("a b c", " ", " e", " f"), "corrupt prompt of pair 2: The prompt is empty"),
        (pc.Pair("a b c", "a d c", 3, " f"), "answer of pair 2 is a text such as ' Paris', not 3"),  # type: ignore[arg-type]
    ],
)
def test_pairs_that_do_not_fit_are_refused_in_a_sentence_and_nothing_changes(
    pair: pc.Pair, sentence: str
) -> None:
    session = pc.Session(letters.model(), "x")
    before = seen(session), session.revision
    with pytest.raises(InputError, match=sentence):
        session.pairs = pc.PromptSet("mine", "", 0, (PAIRS[0], pair))
    assert (seen(session), session.revision) == before


def test_other_things_that_cannot_be_pairs_are_refused() -> None:
    session: Any = session_with()
    with pytest.raises(InputError, match=r"such as prompt_set.* gives, not a list"):
        session.pairs = list(PAIRS)
    with pytest.raises(InputError, match=r"no pair 3 \(0 to 2\)"):
        session.show_pair(3)
    with pytest.raises(InputError, match="llama has no tokenizer"):
        pc.Session(tiny.model("llama"), pairs=SET)
    session = pc.Session(letters.model(), "a b c d e f", interventions=[pc.Clamp("L1.N3@6", 1.0)])
    with pytest.raises(InputError, match="there are none: set session"):
        session.show_pair(0)
    with pytest.raises(pc.PatchclampError, match="position 6"):
        session.pairs = SET  # too short for the stack
    assert session.text == "a b c d e f"
    assert session.pairs is None


def test_pairs_go_through_the_chat_template_where_the_session_does() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), letters.tokenizer(chat_template=letters.CHAT))
    session = pc.Session(model, pairs=SET, chat=True)
    assert session.ids.tolist() == model.to_ids("a b c", chat=True).tolist()
    assert session.task.length == len(session.ids)


# What is measured ---------------------------------------------------------------------------------


def test_a_task_is_of_all_pairs_and_of_the_stack_that_acts() -> None:
    stack = [pc.Scale("L1.mlp", 3.0), pc.Ablate("L0.H1", muted=True)]
    session = session_with(interventions=stack)
    model, task = session.model, session.task
    assert [list(one.ids) for one in task.clean] == [model.to_ids(p.clean).tolist() for p in PAIRS]
    assert task.corrupt is not None
    assert [list(one.ids) for one in task.corrupt] == [
        model.to_ids(p.corrupt).tolist() for p in PAIRS
    ]
    assert (task.n_pairs, task.length, task.stack) == (3, 4, (stack[0],))
    wanted = [[model.token_id(p.answer), model.token_id(p.wrong)] for p in PAIRS]
    assert [list(pair) for pair in task.tokens] == wanted
    levels = session.submit(lambda _: task.measure()(task.base().logits(task.rows))).result()
    truth = []
    for pair in PAIRS:
        alone = pc.Session(model, pair.clean, interventions=stack)
        logits = alone.current.logits[-1]
        truth.append(logits[model.token_id(pair.answer)] - logits[model.token_id(pair.wrong)])
    assert torch.allclose(levels, torch.stack(truth), atol=1e-5)
    assert float(levels.std()) > 0.1
    assert session.task is task  # what it has computed is kept
    session.metric = pc.LogProb(" e")
    assert session.task is not task
    assert session.task.tokens == tuple((pair[0],) for pair in wanted)


def test_a_task_without_pairs_is_of_the_prompt_and_its_contrast_where_both_are_as_long() -> None:
    session = pc.Session(letters.model(), "a b c", contrast="a d c", metric=pc.LogProb(" e"))
    task = session.task
    assert task.n_pairs == 1
    assert task.corrupt == (session.experiment.surroundings.contrast,)
    assert task.measure().tokens.tolist() == [[session.target]]
    session.contrast = "a d"
    assert session.task.corrupt is None
    assert "4 tokens and the contrast prompt 3" in session.task.why_no_corrupt
    session.contrast = None
    assert "session.contrast, or session.pairs" in session.task.why_no_corrupt


# Keeping it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric", [None, pc.LogProb(" h"), pc.LogProb(), pc.KL(), pc.Loss()], ids=str
)
def test_a_saved_session_with_pairs_comes_back_whole(tmp_path: Path, metric: Any) -> None:
    session = session_with(interventions=[pc.Patch("L1.H2"), pc.Ablate("L0.N7")])
    session.show_pair(1)
    if metric is not None:
        session.metric = metric
    session.save(tmp_path / "s.json")
    loaded = pc.Session.load(tmp_path / "s.json", session.model)
    assert seen(loaded) == seen(session)
    assert loaded.pairs == SET
    assert loaded.to_json() == session.to_json()
    assert torch.equal(loaded.current.logits, session.current.logits)
    assert not loaded.can_undo


def test_a_session_saved_before_there_were_pairs_is_read_and_a_broken_one_is_not() -> None:
    data = session_with().to_json()
    old = {
        name: part for name, part in data.items() if name not in {"pairs", "shown_pair", "circuit"}
    }
    loaded = pc.Session.from_json(old, letters.model())
    assert (loaded.pairs, loaded.circuit, loaded.text) == (None, None, "a b c")
    for broken in ({"pairs": {"name": "x"}}, {"shown_pair": 9}, {"shown_pair": None}):
        with pytest.raises(InputError):
            pc.Session.from_json(json.loads(json.dumps({**data, **broken})), letters.model())


def test_a_circuit_is_kept_undone_and_saved(tmp_path: Path) -> None:
    session: Any = session_with()
    kinds: list[str] = []
    session.observe(lambda change: kinds.append(change.kind))
    circuits = [
        Selection(5),
        Selection(6, removed=frozenset(["L1.H2", "L0.mlp->logits"]), notes=(NodeNote("L1.H2"),)),
    ]
    for circuit in circuits:
        session.circuit = circuit
    session.circuit = circuits[-1]  # no change
    assert kinds == ["circuit", "circuit"]
    for size in (7, 8, 9):
        session.set_circuit(Selection(size), coalesce="drag")
    session.end_gesture()
    assert session.circuit == Selection(9)
    session.save(tmp_path / "s.json")
    loaded = pc.Session.load(tmp_path / "s.json", session.model)
    assert loaded.circuit == Selection(9)
    session.undo()
    assert session.circuit == circuits[1]
    data = json.loads(json.dumps(session.to_json()))
    assert pc.Session.from_json(data, session.model).circuit == circuits[1]
    assert session.pairs == SET  # a circuit is another thing than what it is of
    session.undo()
    session.undo()
    assert session.circuit is None
    assert not session.can_undo


def test_a_session_that_measures_a_function_is_saved_with_another_metric_only() -> None:
    session = session_with(metric=pc.Custom(lambda logits: logits[:, -1, 5], "five"))
    with pytest.raises(pc.PatchclampError, match="'five' is a function, which no file can hold"):
        session.to_json()


def test_the_stack_that_patches_from_the_contrast_follows_the_shown_pair() -> None:
    session = session_with(interventions=[pc.Patch("L1.resid_post")])
    for index, pair in enumerate(PAIRS):
        session.show_pair(index)
        there = pc.Session(session.model, pair.corrupt).baseline.activation("L1.resid_post")
        # But for the beginning-of-sequence token, which is not patched and is the same.
        assert torch.allclose(session.current.activation("L1.resid_post"), there, atol=1e-5)
    session.pairs = None
    with pytest.raises(InterventionError, match="no contrast input"):
        session.contrast = None


def test_an_edge_that_carries_the_contrast_needs_one_that_is_long_enough() -> None:
    cut = pc.Cut("L0.mlp->L2.H1:k", "contrast")
    session = pc.Session(letters.model(), "a b c")
    with pytest.raises(InterventionError, match="no contrast input"):
        session.add(cut)
    session.contrast = "a d"
    with pytest.raises(InterventionError, match="position 3, but the contrast input has only 3"):
        session.add(cut)
    session.add(pc.Cut("L0.mlp->L2.H1:k@1:3", "contrast"))
    found = [session.current.logits]
    session.contrast = "a e c"
    found.append(session.current.logits)
    session.contrast = "a b c"
    found.append(session.current.logits)
    assert float((found[0] - found[1]).abs().max()) > 1e-3
    assert torch.allclose(found[2], session.baseline.logits, atol=1e-5)
    with pytest.raises(InterventionError, match="the contrast input has only 2 positions"):
        session.contrast = "a"
