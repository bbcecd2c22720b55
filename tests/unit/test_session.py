"""A session: undo, keys, observers, save and load, bad input, interrupts, generation, code."""

from __future__ import annotations

import _thread
import gc
import json
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch

import patchclamp as pc
from patchclamp.engine import queue
from patchclamp.engine.engine import Engine
from patchclamp.errors import (
    AddressError,
    BudgetError,
    InputError,
    InterventionError,
    ModelError,
    PatchclampError,
    Stopped,
)
from patchclamp.models.language_model import LanguageModel
from tests.unit import letters, tiny
from tests.unit.heard import PATIENCE, until, until_the_main_thread_waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from patchclamp.session import Change

LENGTH = 12
CLAMP = pc.Clamp("L1.N3@-1", 8.0)
UP = torch.linspace(-1, 1, 32)


def session_on(name: str = "llama", **options: Any) -> pc.Session:
    return pc.Session(tiny.model(name), tiny.ids(LENGTH), **options)


def seen(session: pc.Session) -> tuple[Any, ...]:
    """Return all that undo brings back, in a form that compares."""
    directions = {name: (site, v.tolist()) for name, (site, v) in session.directions.items()}
    contrast = session.contrast
    return (
        session.ids.tolist(),
        session.text,
        contrast.tolist() if isinstance(contrast, torch.Tensor) else contrast,
        session.metric,
        session.interventions,
        session.keys,
        directions,
    )


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).abs().max() / truth.abs().max())


# Undo ---------------------------------------------------------------------------------------------


def test_undo_and_redo_go_through_every_kind_of_change() -> None:
    session = session_on()
    changes: list[Callable[[], object]] = [
        lambda: session.add(CLAMP),
        lambda: session.add(pc.Ablate("L2.H1", how="zero")),
        lambda: session.edit(session.keys[0], CLAMP.with_value(2.0)),
        lambda: session.move(session.keys[0], 1),
        lambda: setattr(session, "metric", pc.LogitDifference(5, 9)),
        lambda: setattr(session, "contrast", tiny.ids(LENGTH, seed=1)),
        lambda: session.add(pc.Patch("L1.H2")),
        lambda: session.define("up", "L2.resid_post", UP),
        lambda: session.add(pc.Clamp("L2.resid_post[up]", 3.0)),
        lambda: session.define("up", "L2.resid_post", -UP),
        lambda: session.remove(session.keys[0]),
        lambda: setattr(session, "input", tiny.ids(LENGTH, seed=2)),
        lambda: setattr(session, "interventions", [CLAMP]),
        session.reset,
        lambda: setattr(session, "contrast", None),
    ]
    states = [seen(session)]
    logits = [session.current.rows([-1])]
    for change in changes:
        assert change() is not False
        states.append(seen(session))
        logits.append(session.current.rows([-1]))
        assert states[-1] != states[-2]
    for state, truth in zip(states[-2::-1], logits[-2::-1], strict=True):
        assert session.undo()
        assert seen(session) == state
        assert error(session.current.rows([-1]), truth) <= 1e-5
    assert not session.undo()
    assert not session.can_undo
    for state in states[1:]:
        assert session.can_redo
        assert session.redo()
        assert seen(session) == state
    assert not session.redo()


def test_a_new_change_ends_what_could_be_redone() -> None:
    session = session_on(interventions=[CLAMP])
    assert not session.can_undo
    session.reset()
    session.undo()
    session.metric = pc.LogProb(5)
    assert not session.can_redo
    session.undo()
    assert session.interventions == (CLAMP,)


def test_a_drag_is_one_step_of_undo_and_two_drags_are_two() -> None:
    session = session_on(interventions=[CLAMP, pc.Scale("L3.mlp", 0.5)])
    first, second = session.keys
    before = seen(session)
    for value in range(30):
        session.edit(first, CLAMP.with_value(float(value)), coalesce="drag 1")
    middle = seen(session)
    for value in range(30):
        session.edit(second, pc.Scale("L3.mlp", value / 10), coalesce="drag 2")
    session.undo()
    assert seen(session) == middle
    session.undo()
    assert seen(session) == before
    assert not session.can_undo
    session.redo()
    assert seen(session) == middle


@pytest.mark.parametrize("between", ["end_gesture", "undo_redo", "another"])
def test_what_comes_between_two_edits_makes_them_two_steps(between: str) -> None:
    session = session_on(interventions=[CLAMP])
    key = session.keys[0]
    session.edit(key, CLAMP.with_value(1.0), coalesce="drag")
    one = seen(session)
    if between == "end_gesture":
        session.end_gesture()
    elif between == "undo_redo":
        session.undo()
        session.redo()
    else:
        session.metric = pc.LogProb(4)
    session.edit(key, CLAMP.with_value(2.0), coalesce="drag")
    session.edit(key, CLAMP.with_value(3.0), coalesce="drag")
    session.undo()
    assert session.interventions[0].value == 1.0
    if between != "another":
        assert seen(session) == one


