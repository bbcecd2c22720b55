"""AttentionInspector on tiny random models: what a page sends, and what comes back to it."""

import ast
import gc
import json
import os
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import patchclamp
from patchclamp.engine.attention import Attention
from patchclamp.errors import AddressError, InputError, InterventionError, ModelError
from patchclamp.interventions import Ablate, Clamp, Intervention, Knockout, Scale
from patchclamp.models.language_model import LanguageModel
from patchclamp.session import LogProb, Session
from patchclamp.views import messages as say
from patchclamp.views import tiles
from patchclamp.views.attention_inspector import AttentionInspector
from patchclamp.views.messages import (
    TILE,
    activation_maximizer,
    circuit_ablator,
    neuron_atlas,
    neuron_clamp,
)
from patchclamp.views.view import SNAPSHOT_BYTES
from tests.unit import letters, tiny
from tests.unit.heard import Gate, Hears, Message, until

Array = np.ndarray[Any, Any]


class Heard(Hears, AttentionInspector):
    """The real view, heard."""

    def attention(self) -> Message:
        """What is looked at, of the session as it is."""
        found: Message = self.ask("hello")["body"]["attention"]
        return found

    def grid(self, look: str = "now") -> dict[int, Array]:
        """The small patterns that the page has of a look's present patterns, by layer."""
        stamp = self._scene().stamp(look)  # type: ignore[arg-type]
        found = {}
        for message in self.of("grid"):
            part = message["part"]
            if (part["look"], part["stamp"]) == (look, stamp):
                found.update(dict(zip(part["layers"], part["thumbs"], strict=True)))
        return found


@cache
def long_model() -> LanguageModel:
    """A tiny model that takes longer prompts."""
    torch.manual_seed(7)
    sizes = {**tiny._LLAMA, "max_position_embeddings": 256}
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    return LanguageModel(made, None, name="long")


@pytest.fixture
def session() -> Session:
    return Session(tiny.model("llama"), torch.cat([tiny.ids(), tiny.ids()[:8]]))


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


def pattern_of(body: Message, length: int, *, causal: bool = True) -> Array:
    """A pattern put together of all its tiles, decoded as the page decodes them."""
    whole = np.zeros((length, length), dtype=np.float32)
    at = 0
    for (row, column), peak in zip(body["places"], body["peaks"], strict=True):
        rows, columns = tiles.span(row, length), tiles.span(column, length)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        triangle = causal and row == column
        size = height * (height + 1) // 2 if triangle else height * width
        flat = tiles.decode(body["cells"][at : at + size], body["coding"], peak)
        whole[rows, columns] = tiles.unflatten(flat, height, width, triangle=triangle)
        at += size
    assert at == len(body["cells"])
    return whole


def all_tiles(length: int, *, causal: bool = True) -> list[list[int]]:
    return [list(place) for place in tiles.places(length, causal=causal)]


def close_to(decoded: Array, exact: Array) -> None:
    """Within what the coding of shares says of itself."""
    large = exact >= tiles.LEAST_SHARE
    assert np.abs(decoded[large] / exact[large] - 1).max() <= tiles.SHARE_ERROR * 1.01
    assert np.all(decoded[~large] == 0)


# --- reading -------------------------------------------------------------------------------------


def test_the_package_has_it() -> None:
    assert patchclamp.AttentionInspector is AttentionInspector


def test_hello_says_what_there_is_to_look_at(session: Session) -> None:
    view = Heard(session)
    body = view.ask("hello")["body"]
    assert body["of"] == "inspector"
    attention = body["attention"]
    assert (attention["layers"], attention["heads"], attention["causal"]) == (4, 4, True)
    assert (attention["look"], attention["mode"], attention["head"]) == ("now", "weight", None)
    assert attention["stamps"]["now"] == attention["stamps"]["before"]
    assert attention["stamps"]["second"] is None
    assert attention["refusals"] == dict.fromkeys(attention["refusals"])
    until(lambda: len(view.grid()) == 4)
    again = view.ask("hello")["body"]
    assert again["result_revision"] == session.revision
    assert again["grid"][0]["layers"] == [0, 1, 2, 3]
    view.close()


def test_nothing_is_computed_or_sent_before_a_page_says_hello(session: Session) -> None:
    view = Heard(session)
    session.interventions = [Knockout("L1.H1")]
    view.rest()
    assert (view.heard, view._tasks) == ([], {})
    view.close()


@pytest.mark.parametrize("length", [1, 12, TILE, TILE + 3])
def test_tiles_decode_to_the_pattern_of_the_run(length: int) -> None:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, tiny.VOCAB, (length,), generator=generator)
    session = Session(long_model(), ids)
    view = opened(session)
    session.interventions = [Scale("L1.mlp", 2.0)]
    exact = session.current.pattern("L2.H1").numpy()
    body = view.ask("tiles", layer=2, head=1, tiles=all_tiles(length))["body"]
    assert body["coding"] == "share"
    assert set(body["peaks"]) == {1}
    close_to(pattern_of(body, length), exact)
    assert len(body["cells"]) == length * (length + 1) // 2
    assert body["stamp"] == view.attention()["stamps"]["now"]
    assert np.array_equal(view.pattern("L2.H1"), exact)
    view.close()


