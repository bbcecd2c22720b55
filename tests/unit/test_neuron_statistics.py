"""One pass over a corpus gives what two passes over all its values would."""

from __future__ import annotations

import pytest
import torch

from patchclamp.errors import InputError
from patchclamp.methods.neuron_statistics import (
    ERROR,
    LARGEST,
    SMALLEST,
    NeuronStatistics,
    Sample,
    Sketch,
    bin_middles,
    bin_of,
)

TOKENS, UNITS = 3000, 40


def drawn(seed: int = 0) -> torch.Tensor:
    """Values of very different sizes; some neurons lie far from 0, one never changes."""
    values = torch.randn(TOKENS, UNITS, generator=torch.Generator().manual_seed(seed))
    values = values * torch.logspace(-3, 3, UNITS)
    values[:, 7] += 1000
    values[:, 8] = 0.25
    values[:, 9] = values[:, 9].round(decimals=1)
    return values


def taken(
    values: torch.Tensor, start: int, stop: int, step: int, found: NeuronStatistics | None = None
) -> NeuronStatistics:
    found = found or NeuronStatistics.zeros(UNITS, top=8)
    for begin in range(start, stop, step):
        some = values[begin : min(begin + step, stop)]
        found.add(some, torch.arange(begin, begin + len(some)))
    return found


def sampled(values: torch.Tensor, start: int, stop: int, step: int, seed: int = 3) -> Sample:
    sample = Sample.zeros(UNITS, 50, seed)
    for begin in range(start, stop, step):
        places = torch.arange(begin, min(begin + step, stop))
        wanted = sample.wanted(places)
        sample.add(values[places[wanted]], places[wanted])
    return sample


@pytest.fixture(scope="module")
def values() -> torch.Tensor:
    return drawn()


@pytest.fixture(scope="module")
def found(values: torch.Tensor) -> NeuronStatistics:
    return taken(values, 0, TOKENS, 257)


def test_mean_and_variance_are_those_of_two_passes(
    values: torch.Tensor, found: NeuronStatistics
) -> None:
    exact = values.double()
    spread = exact.std(0)
    assert found.moments.count == TOKENS
    assert ((found.moments.mean - exact.mean(0)).abs() <= 1e-6 * spread + 1e-12).all()
    torch.testing.assert_close(
        found.moments.variance, exact.var(0, correction=0), rtol=1e-5, atol=1e-12
    )


def test_a_far_mean_costs_no_digits_of_the_variance(values: torch.Tensor) -> None:
    # A sum of squares in float32 would lose all of it: this is what the merged form is for.
    far = values[:, :1] * 1e3 + 1e4
    naive = far.square().mean(0) - far.mean(0).square()
    truth = far.double().var(0, correction=0)
    moments = NeuronStatistics.zeros(1).moments
    for chunk in far.split(100):
        moments.add(chunk)
    assert float((moments.variance - truth).abs() / truth) < 1e-5
    assert float((naive - truth).abs() / truth) > 1e-2


def test_quantiles_are_within_the_stated_error(
    values: torch.Tensor, found: NeuronStatistics
) -> None:
    shares = torch.tensor([0.001, 0.1, 0.5, 0.9, 0.999])
    ordered = values.double().sort(0).values
    truth = ordered[(shares.double() * TOKENS).ceil().long() - 1].T
    error = (found.sketch.quantiles(shares) - truth).abs()
    bound = torch.maximum(ERROR * truth.abs(), torch.tensor(SMALLEST))
    assert (error <= bound * (1 + 1e-9)).all()  # a value at the end of a bin lies on the bound
    # The bound is no looser than it must be: half of it would not hold.
    assert (error > torch.maximum(ERROR / 2 * truth.abs(), torch.tensor(SMALLEST))).any()


def test_every_bin_holds_what_it_stands_for() -> None:
    middles = bin_middles().float()
    assert torch.equal(bin_of(middles), torch.arange(len(middles), dtype=torch.int32))
    odd = torch.tensor([0.0, -0.0, SMALLEST / 2, -LARGEST * 3, LARGEST * 3, torch.inf])
    last = len(middles) - 1
    assert bin_of(odd).tolist() == [last // 2] * 3 + [0, last, last]


def test_shares_beyond_a_threshold_are_counted(values: torch.Tensor) -> None:
    sketch = Sketch.zeros(UNITS)
    sketch.add(values)
    truth = (values > SMALLEST).double().mean(0)
    torch.testing.assert_close(sketch.positive_share, truth, rtol=0, atol=1e-12)
    threshold = values.abs().amax(0) / 10
    near = (values.abs() > threshold).double().mean(0)
    loose = (values.abs() > threshold * (1 - 2 * ERROR)).double().mean(0)
    tight = (values.abs() > threshold * (1 + 2 * ERROR)).double().mean(0)
    share = sketch.share_beyond(threshold)
    seen = threshold > 2 * SMALLEST  # what is smaller counts as 0
    assert ((tight <= share) & (share <= loose))[seen].all()
    assert int(seen.sum()) > UNITS // 2
    assert (near != share).any()


def test_the_largest_values_are_exact_and_of_equal_ones_the_earliest(
    values: torch.Tensor, found: NeuronStatistics
) -> None:
    order = values.T.argsort(dim=1, descending=True, stable=True)[:, :8]
    assert torch.equal(found.largest.places, order)
    assert torch.equal(found.largest.values, values.T.gather(1, order))


def test_the_order_of_work_does_not_matter(values: torch.Tensor, found: NeuronStatistics) -> None:
    late = taken(values, 1400, TOKENS, 100)
    late = taken(values, 700, 1400, 90, late)  # read after what comes later
    late.merge(taken(values, 0, 700, 333))
    assert torch.equal(late.largest.places, found.largest.places)
    assert torch.equal(late.sketch.counts, found.sketch.counts)
    torch.testing.assert_close(late.moments.variance, found.moments.variance, rtol=1e-6, atol=0)


def test_a_pass_that_is_written_and_read_back_goes_on_bit_for_bit(values: torch.Tensor) -> None:
    half = taken(values, 0, 1000, 100)
    again = taken(values, 1000, TOKENS, 100, NeuronStatistics.of_tensors(half.to_tensors()))
    whole = taken(values, 0, TOKENS, 100)
    for name, tensor in whole.to_tensors().items():
        assert torch.equal(again.to_tensors()[name], tensor), name


def test_the_sample_is_the_same_whatever_the_order_and_spread_over_the_corpus(
    values: torch.Tensor,
) -> None:
    whole = sampled(values, 0, TOKENS, 100)
    late = sampled(values, 1400, TOKENS, 77)
    late.merge(sampled(values, 0, 1400, 500))
    assert torch.equal(late.places, whole.places)
    assert torch.equal(whole.values, values[whole.places].half())
    # Half of it would lie in each half; 15 is 4.2 standard deviations of that count.
    assert len(whole.places) == 50
    assert abs(int((whole.places < TOKENS // 2).sum()) - 25) < 15
    assert not torch.equal(sampled(values, 0, TOKENS, 100, seed=4).places, whole.places)
    again = Sample.of_tensors(whole.to_tensors())
    assert torch.equal(again.values, whole.values)


def test_samples_of_different_seeds_are_not_merged() -> None:
    with pytest.raises(InputError, match="one size and seed"):
        Sample.zeros(2, seed=1).merge(Sample.zeros(2, seed=2))
