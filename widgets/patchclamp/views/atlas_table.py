"""NeuronAtlas's table: which neurons are in it, in which order, and what a row says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from patchclamp.errors import InputError

from . import messages as say

if TYPE_CHECKING:
    import pandas as pd

    from .messages import AtlasColumn, AtlasMatrix

_COLUMNS: dict[str, str] = {"firing": "firing_rate", "mean": "mean", "sd": "sd", "peak": "peak"}


@dataclass(frozen=True)
class Brush:
    """What is brushed in the scatter plot: least and largest of either axis."""

    firing: tuple[float, float]
    score: tuple[float, float]


@dataclass(frozen=True)
class Sifting:
    """Which neurons are shown, and in which order.

    Attributes:
        token: text of the token that is searched for; "" for any.
        matrix: which matrix scores and tokens are of.
        layers: first and last layer; None for all.
        least: how special a neuron is at least; None for any.
        brush: what is brushed in the scatter plot; None for nothing.
        order: what is sorted by.
        falling: the largest first.
    """

    token: str = ""
    matrix: AtlasMatrix = "down"
    layers: tuple[int, int] | None = None
    least: float | None = None
    brush: Brush | None = None
    order: AtlasColumn = "score"
    falling: bool = True

    def message(self) -> say.Sifted:
        """The same for the page."""
        brush = self.brush
        return say.Sifted(
            token=self.token,
            matrix=self.matrix,
            layers=None if self.layers is None else list(self.layers),
            least=self.least,
            brush=None if brush is None else [*brush.firing, *brush.score],
            order=self.order,
            falling=self.falling,
        )


@dataclass(frozen=True, eq=False)
class Table:
    """The neurons that are shown.

    Attributes:
        neurons: all of the atlas's, one a row.
        sifting: what was asked for.
        order: int64[row]: which neurons, in the order they are shown in.
        z: Float[neuron], how far the token stands out of each; None where none is searched for.
        number: of this sifting.
    """

    neurons: pd.DataFrame
    sifting: Sifting
    order: np.ndarray
    z: np.ndarray | None = None
    number: int = 0
    _arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def page(self, start: int, count: int) -> list[say.AtlasRow]:
        """Return some rows."""
        return [self.row(int(place)) for place in self.order[start : start + count]]

    def place(self, address: str) -> int | None:
        """Return a neuron's number among all; None where there is no such neuron."""
        found = np.flatnonzero(self.neurons["address"].to_numpy() == address)
        return int(found[0]) if len(found) else None

    def row(self, place: int) -> say.AtlasRow:
        """Return the row of one neuron, whether it is shown or not."""
        matrix = self.sifting.matrix
        sign = self._number(f"{matrix}_sign", place)
        return say.AtlasRow(
            address=str(self._column("address")[place]),
            score=self._number(f"{matrix}_score", place),
            token=str(self._column(f"{matrix}_token")[place])
            if self._has(f"{matrix}_token")
            else "",
            sign=-1 if sign is not None and sign < 0 else 1,
            z=None if self.z is None else _finite(self.z[place]),
            massive=bool(self._column("massive")[place]) if self._has("massive") else False,
            **{name: self._number(column, place) for name, column in _COLUMNS.items()},
        )

    def _has(self, column: str) -> bool:
        return column in self.neurons

    def _column(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = self.neurons[name].to_numpy()
        return self._arrays[name]

    def _number(self, name: str, place: int) -> float | None:
        return _finite(self._column(name)[place]) if self._has(name) else None


def sift(neurons: pd.DataFrame, sifting: Sifting, z: np.ndarray | None, number: int) -> Table:
    """Choose and sort neurons.

    Args:
        neurons: all of the atlas's.
        sifting: what is asked for.
        z: Float[neuron], how far the token that is searched for stands out; NaN where it does not.
        number: what the page is to call this sifting.

    Raises:
        InputError: when the atlas does not hold what is asked for.
    """
    keep = np.ones(len(neurons), dtype=bool)
    score = f"{sifting.matrix}_score"
    if sifting.layers is not None:
        first, last = sifting.layers
        layer = neurons["layer"].to_numpy()
        keep &= (layer >= first) & (layer <= last)
    if sifting.least is not None:
        keep &= _needed(neurons, score) >= sifting.least
    if sifting.brush is not None:
        for column, (low, high) in (
            ("firing_rate", sifting.brush.firing),
            (score, sifting.brush.score),
        ):
            values = _needed(neurons, column)
            keep &= (values >= low) & (values <= high)
    if z is not None:
        keep &= ~np.isnan(z)
    chosen = np.flatnonzero(keep)
    by = _key(neurons, sifting, z)
    if by is not None:
        value = by[chosen].astype(float)
        # What is not known comes last, whichever way it is sorted.
        value = np.where(np.isnan(value), np.inf, -value if sifting.falling else value)
        chosen = chosen[np.argsort(value, kind="stable")]
    elif sifting.falling:
        chosen = chosen[::-1]
    return Table(neurons, sifting, chosen, z, number)


def usual(neurons: pd.DataFrame) -> Sifting:
    """Return what is shown first: the most special neurons, or those that fire most rarely."""
    first: list[AtlasMatrix] = [m for m in ("down", "up", "gate") if f"{m}_score" in neurons]
    if first:
        return Sifting(matrix=first[0])
    return replace(Sifting(), order="firing", falling=False)


def _key(neurons: pd.DataFrame, sifting: Sifting, z: np.ndarray | None) -> np.ndarray | None:
    """What is sorted by; None for the place in the model."""
    if sifting.order == "address":
        return None
    if sifting.order == "z":
        return None if z is None else np.abs(z)
    if sifting.order == "score":
        return _needed(neurons, f"{sifting.matrix}_score")
    return _needed(neurons, _COLUMNS[sifting.order])


def _needed(neurons: pd.DataFrame, column: str) -> np.ndarray:
    if column not in neurons:
        what = "decoded weights" if column.endswith("_score") else "a corpus that was read"
        msg = f"This atlas has no {column}: that needs {what}."
        raise InputError(msg)
    return neurons[column].to_numpy()


def _finite(value: object) -> float | None:
    number = float(value)  # type: ignore[arg-type] # a number of a column
    return number if isfinite(number) else None
