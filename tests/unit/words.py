"""A tiny random model that reads words w0 to w49, and texts of them."""

from __future__ import annotations

from typing import Any

from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny

TEXTS = [
    " ".join(f"w{(7 * text + 3 * word + word * word) % 50}" for word in range(3 + 11 * text % 37))
    for text in range(14)
]


class Words:
    """A tokenizer of words w0 to w49; the first three ids are special."""

    bos_token_id = 1
    eos_token_id = 2
    name_or_path = ""

    def __call__(self, text: str, **_options: object) -> Any:
        return type("Tokens", (), {"input_ids": ids_of(text)})()

    def get_vocab(self) -> dict[str, int]:
        return {f"w{number}": 3 + number for number in range(50)}

    def convert_ids_to_tokens(self, token: int) -> str:
        return f"w{token - 3}"

    def decode(self, tokens: list[int], **_options: object) -> str:
        return "".join(f" w{token - 3}" for token in tokens)


def ids_of(text: str) -> list[int]:
    """The tokens of a text, without a beginning-of-sequence token."""
    return [3 + int(word[1:]) for word in text.split()]


def reader(name: str = "llama") -> LanguageModel:
    """A model of its own, so that a test may change its weights."""
    texts = ["w1 w2 w9", "w7 w8 w3 w30"]
    made = LanguageModel(tiny.hugging_face(name), None, name="words", reference=texts)
    made.tokenizer = Words()
    return made
