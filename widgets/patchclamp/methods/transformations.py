"""Small random shifts, scalings and turns of an image, so that what excites a unit is no accident.

An optimised image that excites a unit only pixel by pixel is noise to the eye. Each step therefore
sees the images a little elsewhere, in sizes as published with Olah, Mordvintsev and Schubert,
"Feature Visualization" (Distill, 2017; Lucid's and Lucent's standard transformations):

    pad 12 pixels of grey, jitter 8, scale by 0.9 to 1.1 (11 values), rotate by -10 to 10 degrees
    (whole ones; upright as often as 6 of them), jitter 4

Jitter d cuts a random window that is d pixels smaller. These are affine all of them, so that one
bilinear sampling does what five would: of a point p of the window, counted from its centre,

    p -> R (p + second jitter) / scale + first jitter

in the image, counted from its centre, with R the turn; outside of the image is grey. Every image is
moved in its own way. The window is as large as published (12 pixels more than the image) where the
model takes any size, else the image's own size. Images under 128 pixels are moved in proportion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_PUBLISHED_FOR = 128


@dataclass(frozen=True)
class Transformations:
    """How far images are moved.

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

    def for_size(self, size: int) -> Transformations:
        """Return them in proportion to an image's smaller side, in pixels."""
        share = min(1.0, size / _PUBLISHED_FOR)
        if share == 1:
            return self
        first, second = (round(share * jitter) for jitter in self.jitters)
        return Transformations(
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
