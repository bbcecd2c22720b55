"""Figures: ratios of what was measured in turns, so that a busy machine slows both sides alike."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Seconds: TypeAlias = "dict[str, list[float]]"


@dataclass(frozen=True)
class Figure:
    """A ratio and what it should be.

    Attributes:
        name: what over what.
        ratio: as measured.
        target: its bound.
        at_least: whether the bound is a lower one.
    """

    name: str
    ratio: float
    target: float
    at_least: bool

    def __str__(self) -> str:
        good = self.ratio >= self.target if self.at_least else self.ratio <= self.target
        sign = ">=" if self.at_least else "<="
        verdict = "ok" if good else "short"
        return f"{self.name:<58} {self.ratio:6.2f} {sign}{self.target:<4g} {verdict}"


def faster(name: str, slow: list[float], fast: list[float], target: float) -> Figure:
    """How many times faster something is than something else: at least ``target``."""
    return Figure(name, median(slow) / median(fast), target, at_least=True)


def costlier(name: str, ours: list[float], bare: list[float], target: float) -> Figure:
    """How many times as much something costs as something else: at most ``target``."""
    return Figure(name, median(ours) / median(bare), target, at_least=False)


def in_turns(ways: Mapping[str, Callable[[float], object]], rounds: int) -> Seconds:
    """Time several ways of doing the same, one after the other, round by round.

    Args:
        ways: each is called with a value that it has not had before.
        rounds: how often; one more, which warms up, does not count.
    """
    seconds: Seconds = {name: [] for name in ways}
    values = itertools.count(1)
    for turn in range(rounds + 1):
        for name, way in ways.items():
            value = float(next(values)) / 8
            began = time.perf_counter()
            way(value)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds
