"""The user's own corpus: text files, and data sets in the form that Hugging Face gives them.

A list of strings needs neither: whatever takes a corpus takes it as it is. Nothing is fetched here.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

from patchclamp.errors import InputError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a file may begin with, and the encoding that says; UTF-32 begins as UTF-16 does."""


@runtime_checkable
class Dataset(Protocol):
    """What is asked of a data set: one of the package ``datasets`` has it, loaded or streamed."""

    @property
    def column_names(self) -> list[str] | dict[str, list[str]] | None:
        """The columns; of several splits, each split's; None where they are not known yet."""

    def __iter__(self) -> Iterator[Mapping[str, object]]:
        """Go through the rows, each a mapping from column to value."""


Files = str | os.PathLike[str]
"""Where one file is."""


def texts_of_files(paths: Files | Iterable[Files], *, encoding: str | None = None) -> list[str]:
    """Read text files, one text a file.

    Args:
        paths: one file or some, in the order wanted.
        encoding: of all of them; by default what a byte-order mark says, and UTF-8 without one.

    Raises:
        InputError: when a file is not there, is no text, or is in another encoding; when there are
            no files, or nothing is in them.

    Example:
        >>> from pathlib import Path
        >>> texts = texts_of_files(sorted(Path("notes").glob("*.txt")))  # doctest: +SKIP
    """
    if encoding is not None:
        _check_encoding(encoding)
    some = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not some:
        msg = "There are no files to read texts from: the list of paths is empty."
        raise InputError(msg)
    found = [_text_of(Path(path), encoding) for path in some]
    if not any(text.strip() for text in found):
        msg = f"There is no text in {_counted(len(found), 'file')}: nothing but white space."
        raise InputError(msg)
    return found


def texts_of_dataset(
    dataset: object, column: str = "text", *, count: int | None = None
) -> list[str]:
    """Read one column of a data set that is already loaded, one text a row.

    Args:
        dataset: a :class:`Dataset` of one split, as ``datasets.load_dataset(..., split=...)`` gives
            it; a streamed one too.
        column: which column the texts are in.
        count: only so many rows, from the first; all by default.

    Raises:
        InputError: when it has several splits, no such column or no rows, or when a row has no text
            there.

    Example:
        >>> from datasets import load_dataset  # doctest: +SKIP
        >>> stories = load_dataset("roneneldan/TinyStories", split="train")  # doctest: +SKIP
        >>> texts = texts_of_dataset(stories, count=1000)  # doctest: +SKIP
    """
    if not isinstance(dataset, Dataset):
        msg = (
            f"A {type(dataset).__name__} is no data set with columns. A list of strings needs no "
            "reading: give it as it is."
        )
        raise InputError(msg)
    if count is not None and count < 1:
        msg = f"Ask for at least one row, not {count}."
        raise InputError(msg)
    columns = dataset.column_names
    if isinstance(columns, Mapping):
        splits = list(columns)
        msg = (
            f"This data set has the splits {', '.join(splits)}: choose one, such as "
            f'dataset["{splits[0] if splits else "train"}"].'
        )
        raise InputError(msg)
    if columns is not None and column not in columns:
        raise _no_column(column, columns)
    found = []
    for number, row in enumerate(islice(dataset, count)):
        if column not in row:
            raise _no_column(column, list(row))
        text = row[column]
        if not isinstance(text, str):
            msg = f"Row {number} has no text in the column {column!r} but {_kind(text)}."
            raise InputError(msg)
        found.append(text)
    if not found:
        msg = "The data set is empty: it has no rows."
        raise InputError(msg)
    return found


def _text_of(path: Path, encoding: str | None) -> str:
    if path.is_dir():
        msg = (
            f"{path} is a folder. Give the files in it, such as "
            f'sorted(Path("{path.as_posix()}").glob("*.txt")).'
        )
        raise InputError(msg)
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {(error.strerror or str(error)).lower()}."
        raise InputError(msg) from error
    told = encoding or next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None)
    try:
        text = raw.decode(told or "utf-8")
    except UnicodeDecodeError as error:
        what = f"{path} is not in {told or 'UTF-8'}: byte {error.start} does not fit"
        msg = f'{what}. Say which encoding it is in, such as encoding="cp1252".'
        raise InputError(msg) from error
    if "\0" in text:
        msg = f"{path} is no text file: there are zeros in it."
        raise InputError(msg)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        msg = f"There is no encoding {encoding!r}; there are utf-8, utf-16, cp1252, latin-1, ..."
        raise InputError(msg) from error


def _no_column(column: str, columns: list[str]) -> InputError:
    there = ", ".join(map(repr, columns)) or "none"
    return InputError(f"The data set has no column {column!r}; its columns are {there}.")


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def _counted(count: int, what: str) -> str:
    return f"the {what}" if count == 1 else f"the {count} {what}s"
