"""The strip of the session's stack in ActivationMaximizer, whose own work runs without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import patchclamp as pc
from patchclamp.errors import InterventionError, ModelError
from patchclamp.methods.effect import effects
from tests.unit import small_modules as small
from tests.unit import tiny
from tests.unit.heard import HearsAll, Message, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchclamp.models.language_model import LanguageModel

PROMPT = "the capital of lesotho is"
SEARCH: dict[str, Any] = {"length": 4, "population": 2, "children": 4, "top_k": 16, "iterations": 1}


class Heard(HearsAll, pc.ActivationMaximizer):
    """The real view, heard."""

    def strip(self) -> Message:
        self.rest()
        found: Message = self.of("maximizer")[-1]["state"]["strip"]
        return found

    def measured(self) -> Message:
        """The effects of the session as it is."""
        self.rest()
        return self.of("effects")[-1]


@pytest.fixture(scope="module")
def recall() -> LanguageModel:
    return pc.load("recall-4l")


@pytest.fixture
def session(recall: LanguageModel) -> pc.Session:
    return pc.Session(recall, PROMPT)


@pytest.fixture
def view(session: pc.Session) -> Iterator[Heard]:
    view = Heard(session, "L2.N7", corpus=session.model.reference[:6])
    view.ask("hello")
    yield view
    view.close()


def test_a_row_is_added_edited_muted_moved_and_taken_out(view: Heard, session: pc.Session) -> None:
    reply = view.ask("add", address="L2.N7")
    assert reply["body"]["existed"] is False
    value = float(session.baseline.activation("L2.N7")[-1])
    assert session.interventions == (pc.Clamp("L2.N7@-1", value),)
    (row,) = view.strip()["rows"]
    assert (row["address"], row["positions"], row["op"]) == ("L2.N7", "-1", "set")
    assert row["observed"] == pytest.approx(value)
    assert row["range"]["low"] < value < row["range"]["high"]
    key = row["key"]
    for amount in (1.0, 2.0, 3.0):  # a drag is one step of undo
        assert view.ask("edit", key=key, value=amount, final=amount == 3.0)["ok"]
    assert session.interventions == (pc.Clamp("L2.N7@-1", 3.0),)
    assert session.undo()
    assert session.interventions == (pc.Clamp("L2.N7@-1", value),)
    view.ask("add", address="L1.H2", op="ablate")
    view.ask("edit", key=key, muted=True)
    view.ask("move", key=key, index=1)
    rows = view.strip()["rows"]
    assert [(row["address"], row["muted"]) for row in rows] == [("L1.H2", False), ("L2.N7", True)]
    view.ask("remove", key=key)
    assert view.ask("reset")["ok"]
    assert view.strip()["rows"] == []


def test_the_strip_is_that_of_the_other_views_of_the_session(
    view: Heard, session: pc.Session
) -> None:
    other = pc.NeuronClamp(session)
    other.add("L2.N7", "set", 2.0)
    other.add("L1.N5", "ablate")
    assert [row["address"] for row in view.strip()["rows"]] == ["L2.N7", "L1.N5"]
    view.mute("L1.N5")
    assert [iv.muted for iv in other.interventions] == [False, True]
    view.mute("L1.N5", muted=False)
    found = view.measured()
    assert found["revision"] == session.revision
    wanted = other.effects
    assert [row["effect"] for row in found["rows"]] == pytest.approx(wanted["effect"].tolist())
    assert [row["control"]["median"] for row in found["rows"]] == pytest.approx(
        wanted["control_median"].tolist()
    )
    assert max(abs(row["effect"]) for row in found["rows"]) > 1e-4
    token = session.model.token_text(session.target)
    assert view.strip()["metric"] == f'log p("{token}")'


def test_another_aim_leaves_the_effects_and_another_prompt_does_not(
    view: Heard, session: pc.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        begun.append(1)
        return effects(*args, **options)

    monkeypatch.setattr("patchclamp.views.strip_view.effects", counted)
    view.add("L2.N7", "set", 2.0)
    first = view.measured()
    assert len(begun) == 1
    view.aim("L1.N3")
    assert view.measured() == {**first, "revision": session.revision}
    assert len(begun) == 1
    session.input = "the capital of peru is"
    second = view.measured()
    assert second["revision"] == session.revision
    assert len(begun) == 2
    assert second["rows"][0]["effect"] != pytest.approx(first["rows"][0]["effect"])


def test_searches_and_measurements_run_without_the_stack(session: pc.Session) -> None:
    def found() -> tuple[Any, ...]:
        view = Heard(session, "L2.N7", corpus=session.model.reference[:6])
        front = view.dream(**SEARCH)
        own = view.own(PROMPT)
        corpus = view.examples()
        assert own is not None
        return (
            front.activation.tolist(),
            front.cross_entropy.tolist(),
            own.activation,
            corpus.activation.tolist(),
            view.matter().unit.effect,
        )

    without = found()
    session.interventions = [pc.Clamp("L1.mlp", [5.0] * session.model.anatomy.d_model)]
    assert (session.current.logits - session.baseline.logits).abs().max() > 0.1
    assert found() == without


def test_a_stop_leaves_the_rows_measured(view: Heard) -> None:
    view.add("L2.N7", "set", 2.0)
    view.ask("stop")
    view.rest()
    assert view.strip()["rows"][0]["observed"] is not None


def test_massive_neurons_are_said_once_controls_were_drawn(view: Heard) -> None:
    view._massive = frozenset({(1, 4), (2, 5)})
    notes = view.ask("hello")["body"]["state"]["notes"]
    assert any(note.startswith("2 massive-activation neurons (L1.N4, L2.N5)") for note in notes)


def test_a_page_that_comes_late_and_a_saved_one_have_the_strip(
    view: Heard, session: pc.Session
) -> None:
    view.add("L2.N7", "set", 2.0)
    rows = view.measured()["rows"]
    body = view.ask("hello")["body"]
    assert (body["effects"], body["effects_revision"]) == (rows, session.revision)
    assert body["state"]["strip"]["prompt"] == PROMPT
    fresh = Heard(session)
    fresh.to_html()
    (row,) = fresh.snapshot["hello"]["state"]["strip"]["rows"]
    assert row["observed"] is not None


def test_a_prompt_that_a_row_cannot_act_on_is_refused(view: Heard, session: pc.Session) -> None:
    session.interventions = [pc.Ablate("L2.N7@4")]
    reply = view.ask("prompt", text="the")
    assert (reply["ok"], reply["field"]) == (False, "text")
    assert session.text == PROMPT
    assert view.ask("edit", key=99, muted=True)["field"] == "key"
    with pytest.raises(InterventionError, match=r"no row 'L9.N9'"):
        view.mute("L9.N9")


def test_a_row_that_ablates_along_a_direction_says_so_and_is_not_edited(
    view: Heard, session: pc.Session
) -> None:
    width = session.model.anatomy.d_head
    session.interventions = [pc.Ablate("L1.H2", "zero", direction=[1.0] * width)]
    (row,) = view.strip()["rows"]
    assert row["label"] == "ablate a direction in L1.H2 (zero), all positions"
    assert (row["editable"], row["op"]) == (False, "ablate")
    reply = view.ask("edit", key=row["key"], op="set")
    assert (reply["ok"], reply["field"]) == (False, "op")
    assert "ablates along a direction of its own" in reply["error"]
    assert view.ask("edit", key=row["key"], muted=True)["ok"]
    assert view.effects.empty
    session.undo()
    assert abs(view.effects.effect[0]) > 1e-6


def test_an_encoders_rows_have_no_effects() -> None:
    view = Heard(pc.Session(tiny.model("bert"), tiny.ids(6)), "L1.N3")
    view.ask("hello")
    view.add("L1.N3", "set", 2.0)
    strip = view.strip()
    assert [row["address"] for row in strip["rows"]] == ["L1.N3"]
    assert strip["metric"] == ""
    assert not view.of("effects")
    with pytest.raises(ModelError, match="encoder"):
        _ = view.effects


def test_the_session_of_a_module_has_no_stack_and_says_so() -> None:
    view = Heard(small.model(small.Convolutions(), small.PICTURE), "second:c2")
    assert view.ask("hello")["body"]["state"]["strip"] is None
    for kind, fields in (
        ("add", {"address": "second:c2"}),
        ("reset", {}),
        ("code", {}),
        ("edit", {"key": 1, "value": 1.0}),
    ):
        assert "has no stack" in view.ask(kind, **fields)["error"], kind
    with pytest.raises(ModelError, match="has no stack"):
        view.add("second:c2")
    view.to_html()


def test_what_is_closed_measures_nothing_more(session: pc.Session) -> None:
    view = Heard(session, "L2.N7")
    view.ask("hello")
    view.close()
    said = len(view.heard)
    session.add(pc.Ablate("L2.N7"))
    until(lambda: session.engine.queue._running is None)
    assert len(view.heard) == said
