"""What an optimised stimulus is held back from: strength, roughness, fine detail, sameness.

Each is a number for each item of a batch; the optimiser subtracts weight x number from the value.
Stimuli are given as shares of their range, so that the weights mean the same in every model.

- *L2*: the mean square of the distance from the middle of the range.
- *Total variation*: the mean absolute difference of neighbours (Rudin, Osher and Fatemi 1992;
  Mahendran and Vedaldi 2015), in every direction of space or time.
- *Blur*: the mean square of what a 5 x 5 blur would take away, the blurred stimulus held fixed:
  its gradient goes towards the blurred one, as blurring after each step does (Yosinski et al.,
  "Understanding Neural Networks Through Deep Visualization", 2015), but counts against the value.
- *Diversity* (Olah, Mordvintsev and Schubert, "Feature Visualization", 2017): of a batch, the mean
  cosine of the Gram matrices, channel against channel, of the unit's part. High where all items
  have the same texture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# A binomial kernel: the 5-pixel approximation of a Gaussian of deviation 1.
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def l2(x: Tensor) -> Tensor:
    """Return Float[batch] of Float[batch, *shape], shares of the range: 0 in the middle of it."""
    return (2 * x - 1).square().flatten(1).mean(1)


def total_variation(x: Tensor) -> Tensor:
    """Return Float[batch] of Float[batch, channel, *space]."""
    found = x.new_zeros(len(x))
    for axis in range(2, x.ndim):
        if x.shape[axis] > 1:
            found = found + x.diff(dim=axis).abs().flatten(1).mean(1)
    return found


def blur(x: Tensor) -> Tensor:
    """Return Float[batch] of Float[batch, channel, *space]."""
    return (x - blurred(x.detach())).square().flatten(1).mean(1)


def blurred(x: Tensor) -> Tensor:
    """Blur Float[batch, channel, *space] along every direction of space; edges are repeated."""
    kernel = torch.tensor(_BINOMIAL, dtype=x.dtype, device=x.device)
    for axis in range(2, x.ndim):
        line = x.movedim(axis, -1)
        rows = line.reshape(-1, 1, line.shape[-1])
        wide = torch.nn.functional.pad(rows, (2, 2), mode="replicate")
        smooth = torch.nn.functional.conv1d(wide, kernel[None, None])
        x = smooth.view(line.shape).movedim(-1, axis)
    return x


def sameness(values: Tensor) -> Tensor:
    """Return Float[batch]: how alike each item is to the others, from -1 to 1.

    Args:
        values: Float[batch, channel, *space] of the unit's part.

    Returns:
        Of each item, the mean over the others of the cosine of Gram matrices; 0 for a single item.
    """
    batch = len(values)
    if batch < 2:
        return values.new_zeros(batch)
    flat = values.float().flatten(2) if values.ndim > 2 else values.float()[..., None]
    grams = torch.nn.functional.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
    cosines = grams @ grams.T
    return (cosines.sum(1) - cosines.diagonal()) / (batch - 1)