@pytest.mark.parametrize("look", ["now", "before"])
def test_a_cell_is_the_run_s_own_number_in_every_mode(
    view: Heard, session: Session, look: str
) -> None:
    session.interventions = [Scale("L0.mlp", 0.3), Knockout("L2.H1[9<-4]")]
    run = session.current if look == "now" else session.baseline
    exact = run.pattern("L2.H1").numpy()
    fields: Message = {"layer": 2, "head": 1, "look": look}
    head = view.ask("head", **fields)["body"]
    for destination, source in [(9, 4), (9, 5), (19, 0), (7, 7)]:
        cell = view.ask("cell", **fields, destination=destination, source=source)["body"]
        weight = np.float32(cell["weight"])
        # How a matrix product rounds depends on how many rows it takes at once, and on the CPU: by
        # some 1e-7 of a score, which is about ten, and so by as much of its weight.
        assert weight == pytest.approx(exact[destination, source], rel=1e-6)
        assert np.float32(cell["value"]) == weight * head["value"][source]
        contribution = weight * head["contribution"][source] * head["scale"][destination]
        assert cell["contribution"] == pytest.approx(float(contribution), rel=1e-6)
        assert cell["stamp"] == head["stamp"] == view.attention()["stamps"][look]
    assert (view.ask("cell", **fields, destination=9, source=4)["body"]["weight"] == 0) is (
        look == "now"
    )
    above = view.ask("cell", **fields, destination=4, source=9)["body"]
    assert (above["weight"], above["value"], above["contribution"]) == (None, None, None)


def test_what_a_head_body_says_sums_to_the_direct_effect_and_bounds_the_cells(
    view: Heard, session: Session
) -> None:
    body = view.ask("head", layer=3, head=2)["body"]
    weights = session.current.pattern("L3.H2").numpy()
    cells = weights * body["contribution"] * body["scale"][:, None]
    assert body["direct"] == pytest.approx(float(cells[-1].sum()), rel=1e-4)
    assert body["peaks"]["weight"] == pytest.approx(float(weights.max()), rel=1e-6)
    assert body["peaks"]["value"] == pytest.approx(float((weights * body["value"]).max()), rel=1e-6)
    assert body["peaks"]["contribution"] == pytest.approx(float(np.abs(cells).max()), rel=1e-6)
    session.metric = LogProb(7)
    other = view.ask("head", layer=3, head=2)["body"]
    assert other["stamp"] == body["stamp"]  # only the metric changed
    assert not np.allclose(other["contribution"], body["contribution"])
    assert np.array_equal(other["value"], body["value"])


def test_the_grid_fills_in_with_small_patterns_of_every_head(view: Heard, session: Session) -> None:
    view.rest()
    found = view.grid()
    assert sorted(found) == [0, 1, 2, 3]
    for layer in range(4):
        for head in range(4):
            exact = session.current.pattern(f"L{layer}.H{head}").numpy()
            close_to(tiles.decode(found[layer][head], "share"), exact)
    done = [(m["done"], m["total"]) for m in view.of("progress") if m["job"] == "grid"]
    assert done[-1] == (4, 4)


def test_a_grid_of_a_long_prompt_summarises_and_says_so() -> None:
    session = Session(long_model(), tiny.ids(60))
    view = opened(session)
    view.rest()
    part = view.of("grid")[-1]["part"]
    assert part["block"] == 3
    thumb = view.grid()[2][1]
    assert thumb.shape == (20, 20)
    exact = session.current.pattern("L2.H1").numpy()
    largest = exact.reshape(20, 3, 20, 3).max((1, 3))
    close_to(tiles.decode(thumb, "share"), largest)
    view.close()


def test_scores_come_for_all_heads_and_are_a_table_too(view: Heard, session: Session) -> None:
    view.rest()
    found = view.of("scores")[-1]["scores"]
    assert found["stamp"] == view.attention()["stamps"]["now"]
    assert found["names"][-2:] == ["random_induction", "effect"]
    assert found["values"].shape == (9, 4, 4)
    assert np.isnan(found["values"][-2:]).all()
    exact = session.current.pattern("L2.H1").numpy()
    current = float(np.trace(exact) / exact.sum())
    assert found["values"][found["names"].index("current"), 2, 1] == pytest.approx(
        current, rel=1e-5
    )
    table = view.scores
    assert table["address"].tolist()[:5] == ["L0.H0", "L0.H1", "L0.H2", "L0.H3", "L1.H0"]
    row = table[table["address"] == "L2.H1"].iloc[0]
    assert row["current"] == pytest.approx(current, rel=1e-5)
    assert not table["induction"].isna().any()


def test_the_effect_of_ablating_each_head_is_measured_and_goes_stale(
    view: Heard, session: Session
) -> None:
    view.rest()
    assert view.ask("assess", score="effect")["ok"]
    view.rest()
    found = view.of("scores")[-1]["scores"]
    values = found["values"][found["names"].index("effect")]
    target = session.target
    before = float(session.baseline.log_probs()[target])
    session.interventions = [Ablate("L1.H2")]
    expected = float(session.current.log_probs()[target]) - before
    assert values[1, 2] == pytest.approx(expected, abs=1e-4)
    assert abs(expected) > 1e-3
    view.result()
    view.rest()
    assert view.of("scores")[-1]["scores"]["stale"] == ["effect"]
    session.interventions = []
    view.result()
    view.rest()
    assert view.of("scores")[-1]["scores"]["stale"] == []
    session.metric = LogProb(7)
    until(lambda: view.of("scores")[-1]["scores"]["stale"] == ["effect"])
    assert view.of("progress")[-1]["total"] in {16, 4, 1}


