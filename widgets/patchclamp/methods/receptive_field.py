"""Which part of a stimulus a unit's value at one place depends on.

Found by the gradient of what the part computes at its middle place by noise: what has a gradient
of exactly 0 on every noise cannot be seen from there (Luo et al., "Understanding the Effective
Receptive Field in Deep Convolutional Neural Networks", 2016, tell this theoretical field from the
much smaller effective one). Other places see as much, so many strides further on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patchclamp.engine.module_engine import ModuleEngine

    ShouldStop = Callable[[], bool]
    Span = tuple[int, int]

_NOISES = 4  # where one noise leaves a unit dead another one does not


@dataclass(frozen=True)
class ReceptiveField:
    """What can be seen from each place of a part.

    Attributes:
        places: how many places the part has in each of its dimensions.
        size: how large the stimulus is in these dimensions, its last ones.
        middle: from where to where the middle place sees; None where that reaches an end of the
            stimulus, so that more of it cannot be told from all of it.
    """

    places: tuple[int, ...]
    size: tuple[int, ...]
    middle: tuple[Span | None, ...]

    def at(self, place: Sequence[int]) -> tuple[Span, ...]:
        """Return from where to where a place sees in each of the stimulus' last dimensions."""
        found: list[Span] = []
        each = zip(place, self.places, self.size, self.middle, strict=True)
        for index, count, size, span in each:
            if span is None:
                found.append((0, size))
                continue
            shift = round((index - count // 2) * size / count)
            begin, end = max(0, span[0] + shift), min(size, span[1] + shift)
            found.append((begin, max(end, begin + 1)))
        return tuple(found)


def receptive_field(
    engine: ModuleEngine,
    path: str,
    shape: Sequence[int],
    *,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> ReceptiveField | None:
    """Find the receptive field of a part. Runs on the model's worker.

    Args:
        engine: the model's.
        path: the part.
        shape: of one stimulus.
        seed: of the noise.
        should_stop: asked before every module.

    Returns:
        The field; None where the part has no places, or more dimensions of them than a stimulus,
        or no gradient leads from it to the stimulus.

    Raises:
        Stopped: when ``should_stop`` said so.
    """
    declared = engine.model.stimulus
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(_NOISES, *shape, generator=generator)
    if declared.bounded:
        noise = declared.low + (declared.high - declared.low) * noise
    noise = noise.to(engine.model.device, engine.model.dtype).requires_grad_()
    with torch.enable_grad():
        try:
            values = engine.run(noise, [path], should_stop=should_stop).values[path]
        except ModelError:  # no gradient reaches the input, through a threshold for one
            return None
        places = tuple(values.shape[2:])
        if not places or len(places) > len(shape):
            return None
        middle = values
        for count in places:
            middle = middle.select(2, count // 2)
        # A random sum of all channels: no two of them cancel out.
        weights = torch.rand(middle.shape, generator=generator).to(middle)
        (slope,) = torch.autograd.grad((middle * weights).sum(), [noise])
    seen = (slope != 0).any(0)
    size = tuple(shape[len(shape) - len(places) :])
    spans = []
    for axis, extent in enumerate(size, len(shape) - len(places)):
        others = [other for other in range(len(shape)) if other != axis]
        inside = (seen.any(dim=others) if others else seen).nonzero().flatten().tolist()
        whole = not inside or inside[0] == 0 or inside[-1] == extent - 1
        spans.append(None if whole else (inside[0], inside[-1] + 1))
    return ReceptiveField(places, size, tuple(spans))
