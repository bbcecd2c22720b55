"""How an optimised image is moved before each step, so that what excites a unit is no accident.

An optimised image that excites a unit only pixel by pixel is noise to the eye. Each step therefore
sees it otherwise, every image of a batch in its own way:

*Crops* (:class:`Crops`, the default). A random square of the image is shown in the image's own
size: from 0.4 to 1.2 of its side, so that an object has to be one at several sizes; nearer to the
middle than to the edges, so that there is one of it and not many; turned by up to 15 degrees; and
under white noise, in which only what is coarse and strong enough is seen. Each of these makes
pictures more recognisable: random shifts, scales and turns (Olah, Mordvintsev and Schubert,
"Feature Visualization", Distill, 2017), the middle before the edges (Nguyen, Yosinski and Clune,
"Multifaceted Feature Visualization", 2016), zooming and centring (Ghiasi et al., "Plug-In
Inversion", ICML 2022), and crops under noise (Fel et al., "Unlocking Feature Visualization for
Deeper Networks with MAgnitude Constrained Optimization", NeurIPS 2023). The numbers are our own,
chosen by eye on classes of EfficientNet-Lite0.

*Lucid* (:class:`Lucid`). Sizes as published with Olah, Mordvintsev and Schubert (Lucid's and
Lucent's standard transformations):

    pad 12 pixels of grey, jitter 8, scale by 0.9 to 1.1 (11 values), rotate by -10 to 10 degrees
    (whole ones; upright as often as 6 of them), jitter 4

Jitter d cuts a random window that is d pixels smaller. These are affine all of them, so that one
bilinear sampling does what five would: of a point p of the window, counted from its centre,

    p -> R (p + second jitter) / scale + first jitter

in the image, counted from its centre, with R the turn; outside of the image is grey. The window is
as large as published (12 pixels more than the image) where the model takes any size, else the
image's own size. Images under 128 pixels are moved in proportion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

Name = Literal["crops", "lucid", "none"]

_PUBLISHED_FOR = 128


@dataclass(frozen=True)
class Crops:
    """Squares of an image at several sizes, under noise.

    Attributes:
        shares: the least and the largest side of a square, as a share of the image's.
        centre: the deviation of its middle from the image's, as a share of the side.
        beyond: how far it may reach beyond the image, as a share of the side.
        angle: by how many degrees it is turned at most, to either side.
        noise: the largest deviation of the white noise, as a share of the stimulus' range; each
            step draws one from 0 on, so that fine detail has its turn.
    """

    shares: tuple[float, float] = (0.4, 1.2)
    centre: float = 0.1
    beyond: float = 0.05
    angle: float = 15.0
    noise: float = 0.25

    def matrices(self, batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw which square of each image is seen, in a window of the image's size.

        Returns:
            Float[batch, 2, 3], from pixels of the window to pixels of the image, both counted from
            their centres, x before y.
        """
        low, high = self.shares
        share, turn = torch.rand(2, batch, generator=generator)
        share = low + (high - low) * share
        angle = (2 * turn - 1) * (self.angle * math.pi / 180)
        sides = torch.tensor([width, height])
        # Up to where the square reaches an edge, and a little further.
        room = ((1 - share).abs() / 2 + self.beyond)[:, None]
        off = torch.randn(batch, 2, generator=generator) * self.centre
        shift = off.clamp(-room, room) * sides
        cos, sin = angle.cos() * share, angle.sin() * share
        linear = torch.stack([cos, sin, -sin, cos], 1).view(batch, 2, 2)
        return torch.cat([linear, shift[..., None]], 2)

    def noises(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw noise, Float[batch, *shape], with a deviation of its own for each image."""
        deviation = self.noise * torch.rand(shape[0], generator=generator)
        return deviation.view(-1, *[1] * (len(shape) - 1)) * torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class Lucid:
    """How far images are moved in Lucid's standard transformations.

    Attributes:
        pad: pixels of grey on each side.
        jitters: by how many pixels the first and the second window is smaller.
        scales: between which factors they are scaled, in ``scale_steps`` values.
        scale_steps: how many scales there are.
        angle: by how many degrees they are turned at most, to either side, in whole ones.
        upright: how many turns of 0 degrees there are besides.
    """

    pad: int = 12
    jitters: tuple[int, int] = (8, 4)
    scales: tuple[float, float] = (0.9, 1.1)
    scale_steps: int = 11
    angle: int = 10
    upright: int = 5

    def for_size(self, size: int) -> Lucid:
        """Return them in proportion to an image's smaller side, in pixels."""
        share = min(1.0, size / _PUBLISHED_FOR)
        if share == 1:
            return self
        first, second = (round(share * jitter) for jitter in self.jitters)
        return Lucid(
            round(share * self.pad),
            (first, second),
            self.scales,
            self.scale_steps,
            self.angle,
            self.upright,
        )

    def window(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of what comes out of an image, as published."""
        more = 2 * self.pad - sum(self.jitters)
        return height + more, width + more

    def matrices(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw how each image of a batch is moved.

        Returns:
            Float[batch, 2, 3], from pixels of the window to pixels of the image, both counted from
            their centres, x before y.
        """
        low, high = self.scales
        steps = torch.randint(self.scale_steps, (batch,), generator=generator)
        scale = low + (high - low) * steps / max(self.scale_steps - 1, 1)
        turns = 2 * self.angle + 1
        turn = torch.randint(turns + self.upright, (batch,), generator=generator)
        angle = torch.where(turn < turns, turn - self.angle, 0) * (math.pi / 180)
        first, second = (
            torch.randint(jitter + 1, (batch, 2), generator=generator) - jitter / 2
            for jitter in self.jitters
        )
        cos, sin = angle.cos() / scale, angle.sin() / scale
        linear = torch.stack([cos, sin, -sin, cos], 1).view(batch, 2, 2)
        shift = torch.einsum("bij,bj->bi", linear, second) + first
        return torch.cat([linear, shift[..., None]], 2)


def moved(
    images: Tensor,
    matrices: Tensor,
    window: tuple[int, int],
    grey: float = 0.5,
) -> Tensor:
    """Sample images where affine maps say.

    Args:
        images: Float[batch, channel, height, width].
        matrices: Float[batch, 2, 3], as :meth:`Transformations.matrices` draws them.
        window: height and width of what comes out.
        grey: what is outside of an image.

    Returns:
        Float[batch, channel, *window]; it keeps the graph to ``images``.
    """
    height, width = images.shape[-2:]
    # torch counts from -1 to 1 over the edges of the outermost pixels, on either side.
    inside = torch.tensor([2 / width, 2 / height])[:, None]
    outside = torch.tensor([window[1] / 2, window[0] / 2, 1.0])
    theta = (matrices * inside * outside).to(images.device, images.dtype)
    functional = torch.nn.functional
    grid = functional.affine_grid(
        theta, [len(images), images.shape[1], *window], align_corners=False
    )
    # What is outside counts as 0.
    return functional.grid_sample(images - grey, grid, align_corners=False) + grey