def test_random_induction_is_measured_once_and_stays(view: Heard, session: Session) -> None:
    table = view.measure("random_induction")
    assert table["random_induction"].between(0, 1).all()
    session.interventions = [Knockout("L0.H0")]
    view.result()
    view.rest()
    scores = view.of("scores")[-1]["scores"]
    assert scores["stale"] == []
    measured = scores["values"][scores["names"].index("random_induction")].ravel()
    assert measured.tolist() == pytest.approx(table["random_induction"].tolist())


def test_composition_is_answered_and_is_a_table(view: Heard) -> None:
    body = view.ask("compose", layer=2, head=1)["body"]
    for part in ("q", "k", "v"):
        assert body[part].shape == (4, 4)
        assert np.isnan(body[part][2]).all()
        assert np.isfinite(np.delete(body[part], 2, axis=0)).all()
    table = view.composition("L2.H1")
    assert len(table) == 12
    row = table[table["address"] == "L0.H3"].iloc[0]
    assert row["v"] == pytest.approx(float(body["v"][0, 3]))
    assert body["baseline"] > 0


# --- before, after, difference -------------------------------------------------------------------


def test_a_difference_is_sent_in_the_mode_looked_at(view: Heard, session: Session) -> None:
    session.interventions = [Scale("L0.mlp", -1.0)]
    length = len(session.ids)
    for mode in ("weight", "value", "contribution"):
        body = view.ask(
            "tiles", layer=2, head=1, look="difference", mode=mode, tiles=all_tiles(length)
        )["body"]
        exact = view.pattern("L2.H1", "now", mode) - view.pattern("L2.H1", "before", mode)
        assert np.abs(exact).max() > 1e-4
        assert body["coding"] == "signed"
        assert body["peaks"] == [pytest.approx(float(np.abs(exact).max()), rel=1e-6)]
        decoded = pattern_of(body, length)
        large = np.abs(exact) >= 2 * tiles.LEAST_OF_PEAK * body["peaks"][0]
        assert np.abs(decoded[large] / exact[large] - 1).max() < tiles.SIGNED_ERROR * 1.01
        stamps = view.attention()["stamps"]
        assert body["stamp"] == f"{stamps['now']}-{stamps['before']}"
    head = view.ask("head", layer=2, head=1, look="difference")["body"]
    assert [len(head[part]) for part in ("value", "contribution", "scale")] == [0, 0, 0]
    assert head["peaks"]["contribution"] == pytest.approx(float(np.abs(exact).max()), rel=1e-6)
    assert head["direct"] == pytest.approx(float(exact[-1].sum()), rel=1e-3)


def test_the_grid_of_a_difference_holds_the_cells_furthest_from_zero(
    view: Heard, session: Session
) -> None:
    session.interventions = [Scale("L1.mlp", -1.0)]
    view.result()
    view.ask("inspect", look="difference")
    until(lambda: sorted(view.grid("difference")) == [0, 1, 2, 3])
    found = view.grid("difference")
    assert (found[0] == 128).all()  # nothing changes below what is touched
    assert (found[1] == 128).all()
    exact = view.pattern("L3.H2", "difference")
    part = [m["part"] for m in view.of("grid") if 3 in m["part"]["layers"]][-1]
    peak = part["peaks"][part["layers"].index(3)][2]
    assert peak == pytest.approx(float(np.abs(exact).max()), rel=1e-6)
    decoded = tiles.decode(found[3][2], "signed", float(peak))
    large = np.abs(exact) >= 2 * tiles.LEAST_OF_PEAK * peak
    assert np.abs(decoded[large] / exact[large] - 1).max() < tiles.SIGNED_ERROR * 1.01


def test_layers_below_the_stack_are_those_of_the_baseline(view: Heard, session: Session) -> None:
    view.rest()
    baseline = view.grid()
    session.interventions = [Scale("L1.mlp", -1.0)]
    view.result()
    view.rest()
    found = view.grid()
    assert sorted(found) == [0, 1, 2, 3]
    for layer in range(4):
        for head in range(4):
            exact = session.current.pattern(f"L{layer}.H{head}").numpy()
            close_to(tiles.decode(found[layer][head], "share"), exact)
    assert np.array_equal(found[1], baseline[1])
    assert not np.array_equal(found[2], baseline[2])


def test_stamps_change_with_the_patterns_and_not_with_the_metric(
    view: Heard, session: Session
) -> None:
    first = view.attention()["stamps"]
    session.metric = LogProb(5)
    assert view.attention()["stamps"] == first
    session.interventions = [Knockout("L1.H1")]
    acting = view.attention()
    assert acting["acting"] is True
    assert acting["stamps"]["before"] == first["before"]
    assert acting["stamps"]["now"] != first["now"]
    session.interventions = [Knockout("L1.H1", muted=True)]
    assert view.attention()["acting"] is False
    assert view.attention()["stamps"] == first
    session.undo()
    assert view.attention()["stamps"] == acting["stamps"]


