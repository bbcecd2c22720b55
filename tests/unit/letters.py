"""Tiny tokenizers for the tiny models: letters, and a few words with their leading space."""

from __future__ import annotations

import string
from functools import cache
from typing import Any

import tokenizers
from transformers import PreTrainedTokenizerFast

from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny

PAD, BOS, EOS = 0, 1, 2
SPECIAL = ["<pad>", "<bos>", "<eos>"]
SPACE = "Ġ"  # how byte-level vocabularies write a space
CHAT = (
    "{{ bos_token }}{% for m in messages %}u {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}a{% endif %}"
)


def tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer of 61 tokens, as GPT-2's and SmolLM2's are."""
    letters = string.ascii_lowercase
    pieces = [
        *SPECIAL,
        *letters,
        SPACE,
        *(SPACE + c for c in letters),
        ".",
        ",",
        "Ã",
        "©",
        "\u010a",
    ]
    assert len(pieces) == tiny.VOCAB
    model = tokenizers.models.BPE(
        vocab={piece: n for n, piece in enumerate(pieces)},
        merges=[(SPACE, c) for c in letters],
    )
    return _wrap(model, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False), **options)


def sentencepiece() -> PreTrainedTokenizerFast:
    """Make a tokenizer that puts a space in front of every text, as Llama 2's does."""
    letters = string.ascii_lowercase
    pieces = [*SPECIAL, "▁", *letters, *("▁" + c for c in letters), "▁ab", "ab", ".", ",", "-"]
    assert len(pieces) == tiny.VOCAB
    model = tokenizers.models.BPE(
        vocab={piece: n for n, piece in enumerate(pieces)},
        merges=[("a", "b"), ("▁", "ab"), *(("▁", c) for c in letters)],
    )
    return _wrap(model, tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always"))


def _wrap(model: Any, split: Any, **options: Any) -> PreTrainedTokenizerFast:
    fast = tokenizers.Tokenizer(model)
    fast.pre_tokenizer = split
    byte_level = isinstance(split, tokenizers.pre_tokenizers.ByteLevel)
    fast.decoder = (
        tokenizers.decoders.ByteLevel() if byte_level else tokenizers.decoders.Metaspace()
    )
    named = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", **options}
    return PreTrainedTokenizerFast(tokenizer_object=fast, **named)


@cache
def model(name: str = "llama") -> LanguageModel:
    """Make a tiny model that reads letters; every caller gets the same one."""
    return LanguageModel(tiny.hugging_face(name), tokenizer(), name=f"{name}-letters")
