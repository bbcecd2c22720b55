"""The pictures that come with the package, and reading one of the user's."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from patchclamp.corpora import sample_pictures
from patchclamp.corpora.sample_pictures import picture_names, pictures, read_picture
from patchclamp.errors import InputError

FOLDER = Path(sample_pictures.__file__).with_name("pictures")


def png(picture: Image.Image, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    picture.save(sink, kind)
    return sink.getvalue()


def test_there_are_two_dozen_small_pictures() -> None:
    found = pictures()
    assert found.stimuli.shape == (24, 3, 224, 224)
    assert found.names == picture_names()
    assert 0 <= found.stimuli.min() < 0.05
    assert 0.95 < found.stimuli.max() <= 1
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 500_000


def test_each_picture_has_its_source_and_licence() -> None:
    lines = (FOLDER / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == list(picture_names())
    licences = ("CC0 1.0", "public domain", "[CC BY 2.0]", "no known copyright restrictions")
    assert all(row[2].startswith(licences) for row in rows)
    assert {len(row) for row in rows} == {4}


def test_pictures_come_in_any_size_by_name_and_grey() -> None:
    some = pictures(64, names=["flower", "cat"], channels=1)
    assert some.stimuli.shape == (2, 1, 64, 64)
    assert some.names == ("flower", "cat")
    with pytest.raises(InputError, match=r"no picture 'dog'; there are acanthus"):
        pictures(names=["dog"])
    with pytest.raises(InputError, match="one picture at least"):
        pictures(names=[])


def test_a_picture_is_cut_to_the_square_in_its_middle(tmp_path: Path) -> None:
    wide = Image.new("RGB", (40, 20), "red")
    wide.paste((0, 0, 255), (10, 0, 30, 20))
    wide.save(tmp_path / "wide.png")
    blue = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 10, 10)
    for source in (tmp_path / "wide.png", str(tmp_path / "wide.png"), png(wide)):
        torch.testing.assert_close(read_picture(source, 10), blue)


@pytest.mark.parametrize("mode", ["RGBA", "L", "1", "P", "CMYK", "I;16"])
def test_pictures_of_every_mode_are_read(mode: str) -> None:
    picture = Image.new(mode, (8, 8))
    kind = "TIFF" if mode in {"CMYK", "I;16"} else "PNG"
    for channels in (1, 3):
        read = read_picture(png(picture, kind), 8, channels=channels)
        assert read.shape == (channels, 8, 8)
        assert read.dtype == torch.float32
        assert 0 <= read.min() <= read.max() <= 1


def test_what_is_transparent_is_white_and_a_turned_photograph_is_upright() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert bool((read_picture(png(clear), 4) == 1).all())
    turned = Image.new("L", (4, 4))
    turned.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    sink = io.BytesIO()
    turned.save(sink, "PNG", exif=exif)
    assert int(read_picture(sink.getvalue(), 4, channels=1).flatten().argmax()) == 15


@pytest.mark.parametrize("broken", [b"", b"not a picture", png(Image.new("L", (9, 9)))[:40]])
def test_what_is_no_picture_is_said(broken: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(broken)
    with pytest.raises(InputError, match="These bytes are no picture that can be read"):
        read_picture(broken)
    with pytest.raises(InputError, match=r"broken\.png is no picture that can be read"):
        read_picture(path)


def test_a_missing_file_a_folder_and_odd_sizes_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file .*nowhere\.png"):
        read_picture(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="is no picture"):
        read_picture(tmp_path)
    with pytest.raises(InputError, match="a positive size and 1 or 3 channels, not 0 and 3"):
        pictures(0)
    with pytest.raises(InputError, match="not 8 and 2"):
        pictures(8, channels=2)


def test_a_picture_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_pictures, "_LARGEST", 100)
    with pytest.raises(InputError, match="11 × 11 pixels: make it smaller"):
        read_picture(png(Image.new("L", (11, 11))))
