"""How a stimulus becomes a picture that travels: bytes for images, numbers for curves and rasters.

Nothing here knows a model. Frames travel as raw bytes, because they come ten a second and are
small; a saved page holds JPEG files instead, because it may hold many and must stay small.
"""

import math
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from . import messages as say

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from patchclamp.models.stimulus import Stimulus

THUMBNAIL = 64
"""The longer side of a picture that is shown small."""

_MOST = 512  # the longer side of any picture that travels; a screen shows no more of it
_QUALITY = 90  # of a JPEG


def picture(stimulus: "Stimulus", value: "Tensor", most: int = _MOST) -> say.Picture:
    """Make a stimulus ready to travel.

    Args:
        stimulus: what was declared of it.
        value: Float[*shape], in the declared range; what is no number is drawn as its low end.
        most: the longer side of an image; a larger one is averaged down. Time is never cut.
    """
    found = value.detach().float().cpu()
    low, high = _range(stimulus, found)
    if stimulus.renderer != "image":
        values = np.nan_to_num(found.reshape(-1, found.shape[-1]).numpy(), nan=low)
        height, width = values.shape
        return say.Picture(
            renderer=stimulus.renderer,
            height=height,
            width=width,
            channels=1,
            low=low,
            high=high,
            coding="raw",
            pixels=None,
            values=values.astype(np.float32),
        )
    pixels = as_bytes(_smaller(found, most), low, high)
    height, width, channels = pixels.shape
    return say.Picture(
        renderer="image",
        height=height,
        width=width,
        channels=channels,
        low=low,
        high=high,
        coding="raw",
        pixels=pixels,
        values=None,
    )


def as_bytes(value: "Tensor", low: float, high: float) -> "NDArray[np.uint8]":
    """An image as uint8 [height, width, channels], 0 for low and 255 for high.

    Args:
        value: Float[channels, height, width].
        low: what is drawn black.
        high: what is drawn white.
    """
    scaled = ((value.float() - low) / (high - low)).nan_to_num(0.0).clamp(0, 1)
    pixels: NDArray[np.uint8] = (scaled * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return pixels


def compressed(given: say.Picture) -> say.Picture:
    """The same image as the bytes of a JPEG file; a curve or a raster as it is."""
    if given.renderer != "image" or given.coding != "raw":
        return given
    from PIL import Image

    pixels = np.asarray(given.pixels)
    out = BytesIO()
    image = Image.fromarray(pixels[..., 0] if given.channels == 1 else pixels)
    image.save(out, "JPEG", quality=_QUALITY)
    data = np.frombuffer(out.getvalue(), dtype=np.uint8)
    return given.model_copy(update={"coding": "jpeg", "pixels": data})


def read_image(data: bytes, stimulus: "Stimulus") -> "Tensor":
    """An image file as a stimulus of the declared size and range.

    Args:
        data: the bytes of a PNG, JPEG or WebP file; its middle is taken.
        stimulus: an image's.

    Raises:
        InputError: when it is no image.
    """
    from torch.nn.functional import interpolate

    from patchclamp.corpora.sample_pictures import read_picture

    channels, height, width = stimulus.example_shape()
    square = read_picture(data, max(height, width), channels=channels)
    if height != width:
        square = interpolate(square[None], (height, width), mode="area")[0]
    low, high = (stimulus.low, stimulus.high) if stimulus.bounded else (0.0, 1.0)
    return low + (high - low) * square


def read_numbers(text: str) -> "Tensor":
    """A curve or a raster written as numbers, one row a line.

    Returns:
        Float[rows, time].

    Raises:
        InputError: when it is not numbers, or its lines differ in length.
    """
    import torch

    from patchclamp.errors import InputError

    rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
    try:
        numbers = [[float(each) for each in row] for row in rows]
    except ValueError as error:
        msg = f"A stimulus is written as numbers, one row a line ({error})."
        raise InputError(msg) from error
    if not numbers or len({len(row) for row in numbers}) != 1:
        msg = "A stimulus is written as numbers, one row a line, each with as many as the others."
        raise InputError(msg)
    return torch.tensor(numbers)


def _range(stimulus: "Stimulus", value: "Tensor") -> tuple[float, float]:
    """The declared range, or where it is endless that of the value."""
    if stimulus.bounded:
        return stimulus.low, stimulus.high
    finite = value[value.isfinite()]
    low, high = (0.0, 0.0) if not finite.numel() else (finite.min().item(), finite.max().item())
    return (low, high) if low < high else (low - 1.0, low + 1.0)


def _smaller(value: "Tensor", most: int) -> "Tensor":
    longer = max(value.shape[-2:])
    if longer <= most:
        return value
    from torch.nn.functional import interpolate

    height, width = (max(1, math.floor(n * most / longer)) for n in value.shape[-2:])
    found: Tensor = interpolate(value[None], (height, width), mode="area")[0]
    return found
