"""A language model to open up: any TransformerLens 4 bridge or Hugging Face model."""

from __future__ import annotations

import copy
import operator
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from patchclamp.errors import InputError, ModelError
from patchclamp.models.anatomy import Anatomy
from patchclamp.models.shared_weights import changed, share_weights, weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence


_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece's vocabularies write a space


class LanguageModel:
    """A transformer with its tokenizer, and what there is to address in it.

    Args:
        model: a Hugging Face model with a language-model head, or a ``TransformerBridge``. It is
            never changed: a Hugging Face model is bridged as a copy that shares its weights.
        tokenizer: a Hugging Face tokenizer. A bridge brings its own; ``None`` means that inputs
            are token ids only.
        name: what to call it; by default what its configuration says.
        source: Python code that binds ``model`` to the bridge with TransformerLens alone, used by
            :meth:`patchclamp.Session.to_code`.
        note: what a reader of its predictions has to know, such as that its head is untrained.
        reference: texts that are ordinary for it, for means and spreads; none for a model of
            ordinary text.

    Raises:
        ModelError: when TransformerLens has no adapter for the architecture.

    Attributes:
        bridge: the ``TransformerBridge``. Nothing of patchclamp ever hooks it.
        tokenizer: the tokenizer, or None.
        anatomy: the sites that the model has, an :class:`~patchclamp.models.anatomy.Anatomy`.
        note: what a reader of its predictions has to know; None when there is nothing to say.
        reference: texts that are ordinary for it, where ordinary text is not.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        name: str | None = None,
        source: str | None = None,
        note: str | None = None,
        reference: Sequence[str] = (),
    ) -> None:
        if isinstance(model, LanguageModel):
            msg = "This is a LanguageModel already: use it as it is."
            raise ModelError(msg)
        if isinstance(model, TransformerBridge):
            self.bridge = model
            self.tokenizer = model.tokenizer if tokenizer is None else tokenizer
        else:
            self.bridge = _bridge(model, tokenizer)
            self.tokenizer = tokenizer
        self.anatomy = Anatomy.of(self.bridge)
        self.name = name or _name_of(model)
        self.source = source
        self.note = note
        self.reference = tuple(reference)
        # The engine's place: one for all sessions of this model, gone with it.
        self.engine: object = None
        self._version = 0
        self._looking = threading.Lock()
        self._weights = weights_of(self.bridge)

    def __repr__(self) -> str:
        a = self.anatomy
        size = f"{a.n_layers} layers, {a.n_heads} heads, {a.d_mlp} neurons a layer"
        note = f"; {self.note}" if self.note else ""
        return f"LanguageModel({self.name!r}: {size}{note})"

    @property
    def weights_version(self) -> int:
        """A number that grows when a weight was updated in place or replaced (a training step).

        Looked up before every run: what was computed with other weights is not built upon.
        """
        with self._looking:
            if changed(self._weights):
                self._version += 1
                self._weights = weights_of(self.bridge)
            return self._version

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.bridge.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored as."""
        return next(self.bridge.parameters()).dtype

    @property
    def n_ctx(self) -> int:
        """The most tokens that an input may have."""
        return self.anatomy.n_ctx

    @property
    def bos_id(self) -> int | None:
        """The id of the beginning-of-sequence token, or None."""
        for owner in (self.tokenizer, self.bridge.cfg):
            for attribute in ("bos_token_id", "cls_token_id"):
                found = getattr(owner, attribute, None)
                if isinstance(found, int) and found < self.anatomy.d_vocab:
                    return found
        return None

    @property
    def eos_id(self) -> int | None:
        """The id of the token that ends a text, or None."""
        found = getattr(self.tokenizer, "eos_token_id", None)
        return found if isinstance(found, int) else None

    def to_ids(self, text: str, *, chat: bool = False) -> torch.Tensor:
        """Tokenize a text; a causal model's text starts with its beginning-of-sequence token.

        Args:
            text: what to tokenize.
            chat: put it through the model's chat template as one user's message.

        Returns:
            LongTensor[pos] on the CPU.

        Raises:
            InputError: for an empty text, a text longer than the context, a model without a
                tokenizer or without a chat template.
        """
        if not text.strip():
            msg = "The prompt is empty: type at least one word."
            raise InputError(msg)
        return self.check_ids(self._tokenized(text, chat=chat))

    def beginning(self, text: str) -> torch.Tensor:
        """Tokenize a text as :meth:`to_ids` does, and keep as much as the model takes.

        Args:
            text: what to tokenize.

        Returns:
            LongTensor[pos] on the CPU.

        Raises:
            InputError: for a text without tokens, and a model without a tokenizer.
        """
        return self.check_ids(self._tokenized(text, chat=False)[: self.n_ctx])

    def tokens_of(self, text: str) -> list[int]:
        """Tokenize a text of any length; no special token is added.

        Raises:
            InputError: when the model has no tokenizer.
        """
        if self.tokenizer is None:
            msg = f"{self.name} has no tokenizer, so it cannot read texts."
            raise InputError(msg)
        # A text longer than the context is cut by whoever asks: the tokenizer need not warn.
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def _tokenized(self, text: str, *, chat: bool) -> torch.Tensor:
        if self.tokenizer is None:
            msg = "This model has no tokenizer: give a 1-D tensor of token ids instead of a text."
            raise InputError(msg)
        if chat:
            if not getattr(self.tokenizer, "chat_template", None):
                msg = f"{self.name} has no chat template: use chat=False."
                raise InputError(msg)
            shown = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
            )
            ids = self.tokenizer(shown, add_special_tokens=False).input_ids
        elif self.anatomy.causal:
            ids = self.tokenizer(text, add_special_tokens=False).input_ids
            if self.bos_id is not None:
                ids = [self.bos_id, *ids]
        else:
            ids = self.tokenizer(text).input_ids
        return torch.tensor(ids, dtype=torch.long)

    def check_ids(self, ids: Any) -> torch.Tensor:
        """Return token ids as LongTensor[pos] on the CPU, or say what is wrong with them.

        Args:
            ids: a tensor, an array or a list.

        Raises:
            InputError: when they are not 1-D integers of the vocabulary, none, or too many.
        """
        try:
            ids = torch.as_tensor(ids).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            msg = f"Token ids must be a 1-D tensor of integers, not {_shown(ids)} ({error})."
            raise InputError(msg) from error
        if ids.ndim == 1 and ids.numel() == 0:
            msg = "The prompt is empty: give at least one token."
            raise InputError(msg)
        if ids.ndim != 1 or ids.is_floating_point() or ids.is_complex() or ids.dtype is torch.bool:
            what = f"{tuple(ids.shape)} of {ids.dtype}"
            msg = f"Token ids must be a 1-D tensor of integers, not {what}."
            raise InputError(msg)
        if ids.numel() > self.n_ctx:
            msg = (
                f"The prompt has {ids.numel():,} tokens, and {self.name} takes at most "
                f"{self.n_ctx:,}: shorten it."
            )
            raise InputError(msg)
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.anatomy.d_vocab:
            wrong, most = low if low < 0 else high, self.anatomy.d_vocab - 1
            msg = f"Token id {wrong} is outside the vocabulary (0 to {most})."
            raise InputError(msg)
        checked: torch.Tensor = ids.long()
        return checked

    def token_text(self, token: int) -> str:
        """Write a token as text, with its leading space; its number if there is no tokenizer."""
        if self.tokenizer is None:
            return str(int(token))
        piece = self.tokenizer.convert_ids_to_tokens(int(token))
        if isinstance(piece, str) and piece.startswith(_SPACE):
            return piece.replace(_SPACE, " ")
        return str(self.tokenizer.decode([int(token)], clean_up_tokenization_spaces=False))

    def text(self, ids: list[int]) -> str:
        """Write tokens as one text."""
        if self.tokenizer is None:
            return " ".join(str(i) for i in ids)
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def token_id(self, token: str | SupportsIndex) -> int:
        """Return the id of one token, given as its text (leading space included) or its id.

        Raises:
            InputError: when the text is not exactly one token of the vocabulary.
        """
        if not isinstance(token, str):
            return int(self.check_ids([as_id(token)])[0])
        if self.tokenizer is None:
            msg = f"This model has no tokenizer: give the token's id instead of {token!r}."
            raise InputError(msg)
        ids = self.tokenizer(token, add_special_tokens=False).input_ids
        if len(ids) == 1 and self.token_text(ids[0]) == token:
            return int(ids[0])
        # Llama 2's tokenizer puts a space in front of every text: ask for the very piece.
        piece = self.tokenizer.convert_tokens_to_ids(token.replace(" ", _SPACE))
        if isinstance(piece, int) and self.token_text(piece) == token:
            return piece
        if len(ids) == 1:
            return int(ids[0])
        pieces = ", ".join(repr(self.token_text(i)) for i in ids) or "nothing"
        msg = (
            f"{token!r} is not one token of {self.name} but {len(ids)} ({pieces}): "
            "choose one of them."
        )
        raise InputError(msg)