def test_an_edit_that_changes_nothing_is_no_step() -> None:
    session = session_on(interventions=[CLAMP])
    revision = session.revision
    session.edit(session.keys[0], pc.Clamp("L1.N3@-1", 8))
    assert session.revision == revision
    assert not session.can_undo


def test_reset_empties_the_stack_and_nothing_else() -> None:
    session = session_on(interventions=[CLAMP], metric=pc.LogProb(5))
    session.define("up", "L2.resid_post", UP)
    ids = session.ids
    session.reset()
    assert session.interventions == ()
    assert session.metric == pc.LogProb(5)
    assert list(session.directions) == ["up"]
    assert torch.equal(session.ids, ids)
    assert torch.equal(session.current.logits, session.baseline.logits)
    revision = session.revision
    session.reset()
    assert session.revision == revision


# Keys ---------------------------------------------------------------------------------------------


def test_a_key_stays_while_its_intervention_is_edited_and_moved() -> None:
    session = session_on()
    a, b, c = (session.add(pc.Clamp(f"L1.N{n}", 1.0)) for n in range(3))
    assert session.keys == (a, b, c)
    session.move(a, 2)
    assert session.keys == (b, c, a)
    session.move(a, -5)
    session.edit(b, pc.Scale("L2.mlp", 2.0))
    assert session.keys == (a, b, c)
    assert session.intervention(b) == pc.Scale("L2.mlp", 2.0)
    session.remove(b)
    assert list(session.keys) == [a, c]
    for gone in (session.remove, session.intervention, lambda k: session.move(k, 0)):
        with pytest.raises(InterventionError, match="no longer on the stack"):
            gone(b)
    with pytest.raises(InterventionError, match="no longer on the stack"):
        session.edit(b, CLAMP)
    session.undo()
    assert session.keys == (a, b, c)
    assert session.add(CLAMP) not in (a, b, c)


def test_setting_the_stack_keeps_the_keys_of_what_is_on_it_already() -> None:
    session = session_on()
    one, two, three = (pc.Clamp(f"L1.N{n}", 1.0) for n in range(3))
    session.interventions = [one, two, one]
    a, b, c = session.keys
    assert len({a, b, c}) == 3
    session.interventions = [three, one, one, two]
    new, *kept = session.keys
    assert kept == [a, c, b]
    assert new not in (a, b, c)
    session.interventions = (iv for iv in (two,))
    assert session.keys == (b,)


# Observers ----------------------------------------------------------------------------------------


def test_every_observer_hears_of_every_change_after_it_until_it_stops() -> None:
    session = session_on()
    heard: dict[str, list[tuple[Change, tuple[Any, ...]]]] = {"a": [], "b": []}

    def keep(name: str) -> Callable[[Change], None]:
        return lambda change: heard[name].append((change, seen(session)))

    stops = {name: session.observe(keep(name)) for name in heard}
    session.interventions = [CLAMP]
    first = seen(session)
    session.metric = pc.LogProb(5)
    session.input = tiny.ids(LENGTH, seed=3)
    session.contrast = tiny.ids(LENGTH, seed=4)
    session.define("up", "L2.resid_post", UP)
    stops["a"]()
    stops["a"]()
    session.undo()
    session.redo()
    kinds = ["interventions", "metric", "input", "contrast", "directions", "undo", "redo"]
    assert [change.kind for change, _ in heard["b"]] == kinds
    assert [change.kind for change, _ in heard["a"]] == kinds[:-2]
    assert heard["a"][0][1] == first
    revisions = [change.revision for change, _ in heard["b"]]
    assert revisions == sorted(set(revisions))
    assert revisions[-1] == session.revision


def test_an_observer_may_wait_for_a_run_that_asks_the_session_from_the_worker() -> None:
    session = session_on()
    found: list[torch.Tensor] = []

    def observer(_change: Change) -> None:
        # The job asks for the session's state on another thread than the one that holds it now.
        found.append(session.submit(lambda _: session.current.rows([-1])).result(timeout=PATIENCE))

    session.observe(observer)
    for change in (
        lambda: session.add(CLAMP),
        lambda: session.edit(session.keys[0], CLAMP.with_value(1.0)),
        lambda: setattr(session, "interventions", []),
        session.undo,
    ):
        change()
        assert torch.equal(found[-1], session.current.rows([-1]))
    assert len(found) == 4


def test_an_observer_may_change_the_session_and_stop_observing() -> None:
    session = session_on()

    def once(_change: Change) -> None:
        stop()
        session.add(pc.Clamp("L0.N0", 1.0))

    stop = session.observe(once)
    session.metric = pc.LogProb(5)
    assert len(session.interventions) == 1


