"""Copies of a model that share its weights, and how to see that a weight was changed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from patchclamp.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


def share_weights(module: nn.Module, *also: object) -> nn.Module:
    """Copy a module tree without copying a weight.

    The copy has its own modules, and so its own hooks, flags and buffers' names, while every
    parameter and buffer *is* the original's: a later in-place update shows in both.

    Args:
        module: any module.
        also: objects that the copy should share too (a tokenizer, say).

    Raises:
        ModelError: when the module holds something that cannot be copied.
    """
    memo: dict[int, object] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    memo |= {id(thing): thing for thing in also if thing is not None}
    return _copied(module, memo)


def frozen_twin(module: nn.Module) -> nn.Module:
    """Copy a module tree without copying a weight, for runs that want no gradient of a weight.

    Its parameters are views of the original's that ask for no gradient: an in-place update of
    the original shows in the copy, while a backward pass through the copy never touches the
    original's ``.grad``. Its buffers are its own, since a stateful module writes to them. It is in
    evaluation mode and has none of the original's hooks, but those that torch itself put there
    (weight and spectral normalisation).

    Args:
        module: any module.

    Raises:
        ModelError: when the module holds something that cannot be copied, or weights that were
            never given a size.
    """
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        if isinstance(parameter, torch.nn.UninitializedParameter):
            msg = (
                f"{type(module).__name__} has weights that were never given a size: run it once on "
                "an input."
            )
            raise ModelError(msg)
        memo[id(parameter)] = torch.nn.Parameter(parameter.detach(), requires_grad=False)
    for part in module.modules():
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            table = getattr(part, name)
            memo[id(table)] = type(table)(
                (key, copy.copy(hook)) for key, hook in table.items() if _is_torchs(hook)
            )
    twin = _copied(module, memo).eval()
    for part in twin.modules():
        # In place, what a module reads would be gone before it is looked at.
        if vars(part).get("inplace") is True:
            vars(part)["inplace"] = False
    return twin


def _is_torchs(hook: object) -> bool:
    return type(hook).__module__.startswith("torch.nn.utils")


def _copied(module: nn.Module, memo: dict[int, object]) -> nn.Module:
    # What a run with gradients has left behind (a bridge keeps its last pattern) is no weight, and
    # torch copies no tensor that has a history.
    memo |= {
        id(kept): kept.detach()
        for part in module.modules()
        for kept in vars(part).values()
        if isinstance(kept, torch.Tensor) and not kept.is_leaf
    }
    try:
        return copy.deepcopy(module, memo)
    except (TypeError, RuntimeError) as error:
        msg = (
            f"{type(module).__name__} holds something that cannot be copied ({error}); "
            "patchclamp runs its interventions on a copy that shares the weights."
        )
        raise ModelError(msg) from error


class Weight(NamedTuple):
    """A parameter or buffer as it was: where it hung, and how often it had been updated."""

    table: Mapping[str, Tensor | None]
    name: str
    tensor: Tensor
    updates: int
    address: int


def changed(weights: Sequence[Weight]) -> bool:
    """Say whether any was updated in place, replaced, or given other memory."""
    # Asked before every run, of hundreds: in one loop, without a call for each.
    for table, name, tensor, updates, address in weights:
        if (
            table.get(name) is not tensor
            or tensor._version != updates  # noqa: SLF001
            or tensor.data_ptr() != address
        ):
            return True
    return False


def weights_of(module: nn.Module) -> list[Weight]:
    """Return every parameter as it is now."""
    return _noted([owner._parameters for owner in module.modules()])  # noqa: SLF001


def buffers_of(module: nn.Module) -> list[Weight]:
    """Return every buffer as it is now: running means, say, or a state."""
    return _noted([owner._buffers for owner in module.modules()])  # noqa: SLF001


def state_of(module: nn.Module) -> list[Weight]:
    """Return every buffer that a run in evaluation mode may write to: not the running means."""
    norms = nn.modules.batchnorm._NormBase  # noqa: SLF001 (torch's only name for all of them)
    kept = [owner._buffers for owner in module.modules() if not isinstance(owner, norms)]  # noqa: SLF001
    return _noted(kept)


def _noted(tables: Sequence[Mapping[str, Tensor | None]]) -> list[Weight]:
    # The modules' own tables: walking the tree at every run would cost milliseconds.
    return [
        Weight(table, name, tensor, tensor._version, tensor.data_ptr())  # noqa: SLF001
        for table in tables
        for name, tensor in table.items()
        if tensor is not None
    ]