# --- knocking out --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"layers": [1, 2], "heads": [2], "destinations": [7, 8], "sources": [2, 3]},
            Knockout("L1.H2[7<-2]"),
        ),
        (
            {"layers": [1, 2], "heads": [2], "destinations": [7, 9], "sources": [2, 5]},
            Knockout("L1.H2[7:9<-2:5]"),
        ),
        (
            {"layers": [0, 3], "destinations": [7, 8], "sources": [2, 3], "how": "zero"},
            Knockout("L[0:3].H*[7<-2]", "zero"),
        ),
        ({"layers": [1, 2], "heads": [3]}, Knockout("L1.H3")),
        ({"layers": [1, 3], "heads": [3, 2]}, Knockout("L[1:3].H[2:4]")),
        ({"layers": [1, 2], "sources": [0, 1]}, Knockout("L1.H*[*<-0]")),
        (
            {"layers": [1, 2], "heads": [0, 2], "sources": [4, 5]},
            Knockout("{L1.H0[*<-4], L1.H2[*<-4]}"),
        ),
        ({"layers": [1, 2], "heads": [0], "how": "contrast"}, Knockout("L1.H0", "contrast")),
    ],
)
def test_a_knock_out_is_an_intervention_and_the_same_again_takes_it_back(
    view: Heard, session: Session, fields: Message, expected: Intervention
) -> None:
    session.contrast = tiny.ids(20, seed=4)
    body = view.ask("knock", **fields)["body"]
    assert body == {"of": "knock", "key": session.keys[0]}
    assert session.interventions == (expected,)
    assert view.result()["result"]["moved"].max() > 0
    outlined = view.attention()["knocked_out"]
    assert outlined == [
        {
            "key": session.keys[0],
            "layers": fields["layers"],
            "heads": sorted(fields["heads"]) if "heads" in fields else None,
            "destinations": fields.get("destinations"),
            "sources": fields.get("sources"),
            "how": fields.get("how", "renormalise"),
            "muted": False,
        }
    ]
    view.ask("edit", key=session.keys[0], muted=True)
    assert view.attention()["knocked_out"][0]["muted"] is True
    assert view.ask("knock", **fields)["body"]["key"] is None
    assert list(session.keys) == []
    view.ask("undo")
    assert session.interventions == (expected.replace(muted=True),)


def test_a_knocked_out_cell_is_zero_and_the_prediction_moves(view: Heard, session: Session) -> None:
    last = len(session.ids) - 1
    before = session.baseline.pattern("L2.H1").numpy()
    source = int(before[last].argmax())
    view.ask("knock", layers=[2, 3], heads=[1], destinations=[last, last + 1],
             sources=[source, source + 1])  # fmt: skip
    result = view.result()["result"]
    assert result["moved"][-1] > 1e-6
    assert (result["moved"][:-1] == 0).all()
    after = view.pattern("L2.H1")
    assert after[last, source] == 0
    assert after[last].sum() == pytest.approx(1, rel=1e-5)
    assert np.array_equal(after[:last], before[:last])


def test_how_a_knock_out_is_done_is_edited_in_its_row(view: Heard, session: Session) -> None:
    key = view.ask("knock", layers=[1, 2], heads=[2], destinations=[5, 6], sources=[1, 2])["body"][
        "key"
    ]
    assert view.ask("edit", key=key, how="zero")["ok"]
    assert session.interventions == (Knockout("L1.H2[5<-1]", "zero"),)
    refused = view.ask("edit", key=key, how="contrast")
    assert not refused["ok"]
    assert "contrast" in refused["error"]
    refused = view.ask("edit", key=key, how="mean")
    assert not refused["ok"]
    assert refused["field"] == "how"
    assert session.interventions == (Knockout("L1.H2[5<-1]", "zero"),)


def test_a_knock_out_s_effect_comes_beside_that_of_random_heads(
    view: Heard, session: Session
) -> None:
    view.ask("knock", layers=[2, 3], heads=[1], sources=[0, 1])
    now = session.revision
    effect = view.hear(lambda m: m["kind"] == "effects" and m["revision"] == now)["rows"][0]
    whole, without = (r.log_probs()[session.target] for r in (session.current, session.baseline))
    assert effect["effect"] == pytest.approx(float(whole - without), abs=1e-4)
    assert effect["control"]["of"] == "heads"
    assert effect["control"]["low"] <= effect["control"]["median"] <= effect["control"]["high"]


def test_knock_outs_that_others_made_are_outlined(view: Heard, session: Session) -> None:
    session.interventions = [
        Knockout("{L1.H0[-1<-2], L2.H0[-1<-2], L3.H1[*<-0]}", "zero"),
        Clamp("L1.N5", 2.0),
        Knockout("L0.H1@3,4,7"),
    ]
    found = [
        (o["layers"], o["heads"], o["destinations"], o["sources"], o["how"])
        for o in view.attention()["knocked_out"]
    ]
    assert found == [
        ([1, 3], [0], [19, 20], [2, 3], "zero"),
        ([3, 4], [1], None, [0, 1], "zero"),
        ([0, 1], [1], [3, 5], None, "renormalise"),
        ([0, 1], [1], [7, 8], None, "renormalise"),
    ]


def test_a_knock_out_is_undone_muted_and_copied_as_code() -> None:
    view = opened(letters.model(), "the cat sat on the mat")
    key = view.ask("knock", layers=[0, 4], destinations=[5, 6], sources=[1, 3])["body"]["key"]
    row = until(lambda: view.rows() and view.rows()[0])
    assert row["key"] == key
    assert row["editable"] is False
    code = view.ask("code")["body"]["text"]
    ast.parse(code)
    assert [f"blocks.{layer}.attn.hook_pattern" in code for layer in range(4)] == [True] * 4
    assert view.rows()[0]["address"] == "L[0:4].H*[5<-1:3]"
    view.ask("edit", key=key, muted=True)
    assert view.session.experiment.stack == ()
    view.ask("undo")
    view.ask("undo")
    assert view.session.interventions == ()
    view.close()


def test_a_head_held_at_its_mean_is_an_intervention_like_any_other(
    view: Heard, session: Session
) -> None:
    assert view.ask("add", address="L2.H1", op="ablate")["ok"]
    assert session.interventions == (Ablate("L2.H1"),)


# --- two prompts ---------------------------------------------------------------------------------


