"""Runs a language model under interventions, computing only what an intervention can have changed.

Three short cuts, each exact and each checked against the plain hooked pass when the engine meets a
model (:mod:`patchclamp.engine.shortcuts`):

- *layers*: the blocks below the lowest one that the stack changes are not run; the residual
  stream entering that block comes from an earlier run.
- *positions*: in a causal model nothing changes before the first touched position; its keys and
  values come from that earlier run.
- *plain blocks*: a block that nothing hooks runs without hook points.

Everything here runs on the model's one worker thread, see :mod:`patchclamp.engine.queue`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.hooks import Frame, compile_stack, touched_layers
from patchclamp.engine.passes import Passes, first_layer, last_layer, leaf, reading
from patchclamp.engine.plan import Plan, compose, difference
from patchclamp.engine.queue import Queue
from patchclamp.engine.shell import Pass
from patchclamp.engine.shortcuts import check_shortcuts
from patchclamp.engine.trace import Trace, TraceStore
from patchclamp.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Sequence

    from torch import Tensor

    from patchclamp.engine.hooks import Lookup, Step
    from patchclamp.engine.passes import Shortcuts
    from patchclamp.engine.plan import Input
    from patchclamp.interventions import Intervention
    from patchclamp.models.language_model import LanguageModel

    Stack = tuple[Intervention, ...]
    ShouldStop = Callable[[], bool]

BUDGET = 2**30
"""Bytes that the engine of one model may keep between runs, and spend on one chunk of a sweep."""

_CHUNK_ROWS = 256  # a chunk of a sweep ends soon enough for interactive work to get in


@dataclass(frozen=True)
class Work:
    """What a run cost.

    Attributes:
        first_layer: the first layer that was computed.
        first_position: the first position that was computed.
        blocks: how many blocks ran.
        positions: on how many positions each of them ran.
        seconds: how long it took.
        way: in words.
    """

    first_layer: int
    first_position: int
    blocks: int
    positions: int
    seconds: float
    way: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run gave.

    Attributes:
        trace: what later runs can build on, and where logits of further positions come from.
        logits: Float[row, vocab], the logits of the rows that were asked for.
        work: what it cost.
    """

    trace: Trace
    logits: Tensor
    work: Work


