"""Run some of a model's blocks, on some of its positions, through the model's own forward code.

A shell is a shallow copy of a model along the path to its list of blocks; everything else is
shared. In the list stands a :class:`Stage` for each block. A stage below the layer to start from
does not run its block: it hands on the residual stream that is put in there. So the model's own
code still makes masks, rotary embeddings, the final norm and the logits, for any architecture,
and a block that is left out costs nothing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from patchclamp.engine.twin import blocks_of, first_tensor
from patchclamp.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class _ReachedEndError(Exception):
    """Leaves the model's forward code once the last wanted block has run."""


@dataclass
class Pass:
    """What one call of a shell does.

    Attributes:
        blocks: the module that computes each layer.
        start: the first layer that is computed.
        inject: Float[batch, row, d_model], the residual stream entering ``start``; None where the
            model's own embedding enters.
        stop: the layer before which to leave, without computing logits; None (or one after the
            last) to go through.
        record: keep the residual stream before every computed block and after the last one.
        should_stop: asked before every block.
        residual: what was recorded, by layer.
        computed: how many blocks ran.
    """

    blocks: Sequence[nn.Module] = ()
    start: int = 0
    inject: torch.Tensor | None = None
    stop: int | None = None
    record: bool = False
    should_stop: Callable[[], bool] | None = None
    residual: dict[int, torch.Tensor] = field(default_factory=dict)
    computed: int = 0


class Stage(nn.Module):
    """One place in the list of blocks."""

    def __init__(self, shell: Shell, layer: int, block: nn.Module) -> None:
        super().__init__()
        self._shell = [shell]  # in a list, so that the shell is not registered as a child
        self._layer = layer
        self._block = block

    def __getattr__(self, name: str) -> Any:
        # Some models read attributes of a block, such as its kind of attention.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_block"), name)

    def forward(self, hidden: torch.Tensor, *args: object, **kwargs: object) -> object:
        """Run the block, or hand on what is put in."""
        now = self._shell[0].now
        layer, last = self._layer, len(now.blocks) - 1
        if now.inject is not None and layer == now.start:
            hidden = now.inject
        if layer < now.start:
            after = now.inject if now.start > last and layer == last else hidden
            return self._shell[0].wrap(after)
        if now.should_stop is not None and now.should_stop():
            msg = "Stopped before it was finished."
            raise Stopped(msg)
        if now.record:
            now.residual[layer] = hidden
        if now.stop is not None and layer >= now.stop:
            raise _ReachedEndError
        output = now.blocks[layer](hidden, *args, **kwargs)
        now.computed += 1
        self._shell[0].learn_output(output)
        if layer == last:
            after = first_tensor(output)
            if now.record:
                now.residual[last + 1] = after
            if now.stop is not None and now.stop <= last + 1:  # later, logits are wanted
                raise _ReachedEndError
        return output


class Shell:
    """A model whose blocks are stages.

    Args:
        model: the twin to run through.
        block_path: where its list of blocks is.
    """

    def __init__(self, model: nn.Module, block_path: str) -> None:
        self.blocks = list(blocks_of(model, block_path))
        self.now = Pass(self.blocks)
        self._tuple_of = 0  # how many things a block returns: 0 for a bare tensor
        self.root = _shallow(model)
        parent = self.root
        *path, last = block_path.split(".")
        for name in path:
            child = _shallow(parent.get_submodule(name))
            parent._modules[name] = child  # noqa: SLF001 (the shallow copy's own table)
            parent = child
        stages = [Stage(self, layer, block) for layer, block in enumerate(self.blocks)]
        parent._modules[last] = nn.ModuleList(stages)  # noqa: SLF001

    def learn_output(self, example: object) -> None:
        """Remember in which form a block returns its hidden states."""
        self._tuple_of = len(example) if isinstance(example, tuple) else 0

    def wrap(self, hidden: object) -> object:
        """Return hidden states in the form that the model expects of a block."""
        return (hidden, *([None] * (self._tuple_of - 1))) if self._tuple_of else hidden

    def run(
        self,
        ids: torch.Tensor,
        now: Pass,
        *,
        cache: object = None,
        first_position: int = 0,
    ) -> torch.Tensor | None:
        """Run the model as ``now`` says.

        Args:
            ids: LongTensor[batch, row].
            now: what to compute.
            cache: a Hugging Face cache with the keys and values of earlier positions, or None.
            first_position: the position of the first row.

        Returns:
            Float[batch, row, vocab], the logits; None where ``now.stop`` ended the run.

        Raises:
            Stopped: when ``now.should_stop`` said so.
        """
        self.now = now
        arguments: dict[str, object] = {"input_ids": ids}
        if cache is not None:
            rows = torch.arange(first_position, first_position + ids.shape[1], device=ids.device)
            arguments |= {
                "past_key_values": cache,
                "use_cache": True,
                "position_ids": rows.expand(ids.shape[0], -1),
            }
        try:
            output = self.root(**arguments)
        except _ReachedEndError:
            return None
        finally:
            self.now = Pass(self.blocks)
        logits = getattr(output, "logits", output)
        return first_tensor(logits)


def _shallow(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin._modules = dict(module._modules)  # noqa: SLF001
    return twin
