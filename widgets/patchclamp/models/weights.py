"""Which weights of a bridged model mean what.

What a neuron and a head write, what a head reads with, how a token is read out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from patchclamp.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn
    from transformer_lens.model_bridge import TransformerBridge


def neuron_writes(bridge: TransformerBridge, layer: int) -> Tensor:
    """Return Float[neuron, d_model], what each neuron of a layer writes per unit of its value.

    These are the *down* rows (the output projection), not the *up* rows, which a neuron reads with.
    """
    projection = bridge.blocks[layer].mlp.out.original_component
    weight: Tensor = projection.weight.detach()
    # GPT-2's Conv1D keeps its weight as [in, out].
    return weight if type(projection).__name__ == "Conv1D" else weight.T


def neuron_reads(bridge: TransformerBridge, layer: int, part: str) -> Tensor:
    """Return Float[neuron, d_model], what each neuron of a layer reads with.

    Args:
        bridge: the model.
        layer: which layer.
        part: "up", the matrix before the nonlinearity of an MLP without a gate, or "gate".

    Raises:
        ModelError: when the layer's MLP has no such matrix.
    """
    mlp = getattr(bridge.blocks[layer], "mlp", None)
    projection = None if mlp is None else _child(mlp, {"up": "in", "gate": "gate"}[part])
    weight = getattr(getattr(projection, "original_component", None), "weight", None)
    if weight is None or weight.ndim != 2:
        msg = f"The MLP of layer {layer} has no {part} projection."
        raise ModelError(msg)
    found: Tensor = weight.detach()
    conv1d = type(projection.original_component).__name__ == "Conv1D"  # type: ignore[union-attr]
    return found.T if conv1d else found


class HeadWeights(NamedTuple):
    """The four matrices of every head of a layer, as x W; biases are apart.

    Attributes:
        W_Q: Float[head, d_model, d_head].
        W_K: Float[kv_head, d_model, d_head]; with grouped-query attention several heads share one.
        W_V: Float[kv_head, d_model, d_head].
        W_O: Float[head, d_head, d_model].
    """

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor


def head_weights(bridge: TransformerBridge, layer: int) -> HeadWeights:
    """Return what the heads of a layer read with and write with.

    Raises:
        ModelError: when the layer's attention has no such matrices (latent attention, state space).
    """
    return HeadWeights(*(_of_heads(bridge, layer, name) for name in HeadWeights._fields))


def head_output(bridge: TransformerBridge, layer: int, head: int) -> Tensor:
    """Return Float[d_head, d_model], what a head writes per unit of its z.

    The output projection's bias belongs to no head.

    Raises:
        ModelError: when the layer's attention has no such matrix.
    """
    return _of_heads(bridge, layer, "W_O")[head]


def _of_heads(bridge: TransformerBridge, layer: int, name: str) -> Tensor:
    attention: Any = _child(bridge.blocks[layer], "attn")
    try:
        weight = getattr(attention, name)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        msg = f"Layer {layer}'s attention has no matrix {name} for each head ({error})."
        raise ModelError(msg) from error
    if weight.ndim != 3:
        msg = f"Layer {layer}'s attention has no matrix {name} for each head."
        raise ModelError(msg)
    found: Tensor = weight.detach()
    return found


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm: x becomes (x - mean, if centred) * scale(x) * gain, and its bias.

    Attributes:
        gain: Float[d_model], its weights.
        centred: whether it subtracts the mean.
        eps: what it adds below its root; None where it is no norm and changes nothing.
    """

    gain: Tensor
    centred: bool
    eps: float | None

    @classmethod
    def of(cls, bridge: TransformerBridge, norm: nn.Module) -> Norm:
        """Read it off a norm of a bridge."""
        original: Any = norm.original_component
        config: Any = bridge.cfg
        weight = getattr(original, "weight", None)
        if isinstance(original, torch.nn.Identity):
            return cls.none(bridge)
        gain = _ones(bridge) if weight is None else weight.detach()
        if weight is not None and getattr(config, "rmsnorm_uses_offset", False):
            gain = gain + 1
        rms = bool(getattr(config, "uses_rms_norm", False))
        return cls(
            gain, not (rms or "RMS" in type(original).__name__.upper()), float(config.eps or 0)
        )

    @classmethod
    def none(cls, bridge: TransformerBridge) -> Norm:
        """Make what stands where there is no norm."""
        return cls(_ones(bridge), centred=False, eps=None)

    def scale(self, x: Tensor) -> Tensor:
        """Return Float64[...]: what it multiplies Float[..., d_model] vectors by, besides gain."""
        x = x.double()
        if self.eps is None:
            return torch.ones_like(x[..., 0])
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        return (x.square().mean(-1) + self.eps).rsqrt()

    def reading(self, weights: Tensor) -> Tensor:
        """Fold gain and centring into Float[d_model, ...] weights that read what it gives.

        With its scale held, norm(x) W = scale(x) * x @ reading(W) + constant.
        """
        gained = self.gain.reshape(-1, *[1] * (weights.ndim - 1)) * weights
        return gained - gained.mean(0, keepdim=True) if self.centred else gained


def attention_norm(bridge: TransformerBridge, layer: int) -> Norm:
    """Return the norm between the residual stream and a layer's attention.

    Where attention reads the residual stream as it is (BERT and OLMo 2 norm after it), there is
    none.
    """
    block = bridge.blocks[layer]
    norm = _child(block, "ln1")
    return Norm.none(bridge) if norm is None or _after(block, norm) else Norm.of(bridge, norm)


