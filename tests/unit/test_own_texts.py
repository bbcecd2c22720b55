"""The user's own corpus: text files in any encoding, and data sets that are already loaded."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

import datasets
import pytest

from patchclamp.corpora.own import texts_of_dataset, texts_of_files
from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = "Grüße, naïve café\nи ещё строка"


def test_one_text_a_file_in_the_order_given(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"this is {name}", encoding="utf-8")
    paths: list[Path | str] = [tmp_path / "b.txt", str(tmp_path / "a.txt")]
    assert texts_of_files(paths) == ["this is b", "this is a"]
    assert texts_of_files(tmp_path / "a.txt") == texts_of_files(str(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ],
)
def test_a_byte_order_mark_says_the_encoding_and_is_no_text(
    mark: bytes, encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "some.txt"
    path.write_bytes(mark + TEXT.encode(encoding))
    assert texts_of_files(path) == [TEXT]


def test_another_encoding_is_asked_for_and_then_read(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes("naïve café".encode("cp1252"))
    with pytest.raises(InputError, match=r"old.txt is not in UTF-8: byte 2 .*encoding=\"cp1252\""):
        texts_of_files(path)
    assert texts_of_files(path, encoding="cp1252") == ["naïve café"]


def test_lines_end_in_one_way(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"one\r\ntwo\rthree\n")
    assert texts_of_files(path) == ["one\ntwo\nthree\n"]


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    (tmp_path / "picture.bin").write_bytes(b"PNG\0\0\0 text")
    (tmp_path / "blank.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(InputError, match=r"none.txt cannot be read: no such file"):
        texts_of_files(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"is a folder. Give the files in it, such as sorted"):
        texts_of_files(tmp_path)
    with pytest.raises(InputError, match=r"picture.bin is no text file"):
        texts_of_files(tmp_path / "picture.bin")
    with pytest.raises(InputError, match="no text in the file: nothing but white space"):
        texts_of_files(tmp_path / "blank.txt")
    with pytest.raises(InputError, match="the list of paths is empty"):
        texts_of_files([])
    with pytest.raises(InputError, match="no encoding 'utf-88'"):
        texts_of_files(tmp_path / "blank.txt", encoding="utf-88")


def rows() -> Iterator[dict[str, object]]:
    for number in range(5):
        yield {"text": f"text {number}", "size": number}


def test_a_column_of_a_loaded_data_set_is_texts() -> None:
    loaded = datasets.Dataset.from_dict({"text": ["one", "two"], "other": ["un", "deux"]})
    assert texts_of_dataset(loaded) == ["one", "two"]
    assert texts_of_dataset(loaded, "other", count=1) == ["un"]
    assert texts_of_dataset(loaded, count=9) == ["one", "two"]


def test_a_streamed_data_set_is_read_as_far_as_asked_for() -> None:
    streamed = datasets.IterableDataset.from_generator(rows)
    assert texts_of_dataset(streamed, count=3) == ["text 0", "text 1", "text 2"]


def test_data_sets_that_do_not_fit_are_said() -> None:
    loaded = datasets.Dataset.from_dict({"story": ["one", None], "size": [1, 2]})
    splits = datasets.DatasetDict({"train": loaded, "test": loaded})
    streamed = datasets.IterableDataset.from_generator(rows)
    with pytest.raises(InputError, match=r"splits train, test: choose one, such as dataset\[.tr"):
        texts_of_dataset(splits)
    with pytest.raises(InputError, match="no column 'text'; its columns are 'story', 'size'"):
        texts_of_dataset(loaded)
    with pytest.raises(InputError, match="no column 'story'; its columns are 'text', 'size'"):
        texts_of_dataset(streamed, "story")
    with pytest.raises(InputError, match="Row 1 has no text in the column 'story' but nothing"):
        texts_of_dataset(loaded, "story")
    with pytest.raises(
        InputError, match="Row 0 has no text in the column 'size' but a value of type int"
    ):
        texts_of_dataset(loaded, "size")
    with pytest.raises(InputError, match="it has no rows"):
        texts_of_dataset(loaded.select([]), "story")
    with pytest.raises(InputError, match="at least one row, not 0"):
        texts_of_dataset(loaded, "story", count=0)
    with pytest.raises(InputError, match=r"A list is no data set .* give it as it is"):
        texts_of_dataset(["a", "b"])
