"""CircuitAblator on tiny random models: what a page sends, and what comes back to it."""

import gc
import json
import re
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import patchclamp
from patchclamp.engine.edges import Graph
from patchclamp.errors import InputError, MetricError, ModelError
from patchclamp.interventions import Ablate, Clamp, Cut, Intervention, Patch, Scale
from patchclamp.methods import ablation, activation_patching, interaction
from patchclamp.methods.circuit import Circuit, CircuitEdge, Selection
from patchclamp.methods.edge_attribution import eap_ig
from patchclamp.methods.edge_effect import disagreement
from patchclamp.methods.metric import KL, Custom, LogitDifference, LogProb, Loss
from patchclamp.methods.path_patching import edge_runs, with_cut
from patchclamp.methods.prompt_sets import NAMES, Pair, PromptSet
from patchclamp.session import Session
from patchclamp.sites import Site
from patchclamp.views import messages as say
from patchclamp.views.circuit_ablator import CircuitAblator
from patchclamp.views.messages import circuit_ablator, shared
from patchclamp.views.view import SNAPSHOT_BYTES
from tests.unit import letters, tiny
from tests.unit.heard import Hears, Message, until

Array = np.ndarray[Any, Any]
METRIC = LogitDifference(7, 12)


class Heard(Hears, CircuitAblator):
    """The real view, heard."""

    def rest(self) -> None:
        """Wait until nothing is computed or waits to be sent."""
        quiet = 0
        while quiet < 10:  # what one job starts is not there the moment it ends
            until(lambda: not self._tasks and not self._outbox._waiting)
            time.sleep(0.01)
            quiet = 0 if self._tasks or self._outbox._waiting else quiet + 1

    def circuit_state(self) -> Message:
        """What is declared, of the session as it is."""
        found: Message = self.ask("hello")["body"]["circuit"]
        return found

    def whole_map(self, how: str = "mean") -> Message:
        """The map of the session as it is, once it is whole."""
        since = self.circuit_state()["holds_since"]["map"]
        found = self.hear(
            lambda m: (
                m["kind"] == "map"
                and m["map"]["revision"] >= since
                and m["map"]["how"] == how
                and m["map"]["done"] == m["map"]["total"]
            )
        )
        whole: Message = found["map"]
        return whole


class Gate:
    """While open as a context, the model's worker does nothing else."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._free, self._held = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        def job(_stop: Callable[[], bool]) -> None:
            self._held.set()
            self._free.wait(60)

        self._task = self._session.submit(job)
        assert self._held.wait(60)

    def __exit__(self, *_error: object) -> None:
        self._free.set()
        self._task.result()


@pytest.fixture
def stop_midway(view: "Heard", monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Press Stop as soon as the job named has begun; all come in many pieces."""
    monkeypatch.setattr("patchclamp.engine.batch.ROWS", 8)
    monkeypatch.setattr("patchclamp.engine.batch._READ", 1)
    monkeypatch.setattr("patchclamp.engine.edges.ROWS", 8)

    jobs: list[str] = []
    say_progress = view._say_progress

    def pressing(job: say.Job, done: int, total: int) -> None:
        say_progress(job, done, total)
        if job in jobs and 2 <= done < total:
            view.say("stop")

    def midway(job: str) -> None:
        jobs[:] = [job]

    monkeypatch.setattr(view, "_say_progress", pressing)
    return midway


@pytest.fixture
def session() -> Session:
    return Session(tiny.model("llama"), tiny.ids(8), contrast=tiny.ids(8, seed=5), metric=METRIC)


@pytest.fixture
def view(session: Session) -> Iterator[Heard]:
    view = Heard(session)
    view.ask("hello")
    view.result()
    yield view
    view.close()


def opened(*args: Any, **options: Any) -> Heard:
    view = Heard(*args, **options)
    view.ask("hello")
    view.result()
    return view


def last(session: Session, method: Callable[..., Any], *args: Any) -> Any:
    """What a method gives in the end, of the session's task, on the model's worker."""

    def job(_stop: Callable[[], bool]) -> Any:
        found = method(session.task, *args)
        return list(found)[-1] if isinstance(found, Generator) else found

    return session.submit(job).result()