def test_changes_from_many_threads_are_all_there() -> None:
    session = session_on()

    def change(n: int) -> None:
        for neuron in range(10):
            session.add(pc.Clamp(f"L{n}.N{neuron}", 1.0))
            session.define(f"d{n}", "L1.resid_post", UP)

    threads = [threading.Thread(target=change, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(session.keys)) == 40
    assert len(session.directions) == 4
    assert session.revision == 80


# Save and load ------------------------------------------------------------------------------------


def test_a_saved_session_comes_back_whole(tmp_path: Path) -> None:
    session = session_on(contrast=tiny.ids(9, seed=1), metric=pc.LogitDifference(5, 9))
    session.define("up", "L2.resid_post", UP / 3)
    session.interventions = [
        pc.Clamp("L1.N3@-1", 1 / 3),
        pc.Clamp("L2.resid_post[up]@3:", 2.0),
        pc.Patch("L1.H2@2:5"),
        pc.Ablate("L0.N7"),
        pc.Scale("L3.mlp", 0.25, muted=True),
        pc.Add("L1.attn@-1", 2.0, direction=UP.tolist()),
        pc.Knockout("L2.H0[7<-2]"),
    ]
    file = tmp_path / "s.json"
    session.save(file)
    loaded = pc.Session.load(file, tiny.model("llama"))
    assert loaded.to_json() == session.to_json()
    assert loaded.interventions == session.interventions
    assert loaded.metric_tokens() == session.metric_tokens() == (5, 9)
    assert torch.equal(loaded.current.logits, session.current.logits)
    assert error(session.baseline.logits, session.current.logits) > 1e-3
    assert not loaded.can_undo


def test_a_saved_text_session_keeps_its_texts_its_chat_and_its_reference(tmp_path: Path) -> None:
    model = LanguageModel(tiny.hugging_face("llama"), letters.tokenizer(chat_template=letters.CHAT))
    session = pc.Session(
        model,
        "a b.",
        contrast="b a.",
        metric=pc.LogProb(" c"),
        reference=["ab c", torch.tensor([5, 6, 7])],
        chat=True,
        interventions=[pc.Ablate("L1.N3"), pc.Patch("L2.H1", source="b", at=-1)],
    )
    session.save(tmp_path / "s.json")
    loaded = pc.Session.load(str(tmp_path / "s.json"), model)
    assert loaded.text == "a b."
    assert loaded.contrast == "b a."
    assert loaded.chat
    assert loaded.ids.tolist() == session.ids.tolist()
    assert [one.ids for one in loaded.reference.inputs] == [
        one.ids for one in session.reference.inputs
    ]
    assert len(loaded.reference.inputs) == 2
    assert loaded.target == session.target == model.token_id(" c")
    assert torch.equal(loaded.current.logits, session.current.logits)


def test_a_metric_of_what_argmax_gives_is_saved_too() -> None:
    session = session_on()
    likeliest: Any = session.baseline.logits[-1].argmax()
    session.metric = pc.LogProb(likeliest)
    data = json.loads(json.dumps(session.to_json()))
    assert pc.Session.from_json(data, session.model).metric == session.metric
    assert session.target == int(session.baseline.logits[-1].argmax())


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": None},
        {"input": None},
        {"input": [[1, 2]]},
        {"metric": {"metric": "guess"}},
        {"metric": 5},
        {"metric": {"metric": "logit_difference"}},
        {"interventions": [{"op": "explode"}]},
        {"interventions": 5},
        {"interventions": [5]},
        {"interventions": [{"op": "clamp", "site": "L99.N0", "value": 1.0}]},
        {"directions": [{"name": "up"}]},
        {"directions": [{"name": "up", "site": "L1.resid_post", "vector": ["a"]}]},
        {"reference": 7},
    ],
    ids=str,
)
def test_json_that_is_no_session_is_refused_with_a_sentence(change: dict[str, Any]) -> None:
    data = session_on(interventions=[CLAMP]).to_json() | change
    with pytest.raises(PatchclampError, match=r"\w+ \w+ \w+"):
        pc.Session.from_json(data, tiny.model("llama"))
    with pytest.raises(PatchclampError, match=r"\w+ \w+ \w+"):
        pc.Session.from_json({"format": 1}, tiny.model("llama"))


def test_a_file_that_holds_no_session_is_refused_with_its_name(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"{", b"[1]", b"\xff\xfe\x00", b"3"]):
        file = tmp_path / f"{number}.json"
        file.write_bytes(content)
        with pytest.raises(InputError, match=rf"{number}\.json holds no session"):
            pc.Session.load(file, tiny.model("llama"))


# Bad input ----------------------------------------------------------------------------------------


def _set(name: str, value: object) -> Callable[[pc.Session], object]:
    return lambda session: setattr(session, name, value)


