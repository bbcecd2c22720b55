"""A session of a module: one stimulus, with undo, observers and a file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp.errors import InputError, ModelError
from patchclamp.history import Change
from patchclamp.methods.aim import Aim, Drawing
from patchclamp.methods.objective import objective
from patchclamp.module_session import ModuleSession
from tests.unit import small_modules as small
from tests.unit import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from patchclamp.models.module_model import ModuleModel


@pytest.fixture(scope="module")
def pictures() -> ModuleModel:
    return small.convolutions()


def one(seed: int = 1) -> torch.Tensor:
    return small.draw(small.PICTURE, 1, seed=seed)[0]


def test_an_input_is_kept_as_it_was_given(pictures: ModuleModel) -> None:
    given = one()
    session = ModuleSession(pictures, given, name="a square")
    assert session.input is not None
    assert torch.equal(session.input, given)
    given *= 0  # the caller's own
    assert session.input.abs().max() > 0
    assert (session.input_name, session.revision) == ("a square", 0)
    assert ModuleSession(pictures).input is None


def test_an_input_is_one_step_of_undo_and_a_row_of_them_too(pictures: ModuleModel) -> None:
    session = ModuleSession(pictures)
    changes: list[Change] = []
    stop = session.observe(changes.append)
    session.set_input(one(1), name="one", coalesce="paint")
    session.set_input(one(2), name="two", coalesce="paint")
    session.input = one(3)
    assert [change.kind for change in changes] == ["input"] * 3
    assert session.input_name == ""
    assert session.undo()
    assert session.input_name == "two"
    assert session.undo()
    assert repr(session) == "ModuleSession(pictures, no input)"
    assert (session.can_undo, session.can_redo) == (False, True)
    assert not session.undo()
    session.redo()
    assert session.input_name == "two"
    assert changes[-1] == Change("redo", 6)
    stop()
    session.input = None
    assert len(changes) == 6


def aim_at(model: ModuleModel, what: Any, **options: Any) -> Aim:
    return Aim(objective(model, what), Drawing(size=64, **options))


def test_what_is_aimed_at_is_undone_like_an_input(pictures: ModuleModel) -> None:
    session = ModuleSession(pictures)
    session.set_aim(aim_at(pictures, "out:c1"))
    session.set_aim(aim_at(pictures, "out:c1"))  # the same: no change
    session.set_aim(aim_at(pictures, "out:c2"))
    assert session.revision == 2
    session.undo()
    assert session.aim == aim_at(pictures, "out:c1")


def test_jobs_run_on_the_models_one_worker(pictures: ModuleModel) -> None:
    session, other = ModuleSession(pictures), ModuleSession(pictures)
    assert session.engine is other.engine
    stimuli = small.draw(small.PICTURE)
    task = session.submit(lambda _: session.engine.run(stimuli, ["out"]).values["out"].shape)
    assert task.result(30) == (2, 5)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (small.draw(small.PICTURE, 2), r"one stimulus, not a batch of 2: .* stimuli\[0\]"),
        (torch.full((3, 12, 12), math.nan), "NaN"),
        (torch.full((3, 12, 12), 255.0), "the model takes 0 to 1"),
        (torch.zeros(3, 2, 2), "too small"),
    ],
)
def test_an_input_that_the_model_does_not_take_changes_nothing(
    pictures: ModuleModel, value: torch.Tensor, sentence: str
) -> None:
    session = ModuleSession(pictures, one(), name="before")
    with pytest.raises(InputError, match=sentence):
        session.set_input(value)
    assert (session.input_name, session.revision, session.can_undo) == ("before", 0, False)


def test_a_session_comes_back_from_its_file(pictures: ModuleModel, tmp_path: Path) -> None:
    session = ModuleSession(pictures, one(), name="a square")
    session.save(tmp_path / "session.json")
    again = ModuleSession.load(tmp_path / "session.json", pictures)
    assert again.input is not None
    assert torch.equal(again.input, one())
    assert again.input_name == "a square"
    ModuleSession(pictures).save(tmp_path / "empty.json")
    assert ModuleSession.load(tmp_path / "empty.json", pictures).input is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no JSON", "holds no session"),
        ("[1]", "holds no session"),
        ('{"format": 99, "kind": "module"}', "not a session of a module that this version reads"),
        ('{"format": 1, "input": "text"}', "not a session of a module"),
        ('{"format": 1, "kind": "module"}', "cannot be read"),
        (
            '{"format": 1, "kind": "module", "input": [[1.0]], "input_name": ""}',
            "takes stimuli of the shape",
        ),
    ],
)
def test_a_file_that_is_no_session_is_refused(
    pictures: ModuleModel, tmp_path: Path, content: str, sentence: str
) -> None:
    path = tmp_path / "session.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        ModuleSession.load(path, pictures)


def test_each_kind_of_model_is_sent_to_its_session() -> None:
    with pytest.raises(ModelError, match=r"takes a patchclamp\.ModuleModel, which says what a"):
        ModuleSession(torch.nn.Linear(2, 2))  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ModelError, match=r"session is patchclamp\.Session\(model, text\)"):
        ModuleSession(tiny.model("llama"))  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ModelError, match="not a str"):
        ModuleSession("resnet")  # type: ignore[arg-type] # wrong on purpose


def test_a_session_reads_as_what_it_is(pictures: ModuleModel) -> None:
    assert repr(ModuleSession(pictures)) == "ModuleSession(pictures, no input)"
    assert repr(ModuleSession(pictures, one(), name="cat")) == "ModuleSession(pictures, cat)"
    assert repr(ModuleSession(pictures, one())) == "ModuleSession(pictures, an input)"
