"""Activation patching: which activations carry what makes the clean prompt differ from the corrupt.

One activation of one run is put into the other, and the metric measured (interchange intervention:
Vig et al. 2020; causal tracing: Meng et al. 2022; Heimersheim and Nanda, "How to use and interpret
activation patching", 2024):

- *denoise*: a clean activation into the corrupt run: is it enough to bring the answer back?
- *noise*: a corrupt activation into the clean run: is it needed?

It is done for every layer at every position (the residual stream entering a block, what attention
or the MLP writes), or for every head at all positions. Every value is exact, a run of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from patchclamp.engine.batch import Spot
from patchclamp.errors import InputError
from patchclamp.methods.levels import differing_positions, level, levels
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from patchclamp.engine.batch import Cost, Edit
    from patchclamp.methods.task import Side, Task

    ShouldStop = Callable[[], bool]

Direction = Literal["denoise", "noise"]
Over = Literal["resid_pre", "attn", "mlp", "head"]


@dataclass(frozen=True, eq=False)
class Patched:
    """The metric after patching, as far as it is measured; averaged over the pairs.

    Attributes:
        direction: what was put into what.
        over: what was patched.
        clean: the metric on the clean prompts, under the task's stack.
        corrupt: the metric on the corrupt prompts.
        values: Float[layer, column], the metric with that one activation patched; columns are
            positions, or heads. NaN where it was not measured yet.
        done: how many are measured on all pairs.
        total: how many there are.
    """

    direction: Direction
    over: Over
    clean: float
    corrupt: float
    values: Tensor
    done: int
    total: int

    @property
    def share(self) -> Tensor:
        """Float[layer, column]: 0 is the corrupt prompt's metric, 1 the clean one's.

        NaN everywhere where these two do not differ.
        """
        apart = self.clean - self.corrupt
        return (self.values - self.corrupt) / (apart or torch.nan)


def activation_patching(
    task: Task,
    direction: Direction,
    over: Over,
    *,
    should_stop: ShouldStop | None = None,
) -> Generator[Patched, None, None]:
    """Patch every activation of a kind, one by one; see this module.

    Runs on the model's worker; the last layers, which cost least, come first. In a causal model
    nothing differs before the first token that does, so that there nothing is run.

    Args:
        task: the pairs and the metric; the clean run is under its stack.
        direction: "denoise" or "noise".
        over: "resid_pre", "attn" or "mlp" by position, "head" at all positions.
        should_stop: asked before every block.

    Yields:
        What is measured so far, after each chunk; the last one is whole.

    Raises:
        InputError: when there are no corrupt prompts, or no such direction or activation.
        AddressError: when the model has no such activation.
        MetricError: when the metric is no number with something patched; what was measured before
            was yielded.
        Stopped: when ``should_stop`` said so.
    """
    for asked, choices in ((direction, get_args(Direction)), (over, get_args(Over))):
        if asked not in choices:
            msg = f"Activation patching knows {', '.join(choices)}, not {asked!r}."
            raise InputError(msg)
    side: Side = "corrupt" if direction == "denoise" else "clean"
    other: Side = "clean" if direction == "denoise" else "corrupt"
    edits = patching_edits(task, over)
    hooks = list(dict.fromkeys(spot.hook for (spot,) in edits.values()))
    clean = level(task, side="clean", should_stop=should_stop)
    corrupt = level(task, side="corrupt", should_stop=should_stop)
    values = task.base(other).capture(hooks, should_stop)
    anatomy = task.engine.model.anatomy
    size = (anatomy.n_layers, anatomy.n_heads if over == "head" else task.length)
    unmoved = clean if side == "clean" else corrupt
    start = torch.full(size, unmoved)
    rows, columns = (torch.tensor(axis) for axis in zip(*edits, strict=True))
    start[rows, columns] = torch.nan
    known = start.numel() - len(edits)
    for done, found in levels(
        task, list(edits.values()), values, side=side, should_stop=should_stop
    ):
        now = start.clone()
        now[rows, columns] = found
        yield Patched(direction, over, clean, corrupt, now, known + done, now.numel())


def patching_edits(task: Task, over: Over) -> dict[tuple[int, int], Edit]:
    """Return the runs of :func:`activation_patching` by (layer, column).

    Raises:
        AddressError: when the model has no such activation.
    """
    anatomy = task.engine.model.anatomy
    places = differing_positions(task)
    edits: dict[tuple[int, int], Edit] = {}
    for layer in range(anatomy.n_layers):
        if over == "head":
            for head in range(anatomy.n_heads):
                site = Site("head", layer, head, "z")
                edits[layer, head] = (Spot.of(site, anatomy, places),)
            continue
        site = Site(over, layer)
        edits |= {(layer, place): (Spot.of(site, anatomy, (place,)),) for place in places}
    return edits


def patching_cost(task: Task, over: Over) -> Cost:
    """Say what :func:`activation_patching` takes; nothing is run. On the model's worker.

    Raises:
        InputError: when there are no corrupt prompts.
        BudgetError: when one run alone needs more memory than there is.
    """
    return task.base("corrupt").cost(list(patching_edits(task, over).values()), task.rows)
