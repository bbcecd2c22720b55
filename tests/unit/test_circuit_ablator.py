"""CircuitAblator's circuits on tiny random models, and its life beside others."""

import ast
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

import patchclamp
from patchclamp.engine.edges import Graph
from patchclamp.errors import InputError, MetricError, ModelError
from patchclamp.interventions import Ablate, Cut
from patchclamp.methods.circuit import Circuit, CircuitEdge, Selection
from patchclamp.methods.edge_attribution import eap_ig
from patchclamp.methods.edge_effect import disagreement
from patchclamp.methods.metric import KL, Custom, LogitDifference
from patchclamp.methods.prompt_sets import NAMES
from patchclamp.session import Session
from patchclamp.views import messages as say
from patchclamp.views.circuit_ablator import CircuitAblator
from patchclamp.views.messages import circuit_ablator, shared
from patchclamp.views.view import SNAPSHOT_BYTES
from tests.unit import letters, tiny
from tests.unit.ablator import (
    METRIC,
    MINE,
    N_EDGES,
    Heard,
    by_hand,
    found_in,
    last_of,
    level,
    mask_of,
    new_session,
    opened,
    pressing_stop,
)
from tests.unit.heard import Gate, Message, until


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


# --- circuits ------------------------------------------------------------------------------------


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
    view: Heard, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []  # whether or not it had to wait, and was replaced by a newer one
    put = view._outbox.put

    def noted(slot: Any, message: Any, merge: Any = None) -> None:
        said.append(message)
        put(slot, message, merge)

    monkeypatch.setattr(view._outbox, "put", noted)
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
    first = next(m.checked for m in said if m.kind == "checked" and m.checked.edges == tenth)
    assert first.without is None  # the circuit alone is told at once
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
    with Gate(session) as gate:
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
            reply = gate.answers_at_once(view, kind, **fields)
            assert reply["ok"], reply
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


def test_a_picture_too_large_first_goes_without_its_patching() -> None:
    paired = opened(letters.model(), pairs=MINE)
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
    view.rest()
    assert len(view.heard) == heard
    assert session._observers == []
    assert view._tasks_kept == {}
    assert view._running is None
    del view
    until(lambda: gc.collect() >= 0 and gone() is None)
    until(lambda: not [t for t in threading.enumerate() if t.name == "patchclamp view"])


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
    view.rest()
    assert {m["job"] for m in view.of("progress")} == set()
    after = view.ask("hello")["body"]
    assert after["effects_revision"] == session.revision
    assert after["effects"] == before["effects"]
    view.ask("ablations", addresses=["L2.H2"])
    assert view.result()["result"]["work"] != before["result"]["work"]


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


def test_the_code_of_a_circuit_writes_out_what_no_name_stands_for() -> None:
    view = Heard(letters.model(), pairs=MINE)
    view.find("eap", of="nodes")
    code = view.circuit_code()
    ast.parse(code)
    assert 'pairs = pc.PromptSet("mine", "letters", 3, (' in code
    assert "pc.Pair(clean='g b h d', corrupt='g x h d', answer=' i', wrong=' j')," in code
    assert 'ablator.find("eap", of="nodes", how="corrupt")' in code
    view.metric = Custom(lambda logits: logits[:, -1, 7], name="seventh")
    assert 'metric=pc.Custom(function, "seventh")' in view.circuit_code()
    assert (
        view.ask("export", format="code")["body"]["name"] == f"circuit-{view.session.model.name}.py"
    )
    view.close()
    ids = Heard(new_session())
    ids.find("acdc", threshold=1.0, runs=5)
    code = ids.circuit_code()
    ast.parse(code)
    assert "session = pc.Session(model, torch.tensor([" in code
    assert 'ablator.find("acdc", of="edges", how="corrupt", threshold=1.0, runs=5)' in code
    ids.close()


@pytest.mark.model
@pytest.mark.slow
def test_a_set_that_comes_with_the_package_is_surveyed_patched_and_searched() -> None:
    view = opened(patchclamp.load("smollm2"), "The <b>city</b> of light is")
    assert view.ask("pairs", name="capitals", count=2, seed=1)["ok"]
    state = view.circuit_state()
    assert state["pairs"]["count"] == 2
    assert {each["name"] for each in state["sets"]} == set(NAMES)
    whole = view.whole_map()
    assert (whole["total"], whole["pairs"]) == (300, 2)
    graph = found_in(view, steps=2)
    assert graph["total"] > 70_000
    checked = view.of("checked")[-1]["checked"]
    assert checked["edges"] == round(graph["total"] / 10)
    assert checked["faithfulness"] > 0.8
    text = view.ask("export")["body"]["text"]
    assert len(text) > 64 * 1024  # more than any other message may hold
    assert view.ask("import", text=text)["ok"]
    assert view.size == checked["edges"]
    code = view.circuit_code()
    assert 'model = pc.load("smollm2")' in code
    assert 'pairs = pc.prompt_set("capitals", model, count=2, seed=1)' in code
    view.rest()
    picture = view._picture()
    assert picture["cut"] == []
    assert len(json.dumps(picture)) <= SNAPSHOT_BYTES
    view.session.undo()
    view.session.input = "The <b>city</b> of light is"
    assert "<b>city" not in view.to_html()
    view.close()