BAD: list[tuple[str, Callable[[Any], object], type[Exception], str]] = [
    ("layer", lambda s: s.add(pc.Clamp("L9.N3", 1.0)), AddressError, "4 layers"),
    ("neuron", lambda s: s.add(pc.Clamp("L1.N48", 1.0)), AddressError, "48 neurons"),
    ("unreadable", lambda s: s.add(pc.Clamp("L1.Q3", 1.0)), AddressError, "L1.Q3"),
    ("position", lambda s: s.add(pc.Clamp("L1.N3@12", 1.0)), AddressError, "12"),
    ("position before", lambda s: s.add(pc.Clamp("L1.N3@-13", 1.0)), AddressError, "-13"),
    ("edit", lambda s: s.edit(s.keys[0], pc.Clamp("L1.N3@12", 1.0)), AddressError, "12"),
    ("edit kind", lambda s: s.edit(s.keys[0], 5), InterventionError, "not int"),
    ("nan", lambda s: s.add(pc.Clamp("L1.N3", float("nan"))), InterventionError, "finite"),
    ("inf", lambda s: s.edit(s.keys[0], CLAMP.with_value(1e999)), InterventionError, "finite"),
    ("kind", _set("interventions", ["L1.N3"]), InterventionError, "not str"),
    ("one bad", _set("interventions", [CLAMP, pc.Clamp("L9.N0", 1)]), AddressError, "4 layers"),
    ("add a number", lambda s: s.add(3.0), InterventionError, "not float"),
    (
        "width",
        lambda s: s.add(pc.Add("L1.mlp", 1.0, direction=[1.0, 2.0])),
        InterventionError,
        "2 numbers",
    ),
    ("unnamed", lambda s: s.add(pc.Clamp("L1.resid_post[dog]", 1)), InterventionError, "define"),
    ("no contrast", _set("contrast", None), InterventionError, "contrast"),
    ("patch ids", lambda s: s.add(pc.Patch("L1.H0", source=[99])), InputError, "vocabulary"),
    (
        "patch beyond",
        lambda s: s.add(pc.Patch("L1.H0", source=[5, 6])),
        InterventionError,
        "only 2 positions",
    ),
    ("contrast short", _set("contrast", tiny.ids(3)), InterventionError, "only 3 positions"),
    ("patch text", lambda s: s.add(pc.Patch("L1.H0", source="a")), InputError, "tokenizer"),
    ("empty ids", _set("input", torch.tensor([], dtype=torch.long)), InputError, "empty"),
    ("text", _set("input", "a text"), InputError, "no tokenizer"),
    ("long", _set("input", torch.ones(65, dtype=torch.long)), InputError, "at most 64"),
    ("2-D", _set("input", torch.ones(1, 5, dtype=torch.long)), InputError, "1-D"),
    ("floats", _set("input", torch.ones(5)), InputError, "integers"),
    ("vocabulary", _set("input", torch.tensor([3, 61])), InputError, "61 is outside"),
    ("negative", _set("input", torch.tensor([3, -2])), InputError, "-2 is outside"),
    ("None", _set("input", None), InputError, "Token ids"),
    ("shorter", _set("input", tiny.ids(5)), AddressError, "6"),
    ("contrast long", _set("contrast", torch.ones(65, dtype=torch.long)), InputError, "at most"),
    ("metric", _set("metric", "logit"), InputError, "not str"),
    ("metric token", _set("metric", pc.LogProb(61)), InputError, "61 is outside"),
    ("metric text", _set("metric", pc.LogProb(" Paris")), InputError, "tokenizer"),
    ("nan direction", lambda s: s.define("d", "L1.mlp", UP * torch.nan), InterventionError, "fin"),
    ("zero direction", lambda s: s.define("d", "L1.mlp", UP * 0), InterventionError, "zero"),
    ("short direction", lambda s: s.define("d", "L1.mlp", UP[:9]), InterventionError, "32 numbers"),
    ("no vector", lambda s: s.define("d", "L1.mlp", "dog"), InterventionError, "vector"),
    ("direction layer", lambda s: s.define("d", "L7.mlp", UP), AddressError, "4 layers"),
    ("direction of a neuron", lambda s: s.define("d", "L1.N3", UP), AddressError, "L1.N3"),
    ("row", lambda s: s.current.rows([12]), InputError, "0 to 11"),
    ("top", lambda s: s.baseline.top(3, position=-13), InputError, "0 to 11"),
    ("activation", lambda s: s.current.activation("L9.N0"), AddressError, "4 layers"),
    ("activation at", lambda s: s.current.activation("L1.N0@12"), AddressError, "12"),
    ("count", lambda s: s.generate(0), InputError, "at least 1"),
    ("temperature", lambda s: s.generate(1, temperature=float("nan")), InputError, "temperature"),
]


