"""Stimuli as weighed waves of uncorrelated colours, or as their own numbers."""

from __future__ import annotations

import math

import pytest
import torch

from patchclamp.errors import InputError
from patchclamp.methods.image_parameterization import Fourier, Pixels, colour_matrix, frequencies
from patchclamp.models.stimulus import Stimulus

PICTURE = Stimulus((3, None, None), size=64)
SOUND = Stimulus((1, 50), low=-1, high=1, renderer="curve")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slope_of_spectrum(x: torch.Tensor) -> float:
    """Return the slope of log amplitude over log frequency of Float[batch, height, width]."""
    amplitude = torch.fft.rfft2(x, norm="ortho").abs().square().mean(0).sqrt()
    f = frequencies(*x.shape[1:])
    chosen = (f > 0.05) & (f < 0.5)
    a, b = f[chosen].log(), amplitude[chosen].log()
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a - a.mean()).square().mean())


def test_a_start_in_waves_is_one_over_f_noise_and_one_in_pixels_is_white() -> None:
    waves = Fourier(PICTURE, (3, 64, 64), 24, generator()).stimuli().detach()
    pixels = Pixels(PICTURE, (3, 64, 64), 24, generator()).stimuli().detach()
    assert slope_of_spectrum(waves.mean(1)) == pytest.approx(-1, abs=0.05)
    assert slope_of_spectrum(pixels.mean(1)) == pytest.approx(0, abs=0.05)


def test_a_faster_decay_steepens_the_spectrum_about_a_wave_of_16_pixels() -> None:
    shape = (1, 128, 128)
    plain, steep = (
        Fourier(PICTURE, shape, 24, generator(), decay=decay).stimuli().detach()
        for decay in (1, 1.5)
    )
    assert slope_of_spectrum(steep[:, 0]) == pytest.approx(-1.5, abs=0.05)
    at = tuple(frequencies(128, 128).sub(1 / 16).abs().flatten().argmin(0, keepdim=True))
    of = [torch.fft.rfft2(x[:, 0] - 0.5).abs().mean(0).flatten()[at] for x in (plain, steep)]
    assert float(of[1] / of[0]) == pytest.approx(1, rel=0.05)


def test_colours_covary_as_published_and_in_pixels_not_at_all() -> None:
    C = colour_matrix()
    assert float(C.norm(dim=0).max()) == pytest.approx(1)
    # Lightness first: red, green and blue together; then blue against yellow; then green.
    assert bool((C[:, 0] > 0.5).all())
    assert float(C[0, 1]) > 0 > float(C[2, 1])
    x = Fourier(PICTURE, (3, 64, 64), 40, generator()).stimuli().detach() - 0.5
    flat = x.transpose(0, 1).flatten(1)
    measured, wanted = torch.corrcoef(flat), C @ C.T
    deviations = wanted.diagonal().sqrt()
    assert torch.allclose(measured, wanted / torch.outer(deviations, deviations), atol=0.08)
    assert float(measured[0, 2]) > 0.5
    pixels = Pixels(PICTURE, (3, 64, 64), 8, generator()).stimuli().detach()
    apart = torch.corrcoef(pixels.transpose(0, 1).flatten(1))
    assert float((apart - torch.eye(3)).abs().max()) < 0.05


@pytest.mark.parametrize("size", [(16, 16), (15, 22), (9, 7), (8, 1)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", [Fourier, Pixels])
def test_a_given_start_is_where_it_starts(
    way: type[Fourier | Pixels], channels: int, size: tuple[int, int]
) -> None:
    stimulus = Stimulus((channels, None, None), low=-2, high=3, size=16)
    shape = (channels, *size)
    start = torch.rand(2, *shape, generator=generator()) * 4.8 - 1.9
    made = way(stimulus, shape, 2, generator(), start)
    assert torch.allclose(made.stimuli(), start, atol=1e-4)
    one = way(stimulus, shape, 2, generator(), start[0])
    assert torch.allclose(one.stimuli(), start[:1].expand(2, *shape), atol=1e-4)


@pytest.mark.parametrize("way", [Fourier, Pixels])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 7)])
def test_the_declared_range_is_kept_whatever_the_parameters(
    way: type[Fourier | Pixels], low: float, high: float
) -> None:
    stimulus = Stimulus((3, None, None), low=low, high=high, size=12)
    made = way(stimulus, (3, 12, 12), 1, generator())
    with torch.no_grad():
        made.values.mul_(1e4)
    x = made.stimuli().detach()
    assert low <= float(x.min()) < low + 0.1 * (high - low)
    assert high >= float(x.max()) > high - 0.1 * (high - low)


@pytest.mark.parametrize(("low", "high"), [(0, math.inf), (-math.inf, 2), (-math.inf, math.inf)])
def test_an_open_range_is_open(low: float, high: float) -> None:
    stimulus = Stimulus((1, 50), low=low, high=high, renderer="curve")
    start = torch.linspace(0.1, 1.9, 50)[None]
    made = Pixels(stimulus, (1, 50), 1, generator(), start)
    assert torch.allclose(made.stimuli()[0], start, atol=1e-3)
    with torch.no_grad():
        made.values.mul_(100)
    x = made.stimuli().detach()
    assert float(x.min()) >= low
    assert float(x.max()) <= high
    assert float(x.abs().max()) > 50


def test_a_norm_ball_holds_each_stimulus_in_the_ball_and_in_the_range() -> None:
    made = Pixels(SOUND, (1, 50), 3, generator(), norm=2.0)
    inside = made.stimuli().detach().flatten(1).norm(dim=1)
    assert bool((inside < 0.3).all())
    with torch.no_grad():
        made.values.mul_(1e3)
    lengths = made.stimuli().detach().flatten(1).norm(dim=1)
    assert torch.allclose(lengths, torch.full((3,), 2.0), rtol=1e-4)
    with torch.no_grad():  # one sample takes it all, and the range ends at 1
        made.values[:, :, 7] = 1e6
    assert float(made.stimuli().detach().max()) == 1
    with pytest.raises(InputError, match="under a positive number, not 0"):
        Pixels(SOUND, (1, 50), 1, generator(), norm=0)


@pytest.mark.parametrize("way", [Fourier, Pixels])
def test_the_same_seed_gives_the_same_start(way: type[Fourier | Pixels]) -> None:
    starts = [way(PICTURE, (3, 20, 20), 2, generator(seed)).stimuli() for seed in (4, 4, 5)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0][0], starts[0][1])


@pytest.mark.parametrize("way", [Fourier, Pixels])
def test_every_parameter_has_a_gradient(way: type[Fourier | Pixels]) -> None:
    made = way(PICTURE, (3, 9, 8), 1, generator())
    weights = torch.randn(1, 3, 9, 8, generator=generator(1))
    (made.stimuli() * weights).sum().backward()
    grad = made.values.grad
    assert grad is not None
    # The imaginary part of what is its own mirror image (mean and Nyquist) stands for nothing.
    assert float((grad == 0).float().mean()) < 0.05


def test_a_start_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"one stimulus of the shape \(3, 8, 8\), or 2 of them"):
        Pixels(PICTURE, (3, 8, 8), 2, generator(), torch.rand(3, 3, 8, 8))
