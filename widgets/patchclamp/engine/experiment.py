"""One input under one stack, on one model: what a method works on, and what comes out of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import torch

from patchclamp.engine.attention import Attention
from patchclamp.engine.hooks import first_position, reading
from patchclamp.errors import AddressError, BudgetError, InputError, ModelError
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Sequence

    from torch import Tensor

    from patchclamp.engine.engine import Engine, Outcome, Work
    from patchclamp.engine.plan import Input, Stack
    from patchclamp.engine.surroundings import Surroundings

    ShouldStop = Callable[[], bool]

T = TypeVar("T")
_ROWS_AT_ONCE = 64
_KEPT_LOGITS = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Experiment:
    """One input under one stack of interventions.

    Its methods compute where they are called, so they belong on the model's worker: hand them to
    ``engine.queue.submit``. :class:`Run` does that by itself.

    Attributes:
        engine: what runs the model.
        given: the input.
        stack: the interventions.
        surroundings: reference set, contrast input and directions.
        context: what else the effect of the stack depends on.
    """

    engine: Engine
    given: Input
    stack: Stack
    surroundings: Surroundings
    context: Hashable = None

    @property
    def length(self) -> int:
        """How many tokens the input has."""
        return len(self.given.ids)

    def under(self, stack: Stack) -> Experiment:
        """Return the same input under another stack."""
        return replace(self, stack=stack)

    def outcome(
        self, rows: Sequence[int] = (-1,), should_stop: ShouldStop | None = None
    ) -> Outcome:
        """Run it; see :meth:`patchclamp.engine.engine.Engine.run`."""
        return self.engine.run(
            self.given,
            self.stack,
            self.surroundings,
            rows=rows,
            context=self.context,
            should_stop=should_stop,
        )

    def sweep(
        self,
        stacks: Sequence[Stack],
        rows: Sequence[int] = (-1,),
        should_stop: ShouldStop | None = None,
    ) -> Generator[tuple[int, Tensor], None, None]:
        """Run the input under many stacks; see :meth:`patchclamp.engine.engine.Engine.sweep`."""
        return self.engine.sweep(
            self.given,
            stacks,
            self.surroundings,
            rows=rows,
            context=self.context,
            should_stop=should_stop,
        )

    def capture(
        self, hooks: Sequence[str], should_stop: ShouldStop | None = None
    ) -> dict[str, Tensor]:
        """Return what stands at hook points; see :class:`patchclamp.engine.engine.Engine`."""
        return self.engine.capture(
            self.given,
            self.stack,
            hooks,
            self.surroundings,
            context=self.context,
            should_stop=should_stop,
        )

    def gradients(
        self,
        hooks: Sequence[str],
        objective: Callable[[Tensor], Tensor],
        should_stop: ShouldStop | None = None,
        *,
        rows: Sequence[int] = (-1,),
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return values and gradients; see :meth:`patchclamp.engine.engine.Engine.gradients`."""
        return self.engine.gradients(
            self.given,
            self.stack,
            hooks,
            objective,
            self.surroundings,
            rows=rows,
            should_stop=should_stop,
        )


def measure(experiment: Experiment, site: Site, should_stop: ShouldStop | None = None) -> Tensor:
    """Return the values at a site in an experiment, on the model's worker; see Run.activation."""
    anatomy = experiment.engine.model.anatomy
    anatomy.check(site, experiment.length)
    hook, take = reading(site, anatomy, experiment.surroundings)
    values = take(experiment.capture([hook], should_stop=should_stop)[hook])
    if site.positions.is_default:
        return values
    length, has_bos = experiment.length, experiment.given.has_bos
    return values[site.positions.indices(0, length, length, has_bos)]


