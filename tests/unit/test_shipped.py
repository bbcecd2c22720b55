"""The shipped induction model: it is there without a network, and it does what it was trained for.

Its words in a random order are its text; what it cannot know is the control.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.functional import cross_entropy

import patchclamp as pc
from patchclamp.engine.engine import Engine
from patchclamp.errors import ModelError
from patchclamp.methods.head_scores import random_induction
from patchclamp.models import catalogue, store
from patchclamp.models.shipped import train_induction as training
from patchclamp.models.shipped import word_level

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from patchclamp.models.language_model import LanguageModel

LENGTH = 40
UNIFORM = math.log(len(training.WORDS))
FIRST = len(word_level.SPECIAL)  # the id of the first word


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return pc.load("induction-2l")


def each_loss(model: LanguageModel, ids: Tensor) -> Tensor:
    """Float[sequence, pos - 1], nats of each next word, from TransformerLens' own pass."""
    with torch.no_grad():
        logits = model.bridge(ids[:, :-1])
    return cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")


def words(seed: int, count: int = 2) -> Tensor:
    """LongTensor[64, 1 + count * LENGTH]: a beginning and random words."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(FIRST, FIRST + len(training.WORDS), (64, 1 + count * LENGTH),
                        generator=generator)  # fmt: skip
    ids[:, 0] = word_level.SPECIAL.index(word_level.BEGINNING)
    return ids


def test_it_loads_without_cache_index_or_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHCLAMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked a network"))
    model = pc.load("induction-2l")
    assert (model.name, model.anatomy.n_layers, model.anatomy.attn_only) == (
        "induction-2l",
        2,
        True,
    )
    assert not (tmp_path / "cache").exists()
    assert store.pull(catalogue.INDUCTION_2L) == store.folder_of(catalogue.INDUCTION_2L)


def test_it_foretells_repeated_words_and_nothing_else(model: LanguageModel) -> None:
    ids = words(seed=11)
    ids[:, 1 + LENGTH :] = ids[:, 1 : 1 + LENGTH]
    loss = each_loss(model, ids).mean(0)
    first, second = float(loss[:LENGTH].mean()), float(loss[LENGTH + 1 :].mean())
    assert first > UNIFORM, "nobody can foretell random words"
    assert second < 0.1 * first
    # The same positions of words that are not repeated: not a matter of where they stand.
    other = each_loss(model, words(seed=12)).mean(0)
    assert float(other[LENGTH + 1 :].mean()) > UNIFORM


@pytest.mark.parametrize("start", [5, 30, 60])
def test_a_stretch_is_continued_wherever_it_stood(model: LanguageModel, start: int) -> None:
    ids = words(seed=start)
    copied = ids[:, start : start + 8].clone()
    ids[:, -8:] = copied
    loss = each_loss(model, ids).mean(0)
    assert float(loss[-7:].mean()) < 1.0
    assert float(loss[-17:-8].mean()) > UNIFORM


def test_a_second_load_is_the_same_model(model: LanguageModel) -> None:
    again = pc.load("induction")
    ids = words(seed=3)
    with torch.no_grad():
        assert torch.equal(model.bridge(ids), again.bridge(ids))


def test_the_losses_that_its_config_states_are_those_it_has(model: LanguageModel) -> None:
    folder = store.folder_of(catalogue.INDUCTION_2L)
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stated = described["training"]["nats_on_words_that_come_twice"]
    assert training.losses(model.bridge) == pytest.approx(stated, rel=1e-3)
    assert described["training"]["lessons"] == {
        "repetition": asdict(training.REPETITION),
        "themes": asdict(training.THEMES),
    }
    assert described["transformer_lens"] == training.config()


def test_three_heads_do_the_induction_and_the_others_of_their_layer_something_else(
    model: LanguageModel,
) -> None:
    """What the second lesson is for: a control that would be no control if they did nothing."""
    engine = Engine.of(model)
    score = engine.queue.submit(lambda _: random_induction(engine, seed=5)).result()
    kept = set(training.KEPT)
    assert {divmod(i, training.HEADS) for i in (score > 0.8).flatten().nonzero().flatten().tolist()
            } == {(1, head) for head in kept}  # fmt: skip
    assert float(score.flatten().sort().values[-len(kept) - 1]) < 0.2
    # On a text of few words the others foretell what is no repeat; on repeats they are not needed.
    generator = torch.Generator().manual_seed(6)
    themed = training.themed_words(generator, 32, 96)
    themed[:, 0] = word_level.SPECIAL.index(word_level.BEGINNING)
    others = [head for head in range(training.HEADS) if head not in kept]
    rise = float((each_loss(without(model, others), themed) - each_loss(model, themed)).mean())
    assert rise > 0.05
    ids = words(seed=11)
    ids[:, 1 + LENGTH :] = ids[:, 1 : 1 + LENGTH]
    second = each_loss(without(model, others), ids).mean(0)[LENGTH + 1 :].mean()
    assert float(second) < 1.0
    assert float(each_loss(without(model, sorted(kept)), ids).mean(0)[LENGTH + 1 :].mean()) > 5


def without(model: LanguageModel, heads: list[int]) -> LanguageModel:
    """The model with some heads of its second layer writing nothing."""
    copy = pc.load(model.name)
    weight = copy.bridge.blocks[1].attn.o.original_component.weight
    width = training.WIDTH // training.HEADS
    with torch.no_grad():
        for head in heads:
            weight[:, head * width : (head + 1) * width] = 0
    return copy


def test_a_prompt_reads_as_words_one_token_each(model: LanguageModel) -> None:
    text = "cat dog  house\ncat"
    ids = model.to_ids(text).tolist()
    assert [model.token_text(i) for i in ids] == ["<s>", " cat", " dog", " house", " cat"]
    assert model.text(ids[1:]) == "cat dog house cat"
    assert model.token_id(" cat") == model.token_id("cat") == ids[1]
    assert model.token_text(int(model.to_ids("aardvark")[1])) == "<unk>"
    assert len(set(training.WORDS)) == len(training.WORDS)
    assert all(len(model.to_ids(word)) == 2 for word in training.WORDS)


def test_means_are_taken_over_texts_of_its_own_words(model: LanguageModel) -> None:
    reference = pc.Session(model, "cat dog").reference.inputs
    assert len(reference) == 16
    for given in reference:
        assert given.has_bos
        assert len(set(given.ids)) == len(given.ids) == 1 + training.REFERENCE_WORDS
        assert model.token_id("aardvark") not in given.ids
    other = pc.Session(model, "cat dog", reference=["tree boat"]).reference.inputs
    assert [len(given.ids) for given in other] == [3]


def test_its_files_are_small(model: LanguageModel) -> None:
    folder = store.folder_of(catalogue.INDUCTION_2L)
    assert {file.name for file in folder.iterdir()} == {
        *("config.json", "manifest.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2e6
    assert store.damage(catalogue.INDUCTION_2L, verify=True) is None


def test_a_damaged_installation_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / catalogue.INDUCTION_2L.name
    shutil.copytree(store.folder_of(catalogue.INDUCTION_2L), copy)
    monkeypatch.setattr(store, "SHIPPED", tmp_path)
    assert pc.load("induction-2l").anatomy.n_heads == 8
    os.truncate(copy / "model.safetensors", 1000)
    for fetch in (pc.load, lambda _: store.pull(catalogue.INDUCTION_2L)):
        with pytest.raises(ModelError, match=r"damaged: model.safetensors has 1000.*Install patch"):
            fetch("induction-2l")


SHORT = training.Lesson(steps=1, sequences=2, warm_up=1, seed=3)


@pytest.fixture
def threads() -> Iterator[None]:
    """Training takes one thread; the other tests keep what they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_folder_that_the_training_wrote_loads_like_any_other(
    tmp_path: Path, threads: None
) -> None:
    model, measured = training.train(SHORT, SHORT)
    training.save(model, measured, tmp_path / "mine")
    loaded = pc.load(tmp_path / "mine", dtype="bfloat16")
    assert (loaded.name, loaded.dtype) == ("mine", torch.bfloat16)
    (tmp_path / "mine" / "config.json").write_text(
        '{"architectures": ["TransformerLensNative"], "transformer_lens": {"d_model": 3}}'
    )
    with pytest.raises(ModelError, match="holds no model that can be loaded"):
        pc.load(tmp_path / "mine")


