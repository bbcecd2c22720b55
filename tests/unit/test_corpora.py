"""The texts that come with the package: many kinds, with their sources, the same for everybody."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import patchclamp
from patchclamp.corpora.english import KINDS, passages, texts
from patchclamp.errors import InputError

FOLDER = Path(patchclamp.__file__).parent / "corpora"


def test_every_kind_has_passages_and_there_are_enough_of_them() -> None:
    found = passages()
    assert {passage.kind for passage in found} == set(KINDS)
    assert len(found) >= 400
    assert sum(len(passage.text) for passage in found) > 450_000
    assert (FOLDER / "english.jsonl.gz").stat().st_size < 600_000


def test_no_passage_is_empty_or_comes_twice() -> None:
    found = [passage.text for passage in passages()]
    assert len(set(found)) == len(found)
    assert all(text.strip() == text and len(text) >= 80 for text in found)


def test_every_source_is_told_with_its_licence() -> None:
    told = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    for source in {passage.source for passage in passages()}:
        # "Herman Melville, Moby-Dick (1851)" is set in italics there.
        words = re.findall(r"[A-Za-z-]{5,}", source)
        assert all(word in told for word in words), source


def test_what_was_written_for_the_package_is_in_it_word_for_word() -> None:
    written = (FOLDER / "everyday.txt").read_text(encoding="utf-8").split("\n----\n")
    assert {text.strip() for text in written} == set(texts(kinds=["everyday"]))


def test_a_beginning_holds_many_kinds() -> None:
    assert len({passage.kind for passage in passages()[:80]}) == len(KINDS)


def test_drawing_is_by_seed_without_repetition_and_fewer_are_the_beginning_of_more() -> None:
    assert texts(30, seed=3) == texts(30, seed=3)
    assert texts(30, seed=3)[:10] == texts(10, seed=3)
    assert texts(30, seed=3) != texts(30, seed=4)
    assert len(set(texts(100, seed=1))) == 100
    assert set(texts(seed=1)) == set(texts())


def test_kinds_can_be_chosen() -> None:
    assert {passage.kind for passage in passages(["code", "law"])} == {"code", "law"}
    assert texts(kinds="code") == texts(kinds=["code"])  # one name is a name, not four letters


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: texts(0), "ask for 1 to"),
        (lambda: texts(10_000), "not 10000"),
        (lambda: texts(kinds=["poetry"]), "the kind 'poetry'; the kinds are code, dictionary"),
        (lambda: passages([]), "No kind was named"),
    ],
)
def test_what_there_is_not_is_said_in_a_sentence(ask: "object", said: str) -> None:
    assert callable(ask)
    with pytest.raises(InputError, match=said):
        ask()


def test_nothing_is_read_before_it_is_asked_for() -> None:
    program = "import patchclamp.corpora.english as e; print(e._all.cache_info().currsize)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "0"