def test_a_second_prompt_is_compared_by_partners_that_can_be_edited(
    view: Heard, session: Session
) -> None:
    ids = session.ids
    second = torch.cat([ids[:5], torch.tensor([60]), ids[5:]])
    view.compare(second)
    attention = view.attention()
    assert [t["id"] for t in attention["second"]["tokens"]] == second.tolist()
    assert attention["second"]["partners"] == [0, 1, 2, 3, 4, *range(6, 21)]  # by tokens
    stamp = attention["stamps"]["second"]
    assert view.ask("align", by="position")["ok"]
    assert view.attention()["second"]["partners"] == list(range(20))
    assert view.attention()["stamps"]["second"] != stamp  # its differences are others
    assert view.ask("align", pair=[19, 20])["ok"]
    assert view.ask("align", pair=[3, None])["ok"]
    partners = view.attention()["second"]["partners"]
    assert partners == [0, 1, 2, None, *range(4, 19), 20]
    assert view.ask("inspect", look="second-difference")["ok"]
    other = Session(session.model, second).baseline.pattern("L2.H1").numpy()
    mine = session.baseline.pattern("L2.H1").numpy()
    body = view.ask("tiles", layer=2, head=1, look="second-difference", tiles=[[0, 0]])["body"]
    decoded = pattern_of(body, 20)
    for destination, source in [(19, 0), (19, 19), (10, 4), (2, 1)]:
        expected = mine[destination, source] - other[partners[destination], partners[source]]
        assert decoded[destination, source] == pytest.approx(float(expected), rel=0.04, abs=1e-4)
    assert np.isnan(decoded[3, :4]).all()
    assert np.isnan(decoded[3:, 3]).all()
    assert np.isfinite(decoded[4:, 4:]).all()
    cell = view.ask("cell", layer=2, head=1, look="second-difference", destination=3, source=1)
    assert cell["body"]["weight"] is None
    until(lambda: sorted(view.grid("second-difference")) == [0, 1, 2, 3])
    assert (view.grid("second-difference")[1][:, 3, :4] == 255).all()


def test_the_second_prompt_s_own_patterns_have_its_own_size(view: Heard, session: Session) -> None:
    second = tiny.ids(7, seed=5)
    session.contrast = second
    session.interventions = [Knockout("L0.H0")]
    exact = Session(session.model, second).baseline.pattern("L2.H1").numpy()
    view.ask("inspect", look="second")
    body = view.ask("tiles", layer=2, head=1, look="second", tiles=[[0, 0]])["body"]
    close_to(pattern_of(body, 7), exact)
    until(lambda: sorted(view.grid("second")) == [0, 1, 2, 3])
    assert view.grid("second")[2][1].shape == (7, 7)
    view.rest()
    assert view.of("scores")[-1]["scores"]["stamp"] == view.attention()["stamps"]["second"]
    assert len(view.ask("head", layer=2, head=1, look="second")["body"]["value"]) == 7


def test_taking_the_second_prompt_away_looks_at_the_first_again(
    view: Heard, session: Session
) -> None:
    session.contrast = tiny.ids(7, seed=5)
    view.ask("inspect", look="second")
    assert view.ask("second", text=None)["ok"]
    attention = view.attention()
    assert (attention["look"], attention["second"]) == ("now", None)
    assert view.ask("hello")["ok"]
    view.ask("undo")
    assert view.attention()["second"] is not None


def test_a_second_prompt_is_typed() -> None:
    view = opened(letters.model(), "abc abd")
    assert view.ask("second", text="abc xbd")["ok"]
    attention = view.attention()
    assert attention["second"]["text"] == "abc xbd"
    assert attention["second"]["partners"] == list(range(len(attention["second"]["tokens"])))
    assert view.ask("second", text=" ")["field"] == "text"
    assert view.session.contrast == "abc xbd"
    view.close()


# --- encoders and other architectures ------------------------------------------------------------


