"""Sheets and animations hold every picture where it belongs, and the same bytes every time."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from patchclamp.errors import BudgetError, InputError
from patchclamp.models.stimulus import Stimulus
from patchclamp.views.sheets import SMALLEST, Tile, animation, drawn, sheet
from patchclamp.views.stimulus_pictures import compressed, picture

if TYPE_CHECKING:
    from patchclamp.views import messages as say

SIDE = 200


def flat(colour: tuple[float, float, float], side: int = SIDE) -> say.Picture:
    value = torch.tensor(colour)[:, None, None].expand(3, side, side)
    return picture(Stimulus((3, side, side)), value)


RED, GREEN, BLUE = flat((1, 0, 0)), flat((0, 1, 0)), flat((0, 0, 1))


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


def where(page: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a colour."""
    rows, columns = np.nonzero((np.asarray(page.convert("RGB")) == colour).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_every_picture_is_on_the_sheet_whole_in_rows_from_left_to_right() -> None:
    page = opened(sheet([Tile(RED, "a"), Tile(GREEN, "b"), Tile(BLUE, "c")], columns=2))
    assert page.format == "PNG"
    red, green, blue = (where(page, colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    for left, top, right, bottom in (red, green, blue):
        assert (right - left, bottom - top) == (SIDE, SIDE)
    assert red[1] == green[1] < blue[1]
    assert red[0] == blue[0] < green[0]
    assert red[2] < green[0]
    assert red[3] < blue[1]


def test_labels_values_and_the_title_are_written_below_and_above() -> None:
    def ink(**options: Any) -> int:
        tile = Tile(RED, options.pop("label", ""), options.pop("value", ""))
        page = np.asarray(opened(sheet([tile], **options)).convert("RGB")).astype(int)
        return int((page.sum(-1) < 300).sum()) - int((page == (255, 0, 0)).all(-1).sum())

    plain = ink()
    assert ink(label="facet 1") > plain
    assert ink(value="4.25") > plain
    assert ink(title="_blocks.9:c17") > plain
    page = opened(sheet([Tile(RED, "goldfish", "12.5")], title="logit of a class"))
    left, top, right, bottom = where(page, (255, 0, 0))
    dark = np.asarray(page.convert("L")) < 140
    dark[top:bottom, left:right] = False
    rows = np.nonzero(dark.any(1))[0]
    assert rows.min() < top
    assert rows.max() >= bottom


def test_a_long_label_keeps_within_its_column_and_foreign_letters_are_readable() -> None:
    tiles = [Tile(RED, "0.5 × a → café " * 20, "−1.25"), Tile(GREEN, "b")]
    page = opened(sheet(tiles, columns=2))
    _, top, right, bottom = where(page, (255, 0, 0))
    left = where(page, (0, 255, 0))[0]
    between = np.asarray(page.convert("L"))[top:, right:left]
    assert between.min() == 255
    assert page.height - bottom < 100


def test_small_pictures_get_larger_pixels_all_alike() -> None:
    given = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    small = picture(Stimulus((1, 16, 16)), given)
    page = np.asarray(opened(sheet([Tile(small, "")])).convert("L"))
    times = SMALLEST // 16
    inside = page[16 : 16 + SMALLEST, 16 : 16 + SMALLEST]
    truth = np.asarray(small.pixels).reshape(16, 16)
    assert np.array_equal(inside[::times, ::times], truth)
    assert np.array_equal(inside, np.kron(truth, np.ones((times, times), dtype=np.uint8)))


def test_a_curve_is_drawn_as_a_line_and_a_raster_in_colours() -> None:
    rising = picture(
        Stimulus((1, 50), low=-1, high=1, renderer="curve"), torch.linspace(-1, 1, 50)[None]
    )
    image = np.asarray(drawn(rising)).astype(int)
    line = np.abs(image - (0, 114, 178)).sum(-1) < 30
    first, last = (np.nonzero(line[:, at])[0].mean() for at in (8, image.shape[1] - 9))
    assert first > last  # upwards
    raster = Stimulus((2, 3), low=-2, high=2, renderer="raster")
    colours = np.asarray(drawn(picture(raster, torch.tensor([[-2.0, 0, 2], [1, 0, -1]]))))
    assert colours.shape == (2, 3, 3)
    assert tuple(colours[0, 0]) == (178, 24, 43)  # the most negative is red
    assert tuple(colours[0, 1]) == (255, 255, 255)
    assert tuple(colours[0, 2]) == (33, 102, 172)  # the most positive is blue
    positive = Stimulus((1, 2), low=0, high=1, renderer="raster")
    assert tuple(np.asarray(drawn(picture(positive, torch.tensor([[0.0, 1]]))))[0, 1]) == (
        8,
        81,
        156,
    )


def test_compressed_pictures_are_drawn_too() -> None:
    image = np.asarray(drawn(compressed(RED))).astype(int)
    assert np.abs(image - (255, 0, 0)).max() <= 3
    broken = compressed(RED).model_copy(update={"pixels": np.zeros(9, dtype=np.uint8)})
    with pytest.raises(InputError, match="cannot be read"):
        sheet([Tile(broken, "")])


def growing(count: int = 5) -> list[say.Picture]:
    return [flat((at / count, 0.25, 1 - at / count)) for at in range(count)]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_holds_every_frame_in_its_order_and_goes_on(kind: Any) -> None:
    movie = opened(animation(growing(), kind, milliseconds=100))
    assert movie.format == kind.upper()
    frames = [np.asarray(frame.convert("RGB"))[5, 5] for frame in ImageSequence.Iterator(movie)]
    truth = [np.asarray(frame.pixels).reshape(SIDE, SIDE, 3)[0, 0] for frame in growing()]
    assert len(frames) == 5
    assert np.abs(np.array(frames, dtype=int) - np.array(truth, dtype=int)).max() <= 4
    assert movie.info["loop"] == 0


def test_the_last_frame_stays_longer() -> None:
    movie = opened(animation(growing(), "gif", milliseconds=100))
    times = [frame.info["duration"] for frame in ImageSequence.Iterator(movie)]
    assert times[:-1] == [100] * 4
    assert times[-1] == 1200


def test_webp_loses_nothing() -> None:
    given = torch.rand(3, 170, 170, generator=torch.Generator().manual_seed(1))
    one = picture(Stimulus((3, 170, 170)), given)
    movie = opened(animation([one, RED.model_copy(update={"height": 170, "width": 170,
        "pixels": np.zeros(170 * 170 * 3, dtype=np.uint8)})], "webp"))  # fmt: skip
    first = np.asarray(movie.convert("RGB"))
    assert np.array_equal(first.ravel(), np.asarray(one.pixels).ravel())


def test_the_same_pictures_give_the_same_bytes() -> None:
    tiles = [Tile(RED, "a", "1"), Tile(BLUE, "b", "2")]
    assert sheet(tiles, title="t") == sheet(tiles, title="t")
    for kind in ("gif", "webp"):
        assert animation(growing(), kind) == animation(growing(), kind)
    assert sheet(tiles) != sheet(tiles[::-1])


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: sheet([]), "no picture to put on a sheet yet"),
        (lambda: sheet([Tile(RED, "")], columns=0), "at least one column, not 0"),
        (lambda: animation([]), "no frame to animate yet"),
        (lambda: animation([RED], "mp4"), "a 'gif' or a 'webp', not 'mp4'"),  # type: ignore[arg-type]
        (lambda: animation([RED], milliseconds=1), "20 to 10,000 milliseconds, not 1"),
        (lambda: animation([RED, flat((1, 0, 0), 100)]), "of one size"),
    ],
)
def test_what_cannot_be_written_is_told_in_a_sentence(ask: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ask()


def test_what_is_too_large_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(BudgetError, match="at most 64 million are written"):
        animation([RED] * 2000)
    with pytest.raises(BudgetError, match="A sheet of so many pictures"):
        sheet([Tile(RED, "")] * 3000)


def test_one_frame_is_an_animation_of_one() -> None:
    assert len(list(ImageSequence.Iterator(opened(animation([RED]))))) == 1