@pytest.mark.parametrize(("_name", "gesture", "kind", "said"), BAD, ids=[b[0] for b in BAD])
def test_a_bad_gesture_gets_a_sentence_and_changes_nothing(
    _name: str, gesture: Callable[[pc.Session], object], kind: type[Exception], said: str
) -> None:
    session = session_on(contrast=tiny.ids(LENGTH, seed=1))
    session.interventions = [pc.Clamp("L1.N3@6", 8.0), pc.Patch("L2.H1@6")]
    heard: list[Change] = []
    session.observe(heard.append)
    state, revision, logits = seen(session), session.revision, session.current.logits
    weights = session.model.weights_version
    with pytest.raises(kind, match=said):
        gesture(session)
    assert seen(session) == state
    assert session.revision == revision
    assert heard == []
    assert torch.equal(session.current.logits, logits)
    assert session.model.weights_version == weights
    session.add(pc.Clamp("L0.N0", 1.0))  # the next gesture works
    assert [change.kind for change in heard] == ["interventions"]
    session.undo()
    assert seen(session) == state


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"input": torch.tensor([], dtype=torch.long)}, InputError),
        ({"input": torch.ones(1, 5, dtype=torch.long)}, InputError),
        ({"input": "a text"}, InputError),
        ({"contrast": torch.ones(65, dtype=torch.long)}, InputError),
        ({"metric": pc.LogProb(61)}, InputError),
        ({"metric": "logit"}, InputError),
        ({"reference": ["a text"]}, InputError),
        ({"reference": [torch.tensor([99])]}, InputError),
        ({"interventions": [pc.Clamp("L9.N3", 1.0)]}, AddressError),
        ({"interventions": [CLAMP, 5]}, InterventionError),
        ({"interventions": [pc.Patch("L1.H0")]}, InterventionError),
        ({"model": "smollm2"}, ModelError),
    ],
    ids=str,
)
def test_a_session_that_cannot_be_is_refused_at_once(
    options: dict[str, Any], kind: type[Exception]
) -> None:
    given: dict[str, Any] = {"model": tiny.model("llama"), "input": tiny.ids(LENGTH)}
    with pytest.raises(kind, match=r"\w+ \w+ \w+"):
        pc.Session(**given | options)


def test_a_metric_whose_text_is_no_single_token_is_refused() -> None:
    session = pc.Session(letters.model(), "a b c")
    with pytest.raises(InputError, match=r"is not one token of .* but 2 \('a', 'b'\)"):
        session.metric = pc.LogProb("ab")
    with pytest.raises(InputError, match="is not one token"):
        session.metric = pc.LogitDifference(" a", "")
    assert session.metric == pc.LogProb()
    session.metric = pc.LogitDifference(" a", "b")
    assert session.metric_tokens() == (
        letters.model().token_id(" a"),
        letters.model().token_id("b"),
    )


def test_a_shorter_input_is_taken_once_nothing_points_beyond_it() -> None:
    session = session_on(interventions=[pc.Clamp("L1.N3@6", 8.0), pc.Clamp("L1.N3@-1", 8.0)])
    with pytest.raises(AddressError):
        session.input = tiny.ids(5)
    session.remove(session.keys[0])
    session.input = tiny.ids(5)
    assert session.current.logits.shape == (5, tiny.VOCAB)
    session.undo()
    assert len(session.ids) == LENGTH


# Runs ---------------------------------------------------------------------------------------------


def test_the_default_target_is_the_likeliest_token_without_interventions() -> None:
    session = session_on()
    likeliest = int(session.baseline.logits[-1].argmax())
    assert session.target == likeliest
    session.interventions = [pc.Scale("L1.mlp", -9.0), pc.Ablate("L3.mlp", how="zero")]
    assert int(session.current.logits[-1].argmax()) != likeliest
    assert session.target == likeliest
    session.metric = pc.LogProb(7)
    assert session.target == 7