def test_an_encoder_shows_whole_squares_and_no_prediction() -> None:
    session = Session(tiny.model("bert"), tiny.ids())
    view = opened(session)
    attention = view.attention()
    assert attention["causal"] is False
    assert "encoder" in attention["refusals"]["prediction"]
    assert "encoder" in attention["refusals"]["contribution"]
    body = view.ask("tiles", layer=1, head=1, tiles=[[0, 0]])["body"]
    assert len(body["cells"]) == 144
    exact = session.current.pattern("L1.H1").numpy()
    assert exact[0, 5] > 0
    close_to(pattern_of(body, 12, causal=False), exact)
    head = view.ask("head", layer=1, head=1)["body"]
    assert head["peaks"]["value"] > 0
    assert (head["peaks"]["contribution"], head["direct"]) == (None, None)
    assert len(head["value"]) == 12
    cell = view.ask("cell", layer=1, head=1, destination=0, source=5)["body"]
    assert cell["weight"] == pytest.approx(float(exact[0, 5]), rel=3e-7)
    assert cell["contribution"] is None
    refused = view.ask("inspect", mode="contribution")
    assert (refused["ok"], refused["field"]) == (False, "mode")
    assert "predicts no next token" in view.ask("assess", score="effect")["error"]
    with pytest.raises(ModelError, match="predicts no next token"):
        view.measure("effect")
    assert view.ask("assess", score="random_induction")["ok"]
    view.rest()
    view.close()


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "native", "neox"])
def test_it_reads_and_knocks_out_on_other_architectures(name: str) -> None:
    session = Session(tiny.model(name), tiny.ids())
    view = opened(session)
    exact = session.current.pattern("L1.H1").numpy()
    body = view.ask("tiles", layer=1, head=1, tiles=[[0, 0]])["body"]
    close_to(pattern_of(body, 12), exact)
    refusals = view.ask("hello")["body"]["attention"]["refusals"]
    reply = view.ask("inspect", mode="contribution")
    assert reply["ok"] is (refusals["contribution"] is None)
    assert view.ask("knock", layers=[1, 2], heads=[1])["ok"]
    assert view.result()["result"]["moved"].max() > 1e-6
    view.rest()
    assert sorted(view.grid()) == list(range(4))
    view.close()


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        ({"kind": "inspect", "head": [9, 0]}, "layer", "4 layers of 4 heads"),
        ({"kind": "inspect", "head": [1, 7]}, "head", "4 layers of 4 heads"),
        ({"kind": "inspect", "look": "second"}, "look", "no second prompt"),
        ({"kind": "inspect", "look": "later"}, "look", "'later'"),
        ({"kind": "inspect", "mode": "colour"}, "mode", "'colour'"),
        ({"kind": "head", "layer": 4, "head": 0}, "layer", "counted from 0"),
        ({"kind": "head", "layer": 1, "head": 0, "look": "second"}, "look", "no second prompt"),
        ({"kind": "tiles", "layer": 1, "head": 0, "tiles": []}, "tiles", "tiles"),
        ({"kind": "tiles", "layer": 1, "head": 0, "tiles": [[0, 1]]}, None, "1 x 1 tiles"),
        ({"kind": "tiles", "layer": 1, "head": 0, "tiles": [[0, 0]] * 65}, "tiles", "tiles"),
        (
            {"kind": "cell", "layer": 1, "head": 0, "destination": 20, "source": 0},
            None,
            "no position 20",
        ),
        ({"kind": "knock", "layers": [2, 2]}, "layers", "0, the last 3"),
        ({"kind": "knock", "layers": [0, 9]}, "layers", "0, the last 3"),
        ({"kind": "knock", "layers": [0, 1], "heads": [4]}, "heads", "no head 4"),
        ({"kind": "knock", "layers": [0, 1], "destinations": [3, 21]}, "destinations", "last 19"),
        (
            {"kind": "knock", "layers": [0, 1], "destinations": [2, 3], "sources": [7, 8]},
            "destinations",
            "only itself and earlier",
        ),
        ({"kind": "knock", "layers": [0, 1], "how": "contrast"}, "how", "contrast"),
        ({"kind": "knock", "layers": [0, 1], "how": "gently"}, "how", "'gently'"),
        ({"kind": "second", "text": "hello"}, "text", "tokenizer"),
        ({"kind": "align", "by": "position"}, "by", "no second prompt"),
        ({"kind": "align", "pair": [None, 3]}, "pair", "begins with a position"),
        ({"kind": "compose", "layer": 1, "head": 9}, "head", "4 layers of 4 heads"),
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
    assert (view.locked, view.look, view.mode) == (None, "now", "weight")
    assert view.ask("inspect", head=[1, 2])["ok"]


def test_every_gesture_is_handled() -> None:
    other_views = (activation_maximizer, circuit_ablator, neuron_atlas, neuron_clamp)
    others = {
        part.__name__.lower()
        for part in say.Up.__subclasses__()
        if part.__module__ in {m.__name__ for m in other_views}
    }
    mine = set(say._KINDS) - others
    assert all(hasattr(AttentionInspector, f"_on_{kind}") for kind in mine)
    assert len(mine) > 20


TEXTS = {
    "one token": "a",
    "newlines": "a\nb\n\nc",
    "right to left": "abc שלום עולם def",
    "an emoji split over tokens": "a 👩‍🔬 b",
    "markup": "a <script>alert(1)</script> b",
    "a special token as text": "a <|endoftext|> <eos> b",
}


@pytest.mark.model
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_any_text_is_shown_as_text_and_aligned(text: str) -> None:
    view = opened(patchclamp.load("smollm2"), text)
    length = len(view.session.ids)
    tokens = view.ask("hello")["body"]["state"]["tokens"]
    assert [t["position"] for t in tokens] == list(range(length))
    assert [t["id"] for t in tokens] == view.session.ids.tolist()
    body = view.ask("tiles", layer=3, head=1, tiles=[[0, 0]])["body"]
    close_to(pattern_of(body, length), view.session.current.pattern("L3.H1").numpy())
    html = view.to_html()
    assert "<script>alert" not in html
    view.close()


def test_a_one_token_prompt_has_one_cell() -> None:
    view = opened(tiny.model("llama"), torch.tensor([7]))
    view.lock("L1.H1")
    body = view.ask("tiles", layer=1, head=1, tiles=[[0, 0]])["body"]
    assert body["cells"].tolist() == [254]
    view.rest()
    assert view.grid()[0].shape == (4, 1, 1)
    assert np.isnan(view.scores["previous"]).all()
    view.close()