@dataclass(frozen=True, eq=False)
class Run:
    """What came out of an experiment; computed when asked, on the model's worker, and kept.

    It is of the weights that the model had when it was made: what was computed stays, and what was
    not is refused (ModelError) once they have changed.

    Attributes:
        experiment: what was run.
    """

    experiment: Experiment
    _kept: dict[str, Outcome] = field(default_factory=dict, repr=False)
    _logits: list[Tensor] = field(default_factory=list, repr=False)
    _weights: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_weights", self.experiment.engine.model.weights_version)

    def compute(self, should_stop: ShouldStop | None = None) -> Outcome:
        """Run it if nobody has, waiting for the worker; a cell's interrupt cancels it.

        Raises:
            Stopped: when it was stopped.
        """
        if "outcome" not in self._kept:

            def job(cancelled: ShouldStop) -> Outcome:
                def either() -> bool:
                    return cancelled() or (should_stop is not None and should_stop())

                return self.experiment.outcome(should_stop=either)

            self._kept["outcome"] = self._wait(job)
        return self._kept["outcome"]

    @property
    def work(self) -> Work:
        """What it cost."""
        return self.compute().work

    @property
    def logits(self) -> Tensor:
        """Float[pos, vocab], the logits at every position.

        Raises:
            BudgetError: when they do not fit into the engine's memory budget; ask for
                :meth:`rows` instead.
        """
        # No cached_property: until Python 3.12 it holds one lock for all runs, and this waits for
        # the worker, which may be reading another run's.
        if self._logits:
            return self._logits[0]
        size = 4 * self.experiment.length * self.experiment.engine.model.anatomy.d_vocab
        if size > self.experiment.engine.budget:
            msg = (
                f"The logits of {self.experiment.length} positions take {size / 2**20:,.0f} MiB, "
                "more than the engine's budget: ask for the positions you need with "
                "run.rows([...])."
            )
            raise BudgetError(msg)
        self._logits[:] = [self._read(range(self.experiment.length))]
        return self._logits[0]

    def rows(self, positions: Sequence[int]) -> Tensor:
        """Return Float[row, vocab], the logits at some positions.

        Args:
            positions: which; negative ones count from the end.

        Raises:
            InputError: when the input has no such position.
        """
        length = self.experiment.length
        for position in positions:
            if not -length <= position < length:
                msg = f"Position {position} is outside the input (0 to {length - 1})."
                raise InputError(msg)
        wanted = [p % length for p in positions]
        if self._logits:
            return self._logits[0][wanted]
        if wanted == [length - 1]:
            return self.compute().logits
        size = 4 * length * self.experiment.engine.model.anatomy.d_vocab
        if size <= _KEPT_LOGITS and len(wanted) * 2 > length:
            return self.logits[wanted]
        return self._read(wanted)

    def log_probs(self, position: int = -1) -> Tensor:
        """Return Float[vocab], the log-probabilities of the token after a position, in nats."""
        return self.rows([position])[0].float().log_softmax(-1)

    def top(self, count: int = 10, position: int = -1) -> list[tuple[int, str, float]]:
        """Return the likeliest next tokens: id, text, probability."""
        model = self.experiment.engine.model
        best = self.log_probs(position).exp().topk(min(count, model.anatomy.d_vocab))
        return [
            (int(i), model.token_text(int(i)), float(p))
            for p, i in zip(best.values, best.indices, strict=True)
        ]

    def activation(self, site: str | Site) -> Tensor:
        """Return the values at a site, at the positions of its address (at all of them without).

        Args:
            site: an address, ``"L12.N304"`` or ``"L5.H3@-1"``.

        Returns:
            Float[pos] for a neuron, Float[pos, d] for a head, a component or a residual stream.

        Raises:
            AddressError: when the model has no such site.
        """
        where = Site.parse(site) if isinstance(site, str) else site
        return self._wait(lambda stop: measure(self.experiment, where, stop))

    def pattern(self, head: str | Site) -> Tensor:
        """Return what a head attends to, after the stack's knock-outs.

        Args:
            head: its address, ``"L5.H3"``; with positions, ``"L5.H3@-1"``, only those destinations.

        Returns:
            Float[dest, source] float32: how much each position (row) reads of each (column).

        Raises:
            AddressError: when it is no head of the model.
            BudgetError: when the layer has to be taken whole, and that is more than the budget.
        """
        where = Site.parse(head) if isinstance(head, str) else head
        if where.kind != "head" or where.part != "z":
            msg = f"{where} is no head, so it has no pattern: give an address such as L5.H3."
            raise AddressError(msg)

        def job(_stop: ShouldStop) -> Tensor:
            experiment = self.experiment
            length = experiment.length
            experiment.engine.model.anatomy.check(where, length)
            found = Attention(experiment).rows(where.layer or 0, where.index or 0)
            if where.positions.is_default:
                return found
            return found[where.positions.indices(0, length, length, experiment.given.has_bos)]

        return self._wait(job)

    def unchanged_before(self, other: Run) -> int:
        """Return the first position at which this run can differ from another of the same input."""
        mine, theirs = self.experiment, other.experiment
        if (mine.given, mine.context) != (theirs.given, theirs.context):
            return 0
        if not mine.engine.model.anatomy.causal:
            return 0
        length = mine.length
        differing = {iv for iv in (*mine.stack, *theirs.stack) if not iv.muted}
        places = [first_position(iv, length, mine.given.has_bos) for iv in differing]
        return min((p for p in places if p is not None), default=length)

    def _read(self, positions: Sequence[int]) -> Tensor:
        self.compute()

        def job(stop: ShouldStop) -> Tensor:
            del stop  # each part is short
            trace = self._kept["outcome"].trace
            parts = [
                self.experiment.engine.readout(trace, positions[i : i + _ROWS_AT_ONCE])
                for i in range(0, len(positions), _ROWS_AT_ONCE)
            ]
            return torch.cat(parts)

        return self._wait(job)

    def _wait(self, job: Callable[[ShouldStop], T]) -> T:
        if self.experiment.engine.model.weights_version != self._weights:
            msg = (
                "The model's weights have changed since this run was asked for, and it was not "
                "computed so far: take session.baseline or session.current again."
            )
            raise ModelError(msg)
        return self.experiment.engine.queue.submit(job).result()