def test_training_with_the_same_seeds_gives_the_same_weights(threads: None) -> None:
    other_text = replace(SHORT, seed=4)
    one, again, other = (
        training.train(SHORT, themes)[0].state_dict() for themes in (SHORT, SHORT, other_text)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_training_text_is_random_words_of_which_stretches_come_again() -> None:
    for words_of in (training.random_words, training.themed_words):
        generator = torch.Generator().manual_seed(0)
        plain = words_of(generator, 64, training.CONTEXT)
        ids = training.repeat_stretches(plain.clone(), generator)
        assert (ids[:, 0] == word_level.SPECIAL.index(word_level.BEGINNING)).all()
        assert (ids[:, 1:] >= FIRST).all()
        assert len(ids[:, 1:].unique()) == len(training.WORDS)
        assert share_seen_before(ids) > 0.4
        assert share_seen_before(plain) < 0.05
    assert max(len(row.unique()) for row in ids) <= training.THEME + 1


def share_seen_before(ids: Tensor) -> float:
    """How many of the pairs of neighbours stood somewhere before in their sequence."""
    seen = 0
    for row in ids.tolist():
        pairs = list(itertools.pairwise(row))
        seen += len(pairs) - len(set(pairs))
    return seen / (ids.shape[0] * (ids.shape[1] - 1))


@pytest.mark.slow
def test_its_source_gives_its_logits_without_patchclamp(
    model: LanguageModel, tmp_path: Path
) -> None:
    ids = words(seed=4)[:1]
    assert model.source is not None
    program = tmp_path / "source.py"
    program.write_text(
        f"{model.source}\n"
        "import sys\n"
        f"with torch.no_grad():\n    logits = model(torch.tensor({ids.tolist()}))\n"
        "from safetensors.torch import save_file\n"
        "save_file({'logits': logits.contiguous()}, 'logits.safetensors')\n"
        "assert not any(name.startswith('patchclamp') for name in sys.modules)\n",
        encoding="utf-8",
    )
    subprocess.run([sys.executable, program], cwd=tmp_path, check=True)
    from safetensors.torch import load_file

    with torch.no_grad():
        assert torch.equal(load_file(tmp_path / "logits.safetensors")["logits"], model.bridge(ids))
