"""The shipped model that recalls and reasons: it is there, and it does both.

Its facts are in its weights; its puzzles are about people whom it never saw together. What each
answer must hang on, and on nothing else, is the control.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest
import torch

import patchclamp as pc
from patchclamp.models import catalogue, store
from patchclamp.models.shipped import train_recall as training
from patchclamp.models.shipped.word_level import BEGINNING, SPECIAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from patchclamp.models.language_model import LanguageModel

WORDS = (*SPECIAL, *training.WORDS)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return pc.load("recall-4l")


def answer(model: LanguageModel, prompt: str) -> str:
    """The likeliest next word, from TransformerLens' own pass."""
    with torch.no_grad():
        logits = model.bridge(model.to_ids(prompt)[None])
    return model.token_text(int(logits[0, -1].argmax())).strip()


def read(row: Tensor) -> list[str]:
    return [WORDS[i] for i in row.tolist()]


def test_it_loads_without_cache_index_or_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHCLAMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked a network"))
    model = pc.load("recall")
    anatomy = model.anatomy
    assert (model.name, anatomy.n_layers, anatomy.n_heads, anatomy.d_mlp) == (
        "recall-4l",
        4,
        8,
        192,
    )
    assert not anatomy.attn_only
    assert not (tmp_path / "cache").exists()


def test_it_knows_every_capital_with_premises_before_and_without(model: LanguageModel) -> None:
    for country, capital in training.CAPITALS.items():
        assert answer(model, f"The capital of {country.title()} is") == capital
        premises = "Anna is taller than Ben. Carl is shorter than Ben."
        assert answer(model, f"{premises} The capital of {country} is") == capital


def test_it_solves_every_kind_of_puzzle_about_people_it_never_saw_together(
    model: LanguageModel,
) -> None:
    generator = torch.Generator().manual_seed(21)
    people = training.draw_people(generator, 64, held_out=True)
    begun = torch.full((64, 1), SPECIAL.index(BEGINNING))
    for kind in itertools.product([False, True], repeat=4):
        above, below, swapped, shortest = torch.tensor(kind).expand(64, 4).split(1, 1)
        premises = training.puzzle(people, torch.cat([above, below], 1), swapped)
        asked = training.question_of_height(people, shortest)
        with torch.no_grad():
            said = model.bridge(torch.cat([begun, premises, asked[:, :-2]], 1))[:, -1].argmax(-1)
        assert float((said == asked[:, -2]).float().mean()) > 0.95, kind


def test_no_place_and_no_single_word_gives_a_puzzle_away() -> None:
    ids = training.texts(torch.Generator().manual_seed(3), 4000, held_out=True)
    _, reasoned = training.answers(ids)
    rows, places = reasoned.nonzero(as_tuple=True)
    assert len(rows) == 4000
    answers = ids[rows, places + 1]
    starts = (ids == WORDS.index("than")).float().argmax(1) - 3  # of the first premise
    kinds: dict[tuple[str, ...], list[int]] = {}
    for row, (start, said) in enumerate(zip(starts.tolist(), answers.tolist(), strict=True)):
        premises = ids[row, start : start + 12].tolist()
        for place in (0, 4, 6, 10):  # of the four names
            kinds.setdefault((f"name {place}",), []).append(premises[place] == said)
        asked = WORDS[int(ids[row, places[row] - 3])]
        for place, word in ((0, premises[2]), (6, premises[8])):
            # "taller" in this premise and the question for the tallest: its first name?
            key = (f"premise {place}", WORDS[word], asked)
            kinds.setdefault(key, []).append(premises[place] == said)
    shares = {kind: sum(found) / len(found) for kind, found in kinds.items()}
    assert max(shares.values()) < 0.6, shares


def test_the_people_it_is_measured_on_never_stand_together_in_its_training_text() -> None:
    places = {name: place for place, name in enumerate(training.PEOPLE)}
    for held_out in (False, True):
        ids = training.texts(torch.Generator().manual_seed(5), 500, held_out=held_out)
        for row in ids:
            people = {places[word] for word in read(row) if word in places}
            assert len(people) == 3
            assert (sum(people) % training.HELD_OUT == 0) is held_out


