"""What an attention pattern can be looked at as: of which run, in which mode, or as a difference.

A `Scene` says which runs there are at one revision of a session; `Patterns` reads cells of them,
some rows at a time, so that a pattern of thousands of tokens never stands whole in memory.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from patchclamp.engine.attention import Attention
from patchclamp.errors import InputError, Stopped
from patchclamp.methods.attention_value import logit_contribution, value_norms

from .messages import Look, Mode, Stamps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from patchclamp.engine.experiment import Experiment
    from patchclamp.session import Session

    Cells = NDArray[np.float32]

ShouldStop = Callable[[], bool]
Side = Literal["now", "before", "second"]
Partners = tuple[int | None, ...]

BASE: dict[Look, Side] = {
    "now": "now",
    "before": "before",
    "second": "second",
    "difference": "now",
    "second-difference": "now",
}
"""The side whose positions a look has; a difference is from it."""
OTHER: dict[Look, Side] = {"difference": "before", "second-difference": "second"}
"""The side that a difference subtracts."""
MODES: tuple[Mode, ...] = ("weight", "value", "contribution")

_CELLS_AT_ONCE = 2**20
_SIDES = 3


@dataclass(frozen=True)
class Scene:
    """The runs that can be looked at, at one revision of a session.

    Attributes:
        revision: the session's.
        now: the prompt under the stack.
        before: the prompt without it.
        second: the second prompt without it, where there is one.
        partners: for each position of the prompt, its partner in the second one.
    """

    revision: int
    now: "Experiment"
    before: "Experiment"
    second: "Experiment | None"
    partners: Partners

    @classmethod
    def of(
        cls, session: "Session", aligned: "Callable[[Experiment, Experiment | None], Partners]"
    ) -> "Scene":
        """The session's present one; `aligned` says the partners."""
        while True:  # the session may change at any moment
            revision, now = session.revision, session.experiment
            if session.revision == revision:
                break
        before = now.under(())
        contrast = now.surroundings.contrast
        second = None if contrast is None else replace(before, given=contrast)
        return cls(revision, now, before, second, aligned(now, second))

    def side(self, side: Side) -> "Experiment":
        """One of the three.

        Raises:
            InputError: when there is no second prompt.
        """
        found = {"now": self.now, "before": self.before, "second": self.second}[side]
        if found is None:
            raise InputError("There is no second prompt to look at; type one first.")
        return found

    def length(self, look: Look) -> int:
        """How many rows, and columns, the patterns of a look have."""
        return self.side(BASE[look]).length

    @cached_property
    def stamps(self) -> Stamps:
        """A name for the patterns of each side, which changes when they can have changed."""
        second = None
        if self.second is not None:  # its differences are others when other tokens are partners
            second = _stamp((_key(self.second), self.partners))
        return Stamps(now=_stamp(_key(self.now)), before=_stamp(_key(self.before)), second=second)

    def stamp(self, look: Look) -> str:
        """The stamp of a look's patterns; of a difference those of both sides.

        Raises:
            InputError: when there is no second prompt.
        """
        named = self.stamps.model_dump()
        parts = [BASE[look], OTHER.get(look)]
        self.side(OTHER.get(look, BASE[look]))
        return "-".join(str(named[part]) for part in parts if part is not None)


def _key(experiment: "Experiment") -> Hashable:
    return experiment.given, experiment.stack, experiment.context


def _stamp(key: Hashable) -> str:
    return f"{hash(key) % 2**64:016x}"