def mlp_norm(bridge: TransformerBridge, layer: int) -> Norm:
    """Return the norm between the residual stream and a layer's MLP; as :func:`attention_norm`."""
    block = bridge.blocks[layer]
    norm = _child(block, "ln2")
    if norm is None:  # one norm for both, as in GPT-J
        return attention_norm(bridge, layer)
    return Norm.none(bridge) if _after(block, norm) else Norm.of(bridge, norm)


def attention_gain(bridge: TransformerBridge, layer: int) -> Tensor:
    """Return Float[d_model], the gain of the norm before a layer's attention; ones without one."""
    return attention_norm(bridge, layer).gain


def folded_head_weights(bridge: TransformerBridge, layer: int) -> HeadWeights:
    """Return the heads' matrices with everything linear of the norms around them folded in.

    The norm before attention (its gain and, in a LayerNorm, its centring) goes into what reads the
    stream; norms of queries and keys (Qwen 3, Gemma 3) into these; the gain of a norm after
    attention (Gemma 2 and 3) into what writes. What is left of a norm is one factor for each token.

    Raises:
        ModelError: as :func:`head_weights`.
    """
    W_Q, W_K, W_V, W_O = (weight.float() for weight in head_weights(bridge, layer))
    block = bridge.blocks[layer]
    before = attention_norm(bridge, layer)
    read = [before.reading(W.transpose(0, 1)).transpose(0, 1) for W in (W_Q, W_K, W_V)]
    for index, name in enumerate(("q_norm", "k_norm")):
        norm = _child(block.attn, name)
        if norm is not None:
            read[index] = _gained(read[index], Norm.of(bridge, norm).gain)
    after = _child(block, "ln1_post")
    if after is not None:
        W_O = W_O * Norm.of(bridge, after).gain
    return HeadWeights(read[0], read[1], read[2], W_O)


def _gained(weights: Tensor, gain: Tensor) -> Tensor:
    """Multiply Float[head, d_model, d_head] by a gain of d_head, or of all heads' coordinates."""
    heads, _, width = weights.shape
    if gain.numel() not in {width, heads * width}:  # a norm without gain
        return weights
    return weights * gain.reshape(-1, 1, width)


def _ones(bridge: TransformerBridge) -> Tensor:
    weight = next(bridge.parameters())
    return torch.ones(int(bridge.cfg.d_model), device=weight.device, dtype=weight.dtype)


def _child(module: Any, name: str) -> Any:
    """A bridge component's own child, not what the bridge forwards to the original model."""
    return module._modules.get(name)  # noqa: SLF001


def _after(block: Any, norm: Any) -> bool:
    """Whether the norm comes after attention, on the residual stream (BERT, OPT-350M)."""
    if getattr(block.original_component, "do_layer_norm_before", True) is False:
        return True
    return "attention.output" in (getattr(norm, "name", "") or "")


@dataclass(frozen=True, eq=False)
class Readout:
    """How the final residual stream becomes logits.

    Attributes:
        norm: the final norm.
        unembed: Float[vocab, d_model].
        factor: what the model multiplies all logits by (Cohere, Granite); before any soft cap.
    """

    norm: Norm
    unembed: Tensor
    factor: float = 1.0

    @classmethod
    def of(cls, bridge: TransformerBridge) -> Readout:
        """Read it off a bridge.

        Raises:
            ModelError: when the model does not end in one norm and one unembedding.
        """
        norm = getattr(bridge, "ln_final", None)
        unembed = getattr(getattr(bridge, "unembed", None), "original_component", None)
        weight = getattr(unembed, "weight", None)
        if norm is None or weight is None or weight.shape[1] != int(bridge.cfg.d_model):
            msg = (
                "This model does not end in one norm and one unembedding, so a direct effect on a "
                "token is not defined; rank by activation or gradient instead."
            )
            raise ModelError(msg)
        config: Any = bridge.cfg
        factor = float(getattr(config, "logit_scale", None) or 1)
        factor /= float(getattr(config, "logits_scaling", None) or 1)
        return cls(Norm.of(bridge, norm), weight.detach(), factor)

    def reading(self, tokens: int | Sequence[int]) -> Tensor:
        """Return Float64[d_model]: what reads a logit off the stream, but for the norm's scale.

        Args:
            tokens: which logit; of two, the first minus the second.
        """
        first, *others = (tokens,) if isinstance(tokens, int) else tokens
        row = self.unembed[first].double()
        for other in others[:1]:
            row = row - self.unembed[other].double()
        return self.norm.reading(row) * self.factor

    def through(self, writes: Tensor) -> Tensor:
        """Fold the final norm into what is written, so that ``@ unembed.T`` gives its logits.

        Args:
            writes: Float[..., d_model], vectors written to the residual stream.

        Returns:
            Float[..., d_model]; logits are right but for the norm's scale, which a run decides.
        """
        centred = writes - writes.mean(-1, keepdim=True) if self.norm.centred else writes
        return centred * self.norm.gain * self.factor

    def direction(self, final: Tensor, token: int) -> Tensor:
        """Return Float[d_model]: how much each coordinate written to the residual adds to a logit.

        The norm's scale is taken as it is in the run (frozen), so that contributions of all
        components add up to the logit.

        Args:
            final: Float[d_model], the residual stream before the final norm.
            token: which logit.
        """
        return (self.reading(token) * self.norm.scale(final)).float()