@dataclass
class Engine:
    """The one engine of a model; see :meth:`of`.

    Attributes:
        model: whose engine it is.
        queue: its one worker.
        store: the runs that it can build on.
        budget: bytes it may keep, and spend on one chunk.
    """

    model: LanguageModel
    budget: int = BUDGET
    queue: Queue = field(init=False)
    store: TraceStore = field(init=False)

    def __post_init__(self) -> None:
        self.queue = Queue(f"patchclamp {self.model.name}")
        self.store = TraceStore(self.budget)
        self._passes: Passes | None = None
        self._version = -1

    @classmethod
    def of(cls, model: LanguageModel) -> Engine:
        """Return the engine of a model: all its sessions share it."""
        with _making:
            if not isinstance(model.engine, Engine):
                model.engine = cls(model)
            return model.engine

    # What a run is ------------------------------------------------------------------------------

    def run(
        self,
        given: Input,
        stack: Stack,
        lookup: Lookup,
        *,
        rows: Sequence[int] = (-1,),
        context: Hashable = None,
        should_stop: ShouldStop | None = None,
        shortcuts: bool = True,
    ) -> Outcome:
        """Run an input under a stack of interventions.

        Args:
            given: the input.
            stack: the interventions; muted ones do nothing.
            lookup: where means, other runs' values and directions come from.
            rows: the positions whose logits are wanted.
            context: whatever else the interventions' effect depends on; runs of another context
                are not built upon.
            should_stop: asked before every block.
            shortcuts: False computes everything anew on hooked blocks: the plain way.

        Raises:
            Stopped: when ``should_stop`` said so.
            InterventionError: when an intervention cannot act on this model.
            BudgetError: when a layer that the stack acts in needs more memory than there is.
        """
        began = time.perf_counter()
        passes, stack = self._ready(), _acting(stack)
        length = len(given.ids)
        self._afford(stack, length)
        wanted = [row % length for row in rows]
        plan = self._plan(given, [stack], context) if shortcuts else Plan()
        if plan.parent is not None and plan.position == length:
            trace = replace(plan.parent, stack=stack)
            way, blocks = "reused", 0
        else:
            result = passes.run(
                given,
                [self.compile(stack, lookup)],
                Pass(stop=self._end([stack]), record=True, should_stop=should_stop),
                plan,
                plain=shortcuts,
            )
            trace = compose(given.ids, stack, plan, result.residual, result.cache)
            if result.logits is not None:
                trace = replace(trace, logits=result.logits[0])
            way = f"from layer {plan.layer}, position {plan.position}" if plan.parent else "in full"
            blocks = result.blocks
        self.store.add(context, trace)
        logits = self.readout(trace, wanted)
        seconds = time.perf_counter() - began
        work = Work(plan.layer, plan.position, blocks, length - plan.position, seconds, way)
        return Outcome(trace, logits, work)

    def sweep(
        self,
        given: Input,
        stacks: Sequence[Stack],
        lookup: Lookup,
        *,
        rows: Sequence[int] = (-1,),
        context: Hashable = None,
        should_stop: ShouldStop | None = None,
    ) -> Generator[tuple[int, Tensor], None, None]:
        """Run one input under many stacks, in batches.

        Yields:
            The index of the first stack of a chunk, and Float[stack, row, vocab], the logits of
            ``rows``. Rows before the first position that any stack of the sweep changes are
            the unchanged run's.

        Raises:
            BudgetError: when one stack alone needs more memory than there is to spend.
            Stopped: when ``should_stop`` said so.
        """
        passes, acting = self._ready(), [_acting(stack) for stack in stacks]
        length = len(given.ids)
        wanted = [row % length for row in rows]
        plan = self._plan(given, acting, context)
        plan = replace(plan, position=min(plan.position, length - 1, *wanted))
        end = self._end(acting)
        size = self._chunk(plan, length, len(wanted) if end else length)
        for begin in range(0, len(acting), size):
            result = passes.run(
                given,
                [self.compile(stack, lookup) for stack in acting[begin : begin + size]],
                Pass(stop=end, record=True, should_stop=should_stop),
                plan,
            )
            if result.logits is not None:
                yield begin, result.logits[:, wanted]
                continue
            final = result.residual[self.model.anatomy.n_layers]
            yield begin, passes.read(final[:, [row - plan.position for row in wanted]])

    def readout(self, trace: Trace, rows: Sequence[int]) -> Tensor:
        """Return Float[row, vocab], the logits of some positions of a finished run."""
        if trace.logits is not None:
            return trace.logits[list(rows)]
        return self._ready().read(trace.residual[-1][list(rows)].unsqueeze(0))[0]

    def capture(
        self,
        given: Input,
        stack: Stack,
        hooks: Sequence[str],
        lookup: Lookup,
        *,
        context: Hashable = None,
        should_stop: ShouldStop | None = None,
    ) -> dict[str, Tensor]:
        """Return what stands at some hook points in a run, after the stack acted.

        Args:
            given: the input.
            stack: the interventions.
            hooks: canonical TransformerLens hook-point names.
            lookup: as in :meth:`run`.
            context: as in :meth:`run`.
            should_stop: as in :meth:`run`.

        Returns:
            For each hook point a tensor without its batch dimension.
        """
        passes, stack = self._ready(), _acting(stack)
        start = first_layer(hooks)
        for iv in stack:  # what it read below has to be read again
            touched = touched_layers(iv, self.model.anatomy)
            if touched and touched[0] < start <= touched[-1]:
                start = max(touched[0], 0)
        plan = Plan()
        if start > 0 and passes.shortcuts.layers:
            parent = self.store.get(context, given.ids, stack)
            if parent is None:
                outcome = self.run(given, stack, lookup, context=context, should_stop=should_stop)
                parent = outcome.trace
            plan = Plan(parent, start)
        taken: dict[str, Tensor] = {}
        steps = [*self.compile(stack, lookup), *(reading(name, taken) for name in hooks)]
        passes.run(given, [steps], Pass(stop=last_layer(hooks), should_stop=should_stop), plan)
        return {name: tensor[0] for name, tensor in taken.items()}

    def capture_many(
        self,
        inputs: Sequence[Input],
        hooks: Sequence[str],
        *,
        should_stop: ShouldStop | None = None,
    ) -> list[dict[str, Tensor]]:
        """Return what stands at some hook points for several inputs without interventions.

        A causal model takes them as one batch, padded on the right, which changes nothing to the
        left of the padding.
        """
        passes = self._ready()
        if not self.model.anatomy.causal and len(inputs) > 1:
            return [
                found
                for one in inputs
                for found in self.capture_many([one], hooks, should_stop=should_stop)
            ]
        longest = max(len(one.ids) for one in inputs)
        padded = torch.tensor([[*one.ids, *([0] * (longest - len(one.ids)))] for one in inputs])
        taken: dict[str, Tensor] = {}
        with torch.no_grad():
            passes.forward(
                padded,
                [[reading(name, taken) for name in hooks]],
                Frame(0, longest, has_bos=True),
                Pass(stop=last_layer(hooks), should_stop=should_stop),
            )
        return [
            {name: _unpadded(name, tensor[index], len(one.ids)) for name, tensor in taken.items()}
            for index, one in enumerate(inputs)
        ]

    def gradients(
        self,
        given: Input,
        stack: Stack,
        hooks: Sequence[str],
        objective: Callable[[Tensor], Tensor],
        lookup: Lookup,
        *,
        rows: Sequence[int] = (-1,),
        should_stop: ShouldStop | None = None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Differentiate a number of the logits by the values at hook points.

        The gradient is of the same tensor that an intervention at that hook point edits.

        Args:
            given: the input.
            stack: the interventions.
            hooks: canonical hook-point names.
            objective: from Float[row, vocab] logits to one number.
            lookup: as in :meth:`run`.
            rows: the positions whose logits the objective takes.
            should_stop: as in :meth:`run`.

        Returns:
            For each hook point its values and gradients, without batch dimension.
        """
        passes = self._ready()
        taken: dict[str, Tensor] = {}
        steps = [*self.compile(_acting(stack), lookup), *(leaf(name, taken) for name in hooks)]
        result = passes.run(given, [steps], Pass(should_stop=should_stop), grad=True)
        assert result.logits is not None  # noqa: S101 (no layer to stop at was given)
        with torch.enable_grad():
            value = objective(result.logits[0, list(rows)])
        # autograd.grad, not backward: no parameter's .grad is touched.
        found = torch.autograd.grad(value, [taken[name] for name in hooks])
        return {
            name: (taken[name].detach()[0], grad[0])
            for name, grad in zip(hooks, found, strict=True)
        }

    @property
    def passes(self) -> Passes:
        """What runs the model, ready."""
        return self._ready()

    @property
    def shortcuts(self) -> Shortcuts:
        """Which short cuts are exact on this model; tries them if nobody has."""
        return self._ready().shortcuts

    def compile(self, stack: Stack, lookup: Lookup) -> list[Step]:
        """Return what a stack does at hook points."""
        return compile_stack(stack, self.model.anatomy, lookup)

    # Inside -------------------------------------------------------------------------------------

    def _ready(self) -> Passes:
        """Make the twins when there are none, or when the weights they share were changed."""
        version = self.model.weights_version
        if self._passes is None or version != self._version:
            self.store.clear()
            passes = Passes(self.model)
            passes.shortcuts = check_shortcuts(self.model, passes)
            self._passes, self._version = passes, version
        return self._passes

    def _plan(self, given: Input, stacks: Sequence[Stack], context: Hashable) -> Plan:
        """Choose the earlier run that leaves the least to compute for all of some stacks."""
        shortcuts = self._ready().shortcuts
        anatomy, length = self.model.anatomy, len(given.ids)
        best, least = Plan(), anatomy.n_layers * length + 1
        if not shortcuts.layers:
            return best
        for trace in self.store.of_input(context, given.ids):
            places = [difference(trace.stack, stack, given, anatomy) for stack in stacks]
            layer = min(layer for layer, _ in places)
            position = min(position for _, position in places)
            if layer < 0:  # the embedding itself is edited
                continue
            apart = shortcuts.positions and trace.keys is not None and self._end(stacks)
            if position < length and not apart:
                position = 0
            cost = (anatomy.n_layers - layer) * (length - position)
            if cost < least:
                best, least = Plan(trace, layer, position), cost
        return best

    def _end(self, stacks: Sequence[Stack]) -> int | None:
        """Return where a pass may end, before the final norm; None when a stack acts after it."""
        anatomy = self.model.anatomy
        touched = [touched_layers(iv, anatomy) for stack in stacks for iv in stack]
        later = any(layers and layers[-1] >= anatomy.n_layers for layers in touched)
        return None if later else anatomy.n_layers

    def _afford(self, stack: Stack, length: int) -> None:
        """Refuse what would end in an out-of-memory kill: hooked attention holds whole patterns."""
        a = self.model.anatomy
        size = 4 * a.n_heads * length**2
        inside = range(a.n_layers)
        if size > self.budget and any(n in inside for iv in stack for n in touched_layers(iv, a)):
            msg = (
                f"At {length:,} tokens the attention of one layer takes {size / 2**20:,.0f} MiB, "
                f"and the budget is {self.budget / 2**20:,.0f} MiB: a layer that an intervention "
                "acts in needs it whole. Use a shorter prompt."
            )
            raise BudgetError(msg)

    def _chunk(self, plan: Plan, length: int, n_logits: int) -> int:
        """Return how many stacks of a sweep fit into one batch."""
        a = self.model.anatomy
        n_rows = length - plan.position
        wide = max(a.d_mlp, a.d_model, a.n_heads * length)
        keys = 2 * (a.n_layers - plan.layer) * a.n_kv_heads * a.d_head * length
        per_item = 4 * (8 * n_rows * wide + 2 * keys + 3 * n_logits * a.d_vocab)
        if per_item > self.budget:
            msg = (
                f"One run of this sweep needs about {per_item / 2**20:,.0f} MiB, and the budget is "
                f"{self.budget / 2**20:,.0f} MiB: use a shorter prompt, fewer positions or a "
                "larger budget."
            )
            raise BudgetError(msg)
        return max(1, min(self.budget // per_item, _CHUNK_ROWS // n_rows))


def _unpadded(name: str, value: Tensor, length: int) -> Tensor:
    """Leave out the padding on the right; a pattern is [head, destination, source]."""
    if name.endswith(("hook_pattern", "hook_attn_scores")):
        return value[:, :length, :length]
    return value[:length]


def _acting(stack: Stack) -> Stack:
    return tuple(iv for iv in stack if not iv.muted)


_making = threading.Lock()