def as_id(token: Any) -> int:
    """Return a token's id as a plain number; ``argmax`` gives tensors.

    Raises:
        InputError: when it is no whole number.
    """
    if not isinstance(token, bool):  # Python counts with True, but it is no token
        with suppress(TypeError):
            return operator.index(token)
    msg = f"A token is its text, leading space included, or its id, not {_shown(token)}."
    raise InputError(msg)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


def _bridge(model: Any, tokenizer: Any) -> TransformerBridge:
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        msg = (
            "LanguageModel takes a Hugging Face model or a TransformerBridge, not "
            f"{type(model).__name__}; to load one by its name use patchclamp.load(...)."
        )
        raise ModelError(msg)
    mine: Any = share_weights(model).eval()
    architecture = type(model).__name__
    mine.config.architectures = [architecture]
    # TransformerLens loads the tokenizer once more from where it came from, to add a
    # beginning-of-sequence token: only from a folder, never from a network.
    words = copy.deepcopy(tokenizer)
    here = Path(getattr(words, "name_or_path", None) or "?").is_dir()
    try:
        bridge = build_bridge_from_module(
            mine, architecture, hf_config=mine.config, tokenizer=words if here else None
        )
    except (KeyError, ValueError, AttributeError) as error:
        msg = f"TransformerLens cannot open a {architecture}: {error}"
        raise ModelError(msg) from error
    if words is not None and not here:
        bridge.tokenizer = words
    return bridge


def _name_of(model: Any) -> str:
    config = getattr(model, "config", None) or getattr(model, "cfg", None)
    for attribute in ("_name_or_path", "model_name"):
        found = getattr(config, attribute, None)
        if found and found != "external":
            return str(found).rstrip("/").rsplit("/", 1)[-1]
    return type(getattr(model, "original_model", model)).__name__
