"""Which neurons are like one, and what reads what it writes; of weights alone, or of one sample.

- *writes like*: the cosine of two neurons' output vectors, what each adds to the residual stream.
- *fires like*: the correlation of two neurons' values at the same tokens.
- *feeds*: what later neurons and heads read of its output vector w, in closed form ("virtual
  weights", Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021), with the gain
  of the norm in between folded in: of a neuron the cosine of w and the row it reads with, of a head
  the length of what its queries, keys or values get of w, as a share of the longest that a vector
  of w's length can give. What a norm's scale and the layers in between do to w is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from patchclamp.errors import ModelError
from patchclamp.models.weights import (
    folded_head_weights,
    mlp_norm,
    neuron_reads,
    neuron_writes,
)

if TYPE_CHECKING:
    from torch import Tensor

    from patchclamp.models.language_model import LanguageModel


class Near(NamedTuple):
    """A site and how near it is.

    Attributes:
        address: the site's.
        value: a cosine, a correlation, or a share; see this module.
    """

    address: str
    value: float


def writes_like(model: LanguageModel, layer: int, index: int, count: int = 10) -> list[Near]:
    """Return the neurons whose output vectors point most nearly the same way, or the opposite.

    Args:
        model: whose neurons.
        layer: the neuron's layer.
        index: its number there.
        count: how many.
    """
    bridge = model.bridge
    mine = _unit(neuron_writes(bridge, layer)[index].float())
    found = []
    for other in range(model.anatomy.n_layers):
        if model.anatomy.n_neurons(other):
            cosines = _unit(neuron_writes(bridge, other).float()) @ mine
            if other == layer:
                cosines[index] = 0
            found += _largest(cosines, f"L{other}.N{{}}", count)
    return _first(found, count)


def fires_like(
    values: Tensor, layers: list[int], indices: list[int], unit: int, count: int = 10
) -> list[Near]:
    """Return the neurons whose values at the same tokens go most nearly together, or against.

    Args:
        values: Float[token, unit].
        layers: each unit's layer.
        indices: its number there.
        unit: which one.
        count: how many.
    """
    apart = values.float() - values.float().mean(0)
    length = apart.norm(dim=0)
    products = apart[:, unit] @ apart
    known = (length > 0) & (length[unit] > 0)
    correlation = torch.where(known, products / (length * length[unit]).clamp_min(1e-30), 0.0)
    correlation[unit] = 0
    best = correlation.abs().topk(min(count, len(correlation))).indices.tolist()
    return [Near(f"L{layers[n]}.N{indices[n]}", float(correlation[n])) for n in best]


def feeds(model: LanguageModel, layer: int, index: int, count: int = 10) -> list[Near]:
    """Return the later neurons and heads that read most of what a neuron writes.

    Args:
        model: whose neurons.
        layer: the neuron's layer; its own layer's attention comes before it.
        index: its number there.
        count: how many.
    """
    bridge, a = model.bridge, model.anatomy
    written = neuron_writes(bridge, layer)[index].float()
    length = written.norm().clamp_min(1e-30)
    found: list[Near] = []
    for later in range(layer + 1, a.n_layers):
        if a.n_neurons(later):
            parts = ("gate", "up") if "neuron:gate" in a.hooks[later] else ("up",)
            norm = mlp_norm(bridge, later)
            for part in parts:
                rows = norm.reading(neuron_reads(bridge, later, part).float().T).T
                name = f":{part}" if len(parts) > 1 else ":pre"
                found += _largest(_unit(rows) @ (written / length), f"L{later}.N{{}}{name}", count)
        try:
            heads = folded_head_weights(bridge, later)
        except ModelError:  # no such matrices (latent attention, state space): no head to name
            continue
        for part, weights in (("q", heads.W_Q), ("k", heads.W_K), ("v", heads.W_V)):
            reached = torch.einsum("d,hdk->hk", written, weights).norm(dim=1)
            # The largest singular value, of the small side's products: a tenth of an SVD's time.
            most = torch.linalg.eigvalsh(weights.mT @ weights)[:, -1].clamp_min(1e-30).sqrt()
            share = a.n_heads // len(weights)  # a shared key/value head has its first head's name
            names = [f"L{later}.H{n * share}:{part}" for n in range(len(weights))]
            found += [
                Near(n, float(v)) for n, v in zip(names, reached / most / length, strict=True)
            ]
    return _first(found, count)


def _unit(rows: Tensor) -> Tensor:
    length: Tensor = rows.norm(dim=-1, keepdim=True)
    return rows / length.clamp_min(1e-30)


def _largest(values: Tensor, name: str, count: int) -> list[Near]:
    best = values.abs().topk(min(count, len(values))).indices.tolist()
    return [Near(name.format(n), float(values[n])) for n in best]


def _first(found: list[Near], count: int) -> list[Near]:
    return sorted(found, key=lambda near: -abs(near.value))[:count]
