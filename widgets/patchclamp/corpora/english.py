"""English passages that come with the package: what examples of a language model's unit come from.

Nine kinds of text, about 119 thousand tokens of SmolLM2's together: encyclopaedia, speech, novel,
dictionary, manual, code, tables, law and everyday. What each was taken from stands in SOURCES.md.
The passages are in one fixed, mixed order, so that a beginning of them is a bit of everything.

>>> passages()[0].kind in KINDS
True
>>> texts(2) == texts(3)[:2]
True
"""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = (
    "code",
    "dictionary",
    "encyclopaedia",
    "everyday",
    "law",
    "manual",
    "novel",
    "speech",
    "tables",
)
"""The kinds of text there are."""


@dataclass(frozen=True)
class Passage:
    """A passage of the corpus.

    Attributes:
        kind: one of :data:`KINDS`.
        title: what it is about, or which part of its source it is.
        source: what it was taken from; see SOURCES.md.
        text: the passage.
    """

    kind: str
    title: str
    source: str
    text: str


def passages(kinds: Iterable[str] | None = None) -> tuple[Passage, ...]:
    """Return the passages in their fixed order; read from the package at the first call.

    Args:
        kinds: only these; all by default.

    Raises:
        InputError: for a kind that there is none of.
    """
    wanted = set(_known(kinds))
    return tuple(passage for passage in _all() if passage.kind in wanted)


def texts(
    count: int | None = None, *, seed: int | None = None, kinds: Iterable[str] | None = None
) -> tuple[str, ...]:
    """Return passages' texts.

    Args:
        count: how many; all by default.
        seed: draw them at random, without repetition; by default they are the first ones. With
            the same seed fewer texts are the beginning of more.
        kinds: only these of :data:`KINDS`; all by default.

    Raises:
        InputError: for a kind that there is none of, and more texts than there are.
    """
    found = [passage.text for passage in passages(kinds)]
    if seed is not None:
        random.Random(seed).shuffle(found)  # noqa: S311 (a choice of texts, no secret)
    if count is None:
        return tuple(found)
    if not 1 <= count <= len(found):
        msg = (
            f"There are {len(found)} texts of these kinds: ask for 1 to {len(found)}, not {count}."
        )
        raise InputError(msg)
    return tuple(found[:count])


def _known(kinds: Iterable[str] | None) -> tuple[str, ...]:
    chosen = KINDS if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [kind for kind in chosen if kind not in KINDS]
    if unknown or not chosen:
        what = f"There are no texts of the kind {unknown[0]!r}" if unknown else "No kind was named"
        msg = f"{what}; the kinds are {', '.join(KINDS)}."
        raise InputError(msg)
    return chosen


@cache
def _all() -> tuple[Passage, ...]:
    packed = files("patchclamp.corpora").joinpath("english.jsonl.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    return tuple(Passage(**json.loads(line)) for line in lines)
