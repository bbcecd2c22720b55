"""An atlas holds what its parts give, goes on where it was cut off, and is never mixed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from patchclamp.atlas import tables
from patchclamp.atlas.atlas import Atlas
from patchclamp.atlas.build import CHECKPOINT, Decoding, Progress, Reading, build, plan_of
from patchclamp.atlas.manifest import Manifest, weights_digest
from patchclamp.engine.engine import Engine
from patchclamp.engine.surroundings import Reference, reference_inputs
from patchclamp.errors import AddressError, AtlasError, InputError, Stopped
from patchclamp.methods.corpus_pass import cut
from patchclamp.methods.decoded_weights import TOP, Decoder
from patchclamp.methods.label_statistics import label_statistics
from patchclamp.methods.massive import massive_neurons
from tests.unit import letters
from tests.unit.words import TEXTS, ids_of, reader

if TYPE_CHECKING:
    from pathlib import Path

    from patchclamp.engine.queue import Task
    from patchclamp.models.language_model import LanguageModel

READING = Reading(name="words", context=10, shard_tokens=40)
LABELS = ["even" if text % 2 == 0 else "odd" for text in range(len(TEXTS))]
UNITS = 4 * 48


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


def test_a_row_holds_what_the_parts_give(atlas: Atlas, model: LanguageModel) -> None:
    assert len(atlas.neurons) == UNITS
    decoded = list(Decoder(model).decode("down"))[-1]
    np.testing.assert_allclose(atlas.neurons["down_score"], decoded.score, rtol=1e-5)
    row = atlas.row("L2.N5")
    assert [row["down_token"]] == [" w20"]
    assert atlas.neurons["address"][int(atlas.neurons["down_score"].argmax())] == "L2.N5"
    largest = atlas.examples("L2.N5").query("group == 'top' and rank == 0").iloc[0]
    assert float(largest["value"]) == pytest.approx(float(row["largest"]), rel=1e-5)
    assert set(atlas.tables) == set(tables.TABLES)


def test_massive_neurons_are_those_of_the_reference_set(tmp_path: Path) -> None:
    model = reader()
    mlp = model.bridge.blocks[1].mlp
    with torch.no_grad():  # L1.N3 is a thousand times what it was, and writes a thousandth of it
        getattr(mlp, "in").original_component.weight[3] *= 1000
        mlp.out.original_component.weight[:, 3] /= 1000
    found = Atlas.build(model, TEXTS[:3], tmp_path / "massive", decode=[], reading=READING)
    engine = Engine.of(model)
    reference = Reference(engine, reference_inputs(model, None))
    known = engine.queue.submit(lambda _stop: massive_neurons(reference, model.anatomy)).result()
    assert (1, 3) in known
    marked = found.neurons.loc[found.neurons["massive"], "address"].tolist()
    assert sorted(marked) == sorted(f"L{layer}.N{index}" for layer, index in known)


def test_an_example_is_shown_in_its_own_text(atlas: Atlas) -> None:
    for example in atlas.examples("L1.N7").to_dict("records"):
        words = TEXTS[example["document"]].split()
        assert example["token"].strip() == words[example["position"]]
        around = f"{example['before']}{example['token']}{example['after']}".split()
        assert " ".join(around) in TEXTS[example["document"]]
    groups = set(atlas.examples("L1.N7")["group"])
    assert groups == {"top", *tables.GROUPS}


class Bytes:
    """A tokenizer whose tokens are bytes: of most characters each is a part."""

    name_or_path = ""
    bos_token_id = eos_token_id = None

    def __call__(self, text: str, **_options: object) -> Any:
        return type("Tokens", (), {"input_ids": list(text.encode())})()

    def convert_ids_to_tokens(self, token: int) -> str:
        return f"<{token}>"

    def decode(self, tokens: list[int], **_options: object) -> str:
        return bytes(tokens).decode(errors="replace")


FOREIGN = "né Straße Привет 🦜 👩‍🔬 a"


def test_parts_of_a_character_are_spelled_as_the_character() -> None:
    model: Any = SimpleNamespace(anatomy=SimpleNamespace(d_vocab=256))
    model.text = Bytes().decode
    model.token_text = lambda token: Bytes().decode([token])
    token = np.frombuffer(FOREIGN.encode(), dtype=np.uint8).astype(np.int32)
    whole = tables.spelled(token, np.zeros(len(token), dtype=np.int32), model)
    assert "".join(whole) == FOREIGN
    assert [text for text in whole if text] == list(FOREIGN)  # each with its first token
    # Where a window ends in the middle of a character, both halves stay what they are.
    cut_through = FOREIGN.encode().index("ß".encode()) + 1
    windows = (np.arange(len(token)) >= cut_through).astype(np.int32)
    halves = "".join(tables.spelled(token, windows, model))
    assert halves == FOREIGN.replace("ß", "\ufffd\ufffd")
    # Parts that never become a character are no reason to look for ever.
    parts = np.full(100, 0x80, dtype=np.int32)
    assert set(tables.spelled(parts, np.zeros(100, dtype=np.int32), model)) == {"\ufffd"}


def test_an_example_of_a_part_of_a_character_reads_as_its_text(tmp_path: Path) -> None:
    texts = ["a be bé.b", "éé a", "cab é é b"]
    model = letters.model()
    reading = Reading(name="letters", context=20, shard_tokens=40)
    found = Atlas.build(model, texts, tmp_path / "letters", decode=[], reading=reading)
    pieces = found.query("SELECT * FROM tokens WHERE token IN (58, 59)")  # the two bytes of é
    assert len(pieces) == 10
    shown = []
    for neuron in range(48):
        for example in found.examples(f"L1.N{neuron}").to_dict("records"):
            around = f"{example['before']}{example['token']}{example['after']}"
            assert around == texts[example["document"]]
            if example["place"] in set(pieces["place"]):
                assert example["token"] == "é"
                shown.append(example["place"])
    assert set(shown) == set(pieces["place"])


def test_the_histogram_counts_every_token(atlas: Atlas) -> None:
    histogram = atlas.histogram("L3.N1")
    assert histogram["count"].sum() == sum(len(ids_of(text)) for text in TEXTS)
    assert histogram["value"].is_monotonic_increasing


def test_a_neuron_is_found_by_what_it_writes_whatever_the_case_and_once(atlas: Atlas) -> None:
    for written in ("w20", " W20 "):
        found = atlas.find(written)
        assert found["address"][0] == "L2.N5"
        assert found["address"].is_unique
    assert atlas.find("no such word").empty


def test_labels_are_told_apart_as_by_their_own_method(atlas: Atlas) -> None:
    table = atlas.query("SELECT * FROM labels WHERE label = $label", label="odd")
    assert len(table) == UNITS
    assert table["texts"].unique().tolist() == [7]
    assert table["average_precision"].between(0, 1).all()


def test_the_same_again_is_the_same_atlas(
    atlas: Atlas, model: LanguageModel, tmp_path: Path
) -> None:
    again = Atlas.build(model, TEXTS, tmp_path / "again", labels=LABELS, reading=READING)
    for table in tables.TABLES:
        one, other = (each.query(f"SELECT * FROM {table}") for each in (atlas, again))  # noqa: S608 (our own names)
        assert one.equals(other), table


def test_a_stopped_build_goes_on_and_ends_as_an_unbroken_one(
    atlas: Atlas, model: LanguageModel, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    told: list[Progress] = []
    plan = plan_of(model, TEXTS, folder, labels=LABELS, reading=READING)
    engine = Engine.of(model)
    # A shard of 40 tokens is several batches; stop inside the third.
    task: Task[None] = engine.queue.submit(
        lambda _stop: build(engine, plan, lambda: bool(told) and told[-1].done > 100, told.append)
    )
    with pytest.raises(Stopped):
        task.result()
    with pytest.raises(AtlasError, match="not finished"):
        Atlas(folder)
    finished = read_shards(folder)
    assert plan.windows is not None
    assert 0 < len(finished) < len(plan.windows.shards)
    ran: list[Progress] = []
    resumed = Atlas.build(model, TEXTS, folder, labels=LABELS, reading=READING, tell=ran.append)
    # Finished shards are not read again.
    assert min(p.done for p in ran if p.what == "reading the corpus") > 40 * len(finished)
    one, other = atlas.neurons, resumed.neurons
    assert one.drop(columns="address").equals(other.drop(columns="address"))
    assert not (folder / CHECKPOINT).exists()


def read_shards(folder: Path) -> list[int]:
    from safetensors.torch import load_file

    return [int(number) for number in load_file(folder / CHECKPOINT)["shards"]]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit import letters
from tests.unit.words import TEXTS, reader
from patchclamp.atlas.build import build, plan_of, Reading
from patchclamp.engine.engine import Engine
model = reader()
plan = plan_of(model, TEXTS, sys.argv[1], decode=[],
    reading=Reading(name="words", context=10, shard_tokens=40))
def tell(progress):
    if progress.done > 130:
        os.kill(os.getpid(), signal.SIGKILL)
engine = Engine.of(model)
engine.queue.submit(lambda stop: build(engine, plan, stop, tell)).result()
"""


