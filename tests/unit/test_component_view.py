"""CircuitAblator's components on tiny random models: ablated, patched, on prompt pairs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import patchclamp
from patchclamp.errors import InputError, ModelError
from patchclamp.interventions import Ablate, Clamp, Patch, Scale
from patchclamp.methods import ablation, activation_patching, interaction
from patchclamp.methods.metric import KL, Custom, LogitDifference, LogProb, Loss
from patchclamp.methods.prompt_sets import NAMES, Pair, PromptSet
from patchclamp.session import Session
from patchclamp.sites import Site
from patchclamp.views.circuit_ablator import CircuitAblator
from tests.unit import letters, tiny
from tests.unit.ablator import (
    METRIC,
    MINE,
    Heard,
    found_in,
    last,
    level,
    new_session,
    opened,
    pressing_stop,
    stack,
)
from tests.unit.heard import Message


@pytest.fixture
def session() -> Session:
    return new_session()


@pytest.fixture
def view(session: Session) -> Iterator[Heard]:
    view = Heard(session)
    view.ask("hello")
    view.result()
    yield view
    view.close()


@pytest.fixture
def stop_midway(view: Heard, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return pressing_stop(view, monkeypatch)


# --- components ----------------------------------------------------------------------------------


def test_the_package_has_it() -> None:
    assert patchclamp.CircuitAblator is CircuitAblator


def test_hello_says_what_is_declared(session: Session) -> None:
    view = Heard(session)
    body = view.ask("hello")["body"]
    assert body["of"] == "ablator"
    circuit = body["circuit"]
    assert (circuit["layers"], circuit["heads"], circuit["kv_heads"]) == (4, 4, 2)
    assert circuit["mlp"] is True
    assert (circuit["metric_kind"], circuit["unit"]) == ("logit_difference", "logits")
    assert (circuit["pairs"], circuit["selection"], circuit["ablated"]) == (None, None, [])
    assert circuit["sets"] == []  # this model reads no text
    assert circuit["refusals"] == dict.fromkeys(circuit["refusals"])
    assert (body["map"], body["graph"], body["checked"], body["patching"]) == (None, None, None, [])
    view.close()


def test_nothing_is_computed_or_sent_before_a_page_says_hello(session: Session) -> None:
    view = Heard(session)
    session.interventions = [Ablate("L1.H1")]
    view.rest()
    assert (view.heard, view._tasks) == ([], {})
    view.close()


def test_the_map_comes_by_itself_estimates_first(view: Heard, session: Session) -> None:
    whole = view.whole_map()
    maps = [m["map"] for m in view.of("map")]
    assert maps[0]["done"] == 0
    assert np.isfinite(maps[0]["estimate"]).all()
    assert np.isnan(maps[0]["exact"]).all()
    assert "whole passes" in maps[0]["note"]
    assert maps[0]["baseline"] == pytest.approx(level(session), abs=1e-5)
    assert (whole["done"], whole["total"], whole["pairs"], whole["how"]) == (20, 20, 1, "mean")
    assert whole["exact"].shape == (4, 5)
    wanted = last(session, ablation.component_estimates, "mean").numpy()
    assert np.array_equal(whole["estimate"], wanted)
    exact = last(session, ablation.component_effects, "mean")
    np.testing.assert_allclose(whole["exact"], exact.values.numpy(), atol=1e-6)
    progress = [(m["done"], m["total"]) for m in view.of("progress") if m["job"] == "map"]
    assert progress[-1] == (20, 20)


def test_an_exact_effect_is_what_the_same_ablation_does_on_the_stack(
    view: Heard, session: Session
) -> None:
    whole = view.whole_map()
    before = level(session)
    for address, row, column in [("L1.H2", 1, 2), ("L2.mlp", 2, 4), ("L3.H0", 3, 0)]:
        view.ask("ablations", addresses=[address])
        assert level(session) - before == pytest.approx(whole["exact"][row, column], abs=1e-4)
        view.ask("undo")
    assert np.abs(whole["exact"]).max() > 1e-2


def test_the_map_is_measured_again_under_another_stack_and_an_undo_brings_it_back(
    view: Heard, session: Session
) -> None:
    first = view.whole_map()
    view.ask("ablations", addresses=["L1.H2"])
    second = view.whole_map()
    assert second["baseline"] == pytest.approx(level(session), abs=1e-5)
    assert second["exact"][1, 2] == pytest.approx(0, abs=1e-5)
    assert not np.allclose(first["exact"], second["exact"], atol=1e-3)
    view.rest()
    runs = len([m for m in view.of("progress") if m["job"] == "map"])
    view.ask("undo")
    again = view.whole_map()
    assert np.array_equal(again["exact"], first["exact"])
    assert again["revision"] == session.revision
    assert len([m for m in view.of("progress") if m["job"] == "map"]) == runs  # nothing was run


def test_a_survey_is_of_the_replacement_that_was_asked_for(view: Heard, session: Session) -> None:
    view.whole_map()
    for how in ("zero", "resample", "corrupt"):
        assert view.ask("survey", how=how)["ok"]
        found = view.whole_map(how)
        exact = last(session, ablation.component_effects, how)
        np.testing.assert_allclose(found["exact"], exact.values.numpy(), atol=1e-6)
    assert view.ask("hello")["body"]["map"]["how"] == "corrupt"


def test_a_survey_is_a_table_the_largest_effect_first(session: Session) -> None:
    view = Heard(session)
    table = view.survey("zero")
    assert list(table) == [
        "address", "layer", "component", "estimate", "exact", "intervened", "baseline",
    ]  # fmt: skip
    assert len(table) == 20
    assert table["exact"].abs().is_monotonic_decreasing
    row = table[table["address"] == "L2.mlp"].iloc[0]
    assert (row["layer"], row["component"]) == (2, "mlp")
    assert row["baseline"] == pytest.approx(level(session), abs=1e-5)
    view.ablate("L2.mlp", how="zero")
    assert row["intervened"] == pytest.approx(level(session), abs=1e-4)
    assert view.heard == []  # no page is there
    view.close()


def test_a_survey_that_is_stopped_keeps_what_it_has(
    view: Heard, session: Session, stop_midway: Callable[[str], None]
) -> None:
    view.whole_map()
    stop_midway("map")
    view.ask("survey", how="zero")
    view.hear(lambda m: m["kind"] == "map" and m["map"]["how"] == "zero")
    view.rest()
    body = view.ask("hello")["body"]["map"]
    assert body["how"] == "zero"
    assert 2 <= body["done"] < 20
    assert np.isfinite(body["exact"]).sum() == body["done"]
    view.rest()  # it does not begin again by itself
    assert view.ask("hello")["body"]["map"]["done"] == body["done"]
    stop_midway("none")
    session.metric = LogProb(7)  # what else changes, changes the map
    assert view.whole_map("zero")["pairs"] == 1


def test_ablating_toggles_and_is_undone_in_one_step(view: Heard, session: Session) -> None:
    assert view.ask("ablations", addresses=["L1.H2", "L2.mlp"], how="zero")["ok"]
    assert stack(session) == [Ablate("L1.H2", "zero"), Ablate("L2.mlp", "zero")]
    state = view.circuit_state()
    assert state["ablated"] == ["L1.H2", "L2.mlp"]
    view.ask("ablations", addresses=["L1.H2"])
    assert stack(session) == [Ablate("L2.mlp", "zero")]
    view.ask("undo")
    view.ask("undo")
    assert stack(session) == []
    view.ask("ablations", addresses=["L0.H1"], how="corrupt")
    assert stack(session) == [Patch("L0.H1")]
    assert view.result()["result"]["moved"].max() > 0


def test_soloing_mutes_the_rest_and_the_same_again_gives_it_back(
    view: Heard, session: Session
) -> None:
    before = (Clamp("L1.N5", 3.0), Ablate("L1.H2"), Ablate("L3.H1", muted=True))
    session.interventions = before
    view.ask("ablations", addresses=["L1.H2"], solo=True)
    assert session.interventions == (
        Clamp("L1.N5", 3.0, muted=True),
        Ablate("L3.H1", muted=True),
        Ablate("L1.H2"),
    )
    view.ask("ablations", addresses=["L1.H2"], solo=True)
    assert session.interventions == before
    view.ask("undo")
    view.ask("undo")
    assert session.interventions == before


@pytest.mark.parametrize("address", ["L2.H1", "L1.mlp"])
def test_drilling_is_answered_with_what_the_method_measures(
    view: Heard, session: Session, address: str
) -> None:
    session.interventions = [Scale("L0.mlp", 0.5)]
    body = view.ask("drill", address=address, how="zero")["body"]
    if address == "L2.H1":
        exact = last(session, ablation.into_head, 2, 1, "zero")
        assert body["parts"] == ["q", "k", "v", "z"]
        assert "L2.H0" in body["note"]  # it shares keys and values
    else:
        exact = last(session, ablation.into_mlp, 1, "zero")
        assert [n["address"] for n in body["neurons"]] == [n.address for n in exact.neurons]
        assert body["neurons"][0]["exact"] == pytest.approx(exact.neurons[0].exact, abs=1e-6)
        assert body["total"] == 48
    assert body["part_effects"] == pytest.approx(list(exact.parts.values()), abs=1e-6)
    np.testing.assert_allclose(body["position_effects"], exact.positions.numpy(), atol=1e-6)
    assert body["positions"] == [str(int(token)) for token in session.ids]
    table = view.drill(address, how="zero")
    assert len(table) == len(exact.parts) + len(exact.neurons) + 8
    assert table["exact"].iloc[0] == pytest.approx(
        exact.neurons[0].exact if exact.neurons else exact.parts["q"], abs=1e-6
    )


@pytest.mark.parametrize("address", ["L2.H1", "L1.mlp"])
def test_a_component_that_is_ablated_is_looked_into_without_its_own_ablation(
    view: Heard, session: Session, address: str
) -> None:
    session.interventions = [Scale("L0.mlp", 0.5)]
    before = view.drill(address, how="zero")
    session.interventions = [Scale("L0.mlp", 0.5), Ablate(address, how="zero")]
    after = view.drill(address, how="zero")
    assert float(before["exact"].abs().max()) > 1e-2
    pd.testing.assert_frame_equal(after, before)


@pytest.mark.parametrize(
    ("direction", "over"), [("denoise", "resid_pre"), ("noise", "head"), ("denoise", "mlp")]
)
def test_patching_fills_in_and_equals_the_method(
    view: Heard, session: Session, direction: Any, over: Any
) -> None:
    view.rest()
    assert view.ask("patching", direction=direction, over=over)["ok"]
    found = view.hear(
        lambda m: m["kind"] == "patched" and m["patching"]["done"] == m["patching"]["total"]
    )["patching"]
    exact = last(session, activation_patching.activation_patching, direction, over)
    assert (found["direction"], found["over"], found["pairs"]) == (direction, over, 1)
    np.testing.assert_allclose(found["values"], exact.values.numpy(), atol=1e-6)
    assert found["clean"] == pytest.approx(level(session), abs=1e-5)
    assert found["columns"][:2] == (
        ["H0", "H1"] if over == "head" else [str(int(token)) for token in session.ids[:2]]
    )
    table = view.patch(direction, over)
    assert len(table) == found["values"].size
    assert table["value"].to_numpy() == pytest.approx(exact.values.numpy().ravel(), abs=1e-6)
    assert table["address"].iloc[1] == ("L0.H1" if over == "head" else f"L0.{over}@1")


def test_patching_goes_stale_with_the_stack_and_holds_again_after_an_undo(
    view: Heard, session: Session
) -> None:
    view.rest()
    view.ask("patching", direction="noise", over="head")
    view.rest()
    kept = view.of("patched")[-1]["patching"]
    view.ask("ablations", addresses=["L1.H2"])
    view.rest()
    since = view.circuit_state()["holds_since"]["patching"]
    assert kept["revision"] < since == session.revision
    assert view.ask("hello")["body"]["patching"][0]["revision"] == kept["revision"]
    view.ask("undo")
    view.rest()
    again = view.of("patched")[-1]["patching"]
    assert again["revision"] >= view.circuit_state()["holds_since"]["patching"] > since
    assert np.array_equal(again["values"], kept["values"])


def test_an_interaction_is_of_the_stack_without_the_two(view: Heard, session: Session) -> None:
    session.interventions = [Ablate("L1.H2"), Scale("L0.mlp", 0.5), Ablate("L2.mlp")]
    body = view.ask("interact", a=["L1.H2"], b=["L2.mlp", "L3.H1"], how="mean")["body"]
    session.interventions = [Scale("L0.mlp", 0.5)]
    a, b = [Site.parse("L1.H2")], [Site.parse("L2.mlp"), Site.parse("L3.H1")]
    exact = last(session, interaction.interaction, a, b, "mean")
    for name in ("effect_a", "effect_b", "both", "interaction", "control"):
        assert body[name] == pytest.approx(getattr(exact, name), abs=1e-6), name
    assert (body["a"], body["b"], body["seeds"]) == (["L1.H2"], ["L2.mlp", "L3.H1"], 5)
    assert body["interaction"] == pytest.approx(
        body["both"] - body["effect_a"] - body["effect_b"], abs=1e-6
    )
    assert view.interaction("L1.H2", ["L2.mlp", "L3.H1"]).both == pytest.approx(exact.both)


def test_a_stack_that_takes_from_a_contrast_of_another_length_is_surveyed() -> None:
    stack = [Patch("L1.H1@3", "contrast", at=2)]
    session = Session(
        tiny.model("llama"), tiny.ids(8), contrast=tiny.ids(5), metric=METRIC, interventions=stack
    )
    view = Heard(session)
    table = view.survey()
    assert table["baseline"].iloc[0] == pytest.approx(level(session), abs=1e-5)
    session.contrast = tiny.ids(6, seed=8)
    again = view.survey()
    assert again["baseline"].iloc[0] == pytest.approx(level(session), abs=1e-5)
    assert again["baseline"].iloc[0] != pytest.approx(table["baseline"].iloc[0], abs=1e-4)
    view.close()


# --- what is measured, and on what ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "metric", "kind", "unit"),
    [
        ({"metric": "kl"}, KL(), "kl", "nats"),
        ({"metric": "loss"}, Loss(), "loss", "nats"),
        ({"metric": "log_prob"}, LogProb(7), "log_prob", "nats"),
        ({"metric": "log_prob", "token": 9}, LogProb(9), "log_prob", "nats"),
        ({"metric": "logit_difference", "against": 3}, LogitDifference(7, 3), None, "logits"),
        ({"metric": "logit_difference", "token": 4}, LogitDifference(4, 12), None, "logits"),
    ],
)
def test_another_objective_keeps_the_tokens_that_are_not_named(
    view: Heard, session: Session, fields: Message, metric: Any, kind: str | None, unit: str
) -> None:
    assert view.ask("objective", **fields)["ok"]
    assert session.metric == metric
    state = view.circuit_state()
    assert (state["metric_kind"], state["unit"]) == (kind or "logit_difference", unit)
    view.ask("undo")
    assert session.metric == METRIC


def test_of_kl_there_is_no_estimate_and_the_map_says_so(view: Heard, session: Session) -> None:
    session.metric = KL()
    found = view.whole_map()
    assert np.isnan(found["estimate"]).all()
    assert "no estimate of a KL divergence" in found["note"]
    assert (found["exact"] >= -1e-6).all()
    assert found["exact"].max() > 1e-3


def test_a_metric_without_a_gradient_has_exact_effects_all_the_same(
    view: Heard, session: Session
) -> None:
    session.metric = Custom(lambda logits: logits[:, -1, 7].detach().clone(), name="flat")
    found = view.whole_map()
    assert np.isnan(found["estimate"]).all()
    assert "no gradient" in found["note"]
    assert np.isfinite(found["exact"]).all()
    assert view.circuit_state()["metric_kind"] == "custom"


def test_a_metric_that_is_no_number_is_said_and_the_last_map_stays(
    view: Heard, session: Session
) -> None:
    good = view.whole_map()
    session.metric = Custom(lambda logits: logits[:, -1, 7] * torch.nan, name="broken")
    status = view.hear(
        lambda m: m["kind"] == "status" and m["error"] is not None and "broken" in m["error"]
    )
    assert "NaN" in status["error"]
    view.rest()
    assert view.ask("hello")["body"]["map"] is None
    view.ask("undo")
    assert np.array_equal(view.whole_map()["exact"], good["exact"])


def test_an_ablation_of_everything_is_said_and_measured(view: Heard, session: Session) -> None:
    everything = [f"L{n}.{part}" for n in range(4) for part in ("H0", "H1", "H2", "H3", "mlp")]
    assert view.ask("ablations", addresses=everything)["ok"]
    found = view.whole_map()
    assert "Every component is ablated" in found["note"]
    assert np.abs(found["exact"]).max() < 1e-5
    assert len(view.circuit_state()["ablated"]) == 20
    view.ask("undo")
    assert stack(session) == []


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        ({"kind": "survey", "how": "gently"}, "how", "'gently'"),
        ({"kind": "ablations", "addresses": []}, "addresses", "at least 1 item"),
        ({"kind": "ablations", "addresses": ["L9.H0"]}, "addresses", "layer 9 does not exist"),
        ({"kind": "ablations", "addresses": ["L1.H0->L2.mlp"]}, "addresses", "can be ablated"),
        ({"kind": "drill", "address": "L1.N3"}, "address", "can be looked into"),
        ({"kind": "drill", "address": "L1.H7"}, "address", "head 7 does not exist"),
        ({"kind": "drill", "address": "{L1.H1, L1.H2}"}, "address", "can be looked into"),
        ({"kind": "patching", "over": "tokens"}, "over", "'tokens'"),
        ({"kind": "interact", "a": ["L1.H1"], "b": ["L1.H1"]}, "b", "both have L1.H1"),
        ({"kind": "interact", "a": ["L1.H9"], "b": ["L1.H1"]}, "a", "head 9 does not exist"),
        ({"kind": "interact", "a": ["L1.H1"], "b": ["nothing"]}, "b", "nothing"),
        ({"kind": "objective", "metric": "log_prob", "token": 61}, "token", "61"),
        ({"kind": "objective", "metric": "logit_difference", "against": 99}, "against", "99"),
        ({"kind": "pairs", "name": "cats"}, "name", "cats"),
        ({"kind": "rank", "by": "direct"}, "kind", "no gesture of the kind 'rank'"),
    ],
)
def test_bad_input_is_answered_with_a_sentence_and_changes_nothing(
    view: Heard, session: Session, message: Message, field: str | None, words: str
) -> None:
    revision = session.revision
    view._handle_custom_msg({**message, "id": 9_999}, [])
    reply = view.reply(9_999)
    assert reply["ok"] is False
    assert words in reply["error"]
    assert reply["field"] == field
    assert (session.interventions, session.revision) == ((), revision)
    assert view.ask("ablations", addresses=["L1.H1"])["ok"]


CORRUPT: list[tuple[Message, str]] = [
    ({"kind": "survey", "how": "corrupt"}, "how"),
    ({"kind": "ablations", "addresses": ["L1.H1"], "how": "corrupt"}, "how"),
    ({"kind": "drill", "address": "L1.H1", "how": "corrupt"}, "how"),
    ({"kind": "interact", "a": ["L1.H1"], "b": ["L1.H2"], "how": "corrupt"}, "how"),
    ({"kind": "patching"}, "direction"),
]


@pytest.mark.parametrize(("message", "field"), CORRUPT)
@pytest.mark.parametrize("contrast", [None, 5])
def test_without_a_corrupt_prompt_of_the_same_length_it_is_said_why(
    session: Session, message: Message, field: str, contrast: int | None
) -> None:
    session.contrast = None if contrast is None else tiny.ids(contrast)
    view = opened(session)
    why = view.circuit_state()["refusals"]["corrupt"]
    assert ("length" if contrast else "corrupt prompt") in why
    view._handle_custom_msg({**message, "id": 9_999}, [])
    reply = view.reply(9_999)
    assert reply["ok"] is False
    assert reply["field"] == field
    assert stack(session) == []
    if message["kind"] != "ablations":
        assert reply["error"] == why
    view.whole_map()  # to the mean there is one
    view.close()


def test_an_encoder_has_no_metric_and_every_gesture_says_so() -> None:
    view = opened(tiny.model("bert"), tiny.ids(7))
    assert "encoder" in view.circuit_state()["refusals"]["prediction"]
    messages: list[Message] = [
        {"kind": "survey"},
        {"kind": "drill", "address": "L1.H1"},
        {"kind": "patching"},
        {"kind": "interact", "a": ["L1.H1"], "b": ["L1.H2"]},
        {"kind": "objective", "metric": "kl"},
        {"kind": "pairs", "name": "capitals"},
    ]
    for message in messages:
        reply = view.ask(**message)
        assert reply["ok"] is False, message
        assert "encoder" in reply["error"]
    with pytest.raises(ModelError, match="encoder"):
        view.survey()
    view.rest()
    assert view.of("map") == []
    assert view.ask("ablations", addresses=["L1.H1"])["ok"]
    assert view.result()["result"]["moved"].max() > 0
    view.close()


def test_stop_in_the_page_ends_a_survey_that_a_cell_waits_for(
    view: Heard, session: Session, stop_midway: Callable[[str], None]
) -> None:
    view.whole_map()
    stop_midway("map")
    table = view.survey("zero")
    assert table["estimate"].notna().all()
    assert 0 < table["exact"].isna().sum() < 20
    stop_midway("patching")
    values = view.patch("noise", "head")["value"]
    assert 0 < values.isna().sum() < len(values)


def test_a_replacement_that_is_no_longer_there_leaves_the_map_as_it_is(
    view: Heard, session: Session
) -> None:
    view.ask("survey", how="corrupt")
    view.whole_map("corrupt")
    session.contrast = None
    view.rest()
    assert [m for m in view.of("status") if m["error"]] == []
    assert view.ask("hello")["body"]["map"] is None
    assert "<html" in view.to_html()
    view.ask("undo")
    assert view.whole_map("corrupt")["done"] == 20


def test_components_of_an_encoder_are_refused_to_python_too() -> None:
    view = Heard(tiny.model("bert"), tiny.ids(7))
    for does in (
        lambda: view.drill("L1.H1"),
        view.patch,
        lambda: view.interaction("L1.H1", "L1.H2"),
        view.find,
    ):
        with pytest.raises(ModelError, match="encoder"):
            does()
    with pytest.raises(InputError, match="no replacement 'gently'"):
        Heard(tiny.model("llama"), tiny.ids(6)).survey("gently")  # type: ignore[arg-type]
    view.close()


# --- prompt pairs --------------------------------------------------------------------------------


@pytest.fixture
def paired() -> Iterator[Heard]:
    view = Heard(letters.model(), pairs=MINE)
    view.ask("hello")
    view.result()
    yield view
    view.close()


def test_everything_is_averaged_over_the_pairs(paired: Heard) -> None:
    session = paired.session
    state = paired.circuit_state()["pairs"]
    assert (state["name"], state["about"], state["seed"]) == ("mine", "letters", 3)
    assert (state["count"], state["shown"], state["note"]) == (3, 0, "one was left out")
    assert state["pairs"][1]["corrupt"] == "g x h d"
    found = paired.whole_map()
    assert found["pairs"] == 3
    each = []
    for pair in MINE.pairs:
        metric = LogitDifference(pair.answer, pair.wrong)
        alone = Session(session.model, pair.clean, metric=metric, reference=["a b", "c d e"])
        before = difference(alone)
        alone.interventions = [Ablate("L1.H2", "zero")]
        each.append((before, difference(alone)))
    assert found["baseline"] == pytest.approx(float(np.mean([m[0] for m in each])), abs=1e-5)
    assert paired.ask("survey", how="zero")["ok"]
    zero = paired.whole_map("zero")
    effect = float(np.mean([m[1] - m[0] for m in each]))
    assert zero["exact"][1, 2] == pytest.approx(effect, abs=1e-4)


def difference(session: Session) -> float:
    logits = session.current.rows([-1])[0]
    answer, wrong = session.metric_tokens()
    return float(logits[answer] - logits[wrong])


def test_another_pair_is_shown_and_nothing_is_measured_again(paired: Heard) -> None:
    paired.whole_map()
    paired.ask("patching", direction="noise", over="attn")
    paired.rest()
    graph = found_in(paired, method="eap")
    progress = len(paired.of("progress"))
    assert paired.ask("pair", index=2)["ok"]
    paired.result()
    paired.rest()
    assert paired.session.text == "k b l m"
    assert paired.circuit_state()["pairs"]["shown"] == 2
    assert {m["job"] for m in paired.of("progress")[progress:]} <= {"reference", "control"}
    body = paired.ask("hello")["body"]
    since = body["circuit"]["holds_since"]
    assert body["map"]["revision"] >= since["map"]
    assert body["graph"]["revision"] >= since["graph"]
    assert body["graph"]["clean"] == graph["clean"]
    assert body["patching"][0]["revision"] >= since["patching"]
    assert body["patching"][0]["columns"][-1] == " m"
    top = paired.ask("edge", address="L0.H0->logits")["body"]["top"]
    before = paired.session.baseline.log_probs().exp()
    assert top[0]["before"] == pytest.approx(float(before[top[0]["id"]]), abs=1e-5)


def test_pairs_are_chosen_left_and_undone(paired: Heard) -> None:
    assert paired.ask("pairs", name=None)["ok"]
    assert paired.circuit_state()["pairs"] is None
    assert paired.whole_map()["pairs"] == 1
    paired.ask("undo")
    assert paired.pairs is MINE
    assert paired.whole_map()["pairs"] == 3
    assert {each["name"] for each in paired.circuit_state()["sets"]} == set(NAMES)
    refused = paired.ask("pairs", name="capitals")  # letters are no words
    assert (refused["ok"], refused["field"]) == (False, "name")
    refused = paired.ask("pair", index=3)
    assert (refused["ok"], refused["field"]) == (False, "index")
    assert "no pair 3" in refused["error"]
    with pytest.raises(InputError, match="no pair 9"):
        paired.show_pair(9)


def test_an_objective_takes_its_tokens_from_the_pair(paired: Heard) -> None:
    wanted = {
        "kl": KL(),
        "logit_difference": LogitDifference(" e", " f"),
        "log_prob": LogProb(" e"),
    }
    for kind, metric in wanted.items():
        paired.ask("objective", metric=kind)
        assert paired.metric == metric
    assert paired.pairs is MINE


def test_a_logit_difference_needs_a_second_token() -> None:
    view = opened(tiny.model("llama"), tiny.ids(6))
    reply = view.ask("objective", metric="logit_difference", token=5)
    assert (reply["ok"], reply["field"]) == (False, "against")
    assert "between two tokens" in reply["error"]
    view.close()


def test_a_view_measures_what_it_is_told(session: Session) -> None:
    view = Heard(session, metric=KL())
    assert session.metric == view.metric == KL()
    view.metric = Loss()
    assert view.session.metric.kind == "loss"
    view.close()
    own = Heard(letters.model(), pairs=MINE, metric=LogProb(" e"))
    assert (own.session.pairs, own.metric, own.prompt) == (MINE, LogProb(" e"), "a b c d")
    own.pairs = None
    other = Heard(own.session, pairs=MINE)
    assert other.pairs is MINE
    own.close()
    other.close()
    with pytest.raises(ModelError, match="takes a session or a model"):
        Heard("smollm2", pairs="capitals")
    with pytest.raises(InputError, match="none of the pairs"):
        Heard(letters.model(), "z z z", pairs=MINE)
    with pytest.raises(InputError, match="'cats'"):
        Heard(letters.model(), pairs="cats")


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (Pair("a b c", "a b c d", " e", " f"), "same length"),
        (Pair("a b c d", "a x c d", " eee", " f"), "must be one token"),
        (Pair("a b c d", "a x c d", " e", "é é"), "must be one token"),
    ],
)
def test_pairs_that_cannot_be_measured_are_refused_and_nothing_is_lost(
    paired: Heard, pair: Pair, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        paired.pairs = PromptSet("bad", "", 0, (MINE.pairs[0], pair))
    assert paired.pairs is MINE
    assert paired.whole_map()["pairs"] == 3
