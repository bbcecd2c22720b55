"""Pictures as files: a PNG sheet of many with their labels, and a GIF or WebP of one that grows.

The same pictures give the same bytes with the same version of Pillow. Colours are those of the
page: an image's own, the lines of a curve, and a raster's Blues (red below zero, blue above where
values can be negative).
"""

import math
import unicodedata
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np

from patchclamp.errors import BudgetError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from . import messages as say

    Font = FreeTypeFont | ImageFont

AnimationFormat = Literal["gif", "webp"]

SMALLEST = 160
"""The shorter side of a picture on a sheet, at least: smaller ones have larger pixels there."""
MOST_PIXELS = 64 * 2**20
"""Pixels that a sheet, or all frames of an animation together, may have."""

_LONGEST = 1024  # the longer side of a picture with larger pixels
_MARGIN = 16
_LINES = 2  # of a label
_INK, _FAINT, _PAPER = (32, 32, 32), (96, 96, 96), (255, 255, 255)
_CURVES = ((0, 114, 178), (188, 84, 0), (0, 128, 94), (166, 72, 125))  # Okabe-Ito, as on the page
_CURVE_SIZE = (320, 160)
_HOLD = 12  # an animation's last frame stays as long as so many others

# ColorBrewer's Blues, and RdBu from its middle outwards, as on the page.
_BLUES = ("ffffff", "deebf7", "c6dbef", "9ecae1", "6baed6", "4292c6", "2171b5", "08519c")
_POSITIVE = ("ffffff", "d1e5f0", "92c5de", "4393c3", "2166ac")
_NEGATIVE = ("ffffff", "fddbc7", "f4a582", "d6604d", "b2182b")

# What the font has no letter for.
_PLAIN = str.maketrans({"−": "-", "–": "-", "×": "x", "→": ">", "▁": "_", "≥": ">", "µ": "u"})


@dataclass(frozen=True)
class Tile:
    """A picture of a sheet.

    Attributes:
        picture: the picture.
        label: what it is, below it; two lines at most.
        value: what it does, on a line of its own; may be empty.
    """

    picture: "say.Picture"
    label: str
    value: str = ""


def sheet(tiles: "Sequence[Tile]", *, title: str = "", columns: int | None = None) -> bytes:
    """Draw pictures side by side, with their labels, as a PNG file.

    Args:
        tiles: the pictures, in rows from left to right.
        title: above all of them; may be empty.
        columns: how many in a row; by default about as many as rows.

    Raises:
        InputError: when there is no picture, or less than one column.
        BudgetError: when they are more than a sheet may hold.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not tiles:
        msg = "There is no picture to put on a sheet yet: start an optimisation first."
        raise InputError(msg)
    if columns is not None and columns < 1:
        msg = f"A sheet has at least one column, not {columns}."
        raise InputError(msg)
    columns = min(len(tiles), columns or math.ceil(math.sqrt(len(tiles))))
    rows = math.ceil(len(tiles) / columns)
    sizes = [_size(tile.picture) for tile in tiles]
    wide, tall = (max(axis) for axis in zip(*sizes, strict=True))
    small, large = ImageFont.load_default(13), ImageFont.load_default(17)
    line = math.ceil(13 * 1.35)
    labels = [_wrapped(tile.label, wide, small) for tile in tiles]
    below = line * (max(map(len, labels)) + any(tile.value for tile in tiles)) + 4
    head = _wrapped(title, columns * (wide + _MARGIN) - _MARGIN, large) if title else []
    top = _MARGIN + len(head) * math.ceil(17 * 1.35) + (8 if head else 0)
    size = (_MARGIN + columns * (wide + _MARGIN), top + rows * (tall + below + _MARGIN))
    _afford(size[0] * size[1], "A sheet of so many pictures")
    page = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(page)
    for at, text in enumerate(head):
        pen.text((_MARGIN, _MARGIN + at * math.ceil(17 * 1.35)), text, fill=_INK, font=large)
    for at, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        image = _enlarged(drawn(tile.picture), tile.picture)
        row, column = divmod(at, columns)
        x, y = _MARGIN + column * (wide + _MARGIN), top + row * (tall + below + _MARGIN)
        page.paste(image, (x, y + tall - image.height))
        y += tall + 4
        for text in label:
            pen.text((x, y), text, fill=_INK, font=small)
            y += line
        if tile.value:
            pen.text((x, y), _shortened(tile.value, wide, small), fill=_FAINT, font=small)
    return _file(page, "PNG", optimize=True)


def animation(
    frames: "Sequence[say.Picture]", kind: AnimationFormat = "gif", *, milliseconds: int = 80
) -> bytes:
    """Draw pictures one after the other, again and again, as a GIF or WebP file.

    Args:
        frames: the pictures, all of one size; the last one stays longer.
        kind: "gif" has 256 colours a frame; "webp" has all of them, without loss.
        milliseconds: how long each stays.

    Raises:
        InputError: when there is no picture, they differ in size, or this Pillow writes no WebP.
        BudgetError: when they are more than an animation may hold.
    """
    from PIL import features

    if kind not in {"gif", "webp"}:
        msg = f"An animation is a 'gif' or a 'webp', not {kind!r}."
        raise InputError(msg)
    if not frames:
        msg = "There is no frame to animate yet: start an optimisation first."
        raise InputError(msg)
    if not 20 <= milliseconds <= 10_000:
        msg = f"A frame stays for 20 to 10,000 milliseconds, not {milliseconds}."
        raise InputError(msg)
    if len({(frame.height, frame.width) for frame in frames}) > 1:
        msg = "The frames of an animation are of one size: these are of several optimisations."
        raise InputError(msg)
    if kind == "webp" and not features.check("webp"):
        msg = "The Pillow that is installed writes no WebP: save a gif."
        raise InputError(msg)
    _afford(math.prod(_size(frames[0])) * len(frames), "An animation of so many frames")
    images = [_enlarged(drawn(frame), frame) for frame in frames]
    times = [milliseconds] * (len(images) - 1) + [milliseconds * _HOLD]
    if len(images) == 1:
        times = [milliseconds]
    if kind == "webp":
        return _file(
            images[0],
            "WEBP",
            save_all=True,
            append_images=images[1:],
            duration=times,
            loop=0,
            lossless=True,
            method=4,
        )
    indexed = [image.quantize(256) for image in images]
    return _file(
        indexed[0],
        "GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=times,
        loop=0,
        disposal=1,
        optimize=False,
    )


def drawn(picture: "say.Picture") -> "Image":
    """Return a picture as an RGB image: pixels as they are, a curve as lines, a raster in colours.

    Raises:
        InputError: when a compressed picture cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    if picture.coding != "raw":
        try:
            return Image.open(BytesIO(np.asarray(picture.pixels).tobytes())).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            msg = f"A picture of the sheet cannot be read: {error}."
            raise InputError(msg) from error
    shape = (picture.height, picture.width)
    if picture.renderer == "image":
        pixels = np.asarray(picture.pixels, dtype=np.uint8).reshape(*shape, picture.channels)
        grey = picture.channels == 1
        return Image.fromarray(pixels[..., 0] if grey else pixels).convert("RGB")
    values = np.asarray(picture.values, dtype=np.float32).reshape(shape)
    if picture.renderer == "curve":
        return _lines(values, picture.low, picture.high)
    peak = max(abs(picture.low), abs(picture.high)) or 1.0
    return Image.fromarray(_colours(values / peak, signed=picture.low < 0))


