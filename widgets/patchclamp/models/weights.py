"""Which weights of a bridged model mean what: what a neuron writes, how a token is read out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge


def neuron_writes(bridge: TransformerBridge, layer: int) -> Tensor:
    """Return Float[neuron, d_model], what each neuron of a layer writes per unit of its value.

    These are the *down* rows (the output projection), not the *up* rows, which a neuron reads with.
    """
    projection = bridge.blocks[layer].mlp.out.original_component
    weight: Tensor = projection.weight.detach()
    # GPT-2's Conv1D keeps its weight as [in, out].
    return weight if type(projection).__name__ == "Conv1D" else weight.T


@dataclass(frozen=True, eq=False)
class Readout:
    """How the final residual stream becomes logits.

    Attributes:
        gain: Float[d_model], the final norm's weights.
        centred: whether the norm subtracts the mean.
        eps: what the norm adds below its root.
        unembed: Float[vocab, d_model].
    """

    gain: Tensor
    centred: bool
    eps: float
    unembed: Tensor

    @classmethod
    def of(cls, bridge: TransformerBridge) -> Readout:
        """Read it off a bridge.

        Raises:
            ModelError: when the model does not end in one norm and one unembedding.
        """
        norm = getattr(bridge, "ln_final", None)
        unembed = getattr(getattr(bridge, "unembed", None), "original_component", None)
        if norm is None or unembed is None or getattr(unembed, "weight", None) is None:
            msg = (
                "This model does not end in one norm and one unembedding, so a direct effect on a "
                "token is not defined; rank by activation or gradient instead."
            )
            raise ModelError(msg)
        weight = getattr(norm.original_component, "weight", None)
        width = unembed.weight.shape[1]
        gain = (
            torch.ones(width, device=unembed.weight.device) if weight is None else weight.detach()
        )
        if getattr(bridge.cfg, "rmsnorm_uses_offset", False):
            gain = gain + 1
        rms = (
            bool(getattr(bridge.cfg, "uses_rms_norm", False))
            or "RMS" in type(norm.original_component).__name__.upper()
        )
        return cls(gain, not rms, float(bridge.cfg.eps), unembed.weight.detach())

    def direction(self, final: Tensor, token: int) -> Tensor:
        """Return Float[d_model]: how much each coordinate written to the residual adds to a logit.

        The norm's scale is taken as it is in the run (frozen), so that contributions of all
        components add up to the logit.

        Args:
            final: Float[d_model], the residual stream before the final norm.
            token: which logit.
        """
        x = final.double()
        if self.centred:
            x = x - x.mean()
        scale = (x.square().mean() + self.eps).sqrt()
        read = self.gain.double() * self.unembed[token].double() / scale
        return (read - read.mean() if self.centred else read).float()
