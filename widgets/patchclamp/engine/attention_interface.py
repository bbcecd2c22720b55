"""What attention scores are made of, taken from transformers' own attention code.

Most architectures hand rotated queries and keys, the mask and the scale to whatever function
transformers' attention interface names. On a private twin of the model, and only there, that name
is ours for as long as a run of ours takes:

- :data:`RECORD` takes what it is handed (:class:`Scores`) and leaves by an exception, before
  anything is computed of it. Pattern rows are then made of it when somebody looks at them.
- :data:`HOOKED` computes attention as the eager code does, and passes the pattern through a hook
  point on the way, where an architecture's own code passes none (OPT, BERT).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from patchclamp.errors import InterventionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from transformer_lens.hook_points import HookPoint

RECORD = "patchclamp_record"
HOOKED = "patchclamp_hooked"

_POINT = "patchclamp_pattern"
_KNOWN = frozenset({"scaling", "softcap", "is_causal"})
# Said to every attention function, and no part of a score: the mask has the window in it already.
_HARMLESS = frozenset(
    {
        "dropout",
        "sliding_window",
        "position_ids",
        "position_embeddings",
        "cache_position",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
        "num_items_in_batch",
    }
)


@dataclass(frozen=True, eq=False)
class Scores:
    """What the attention scores of one layer are made of, for one sequence.

    Attributes:
        query: Float[head, pos, d_head], rotated where the model rotates.
        key: Float[kv_head, pos, d_head], the same.
        value: Float[kv_head, pos, d_head].
        mask: Bool[1 | head, pos, pos], what may be read; Float, what is added to the scores; or
            None.
        causal: whether a position reads only itself and earlier ones, where there is no mask.
        scaling: what the products are multiplied by.
        softcap: a score is at most this, by a hyperbolic tangent; None for no bound.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scaling: float
    softcap: float | None

    @cached_property
    def triangular(self) -> bool:
        """Whether no position reads a later one."""
        if self.mask is None:
            return self.causal
        if self.mask.dtype is not torch.bool:
            return False
        return not bool(self.mask.triu(1).any())

    def rows(self, start: int, stop: int, head: int | None = None) -> Tensor:
        """Return Float[head, row, source] float32, the pattern's rows from ``start`` to ``stop``.

        Where no position reads a later one, there are only the first ``stop`` sources.

        Args:
            start: the first row.
            stop: one past the last.
            head: only this head's, Float[1, row, source]; all without.
        """
        width = stop if self.triangular else self.key.shape[1]
        shared = len(self.query) // len(self.key)  # query heads on one key head
        query, key = self.query[:, start:stop], self.key[:, :width]
        mask = self.mask
        if head is not None:
            query, key = query[head : head + 1], key[head // shared][None]
            mask = mask if mask is None or len(mask) == 1 else mask[head : head + 1]
        mask = self._triangle(start, stop) if mask is None else mask[:, start:stop, :width]
        return weights(query[None], key[None], self._with(mask))[0].float()

    def _with(self, mask: Tensor | None) -> Scores:
        return replace(self, mask=None if mask is None else mask[None], causal=False)

    def _triangle(self, start: int, stop: int) -> Tensor | None:
        if not self.causal:
            return None
        sources = torch.arange(stop, device=self.query.device)
        return (sources <= sources[start:, None])[None]


class RecordedError(Exception):
    """Leaves the model's forward code with what an attention function was handed.

    Attributes:
        scores: what it was; None where there is more to it than is known here.
        reason: then what.
    """

    def __init__(self, scores: Scores | None, reason: str = "") -> None:
        super().__init__(reason)
        self.scores = scores
        self.reason = reason


def weights(query: Tensor, key: Tensor, of: Scores) -> Tensor:
    """Return Float[batch, head, row, source], the attention pattern.

    Args:
        query: Float[batch, head, row, d_head].
        key: Float[batch, kv_head, source, d_head].
        of: the scaling and the bound; its mask has a batch dimension.
    """
    batch, heads, rows, _ = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, rows, query.shape[-1])
    scores = (grouped @ key.transpose(-1, -2)[:, :, None]).reshape(batch, heads, rows, -1)
    scores = scores * of.scaling
    if of.softcap is not None:
        scores = torch.tanh(scores / of.softcap) * of.softcap
    if of.mask is not None:
        if of.mask.dtype is torch.bool:
            scores = scores.masked_fill(~of.mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + of.mask
    return scores.softmax(-1, dtype=torch.float32).to(query.dtype)


def show_patterns(bridge: Any) -> None:
    """Tell a private twin's original attention which hook point :data:`HOOKED` passes by."""
    for block in bridge.blocks:
        attention = block._modules.get("attn")  # noqa: SLF001 (a block may forward the name)
        original = getattr(attention, "original_component", None)
        if original is None or not hasattr(attention, "hook_pattern"):
            continue
        for module in original.modules():
            # In the dictionary: as an attribute the hook point would become a child.
            module.__dict__[_POINT] = attention.hook_pattern


@contextmanager
def switched(model: nn.Module, name: str) -> Iterator[None]:
    """Let a twin's attention go through a function of ours, and put it back whatever happens."""
    _offer()
    before = {id(c): (c, c._attn_implementation) for c in _configs(model)}  # noqa: SLF001 (transformers' own word for it)
    try:
        for config, _ in before.values():
            _name(config, name)
        yield
    finally:
        for config, was in before.values():
            _name(config, was)


def _configs(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            yield config


def _name(config: Any, name: str | None) -> None:
    # A dictionary names this one alone; a plain name would go to the configurations inside it.
    config._attn_implementation = {"": name}  # noqa: SLF001 (transformers' own word for it)


def _offer() -> None:
    """Tell transformers the names; it keeps one table for all models."""
    for name, function in ((RECORD, _record), (HOOKED, _hooked)):
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, _mask)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Make a mask always: with ``None`` the function would have to guess what is meant."""
    made: Tensor | None = sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})
    return made


def _scores(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    kwargs: dict[str, Any],
) -> Scores:
    unknown = [n for n, v in kwargs.items() if v is not None and n not in _KNOWN | _HARMLESS]
    if unknown:
        raise RecordedError(None, f"its attention also takes {', '.join(unknown)}")
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    scaling = kwargs.get("scaling")
    return Scores(
        query,
        key,
        value,
        attention_mask,
        bool(causal) and attention_mask is None,
        query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        kwargs.get("softcap"),
    )


def _record(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    found = _scores(module, query, key, value, attention_mask, kwargs)
    raise RecordedError(
        replace(
            found,
            query=_compact(query[0]),
            key=_compact(key[0]),
            value=_compact(value[0]),
            mask=None if attention_mask is None else attention_mask[0],
        )
    )


def _compact(tensor: Tensor) -> Tensor:
    """A tensor that keeps no larger one alive: GPT-2's queries are a third of one."""
    tensor = tensor.detach().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone()


def _hooked(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    try:
        found = _scores(module, query, key, value, attention_mask, kwargs)
    except RecordedError as error:
        msg = f"The attention pattern of this model cannot be edited, as {error.reason}."
        raise InterventionError(msg) from None
    if found.causal:
        rows, sources = query.shape[2], key.shape[2]
        every = torch.ones(rows, sources, dtype=torch.bool, device=query.device)
        found = replace(found, mask=every.tril(sources - rows)[None, None])
    pattern = weights(query, key, found)
    point: HookPoint = module.__dict__[_POINT]
    pattern = point(pattern)
    shared = query.shape[1] // value.shape[1]
    read = pattern @ value.repeat_interleave(shared, dim=1)
    return read.transpose(1, 2).contiguous(), None