def test_a_killed_build_goes_on_without_reading_a_finished_shard_again(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == -signal.SIGKILL
    finished = read_shards(folder)
    assert finished
    model = reader()
    engine = Engine.of(model)
    # Count what is really run: rows that enter the model's embedding.
    rows = 0

    def count(_module: object, given: tuple[torch.Tensor, ...]) -> None:
        nonlocal rows
        rows += len(given[0])

    def watch(_stop: object) -> None:
        root: Any = engine.passes.shells["plain"].root
        root.get_input_embeddings().register_forward_pre_hook(count)

    engine.queue.submit(watch).result()
    resumed = Atlas.build(model, TEXTS, folder, decode=[], reading=READING)
    windows = cut(model, TEXTS, context=10, shard_tokens=40)
    left = [shard for number, shard in enumerate(windows.shards) if number not in finished]
    # And the reference set, which says which neurons are massive.
    assert rows == sum(map(len, left)) + len(model.reference)
    whole = Atlas.build(reader(), TEXTS, tmp_path / "whole", decode=[], reading=READING)
    assert whole.neurons.equals(resumed.neurons)


def test_another_corpus_or_model_is_refused_and_nothing_is_lost(
    atlas: Atlas, model: LanguageModel
) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in atlas.folder.iterdir())
    with pytest.raises(AtlasError, match=r"corpus.*never mixed"):
        Atlas.build(model, TEXTS[1:], atlas.folder, labels=LABELS[1:], reading=READING)
    other = reader("gpt2")
    with pytest.raises(AtlasError, match="weights"):
        Atlas.build(other, TEXTS, atlas.folder, labels=LABELS, reading=READING)
    with pytest.raises(AtlasError, match="other weights"):
        Atlas(atlas.folder, other)
    after = sorted((path.name, path.stat().st_mtime_ns) for path in atlas.folder.iterdir())
    assert before == after
    assert Atlas(atlas.folder, model).manifest == atlas.manifest


