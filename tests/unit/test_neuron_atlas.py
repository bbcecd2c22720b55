"""NeuronAtlas without a page: the table, the card, what a clamp does, the links."""

from __future__ import annotations

import io
import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from patchclamp.atlas.atlas import Atlas
from patchclamp.atlas.build import Reading
from patchclamp.errors import AddressError, AtlasError, InputError
from patchclamp.methods.decoded_weights import Decoder
from patchclamp.session import Session
from patchclamp.sites import Site
from patchclamp.views import atlas_chart
from patchclamp.views import messages as say
from patchclamp.views.atlas_chart import AtlasChart
from patchclamp.views.atlas_table import Brush, Sifting, sift
from patchclamp.views.messages import neuron_atlas
from patchclamp.views.neuron_atlas import NeuronAtlas
from patchclamp.views.neuron_clamp import NeuronClamp
from tests.unit.heard import HearsAll, until
from tests.unit.words import TEXTS, ids_of, reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patchclamp.models.language_model import LanguageModel

READING = Reading(name="words", context=10, shard_tokens=40)
LABELS = ["even" if text % 2 == 0 else "odd" for text in range(len(TEXTS))]


class Heard(HearsAll, NeuronAtlas):
    """The real view, heard."""


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    made = reader()
    with torch.no_grad():  # L2.N5 writes what reads w20
        unembed = made.bridge.unembed.original_component.weight
        made.bridge.blocks[2].mlp.out.original_component.weight[:, 5] = unembed[23]
    return made


