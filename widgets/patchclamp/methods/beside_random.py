"""A circuit beside random circuits of its size, on any prompts of its task.

A circuit is found on some prompts, and what it is worth shows on others. And any large part of a
model keeps something, as the model without any large part loses something: so each of the two
measures of :mod:`patchclamp.methods.faithfulness` stands beside the same measure of random circuits
with as many edges into each layer's queries, keys, values and MLP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchclamp.errors import InputError
from patchclamp.methods.edge_attribution import ends
from patchclamp.methods.faithfulness import SEEDS, Checked, check, random_circuit
from patchclamp.methods.path_patching import edge_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from patchclamp.methods.edge_attribution import EdgeScores
    from patchclamp.methods.task import Task

    ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class BesideRandom:
    """A circuit and random ones of its size, each by itself and the model without it.

    Attributes:
        circuit: the circuit.
        random: the random ones.
    """

    circuit: Checked
    random: tuple[Checked, ...]

    @property
    def random_keeps(self) -> float:
        """The largest share of the metric that a random circuit keeps by itself."""
        return max(each.faithfulness for each in self.random)

    @property
    def random_takes(self) -> float:
        """The largest share of the metric that is lost without a random circuit."""
        return max(1 - each.completeness for each in self.random)


def beside_random(
    task: Task, scores: EdgeScores, circuit: Tensor, *, seeds: int = SEEDS
) -> BesideRandom:
    """Measure a circuit, and random ones of its size, exactly. Waits for the model's worker.

    Args:
        task: the pairs and the metric: those that the circuit was found on, or others.
        scores: what the circuit was found by: its graph, and what cut edges carry.
        circuit: Bool[reader, source], its edges.
        seeds: how many random circuits.

    Raises:
        ModelError: when the model has no graph of components.
        InputError: when there is no random circuit to be drawn, or no corrupt prompt where one is
            needed.
        Stopped: when it was stopped.
    """
    if seeds < 1:
        msg = f"A circuit stands beside at least one random circuit, not {seeds}."
        raise InputError(msg)

    def steps(stop: ShouldStop) -> Generator[None, None, BesideRandom]:
        runs = edge_runs(task, scores.how, should_stop=stop)
        clean, corrupt = ends(task, runs, stop)
        each: list[Checked] = []
        drawn = (random_circuit(runs.graph, circuit, seed=seed) for seed in range(seeds))
        for one in (circuit, *drawn):
            for measured in check(task, runs, one, clean=clean, corrupt=corrupt, should_stop=stop):
                last = measured
                yield
            each.append(last)
        return BesideRandom(each[0], tuple(each[1:]))

    job: Callable[[ShouldStop], Any] = steps
    found: BesideRandom = task.engine.queue.submit(job, priority="sweep").result()
    return found
