"""The same texts in twelve languages: what tells language neurons from neurons of a subject.

The Universal Declaration of Human Rights, article by article. Whatever a neuron does on one
language's articles and not on another's has to do with the language: the articles say the same.
Where they were taken from stands in SOURCES.md.

>>> some = parallel_texts(["English", "French"], articles=[1, 3])
>>> some.labels
('English', 'French', 'English', 'French')
>>> some.texts[2]
'Everyone has the right to life, liberty and the security of person.'
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, TypeVar

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

_Named = TypeVar("_Named", str, int)

LANGUAGES = {
    "Chinese": "zh",
    "Dutch": "nl",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Italian": "it",
    "Polish": "pl",
    "Portuguese": "pt",
    "Russian": "ru",
    "Spanish": "es",
    "Swedish": "sv",
    "Turkish": "tr",
}
"""The languages there are, and their codes (ISO 639-1)."""

ARTICLES = 30
"""How many articles there are; 0 stands for the preamble."""


@dataclass(frozen=True)
class ParallelTexts:
    """Texts that say the same in some languages; each attribute has one entry a text.

    Attributes:
        texts: the texts, article after article, the languages of one article side by side.
        labels: each text's language, by its English name.
        articles: which article each text is; texts of one article say the same.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    articles: tuple[int, ...]


def parallel_texts(
    languages: Iterable[str] | None = None, articles: Iterable[int] | None = None
) -> ParallelTexts:
    """Return articles of the Universal Declaration of Human Rights in some languages.

    Args:
        languages: names or codes of :data:`LANGUAGES`, in the order wanted; all by default.
        articles: which of 1 to 30, in the order wanted; 0 is the preamble, which is six times as
            long as most; by default all thirty without it.

    Raises:
        InputError: for a language or an article that there is not, none, or one named twice.

    Example:
        >>> parallel_texts("de", [3]).texts
        ('Jeder hat das Recht auf Leben, Freiheit und Sicherheit der Person.',)
    """
    chosen = _languages(languages)
    numbers = _articles(articles)
    everything = _all()
    return ParallelTexts(
        tuple(everything[language, number] for number in numbers for language in chosen),
        tuple(language for _ in numbers for language in chosen),
        tuple(number for number in numbers for _ in chosen),
    )


def _languages(languages: Iterable[str] | None) -> tuple[str, ...]:
    if languages is None:
        return tuple(LANGUAGES)
    asked = (languages,) if isinstance(languages, str) else tuple(languages)
    names = {name.lower(): name for name in LANGUAGES}
    names |= {code: name for name, code in LANGUAGES.items()}
    unknown = [language for language in asked if language.lower() not in names]
    known = ", ".join(f"{name} ({code})" for name, code in LANGUAGES.items())
    if unknown or not asked:
        what = f"There are no texts in {unknown[0]!r}" if unknown else "No language was named"
        msg = f"{what}; there are {known}."
        raise InputError(msg)
    return _once(tuple(names[language.lower()] for language in asked))


def _articles(articles: Iterable[int] | None) -> tuple[int, ...]:
    if articles is None:
        return tuple(range(1, ARTICLES + 1))
    numbers = tuple(articles)
    unknown = [number for number in numbers if not 0 <= number <= ARTICLES]
    if unknown or not numbers:
        what = f"There is no article {unknown[0]}" if unknown else "No article was named"
        msg = f"{what}; they are 1 to {ARTICLES}, and 0 is the preamble."
        raise InputError(msg)
    return _once(numbers)


def _once(named: tuple[_Named, ...]) -> tuple[_Named, ...]:
    twice = next((one for place, one in enumerate(named) if one in named[:place]), None)
    if twice is not None:
        msg = f"{twice} was named twice: a text that comes twice would count twice."
        raise InputError(msg)
    return named


@cache
def _all() -> dict[tuple[str, int], str]:
    packed = files("patchclamp.corpora").joinpath("multilingual.jsonl.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    entries = map(json.loads, lines)
    return {(entry["language"], entry["article"]): entry["text"] for entry in entries}
