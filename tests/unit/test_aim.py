"""What a session aims at is undone with the rest, and comes back from the session's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import patchclamp as pc
from patchclamp.errors import InputError, PatchclampError
from patchclamp.methods.aim import Aim, Drawing, Dreaming
from patchclamp.methods.objective import objective
from patchclamp.module_session import ModuleSession
from tests.unit import small_modules as small
from tests.unit import tiny
from tests.unit.heard import HearsAll

if TYPE_CHECKING:
    from pathlib import Path

    from patchclamp.models.module_model import ModuleModel


class Heard(HearsAll, pc.ActivationMaximizer):
    """The real view, heard."""


@pytest.fixture
def pictures() -> ModuleModel:
    return small.model(small.Convolutions(), small.PICTURE)


def session_on() -> pc.Session:
    return pc.Session(tiny.model("llama"), tiny.ids(9))


def aim_at(model: ModuleModel, what: Any, **options: Any) -> Aim:
    return Aim(objective(model, what), Drawing(size=64, **options))


def test_a_language_models_aim_comes_back_from_the_file_and_undo_goes_back_to_it(
    tmp_path: Path,
) -> None:
    session, up = session_on(), torch.linspace(-1, 2, 32)
    session.define("up", "L2.resid_post", up)
    model = session.model
    units = (
        objective(model, "L1.N3@-1", "peak")
        - 0.5 * objective(model, ("logits", 5))
        + objective(model, ("L2.resid_post[up]", up / 3))
        + objective(model, ("L1.H2", up[: model.anatomy.d_head]))
    )
    aim = Aim(units, dreaming=Dreaming(length=5, penalties=(0.5, 2.0), seconds=1.5, seed=3))
    session.set_aim(aim)
    session.save(tmp_path / "s.json")
    loaded = pc.Session.load(tmp_path / "s.json", model)
    assert loaded.aim == aim
    assert loaded.to_json() == session.to_json()
    assert (loaded.can_undo, loaded.can_redo) == (False, False)
    loaded.set_aim(Aim(objective(model, "L0.N1")))
    loaded.add(pc.Clamp("L1.N3", 1.0))
    loaded.undo()
    loaded.undo()
    assert loaded.aim == aim


def test_a_function_that_is_maximised_goes_into_no_file() -> None:
    session = session_on()
    total = objective(session.model, lambda v: v["L1.mlp"].sum((1, 2)), paths="L1.mlp")
    session.set_aim(Aim(total))
    with pytest.raises(InputError, match=r"Python function.*which no file can hold"):
        session.to_json()


def test_a_modules_aim_comes_back_from_the_file_and_undo_goes_back_to_it(
    pictures: ModuleModel, tmp_path: Path
) -> None:
    session = ModuleSession(pictures, small.draw(small.PICTURE)[0])
    both = 2 * objective(pictures, ("second[line]", torch.linspace(-1, 2, 8)), "peak") - objective(
        pictures, "out:c1"
    )
    aim = aim_at(pictures, both, seed=7, steps=33, start="input", norm=3.5, l2=0.1)
    session.set_aim(aim)
    session.save(tmp_path / "session.json")
    again = ModuleSession.load(tmp_path / "session.json", pictures)
    assert again.aim == aim
    assert again.aim is not None
    assert again.aim.text == "2 × second[line] − out:c1"
    assert (again.can_undo, again.revision) == (False, 0)
    again.set_aim(aim_at(pictures, "out:c2"))
    assert again.undo()
    assert again.aim == aim


def test_a_function_of_a_module_goes_into_no_file(pictures: ModuleModel, tmp_path: Path) -> None:
    session = ModuleSession(pictures)
    total = objective(pictures, lambda v: v["out"].sum(1), paths="out", name="total")
    session.set_aim(Aim(total))
    with pytest.raises(InputError, match=r"total, has a Python function.*set_aim\(None\)"):
        session.save(tmp_path / "session.json")
    session.set_aim(None)
    session.save(tmp_path / "session.json")
    assert ModuleSession.load(tmp_path / "session.json", pictures).aim is None


@pytest.mark.parametrize(
    ("aim", "sentence"),
    [
        (7, "no aim"),
        ({"objective": None, "drawing": {"steps": 0}, "dreaming": {}}, "steps is a whole number"),
        ({"objective": None, "drawing": {"speed": 2}, "dreaming": {}}, "no option 'speed'"),
        ({"objective": None, "drawing": {}, "dreaming": {"top_k": 0}}, "top_k is a number"),
        ({"objective": {"terms": []}, "drawing": {}, "dreaming": {}}, "no objective"),
        (
            {
                "objective": {
                    "constant": 0.0,
                    "terms": [
                        {
                            "weight": 1.0,
                            "what": "out:c9",
                            "how": "channel",
                            "vector": None,
                            "token": None,
                        }
                    ],
                },
                "drawing": {},
                "dreaming": {},
            },
            "c0 to c4",
        ),
    ],
)
def test_an_aim_that_cannot_be_read_is_told(pictures: ModuleModel, aim: Any, sentence: str) -> None:
    data = ModuleSession(pictures).to_json() | {"aim": aim}
    with pytest.raises(PatchclampError, match=sentence):
        ModuleSession.from_json(data, pictures)


def test_a_file_of_before_aims_were_kept_is_read(pictures: ModuleModel) -> None:
    data = ModuleSession(pictures).to_json()
    del data["aim"]
    assert ModuleSession.from_json(data, pictures).aim is None


def test_a_view_of_a_saved_session_aims_and_draws_as_before(
    pictures: ModuleModel, tmp_path: Path
) -> None:
    view = Heard(pictures, "second:c2", seed=4)
    view.set_options(steps=3, size=16)
    drawn = view.climb()
    view.session.save(tmp_path / "session.json")
    again = Heard(ModuleSession.load(tmp_path / "session.json", pictures))
    state = again.ask("hello")["body"]["state"]
    assert [term["address"] for term in state["terms"]] == ["second:c2"]
    assert (state["options"]["seed"], state["options"]["size"]) == (4, 16)
    assert not state["can_undo"]
    assert torch.equal(again.climb(), drawn)


def test_a_view_of_a_saved_language_session_searches_as_before(
    tmp_path: Path,
) -> None:
    recall = pc.load("recall-4l")
    session = pc.Session(recall, "the capital of lesotho is")
    Heard(session, "L2.N7").set_options(length=4, iterations=1, population=2, children=4, seed=9)
    session.save(tmp_path / "session.json")
    again = Heard(pc.Session.load(tmp_path / "session.json", recall))
    state = again.ask("hello")["body"]["state"]
    assert [term["address"] for term in state["terms"]] == ["L2.N7"]
    assert (state["dreaming"]["length"], state["dreaming"]["seed"]) == (4, 9)