def last_of(session: Session, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """All that a method yields, of the session's task without its stack."""
    return session.submit(
        lambda _stop: list(method(session.task.without_stack(), *args, **options))
    ).result()


def stack(session: Session) -> list[Intervention]:
    return list(session.interventions)


def level(session: Session) -> float:
    """The metric of the session as it is, by the session's own run."""
    logits = session.current.rows([-1])[0]
    return float(logits[7] - logits[12])


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
    time.sleep(0.6)
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
    time.sleep(0.5)  # it does not begin again by itself
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


# --- circuits ------------------------------------------------------------------------------------

N_EDGES = Graph.of(tiny.model("llama").anatomy).n_edges


def found_in(view: Heard, **fields: Any) -> Message:
    """The graph of a search, once its strongest edges are exact, and its circuit is checked."""
    assert view.ask("find", **fields)["ok"]
    view.hear(lambda m: m["kind"] == "graph" and "measured exactly" in m["graph"]["note"])
    view.rest()
    graph: Message = view.of("graph")[-1]["graph"]
    return graph


def by_hand(session: Session, cut: torch.Tensor, how: str = "corrupt") -> float:
    """The metric with some edges cut, by path patching."""

    def job(_stop: Callable[[], bool]) -> float:
        task = session.task.without_stack()
        return with_cut(task, edge_runs(task, how), cut)  # type: ignore[arg-type]

    found: float = session.submit(job).result()
    return found


def mask_of(view: Heard) -> torch.Tensor:
    selection = view.session.circuit
    assert isinstance(selection, Selection)
    assert view.scores is not None
    return selection.mask(view.scores)


def test_finding_scores_all_edges_and_measures_the_strongest(view: Heard, session: Session) -> None:
    view.rest()
    graph = found_in(view, steps=3)
    *_, (_, scores) = last_of(session, eap_ig, "corrupt", steps=3)
    assert graph["total"] == N_EDGES
    assert (graph["method"], graph["of"], graph["how"]) == ("eap-ig", "edges", "corrupt")
    assert (graph["clean"], graph["corrupt"]) == pytest.approx((scores.clean, scores.corrupt))
    assert len(graph["estimate"]) == min(400, N_EDGES)
    assert (np.diff(np.abs(graph["estimate"])) <= 0).all()
    for i in (0, 7, -1):
        address = f"{graph['nodes'][graph['source'][i]]}->{graph['nodes'][graph['reader'][i]]}"
        place = scores.graph.cut([address]).nonzero()[0].tolist()
        assert graph["estimate"][i] == pytest.approx(float(scores.values[tuple(place)]), abs=1e-6)
    assert np.isfinite(graph["exact"][:60]).all()
    assert np.isnan(graph["exact"][60:]).all()
    cut = scores.graph.cut(
        [f"{graph['nodes'][graph['source'][0]]}->{graph['nodes'][graph['reader'][0]]}"]
    )
    assert graph["exact"][0] == pytest.approx(by_hand(session, cut) - graph["clean"], abs=1e-5)
    wrong = re.search(
        r"Of 60 estimates .* (\d+) have the other sign and (\d+) are off", graph["note"]
    )
    assert wrong is not None
    pairs = zip(graph["estimate"][:60].tolist(), graph["exact"][:60].tolist(), strict=True)
    told = [disagreement(*pair) for pair in pairs]
    assert [int(n) for n in wrong.groups()] == [told.count("sign"), told.count("half")]
    assert (graph["sizes"][0], graph["sizes"][-1]) == (1, N_EDGES)
    assert graph["thresholds"][0] == pytest.approx(abs(graph["estimate"][0]))
    assert "does not act" not in graph["note"]
    progress = [m for m in view.of("progress") if m["job"] == "find"]
    assert (progress[0]["total"], progress[-1]["done"]) == (3, 60)


def test_the_first_circuit_is_a_tenth_of_the_edges_and_is_checked(
    view: Heard, session: Session
) -> None:
    graph = found_in(view)
    tenth = round(N_EDGES / 10)
    assert "strongest 10 % of the edges" in graph["note"]
    state = view.circuit_state()
    assert (state["selection"]["size"], state["selection"]["edges"]) == (tenth, tenth)
    checked = view.of("checked")[-1]["checked"]
    assert checked["revision"] >= state["holds_since"]["checked"]
    assert checked["edges"] == tenth
    mask = mask_of(view)
    assert checked["circuit"] == pytest.approx(by_hand(session, ~mask), abs=1e-5)
    assert checked["without"] == pytest.approx(by_hand(session, mask), abs=1e-5)
    share = (checked["circuit"] - graph["corrupt"]) / (graph["clean"] - graph["corrupt"])
    assert checked["faithfulness"] == pytest.approx(share, abs=1e-5)
    first = next(m["checked"] for m in view.of("checked") if m["checked"]["edges"] == tenth)
    assert first["without"] is None  # the circuit alone is told at once
    assert view.ask("hello")["body"]["checked"] == checked


def test_the_size_is_dragged_in_one_step_of_undo_and_checked(view: Heard, session: Session) -> None:
    found_in(view)
    for count in (40, 39, 38):
        view.ask("size", count=count, final=count == 38)
    checked = view.hear(
        lambda m: m["kind"] == "checked" and m["checked"]["edges"] == 38 and m["checked"]["without"]
    )["checked"]
    assert checked["circuit"] == pytest.approx(by_hand(session, ~mask_of(view)), abs=1e-5)
    assert view.size == 38
    view.size = 12
    view.undo()
    view.undo()
    assert view.size == round(N_EDGES / 10)
    view.rest()
    again = view.of("checked")[-1]["checked"]
    assert again["edges"] == view.size
    assert again["revision"] == session.revision
    view.undo()  # what was found
    assert session.circuit is None
    assert view.circuit_state()["selection"] is None
    view.ask("size", count=5)
    assert isinstance(session.circuit, Selection)


def test_the_newest_size_wins(view: Heard, session: Session) -> None:
    found_in(view)
    checks = len(view.of("checked"))
    with Gate(session):
        for count in range(100, 60, -1):
            view.ask("size", count=count, final=False)
    view.rest()
    assert view.of("checked")[-1]["checked"]["edges"] == 61
    assert len(view.of("checked")) - checks <= 4


def test_switching_an_edge_or_a_node_is_checked_exactly_and_undone(
    view: Heard, session: Session
) -> None:
    graph = found_in(view)
    address = f"{graph['nodes'][graph['source'][2]]}->{graph['nodes'][graph['reader'][2]]}"
    before = view.of("checked")[-1]["checked"]
    view.ask("switch", addresses=[address])
    view.rest()
    after = view.of("checked")[-1]["checked"]
    assert after["edges"] == before["edges"] - 1
    mask = mask_of(view)
    assert after["circuit"] == pytest.approx(by_hand(session, ~mask), abs=1e-5)
    assert after["circuit"] != pytest.approx(before["circuit"], abs=1e-4)
    assert view.circuit_state()["selection"]["removed"] == [address]
    runs = len(view.of("checked"))
    view.ask("undo")
    view.rest()
    again = view.of("checked")[-1]["checked"]
    assert {**again, "revision": 0} == {**before, "revision": 0}
    assert len(view.of("checked")) == runs + 1  # known already: told in one piece
    view.ask("switch", addresses=["L1.mlp"])
    view.rest()
    gone = view.scores.graph.cut(["L1.mlp"])  # type: ignore[union-attr]
    assert not (mask_of(view) & gone).any()
    view.switch("L1.mlp")
    assert view.circuit_state()["selection"]["removed"] == []
    weakest = view.scores.graph.edge(*view.scores.ranked()[-1])  # type: ignore[union-attr]
    view.switch(weakest)
    assert view.circuit_state()["selection"]["added"] == [weakest]


def test_nodes_are_pinned_named_and_grouped(view: Heard, session: Session) -> None:
    found_in(view)
    checks = len(view.of("checked"))
    view.ask("annotate", addresses=["L1.H2", "L3.mlp"], pinned=True, group="copies")
    view.ask("annotate", addresses=["L1.H2"], name="previous token")
    notes = view.circuit_state()["selection"]["notes"]
    assert notes == [
        {"address": "L1.H2", "pinned": True, "name": "previous token", "group": "copies"},
        {"address": "L3.mlp", "pinned": True, "name": "", "group": "copies"},
    ]
    view.rest()
    assert len(view.of("checked")) == checks  # the circuit is the same
    checked = view.ask("hello")["body"]["checked"]
    assert checked["revision"] >= view.circuit_state()["holds_since"]["checked"]
    view.annotate("L3.mlp", pinned=False, group="")
    assert len(view.circuit_state()["selection"]["notes"]) == 1
    found_in(view)  # of what is found next they are said too
    assert len(view.circuit_state()["selection"]["notes"]) == 1


def test_an_edge_is_answered_exactly(view: Heard, session: Session) -> None:
    graph = found_in(view)
    address = "L1.H1->L3.H2:q"
    body = view.ask("edge", address=address)["body"]
    cut = Graph.of(session.model.anatomy).cut([address])
    after = by_hand(session, cut)
    assert body["before"] == pytest.approx(graph["clean"], abs=1e-5)
    assert body["after"] == pytest.approx(after, abs=1e-5)
    assert body["exact"] == pytest.approx(after - graph["clean"], abs=1e-5)
    place = tuple(cut.nonzero()[0].tolist())
    assert view.scores is not None
    assert body["estimate"] == pytest.approx(float(view.scores.values[place]))
    assert body["disagree"] == disagreement(body["estimate"], body["exact"])
    session.interventions = [Cut(address, "contrast")]
    exact = session.current.log_probs().exp()
    for share in body["top"]:
        assert share["after"] == pytest.approx(float(exact[share["id"]]), abs=1e-5)
    assert view.edge(address).exact == pytest.approx(body["exact"], abs=1e-6)


def test_an_edge_can_be_asked_for_before_anything_was_found(view: Heard, session: Session) -> None:
    session.contrast = None
    body = view.ask("edge", address="L0.H0->L1.H1:k")["body"]
    cut = Graph.of(session.model.anatomy).cut(["L0.H0->L1.H1:k"])
    assert body["after"] == pytest.approx(by_hand(session, cut, "mean"), abs=1e-5)
    assert (body["estimate"], body["disagree"]) == (None, None)


def test_the_curve_of_faithfulness_fills_in_beside_random_circuits(
    view: Heard, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = lambda total: [1, 40, total]  # noqa: E731
    monkeypatch.setattr("patchclamp.views.circuit_ablator.sizes_of", few)
    graph = found_in(view, method="eap")
    assert view.ask("check")["ok"]
    curve = view.hear(
        lambda m: m["kind"] == "faithful" and m["faithful"]["done"] == m["faithful"]["total"] > 0
    )["faithful"]
    assert curve["seeds"] == 5
    assert (curve["sizes"][0], curve["sizes"][-1]) == (1, N_EDGES)
    assert curve["faithfulness"][-1] == pytest.approx(1, abs=1e-4)
    assert curve["completeness"][-1] == pytest.approx(0, abs=1e-4)
    assert (curve["random_low"] <= curve["random_median"]).all()
    assert (curve["random_median"] <= curve["random_high"]).all()
    assert view.scores is not None
    size = int(curve["sizes"][1])
    alone = by_hand(session, ~view.scores.top(size))
    share = (alone - graph["corrupt"]) / (graph["clean"] - graph["corrupt"])
    assert curve["faithfulness"][1] == pytest.approx(share, abs=1e-4)
    table = view.faithfulness()
    assert table["faithfulness"].to_numpy() == pytest.approx(curve["faithfulness"], abs=1e-5)
    assert list(table)[-3:] == ["random_low", "random_median", "random_high"]
    found_in(view, method="eap")  # the curve was of another graph
    assert view.of("faithful")[-1]["faithful"]["total"] == 0
    assert view.ask("hello")["body"]["faithful"] is None


def test_acdc_shows_the_circuit_that_it_chose(view: Heard) -> None:
    graph = found_in(view, method="acdc", threshold=0.2, runs=40)
    assert "Cut where the metric changes by less than 0.2" in graph["note"]
    assert view.scores is not None
    assert view.scores.chosen is not None
    assert torch.equal(mask_of(view), view.scores.chosen)
    assert view.circuit_state()["selection"]["edges"] == int(view.scores.chosen.sum())


def test_a_circuit_of_nodes_has_all_edges_between_them(view: Heard) -> None:
    graph = found_in(view, method="attribution")
    assert (graph["method"], graph["of"]) == ("attribution", "nodes")
    selection = view.circuit_state()["selection"]
    assert selection["size"] == round(21 / 10)
    assert selection["edges"] == int(mask_of(view).sum()) > selection["size"]
    assert "strongest 10 % of the nodes" in graph["note"]


def test_a_search_that_is_stopped_keeps_what_it_has(
    view: Heard, session: Session, stop_midway: Callable[[str], None]
) -> None:
    view.rest()
    stop_midway("find")
    view.ask("find", steps=100)
    graph = view.hear(lambda m: m["kind"] == "graph")["graph"]
    assert "stopped before it was finished" in graph["note"]
    assert np.isfinite(graph["estimate"]).all()
    assert isinstance(session.circuit, Selection)
    view.rest()
    assert len(view.find("eap-ig", steps=100)) == N_EDGES
    assert "stopped before it was finished" in view.of("graph")[-1]["graph"]["note"]


def test_the_curve_of_faithfulness_is_stopped_and_keeps_its_points(
    view: Heard, stop_midway: Callable[[str], None]
) -> None:
    found_in(view, method="eap")
    stop_midway("faithful")
    table = view.faithfulness()
    known = int(table["faithfulness"].notna().sum())
    assert 2 <= known < len(table)
    kept = view.ask("hello")["body"]["faithful"]
    assert 2 <= kept["done"] < kept["total"]


def test_another_prompt_ends_a_search_and_a_newer_one_wins(view: Heard, session: Session) -> None:
    view.rest()
    view.ask("find", steps=100)
    view.hear(lambda m: m["kind"] == "progress" and m["job"] == "find")
    view.ask("find", method="eap")
    view.hear(lambda m: m["kind"] == "graph")
    view.rest()
    assert {m["graph"]["method"] for m in view.of("graph")} == {"eap"}
    view.heard.clear()
    view.ask("find", steps=100)
    view.hear(lambda m: m["kind"] == "progress" and m["job"] == "find")
    session.input = tiny.ids(8, seed=9)
    view.rest()
    assert {m["graph"]["method"] for m in view.of("graph")} <= {"eap"}


def test_the_stack_does_not_act_in_a_circuit_and_the_note_says_so(
    view: Heard, session: Session
) -> None:
    graph = found_in(view, method="eap")
    session.interventions = [Ablate("L1.H2")]
    view.rest()
    since = view.circuit_state()["holds_since"]
    assert since["graph"] <= graph["revision"]  # it holds still
    under = found_in(view, method="eap")
    assert "the stack does not act in it" in under["note"]
    np.testing.assert_allclose(under["estimate"], graph["estimate"], atol=1e-6)


def test_of_other_prompts_the_graph_is_stale_and_the_circuit_is_checked_anew(
    view: Heard, session: Session
) -> None:
    graph = found_in(view, method="eap")
    session.contrast = tiny.ids(8, seed=11)
    view.rest()
    state = view.circuit_state()
    assert graph["revision"] < state["holds_since"]["graph"]
    since = state["holds_since"]["checked"]
    checked = view.hear(  # once the prompts have settled
        lambda m: m["kind"] == "checked" and m["checked"]["revision"] >= since
    )["checked"]
    assert checked["circuit"] == pytest.approx(by_hand(session, ~mask_of(view)), abs=1e-5)
    view.ask("undo")
    view.rest()
    again = view.of("graph")[-1]["graph"]
    assert again["revision"] >= view.circuit_state()["holds_since"]["graph"]
    assert np.array_equal(again["estimate"], graph["estimate"])


def test_finding_is_a_method_too(session: Session, tmp_path: Path) -> None:
    view = Heard(session)
    table = view.find("eap", how="zero")
    assert list(table) == ["address", "source", "reader", "estimate", "exact", "disagree"]
    assert table["exact"].notna().sum() == 60
    assert view.size == round(N_EDGES / 10)
    view.size = 30
    checked = view.check()
    assert checked.edges == 30
    circuit = view.circuit
    assert circuit is not None
    assert len(circuit.edges) == 30
    assert circuit.faithfulness == pytest.approx(checked.faithfulness)
    assert [edge.address for edge in circuit.edges][:5] == table["address"].tolist()[:5]
    drawn = view.to_networkx()
    assert drawn.number_of_edges() == 30
    view.annotate("L1.H2", name="mine")
    view.save_circuit(tmp_path / "circuit.json")
    other = Heard(Session(session.model, session.ids, contrast=session.contrast, metric=METRIC))
    other.load_circuit(tmp_path / "circuit.json")
    assert other.size == 30
    assert other.check().circuit == pytest.approx(checked.circuit, abs=1e-5)
    again = other.circuit
    assert again is not None
    assert again.edges == circuit.edges
    assert again.notes[0].name == "mine"
    assert "loaded" in other.ask("hello")["body"]["graph"]["note"]
    assert view.heard == []
    view.close()
    other.close()


def test_a_circuit_goes_out_and_comes_in_through_the_page(view: Heard, session: Session) -> None:
    found_in(view, method="eap")
    view.ask("size", count=25)
    view.rest()
    file = view.ask("export")["body"]
    assert file["name"] == "circuit-llama.json"
    kept = view.of("checked")[-1]["checked"]
    view.ask("size", count=200)
    assert view.ask("import", text=file["text"])["ok"]
    view.rest()
    assert view.size == 25
    checked = view.of("checked")[-1]["checked"]
    assert checked["circuit"] == pytest.approx(kept["circuit"], abs=1e-5)
    view.ask("undo")
    assert view.size == 200


def test_a_circuit_as_code_finds_it_again() -> None:
    model = letters.model()
    session = Session(
        model, "the cat sat", contrast="the dog sat", metric=LogitDifference("a", "o")
    )
    view = Heard(session)
    view.find("eap-ig", steps=2)
    view.size = 20
    edges = [edge.address for edge in view.circuit.edges]  # type: ignore[union-attr]
    view.switch(edges[3])
    view.annotate(edges[0].split("->")[0], name="first")
    code = view.circuit_code()
    there = {"pc": patchclamp, "model": model}
    lines = code.replace(f"model = ...  # {model.name}, as you made it\n", "")
    lines = lines.replace("pc.CircuitAblator", "Heard").replace("print(", "found = (")
    out: dict[str, Any] = {}
    exec(compile(lines, "circuit", "exec"), there | {"Heard": Heard}, out)  # noqa: S102
    assert out["found"].circuit == pytest.approx(view.check().circuit, abs=1e-5)
    assert [e.address for e in out["ablator"].circuit.edges] == [
        e.address
        for e in view.circuit.edges  # type: ignore[union-attr]
    ]
    out["ablator"].close()
    view.close()


FOREIGN = {
    "no JSON": ("{", "no circuit"),
    "something else": ('{"a": 1}', "no circuit"),
    "a list": ("[1, 2]", "no circuit"),
    "another version": ({"format": 99}, "version"),
    "another model": ({"model": "gpt-5"}, "gpt-5"),
    "an edge that is not there": (
        {"edges": [{"address": "L0.H0->L9.H1:q", "estimate": 1.0, "exact": None}]},
        "layer 9 does not exist",
    ),
}


@pytest.mark.parametrize(("change", "words"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_that_holds_no_circuit_of_this_model_is_refused(
    view: Heard, session: Session, change: Any, words: str
) -> None:
    found_in(view, method="eap")
    revision, size = session.revision, view.size
    text = change
    if not isinstance(change, str):
        text = json.dumps(json.loads(view.ask("export")["body"]["text"]) | change)
    reply = view.ask("import", text=text)
    assert reply["ok"] is False
    assert words in reply["error"]
    assert reply["field"] == "text"
    assert (session.revision, view.size) == (revision, size)


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        ({"kind": "size", "count": 5}, "count", "No circuit has been looked for"),
        ({"kind": "switch", "addresses": ["L1.H1"]}, "addresses", "No circuit has been"),
        ({"kind": "annotate", "addresses": ["L1.H1"]}, "addresses", "No circuit has been"),
        ({"kind": "check"}, None, "No circuit has been looked for"),
        ({"kind": "export"}, "format", "No circuit has been looked for"),
        ({"kind": "edge", "address": "L1.H1"}, "address", "is no edge"),
        ({"kind": "edge", "address": "L3.H1->L1.H1:q"}, "address", "L3.H1->L1.H1:q"),
        ({"kind": "find", "method": "guess"}, "method", "'guess'"),
        ({"kind": "find", "steps": 0}, "steps", "greater than or equal to 1"),
        ({"kind": "find", "threshold": -1.0}, "threshold", "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_done_to_a_circuit_is_said_where_it_was_asked(
    view: Heard, session: Session, message: Message, field: str | None, words: str
) -> None:
    view._handle_custom_msg({**message, "id": 9_999}, [])
    reply = view.reply(9_999)
    assert reply["ok"] is False
    assert words in reply["error"]
    assert reply["field"] == field
    assert session.circuit is None


def test_a_found_circuit_refuses_what_it_has_not(view: Heard, session: Session) -> None:
    found_in(view, method="eap")
    revision = session.revision
    for message, field, words in [
        ({"kind": "size", "count": N_EDGES + 1}, "count", f"0 to {N_EDGES:,} edges"),
        ({"kind": "switch", "addresses": ["L9.H0"]}, "addresses", "layer 9"),
        ({"kind": "switch", "addresses": ["L1.N3"]}, "addresses", "no node of the graph"),
        ({"kind": "annotate", "addresses": ["L0.H1->logits"], "name": "x"}, "addresses", "an edge"),
        ({"kind": "annotate", "addresses": ["L1.N3"], "name": "x"}, "addresses", "no node"),
    ]:
        view._handle_custom_msg({**message, "id": 9_000 + len(view.heard)}, [])  # type: ignore[dict-item]
        reply = view.of("reply")[-1]
        assert reply["ok"] is False
        assert reply["field"] == field
        assert words in reply["error"]
    assert session.revision == revision


def test_without_a_corrupt_prompt_a_search_says_why_and_finds_to_the_mean(
    session: Session,
) -> None:
    session.contrast = tiny.ids(5)
    view = opened(session)
    reply = view.ask("find")
    assert (reply["ok"], reply["field"]) == (False, "how")
    assert "same length" in reply["error"]
    graph = found_in(view, method="eap", how="mean")
    assert graph["how"] == "mean"
    with pytest.raises(InputError, match="same length"):
        view.find()
    view.close()


def test_a_circuit_to_corrupt_values_waits_where_there_are_none(
    view: Heard, session: Session
) -> None:
    found_in(view, method="eap")
    session.contrast = None
    view.rest()
    assert view.ask("size", count=10)["ok"]
    view.rest()
    assert not [m for m in view.of("status") if m["error"]]
    with pytest.raises(InputError, match="no corrupt prompt"):
        view.check()


def test_a_metric_without_a_gradient_is_said_when_edges_are_scored(
    view: Heard, session: Session
) -> None:
    found_in(view, method="eap")
    kept = session.circuit
    session.metric = Custom(lambda logits: logits[:, -1, 7].detach().clone(), name="flat")
    assert view.ask("find")["ok"]
    status = view.hear(lambda m: m["kind"] == "status" and m["error"] is not None)
    assert "no gradient" in status["error"]
    assert session.circuit is kept
    with pytest.raises(MetricError, match="no gradient"):
        view.find()


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_a_model_whose_stream_is_no_plain_sum_has_components_and_no_edges(name: str) -> None:
    view = opened(tiny.model(name), tiny.ids(6), contrast=tiny.ids(6, seed=2))
    why = view.circuit_state()["refusals"]["edges"]
    assert "no graph of components" in why
    reply = view.ask("find")
    assert (reply["ok"], reply["field"], reply["error"]) == (False, "method", why)
    assert view.ask("edge", address="L0.H0->L1.H1:q")["error"] == why
    with pytest.raises(ModelError, match="no graph of components"):
        view.find()
    assert view.whole_map()["total"] == 20
    view.close()


# --- prompt pairs --------------------------------------------------------------------------------

MINE = PromptSet(
    "mine",
    "letters",
    3,
    (
        Pair("a b c d", "a x c d", " e", " f"),
        Pair("g b h d", "g x h d", " i", " j"),
        Pair("k b l m", "k x l m", " n", " o"),
    ),
    note="one was left out",
)


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
    time.sleep(0.5)  # longer than it takes to settle
    paired.rest()
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


# --- life ----------------------------------------------------------------------------------------


def test_every_gesture_is_handled() -> None:
    mine = {
        part.__name__.lower()
        for part in say.Up.__subclasses__()
        if part.__module__ in {circuit_ablator.__name__, shared.__name__}
    }
    assert all(hasattr(CircuitAblator, f"_on_{kind}") for kind in mine)
    assert len(mine) > 30


def test_no_gesture_waits_for_the_model(view: Heard, session: Session) -> None:
    found_in(view, method="eap")
    later = []
    with Gate(session):
        gestures: list[tuple[str, Message]] = [
            ("survey", {"how": "zero"}),
            ("ablations", {"addresses": ["L1.H2", "L2.mlp"]}),
            ("patching", {}),
            ("size", {"count": 20}),
            ("switch", {"addresses": ["L1.mlp"]}),
            ("annotate", {"addresses": ["L1.mlp"], "name": "it"}),
            ("check", {}),
            ("objective", {"metric": "kl"}),
            ("undo", {}),
            ("find", {"method": "eap"}),
            ("hello", {}),
            ("stop", {}),
        ]
        for kind, fields in gestures:
            began = time.perf_counter()
            ident = view.say(kind, **fields)
            assert time.perf_counter() - began < 1, kind
            replies = [m for m in view.of("reply") if m["id"] == ident]
            assert replies, kind
            assert replies[0]["ok"], replies
        later = [
            view.say("drill", address="L1.H1"),
            view.say("edge", address="L0.H0->L1.H1:k"),
            view.say("interact", a=["L1.H1"], b=["L1.H2"]),
            view.say("export"),
        ]
    assert all(view.reply(ident)["ok"] for ident in later)


def test_of_answers_of_one_kind_the_newest_wins(view: Heard, session: Session) -> None:
    view.rest()
    with Gate(session):
        idents = [view.say("drill", address=f"L1.H{head}") for head in range(3)]
    assert view.reply(idents[-1])["body"]["address"] == "L1.H2"
    assert [view.reply(ident)["ok"] for ident in idents[:-1]] == [False, False]


def test_at_most_thirty_messages_a_second_are_pushed(view: Heard, session: Session) -> None:
    found_in(view, method="eap")
    view.heard.clear()
    began = time.monotonic()
    for count in range(300, 20, -1):
        view.say("size", count=count, final=False)
    view.rest()
    seconds = time.monotonic() - began
    pushed = [m for m in view.heard if m["kind"] != "reply"]
    assert len(pushed) <= 30 * seconds + 15
    view.ask("undo")
    assert view.size == round(N_EDGES / 10)


def test_a_view_sees_what_another_view_of_the_session_does(view: Heard, session: Session) -> None:
    from tests.unit.test_attention_inspector import Heard as Inspects

    other = Inspects(session)
    other.ask("hello")
    other.ask("knock", layers=[1, 2], heads=[1])
    until(lambda: [row["address"] for row in view.rows()] == ["L1.H1"])
    assert view.whole_map()["baseline"] == pytest.approx(level(session), abs=1e-5)
    view.ask("ablations", addresses=["L2.H2"])
    until(lambda: [row["address"] for row in other.rows()] == ["L1.H1", "L2.H2"])
    other.close()


def test_a_second_ablator_shows_the_circuit_s_size_without_a_graph(
    view: Heard, session: Session
) -> None:
    found_in(view, method="eap")
    other = opened(session)
    body = other.ask("hello")["body"]
    assert body["graph"] is None
    assert body["circuit"]["selection"]["size"] == view.size
    other.close()


def test_at_rest_the_last_picture_is_in_a_trait(view: Heard, session: Session) -> None:
    found_in(view, method="eap")
    view.ask("patching")
    view.whole_map()
    picture = until(
        lambda: (
            view.snapshot
            if view.snapshot
            and view.snapshot["hello"]["revision"] == session.revision
            and view.snapshot["hello"]["patching"]
            else None
        )
    )
    say.Snapshot.model_validate_json(json.dumps(picture))
    hello = picture["hello"]
    assert hello["map"]["done"] == 20
    assert hello["checked"]["edges"] == view.size
    assert hello["graph"]["total"] == N_EDGES
    assert picture["cut"] == []


def test_a_saved_page_holds_the_map_and_the_checked_circuit(session: Session) -> None:
    view = Heard(session)
    view.find("eap")
    text = view.to_html()
    found = re.search(r'id="traits">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    hello = json.loads(found[1])["snapshot"]["hello"]
    assert hello["result"]["top"]
    assert hello["map"]["done"] == 20
    assert hello["graph"]["estimate"]["shape"] == [N_EDGES]
    assert hello["checked"]["edges"] == view.size
    view.close()


def test_a_picture_too_large_first_goes_without_its_patching(paired: Heard) -> None:
    found_in(paired, method="eap")
    paired.ask("patching")
    paired.rest()
    hello = paired._everything()
    assert [name for name, _ in paired._cuts(hello)][:3] == ["patching", "pairs", "faithful"]
    wide = np.zeros((30, 1500), np.float32)
    patching = hello.patching[0].model_copy(update={"values": wide})
    large = hello.model_copy(update={"patching": [patching, patching]})
    paired._everything = lambda: large  # type: ignore[method-assign]
    picture = paired._picture()
    assert picture["cut"] == ["patching"]
    assert len(json.dumps(picture)) <= SNAPSHOT_BYTES
    texts = hello.circuit.pairs
    assert texts is not None
    long = [pair.model_copy(update={"clean": "x" * 150_000}) for pair in texts.pairs]
    pairs = texts.model_copy(update={"pairs": long, "shown": 1})
    circuit = hello.circuit.model_copy(update={"pairs": pairs})
    paired._everything = lambda: hello.model_copy(update={"circuit": circuit})  # type: ignore[method-assign]
    picture = paired._picture()
    assert picture["cut"] == ["patching", "pairs"]
    assert [each["corrupt"] for each in picture["hello"]["circuit"]["pairs"]["pairs"]] == [
        "g x h d"
    ]


def test_a_closed_view_is_off_its_session_and_gone(session: Session) -> None:
    view = opened(session)
    found_in(view, method="eap")
    view.ask("check")
    view.ask("patching")
    gone = weakref.ref(view)
    view.close()
    heard = len(view.heard)
    session.interventions = [Ablate("L1.H1")]
    view.say("hello")
    time.sleep(0.5)
    assert len(view.heard) == heard
    assert session._observers == []
    assert view._tasks_kept == {}
    assert view._running is None
    del view
    until(lambda: gc.collect() >= 0 and gone() is None, 15)
    assert not [t for t in threading.enumerate() if t.name == "patchclamp view"]


def test_a_hand_on_the_circuit_computes_nothing_of_the_stack_again(
    view: Heard, session: Session
) -> None:
    session.interventions = [Ablate("L1.H2")]
    found_in(view, method="eap")
    view.hear(lambda m: m["kind"] == "effects")
    view.rest()
    before = view.ask("hello")["body"]
    assert before["effects_revision"] == session.revision
    view.heard.clear()
    view.ask("size", count=9)
    told = view.result()
    assert told["revision"] == session.revision
    assert told["result"]["work"] == before["result"]["work"]
    time.sleep(0.5)
    view.rest()
    assert {m["job"] for m in view.of("progress")} == set()
    after = view.ask("hello")["body"]
    assert after["effects_revision"] == session.revision
    assert after["effects"] == before["effects"]
    view.ask("ablations", addresses=["L2.H2"])
    assert view.result()["result"]["work"] != before["result"]["work"]


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
    time.sleep(0.5)
    view.rest()
    assert [m for m in view.of("status") if m["error"]] == []
    assert view.ask("hello")["body"]["map"] is None
    assert "<html" in view.to_html()
    view.ask("undo")
    assert view.whole_map("corrupt")["done"] == 20


def test_without_a_circuit_there_is_none_to_keep(
    view: Heard, session: Session, tmp_path: Path
) -> None:
    view.find("eap")
    view.undo()
    assert view.circuit is None
    for does in (view.check, view.to_networkx, view.circuit_code):
        with pytest.raises(InputError, match="find one first"):
            does()
    with pytest.raises(InputError, match="find one first"):
        view.save_circuit(tmp_path / "none.json")
    assert view.ask("export")["ok"] is False


def test_a_circuit_that_says_nothing_of_its_metric_is_shown_and_checked(
    view: Heard, session: Session
) -> None:
    edges = tuple(CircuitEdge(address) for address in ("embed->logits", "L1.H1->L3.H2:q"))
    view.circuit = Circuit(session.model.name, edges)
    view.rest()
    graph = view.of("graph")[-1]["graph"]
    assert (graph["clean"], graph["corrupt"]) == (None, None)
    checked = view.of("checked")[-1]["checked"]
    assert checked["edges"] == 2
    assert checked["circuit"] == pytest.approx(by_hand(session, ~mask_of(view)), abs=1e-5)


def test_what_a_file_says_of_a_circuit_is_of_when_it_was_found(session: Session) -> None:
    view = Heard(session)
    view.find("eap")
    session.metric = KL()
    kept = view.circuit
    assert kept is not None
    assert kept.metric == METRIC.to_json()
    assert kept.about == {"prompt": None, "contrast": None}
    view.close()


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
