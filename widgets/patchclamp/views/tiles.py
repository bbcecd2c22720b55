"""Attention patterns as bytes: two codings of cells, tiles of `TILE` x `TILE`, packed triangles.

What the bytes mean is said in `messages/attention_inspector.py`; the front end's `tiles.ts` reads
them. Nothing here rounds a position: a tile holds every one of its cells.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from patchclamp.errors import InputError

from .messages import TILE, Coding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Cells = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

NOT_A_NUMBER = 255
LEAST_SHARE = 1e-6
LEAST_OF_PEAK = 1e-4
SHARE_ERROR = LEAST_SHARE ** (-0.5 / 253) - 1
"""The largest relative error of a decoded share: half a step of the scale, 2.8 %."""
SIGNED_ERROR = LEAST_OF_PEAK ** (-0.5 / 126) - 1
"""The same of a decoded difference, 3.7 %; up to twice that in the last half step above 1e-4."""

_SHARES = 253
_STEPS = 126
_ZERO = 128


def code_shares(cells: "NDArray[Any]") -> "Bytes":
    """Code weights from 0 to 1 on a logarithmic scale; what is not finite is `NOT_A_NUMBER`.

    Relative error at most `SHARE_ERROR`; weights under `LEAST_SHARE` are 0.
    """
    values = np.asarray(cells, dtype=np.float32)
    known = np.isfinite(values)
    large = known & (values >= LEAST_SHARE)
    scaled = np.ones(values.shape, dtype=np.float32)
    np.log(values, out=scaled, where=large)
    scaled = 1 + _SHARES * (1 - scaled / np.float32(np.log(LEAST_SHARE)))
    coded = np.where(large, np.clip(np.rint(scaled), 1, 1 + _SHARES), 0)
    return np.where(known, coded, NOT_A_NUMBER).astype(np.uint8)


def code_signed(cells: "NDArray[Any]", peak: float) -> "Bytes":
    """Code differences on a logarithmic scale either way of 0, relative to a peak.

    Args:
        cells: the differences; what is not finite is `NOT_A_NUMBER`.
        peak: their largest absolute value (`peak_of`).
    """
    values = np.asarray(cells, dtype=np.float32)
    known = np.isfinite(values)
    if not peak:
        return np.where(known, _ZERO, NOT_A_NUMBER).astype(np.uint8)
    share = np.abs(np.where(known, values, 0)) / np.float32(peak)
    large = share >= LEAST_OF_PEAK
    scaled = np.ones(values.shape, dtype=np.float32)
    np.log(share, out=scaled, where=large)
    scaled = _STEPS * (1 - scaled / np.float32(np.log(LEAST_OF_PEAK)))
    steps = np.where(large, np.clip(np.rint(scaled), 1, _STEPS), 0)
    return np.where(known, _ZERO + np.sign(values) * steps, NOT_A_NUMBER).astype(np.uint8)


def peak_of(cells: "NDArray[Any]") -> float:
    """The largest absolute value among finite cells; 0 where there is none."""
    values = np.asarray(cells, dtype=np.float32)
    sizes = np.abs(values, where=np.isfinite(values), out=np.zeros(values.shape, np.float32))
    return float(sizes.max(initial=0))


def decode(coded: "NDArray[Any]", coding: Coding, peak: float = 1.0) -> "Cells":
    """The cells that bytes stand for, as the front end reads them."""
    codes = np.asarray(coded).astype(np.float64)
    if coding == "share":
        cells = np.where(codes == 0, 0, LEAST_SHARE ** (1 - (codes - 1) / _SHARES))
    else:
        steps = codes - _ZERO
        sizes = peak * LEAST_OF_PEAK ** (1 - np.abs(steps) / _STEPS)
        cells = np.where(steps == 0, 0, np.sign(steps) * sizes)
    return np.where(codes == NOT_A_NUMBER, np.nan, cells).astype(np.float32)


def span(index: int, length: int) -> slice:
    """The positions of a row, or a column, of tiles."""
    return slice(index * TILE, min((index + 1) * TILE, length))


def count(length: int) -> int:
    """How many rows, and columns, of tiles a pattern of so many positions has."""
    return -(-length // TILE)


def places(length: int, *, causal: bool) -> "Iterator[tuple[int, int]]":
    """Row and column of each tile that there is, the last row first: it holds the prediction's."""
    for row in reversed(range(count(length))):
        for column in range(row + 1 if causal else count(length)):
            yield row, column


def check(row: int, column: int, length: int, *, causal: bool) -> None:
    """Say when a pattern has no such tile.

    Raises:
        InputError: naming those that there are.
    """
    most = count(length)
    if row >= most or column >= most:
        raise InputError(
            f"There is no tile in row {row}, column {column}: a pattern of {length} positions has "
            f"{most} x {most} tiles of {TILE} x {TILE} cells, counted from 0."
        )
    if causal and column > row:
        raise InputError(
            f"There is no tile in row {row}, column {column}: it would lie above the diagonal, "
            "where a causal model attends to nothing."
        )


def flatten(tile: "NDArray[Any]", *, triangle: bool) -> "NDArray[Any]":
    """A tile's cells row after row; of a triangle those on and under the diagonal only."""
    return tile[np.tril_indices(len(tile))] if triangle else tile.ravel()


def unflatten(cells: "NDArray[Any]", rows: int, columns: int, *, triangle: bool) -> "NDArray[Any]":
    """The inverse of `flatten`; above a triangle's diagonal there is 0."""
    if not triangle:
        return cells.reshape(rows, columns)
    tile = np.zeros((rows, columns), dtype=cells.dtype)
    tile[np.tril_indices(rows)] = cells
    return tile


def code_tile(tile: "NDArray[Any]", coding: Coding, *, triangle: bool) -> "tuple[Bytes, float]":
    """A tile's bytes, and the peak of its coding (1 for "share")."""
    cells = flatten(tile, triangle=triangle)
    if coding == "share":
        return code_shares(cells), 1.0
    peak = peak_of(cells)
    return code_signed(cells, peak), peak


def furthest(
    rows: "NDArray[Any]", known: "NDArray[np.bool_]", start: int, block: int, thumb: "Cells"
) -> None:
    """Take some rows of a pattern into its summary: the cell furthest from 0 of each block.

    A block with a cell that is not a number is none itself; cells that are not known (a token has
    no partner in the other prompt) count only where a whole block is not known: it is NaN.

    Args:
        rows: Float[row, source], from row `start`.
        known: Bool[row, source].
        start: the first of them, a multiple of `block`.
        block: how many rows and columns of cells a pixel of the thumb summarises.
        thumb: Float[n, n], written in place.
    """
    n_rows, n_sources = -(-len(rows) // block), -(-rows.shape[1] // block)

    def blocks(cells: "NDArray[Any]", fill: float) -> "NDArray[Any]":
        padded = np.full((n_rows * block, n_sources * block), fill, dtype=np.float32)
        padded[: len(cells), : cells.shape[1]] = cells
        parts = padded.reshape(n_rows, block, n_sources, block).swapaxes(1, 2)
        return parts.reshape(n_rows, n_sources, block * block)

    sizes = np.where(np.isnan(rows), np.inf, np.abs(rows))
    order = blocks(np.where(known, sizes, -1), -1).argmax(-1)[..., None]
    chosen = np.take_along_axis(blocks(np.where(known, rows, np.nan), np.nan), order, -1)[..., 0]
    thumb[start // block : start // block + n_rows, :n_sources] = chosen
