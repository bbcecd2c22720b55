"""Which tokens a search for prompts may use, and whether a found prompt can be typed.

A search works on token ids. Some tokens are no text that a person could type or read: special
tokens (``<|im_end|>``), pieces of a character's bytes, control characters, ids that the tokenizer
does not know. The ordinary ones are the others.

Even of ordinary tokens a prompt may be one that its own text does not give back: ``" un"``,
``"happy"`` is read as ``" unhappy"``. Such a prompt is kept, because the model was run on just
these tokens, and flagged: :func:`as_text` returns None, and it is loaded as ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from patchclamp.models.language_model import LanguageModel

Tokens = Literal["ordinary", "all"]
_BROKEN = "\ufffd"
_LINES = {"\n", "\t"}


def allowed(model: LanguageModel, tokens: Tokens) -> Tensor:
    """Return Bool[vocab], which tokens a search may use.

    Args:
        model: whose vocabulary.
        tokens: ``"ordinary"``, those that a person can type and read; ``"all"``, every id that the
            model embeds. Without a tokenizer these are the same.

    Raises:
        InputError: for another word.
    """
    if tokens not in get_args(Tokens):
        msg = f"Tokens are {' or '.join(map(repr, get_args(Tokens)))}, not {tokens!r}."
        raise InputError(msg)
    count = model.anatomy.d_vocab
    found = torch.ones(count, dtype=torch.bool)
    if tokens == "all" or model.tokenizer is None:
        return found
    known = min(count, len(model.tokenizer))
    found[known:] = False
    special = {token for token in model.tokenizer.all_special_ids if token < count}
    added = getattr(model.tokenizer, "added_tokens_decoder", {})
    special |= {token for token, piece in added.items() if piece.special and token < count}
    found[sorted(special)] = False
    for token in range(known):
        if found[token] and not readable(model.token_text(token)):
            found[token] = False
    return found


def readable(text: str) -> bool:
    """Say whether a token is whole characters that can be seen.

    >>> readable(" dog"), readable(chr(10)), readable(chr(0xFFFD)), readable(chr(0)), readable("")
    (True, True, False, False, False)
    """
    return bool(text) and all(c.isprintable() or c in _LINES for c in text.replace(_BROKEN, "\0"))


def as_text(model: LanguageModel, ids: Sequence[int]) -> str | None:
    """Return the text that the model reads as just these tokens; None where there is none.

    Args:
        model: whose tokenizer.
        ids: with the beginning-of-sequence token that a text gets, where the model has one.
    """
    if model.tokenizer is None:
        return None
    rest = list(ids)
    if model.bos_id is not None:
        if not rest or rest[0] != model.bos_id:
            return None
        rest = rest[1:]
    text = model.text(rest)
    if not text.strip():
        return None
    return text if model.to_ids(text).tolist() == list(ids) else None