def test_top_is_the_sorted_softmax_of_a_row() -> None:
    session = pc.Session(letters.model(), "a b c")
    run = session.baseline
    for position in (-1, 0, 2):
        truth = run.logits[position].softmax(-1)
        top = run.top(5, position=position)
        assert [i for i, *_ in top] == truth.topk(5).indices.tolist()
        assert [p for *_, p in top] == pytest.approx(truth.topk(5).values.tolist(), rel=1e-5)
        assert [t for _, t, _ in top] == [session.model.token_text(i) for i, *_ in top]
    assert len(run.top(10**6)) == tiny.VOCAB
    assert sum(p for *_, p in run.top(10**6)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("positions", [[-1], [0], [-1, 0, 3], [-12, 11, 5, 5], list(range(12))])
def test_rows_are_the_rows_of_the_logits(positions: list[int]) -> None:
    rows = session_on(interventions=[CLAMP]).current.rows(positions)
    logits = session_on(interventions=[CLAMP]).current.logits
    assert logits.shape == (LENGTH, tiny.VOCAB)
    assert error(rows, logits[positions]) <= 1e-6
    assert logits.requires_grad is False


def test_logits_over_the_budget_are_refused_and_rows_are_not() -> None:
    session = pc.Session(LanguageModel(tiny.hugging_face("llama"), None), tiny.ids(LENGTH))
    truth = session.baseline.logits
    again = pc.Session(session.model, tiny.ids(LENGTH, seed=5))
    again.engine.budget = 4 * LENGTH * tiny.VOCAB - 1
    with pytest.raises(BudgetError, match=r"MiB.*rows"):
        _ = again.baseline.logits
    assert again.baseline.rows([3, -1]).shape == (2, tiny.VOCAB)
    assert torch.equal(session.baseline.logits, truth)


def test_a_run_that_was_asked_for_stays_what_it_was() -> None:
    session = session_on(interventions=[CLAMP])
    run, logits = session.current, session.current.logits
    late = session.current
    session.interventions = [CLAMP.with_value(-8.0)]
    assert session.current is not run
    assert torch.equal(run.logits, logits)
    assert torch.equal(late.logits, logits)
    session.undo()
    assert session.current is run


def test_a_run_from_before_an_update_of_the_weights_is_never_mixed_with_the_new_ones() -> None:
    model = LanguageModel(tiny.hugging_face("gpt2"), None)
    session = pc.Session(model, tiny.ids(LENGTH))
    computed, kept, never = session.baseline, session.baseline.rows([-1]), None
    session.metric = pc.LogProb(5)
    never = session.current.experiment
    lazy = type(session.current)(never)
    with torch.no_grad():
        model.bridge.blocks[1].mlp.out.original_component.weight.mul_(0.5)
    assert torch.equal(computed.rows([-1]), kept)
    for run in (computed, lazy):
        with pytest.raises(ModelError, match="weights have changed"):
            run.rows([2])
    with torch.no_grad():
        truth = model.bridge(tiny.ids(LENGTH).unsqueeze(0))[0]
    assert error(session.baseline.logits, truth) <= 1e-5


def test_clamping_a_named_direction_sets_its_coefficient() -> None:
    session = session_on("native")
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1)) * 3
    site = session.define("dog", "L2.resid_post", vector)
    assert str(site) == "L2.resid_post[dog]"

    def coefficient() -> torch.Tensor:
        return session.current.activation("L2.resid_post") @ vector / (vector @ vector)

    before = coefficient()
    session.interventions = [pc.Clamp("L2.resid_post[dog]@4:9", 2.5)]
    after = coefficient()
    assert after[4:9].tolist() == pytest.approx([2.5] * 5, abs=1e-5)
    assert torch.equal(after[:4], before[:4])
    assert not torch.allclose(after[4:9], before[4:9], atol=0.1)
    session.interventions = [pc.Add("L2.resid_post[dog]@-1", 1.5)]
    assert float(coefficient()[-1] - before[-1]) == pytest.approx(1.5, abs=1e-5)
    moved = session.current.activation("L2.resid_post@-1") - session.baseline.activation(
        "L2.resid_post@-1"
    )
    assert torch.allclose(moved[0], 1.5 * vector, atol=1e-4)
    # The same name for another vector: what is on the stack follows.
    session.define("dog", "L2.resid_post", torch.ones(32))
    moved = session.current.activation("L2.resid_post@-1") - session.baseline.activation(
        "L2.resid_post@-1"
    )
    assert torch.allclose(moved[0], torch.full((32,), 1.5), atol=1e-4)


def test_a_patch_takes_the_contrast_inputs_values_and_follows_it() -> None:
    session = session_on(contrast=tiny.ids(LENGTH, seed=1))
    session.interventions = [pc.Patch("L2.resid_post")]
    other = session_on()
    for seed in (1, 2):
        session.contrast = tiny.ids(LENGTH, seed=seed)
        other.input = tiny.ids(LENGTH, seed=seed)
        # The whole residual stream patched in: from there on it is the other run.
        assert error(session.current.logits, other.baseline.logits) <= 1e-5
    assert error(session.current.logits, session.baseline.logits) > 1e-2


# The queue ----------------------------------------------------------------------------------------


def endless(entered: threading.Event) -> Callable[[Any], None]:
    def job(stop: Callable[[], bool]) -> None:
        entered.set()
        while not stop():
            time.sleep(0.005)
        raise Stopped("Stopped before it was finished.")

    return job


def test_an_interrupted_cell_cancels_its_run_and_the_model_works_afterwards() -> None:
    session = session_on()
    truth = session_on(interventions=[CLAMP]).current.logits
    entered = threading.Event()

    def interrupt() -> None:
        assert entered.wait(PATIENCE)
        until_the_main_thread_waits()
        _thread.interrupt_main()  # what a kernel interrupt does

    thread = threading.Thread(target=interrupt)
    thread.start()
    task = session.submit(endless(entered))
    with pytest.raises(KeyboardInterrupt):
        task.result()
    thread.join()
    assert task.done()
    assert task.cancelled()
    session.interventions = [CLAMP]
    assert torch.equal(session.current.logits, truth)


def test_an_interrupt_reaches_a_run_between_two_blocks() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), None)
    session = pc.Session(model, tiny.ids(LENGTH))
    session.baseline.compute()
    session.interventions = [pc.Clamp("L0.N3", 8.0)]
    calls: list[int] = []

    def stop() -> bool:  # asked before every block
        calls.append(len(calls))
        if len(calls) == 2:
            until_the_main_thread_waits()
            _thread.interrupt_main()
            # The worker is in the block while the cell is interrupted.
            running = session.engine.queue._running
            assert running is not None
            until(running.cancelled)
        return False

    with pytest.raises(KeyboardInterrupt):
        session.current.compute(should_stop=stop)
    assert len(calls) == 2
    truth = session_on(interventions=[pc.Clamp("L0.N3", 8.0)]).current.logits
    assert error(session.current.logits, truth) <= 1e-6


