"""NeuronClamp on a tiny random model: what a page sends, and what comes back to it."""

import gc
import json
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from patchclamp.errors import InputError, InterventionError, ModelError, PatchclampError
from patchclamp.interventions import Ablate, Add, Clamp, Cut, Intervention, Knockout, Patch, Scale
from patchclamp.models.language_model import LanguageModel
from patchclamp.session import Session
from patchclamp.views import messages as say
from patchclamp.views.messages import (
    activation_maximizer,
    attention_inspector,
    circuit_ablator,
    neuron_atlas,
)
from patchclamp.views.neuron_clamp import CURVE_POINTS, NeuronClamp
from patchclamp.views.view import SNAPSHOT_BYTES, View
from tests.unit import tiny
from tests.unit.heard import Gate, Hears, Message, until


class Heard(Hears, NeuronClamp):
    """The real view, heard."""


def ends(side: str) -> Callable[[Message], bool]:
    return lambda m: m["kind"] == "generated" and m["side"] == side and bool(m["done"])


@pytest.fixture
def session() -> Session:
    return Session(tiny.model("llama"), tiny.ids())


@pytest.fixture
def view(session: Session) -> Iterator[Heard]:
    view = Heard(session)
    view.ask("hello")
    view.result()
    yield view
    view.close()


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """One word a token; TransformerLens reads it again from where it came from."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(4, tiny.VOCAB))]
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, special["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return loaded


@pytest.fixture
def worded(tmp_path: Path) -> Iterator[Heard]:
    """A view on a text."""
    model = LanguageModel(tiny.hugging_face("llama"), tokenizer(tmp_path), name="worded")
    view = Heard(model, "w5 w9 w11 w7", reference=["w4 w8 w12 w20 w30", "w6 w7 w8 w40 w50 w60"])
    view.ask("hello")
    view.result()
    yield view
    view.close()


def observed(session: Session, address: str, position: int = -1) -> float:
    return float(session.baseline.activation(address)[position])


# --- drawing -------------------------------------------------------------------------------------


def test_hello_is_answered_with_everything_at_once(session: Session) -> None:
    session.interventions = [Clamp("L1.N5@-1", 2.0)]
    view = Heard(session)
    hello = view.ask("hello")["body"]
    assert [token["id"] for token in hello["state"]["tokens"]] == session.ids.tolist()
    assert hello["state"]["rows"][0]["address"] == "L1.N5"
    assert hello["state"]["rows"][0]["positions"] == "-1"
    result = view.result()["result"]
    again = view.ask("hello")["body"]
    assert again["result_revision"] == session.revision
    assert np.array_equal(again["result"]["moved"], result["moved"])
    view.close()


def test_a_result_is_what_the_session_computes(view: Heard, session: Session) -> None:
    session.interventions = [Clamp("L1.N5@-1", 4.0), Scale("L2.mlp@3", 0.0)]
    result = view.result()["result"]
    before, after = (run.log_probs().exp() for run in (session.baseline, session.current))
    for share in result["top"]:
        assert share["before"] == pytest.approx(float(before[share["id"]]), rel=1e-5)
        assert share["after"] == pytest.approx(float(after[share["id"]]), rel=1e-5)
    shown = {share["id"] for share in result["top"]}
    assert shown >= {*before.topk(5).indices.tolist(), *after.topk(5).indices.tolist()}
    target = int(before.argmax())
    assert result["metric"]["before"] == pytest.approx(float(before[target].log()), rel=1e-5)
    assert result["metric"]["after"] == pytest.approx(float(after[target].log()), rel=1e-5)
    assert result["moved"][:3].tolist() == [0, 0, 0]
    assert (result["moved"][3:] > 1e-6).all()


def test_nothing_is_computed_or_sent_before_a_page_says_hello(session: Session) -> None:
    view = Heard(session)
    session.interventions = [Clamp("L1.N5@-1", 2.0)]
    view.rest()
    assert view.heard == []
    assert view._tasks == {}
    view.close()


def test_the_first_state_with_a_result_says_what_the_metric_is_about(view: Heard) -> None:
    state = view.hear(lambda m: m["kind"] == "state" and m["state"]["metric"] is not None)["state"]
    top = int(view.session.baseline.log_probs().argmax())
    assert state["metric"]["target"]["id"] == top


# --- adding --------------------------------------------------------------------------------------


def test_a_neuron_added_without_a_value_changes_nothing_yet(view: Heard, session: Session) -> None:
    body = view.ask("add", address="L1.N5")["body"]
    assert body == {"of": "add", "key": session.keys[0], "existed": False}
    value = observed(session, "L1.N5")
    assert session.interventions == (Clamp("L1.N5@-1", value),)
    assert view.result()["result"]["moved"].max() < 1e-9
    view.ask("edit", key=body["key"], value=value + 3)
    assert view.result()["result"]["moved"][-1] > 1e-4
    assert view.selected == "L1.N5@-1"


def test_a_row_says_what_its_neuron_does_on_the_prompt(view: Heard, session: Session) -> None:
    view.ask("add", address="L1.N5@2", value=1.5)
    row = until(lambda: next((r for r in view.rows() if r["sd"] is not None), None))
    values = session.baseline.activation("L1.N5")
    assert row["observed"] == pytest.approx(float(values[2]), rel=1e-5)
    assert row["peak"] == pytest.approx(float(values.abs().max()), rel=1e-5)
    assert row["value"] == 1.5
    assert row["label"] == "set L1.N5 to 1.5, positions 2"
    low, high = row["range"]["low"], row["range"]["high"]
    assert low <= min(0, row["observed"], row["mean"] - 4 * row["sd"], 1.5 * float(values.min()))
    assert high >= max(0, 1.5, row["mean"] + 4 * row["sd"], 1.5 * float(values.max()))


def test_an_address_that_is_there_is_selected_not_doubled(view: Heard, session: Session) -> None:
    first = view.ask("add", address="L1.N5")["body"]["key"]
    other = view.ask("add", address="L2.N7", value=1.0)["body"]["key"]
    until(lambda: view.of("state")[-1]["state"]["selected"] == other)
    for address in ("L1.N5", "L1.N5@-1"):
        again = view.ask("add", address=address)["body"]
        assert again == {"of": "add", "key": first, "existed": True}
    assert view.ask("add", address="L1.N5@2", value=1.0)["body"]["existed"] is False
    assert len(session.interventions) == 3
    until(lambda: view.of("state")[-1]["state"]["selected"] == session.keys[2])


@pytest.mark.parametrize(
    ("address", "op", "value", "expected"),
    [
        ("L1.N5", "set", 8, Clamp("L1.N5", 8.0)),
        ("L1.N5", "add", None, Add("L1.N5", 0.0)),
        ("L1.N5@3", "scale", None, Scale("L1.N5@3", 1.0)),
        ("L1.N5", "ablate", None, Ablate("L1.N5")),
        ("L2.H1", "set", None, Scale("L2.H1", 1.0)),
        ("L2.H1[7<-2]", "set", None, Knockout("L2.H1[7<-2]")),
        ("L1.H1->L2.H2:q", "set", None, Cut("L1.H1->L2.H2:q")),
    ],
)
def test_each_way_of_adding(
    view: Heard,
    session: Session,
    address: str,
    op: str,
    value: float | None,
    expected: Intervention,
) -> None:
    assert view.ask("add", address=address, op=op, value=value)["ok"]
    assert session.interventions == (expected,)


def test_ones_own_direction_gets_a_slider(view: Heard, session: Session) -> None:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    session.define("dog", "L2.resid_post", vector)
    until(lambda: view.of("state")[-1]["state"]["directions"] == ["L2.resid_post[dog]"])
    assert view.ask("complete", prefix="L2.res")["body"]["items"][0] == "L2.resid_post[dog]"
    key = view.ask("add", address="L2.resid_post[dog]")["body"]["key"]
    assert view.result()["result"]["moved"].max() < 1e-6
    row = view.hear(
        lambda m: (
            m["kind"] == "state" and bool(m["state"]["rows"]) and m["state"]["rows"][0]["range"]
        )
    )["state"]["rows"][0]
    assert row["observed"] == pytest.approx(row["value"])
    view.ask("edit", key=key, value=3.0)
    assert view.result()["result"]["moved"][-1] > 1e-4


# --- editing -------------------------------------------------------------------------------------


def test_a_drag_is_one_step_of_undo_and_ends_where_the_hand_ended(
    view: Heard, session: Session
) -> None:
    key = view.ask("add", address="L1.N5@-1", value=0.0)["body"]["key"]
    with Gate(session):  # the hand is faster than the model, on whatever machine
        for step in range(30):
            view.say("edit", key=key, value=step / 10, final=False)
        view.ask("edit", key=key, value=3.0, final=True)
    last = view.result()
    assert session.interventions == (Clamp("L1.N5@-1", 3.0),)
    after = session.current.log_probs().exp()
    top = last["result"]["top"][0]
    assert top["after"] == pytest.approx(float(after[top["id"]]), rel=1e-5)
    revisions = [m["revision"] for m in view.of("result")]
    assert revisions == sorted(revisions)
    assert len(revisions) < 30  # the newest won, those in between were not computed
    view.ask("undo")
    assert session.interventions == (Clamp("L1.N5@-1", 0.0),)
    view.ask("redo")
    assert session.interventions == (Clamp("L1.N5@-1", 3.0),)


def test_two_drags_of_a_row_are_two_steps(view: Heard, session: Session) -> None:
    key = view.ask("add", address="L1.N5@-1", value=0.0)["body"]["key"]
    for end in (1.0, 2.0):
        view.ask("edit", key=key, value=end - 0.5, final=False)
        view.ask("edit", key=key, value=end, final=False)
        view.ask("edit", key=key, final=True)  # the pointer is let go where it was
    view.ask("undo")
    assert session.interventions == (Clamp("L1.N5@-1", 1.0),)


def test_a_row_becomes_another_operation_with_no_effect_yet(view: Heard, session: Session) -> None:
    key = view.ask("add", address="L1.N5")["body"]["key"]
    value = observed(session, "L1.N5")
    for op, expected in [
        ("scale", Scale("L1.N5@-1", 1.0)),
        ("add", Add("L1.N5@-1", 0.0)),
        ("set", Clamp("L1.N5@-1", value)),
        ("ablate", Ablate("L1.N5@-1")),
    ]:
        assert view.ask("edit", key=key, op=op)["ok"]
        assert session.interventions == (expected,)
    view.ask("edit", key=key, how="zero", positions="3,5", muted=True)
    assert session.interventions == (Ablate("L1.N5@3,5", how="zero", muted=True),)
    assert session.keys == (key,)


def test_solo_mutes_the_others_and_gives_back_what_they_had(view: Heard, session: Session) -> None:
    before = (Clamp("L1.N5", 1.0), Scale("L2.mlp", 0.5, muted=True), Ablate("L0.H1"))
    session.interventions = before
    view.ask("solo", key=session.keys[0])
    assert [iv.muted for iv in session.interventions] == [False, True, True]
    view.ask("solo", key=session.keys[0])
    assert session.interventions == before
    view.ask("solo", key=session.keys[1])
    assert [iv.muted for iv in session.interventions] == [True, False, True]
    view.ask("undo")
    assert session.interventions == before


def test_rows_that_the_view_cannot_edit_are_shown_muted_and_removed(
    view: Heard, session: Session
) -> None:
    session.contrast = tiny.ids(seed=1)
    session.interventions = [
        Patch("L1.resid_post@-1"),
        Knockout("L2.H1"),
        Clamp("L[0:2].N[3:5]", 1.0),
    ]
    patch, knockout, group = until(lambda: len(view.rows()) == 3 and view.rows())
    assert (patch["op"], patch["editable"], patch["value"]) == ("patch", False, None)
    assert (knockout["op"], knockout["editable"]) == ("knockout", False)
    assert (group["address"], group["editable"], group["range"]) == ("L[0:2].N[3:5]", True, None)
    refused = view.ask("edit", key=patch["key"], value=1.0)
    assert refused["field"] == "value"
    assert view.ask("edit", key=patch["key"], op="set")["field"] == "op"
    assert view.ask("edit", key=patch["key"], muted=True)["ok"]
    assert view.ask("move", key=patch["key"], index=2)["ok"]
    assert session.interventions[2] == Patch("L1.resid_post@-1", muted=True)
    assert view.ask("remove", key=patch["key"])["ok"]
    assert len(session.interventions) == 2
    assert view.result()["result"]["moved"].max() > 1e-5


def test_one_message_resets_and_undo_brings_back(view: Heard, session: Session) -> None:
    session.interventions = [Clamp("L1.N5", 1.0), Scale("L2.mlp", 0.5)]
    view.ask("reset")
    assert session.interventions == ()
    view.ask("undo")
    assert len(session.interventions) == 2


def test_two_views_of_a_session_agree(view: Heard, session: Session) -> None:
    other = Heard(session)
    other.ask("hello")
    key = view.ask("add", address="L1.N5@-1", value=2.0)["body"]["key"]
    other.ask("edit", key=key, value=3.0)
    results = [each.result() for each in (view, other)]
    until(lambda: view.rows() == other.rows() and view.rows()[0]["value"] == 3.0)
    assert results[0]["revision"] == results[1]["revision"] == session.revision
    assert results[0]["result"]["top"] == results[1]["result"]["top"]
    session.interventions = ()
    until(lambda: view.rows() == other.rows() == [])
    other.close()


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        ({"kind": "add", "address": "L9.N5"}, "address", "L0 to L3"),
        ({"kind": "add", "address": "L1.N4800"}, "address", "L1.N"),
        ({"kind": "add", "address": "neuron five"}, "address", "neuron five"),
        ({"kind": "add", "address": "L1.N5@99"}, "address", "position 99 is out of range"),
        ({"kind": "add", "address": "L1.N5", "value": float("nan")}, "value", "finite"),
        ({"kind": "add", "address": "L2.mlp", "value": 3.0}, "value", "vector"),
        ({"kind": "edit", "key": 0, "value": float("inf")}, "value", "finite"),
        ({"kind": "edit", "key": 0, "positions": "40"}, "positions", "out of range"),
        ({"kind": "edit", "key": 0, "positions": "soon"}, "positions", "not a position"),
        ({"kind": "edit", "key": 0, "how": "zero"}, "how", "Only ablating"),
        ({"kind": "edit", "key": 77, "value": 1.0}, "key", "no longer on the stack"),
        ({"kind": "solo", "key": 77}, "key", "no longer on the stack"),
        ({"kind": "curve", "key": 77}, "key", "no longer on the stack"),
        ({"kind": "prompt", "text": "hello"}, "text", "tokenizer"),
        ({"kind": "target", "token": 10**6}, "token", "vocabulary"),
        ({"kind": "rank", "by": "direct", "position": 40}, None, "Position 40"),
        ({"kind": "burn"}, "kind", "no message of kind 'burn'"),
        ({"kind": "add", "address": "x" * 10_000_000}, None, "larger than the 64 KB"),
    ],
)
def test_bad_input_is_answered_with_a_sentence_and_changes_nothing(
    view: Heard, session: Session, message: Message, field: str | None, words: str
) -> None:
    session.interventions = [Clamp("L1.N5@-1", 2.0)]
    key, before, revision = session.keys[0], session.interventions, session.revision
    if message.get("key") == 0:
        message = {**message, "key": key}
    view._handle_custom_msg({**message, "id": 9_999}, [])
    reply = view.reply(9_999)
    assert reply["ok"] is False
    assert words in reply["error"]
    assert reply["field"] == field
    assert (session.interventions, session.revision) == (before, revision)
    assert view.ask("edit", key=key, value=5.0)["ok"]
    assert view.result()["revision"] == session.revision


@pytest.mark.parametrize("junk", [None, 3, "x" * 10_000_000, [[]] * 1000, {"kind": {}}, {1: 2}])
def test_junk_is_answered_and_the_next_gesture_works(view: Heard, junk: object) -> None:
    view._handle_custom_msg(junk, [])
    assert view.reply(None)["ok"] is False
    assert view.ask("hello")["ok"]


def test_a_prompt_that_is_empty_or_too_long_is_refused(worded: Heard) -> None:
    session = worded.session
    for text, words in [("   ", "empty"), ("w4 " * 80, "81 tokens")]:
        reply = worded.ask("prompt", text=text)
        assert words in reply["error"]
        assert reply["field"] == "text"
        assert session.text == "w5 w9 w11 w7"
    assert worded.ask("prompt", text="w4 w4 w10")["ok"]
    result = worded.result()
    assert len(result["result"]["moved"]) == 4
    until(lambda: worded.of("state")[-1]["state"]["prompt"] == "w4 w4 w10")
    assert worded.of("state")[-1]["state"]["tokens"][0]["bos"] is True


def test_a_text_is_typed_in_one_step_of_undo(worded: Heard) -> None:
    session = worded.session
    before = session.text
    for text in ("w4", "w4 w6", "w4 w6 w8"):
        assert worded.ask("prompt", text=text, final=False)["ok"]
    assert worded.ask("prompt", text=" ", final=False)["field"] == "text"
    assert session.text == "w4 w6 w8"  # what is refused while it is typed changes nothing
    worded.ask("prompt", text="w4 w6 w8", final=True)
    worded.ask("prompt", text="w9 w9", final=False)
    worded.ask("prompt", text="w9 w10", final=True)
    assert len(worded.result()["result"]["moved"]) == 3
    worded.ask("undo")
    assert session.text == "w4 w6 w8"
    worded.ask("undo")
    assert session.text == before


def test_an_encoder_has_no_prediction_and_says_how_far_its_output_turned() -> None:
    session = Session(tiny.model("bert"), tiny.ids())
    view = Heard(session)
    assert view.ask("hello")["body"]["state"]["metric"] is None
    result = view.result()["result"]
    assert (result["top"], result["metric"], result["moved_as"]) == ([], None, "cosine")
    assert result["moved"].tolist() == [0] * 12
    session.interventions = [Scale("L1.mlp", 0.0)]
    result = view.result()["result"]
    before, after = (r.activation("L2.resid_post") for r in (session.baseline, session.current))
    expected = 1 - torch.cosine_similarity(before, after, dim=-1)
    assert result["moved"] == pytest.approx(expected.numpy(), rel=1e-3)
    assert result["moved"].min() > 1e-3
    reply = view.ask("target", token=5)
    assert "predicts no next token" in reply["error"]
    assert reply["field"] == "token"
    for table in ("effects", "next_tokens"):
        with pytest.raises(ModelError, match="predicts no next token"):
            getattr(view, table)
    view.close()


def test_a_run_that_fails_is_said_and_the_last_picture_stays(view: Heard, session: Session) -> None:
    key = view.ask("add", address="L1.N5@-1", value=2.0)["body"]["key"]
    session.add(Scale("L1.mlp", 1e30))
    view.ask("edit", key=key, value=0.0)
    good = view.result()
    view.ask("edit", key=key, value=3e38)
    status = view.hear(lambda m: m["kind"] == "status" and m["revision"] == session.revision
                       and m["error"] is not None)  # fmt: skip
    assert "no longer finite" in status["error"]
    assert status["revision"] == session.revision
    assert view.of("result")[-1] == good
    view.ask("edit", key=key, value=2.5)
    assert view.result()["revision"] == session.revision


def test_no_gesture_waits_for_the_model(view: Heard, session: Session) -> None:
    session.interventions = [Clamp("L1.N5@-1", 2.0)]
    view.rest()
    view.heard.clear()
    key = session.keys[0]
    gestures: list[tuple[str, Message]] = [
        ("edit", {"key": key, "value": 3.0}),
        ("add", {"address": "L2.N7", "value": 1.0}),
        ("solo", {"key": key}),
        ("curve", {"key": key}),
        ("complete", {"prefix": "L1."}),
        ("target", {"token": 7}),
        ("generate", {"count": 3}),
        ("undo", {}),
        ("reset", {}),
        ("hello", {}),
        ("stop", {}),
    ]
    with Gate(session) as gate:
        for kind, fields in gestures:
            assert gate.answers_at_once(view, kind, **fields)["ok"], kind
        assert {m["kind"] for m in view.heard} <= {"reply", "state", "generated", "status"}
    assert view.result()["revision"] == session.revision


def test_every_gesture_has_a_view_that_handles_it() -> None:
    other_views = (activation_maximizer, attention_inspector, circuit_ablator, neuron_atlas)
    others = {
        part.__name__.lower()
        for part in say.Up.__subclasses__()
        if part.__module__ in {m.__name__ for m in other_views}
    }
    shared = set(say._KINDS) - others
    assert all(hasattr(NeuronClamp, f"_on_{kind}") for kind in shared)
    assert len(shared) > 15


def test_a_gesture_of_another_view_is_refused_with_a_sentence(view: Heard) -> None:
    reply = view.ask("second", text=None)
    assert not reply["ok"]
    assert reply["error"].endswith("has no gesture of the kind 'second'.")


# --- long work -----------------------------------------------------------------------------------


def test_a_curve_fills_in_from_the_present_value_and_is_exact(
    view: Heard, session: Session
) -> None:
    view.hear(lambda m: m["kind"] == "state" and m["state"]["reference"]["ready"])
    key = view.ask("add", address="L1.N5@-1", value=2.0)["body"]["key"]
    assert view.ask("curve", key=key)["ok"]
    full = view.hear(lambda m: m["kind"] == "curve" and len(m["curve"]["values"]) == CURVE_POINTS)
    first = view.of("curve")[0]["curve"]["values"]
    values = full["curve"]["values"]
    assert np.abs(first - 2.0).max() <= np.sort(np.abs(values - 2.0))[len(first) - 1] + 1e-6
    span = next(row["range"] for row in view.rows())
    assert (values[0], values[-1]) == pytest.approx((span["low"], span["high"]), rel=1e-5)
    target = session.target
    for index in (0, 11, 24):
        session.edit(key, Clamp("L1.N5@-1", float(values[index])))
        expected = float(session.current.log_probs()[target])
        assert full["curve"]["logprob"][index] == pytest.approx(expected, abs=1e-4)
    progress = [m for m in view.of("progress") if m["job"] == "curve"]
    assert progress[-1]["total"] in {CURVE_POINTS, 1}


def test_effects_come_beside_random_controls_once_the_stack_has_settled(
    view: Heard, session: Session
) -> None:
    session.interventions = [
        Clamp("L1.N5@-1", 5.0),
        Ablate("L2.H1"),
        Scale("L2.mlp", 0.5, muted=True),
    ]
    now = session.revision
    effects = view.hear(lambda m: m["kind"] == "effects" and m["revision"] == now)["rows"]
    neuron, head = effects
    whole = float(session.current.log_probs()[session.target])
    neuron_key, head_key, _ = session.keys
    assert (neuron["key"], head["key"]) == (neuron_key, head_key)
    assert head["control"] is None
    control = neuron["control"]
    assert control["seeds"] >= 5
    assert control["low"] <= control["median"] <= control["high"]
    assert control["low"] < control["high"]
    table = view.effects
    assert table["effect"].tolist() == [neuron["effect"], head["effect"]]
    assert table["address"].tolist() == ["L1.N5@-1", "L2.H1"]
    session.remove(neuron_key)
    without = float(session.current.log_probs()[session.target])
    assert neuron["effect"] == pytest.approx(whole - without, abs=1e-4)


def test_a_ranking_gives_addresses_to_add(view: Heard, session: Session) -> None:
    for by in ("activation", "direct", "gradient"):
        body = view.ask("rank", by=by, position=4, count=5)["body"]
        assert len(body["items"]) == 5
        sizes = [abs(item["value"]) for item in body["items"]]
        assert sizes == sorted(sizes, reverse=True)
    best = view.ask("rank", by="activation", count=1)["body"]["items"][0]
    assert best["value"] == pytest.approx(observed(session, best["address"]), rel=1e-5)
    assert view.ask("add", address=best["address"])["body"]["existed"] is False
    assert view.rank("activation", count=1)["address"].tolist() == [best["address"]]


def test_generation_is_streamed_and_is_what_the_session_generates(
    view: Heard, session: Session
) -> None:
    session.interventions = [Clamp("L1.N5", 6.0)]
    view.ask("generate", count=12, seed=3, temperature=1.0)
    for side in ("baseline", "clamped"):
        view.hear(ends(side))
    texts = {"baseline": "", "clamped": ""}
    for token in view.of("generated"):
        texts[token["side"]] = (
            token["text"] if token["index"] == 0 else texts[token["side"]] + token["text"]
        )
    expected = session.generate(12, seed=3, temperature=1.0)
    assert texts == expected
    assert texts["baseline"] != texts["clamped"]
    assert {g["side"]: g["text"] for g in view.ask("hello")["body"]["generated"]} == expected


def test_stop_ends_a_generation_and_keeps_what_is_there(view: Heard) -> None:
    view.ask("generate", count=50, seed=0, temperature=0.0)
    view.hear(lambda m: m["kind"] == "generated" and m["index"] >= 2)
    view.ask("stop")
    for side in ("baseline", "clamped"):
        view.hear(ends(side))
    until(lambda: not view._tasks)
    shown = view.ask("hello")["body"]["generated"]
    assert all(text["done"] and text["text"] for text in shown)
    assert view.ask("generate", count=2)["ok"]


def test_tokens_are_found_by_what_they_say(worded: Heard) -> None:
    items = worded.ask("tokens", query="w5")["body"]["items"]
    assert items[0] == {"id": 5, "text": "w5"}
    assert {item["text"] for item in items} == {"w5", *(f"w{i}" for i in range(50, 60))}
    assert len(worded.ask("tokens", query="")["body"]["items"]) == 30
    assert worded.ask("target", token=items[0]["id"])["ok"]
    until(lambda: worded.of("state")[-1]["state"]["metric"]["target"] == items[0])
    assert worded.result()["result"]["metric"]["before"] == pytest.approx(
        float(worded.session.baseline.log_probs()[5]), rel=1e-5
    )


def test_another_prompt_forgets_what_was_measured_on_the_last(worded: Heard) -> None:
    key = worded.ask("add", address="L1.N5", value=3.0)["body"]["key"]
    worded.ask("curve", key=key)
    worded.hear(lambda m: m["kind"] == "curve")
    until(lambda: not worded._tasks)
    worded.ask("prompt", text="w9 w10 w11 w12 w13 w14")
    assert worded.ask("hello")["body"]["curves"] == []
    row = worded.hear(
        lambda m: (
            m["kind"] == "state"
            and len(m["state"]["tokens"]) == 7
            and m["state"]["rows"][0]["observed"] is not None
        )
    )["state"]["rows"][0]
    assert row["observed"] == pytest.approx(observed(worded.session, "L1.N5", 1), rel=1e-5)


def test_the_stack_as_code_is_answered(worded: Heard) -> None:
    worded.ask("add", address="L1.N5", value=3.0)
    assert "L1.N5" in worded.ask("code")["body"]["text"]


def test_a_torrent_of_changes_is_sent_as_thirty_messages_a_second(
    view: Heard, session: Session
) -> None:
    key = view.ask("add", address="L1.N5@-1", value=0.0)["body"]["key"]
    view.result()
    view.heard.clear()
    began = time.monotonic()
    for step in range(1, 801):
        session.edit(key, Clamp("L1.N5@-1", step / 100))
        # Ten may go at once, and one more is counted before the clock is read.
        heard, most = len(view.heard), 11 + 30 * (time.monotonic() - began)
        assert heard <= most, step
        time.sleep(0.001)
    view.result()
    until(lambda: view.rows()[0]["value"] == pytest.approx(step / 100))


# --- from Python ---------------------------------------------------------------------------------


def test_the_gestures_are_methods_too(session: Session) -> None:
    view = Heard(session)
    key = view.add("L1.N5")
    view.set_value("L1.N5", 4.0)
    view.set_positions(key, "3,5")
    assert view.interventions == (Clamp("L1.N5@3,5", 4.0),)
    view.mute("L1.N5")
    assert view.interventions == (Clamp("L1.N5@3,5", 4.0, muted=True),)
    view.mute("L1.N5", muted=False)
    assert view.add("L2.N7", "scale", 0.5) == session.keys[1]
    view.move("L2.N7", 0)
    view.select("L1.N5")
    assert view.selected == "L1.N5@3,5"
    assert [str(iv.site) for iv in view.interventions] == ["L2.N7", "L1.N5@3,5"]
    view.remove("L2.N7")
    view.undo()
    assert list(session.keys)[-1] == key
    curve = view.curve("L1.N5")
    assert len(curve) == CURVE_POINTS
    assert list(view.next_tokens) == ["id", "text", "before", "after"]
    assert set(view.generate(3)) == {"baseline", "clamped"}
    with pytest.raises(InterventionError, match=r"no row 'L3.N1'; there is L2.N7, L1.N5@3,5"):
        view.set_value("L3.N1", 1.0)
    view.reset()
    assert list(session.keys) == []
    view.close()


def test_what_a_view_is_made_of_is_checked(session: Session) -> None:
    model = tiny.model("llama")
    view = Heard(model, tiny.ids(5))
    assert len(view.session.ids) == 5
    view.close()
    with pytest.raises(InputError, match="needs a prompt"):
        Heard(model)
    with pytest.raises(InputError, match="has its prompt already"):
        Heard(session, "another")
    with pytest.raises(ModelError, match="not the text 'smollm2'"):
        Heard("smollm2", "a prompt")


def test_a_front_end_that_is_not_built_is_said(session: Session) -> None:
    class Unbuilt(View, bundle="nonesuch"):
        pass

    with pytest.raises(PatchclampError, match="npm run build"):
        Unbuilt(session)


# --- saved pages ---------------------------------------------------------------------------------


def test_at_rest_the_last_picture_is_in_a_trait(view: Heard, session: Session) -> None:
    view.ask("add", address="L1.N5@-1", value=3.0)
    picture = until(
        lambda: (
            view.snapshot
            if view.snapshot and view.snapshot["hello"]["effects_revision"] == session.revision
            else None
        )
    )
    say.Snapshot.model_validate_json(json.dumps(picture))
    hello = picture["hello"]
    assert hello["result_revision"] == hello["revision"] == session.revision
    assert hello["state"]["rows"][0]["value"] == 3.0
    assert picture["cut"] == []


def test_a_picture_too_large_leaves_out_and_says_so(view: Heard) -> None:
    view._generated["clamped"] = say.GeneratedText(
        side="clamped", text="x" * SNAPSHOT_BYTES, tokens=1, done=True
    )
    picture = view._picture()
    assert picture["cut"] == ["curves", "generated"]
    assert picture["hello"]["result"] is not None
    assert len(json.dumps(picture)) <= SNAPSHOT_BYTES


def test_a_view_that_was_never_shown_is_saved_whole(session: Session, tmp_path: Path) -> None:
    session.interventions = [Clamp("L1.N5@-1", 3.0)]
    view = Heard(session)
    text = view.to_html(tmp_path / "clamp.html")
    assert (tmp_path / "clamp.html").read_text(encoding="utf-8") == text
    found = re.search(r'id="traits">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    traits = json.loads(found[1])
    hello = traits["snapshot"]["hello"]
    assert list(traits) == ["snapshot"]
    assert hello["result"]["top"]
    assert hello["state"]["rows"][0]["observed"] is not None
    view.close()


def test_the_page_controls_nothing_by_saving_traits(view: Heard) -> None:
    before = view.snapshot
    view.set_state({"snapshot": {"x": 1}, "_esm": "alert(1)", "live": False})
    assert view.snapshot == before
    assert view.live is True
    assert view._esm == Heard._esm


# --- life ----------------------------------------------------------------------------------------


def test_a_closed_view_is_off_its_session_and_gone(session: Session) -> None:
    observers = len(session._observers)
    view = Heard(session)
    view.ask("hello")
    view.ask("add", address="L1.N5@-1", value=3.0)
    view.result()
    view.ask("generate", count=50)
    gone = weakref.ref(view)
    view.close()
    heard = len(view.heard)
    session.interventions = [Clamp("L1.N5@-1", 1.0)]
    view.say("hello")
    view.rest()
    assert len(view.heard) == heard
    assert len(session._observers) == observers
    del view
    until(lambda: gc.collect() >= 0 and gone() is None)
    until(lambda: not [t for t in threading.enumerate() if t.name == "patchclamp view"])


def test_a_view_whose_comm_died_closes_itself(session: Session) -> None:
    class Deaf(NeuronClamp):
        _esm, _css = Heard._esm, Heard._css

    view = Deaf(session)
    view._handle_custom_msg({"kind": "hello", "id": 1}, [])
    assert len(session._observers) == 1
    view.comm.handle_close({})
    assert session._observers == []
    again = Deaf(session)
    again._handle_custom_msg({"kind": "hello", "id": 1}, [])
    again.comm._closed = True
    session.interventions = [Clamp("L1.N5@-1", 1.0)]
    until(lambda: session._observers == [])


KERNEL = """
import torch
from tests.unit import tiny
from tests.unit.heard import Gate, Hears, Message, until
from patchclamp.session import Session
from patchclamp.views.neuron_clamp import NeuronClamp
from patchclamp.views.view import View
class Clamp(NeuronClamp):
    _esm, _css = "export default { render() {} };\\n", "\\n"