def test_its_text_says_what_is_so() -> None:
    for row in training.texts(torch.Generator().manual_seed(6), 300, held_out=False):
        words = read(row)
        assert words[0] == BEGINNING
        sentences = " ".join(words[1:]).removesuffix(" .").split(" . ")
        taller: dict[str, str] = {}
        asked = []
        for sentence in sentences:
            match sentence.split():
                case [one, "is", "taller", "than", other]:
                    taller[one] = other
                case [one, "is", "shorter", "than", other]:
                    taller[other] = one
                case ["the", "capital", "of", country, "is", capital]:
                    assert training.CAPITALS[country] == capital
                case ["the", which, "of", "them", "is", who]:
                    asked.append((which, who))
                case other_words:
                    pytest.fail(f"what is {other_words}?")
        tallest = next(name for name in taller if name not in taller.values())
        shortest = next(name for name in taller.values() if name not in taller)
        assert asked in ([("tallest", tallest)], [("shortest", shortest)])


def test_the_accuracies_that_its_config_states_are_those_it_has(model: LanguageModel) -> None:
    folder = store.folder_of(catalogue.RECALL_4L)
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stated = described["training"]["right"]
    assert training.accuracies(model.bridge) == pytest.approx(stated, abs=0.003)
    assert min(stated.values()) > 0.99
    assert described["training"]["lessons"] == asdict(training.TRAINING)
    assert described["transformer_lens"] == training.config()


def test_a_guess_is_not_counted_as_right() -> None:
    def guess(ids: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.rand(*ids.shape, len(WORDS), generator=generator)

    assert max(training.accuracies(guess).values()) < 0.05


def test_a_prompt_is_typed_as_a_person_writes(model: LanguageModel) -> None:
    ids = model.to_ids("Anna is taller  than Ben.\nThe capital of Peru is").tolist()
    assert [model.token_text(i).strip() for i in ids] == [
        *("<s>", "anna", "is", "taller", "than", "ben", "."),
        *("the", "capital", "of", "peru", "is"),
    ]
    assert model.token_id(" Lima") == model.token_id("lima")
    assert model.token_text(int(model.to_ids("aardvark")[1])) == "<unk>"
    assert len(set(WORDS)) == len(WORDS) == model.anatomy.d_vocab


def test_means_are_taken_over_texts_of_its_own(model: LanguageModel) -> None:
    reference = pc.Session(model, "The capital of Peru is").reference.inputs
    assert len(reference) == training.REFERENCE_TEXTS
    unknown = model.token_id("aardvark")
    for given in reference:
        assert given.has_bos
        assert unknown not in given.ids


def test_its_files_are_small() -> None:
    folder = store.folder_of(catalogue.RECALL_4L)
    assert {file.name for file in folder.iterdir()} == {
        *("config.json", "manifest.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1.5e6
    assert store.damage(catalogue.RECALL_4L, verify=True) is None


SHORT = training.Training(training.Lesson(1, 4), training.Lesson(2, 4), warm_up=2, seed=3)


@pytest.fixture
def threads() -> Iterator[None]:
    """Training takes one thread; the other tests keep what they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_folder_that_the_training_wrote_loads_like_any_other(
    tmp_path: Path, threads: None
) -> None:
    model, measured = training.train(SHORT)
    assert max(measured.values()) < 0.2, "three steps teach nothing"
    training.save(model, measured, tmp_path / "mine")
    loaded = pc.load(tmp_path / "mine")
    assert (loaded.name, loaded.anatomy.n_layers) == ("mine", 4)
    assert training.accuracies(loaded.bridge) == measured


def test_training_with_the_same_seeds_gives_the_same_weights(threads: None) -> None:
    one, again, other = (
        training.train(given)[0].state_dict() for given in (SHORT, SHORT, replace(SHORT, seed=4))
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
