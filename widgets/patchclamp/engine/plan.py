"""What a run can take over from an earlier one: which layers and positions it need not compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.hooks import first_position, touched_layers
from patchclamp.engine.trace import Trace

if TYPE_CHECKING:
    from transformers.cache_utils import DynamicCache

    from patchclamp.interventions import Intervention
    from patchclamp.models.anatomy import Anatomy

    Stack = tuple[Intervention, ...]


@dataclass(frozen=True)
class Input:
    """What a model is run on.

    Attributes:
        ids: the token ids.
        has_bos: whether position 0 is a beginning-of-sequence token.
    """

    ids: tuple[int, ...]
    has_bos: bool


@dataclass(frozen=True)
class Plan:
    """Where to start.

    Attributes:
        parent: the run to build on; None to compute everything.
        layer: the first layer to compute.
        position: the first position to compute.
    """

    parent: Trace | None = None
    layer: int = 0
    position: int = 0


def difference(old: Stack, new: Stack, given: Input, anatomy: Anatomy) -> tuple[int, int]:
    """Return the lowest layer and the first position at which two stacks can differ.

    A new stack that reads something below that layer to act above it starts where it reads.
    """
    length = len(given.ids)
    spans = {iv: touched_layers(iv, anatomy) for iv in {*old, *new}}
    by_layer: list[dict[int, list[Intervention]]] = [{}, {}]
    for side, stack in zip(by_layer, (old, new), strict=True):
        for iv in stack:
            for layer in spans[iv]:
                side.setdefault(layer, []).append(iv)
    layers = [n for n in {*by_layer[0], *by_layer[1]} if by_layer[0].get(n) != by_layer[1].get(n)]
    if not layers:
        return anatomy.n_layers, length
    start = min(layers)
    differing = {iv for n in layers for side in by_layer for iv in side.get(n, [])}
    positions = [first_position(iv, length, given.has_bos) for iv in differing]
    first = min((p for p in positions if p is not None), default=length)
    moved = True
    while moved:
        moved = False
        for iv in new:
            if spans[iv] and spans[iv][0] < start <= spans[iv][-1]:
                start, moved = spans[iv][0], True
    return start, first


def compose(
    ids: tuple[int, ...],
    stack: Stack,
    plan: Plan,
    residual: dict[int, torch.Tensor],
    cache: DynamicCache | None,
) -> Trace:
    """Put a run together from what it computed and what it took over.

    Args:
        ids: the token ids.
        stack: the interventions that acted.
        plan: where it started.
        residual: Float[1, row, d_model] by layer, what was computed; after the last layer too.
        cache: the keys and values of the computed layers, or None.
    """
    parent, first = plan.parent, plan.position
    n_layers = max(residual)
    streams = []
    for layer in range(n_layers + 1):
        if parent is not None and layer <= plan.layer:
            streams.append(parent.residual[layer])
            continue
        rows = residual[layer][0].detach()
        kept = None if parent is None or not first else parent.residual[layer][:first]
        streams.append(rows if kept is None else torch.cat([kept, rows]))
    keys: list[torch.Tensor] = []
    values: list[torch.Tensor] = []
    if cache is not None and len(cache.layers) == n_layers:
        if parent is not None:
            keys += (parent.keys or ())[: plan.layer]
            values += (parent.values or ())[: plan.layer]
        for computed in cache.layers[len(keys) :]:
            keys.append(computed.keys[0])  # type: ignore[union-attr, index] # it was just filled
            values.append(computed.values[0])  # type: ignore[union-attr, index]
    return Trace(ids, stack, tuple(streams), tuple(keys) or None, tuple(values) or None)
