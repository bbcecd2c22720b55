"""Pictures that come with the package, and how a picture of the user's becomes a stimulus.

Two dozen photographs, textures and drawings, square, 224 pixels a side; where each is from and
under which licence stands in `pictures/SOURCES.md`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL import Image
    from torch import Tensor

_FOLDER = Path(__file__).with_name("pictures")
_LARGEST = 100_000_000  # pixels; a larger picture is a mistake or a bomb


class Pictures(NamedTuple):
    """Some of the pictures.

    Attributes:
        stimuli: Float[picture, 3, height, width], from 0 to 1.
        names: What each is called.
    """

    stimuli: Tensor
    names: tuple[str, ...]


def picture_names() -> tuple[str, ...]:
    """What the pictures are called, in the order of the alphabet.

    >>> picture_names()[:3]
    ('acanthus', 'airplane', 'alps')
    """
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.jpg")))


def pictures(size: int = 224, *, names: Iterable[str] | None = None, channels: int = 3) -> Pictures:
    """Read the pictures.

    Args:
        size: Pixels on each side.
        names: Which; by default all.
        channels: 3 for colour, 1 for grey.

    Raises:
        InputError: When there is no picture of a name, or the size is not positive.
    """
    import torch

    known = picture_names()
    wanted = known if names is None else tuple(names)
    for name in wanted:
        if name not in known:
            raise InputError(f"There is no picture {name!r}; there are {', '.join(known)}.")
    read = [read_picture(_FOLDER / f"{name}.jpg", size, channels=channels) for name in wanted]
    if not read:
        raise InputError("Name one picture at least.")
    return Pictures(torch.stack(read), wanted)


def read_picture(source: str | Path | bytes, size: int = 224, *, channels: int = 3) -> Tensor:
    """Read a picture file and cut out the largest square in its middle.

    Args:
        source: A path, or the file's bytes: PNG, JPEG, GIF, WebP or what else Pillow reads.
        size: Pixels on each side of the result.
        channels: 3 for colour, 1 for grey.

    Returns:
        Float[channels, size, size], from 0 to 1; what is transparent is white.

    Raises:
        InputError: When the file cannot be read as a picture, is too large, or the size is not
            positive.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if size < 1 or channels not in {1, 3}:
        raise InputError(
            f"A picture has a positive size and 1 or 3 channels, not {size} and {channels}."
        )
    what = "These bytes are" if isinstance(source, bytes) else f"{source} is"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            if opened.width * opened.height > _LARGEST:
                raise InputError(
                    f"The picture has {opened.width:,} × {opened.height:,} pixels: make it smaller."
                )
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except FileNotFoundError as error:
        raise InputError(f"There is no file {error.filename}.") from error
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{what} no picture that can be read.") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} no picture that can be read ({error}).") from error
    white = Image.new("RGBA", upright.size, "white")
    flat = Image.alpha_composite(white, upright).convert("RGB" if channels == 3 else "L")
    return _tensor(flat, size)


def _tensor(picture: Image.Image, size: int) -> Tensor:
    import numpy as np
    import torch
    from PIL import Image

    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    square = square.resize((size, size), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.array(square, dtype=np.float32) / 255)
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()
