"""Prompt pairs and what is measured on them: what circuits are searched for with.

A pair is a clean prompt and a corrupt one of the same length, in which what matters for the answer
is another. Every effect here is of one metric, averaged over the pairs. What is put in the place of
a component's output (a *replacement*) is

- *mean*: its mean over the reference set, without position 0 (mean ablation),
- *zero*: nothing,
- *resample*: its value at one random position of the reference set,
- *corrupt*: its value at the same position of the pair's corrupt prompt (interchange intervention,
  activation patching; Vig et al. 2020, Meng et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch

from patchclamp.engine.batch import Batch
from patchclamp.engine.surroundings import Surroundings
from patchclamp.errors import InputError
from patchclamp.methods.metric import Measure, bind

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from torch import Tensor

    from patchclamp.engine.engine import Engine
    from patchclamp.engine.plan import Input, Stack
    from patchclamp.engine.surroundings import Reference
    from patchclamp.methods.metric import Metric

    ShouldStop = Callable[[], bool]

Replacement = Literal["mean", "zero", "resample", "corrupt"]
Side = Literal["clean", "corrupt"]

REPLACEMENTS: tuple[Replacement, ...] = get_args(Replacement)


@dataclass(frozen=True, eq=False)
class Task:
    """Prompt pairs of one length, on one model, and one metric.

    Its methods compute where they are called, so they belong on the model's worker; what they
    compute is kept.

    Attributes:
        engine: what runs the model.
        clean: the clean inputs.
        corrupt: the corrupt inputs, as long as the clean ones; None where there are none.
        metric: what is measured.
        tokens: each pair's, as the metric wants them; none of a pair: its likeliest next token.
        reference: what means are taken over.
        stack: what acts besides, in every clean run.
        directions: vectors by name, for the stack.
        why_no_corrupt: why there are no corrupt inputs, in a sentence.
        contrast: what the stack takes values from where there are no corrupt inputs: a contrast of
            another length, say.
        context: what else results depend on; tasks that are equal in all of this measure the same.
    """

    engine: Engine
    clean: tuple[Input, ...]
    corrupt: tuple[Input, ...] | None
    metric: Metric
    tokens: tuple[tuple[int, ...], ...]
    reference: Reference
    stack: Stack = ()
    directions: Mapping[str, Tensor] = field(default_factory=dict)
    why_no_corrupt: str = "There is no corrupt prompt: set session.contrast."
    context: Hashable = None
    contrast: Input | None = None
    _kept: dict[Hashable, Batch | Measure] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.clean:
            msg = "A task has at least one prompt."
            raise InputError(msg)
        for one, other in zip(self.clean, self.corrupt or (), strict=False):
            if len(one.ids) != len(other.ids):
                msg = (
                    f"A clean prompt has {len(one.ids)} tokens and its corrupt one "
                    f"{len(other.ids)}: activations are patched position by position, so both "
                    "need the same length."
                )
                raise InputError(msg)
        if self.corrupt is not None and len(self.corrupt) != len(self.clean):
            msg = (
                f"There are {len(self.clean)} clean prompts and {len(self.corrupt)} corrupt ones; "
                "each needs its own."
            )
            raise InputError(msg)

    @property
    def length(self) -> int:
        """How many tokens each prompt has."""
        return len(self.clean[0].ids)

    @property
    def n_pairs(self) -> int:
        """How many pairs there are."""
        return len(self.clean)

    @property
    def rows(self) -> tuple[int, ...]:
        """The positions whose logits the metric needs."""
        return self.metric.rows(self.length)

    def without_stack(self) -> Task:
        """Return the same task on the model as it is."""
        return self.under(())

    def under(self, stack: Stack) -> Task:
        """Return the same task under another stack."""
        if stack == self.stack:
            return self
        return replace(self, stack=stack, _kept={})

    def base(self, side: Side = "clean", *, stack: bool = True) -> Batch:
        """Return the prompts of one side as a batch.

        Args:
            side: which.
            stack: under the task's stack; only the clean side can be.

        Raises:
            InputError: when there are no corrupt prompts.
        """
        acting = self.stack if stack and side == "clean" else ()
        key = (side, acting)
        found = self._kept.get(key)
        if not isinstance(found, Batch):
            corrupt = self.corrupt or (self.contrast,) * self.n_pairs
            lookups = [
                Surroundings(self.engine, self.reference, one, self.directions) for one in corrupt
            ]
            inputs = self.clean if side == "clean" else self._corrupt()
            found = self._kept[key] = Batch(self.engine, inputs, lookups, acting)
        return found

    def measure(self, should_stop: ShouldStop | None = None) -> Measure:
        """Return the metric bound to the clean prompts; what it needs to know of them is run.

        Raises:
            InputError: when the prompts are too short for the metric.
        """
        found = self._kept.get("measure")
        if not isinstance(found, Measure):
            found = self._kept["measure"] = bind(
                self.metric,
                self.engine.model,
                self.clean,
                baseline=lambda: self.base(stack=False).logits((-1,), should_stop),
                tokens=self.tokens,
            )
        return found

    def score(self, logits: Tensor, items: Sequence[int] | None = None) -> Tensor:
        """Measure Float[item, row, vocab] logits of the rows that the metric needs.

        Args:
            logits: what to measure.
            items: which pair each item is of; all in order without.

        Returns:
            Float[item].

        Raises:
            MetricError: when the metric gives no finite number.
        """
        measure = self.measure()
        return (measure if items is None else measure.at(items)).finite(logits)

    def replaced(
        self,
        hooks: Sequence[str],
        how: Replacement,
        *,
        seed: int = 0,
        should_stop: ShouldStop | None = None,
    ) -> dict[str, Tensor]:
        """Return what is put in the place of what stands at hook points.

        Args:
            hooks: canonical hook-point names.
            how: the replacement; see this module.
            seed: of what is resampled.
            should_stop: asked before every block.

        Returns:
            By hook point Float[item, pos, ...], the first two dimensions 1 where it is the same for
            all pairs and positions.

        Raises:
            InputError: when there are no corrupt prompts, or no such replacement.
        """
        if how not in REPLACEMENTS:
            msg = f"A replacement is one of {', '.join(REPLACEMENTS)}, not {how!r}."
            raise InputError(msg)
        if how == "corrupt":
            return self.base("corrupt").capture(hooks, should_stop)
        if how == "resample":
            drawn = self.reference.positions(hooks, seed)
            return {hook: value[None, None] for hook, value in drawn.items()}
        for _ in self.reference.measure(hooks, should_stop):
            pass
        means = {hook: self.reference.statistics(hook).mean[None, None] for hook in hooks}
        zero = how == "zero"
        return {hook: torch.zeros_like(mean) if zero else mean for hook, mean in means.items()}

    def _corrupt(self) -> tuple[Input, ...]:
        if self.corrupt is None:
            raise InputError(self.why_no_corrupt)
        return self.corrupt
