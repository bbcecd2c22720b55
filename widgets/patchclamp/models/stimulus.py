"""What a model that is not a language model takes: a shape, a range of values, a way to draw it.

An image classifier takes a picture, a recurrent net a sequence, a retina model a flickering
checkerboard. Once that is declared, one optimiser and one view work on all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast, get_args

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Renderer = Literal["image", "curve", "raster"]

# How far a value may lie outside of the declared range, as a share of it: rounding, no more.
_SLACK = 1e-4


@dataclass(frozen=True)
class Stimulus:
    """What a module takes, without the batch dimension, before any normalisation.

    >>> picture = Stimulus((3, None, None), size=224, smallest=32)
    >>> picture.example_shape(), picture.example_shape(128)
    ((3, 224, 224), (3, 128, 128))

    Args:
        shape: The size of each dimension; None where it is free.
        low: The smallest value that an entry may have; `-math.inf` where there is none.
        high: The largest value that an entry may have.
        renderer: How it is drawn: "image" is [1 or 3, height, width], "curve" [channel, time],
            "raster" [row, time] or [1, height, width].
        mean: What is taken off each channel (dimension 0) before the module sees it, in the units
            of the declared range; empty for nothing.
        std: What each channel is then divided by; empty for nothing.
        size: What a free dimension has where nothing is said.
        smallest: The least that the module can take there.

    Raises:
        InputError: When shape, range, renderer and normalisation do not go together.
    """

    shape: tuple[int | None, ...]
    low: float = 0.0
    high: float = 1.0
    renderer: Renderer = "image"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int | None = None
    smallest: int = 1

    def __post_init__(self) -> None:
        for name in ("shape", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.shape or any(n is not None and n < 1 for n in self.shape):
            raise InputError(
                f"The shape of a stimulus is one positive size, or None, for each of its "
                f"dimensions, not {self.shape}."
            )
        if not self.low < self.high:
            raise InputError(
                f"The range of a stimulus goes from low to high, not {self.low} to {self.high}."
            )
        if None in self.shape and (self.size is None or self.size < self.smallest):
            raise InputError(
                f"A stimulus of the shape {self.shape} needs size=, what a free dimension has "
                f"where nothing is said, at least smallest={self.smallest}."
            )
        self._check_renderer()
        self._check_channels()

    def _check_renderer(self) -> None:
        first, count = self.shape[0], len(self.shape)
        fits = {
            "image": count == 3 and first in {1, 3},
            "curve": count == 2,
            "raster": count == 2 or (count == 3 and first == 1),
        }
        wants = {
            "image": "[1 or 3, height, width]",
            "curve": "[channel, time]",
            "raster": "[row, time] or [1, height, width]",
        }
        if self.renderer not in get_args(Renderer):
            raise InputError(
                f"A renderer is one of {', '.join(get_args(Renderer))}, not {self.renderer!r}."
            )
        if not fits[self.renderer]:
            raise InputError(
                f"The renderer {self.renderer!r} draws {wants[self.renderer]}, not the shape "
                f"{self.shape}."
            )

    def _check_channels(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and self.shape[0] != len(values):
                raise InputError(
                    f"{name} has {len(values)} numbers, and the first dimension of the shape "
                    f"{self.shape} is {self.shape[0]}: one is needed for each channel."
                )
        if any(not math.isfinite(s) or s <= 0 for s in self.std):
            raise InputError(f"std is positive for every channel, not {self.std}.")

    @property
    def bounded(self) -> bool:
        """Whether the range ends on both sides."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def middle(self) -> float:
        """The value in the middle of the range; 0 or the end nearest to it where it is endless."""
        if self.bounded:
            return (self.low + self.high) / 2
        return min(max(0.0, self.low), self.high)

    def example_shape(self, size: int | None = None) -> tuple[int, ...]:
        """The shape of one stimulus.

        Args:
            size: What the free dimensions have; by default the declared size.

        Raises:
            InputError: When the module cannot take that size.
        """
        wanted = self.size if size is None else size
        found = tuple(wanted if n is None else n for n in self.shape)
        self.check_shape(cast("tuple[int, ...]", found))
        return cast("tuple[int, ...]", found)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Say when the module takes no stimulus of a shape.

        Args:
            shape: Without the batch dimension.

        Raises:
            InputError: Naming the shape that it takes.
        """
        wanted = self.shape
        if len(shape) != len(wanted) or any(
            n is not None and n != m for n, m in zip(wanted, shape, strict=True)
        ):
            takes = ", ".join("any" if n is None else str(n) for n in wanted)
            raise InputError(f"The model takes stimuli of the shape ({takes}), not {tuple(shape)}.")
        for n, m in zip(wanted, shape, strict=True):
            if n is None and m < self.smallest:
                raise InputError(
                    f"A size of {m} is too small for this model: it takes {self.smallest} or more."
                )

    def check(self, value: Tensor) -> Tensor:
        """Return a stimulus or a batch of them as it came, or say what is wrong with it.

        Args:
            value: Float[*shape] or Float[batch, *shape], in the declared range.

        Raises:
            InputError: When it is no tensor of numbers, has another shape, leaves the declared
                range, or is not finite.
        """
        import torch

        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"A stimulus is a torch tensor of numbers, not a {type(value).__name__}."
            )
        if not value.is_floating_point():
            raise InputError(
                f"A stimulus holds floating-point numbers from {self.low:g} to {self.high:g}, not "
                f"{str(value.dtype).removeprefix('torch.')}: convert it, x.float() / 255 for one."
            )
        batched = value.ndim == len(self.shape) + 1
        self.check_shape(tuple(value.shape[1:] if batched else value.shape))
        if value.numel() == 0:
            raise InputError("A batch of stimuli holds one at least.")
        with torch.no_grad():
            least, most = value.amin().item(), value.amax().item()
        if math.isnan(least) or math.isnan(most):
            raise InputError("The stimulus holds NaN, which is no number.")
        slack = _SLACK * (self.high - self.low) if self.bounded else 0.0
        if least < self.low - slack or most > self.high + slack:
            raise InputError(
                f"The stimulus has values from {least:.4g} to {most:.4g}, and the model takes "
                f"{self.low:g} to {self.high:g}."
            )
        if math.isinf(least) or math.isinf(most):
            raise InputError("The stimulus holds an infinite number.")
        return value