class Patterns:
    """Reads cells of a scene's patterns. On the model's worker only.

    It keeps the queries of the layers of a scene's runs, three at most, each within a quarter of
    the engine's budget (`engine.attention.Attention`).
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Attention] = {}

    @property
    def nbytes(self) -> int:
        """What it keeps beside the engine's store."""
        return sum(attention.nbytes for attention in self._kept.values())

    def forget(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    def attention(self, scene: Scene, side: Side) -> Attention:
        """The attention of one side's run.

        Raises:
            BudgetError: when the run needs more memory than there is to spend.
        """
        experiment = scene.side(side)
        present = {_key(one) for one in (scene.now, scene.before, scene.second) if one is not None}
        for old in list(self._kept):
            if old not in present:
                self._kept.pop(old, None)
        key = _key(experiment)
        found = self._kept.get(key)
        if found is None:
            found = Attention(experiment, budget=experiment.engine.budget // (_SIDES + 1))
            self._kept[key] = found
        return found

    def factors(
        self, scene: Scene, side: Side, head: tuple[int, int], mode: Mode, tokens: tuple[int, ...]
    ) -> "tuple[Cells, Cells]":
        """What a weight is multiplied by: a number for each source, and one for each destination.

        Args:
            scene: where to look.
            side: at which run.
            head: its layer and its number.
            mode: "weight" (ones), "value" or "contribution".
            tokens: the ids that the metric is about.

        Raises:
            ModelError: when the model cannot be read in this mode.
        """
        attention = self.attention(scene, side)
        ones = np.ones(attention.length, dtype=np.float32)
        if mode == "weight":
            return ones, ones
        if mode == "value":
            return value_norms(attention, *head).float().cpu().numpy(), ones
        columns, scale = logit_contribution(attention, *head, tokens)
        return columns.float().cpu().numpy(), scale.float().cpu().numpy()

    def view(
        self, scene: Scene, look: Look, head: tuple[int, int], mode: Mode, tokens: tuple[int, ...]
    ) -> "PatternView":
        """A head's pattern, to be read in rows; see `factors`.

        Raises:
            ModelError: when the model cannot be read in this mode.
            InputError: when there is no second prompt to look at.
        """
        base = self._sided(scene, BASE[look], head, mode, tokens)
        other = OTHER.get(look)
        if other is None:
            return PatternView(base)
        minus = self._sided(scene, other, head, mode, tokens)
        return PatternView(base, minus, scene.partners if other == "second" else None)

    def _sided(
        self, scene: Scene, side: Side, head: tuple[int, int], mode: Mode, tokens: tuple[int, ...]
    ) -> "_Sided":
        attention = self.attention(scene, side)
        return _Sided(attention, head, *self.factors(scene, side, head, mode, tokens))


@dataclass(frozen=True, eq=False)
class _Sided:
    """One head's pattern in one run, in one mode."""

    attention: Attention
    head: tuple[int, int]
    columns: "Cells"
    scale: "Cells"

    def rows(self, start: int, stop: int) -> "Cells":
        """Float[row, source]."""
        weights = self.attention.rows(*self.head, start, stop).float().cpu().numpy()
        cells: Cells = weights * self.columns * self.scale[start:stop, None]
        return cells


@dataclass(frozen=True, eq=False)
class PatternView:
    """One head's pattern, or a difference of two, read in rows; on the model's worker only.

    Attributes:
        base: the pattern.
        minus: what is subtracted from it.
        partners: the position of `minus` that stands for each of `base`; None for the same.
    """

    base: _Sided
    minus: _Sided | None = None
    partners: Partners | None = None

    @property
    def length(self) -> int:
        """How many rows and columns it has."""
        return self.base.attention.length

    def rows(self, start: int, stop: int) -> "Cells":
        """Float32[row, source]; NaN where the pattern is, or where there is no partner."""
        cells = self.base.rows(start, stop)
        if self.minus is None:
            return cells
        if self.partners is None:
            return cells - self.minus.rows(start, stop)
        wanted = [p for p in self.partners[start:stop] if p is not None]
        if not wanted:
            return np.full_like(cells, np.nan)
        first, last = min(wanted), max(wanted) + 1
        read = self.minus.rows(first, last)
        return cells - _aligned(read, first, self.partners[start:stop], self.partners)

    def known(self, start: int, stop: int) -> "NDArray[np.bool_]":
        """Bool[row, source]: which cells there are, that is both their tokens have partners."""
        if self.partners is None:
            return np.ones((stop - start, self.length), dtype=np.bool_)
        have = np.array([partner is not None for partner in self.partners])
        known: NDArray[np.bool_] = have[start:stop, None] & have
        return known

    def chunks(self, multiple: int = 1) -> Iterator[tuple[int, "Cells"]]:
        """All rows, some at a time: the first row, a multiple of a number, and the cells."""
        size = max(1, _CELLS_AT_ONCE // (self.length * multiple)) * multiple
        for start in range(0, self.length, size):
            yield start, self.rows(start, min(start + size, self.length))


def _aligned(read: "Cells", first: int, rows: Partners, columns: Partners) -> "Cells":
    """Rows of another pattern, from row `first`, in the places of their partners."""
    cells = np.full((len(rows), len(columns)), np.nan, dtype=np.float32)
    into = [[i for i, p in enumerate(ends) if p is not None] for ends in (rows, columns)]
    of_rows = [p - first for p in rows if p is not None]
    of_columns = [p for p in columns if p is not None]
    cells[np.ix_(*into)] = read[np.ix_(of_rows, of_columns)]
    return cells


def stop_if(should_stop: ShouldStop) -> None:
    """Leave, when somebody said so.

    Raises:
        Stopped: then.
    """
    if should_stop():
        raise Stopped("Stopped before it was finished.")