def test_two_sessions_of_a_model_share_one_worker_and_nothing_else() -> None:
    one, two = session_on(), session_on(metric=pc.LogProb(5))
    assert one.engine is two.engine is Engine.of(tiny.model("llama"))
    truths = {}
    for session, value in ((one, 8.0), (two, -8.0)):
        session.interventions = [pc.Clamp("L1.N3", value)]
        truths[session] = session.current.logits
    assert not torch.equal(truths[one], truths[two])
    threads: set[str] = set()
    wrong: list[pc.Session] = []

    def use(session: pc.Session) -> None:
        for value in range(20):
            session.edit(session.keys[0], pc.Clamp("L1.N3", value + 0.5))
            session.current.rows([-1])
            session.submit(lambda _: threads.add(threading.current_thread().name)).result()
            session.undo()
            if not torch.equal(session.current.logits, truths[session]):
                wrong.append(session)

    users = [threading.Thread(target=use, args=(session,)) for session in (one, two)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert wrong == []
    assert len(threads) == 1
    assert one.metric != two.metric


def test_a_key_of_one_session_does_not_replace_the_job_of_another() -> None:
    one, two = session_on(), session_on()
    hold = threading.Event()
    one.submit(lambda _: hold.wait(PATIENCE))
    tasks = [session.submit(lambda _: True, key="drag") for session in (one, two)]
    hold.set()
    assert [task.result(timeout=PATIENCE) for task in tasks] == [True, True]


def test_no_thread_stays_when_there_was_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def stays(seconds: float) -> None:
        monkeypatch.setattr(queue, "_IDLE_SECONDS", seconds)

    model = LanguageModel(tiny.hugging_face("llama"), None, name="idle one")
    session = pc.Session(model, tiny.ids(LENGTH))

    def workers() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "patchclamp idle one"]

    assert workers() == []
    stays(PATIENCE)
    session.baseline.compute()
    (worker,) = workers()
    stays(0.1)
    session.submit(lambda _: None).result()
    worker.join(PATIENCE)
    assert workers() == []
    stays(PATIENCE)
    session.interventions = [CLAMP]
    assert session.current.logits.isfinite().all()
    assert len(workers()) == 1


def test_a_dropped_model_is_gone_weights_and_all() -> None:
    bridge = tiny.fresh_bridge("llama")
    session = pc.Session(LanguageModel(bridge, None), tiny.ids(LENGTH), interventions=[CLAMP])
    session.observe(lambda change: None)  # noqa: ARG005
    session.generate(2)
    session.current.activation("L1.N3")
    session.current.compute()
    left = [weakref.ref(thing) for thing in (session, session.model, session.engine)]
    left.append(weakref.ref(bridge.blocks[0].mlp.out.original_component.weight))
    del session, bridge
    # The worker may be letting go of its last job.
    until(lambda: gc.collect() >= 0 and [ref() for ref in left] == [None] * 4)


# Generation ---------------------------------------------------------------------------------------


STEERED = [pc.Clamp("L1.N3", 9.0), pc.Scale("L2.mlp", 3.0)]


def test_generation_is_greedy_continuation_streamed_in_turn() -> None:
    session = pc.Session(letters.model(), "a b c", interventions=STEERED)
    heard: list[tuple[str, Any, str]] = []
    texts = session.generate(
        8, on_token=lambda side, token: heard.append((side, token, threading.current_thread().name))
    )
    assert {name for *_, name in heard} == {threading.current_thread().name}
    assert [side for side, *_ in heard[:4]] == ["baseline", "clamped", "baseline", "clamped"]
    for side in ("baseline", "clamped"):
        tokens = [token for where, token, _ in heard if where == side]
        assert "".join(token.text for token in tokens) == texts[side]
        assert [token.index for token in tokens] == list(range(len(tokens)))
        assert [token.done for token in tokens] == [False] * (len(tokens) - 1) + [True]
        ids = session.ids
        if side == "baseline":
            for token in tokens:
                logits = pc.Session(session.model, ids).baseline.logits
                assert token.id == int(logits[-1].argmax())
                ids = torch.cat([ids, torch.tensor([token.id])])
    assert texts["baseline"] != texts["clamped"]


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    session = pc.Session(letters.model(), "a b c", interventions=STEERED)
    first = session.generate(12, seed=1, temperature=1.0)
    assert session.generate(12, seed=1, temperature=1.0) == first
    assert session.generate(12, seed=2, temperature=1.0) != first
    session.reset()
    same = session.generate(12, seed=1, temperature=1.0)
    assert same["baseline"] == same["clamped"] == first["baseline"]


