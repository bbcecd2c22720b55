"""The frames of an optimisation that are kept: evenly spaced, within so many bytes.

Every ``stride``-th frame is kept; when they no longer fit, the stride doubles and every other one
goes. So what is kept stays evenly spaced and under the budget however long the run is, and holds
between half and all of what the budget allows. The first, the best and the last one are always
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from patchclamp.errors import BudgetError

if TYPE_CHECKING:
    from torch import Tensor

    from patchclamp.models.stimulus import Stimulus

BUDGET = 32 << 20
"""Bytes that a history takes by default."""

_POINTS = 8192  # of a curve


class History:
    """Frames by the step that they were seen at.

    An image is kept as uint8, from 0 at the low end of its range to 255 at the high one; a curve
    or raster, or an image without a range, as float16.

    Args:
        stimulus: what the frames are.
        frame: shape of a frame, Float[batch, *shape].
        budget: bytes that all frames together take at most.

    Raises:
        BudgetError: when the first, the best and the last frame do not fit.
    """

    def __init__(self, stimulus: Stimulus, frame: tuple[int, ...], budget: int = BUDGET) -> None:
        self._stimulus = stimulus
        self._as_bytes = stimulus.renderer == "image" and stimulus.bounded
        self._each = torch.Size(frame).numel() * (1 if self._as_bytes else 2)
        # The best and the last one are there as packed frames of their own.
        self._most = budget // self._each - 2
        if self._most < 1:
            msg = (
                f"A history of {budget:,} bytes holds no three frames of {self._each:,} bytes: "
                f"give it {3 * self._each:,}, or make the picture smaller."
            )
            raise BudgetError(msg)
        self._kept: dict[int, Tensor] = {}
        self._best: tuple[int, Tensor] | None = None
        self._last: tuple[int, Tensor] | None = None
        self.stride = 1

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps whose frames are kept, rising."""
        ends = [step for step, _ in (one for one in (self._best, self._last) if one is not None)]
        return tuple(sorted({*self._kept, *ends}))

    @property
    def nbytes(self) -> int:
        """Bytes that the frames take."""
        return self._each * (len(self._kept) + (self._best is not None) + (self._last is not None))

    def add(self, step: int, frame: Tensor, *, best: bool) -> None:
        """Take in the next step's frame, Float[batch, *shape] in the declared range.

        Args:
            step: its step, counted from 0, larger than that of the frame before.
            frame: what was seen.
            best: whether its value is the highest so far.
        """
        packed = self._pack(frame)
        self._last = (step, packed)
        if best:
            self._best = (step, packed)
        if step % self.stride:
            return
        self._kept[step] = packed
        while len(self._kept) > self._most:
            self.stride *= 2
            self._kept = {s: f for s, f in self._kept.items() if s % self.stride == 0}

    def packed(self, step: int) -> tuple[int, Tensor]:
        """Return the kept frame nearest to a step, with its step: uint8 or float16 [batch, *shape].

        Raises:
            BudgetError: when nothing was kept yet.
        """
        # A copy: the run may go on, and thin what is kept, while somebody looks back.
        there = {**self._kept, **dict(one for one in (self._best, self._last) if one is not None)}
        if not there:
            msg = "There is no frame yet: nothing has run."
            raise BudgetError(msg)
        nearest = min(there, key=lambda kept: (abs(kept - step), kept))
        return nearest, there[nearest]

    def frame(self, step: int) -> tuple[int, Tensor]:
        """Return the kept frame nearest to a step, with its step: Float[batch, *shape] in range.

        Raises:
            BudgetError: when nothing was kept yet.
        """
        nearest, packed = self.packed(step)
        if not self._as_bytes:
            return nearest, packed.float()
        low, high = self._stimulus.low, self._stimulus.high
        return nearest, packed.float() / 255 * (high - low) + low

    def _pack(self, frame: Tensor) -> Tensor:
        frame = frame.detach()
        if not self._as_bytes:
            return frame.to("cpu", torch.float16)
        low, high = self._stimulus.low, self._stimulus.high
        share = (frame - low).mul_(255 / (high - low))
        return share.round_().clamp_(0, 255).to("cpu", torch.uint8)


class Curve:
    """Numbers by step, thinned evenly once there are many.

    Attributes:
        steps: their steps, rising.
        values: the numbers.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[float] = []
        self._stride = 1

    def add(self, step: int, value: float) -> None:
        """Take in the next step's number."""
        if step % self._stride:
            return
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) > _POINTS:
            self._stride *= 2
            kept = [n for n, s in enumerate(self.steps) if s % self._stride == 0]
            self.steps = [self.steps[n] for n in kept]
            self.values = [self.values[n] for n in kept]