session = Session(tiny.model("llama"), tiny.ids())
"""
COUNT = """
import gc, threading, ipywidgets
gc.collect()
print([
    len(session._observers),
    sum(isinstance(w, NeuronClamp) for w in ipywidgets.widgets.widget._instances.values()),
    sum(t.name.startswith("patchclamp view") for t in threading.enumerate()),
])
"""


@pytest.mark.slow
def test_running_a_cell_again_in_a_kernel_leaks_no_view(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("PYTHONPATH", f"{root / 'widgets'}:{root}")
    monkeypatch.chdir(root)
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=120)

    def run(code: str, cell: str) -> list[dict[str, Any]]:
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
        }
        request = client.session.msg("execute_request", content, metadata={"cellId": cell})
        client.shell_channel.send(request)
        found = []
        while True:
            message = client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            assert message["msg_type"] != "error", message["content"]["traceback"]
            found.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return found

    def counts() -> list[int]:
        printed = [m["content"]["text"] for m in run(COUNT, "count") if m["msg_type"] == "stream"]
        numbers: list[int] = json.loads("".join(printed))
        return numbers

    try:
        run(KERNEL, "first")
        for _ in range(4):
            opened = [
                m["content"]["comm_id"]
                for m in run("view = Clamp(session); view", "view")
                if m["msg_type"] == "comm_open"
                and m["content"]["data"]["state"].get("_anywidget_id")
            ]
            hello = {"method": "custom", "content": {"kind": "hello", "id": 1}}
            message = client.session.msg("comm_msg", {"comm_id": opened[0], "data": hello})
            client.shell_channel.send(message)
        until(lambda: counts() == [1, 1, 0])
        run("other = Clamp(session)", "another cell")
        assert counts()[:2] == [2, 2]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
