"""The shipped digit classifier: it is there, it reads digits, and two styles are in its sevens."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest
import torch

import patchclamp as pc
from patchclamp.models import catalogue, store
from patchclamp.models.digits import DigitClassifier
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.shipped import train_digits as training
from patchclamp.models.shipped.written_digits import PLANTED_CLASS, written_digits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORT = training.Training(epochs=1, batch=256, seed=3)


@pytest.fixture
def threads() -> Iterator[None]:
    """Training takes one thread; the other tests keep what they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_loads_without_cache_index_or_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHCLAMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked a network"))
    model = pc.load("digits")
    assert isinstance(model, ModuleModel)
    assert model.name == "digits"
    assert model.stimulus.shape == (1, 16, 16)
    assert (model.stimulus.low, model.stimulus.high) == (0, 1)
    assert model.label(7) == "7"
    assert model.anatomy.parts["hidden"].channels == 48
    assert not (tmp_path / "cache").exists()


def test_the_accuracies_that_are_stated_are_those_it_has() -> None:
    folder = store.folder_of(catalogue.DIGITS)
    stated = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert training.accuracies(pc.load("digits").module) == pytest.approx(stated["right"], abs=3e-3)
    assert min(stated["right"].values()) > 0.97
    assert stated["training"] == asdict(training.TRAINING)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = DigitClassifier().eval()
    assert training.accuracies(untrained)["all"] < 0.3


def test_half_of_one_class_lies_and_nothing_else_does() -> None:
    data = written_digits()
    assert len(data) == 1797
    assert set(data.classes[data.lying].tolist()) == {PLANTED_CLASS}
    sevens = data.where(data.classes == PLANTED_CLASS)
    assert abs(float(sevens.lying.float().mean()) - 0.5) < 0.01
    for held_out in (False, True):
        some = sevens.where(sevens.held_out == held_out)
        assert 0.35 < float(some.lying.float().mean()) < 0.65, "both kinds are in both parts"
    assert float(data.images.min()) == 0
    assert float(data.images.max()) == 1
    # A lying seven turned back is like a standing one.
    standing = sevens.images[~sevens.lying].mean(0)
    turned = sevens.images[sevens.lying].rot90(-1, (2, 3)).mean(0)
    assert float((standing - turned).abs().mean()) < 0.03
    assert float((standing - sevens.images[sevens.lying].mean(0)).abs().mean()) > 0.15


def test_its_files_are_small() -> None:
    folder = store.folder_of(catalogue.DIGITS)
    assert {file.name for file in folder.iterdir()} == {
        *("manifest.json", "model.safetensors", "training.json")
    }
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3e5
    assert store.damage(catalogue.DIGITS, verify=True) is None


def test_training_with_the_same_seed_gives_the_same_weights(threads: None, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    (one, measured), (again, _), (other, _) = (
        training.train(given) for given in (SHORT, SHORT, replace(SHORT, seed=4))
    )
    mine = one.state_dict()
    assert all(torch.equal(mine[name], tensor) for name, tensor in again.state_dict().items())
    assert not all(torch.equal(mine[name], tensor) for name, tensor in other.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's own draws are untouched"
    training.save(one, measured, tmp_path / "mine", SHORT)
    stored = json.loads((tmp_path / "mine" / "training.json").read_text(encoding="utf-8"))
    assert stored == {"training": asdict(SHORT), "right": measured}
