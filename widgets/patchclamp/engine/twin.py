"""Private copies of a model that share its weights: the engine hooks these, never the user's own.

A hook on the user's modules would act on whatever the user's cell computes at that moment, and
a user's ``reset_hooks()`` would take ours away in the middle of a run. So the engine keeps two
module trees of its own over the same weight tensors:

- the *hooked* twin: a ``TransformerBridge`` with hook points of its own;
- the *plain* twin: the same model with every bridge component taken off again, which computes the
  same numbers faster. Blocks that nothing hooks run there. Where a CPU's matrix products can be
  oneDNN's, they are: torch leaves those of float32 to MKL, which takes twice as long on CPUs that
  are not Intel's.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from patchclamp.engine.attention_interface import show_patterns
from patchclamp.models.shared_weights import share_weights

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from patchclamp.models.language_model import LanguageModel


class Twins:
    """The hooked and the plain twin of a language model.

    Attributes:
        bridge: the hooked twin.
        hooked: the model inside it, whose blocks fire the hook points.
        plain: the same model without hook points.
        block_path: where the list of blocks is inside ``hooked`` and ``plain``.
    """

    def __init__(self, model: LanguageModel) -> None:
        tokenizer = getattr(model.bridge, "tokenizer", None)
        self.bridge = cast("TransformerBridge", _copy(model.bridge, tokenizer))
        self.hooked: nn.Module = self.bridge.original_model
        self.plain = _plain(
            cast("TransformerBridge", _copy(model.bridge, tokenizer)).original_model
        )
        if onednn_multiplies():
            for module in self.plain.modules():
                if type(module) is nn.Linear:
                    module.__class__ = OneDnnLinear
        self.block_path = str(self.bridge.adapter.get_component_mapping()["blocks"].name)
        show_patterns(self.bridge)
        self.hook_points: dict[str, HookPoint] = dict(self.bridge.hook_dict)


class OneDnnLinear(nn.Linear):
    """A linear layer whose product oneDNN computes, but where a gradient is wanted of it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (torch's word)
        """Return Float[..., out] of Float[..., in]."""
        at_home = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu"
        if torch.is_grad_enabled() or not at_home or not input.numel():
            return super().forward(input)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 (what torch.compile calls, too; there is no public name)
            input, self.weight, self.bias, "none", [], ""
        )
        return product


@cache
def onednn_multiplies() -> bool:
    """Say whether this torch can be told to multiply by oneDNN, trying it."""
    if not torch.backends.mkldnn.is_available():
        return False
    layer = OneDnnLinear(8, 8)
    given = torch.linspace(-1, 1, 8)[None]
    try:
        with torch.no_grad():
            return torch.allclose(layer(given), nn.functional.linear(given, *layer.parameters()))
    except (AttributeError, RuntimeError, TypeError):  # another version of torch
        return False


def _copy(bridge: nn.Module, tokenizer: object) -> nn.Module:
    twin = share_weights(bridge, tokenizer)
    for module in twin.modules():
        if isinstance(module, HookPoint):
            module.remove_hooks("both", including_permanent=True)
            module.ctx = {}
    _wire_placeholders(twin)
    return twin.eval()


def _wire_placeholders(bridge: nn.Module) -> None:
    """Let a placeholder's own hook points fire from its parts, as TransformerLens does on a bridge.

    OPT has no module that is its MLP. TransformerLens' hooks for it went with all others, and as
    copies they would have fired the original's hook points.
    """
    for module in bridge.modules():
        if not getattr(module, "_placeholder_hooks_wired", False):
            continue
        placeholder = cast("GeneralizedComponent", module)
        for part, end in (("in", "hook_in"), ("out", "hook_out")):
            inner = placeholder.submodules.get(part)
            if inner is None:
                continue
            own: HookPoint = getattr(placeholder, end)

            def fire(tensor: torch.Tensor, hook: object, own: HookPoint = own) -> torch.Tensor:  # noqa: ARG001 (TransformerLens' word)
                return cast("torch.Tensor", own(tensor))

            getattr(inner, end).add_hook(fire, is_permanent=True)


def _plain(model: nn.Module) -> nn.Module:
    for name, child in list(model.named_children()):
        inner = child
        while isinstance(inner, GeneralizedComponent) and inner.original_component is not None:
            inner = inner.original_component
        model._modules[name] = _plain(inner)  # noqa: SLF001
    return model


def blocks_of(model: nn.Module, path: str) -> nn.ModuleList:
    """Return the list of blocks at ``path``."""
    found = model.get_submodule(path)
    if not isinstance(found, nn.ModuleList):
        msg = f"{path} is a {type(found).__name__}, not a list of blocks."
        raise TypeError(msg)
    return found


def first_tensor(value: object) -> torch.Tensor:
    """Return the hidden states of what a block returned: a tensor, or the first of a tuple."""
    if isinstance(value, torch.Tensor):
        return value
    return cast("torch.Tensor", cast("tuple[object, ...]", value)[0])
