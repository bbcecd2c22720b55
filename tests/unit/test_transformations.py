"""Images are shifted, scaled and turned, or seen in crops, by one differentiable sampling."""

from __future__ import annotations

import math

import pytest
import torch

from patchclamp.methods.transformations import Crops, Lucid, moved

PUBLISHED = Lucid()


def images(batch: int = 1, height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def affine(angle: float = 0, scale: float = 1, shift: tuple[float, float] = (0, 0)) -> torch.Tensor:
    a = math.radians(angle)
    linear = torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]) / scale
    return torch.cat([linear, torch.tensor(shift)[:, None]], 1)[None]


def test_unmoved_images_come_back_with_grey_around_them() -> None:
    x = images(height=10, width=14)
    out = moved(x, affine(), (14, 20))
    assert out.shape == (1, 3, 14, 20)
    assert torch.allclose(out[:, :, 2:-2, 3:-3], x, atol=1e-6)
    assert torch.allclose(out[:, :, :2], torch.full((1, 3, 2, 20), 0.5), atol=1e-6)
    assert torch.allclose(out[..., :3], torch.full((1, 3, 14, 3), 0.5), atol=1e-6)


def test_a_whole_shift_is_a_window_elsewhere() -> None:
    x = images()
    out = moved(x, affine(shift=(2, -1)), (6, 6))
    assert torch.allclose(out, x[:, :, 2:8, 5:11], atol=1e-6)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_quarter_turn_is_one_clockwise(quarter: int) -> None:
    x = images(height=10, width=14)
    window = (14, 10) if quarter % 2 else (10, 14)
    out = moved(x, affine(angle=90 * quarter), window)
    assert torch.allclose(out, x.rot90(-quarter, (2, 3)), atol=1e-5)


def test_twice_the_scale_is_bilinear_upsampling() -> None:
    x = images()
    out = moved(x, affine(scale=2), (24, 24))
    wanted = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    # At the very edge the grey around mixes in.
    assert torch.allclose(out[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=1e-5)


def test_what_is_drawn_are_the_published_sizes() -> None:
    drawn = PUBLISHED.matrices(20_000, torch.Generator().manual_seed(0)).double()
    linear, shift = drawn[:, :, :2], drawn[:, :, 2]
    scales = linear.det().rsqrt()
    angles = torch.atan2(linear[:, 0, 1], linear[:, 0, 0]).rad2deg()
    steps = (scales - 0.9) / 0.02
    assert float((steps - steps.round()).abs().max()) < 1e-4
    assert steps.round().unique().tolist() == list(range(11))
    assert angles.round().unique().tolist() == list(range(-10, 11))
    assert float((angles - angles.round()).abs().max()) < 1e-4
    assert float((angles.round() == 0).double().mean()) == pytest.approx(6 / 26, abs=0.015)
    assert float((angles.round() == 7).double().mean()) == pytest.approx(1 / 26, abs=0.01)
    # The first window is up to 4 pixels away from the middle, the second 2 more, scaled and turned.
    assert float(shift.abs().max()) < 4 + 2 * 2**0.5 / 0.9
    assert float(shift.abs().max()) > 5.5
    upright = (angles.round() == 0) & (steps.round() == 5)
    assert sorted(set(shift[upright, 0].round().int().tolist())) == list(range(-6, 7))
    assert PUBLISHED.window(128, 100) == (140, 112)


def test_every_image_of_a_batch_is_moved_in_its_own_way_and_the_seed_says_how() -> None:
    drawn = [PUBLISHED.matrices(4, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert len(drawn[0].unique(dim=0)) == 4
    x = images().expand(4, 3, 12, 12)
    alone = [moved(x[:1], drawn[0][n : n + 1], (16, 16)) for n in range(4)]
    assert torch.allclose(moved(x, drawn[0], (16, 16)), torch.cat(alone), atol=1e-6)


def test_small_images_are_moved_in_proportion() -> None:
    small = PUBLISHED.for_size(16)
    assert (small.pad, small.jitters, small.angle) == (2, (1, 0), 10)
    assert PUBLISHED.for_size(224) == PUBLISHED
    shift = small.matrices(500, torch.Generator().manual_seed(0))[:, :, 2]
    assert float(shift.abs().max()) <= 1


def test_crops_are_of_many_sizes_near_the_middle_and_hardly_beyond_the_image() -> None:
    height, width = 96, 128
    drawn = Crops().matrices(20_000, height, width, torch.Generator().manual_seed(0)).double()
    linear, shift = drawn[:, :, :2], drawn[:, :, 2] / torch.tensor([width, height])
    shares = linear.det().sqrt()
    angles = torch.atan2(linear[:, 0, 1], linear[:, 0, 0]).rad2deg()
    assert 0.4 <= float(shares.min()) < 0.41
    assert 1.19 < float(shares.max()) <= 1.2 + 1e-6
    assert float(shares.mean()) == pytest.approx(0.8, abs=0.01)
    assert 14.8 < float(angles.abs().max()) <= 15 + 1e-4
    # An upright square ends at most a twentieth of the side beyond an edge, unless it is larger.
    reach = shift.abs().amax(1) + shares / 2
    assert float((reach - (0.55 + (shares - 1).clamp_min(0))).max()) < 1e-6
    small = shares < 0.6
    assert float(shift[small].std()) == pytest.approx(0.1, abs=0.01)


def test_a_crop_fills_the_window() -> None:
    x = images(height=16, width=24)
    half = Crops(shares=(0.5, 0.5), centre=0, angle=0)
    drawn = half.matrices(1, 16, 24, torch.Generator().manual_seed(0))
    middle = x[:, :, 4:12, 6:18]
    wanted = torch.nn.functional.interpolate(middle, scale_factor=2, mode="bilinear")
    # At its edge the neighbours mix in.
    assert torch.allclose(
        moved(x, drawn, (16, 24))[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=1e-5
    )


def test_every_crop_is_another_and_the_seed_says_which() -> None:
    drawn = [Crops().matrices(4, 20, 30, torch.Generator().manual_seed(s)) for s in (3, 3, 4)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert len(drawn[0].unique(dim=0)) == 4


def test_the_gradient_goes_back_to_where_a_pixel_was() -> None:
    x = images(1, 5, 6).double().requires_grad_()
    matrices = PUBLISHED.for_size(8).matrices(1, torch.Generator().manual_seed(2)).double()
    assert torch.autograd.gradcheck(lambda given: moved(given, matrices, (6, 7)), (x,))
