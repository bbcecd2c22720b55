"""Cells as bytes: how exact they are, what is not a number, which cells a tile holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from patchclamp.errors import InputError
from patchclamp.views import tiles
from patchclamp.views.messages import TILE

WEIGHTS = arrays.arrays(
    np.float32,
    st.integers(1, 80),
    elements=st.one_of(
        st.floats(0, 1, width=32),
        st.floats(-30, 0).map(lambda e: float(np.float32(2.0**e))),
        st.just(float("nan")),
    ),
)
DIFFERENCES = arrays.arrays(
    np.float32,
    st.integers(1, 80),
    elements=st.one_of(
        st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
        st.floats(-30, 0).map(lambda e: float(np.float32(-(2.0**e)))),
        st.just(float("nan")),
    ),
)


@given(WEIGHTS)
def test_a_decoded_share_is_within_the_stated_relative_error(weights: np.ndarray) -> None:
    decoded = tiles.decode(tiles.code_shares(weights), "share")
    assert np.array_equal(np.isnan(decoded), np.isnan(weights))
    large = weights >= tiles.LEAST_SHARE
    assert np.all(decoded[~large & ~np.isnan(weights)] == 0)
    error = np.abs(decoded[large] / weights[large] - 1)
    assert np.all(error <= tiles.SHARE_ERROR * 1.001)  # float32 logarithms
    assert tiles.SHARE_ERROR < 0.028


@given(DIFFERENCES)
def test_a_decoded_difference_is_within_the_stated_error_with_its_sign(cells: np.ndarray) -> None:
    peak = tiles.peak_of(cells)
    decoded = tiles.decode(tiles.code_signed(cells, peak), "signed", peak)
    assert np.array_equal(np.isnan(decoded), np.isnan(cells))
    known = ~np.isnan(cells)
    if peak < np.finfo(np.float32).tiny:
        return
    share = np.abs(cells[known]) / np.float32(peak)
    large = share >= tiles.LEAST_OF_PEAK
    assert np.all(decoded[known][~large] == 0)
    error = np.abs(decoded[known][large] / cells[known][large] - 1)
    least = share[large] < tiles.LEAST_OF_PEAK * (1 + tiles.SIGNED_ERROR) * 1.001
    assert np.all(error[~least] <= tiles.SIGNED_ERROR * 1.002)
    assert np.all(error <= 0.076)
    assert tiles.SIGNED_ERROR < 0.038


def test_the_codes_are_those_that_the_messages_say() -> None:
    shares = np.array([0, 9e-7, 1e-6, 1e-3, 1, 1.0000001, np.nan, np.inf], dtype=np.float32)
    assert tiles.code_shares(shares).tolist() == [0, 0, 1, 128, 254, 254, 255, 255]
    cells = np.array([0, -2, 2, 0.02, -1e-4, np.nan], dtype=np.float32)
    assert tiles.code_signed(cells, 2.0).tolist() == [128, 2, 254, 128 + 63, 128, 255]
    nothing = np.array([0, -0.0, np.nan], dtype=np.float32)
    assert tiles.code_signed(nothing, tiles.peak_of(nothing)).tolist() == [128, 128, 255]


@pytest.mark.parametrize("length", [1, 2, TILE - 1, TILE, TILE + 1, 2 * TILE + 5])
@pytest.mark.parametrize("causal", [True, False])
def test_the_tiles_hold_every_cell_once(length: int, causal: bool) -> None:
    generator = np.random.default_rng(length)
    pattern = generator.dirichlet(np.ones(length), length).astype(np.float32)
    if causal:
        pattern = np.tril(pattern)
    rebuilt = np.zeros_like(pattern)
    n_bytes = 0
    for row, column in tiles.places(length, causal=causal):
        tiles.check(row, column, length, causal=causal)
        at = tiles.span(row, length), tiles.span(column, length)
        triangle = causal and row == column
        coded, peak = tiles.code_tile(pattern[at], "share", triangle=triangle)
        n_bytes += len(coded)
        flat = tiles.decode(coded, "share", peak)
        rebuilt[at] = tiles.unflatten(flat, *pattern[at].shape, triangle=triangle)
    assert n_bytes == (length * (length + 1) // 2 if causal else length**2)
    large = pattern >= tiles.LEAST_SHARE
    assert np.abs(rebuilt[large] / pattern[large] - 1).max() < 0.028
    assert np.all(rebuilt[~large] == 0)


def test_a_tile_that_is_not_there_is_said() -> None:
    with pytest.raises(InputError, match="has 3 x 3 tiles of 128 x 128 cells"):
        tiles.check(3, 0, 2 * TILE + 1, causal=False)
    with pytest.raises(InputError, match="above the diagonal"):
        tiles.check(0, 1, 2 * TILE, causal=True)
    tiles.check(0, 1, 2 * TILE, causal=False)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_a_thumb_is_the_cell_furthest_from_zero_of_each_block(
    n: int, block: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    cells = generator.normal(size=(n, n)).astype(np.float32)
    cells[generator.random((n, n)) < 0.02] = np.nan
    known = generator.random((n, n)) < 0.5
    side = -(-n // block)
    thumb = np.zeros((side, side), dtype=np.float32)
    for start in range(0, n, 2 * block):
        some = slice(start, start + 2 * block)
        tiles.furthest(cells[some], known[some], start, block, thumb)
    for row in range(side):
        for column in range(side):
            at = (
                slice(row * block, (row + 1) * block),
                slice(column * block, (column + 1) * block),
            )
            part = cells[at][known[at]]
            if len(part) and not np.isnan(part).any():
                assert thumb[row, column] in part
                assert abs(thumb[row, column]) == np.abs(part).max()
            else:
                assert np.isnan(thumb[row, column])