@pytest.fixture(scope="module")
def atlas(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    folder = tmp_path_factory.mktemp("atlas") / "words"
    return Atlas.build(model, TEXTS, folder, labels=LABELS, reading=READING)


@pytest.fixture
def session(model: LanguageModel) -> Session:
    return Session(model, "w3 w4 w5 w6", reference=["w1 w2 w9", "w7 w8 w3 w30"])


@pytest.fixture
def view(session: Session, atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    # The plot has a test of its own: bundling Vega takes seconds.
    monkeypatch.setattr(NeuronAtlas, "_make_chart", lambda _self: None)
    made = Heard(session, atlas)
    made.ask("hello")
    yield made
    made.close()


def state(view: Heard) -> dict[str, Any]:
    found: dict[str, Any] = view.of("atlas")[-1]["state"]
    return found


def sifted(view: Heard, **asked: Any) -> dict[str, Any]:
    """Sift, and what is declared once it is done."""
    before = view._need().number
    assert view.ask("sift", **asked)["ok"]
    until(lambda: view.of("atlas") and state(view)["table"] > before)
    return state(view)


def addresses(view: Heard, start: int = 0, count: int = 400) -> list[str]:
    body = view.ask("page", start=start, count=count)["body"]
    assert body["table"] == view._need().number
    return [row["address"] for row in body["rows"]]


def test_every_gesture_is_handled() -> None:
    own = {
        part.__name__.lower()
        for part in say.Up.__subclasses__()
        if part.__module__ == neuron_atlas.__name__
    }
    assert own == {"sift", "page", "meet", "shade", "weigh", "hold", "build"}
    assert all(hasattr(NeuronAtlas, f"_on_{kind}") for kind in own)


def test_the_table_shows_the_most_special_neurons_first(view: Heard, atlas: Atlas) -> None:
    hello = view.ask("hello")["body"]
    assert hello["state"]["count"] == 4 * 48
    assert hello["rows"][0]["address"] == "L2.N5"
    assert hello["rows"][0]["token"] == " w20"
    assert len(hello["rows"]) == 60
    scores = atlas.neurons.sort_values("down_score", ascending=False, kind="stable")
    assert addresses(view) == scores["address"].tolist()
    assert addresses(view, 190, 50) == scores["address"].tolist()[190:]


def test_a_token_is_searched_among_all_neurons(view: Heard, model: LanguageModel) -> None:
    shown = sifted(view, token=" W20 ", order="z")
    assert shown["count"] == 4 * 48
    assert addresses(view)[0] == "L2.N5"
    z = torch.cat(Decoder(model).of_token(23)).abs()
    row = view.ask("page", start=7, count=1)["body"]["rows"][0]
    assert abs(row["z"]) == pytest.approx(float(z.sort(descending=True).values[7]), rel=1e-4)


def test_layers_scores_and_order_are_sifted_by(view: Heard, atlas: Atlas) -> None:
    shown = sifted(view, layers=[1, 2], least=0.5, order="firing", falling=False)
    known = atlas.neurons
    kept = known[known["layer"].between(1, 2) & (known["down_score"] >= 0.5)]
    kept = kept.sort_values("firing_rate", kind="stable")
    assert shown["count"] == len(kept) > 3
    assert addresses(view) == kept["address"].tolist()
    assert shown["sifted"]["layers"] == [1, 2]


def test_a_brush_sifts_until_it_is_taken_away(view: Heard, atlas: Atlas) -> None:
    known = atlas.neurons
    view._brush(Brush((0.0, 0.4), (-1.0, 1.0)))
    inside = (known["firing_rate"] <= 0.4) & known["down_score"].between(-1, 1)
    until(lambda: view.of("atlas") and state(view)["count"] == int(inside.sum()))
    assert 0 < int(inside.sum()) < len(known)
    assert sifted(view, order="mean")["count"] == int(inside.sum())
    assert sifted(view, brushed=False)["count"] == len(known)


def test_what_is_not_known_comes_last_either_way(atlas: Atlas) -> None:
    known = atlas.neurons.copy()
    known.loc[[3, 9], "down_score"] = np.nan
    for falling in (True, False):
        table = sift(known, Sifting(falling=falling), None, 0)
        assert sorted(table.order[-2:].tolist()) == [3, 9]


def test_a_token_that_is_none_is_a_sentence_and_the_table_stays(view: Heard) -> None:
    before = addresses(view)
    view.say("sift", token="w99")
    failed = view.hear(lambda m: m["kind"] == "status" and m["error"] is not None)
    assert "No token of words reads 'w99'" in failed["error"]
    assert addresses(view) == before
    with pytest.raises(InputError, match="There are ' w-3'"):
        view.sift("w")


def test_a_card_holds_what_the_atlas_and_the_weights_say(view: Heard, atlas: Atlas) -> None:
    card = view.ask("meet", address="L2.N5")["body"]["card"]
    assert card["row"]["address"] == "L2.N5"
    down = next(s for s in card["decoded"] if s["matrix"] == "down" and s["sign"] == 1)
    assert down["tokens"][0]["text"] == " w20"
    assert card["examples"][0]["value"] == pytest.approx(
        float(atlas.row("L2.N5")["largest"]), rel=1e-5
    )
    histogram = card["histogram"]
    assert float(histogram["counts"].sum()) == sum(len(ids_of(text)) for text in TEXTS)
    assert histogram["quantiles"][2] == pytest.approx(float(atlas.row("L2.N5")["q50"]))
    assert {near["address"] for near in card["labels"]} == {"even", "odd"}
    assert all(near["address"].startswith("L3.") for near in card["feeds"])
    assert len(card["writes_like"]) == len(card["fires_like"]) == 8
    assert state(view)["selected"] == "L2.N5"
    assert view.ask("meet", address=None)["body"]["card"] is None


def test_what_python_shows_the_page_hears_of(view: Heard) -> None:
    view.meet("L2.N5")
    until(lambda: view.of("card"))
    assert view.of("card")[-1]["card"]["row"]["address"] == "L2.N5"
    view.weigh("L2.N5")
    until(lambda: view.of("card")[-1]["weighed"] is not None)
    view.meet(None)
    until(lambda: view.of("card")[-1]["card"] is None)


def test_a_lost_file_is_a_sentence_on_a_card_that_has_the_rest(
    session: Session, atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NeuronAtlas, "_make_chart", lambda _self: None)
    shutil.copytree(atlas.folder, tmp_path / "cut")
    (tmp_path / "cut" / "sample.safetensors").unlink()
    view = Heard(session, tmp_path / "cut")
    view.ask("hello")
    card = view.ask("meet", address="L2.N5")["body"]["card"]
    assert card["fires_like"] == []
    assert "has lost sample.safetensors" in card["note"]
    assert len(card["writes_like"]) == 8
    view.close()


def test_an_example_is_shaded_by_what_the_model_does_there(
    view: Heard, model: LanguageModel
) -> None:
    example = view.ask("meet", address="L1.N7")["body"]["card"]["examples"][0]
    shade = view.ask("shade", address="L1.N7", place=example["place"])["body"]
    assert float(shade["values"][shade["at"]]) == pytest.approx(example["value"], rel=1e-4)
    assert shade["tokens"][shade["at"]]["text"] == example["token"]
    ids = torch.tensor([[1, *(token["id"] for token in shade["tokens"])]])
    with torch.no_grad():
        _, cache = model.bridge.run_with_cache(
            ids, names_filter=[model.anatomy.hook(Site("neuron", 1, 7, "post"))]
        )
    truth = next(iter(cache.values()))[0, 1:, 7]
    torch.testing.assert_close(torch.tensor(shade["values"]), truth, rtol=1e-4, atol=1e-5)


def test_clamping_a_found_neuron_moves_its_token_beside_random_ones(view: Heard) -> None:
    body = view.ask("weigh", address="L2.N5", token=23)["body"]
    assert body["token"] == " w20"
    assert body["neuron"]["up"] > 0 > body["neuron"]["down"]
    assert len(body["controls"]) == 5
    assert all(each["address"].startswith("L2.") for each in body["controls"])
    moved = max(abs(each["up"] - each["down"]) for each in body["controls"])
    assert body["neuron"]["up"] - body["neuron"]["down"] > moved
    table = view.weigh("L2.N5")
    assert table["up"][0] == pytest.approx(body["neuron"]["up"])
    assert table["control"].tolist() == [False] + [True] * 5


def test_a_held_neuron_is_in_the_session_and_in_a_clamp_under_the_card(
    view: Heard, session: Session
) -> None:
    assert view.ask("hold", address="L2.N5")["ok"]
    assert [str(iv.site) for iv in session.interventions] == ["L2.N5@-1"]
    first = view.hold("L1.N1")
    assert isinstance(first, NeuronClamp)
    assert first.session is session
    assert view.hold("L1.N2") is first
    assert id(view.clamp) == id(first)
    for left in ("L1.N1@-1", "L2.N5@-1"):
        view.ask("undo")
        assert str(session.interventions[-1].site) == left
    assert state(view)["held"]


def test_an_atlas_is_built_from_the_view_and_shown(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NeuronAtlas, "_make_chart", lambda _self: None)
    session = Session(model, "w3 w4")
    view = Heard(session, texts=TEXTS, folder=tmp_path / "new", reading=READING, decode=["down"])
    hello = view.ask("hello")["body"]
    assert hello["state"]["atlas"] is None
    assert "192 neurons" in hello["state"]["plan"]
    assert not view.ask("page", start=0, count=5)["ok"]
    assert view.ask("build")["ok"]
    until(lambda: view.of("atlas") and state(view)["atlas"] is not None)
    assert state(view)["atlas"]["matrices"] == ["down"]
    assert state(view)["count"] == 4 * 48
    assert any(m["job"] == "atlas" for m in view.of("progress"))
    view.close()
    again = NeuronAtlas.__new__(Heard)
    again.__init__(session, folder=tmp_path / "new")  # type: ignore[misc] # opened, not built
    assert again.atlas.manifest.corpus_name == "words"
    again.close()


def test_another_models_atlas_is_refused(atlas: Atlas) -> None:
    with pytest.raises(AtlasError, match="other weights"):
        Heard(Session(reader("gpt2"), "w3"), atlas)


def test_what_is_not_there_is_a_sentence(view: Heard) -> None:
    reply = view.ask("meet", address="L9.N9")
    assert "L0.N0 to L3.N47" in reply["error"]
    assert reply["field"] == "address"
    with pytest.raises(AddressError):
        view.meet("L1.H1")
    view.say("sift", matrix="down", order="z")
    assert addresses(view)


def luminance(grey: float) -> float:
    """Relative luminance of a grey of 0 to 255, as WCAG 2 defines it."""
    share = grey / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def test_the_words_of_the_plot_can_be_read_in_both_themes(root: Path) -> None:
    style = (root / "js" / "src" / "neuron-atlas.css").read_text(encoding="utf-8")
    found = re.search(r'theme="dark"\] \.pc-saved-chart {\s*filter: brightness\((.*?)\)', style)
    assert found is not None
    grey = int(atlas_chart._GREY[1:3], 16)
    assert "#" + 3 * atlas_chart._GREY[1:3] == atlas_chart._GREY
    assert (luminance(255) + 0.05) / (luminance(grey) + 0.05) >= 4.5
    lighter = luminance(grey * float(found[1])) + 0.05
    for ground in (0x11, 0x21):  # JupyterLab's dark grounds
        assert lighter / (luminance(ground) + 0.05) >= 4.5


def test_the_plot_tells_what_is_brushed_rings_what_is_found_and_is_saved(atlas: Atlas) -> None:
    told: list[Brush | None] = []
    plot = AtlasChart(atlas.neurons, "down", told.append)
    points = plot.widget.spec["datasets"]["neurons"]
    assert len(points) == 4 * 48
    plot.mark(["L2.N5"])
    assert plot.widget.params.marked == ["L2.N5"]
    # What the page sends when somebody has brushed.
    plot.widget._vl_selections = {
        "brush": {"value": {"firing": [0.5, 0.1], "score": [1.0, 4.0]}, "store": []}
    }
    assert told[-1] == Brush((0.1, 0.5), (1.0, 4.0))
    picture = Image.open(io.BytesIO(plot.png().tobytes()))
    assert picture.width > 300
    plot.close()