def test_a_weight_that_was_trained_makes_another_model() -> None:
    model = reader()
    before = weights_digest(model)
    with torch.no_grad():
        model.bridge.blocks[0].mlp.out.original_component.weight[0, 0] += 1e-3
    assert weights_digest(model) != before


def test_a_full_disk_is_a_sentence_and_what_was_finished_stays(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, written = tmp_path / "full", tables.written
    shards = 0

    def fails(path: Path, write: object) -> None:
        nonlocal shards
        shards += path.name == CHECKPOINT
        if shards == 3:

            def full(_path: Path) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            written(path, full)
        written(path, write)  # type: ignore[arg-type]

    monkeypatch.setattr(tables, "written", fails)
    with pytest.raises(AtlasError, match=r"the disk is full.*it goes on"):
        Atlas.build(model, TEXTS, folder, decode=[], reading=READING)
    assert len(read_shards(folder)) == 2
    assert not list(folder.glob("*.part"))
    monkeypatch.setattr(tables, "written", written)
    assert len(Atlas.build(model, TEXTS, folder, decode=[], reading=READING).neurons) == UNITS


def test_only_weights_can_be_decoded(model: LanguageModel, tmp_path: Path) -> None:
    found = Atlas.build(model, None, tmp_path / "weights", decode=["up"])
    assert found.tables == ("neurons", "decoded")
    assert "up_score" in found.neurons
    with pytest.raises(AtlasError, match="no corpus was read"):
        found.examples("L0.N0")


def test_some_layers_can_be_decoded_and_that_is_another_atlas(
    model: LanguageModel, atlas: Atlas, tmp_path: Path
) -> None:
    told: list[Progress] = []
    folder = tmp_path / "some"
    decoding = Decoding(["down"], layers=[2, 3])
    found = Atlas.build(model, None, folder, decode=decoding, tell=told.append)
    assert [(p.done, p.total) for p in told] == [(48, 96), (96, 96)]
    scores = found.neurons["down_score"].to_numpy()
    known = atlas.neurons["down_score"].to_numpy()
    np.testing.assert_allclose(scores[96:], known[96:], rtol=1e-5)
    assert np.isnan(scores[:96]).all()
    assert (found.neurons["down_token"][:96] == "").all()
    assert found.decoded("L0.N3").empty
    assert len(found.decoded("L2.N5")) == 2 * TOP
    assert Atlas(folder).manifest.layers == (2, 3)
    with pytest.raises(AtlasError, match="its layers differs"):
        Atlas.build(model, None, folder, decode=["down"])
    with pytest.raises(InputError, match="Layer 9 has no neurons"):
        Atlas.build(model, None, tmp_path / "none", decode=Decoding(layers=[9]))


def test_what_stands_for_a_text_can_be_compared_again(atlas: Atlas, model: LanguageModel) -> None:
    values = torch.from_numpy(np.array(atlas.values))
    assert values.shape == (len(TEXTS), UNITS)
    again = label_statistics(values, LABELS)
    table = atlas.query("SELECT * FROM labels WHERE label = 'odd' ORDER BY layer, index")
    row = again.labels.index("odd")
    np.testing.assert_allclose(table["average_precision"], again.average_precision[row], rtol=1e-6)
    with pytest.raises(AtlasError, match="the corpus had no labels"):
        _ = Atlas.build(model, TEXTS, atlas.folder.with_name("bare"), decode=()).values


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("SELEC address FROM neurons", "syntax error"),
        ("SELECT * FROM heads", "heads"),
        ("SELECT speed FROM neurons", "speed"),
    ],
)
def test_a_question_that_cannot_be_read_is_a_sentence(atlas: Atlas, ask: str, said: str) -> None:
    with pytest.raises(AtlasError, match=said) as found:
        atlas.query(ask)
    assert "The tables are neurons, decoded" in str(found.value)


