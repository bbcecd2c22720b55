"""The names of ImageNet's thousand classes, in the order of a classifier's outputs."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("imagenet_classes.txt")


@cache
def classes() -> tuple[str, ...]:
    """A short name for each class: WordNet's first word for it, all of them where two would agree.

    >>> classes()[207], len(set(classes()))
    ('golden retriever', 1000)
    """
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    words = [line.split(" ", 1)[1] for line in lines if not line.startswith("#")]
    first = Counter(word.split(", ")[0] for word in words)
    return tuple(word if first[word.split(", ")[0]] > 1 else word.split(", ")[0] for word in words)
