"""What is worth knowing of many neurons over a corpus, collected in one pass.

Everything here is fed in chunks of tokens, in any split, and merges: the statistics of two halves
give those of the whole. Exact are counts, peaks, the largest examples and, up to rounding, means
and variances, which are carried as Chan, Golub and LeVeque (1979) merge Welford's (1962) updates.
Quantiles come from a sketch.

*The sketch* is a histogram with eight bins an octave: a value's bin is read off the leading bits of
its floating-point form (as HdrHistogram does; Masson, Rim and Lee's DDSketch, 2019, does it by
logarithms). A quantile is the middle of the bin that holds the value of that rank: it differs from
this value by at most :data:`ERROR` of it, or by :data:`SMALLEST` where the value is smaller than
that. Values beyond :data:`LARGEST` are counted with the last bin.

*The sample* holds the values of all neurons at the same few tokens. Which tokens is decided by a
hash of each token's place, those with the smallest hashes being kept, so that the sample is
uniform, the same for every order of work, and merges. Examples of a neuron's quantiles are drawn
from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_MANTISSA = 3  # leading bits of the mantissa that a bin keeps: eight bins an octave
_SHIFT = 23 - _MANTISSA
_OCTAVES = (-10, 12)
SMALLEST = 2.0 ** _OCTAVES[0]
"""Values smaller than this, in absolute value, count as 0."""
LARGEST = 2.0 ** _OCTAVES[1]
ERROR = 1 / 17
"""Bound of a quantile's relative error: half a bin, whose upper end is 9/8 of its lower."""
_FIRST = (127 + _OCTAVES[0]) << _MANTISSA
_SIDE = (_OCTAVES[1] - _OCTAVES[0]) << _MANTISSA
BINS = 2 * _SIDE + 1
"""Bins of a neuron: of negative values from the largest on, of 0, of positive values."""
_AT_ONCE = 64  # tokens whose bins fit into a processor's cache
TOP = 16
SAMPLE = 512


