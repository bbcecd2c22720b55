"""How an optimised stimulus is written down: as waves of uncorrelated colours, or as pixels.

Gradient ascent takes steps that are steepest in some space; in which one decides what comes out.
In pixels, high frequencies win. Olah, Mordvintsev and Schubert ("Feature Visualization", Distill,
2017, "Preconditioning and parameterization") write an image as the discrete Fourier transform of
its three colours, each frequency f weighed with 1 / f as in natural images, and the colours as
uncorrelated ones, so that every direction is about equally easy:

    image = low + (high - low) sigmoid(C irfft2(weight * spectrum) / 4)

*Colours.* C turns uncorrelated colours into red, green and blue: it is the square root of the
covariance of the colours of ImageNet's pixels, C = U sqrt(S) of its singular value decomposition,
divided by the length of its longest column. Its three columns, as published with the article
(Lucid, ``optvis/param/color.py``), are lightness, blue against yellow and green against purple:

    0.26   0.09   0.02
    0.27   0.00  -0.05
    0.27  -0.09   0.03

*Frequencies.* weight(f) = (1 / f) (f0 / f)^(decay - 1) with f0 = 1/16, f in cycles a pixel and at
least 1 / max(height, width), and an orthonormal transform; the bound keeps the weight of the mean
finite. A decay of 1 is the published one. A larger one makes waves longer than 16 pixels easier and
shorter ones harder: coarse shapes come first, and there is less fine pattern all over.

A stimulus that is no image, or an image as :class:`Pixels`, is its own numbers: through a sigmoid
where the range ends on both sides, through softplus where it ends on one. A *norm ball* then holds
x within a distance of the range's middle m, m + (x - m) min(1, norm / ||x - m||), and lets the
gradient run along the sphere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from patchclamp.models.stimulus import Stimulus

Name = Literal["fourier", "pixel"]

_IMAGENET = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_FOURIER_START = 0.01  # the deviation of the start's spectrum, as published
_PIXEL_START = 0.01
_TURN = 1 / 16  # cycles a pixel, whose weight is that of 1 / f whatever the decay
_DAMPING = 4.0  # published: keeps the sigmoid steep at the start
# How near to its ends a start may come: further out, a sigmoid hardly moves any more.
_MARGIN = 0.01


def colour_matrix() -> Tensor:
    """Return Float[rgb, colour], from uncorrelated colours to red, green and blue."""
    root = torch.tensor(_IMAGENET)
    longest: Tensor = root.norm(dim=0).max()
    return root / longest


def frequencies(height: int, width: int) -> Tensor:
    """Return Float[height, width // 2 + 1], the frequency in cycles a pixel of each coefficient."""
    down = torch.fft.fftfreq(height)[:, None]
    across = torch.fft.rfftfreq(width)[None]
    return torch.hypot(down, across)


class Fourier:
    """Images as weighed waves of uncorrelated colours.

    Args:
        stimulus: what the model takes; its range and, of its first dimension, whether there are
            colours.
        shape: Of one image, [channel, height, width].
        batch: how many images.
        generator: what the start is drawn with.
        start: Float[batch, *shape] or Float[*shape], images to start at instead of noise.
        decay: how fast the weight falls with the frequency; 1 is 1 / f.

    Attributes:
        values: the parameters, Float[batch, channel, height, width // 2 + 1, 2].
    """

    def __init__(
        self,
        stimulus: Stimulus,
        shape: tuple[int, ...],
        batch: int,
        generator: torch.Generator,
        start: Tensor | None = None,
        *,
        decay: float = 1.0,
    ) -> None:
        channels, height, width = shape
        self._span = _Span(stimulus)
        self._size = (height, width)
        lowest = 1 / max(height, width)
        f = frequencies(height, width).clamp_min(lowest)
        scale = (_TURN / f) ** (decay - 1) / f
        self._weight = (scale / _DAMPING)[..., None]
        self._colours = colour_matrix() if channels == 3 else None
        if start is None:
            drawn = (batch, channels, *scale.shape, 2)
            values = torch.randn(drawn, generator=generator) * _FOURIER_START
        else:
            values = self._spectrum(_as_batch(start, shape, batch))
        self.values = values.requires_grad_()

    def stimuli(self) -> Tensor:
        """Return Float[batch, *shape], in the declared range; keeps the graph."""
        spectrum = torch.view_as_complex(self.values * self._weight)
        x = torch.fft.irfft2(spectrum, s=self._size, norm="ortho")
        if self._colours is not None:
            x = torch.einsum("rc,bchw->brhw", self._colours, x)
        return self._span.into(x)

    def _spectrum(self, images: Tensor) -> Tensor:
        x = self._span.back(images)
        if self._colours is not None:
            x = torch.einsum("cr,brhw->bchw", torch.linalg.inv(self._colours), x)
        return torch.view_as_real(torch.fft.rfft2(x, norm="ortho")) / self._weight


class Pixels:
    """Stimuli as their own numbers, within their range and, if asked for, within a norm ball.

    Args:
        stimulus: what the model takes.
        shape: of one stimulus.
        batch: how many stimuli.
        generator: what the start is drawn with.
        start: Float[batch, *shape] or Float[*shape], stimuli to start at instead of noise.
        norm: the largest distance from the range's middle; None for no ball.

    Attributes:
        values: the parameters, Float[batch, *shape].
    """

    def __init__(
        self,
        stimulus: Stimulus,
        shape: tuple[int, ...],
        batch: int,
        generator: torch.Generator,
        start: Tensor | None = None,
        norm: float | None = None,
    ) -> None:
        if norm is not None and not 0 < norm < math.inf:
            msg = f"The norm of a stimulus is held under a positive number, not {norm}."
            raise InputError(msg)
        # In a ball the steps go straight: a sigmoid would bend its sphere.
        self._span = _Span(stimulus, straight=norm is not None)
        self._norm = norm
        if start is None:
            values = torch.randn((batch, *shape), generator=generator)
            # A start well inside of the ball, whatever the size.
            values *= _PIXEL_START if norm is None else 0.1 * norm / math.sqrt(math.prod(shape))
        else:
            values = self._span.back(_as_batch(start, shape, batch))
        self.values = values.requires_grad_()

    def stimuli(self) -> Tensor:
        """Return Float[batch, *shape], in the declared range; keeps the graph."""
        x = self.values
        if self._norm is not None:
            length = x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
            x = x * (self._norm / length).clamp_max(1).view(-1, *[1] * (x.ndim - 1))
        return self._span.into(x)


Parameterization = Fourier | Pixels


class _Span:
    """The map from all numbers into a stimulus' range, and back."""

    def __init__(self, stimulus: Stimulus, *, straight: bool = False) -> None:
        self._low, self._high = stimulus.low, stimulus.high
        self._middle = stimulus.middle
        self._bounded, self._straight = stimulus.bounded, straight

    def into(self, x: Tensor) -> Tensor:
        low, high = self._low, self._high
        if self._straight:
            return (x + self._middle).clamp(low, high)
        if self._bounded:
            return x.sigmoid() * (high - low) + low
        if math.isfinite(low):
            return torch.nn.functional.softplus(x) + low
        if math.isfinite(high):
            return high - torch.nn.functional.softplus(-x)
        return x

    def back(self, x: Tensor) -> Tensor:
        low, high = self._low, self._high
        if self._straight:
            return x - self._middle
        if self._bounded:
            return ((x - low) / (high - low)).clamp(_MARGIN, 1 - _MARGIN).logit()
        if math.isfinite(low):
            return _softplus_back(x - low)
        if math.isfinite(high):
            return -_softplus_back(high - x)
        return x.clone()


def _softplus_back(y: Tensor) -> Tensor:
    y = y.clamp_min(_MARGIN)
    return y + torch.log(-torch.expm1(-y))


def _as_batch(start: Tensor, shape: tuple[int, ...], batch: int) -> Tensor:
    start = start.detach().to("cpu", torch.float32)
    if start.ndim == len(shape):
        start = start[None]
    if tuple(start.shape[1:]) != shape or len(start) not in {1, batch}:
        msg = (
            f"A start is one stimulus of the shape {shape}, or {batch} of them, not "
            f"{tuple(start.shape)}."
        )
        raise InputError(msg)
    return start.expand(batch, *shape).contiguous()