def test_what_is_not_a_number_is_shown_as_such(
    view: Heard, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = Attention._rows

    def spoiled(
        self: Attention, layer: int, start: int, stop: int, head: int | None = None
    ) -> torch.Tensor:
        rows = exact(self, layer, start, stop, head)
        if layer == 1 and start <= 5 < stop:
            rows[..., 5 - start, 2] = torch.nan
        return rows

    view.rest()
    monkeypatch.setattr(Attention, "_rows", spoiled)
    session.interventions = [Scale("L0.mlp", 0.5)]
    body = view.ask("tiles", layer=1, head=0, tiles=[[0, 0]])["body"]
    decoded = pattern_of(body, 20)
    assert np.isnan(decoded[5, 2])
    assert np.isnan(decoded).sum() == 1
    cell = view.ask("cell", layer=1, head=0, destination=5, source=2)["body"]
    assert (cell["weight"], cell["value"]) == (None, None)
    assert view.ask("head", layer=1, head=0)["body"]["peaks"]["weight"] > 0
    view.result()
    view.rest()
    assert (view.grid()[1][:, 5, 2] == 255).all()
    scores = view.of("scores")[-1]["scores"]
    first = scores["values"][scores["names"].index("first")]
    assert np.isnan(first[1]).all()
    assert np.isfinite(first[2]).all()


def test_more_than_the_budget_is_refused_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(tiny.model("native"), tiny.ids(40))  # its patterns are taken whole
    view = opened(session)
    view.rest()
    monkeypatch.setattr(session.engine, "budget", 4 * 4 * 40 * 40)
    session.interventions = [Scale("L0.mlp", 0.5)]
    reply = view.ask("tiles", layer=1, head=0, tiles=[[0, 0]])
    assert reply["ok"] is False
    assert re.search(r"takes \d+ MiB, and the budget is", reply["error"])
    assert view.ask("hello")["ok"]
    view.close()


def test_a_knock_out_beyond_the_budget_is_refused_with_the_number_and_the_picture_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session(long_model(), tiny.ids(200))
    view = opened(session)
    view.rest()
    good = view.of("result")[-1]
    monkeypatch.setattr(session.engine, "budget", 4 * 4 * 200**2 - 1)
    view.ask("knock", layers=[1, 2], heads=[1])
    status = view.hear(lambda m: m["kind"] == "status" and m["error"] is not None)
    assert "At 200 tokens the attention of one layer takes 1 MiB" in status["error"]
    assert status["revision"] == session.revision
    assert view.of("result")[-1] is good
    view.ask("undo")
    assert view.result()["revision"] == session.revision
    view.close()


LONG = """
import threading, time
import psutil, torch
import patchclamp
from patchclamp.session import Session
from tests.unit.test_attention_inspector import Heard, opened

model = patchclamp.load("smollm2")
opened(model, "The first look loads what every other one needs").close()
process, seen, going = psutil.Process(), [0], True

def watch():
    while going:
        seen[0] = max(seen[0], process.memory_info().rss)
        time.sleep(0.01)

half = torch.randint(100, 40_000, (1024,), generator=torch.Generator().manual_seed(0))
base = process.memory_info().rss
threading.Thread(target=watch, daemon=True).start()
view = Heard(Session(model, torch.cat([half, half])))
table = view.scores
assert not table["induction"].isna().any()
assert len(view._everything().grid[0].layers) == 30
print((seen[0] - base) / 2**20)
view.session.interventions = [patchclamp.Knockout("L17.H4")]
view.session.current.compute()
print((seen[0] - base) / 2**20)
going = False
"""


@pytest.mark.model
@pytest.mark.slow
def test_at_2048_tokens_memory_stays_within_what_the_docstring_says(root: Path) -> None:
    paths = {"PYTHONPATH": f"{root / 'widgets'}:{root}"}
    done = subprocess.run(
        [sys.executable, "-c", LONG],
        cwd=root,
        env=os.environ | paths,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    looked, knocked = (float(line) for line in done.stdout.split()[-2:])
    assert 200 < looked < 1.2 * 0.65 * 1024
    assert knocked < 1.2 * 1.35 * 1024


# --- life ----------------------------------------------------------------------------------------


def test_a_view_sees_what_another_view_of_the_session_does(view: Heard, session: Session) -> None:
    from tests.unit.test_neuron_clamp import Heard as Clamps

    other = Clamps(session)
    other.ask("hello")
    stamp = view.attention()["stamps"]["now"]
    other.ask("add", address="L0.N5@-1", value=6.0)
    view.result()
    assert view.attention()["stamps"]["now"] != stamp
    until(lambda: [row["address"] for row in view.rows()] == ["L0.N5"])
    view.ask("knock", layers=[1, 2], heads=[1])
    until(lambda: [row["address"] for row in other.rows()] == ["L0.N5", "L1.H1"])
    tops = [each.result()["result"]["top"] for each in (other, view)]
    assert [t["id"] for t in tops[0]] == [t["id"] for t in tops[1]]
    told = view.hear(lambda m: m["kind"] == "attention" and m["revision"] == session.revision)
    assert told["attention"] == view.attention()
    exact = session.current.pattern("L2.H1").numpy()
    body = view.ask("tiles", layer=2, head=1, tiles=[[0, 0]])["body"]
    close_to(pattern_of(body, 20), exact)
    other.close()


def test_no_gesture_waits_for_the_model(view: Heard, session: Session) -> None:
    view.rest()
    session.contrast = tiny.ids(6)
    gestures: list[tuple[str, Message]] = [
        ("inspect", {"head": [1, 2], "look": "difference"}),
        ("knock", {"layers": [1, 2], "heads": [2]}),
        ("assess", {"score": "effect"}),
        ("second", {"text": None}),
        ("undo", {}),
        ("align", {"by": "tokens"}),
        ("hello", {}),
        ("stop", {}),
    ]
    with Gate(session) as gate:
        for kind, fields in gestures:
            reply = gate.answers_at_once(view, kind, **fields)
            assert reply["ok"], reply
        later = [
            view.say("head", layer=1, head=2),
            view.say("tiles", layer=1, head=2, tiles=[[0, 0]]),
            view.say("tiles", layer=1, head=3, tiles=[[0, 0]]),
            view.say("cell", layer=1, head=2, destination=4, source=1),
        ]
    assert all(view.reply(ident)["ok"] for ident in later)  # each is answered


def test_another_prompt_while_a_head_is_locked(view: Heard, session: Session) -> None:
    view.ask("inspect", head=[2, 1])
    session.input = tiny.ids(5, seed=9)
    view.result()
    view.rest()
    assert view.attention()["head"] == [2, 1]
    assert view.grid()[0].shape == (4, 5, 5)
    body = view.ask("tiles", layer=2, head=1, tiles=[[0, 0]])["body"]
    close_to(pattern_of(body, 5), session.current.pattern("L2.H1").numpy())


def test_the_gestures_are_methods_too(session: Session) -> None:
    view = Heard(session)
    view.lock("L2.H1")
    assert view.locked == "L2.H1"
    key = view.knock_out("L2.H1[7<-2]", how="zero")
    assert key == session.keys[0]
    view.mode = "value"
    view.look = "difference"
    difference = view.pattern("L2.H1", "difference")
    assert difference[7, 2] == -session.baseline.pattern("L2.H1")[7, 2]
    assert view.knock_out("L2.H1[7<-2]", how="zero") is None
    view.compare(tiny.ids(9))
    view.align(by="position", pairs=[(4, None)])
    assert view.pattern("L2.H1", "second-difference").shape == (20, 20)
    assert view.pattern("L2.H1", "second").shape == (9, 9)
    with pytest.raises(InputError, match="must not cross"):
        view.align(pairs=[(4, 8)])
    view.look = "second-difference"
    view.compare(None)
    assert len(view.scores) == 16
    assert view.attention()["look"] == "now"
    assert view.measure("effect")["effect"].notna().all()
    assert list(view.next_tokens) == ["id", "text", "before", "after"]
    with pytest.raises(InputError, match="no look 'after'"):
        view.look = "after"  # type: ignore[assignment]
    with pytest.raises(InputError, match="A head is wanted"):
        view.lock("L2.mlp")
    with pytest.raises(AddressError, match="head 9 does not exist"):
        view.lock("L2.H9")
    with pytest.raises(InterventionError, match="Knockout needs"):
        view.knock_out("L2.mlp")
    with pytest.raises(InputError, match="no second prompt"):
        view.pattern("L2.H1", "second")
    view.lock(None)
    assert view.attention()["head"] is None
    view.close()


def test_at_rest_the_last_picture_is_in_a_trait(view: Heard, session: Session) -> None:
    view.ask("inspect", head=[2, 1])
    view.ask("knock", layers=[2, 3], heads=[1], destinations=[7, 8], sources=[2, 3])
    picture = until(
        lambda: (
            view.snapshot
            if view.snapshot
            and view.snapshot["hello"]["revision"] == session.revision
            and view.snapshot["hello"]["head"]
            else None
        )
    )
    say.Snapshot.model_validate_json(json.dumps(picture))
    hello = picture["hello"]
    assert (hello["head"]["layer"], hello["head"]["head"]) == (2, 1)
    assert hello["head"]["stamp"] == hello["attention"]["stamps"]["now"]
    assert hello["tiles"][0]["places"] == [[0, 0]]
    assert hello["grid"][0]["layers"] == [0, 1, 2, 3]
    assert picture["cut"] == []


def test_a_saved_page_holds_the_grid_and_the_locked_head(session: Session) -> None:
    view = Heard(session)
    view.lock("L3.H0")
    text = view.to_html()
    found = re.search(r'id="traits">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    hello = json.loads(found[1])["snapshot"]["hello"]
    assert hello["result"]["top"]
    assert hello["grid"][0]["layers"] == [0, 1, 2, 3]
    assert hello["head"]["layer"] == 3
    assert hello["tiles"]
    assert hello["scores"]["values"]["shape"] == [9, 4, 4]
    view.close()


def test_a_picture_too_large_first_makes_its_small_patterns_coarser(view: Heard) -> None:
    view.rest()
    hello = view._everything()
    names = [name for name, _ in view._cuts(hello)]
    assert names[:3] == ["fine grid", "tiles", "grid"]
    fine, coarse = hello.grid[0], view._cuts(hello)[0][1]["grid"][0]
    assert coarse.block == 2
    expected = fine.thumbs.reshape(4, 4, 10, 2, 10, 2).max((3, 5))
    assert np.array_equal(coarse.thumbs, expected)
    large = fine.model_copy(update={"thumbs": np.zeros((30, 9, 30, 30), np.uint8)})
    view._everything = lambda: hello.model_copy(update={"grid": [large]})  # type: ignore[method-assign]
    picture = view._picture()
    assert picture["cut"] == ["fine grid"]
    assert len(json.dumps(picture)) <= SNAPSHOT_BYTES


def test_a_closed_view_is_off_its_session_and_gone(session: Session) -> None:
    view = opened(session)
    view.ask("inspect", head=[1, 2])
    view.ask("assess", score="effect")
    gone, patterns = weakref.ref(view), view._patterns
    view.close()
    heard = len(view.heard)
    session.interventions = [Knockout("L1.H1")]
    view.say("hello")
    view.rest()
    assert len(view.heard) == heard
    assert session._observers == []
    until(lambda: patterns.nbytes == 0)
    del view
    until(lambda: gc.collect() >= 0 and gone() is None)
    until(lambda: not [t for t in threading.enumerate() if t.name == "patchclamp view"])
