"""A tokenizer of whole words, for small models trained on words: a prompt of theirs reads as text.

Words between spaces are one token each, with the space in front. Capitals become small, other white
space becomes a space, and what is no word of the vocabulary is the unknown token.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BEGINNING, UNKNOWN = "<s>", "<unk>"
SPECIAL = (BEGINNING, UNKNOWN)
FULL_STOP = "."


def write_tokenizer(folder: Path, words: Sequence[str], context: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`.

    Ids are those of `SPECIAL` and then of the words, in their order.

    Args:
        folder: Where the files go.
        words: The vocabulary, small letters. With `FULL_STOP` among them, one that is written onto
            a word is a token of its own.
        context: How many tokens the model takes.
    """
    space = "\N{LOWER ONE EIGHTH BLOCK}"  # how such vocabularies write a space
    pieces = [*SPECIAL, *(space + word for word in words)]
    spaces = {
        "type": "Metaspace",
        "replacement": space,
        "prepend_scheme": "always",
        "split": True,
    }
    apart = [{"type": "Replace", "pattern": {"String": "."}, "content": " ."}]
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    described: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": piece, **plain, "special": True} for i, piece in enumerate(SPECIAL)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Lowercase"},
                *(apart if FULL_STOP in words else []),
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Strip", "strip_left": True, "strip_right": True},
            ],
        },
        "pre_tokenizer": spaces,
        "post_processor": None,
        "decoder": spaces,
        "model": {
            "type": "WordLevel",
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "unk_token": UNKNOWN,
        },
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGINNING,
        "unk_token": UNKNOWN,
        "model_max_length": context,
    }
    for name, contents in (("tokenizer", described), ("tokenizer_config", settings)):
        text = json.dumps(contents, ensure_ascii=False, indent=1)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