def test_generation_ends_at_the_end_of_text_token_each_side_for_itself() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), letters.tokenizer())
    session = pc.Session(model, "a b c")
    heard: dict[str, list[Any]] = {"baseline": [], "clamped": []}
    session.generate(6, on_token=lambda side, token: heard[side].append(token))
    greedy = [token.id for token in heard["baseline"]]
    place = next(n for n in range(1, 6) if greedy[n] not in greedy[:n])
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(greedy[place])
    session.interventions = STEERED
    heard = {"baseline": [], "clamped": []}
    session.generate(6, on_token=lambda side, token: heard[side].append(token))
    ended = heard["baseline"]
    assert [token.id for token in ended] == greedy[: place + 1]
    assert ended[-1].done
    assert ended[-1].text == ""
    assert len(heard["clamped"]) > len(ended)


def test_generation_ends_at_the_end_of_the_context_and_a_full_prompt_is_refused() -> None:
    session = pc.Session(tiny.model("llama"), tiny.ids(62))
    heard: list[Any] = []
    session.generate(20, on_token=lambda side, token: heard.append((side, token.index, token.done)))
    assert heard[-2:] == [("baseline", 1, True), ("clamped", 1, True)]
    session.input = tiny.ids(64)
    with pytest.raises(InputError, match="fills the model's context"):
        session.generate(1)


def ten_passes(session: pc.Session) -> tuple[list[object], Any]:
    """Let the model take ten passes and no more until its job is cancelled; those it took."""
    passes: list[object] = []

    def counted(_block: object, given: object) -> None:
        passes.append(given)
        if len(passes) > 10:
            running = session.engine.queue._running
            assert running is not None
            until(running.cancelled)

    block = session.engine.passes.shells["plain"].blocks[0]
    return passes, block.register_forward_pre_hook(counted)


def test_generation_stops_when_told_and_the_model_works_afterwards() -> None:
    session = session_on(interventions=[CLAMP])
    count = 0

    def stop_after_six(_side: str, _token: object) -> None:
        nonlocal count
        count += 1
        if count == 6:
            session.engine.queue.stop()

    truth = session.current.logits
    _, handle = ten_passes(session)
    with pytest.raises(Stopped):
        session.generate(50, on_token=stop_after_six)
    handle.remove()
    assert 6 <= count < 50
    assert torch.equal(session.current.logits, truth)


def test_an_error_of_the_listener_ends_the_generation_and_comes_out() -> None:
    session = session_on()
    session.baseline.compute()

    def broken(_side: str, _token: object) -> None:
        raise KeyError("my own mistake")

    passes, handle = ten_passes(session)
    with pytest.raises(KeyError, match="my own mistake"):
        session.generate(50, on_token=broken)
    handle.remove()
    assert len(passes) <= 11
    assert session.submit(lambda _: 5).result(timeout=PATIENCE) == 5


def test_an_interrupt_ends_the_generation() -> None:
    session = session_on()

    def interrupted(_side: str, token: Any) -> None:
        if token.index == 1:
            _thread.interrupt_main()
            time.sleep(0.2)

    with pytest.raises(KeyboardInterrupt):
        session.generate(50, on_token=interrupted)
    assert session.submit(lambda _: 5).result(timeout=PATIENCE) == 5


def test_a_listener_may_use_the_session_meanwhile() -> None:
    session = session_on(interventions=[CLAMP])
    truth = session_on(interventions=[CLAMP]).current.logits
    found: list[torch.Tensor] = []
    session.generate(3, on_token=lambda side, token: found.append(session.current.logits))  # noqa: ARG005
    assert len(found) == 6
    assert all(torch.equal(logits, truth) for logits in found)


# As code ------------------------------------------------------------------------------------------


@pytest.fixture
def _gradients() -> Iterator[None]:
    yield
    torch.set_grad_enabled(True)


@pytest.mark.usefixtures("_gradients")
@pytest.mark.parametrize("name", ["llama", "native"])
def test_the_code_of_a_session_gives_its_logits(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    session = session_on(name, contrast=tiny.ids(LENGTH, seed=1), reference=[tiny.ids(9, seed=4)])
    session.define("up", "L2.resid_post", UP)
    session.interventions = [
        pc.Clamp("L1.N3@-1", 8.0),
        pc.Ablate("L0.N7"),
        pc.Ablate("L2.H1", how="zero"),
        pc.Scale("L3.mlp", 0.5),
        pc.Clamp("L2.resid_post[up]@3:", 2.0),
        pc.Patch("L1.H2@2:5"),
        pc.Scale("L0.mlp", 9.0, muted=True),
    ]
    names: dict[str, Any] = {"model": tiny.fresh_bridge(name)}
    exec(session.to_code(), names)  # noqa: S102 (that it runs is the claim)
    capsys.readouterr()
    assert error(session.current.logits, names["logits"][0]) <= 1e-5
    assert error(session.baseline.logits, names["logits"][0]) > 1e-2
