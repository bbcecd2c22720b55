"""Massive-activation neurons: a handful that carry the model whatever it reads.

A few MLP neurons reach values hundreds of times those of any other, mostly at the first token, and
act as a constant bias that everything downstream relies on (Sun, Chen, Kolter and Liu, "Massive
Activations in Large Language Models", 2024, describe them in the residual stream). Rankings by size
put them first, and ablating one wrecks every task alike, so that a random control that hits one
makes anything look selective. They are masked in rankings and random controls unless asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchclamp.engine.surroundings import Reference
    from patchclamp.models.anatomy import Anatomy

MASSIVE = 100.0
"""How many times the median neuron's peak a neuron's peak is when it counts as massive."""


def neuron_hooks(anatomy: Anatomy) -> dict[int, str]:
    """Return the hook point of each layer's neurons."""
    return {
        layer: anatomy.hook(Site("neuron", layer, 0, "post"))
        for layer in range(anatomy.n_layers)
        if anatomy.n_neurons(layer)
    }


def massive_neurons(
    reference: Reference, anatomy: Anatomy, should_stop: Callable[[], bool] | None = None
) -> frozenset[tuple[int, int]]:
    """Return (layer, index) of the massive neurons; measures the reference set if need be.

    A neuron is massive when the peak of its absolute value over the reference set, position 0
    included, is more than :data:`MASSIVE` times the median neuron's. Neurons that stay at 0 (most
    of them in some models with ReLU) do not count for the median.
    """
    hooks = neuron_hooks(anatomy)
    if not hooks:
        return frozenset()
    for _ in reference.measure(list(hooks.values()), should_stop):  # all in one pass
        pass
    peaks = {layer: reference.statistics(hook).peak for layer, hook in hooks.items()}
    all_peaks = torch.cat(list(peaks.values()))
    if not bool(all_peaks.any()):
        return frozenset()
    median = all_peaks[all_peaks > 0].median()
    return frozenset(
        (layer, int(index))
        for layer, peak in peaks.items()
        for index in (peak > MASSIVE * median).nonzero().flatten()
    )