@dataclass(eq=False)
class Moments:
    """Counts, means and sums of squared deviations.

    Attributes:
        count: how many values each unit has.
        mean: Float64[unit].
        m2: Float64[unit], the sum of squared deviations from the mean.
    """

    count: int
    mean: Tensor
    m2: Tensor

    @classmethod
    def zeros(cls, units: int) -> Moments:
        """Of no values yet."""
        return cls(
            0, torch.zeros(units, dtype=torch.float64), torch.zeros(units, dtype=torch.float64)
        )

    def add(self, values: Tensor) -> None:
        """Take in Float[token, unit]."""
        count = len(values)
        if not count:
            return
        # Deviations from a value near the mean are small, so that sums of them in float32 will do.
        near = self.mean.float() if self.count else values[0]
        apart = values - near
        total = apart.sum(0)
        m2 = apart.square_().sum(0).double() - total.double().square() / count
        self.merge(Moments(count, near.double() + total.double() / count, m2.clamp_min_(0)))

    def merge(self, other: Moments) -> None:
        """Take in what was collected elsewhere."""
        total = self.count + other.count
        if not other.count:
            return
        difference = other.mean - self.mean
        self.m2 += other.m2 + difference.square() * (self.count * other.count / total)
        self.mean += difference * (other.count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Float64[unit], of the values as a whole (divided by their number)."""
        return self.m2 / max(1, self.count)


def bin_of(values: Tensor) -> Tensor:
    """Return the bin of each Float32 value, int32 of the values' shape."""
    bits = values.contiguous().view(torch.int32)
    place = bits & 0x7FFFFFFF
    place >>= _SHIFT
    place -= _FIRST - 1
    place.clamp_(0, _SIDE)
    sign = bits >> 31  # 0, or -1: with it, (x ^ sign) - sign changes the sign of x
    place ^= sign
    place -= sign
    place += _SIDE
    return place


def bin_middles() -> Tensor:
    """Return Float64[bin], the value that stands for each bin."""
    place = torch.arange(_SIDE, dtype=torch.float64)
    octave = (place // 2**_MANTISSA) + _OCTAVES[0]
    step = place % 2**_MANTISSA
    low = 2.0**octave * (1 + step / 2**_MANTISSA)
    high = 2.0**octave * (1 + (step + 1) / 2**_MANTISSA)
    # Not the arithmetic middle: the one whose relative distance to both ends is the same.
    middle = 2 * low * high / (low + high)
    return torch.cat([-middle.flip(0), torch.zeros(1, dtype=torch.float64), middle])


@dataclass(eq=False)
class Sketch:
    """How often each unit's values fell into each bin.

    Attributes:
        counts: int32[unit, bin].
    """

    counts: Tensor

    @classmethod
    def zeros(cls, units: int) -> Sketch:
        """Of no values yet."""
        return cls(torch.zeros(units, BINS, dtype=torch.int32))

    def add(self, values: Tensor) -> None:
        """Take in Float32[token, unit]."""
        units = values.shape[1]
        first = torch.arange(0, units * BINS, BINS, dtype=torch.int32)
        one, flat = torch.ones(1, dtype=torch.int32), self.counts.view(-1)
        for some in values.split(_AT_ONCE):
            place = bin_of(some).add_(first).view(-1)
            flat.index_add_(0, place, one.expand(len(place)))

    def merge(self, other: Sketch) -> None:
        """Take in what was collected elsewhere."""
        self.counts += other.counts

    def quantiles(self, shares: Tensor) -> Tensor:
        """Return Float64[unit, share]: the value below or at which that share of the values lies.

        Args:
            shares: Float[share], from 0 to 1.
        """
        reached = self.counts.cumsum(1, dtype=torch.int64)
        total = reached[:, -1:]
        rank = (shares.double() * total).ceil().clamp_min(1).long()
        place = torch.searchsorted(reached, rank).clamp_max(BINS - 1)
        return bin_middles()[place]

    def share_beyond(self, threshold: Tensor) -> Tensor:
        """Return Float64[unit]: how often a value's size exceeded Float[unit], to a bin.

        Bins whose middle is larger than the threshold are counted whole.
        """
        middles = bin_middles().abs()
        beyond = middles > threshold.double()[:, None]
        total = self.counts.sum(1, dtype=torch.int64).clamp_min(1)
        return (self.counts * beyond).sum(1).double() / total

    @property
    def positive_share(self) -> Tensor:
        """Float64[unit]: how often a value was above 0, by at least :data:`SMALLEST`."""
        total = self.counts.sum(1, dtype=torch.int64).clamp_min(1)
        return self.counts[:, _SIDE + 1 :].sum(1).double() / total


@dataclass(eq=False)
class Largest:
    """Each unit's largest values and where they were, exactly.

    Equal values are kept by place, the earliest first, so that the order of work does not matter.

    Attributes:
        values: Float32[unit, k], falling; minus infinity where there are fewer.
        places: int64[unit, k], the tokens' places; -1 where there are fewer.
    """

    values: Tensor
    places: Tensor

    @classmethod
    def zeros(cls, units: int, top: int = TOP) -> Largest:
        """Of no values yet."""
        return cls(
            torch.full((units, top), -torch.inf), torch.full((units, top), -1, dtype=torch.int64)
        )

    def add(self, values: Tensor, places: Tensor) -> None:
        """Take in Float32[token, unit], and int64[token], which grow."""
        top = self.values.shape[1]
        # Few values are larger than what is kept once a corpus has gone on for a while.
        last, last_place = self.values[:, -1:], self.places[:, -1:]
        better = last < values.T
        if bool((places[:1] < last_place).any()):  # read out of order: an equal one may be earlier
            better |= (last == values.T) & (places < last_place)
        unit, token = better.nonzero(as_tuple=True)
        if not len(unit):
            return
        units, counts = unit.unique_consecutive(return_counts=True)
        if int(counts.max()) > 4 * top:  # the beginning: all tokens of all units
            columns = values[:, units].T.contiguous()
            found, where = _topmost(columns, places.expand_as(columns), top)
        else:
            row = torch.repeat_interleave(torch.arange(len(units)), counts)
            column = torch.arange(len(unit)) - torch.repeat_interleave(
                counts.cumsum(0) - counts, counts
            )
            found = torch.full((len(units), int(counts.max())), -torch.inf)
            where = torch.full(found.shape, -1, dtype=torch.int64)
            found[row, column], where[row, column] = values[token, unit], places[token]
        self._take(units, found, where)

    def merge(self, other: Largest) -> None:
        """Take in what was collected elsewhere."""
        units = torch.arange(len(self.values))
        self._take(units, other.values, other.places)

    def _take(self, units: Tensor, values: Tensor, places: Tensor) -> None:
        both = torch.cat([self.values[units], values], 1)
        where = torch.cat([self.places[units], places], 1)
        by_place = where.argsort(dim=1, stable=True)
        found = _topmost(both.gather(1, by_place), where.gather(1, by_place), self.values.shape[1])
        self.values[units], self.places[units] = found


def _topmost(values: Tensor, places: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row, [row, k], and their places; of equal ones the first.

    Sorting whole rows, which torch's topk does not, is what keeps ties in order.
    """
    order = values.argsort(dim=1, descending=True, stable=True)[:, :top]
    return values.gather(1, order), places.gather(1, order)


def place_hash(places: Tensor, seed: int) -> Tensor:
    """Return int64 of the places' shape, spread evenly over 0 to 2**62: the same for each place.

    The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), on the bits that int64 has.
    """
    x = places + torch.tensor(seed + 1) * -7046029254386353131  # tensors wrap around
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor
    return (x ^ ((x >> 31) & (2**33 - 1))) & (2**62 - 1)


@dataclass(eq=False)
class Sample:
    """The values of all units at the same few tokens.

    Attributes:
        values: Float16[token, unit].
        places: int64[token].
        hashes: int64[token], growing.
        size: how many are kept.
        seed: of the hash.
    """

    values: Tensor
    places: Tensor
    hashes: Tensor
    size: int
    seed: int

    @classmethod
    def zeros(cls, units: int, size: int = SAMPLE, seed: int = 0) -> Sample:
        """Of no values yet."""
        empty = torch.zeros(0, dtype=torch.int64)
        return cls(torch.zeros(0, units, dtype=torch.float16), empty, empty, size, seed)

    def wanted(self, places: Tensor) -> Tensor:
        """Return which of int64[token] belong into the sample as it is now, as indices."""
        hashes = place_hash(places, self.seed)
        if len(self.hashes) < self.size:
            return hashes.argsort()[: self.size]
        return (hashes < self.hashes[-1]).nonzero().flatten()

    def add(self, values: Tensor, places: Tensor) -> None:
        """Take in Float[token, unit] at int64[token]: those that :meth:`wanted` names."""
        found = Sample(
            values.clamp(-65504, 65504).half(),
            places,
            place_hash(places, self.seed),
            self.size,
            self.seed,
        )
        self.merge(found)

    def merge(self, other: Sample) -> None:
        """Take in what was collected elsewhere."""
        if (self.size, self.seed) != (other.size, other.seed):
            msg = "Samples of one size and seed can be merged; these differ."
            raise InputError(msg)
        hashes = torch.cat([self.hashes, other.hashes])
        order = hashes.argsort()[: self.size]
        self.hashes = hashes[order]
        self.places = torch.cat([self.places, other.places])[order]
        self.values = torch.cat([self.values, other.values])[order]

    def to_tensors(self) -> dict[str, Tensor]:
        """Return it as named tensors, to be written to a file; :meth:`of_tensors` reads them."""
        return {
            "values": self.values,
            "places": self.places,
            "hashes": self.hashes,
            "how": torch.tensor([self.size, self.seed]),
        }

    @classmethod
    def of_tensors(cls, found: Mapping[str, Tensor]) -> Sample:
        """Read what :meth:`to_tensors` gave."""
        size, seed = found["how"].tolist()
        return cls(found["values"], found["places"], found["hashes"], size, seed)


@dataclass(eq=False)
class NeuronStatistics:
    """All of it but the sample, of the neurons of a layer.

    Attributes:
        moments: counts, means, variances.
        sketch: the histogram.
        peak: Float32[unit], the largest absolute value.
        largest: the largest values and where they were.
    """

    moments: Moments
    sketch: Sketch
    peak: Tensor
    largest: Largest

    @classmethod
    def zeros(cls, units: int, top: int = TOP) -> NeuronStatistics:
        """Of no values yet.

        Args:
            units: how many neurons.
            top: how many of the largest values are kept.
        """
        return cls(
            Moments.zeros(units), Sketch.zeros(units), torch.zeros(units), Largest.zeros(units, top)
        )

    def add(self, values: Tensor, places: Tensor) -> None:
        """Take in Float32[token, unit] at int64[token], which grow."""
        if not len(values):
            return
        self.moments.add(values)
        self.sketch.add(values)
        self.peak = torch.maximum(self.peak, torch.maximum(values.amax(0), -values.amin(0)))
        self.largest.add(values, places)

    def merge(self, other: NeuronStatistics) -> None:
        """Take in what was collected elsewhere."""
        self.moments.merge(other.moments)
        self.sketch.merge(other.sketch)
        self.peak = torch.maximum(self.peak, other.peak)
        self.largest.merge(other.largest)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return it as named tensors, to be written to a file; :meth:`of_tensors` reads them."""
        return {
            "count": torch.tensor(self.moments.count),
            "mean": self.moments.mean,
            "m2": self.moments.m2,
            "counts": self.sketch.counts,
            "peak": self.peak,
            "largest": self.largest.values,
            "places": self.largest.places,
        }

    @classmethod
    def of_tensors(cls, found: Mapping[str, Tensor]) -> NeuronStatistics:
        """Read what :meth:`to_tensors` gave."""
        return cls(
            Moments(int(found["count"]), found["mean"], found["m2"]),
            Sketch(found["counts"]),
            found["peak"],
            Largest(found["largest"], found["places"]),
        )