def test_a_neuron_that_is_not_there_is_a_sentence(atlas: Atlas) -> None:
    with pytest.raises(AddressError, match=r"L0.N0 to L3.N47"):
        atlas.row("L9.N1")
    with pytest.raises(AddressError, match="no neuron"):
        atlas.row("L1.H2")


def test_what_cannot_be_built_is_a_sentence(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a corpus, or a matrix"):
        plan_of(model, None, tmp_path, decode=[])
    with pytest.raises(InputError, match="one label"):
        plan_of(model, TEXTS, tmp_path, labels=["a"])
    with pytest.raises(InputError, match="there are none"):
        plan_of(model, None, tmp_path, labels=["a"])
    with pytest.raises(InputError, match="down, up, gate"):
        plan_of(model, None, tmp_path, decode=["out"])  # type: ignore[list-item]
    with pytest.raises(InputError, match='"local" or "ray"'):
        plan_of(model, TEXTS, tmp_path, engine="spark")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_damaged_manifest_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="no atlas in"):
        Manifest.read(tmp_path)
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(AtlasError, match="damaged"):
        Manifest.read(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 99}), encoding="utf-8")
    with pytest.raises(AtlasError, match="format 99"):
        Manifest.read(tmp_path)


def test_neurons_that_fire_alike_are_those_of_the_corpus(atlas: Atlas) -> None:
    found = atlas.fires_like("L2.N5", count=4)
    values = atlas._sample.float()
    truth = torch.corrcoef(values.T)[2 * 48 + 5]
    truth[2 * 48 + 5] = 0
    best = int(truth.abs().argmax())
    assert found[0].address == f"L{best // 48}.N{best % 48}"
    assert found[0].value == pytest.approx(float(truth[best]), abs=1e-3)