# --- inside ---------------------------------------------------------------------------------------


def _lines(values: "NDArray[np.float32]", low: float, high: float) -> "Image":
    """Draw each channel over time."""
    from PIL import Image, ImageDraw

    width, height = _CURVE_SIZE
    image = Image.new("RGB", _CURVE_SIZE, _PAPER)
    pen = ImageDraw.Draw(image)

    def y(value: float) -> float:
        return (height - 6) - (value - low) / (high - low or 1.0) * (height - 12)

    if low < 0 < high:
        pen.line([(0, y(0.0)), (width, y(0.0))], fill=(208, 208, 208))
    pen.rectangle((0, 0, width - 1, height - 1), outline=(208, 208, 208))
    steps = values.shape[1]
    for channel, row in enumerate(values.tolist()):
        points = [
            (4 + at / max(1, steps - 1) * (width - 8), y(value)) for at, value in enumerate(row)
        ]
        pen.line(points * (2 if steps == 1 else 1), fill=_CURVES[channel % len(_CURVES)], width=2)
    return image


def _colours(shares: "NDArray[np.float32]", *, signed: bool) -> "NDArray[np.uint8]":
    """Return the colours of shares of the peak, -1 to 1, as uint8 [..., 3]."""
    sizes = np.clip(np.abs(np.nan_to_num(shares)), 0, 1)
    above = _along(_POSITIVE if signed else _BLUES, sizes)
    return np.where((shares < 0)[..., None], _along(_NEGATIVE, sizes), above)


def _along(stops: tuple[str, ...], shares: "NDArray[np.float32]") -> "NDArray[np.uint8]":
    places = np.linspace(0, 1, len(stops))
    parts = [[int(stop[at : at + 2], 16) for stop in stops] for at in (0, 2, 4)]
    found = np.stack([np.interp(shares, places, part) for part in parts], axis=-1)
    return np.rint(found).astype(np.uint8)


def _size(picture: "say.Picture") -> tuple[int, int]:
    """Return the width and height of a picture as it is written."""
    if picture.renderer == "curve":
        return _CURVE_SIZE
    times = max(1, math.ceil(SMALLEST / min(picture.width, picture.height)))
    if max(picture.width, picture.height) * times > _LONGEST:  # a raster of one row, say
        times = 1
    return picture.width * times, picture.height * times


def _enlarged(image: "Image", picture: "say.Picture") -> "Image":
    """Give a small picture larger pixels, all of them alike."""
    from PIL.Image import Resampling

    size = _size(picture)
    return image if image.size == size else image.resize(size, Resampling.NEAREST)


def _afford(pixels: int, what: str) -> None:
    if pixels > MOST_PIXELS:
        msg = (
            f"{what} has {pixels / 2**20:,.0f} million pixels, and at most "
            f"{MOST_PIXELS / 2**20:,.0f} million are written: take fewer, or smaller ones."
        )
        raise BudgetError(msg)


def _wrapped(text: str, width: int, font: "Font") -> list[str]:
    """Break a text into lines of a width, two at most."""
    words, lines = _legible(text).split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        elif len(lines) < _LINES:
            lines.append(word)
        else:
            lines[-1] = longer  # too long: its end is taken off below
    return [_shortened(line, width, font) for line in lines if line]


def _shortened(text: str, width: int, font: "Font") -> str:
    text = _legible(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _legible(text: str) -> str:
    """Return a text in the letters that the font has: Latin without accents."""
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    without = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return "".join(
        letter if " " <= letter <= "~" or letter in "…’·±" else "?" for letter in without
    )


def _file(image: "Image", kind: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
