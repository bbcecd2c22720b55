"""What a search for prompts finds: candidates, and the Pareto front of everything that was tried.

A prompt that makes a unit active is worth more the more likely the model finds it. Which of the two
counts for how much is the reader's choice, so the searches return all prompts that nothing beats in
both: the Pareto front of activation (high) against cross-entropy (low, in nats a token).
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Candidate:
    """A prompt and what it does.

    Attributes:
        ids: its token ids as they were run: with a beginning-of-sequence token in front where the
            model has one.
        activation: the objective's value.
        cross_entropy: nats a token, of all tokens but the first of ``ids``; NaN where there is no
            other.
    """

    ids: tuple[int, ...]
    activation: float
    cross_entropy: float


@dataclass(frozen=True)
class Front:
    """The candidates that nothing else that was tried beats in both numbers.

    Attributes:
        candidates: by rising cross-entropy, and so by rising activation.
        iteration: how many iterations were finished.
        tokens_tried: how many prompts were tried, each a token put in the place of another.
        seconds: how long the search itself has worked.
    """

    candidates: tuple[Candidate, ...]
    iteration: int
    tokens_tried: int
    seconds: float

    @property
    def best(self) -> Candidate | None:
        """The candidate with the highest activation; None while there is none."""
        return self.candidates[-1] if self.candidates else None

    def activation_at(self, cross_entropy: float) -> float:
        """Return the highest activation at no more than a cross-entropy; -inf where there is none.

        >>> front = Front((Candidate((1,), 0.5, 2.0), Candidate((2,), 3.0, 4.0)), 1, 2, 0.1)
        >>> front.activation_at(3.9), front.activation_at(4.0), front.activation_at(1.0)
        (0.5, 3.0, -inf)
        """
        return max(
            (c.activation for c in self.candidates if c.cross_entropy <= cross_entropy),
            default=-math.inf,
        )


@dataclass(frozen=True)
class Generation:
    """Where a search stands: what it yields.

    Attributes:
        front: the best of everything that was tried so far.
        population: the prompts that it goes on from.
        share: how much of the iteration that is running is done; 1 when it has just finished.
    """

    front: Front
    population: tuple[Candidate, ...]
    share: float


class Archive:
    """Everything that was tried, of which it keeps the Pareto front.

    >>> archive = Archive()
    >>> archive.add([Candidate((1,), 1.0, 5.0), Candidate((2,), 2.0, 4.0)])
    >>> [c.ids for c in archive.candidates]
    [(2,)]
    """

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self._costs: list[float] = []

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Take in candidates; what equals one that is there already changes nothing."""
        for new in candidates:
            if not (math.isfinite(new.cross_entropy) and math.isfinite(new.activation)):
                continue
            below = bisect_right(self._costs, new.cross_entropy)
            if below and self.candidates[below - 1].activation >= new.activation:
                continue
            begin = bisect_left(self._costs, new.cross_entropy)
            end = begin
            while end < len(self._costs) and self.candidates[end].activation <= new.activation:
                end += 1
            self.candidates[begin:end] = [new]
            self._costs[begin:end] = [new.cross_entropy]

    def covers(self, activations: Tensor, cross_entropies: Tensor) -> Tensor:
        """Return Bool[item], whether something that was tried is at least as good in both."""
        found = []
        for act, cost in zip(activations.tolist(), cross_entropies.tolist(), strict=True):
            below = bisect_right(self._costs, cost)
            found.append(below > 0 and self.candidates[below - 1].activation >= act)
        return torch.tensor(found, dtype=torch.bool, device=activations.device)


class Clock:
    """Counts the seconds that a search works, not those in which others have the model."""

    def __init__(self) -> None:
        self._before = 0.0
        self._began: float | None = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it ran."""
        running = 0.0 if self._began is None else time.perf_counter() - self._began
        return self._before + running

    def pause(self) -> None:
        """Stop counting."""
        self._before, self._began = self.seconds, None

    def resume(self) -> None:
        """Go on counting."""
        self._began = time.perf_counter()


class Search:
    """The bookkeeping of a search: what was tried, for how long, and what it says of that.

    Attributes:
        archive: everything that was tried.
        clock: how long it has worked.
        iteration: how many iterations were finished.
        tried: how many prompts were tried.
    """

    def __init__(self, iterations: int | None, seconds: float | None) -> None:
        self.archive = Archive()
        self.clock = Clock()
        self.iteration = 0
        self.tried = 0
        self._iterations = iterations
        self._seconds = seconds

    def over(self) -> bool:
        """Say whether its budget is spent."""
        late = self._seconds is not None and self.clock.seconds >= self._seconds
        return late or (self._iterations is not None and self.iteration >= self._iterations)

    def take(self, candidates: Sequence[Candidate]) -> None:
        """Count and keep candidates."""
        self.tried += len(candidates)
        self.archive.add(candidates)

    def give(self, state: Generation) -> Generator[Generation, None, None]:
        """Yield a state; the time until somebody asks for the next one is not counted."""
        self.clock.pause()
        yield state
        self.clock.resume()

    def state(self, population: Iterable[Candidate], share: float = 1.0) -> Generation:
        """Say where it stands."""
        front = Front(
            tuple(self.archive.candidates), self.iteration, self.tried, self.clock.seconds
        )
        return Generation(front, tuple(population), share)
