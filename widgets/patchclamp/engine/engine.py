"""Runs a language model under interventions, computing only what an intervention can have changed.

Three short cuts, each exact and each checked against the plain hooked pass when the engine meets a
model (:class:`Shortcuts` says which hold and why others do not):

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
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from patchclamp.engine.hooks import Frame, Step, compile_stack, first_position, touched_layers
from patchclamp.engine.queue import Queue
from patchclamp.engine.shell import Pass, Shell
from patchclamp.engine.trace import Trace, TraceStore
from patchclamp.engine.twin import Twins
from patchclamp.errors import BudgetError, InterventionError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterator, Sequence

    from torch import Tensor

    from patchclamp.engine.experiment import Experiment
    from patchclamp.engine.hooks import Lookup
    from patchclamp.interventions import Intervention
    from patchclamp.models.language_model import LanguageModel

    Stack = tuple[Intervention, ...]
    ShouldStop = Callable[[], bool]

BUDGET = 2**30
"""Bytes that the engine of one model may keep between runs, and spend on one chunk of a sweep."""

_EXACT = 1e-5
_CHUNK_ROWS = 256  # a chunk of a sweep ends soon enough for interactive work to get in


@dataclass(frozen=True)
class Input:
    """What a model is run on.

    Attributes:
        ids: the token ids.
        has_bos: whether position 0 is a beginning-of-sequence token.
    """

    ids: tuple[int, ...]
    has_bos: bool


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


@dataclass(frozen=True)
class Shortcuts:
    """Which short cuts are exact on a model.

    Attributes:
        layers: starting from a cached residual stream.
        positions: reusing keys and values.
        plain: running blocks that nothing hooks without hook points.
        reasons: a sentence for each that is not taken.
    """

    layers: bool
    positions: bool
    plain: bool
    reasons: tuple[str, ...] = ()


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
class _Result:
    logits: Tensor | None
    residual: dict[int, Tensor]
    cache: DynamicCache | None
    blocks: int


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
        self._twins: Twins | None = None
        self._version = -1
        self._shells: dict[str, Shell] = {}
        self._shortcuts: Shortcuts | None = None

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
        """
        began = time.perf_counter()
        self._prepare()
        stack = tuple(iv for iv in stack if not iv.muted)
        length = len(given.ids)
        wanted = [row % length for row in rows]
        parent, start, first = self._plan(given, [stack], context) if shortcuts else (None, 0, 0)
        if parent is not None and first == length:
            trace = replace(parent, stack=stack)
            self.store.add(context, trace)
            work = Work(start, first, 0, 0, time.perf_counter() - began, "reused")
            return Outcome(trace, self.readout(trace, wanted), work)
        at_the_end = self._edits_readout(stack)
        result = self._pass(
            given,
            [self._compile(stack, lookup)],
            start=start,
            first=first,
            parent=parent,
            stop=None if at_the_end else self.model.anatomy.n_layers,
            record=True,
            should_stop=should_stop,
            plain=shortcuts,
        )
        trace = _compose(
            given.ids, stack, parent, start, first, result, self.model.anatomy.n_layers
        )
        if result.logits is not None:
            trace = replace(trace, logits=result.logits[0])
        self.store.add(context, trace)
        logits = self.readout(trace, wanted)
        way = "full pass" if parent is None else f"from layer {start}, position {first}"
        work = Work(start, first, result.blocks, length - first, time.perf_counter() - began, way)
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
        self._prepare()
        acting = [tuple(iv for iv in stack if not iv.muted) for stack in stacks]
        length = len(given.ids)
        wanted = [row % length for row in rows]
        parent, start, first = self._plan(given, acting, context)
        first = min(first, length - 1, *wanted)
        at_the_end = any(self._edits_readout(stack) for stack in acting)
        size = self._chunk(start, length - first, length, length if at_the_end else len(wanted))
        for begin in range(0, len(acting), size):
            chunk = acting[begin : begin + size]
            result = self._pass(
                given,
                [self._compile(stack, lookup) for stack in chunk],
                start=min(start, self.model.anatomy.n_layers),
                first=first,
                parent=parent,
                stop=None if at_the_end else self.model.anatomy.n_layers,
                record=True,
                should_stop=should_stop,
            )
            if result.logits is not None:
                yield begin, result.logits[:, wanted]
                continue
            final = result.residual[self.model.anatomy.n_layers]
            yield begin, self._read(final[:, [row - first for row in wanted]])

    def readout(self, trace: Trace, rows: Sequence[int]) -> Tensor:
        """Return Float[row, vocab], the logits of some positions of a finished run."""
        self._prepare()
        if trace.logits is not None:
            return trace.logits[list(rows)]
        return self._read(trace.residual[-1][list(rows)].unsqueeze(0))[0]

    def _read(self, final: Tensor) -> Tensor:
        """Return Float[batch, row, vocab] logits of Float[batch, row, d_model] residual streams."""
        shell = self._shells["plain" if self.shortcuts.plain else "hooked"]
        ids = torch.zeros(final.shape[:2], dtype=torch.long, device=final.device)  # any will do
        with torch.no_grad():
            logits = shell.run(ids, Pass(shell.blocks, start=len(shell.blocks), inject=final))
        assert logits is not None  # noqa: S101 (no layer to stop at was given)
        return logits

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
        self._prepare()
        stack = tuple(iv for iv in stack if not iv.muted)
        layers = [_layer_of(name) for name in hooks]
        start = max(min(layers), 0)
        for iv in stack:  # what it read below has to be read again
            touched = touched_layers(iv, self.model.anatomy)
            if touched and touched[0] < start <= touched[-1]:
                start = max(touched[0], 0)
        parent = None
        if start > 0 and self.shortcuts.layers:
            parent = self.store.get(context, given.ids, stack)
            if parent is None:
                parent = self.run(
                    given, stack, lookup, context=context, should_stop=should_stop
                ).trace
        taken: dict[str, Tensor] = {}
        steps = [*self._compile(stack, lookup), *(_reader(name, taken) for name in hooks)]
        self._pass(
            given,
            [steps],
            start=start if parent is not None else 0,
            first=0,
            parent=parent,
            stop=max(layers) + 1,
            should_stop=should_stop,
        )
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
        self._prepare()
        if not self.model.anatomy.causal:
            return [self._capture_alone(i, hooks, should_stop) for i in inputs]
        longest = max(len(i.ids) for i in inputs)
        padded = torch.tensor([[*i.ids, *([0] * (longest - len(i.ids)))] for i in inputs])
        taken: dict[str, Tensor] = {}
        shell = self._shells["hooked"]
        last = max(_layer_of(name) for name in hooks) + 1
        now = Pass(shell.blocks, stop=last, should_stop=should_stop)
        frame = Frame(0, longest, has_bos=True)
        with (
            torch.no_grad(),
            self._hooked([[_reader(name, taken) for name in hooks]], frame, 0, last),
        ):
            shell.run(padded.to(self.model.device), now)
        return [
            {name: tensor[index, : len(one.ids)] for name, tensor in taken.items()}
            for index, one in enumerate(inputs)
        ]

    def _capture_alone(
        self, given: Input, hooks: Sequence[str], should_stop: ShouldStop | None
    ) -> dict[str, Tensor]:
        taken: dict[str, Tensor] = {}
        steps = [_reader(name, taken) for name in hooks]
        stop = max(_layer_of(name) for name in hooks) + 1
        self._pass(
            given, [steps], start=0, first=0, parent=None, stop=stop, should_stop=should_stop
        )
        return {name: tensor[0] for name, tensor in taken.items()}

    def stream(
        self, experiments: Sequence[Experiment], traces: Sequence[Trace], *, use_cache: bool = True
    ) -> Stream:
        """Return what continues several runs of one input, one token of each at a time."""
        self._prepare()
        cached = use_cache and self.shortcuts.positions and all(t.keys for t in traces)
        return Stream(self, experiments, traces if cached else None)

    def gradients(
        self,
        given: Input,
        stack: Stack,
        hooks: Sequence[str],
        objective: Callable[[Tensor], Tensor],
        lookup: Lookup,
        *,
        should_stop: ShouldStop | None = None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Differentiate a number of the last position's logits by the values at hook points.

        The gradient is of the same tensor that an intervention at that hook point edits.

        Args:
            given: the input.
            stack: the interventions.
            hooks: canonical hook-point names.
            objective: from Float[vocab] logits to one number.
            lookup: as in :meth:`run`.
            should_stop: as in :meth:`run`.

        Returns:
            For each hook point its values and gradients, without batch dimension.
        """
        self._prepare()
        stack = tuple(iv for iv in stack if not iv.muted)
        taken: dict[str, Tensor] = {}

        def leaf(name: str) -> Step:
            def apply(tensor: Tensor, _frame: Frame) -> Tensor | None:
                # Parameters may be frozen: the values themselves ask for the gradient.
                kept = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
                taken[name] = kept
                return kept

            return Step(name, apply)

        steps = [*self._compile(stack, lookup), *(leaf(name) for name in hooks)]
        with torch.enable_grad():
            result = self._pass(
                given,
                [steps],
                start=0,
                first=0,
                parent=None,
                should_stop=should_stop,
                grad=True,
            )
            assert result.logits is not None  # noqa: S101
            value = objective(result.logits[0, -1])
            # autograd.grad, not backward: no parameter's .grad is touched.
            found = torch.autograd.grad(value, [taken[name] for name in hooks])
        return {
            name: (taken[name].detach()[0], grad[0])
            for name, grad in zip(hooks, found, strict=True)
        }

    def module(self, path: str) -> torch.nn.Module:
        """Return a component of the hooked twin by its TransformerLens path."""
        self._prepare()
        found: Any = self._twins.bridge if self._twins is not None else None
        for part in path.split("."):
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        return found  # type: ignore[no-any-return]

    @property
    def shortcuts(self) -> Shortcuts:
        """Which short cuts are exact on this model; known once it ran."""
        if self._shortcuts is None:
            self._prepare()
        assert self._shortcuts is not None  # noqa: S101
        return self._shortcuts

    # How it runs --------------------------------------------------------------------------------

    def _prepare(self) -> None:
        version = self.model.weights_version
        if self._twins is not None and version == self._version:
            return
        self.store.clear()
        self._version = version
        twins = Twins(self.model)
        self._twins = twins
        self._shells = {
            "hooked": Shell(twins.hooked, twins.block_path),
            "plain": Shell(twins.plain, twins.block_path),
        }
        self._shortcuts = self._check(twins)

    def _plan(
        self, given: Input, stacks: Sequence[Stack], context: Hashable
    ) -> tuple[Trace | None, int, int]:
        """Choose the earlier run to build on, the first layer and the first position to compute."""
        length = len(given.ids)
        best: tuple[int, Trace | None, int, int] = (
            self.model.anatomy.n_layers * length + 1,
            None,
            0,
            0,
        )
        if not self.shortcuts.layers:
            return None, 0, 0
        for trace in self.store.of_input(context, given.ids):
            pairs = [_difference(trace.stack, stack, given, self.model) for stack in stacks]
            start = min(layer for layer, _ in pairs)
            first = min(position for _, position in pairs)
            if start < 0:  # the embedding itself is edited
                continue
            whole = not (self.shortcuts.positions and trace.keys) or any(
                map(self._edits_readout, stacks)
            )
            if whole and first < length:
                first = 0
            cost = (self.model.anatomy.n_layers - start) * (length - first)
            if cost < best[0]:
                best = (cost, trace, start, first)
        return best[1:]

    def _edits_readout(self, stack: Stack) -> bool:
        """Say whether a stack changes what happens after the last block."""
        anatomy = self.model.anatomy
        return any(touched_layers(iv, anatomy)[-1:] == (anatomy.n_layers,) for iv in stack)

    def _compile(self, stack: Stack, lookup: Lookup) -> list[Step]:
        return compile_stack(stack, self.model.anatomy, lookup)

    def _chunk(self, start: int, n_rows: int, length: int, n_logits: int) -> int:
        a = self.model.anatomy
        wide = max(a.d_mlp, a.d_model, a.n_heads * length)
        keys = 2 * (a.n_layers - start) * a.n_kv_heads * a.d_head * length
        per_item = 4 * (8 * n_rows * wide + 2 * keys + 3 * n_logits * a.d_vocab)
        if per_item > self.budget:
            msg = (
                f"One run of this sweep needs about {per_item / 2**20:,.0f} MiB, and the budget is "
                f"{self.budget / 2**20:,.0f} MiB: use a shorter prompt, fewer positions or a larger budget."
            )
            raise BudgetError(msg)
        return max(1, min(self.budget // per_item, _CHUNK_ROWS // n_rows))

    def _pass(
        self,
        given: Input,
        items: Sequence[Sequence[Step]],
        *,
        start: int,
        first: int,
        parent: Trace | None,
        stop: int | None = None,
        record: bool = False,
        should_stop: ShouldStop | None = None,
        plain: bool = True,
        grad: bool = False,
    ) -> _Result:
        """Run blocks from ``start`` on positions from ``first``, one batch item for each list of steps."""
        device = self.model.device
        length, batch = len(given.ids), len(items)
        ids = torch.tensor(given.ids[first:], device=device).expand(batch, -1)
        start = start if parent is not None else 0
        shell, blocks = self._choose(items, start, plain=plain)
        inject = None
        if parent is not None:
            inject = parent.residual[start][first:].unsqueeze(0).expand(batch, -1, -1)
        cache = None
        if not grad and (self._shortcuts is None or self._shortcuts.positions):
            cache = _cache(parent, first, batch)
        now = Pass(
            blocks,
            start=start,
            inject=inject,
            stop=stop,
            record=record,
            should_stop=should_stop,
        )
        frame = Frame(first, length, has_bos=given.has_bos)
        with torch.set_grad_enabled(grad), self._hooked(items, frame, now.start, stop):
            logits = shell.run(ids, now, cache=cache, first_position=first)
        return _Result(logits, now.residual, cache, now.computed)

    def continued(
        self,
        ids: Tensor,
        items: Sequence[Sequence[Step]],
        *,
        frame: Frame,
        cache: DynamicCache | None,
        should_stop: ShouldStop | None = None,
    ) -> Tensor:
        """Run all blocks on new positions after those in ``cache``.

        Args:
            ids: LongTensor[run, row].
            items: the steps of each run.
            frame: which positions the rows are.
            cache: keys and values of the earlier positions, which grows by the new ones.
            should_stop: asked before every block.

        Returns:
            Float[run, row, vocab].
        """
        shell, blocks = self._choose(items, 0, plain=True)
        now = Pass(blocks, should_stop=should_stop)
        with torch.no_grad(), self._hooked(items, frame, 0, None):
            logits = shell.run(
                ids.to(self.model.device), now, cache=cache, first_position=frame.start
            )
        assert logits is not None  # noqa: S101
        return logits

    def _choose(
        self, items: Sequence[Sequence[Step]], start: int, *, plain: bool
    ) -> tuple[Shell, list[torch.nn.Module]]:
        """Choose the shell to run in, and for each layer the hooked or the plain block."""
        hooked_layers = {
            layer
            for steps in items
            for step in steps
            if _acts(layer := _layer_of(step.hook), start)
        }
        inner = all(0 <= layer < self.model.anatomy.n_layers for layer in hooked_layers)
        usable = self._shortcuts is None or self._shortcuts.plain
        shell = self._shells["plain" if plain and usable and inner else "hooked"]
        hooked = self._shells["hooked"].blocks
        return shell, [
            hooked[layer] if layer in hooked_layers else block
            for layer, block in enumerate(shell.blocks)
        ]

    @contextmanager
    def _hooked(
        self, items: Sequence[Sequence[Step]], frame: Frame, start: int, stop: int | None
    ) -> Iterator[None]:
        """Put steps on the hooked twin's hook points, and take them away whatever happens."""
        assert self._twins is not None  # noqa: S101
        by_hook: dict[str, list[tuple[int | None, Step]]] = {}
        for index, steps in enumerate(items):
            for step in steps:
                layer = _layer_of(step.hook)
                if not _acts(layer, start) or (stop is not None and layer >= stop):
                    continue
                by_hook.setdefault(step.hook, []).append((index if len(items) > 1 else None, step))
        fired: set[str] = set()
        points = []
        try:
            for name, entries in by_hook.items():
                if name not in self._twins.hook_points:
                    msg = f"{self.model.name} has no hook point {name}."
                    raise InterventionError(msg)
                point = self._twins.hook_points[name]
                points.append(point)
                point.add_hook(_combined(name, entries, frame, fired))
            yield
        finally:
            for point in points:
                point.remove_hooks("fwd")
        silent = sorted(set(by_hook) - fired)
        if silent:
            msg = (
                f"{self.model.name} never passes through {silent[0]}: an intervention there would do nothing. "
                "Its attention or MLP is computed by code that TransformerLens cannot look into."
            )
            raise InterventionError(msg)

    # Whether the short cuts are exact here ----------------------------------------------------------

    def _check(self, twins: Twins) -> Shortcuts:
        """Compare every short cut with the bridge's own pass, on a few fixed tokens."""
        generator = torch.Generator().manual_seed(0)
        a = self.model.anatomy
        length = min(8, a.n_ctx)
        ids = torch.randint(0, a.d_vocab, (length,), generator=generator)
        given = Input(tuple(ids.tolist()), has_bos=False)
        with torch.no_grad():
            truth = twins.bridge(ids.unsqueeze(0).to(self.model.device))
        truth = getattr(truth, "logits", truth)[0]
        reasons: list[str] = []

        def holds(what: str, run: Callable[[], Tensor]) -> bool:
            try:
                found = run()
            except (
                TypeError,
                ValueError,
                IndexError,
                KeyError,
                AttributeError,
                RuntimeError,
            ) as error:
                reasons.append(
                    f"{what}: not on this architecture ({type(error).__name__}: {error})."
                )
                return False
            error = ((found - truth[-found.shape[0] :]).abs().max() / truth.abs().max()).item()
            if not error <= _EXACT:
                reasons.append(f"{what}: differs by {error:.1e} of the largest logit here.")
                return False
            return True

        full: list[_Result] = []

        def whole(plain: bool) -> Tensor:  # noqa: FBT001
            result = self._pass(
                given, [[]], start=0, first=0, parent=None, record=True, plain=plain
            )
            full.append(result)
            assert result.logits is not None  # noqa: S101
            return result.logits[0]

        def resumed(first: int, *, mixed: bool) -> Tensor:
            start = a.n_layers // 2
            trace = _compose(given.ids, (), None, 0, 0, full[-1], a.n_layers)
            hooks = (
                [f"blocks.{layer}.hook_in" for layer in range(start, a.n_layers, 2)]
                if mixed
                else []
            )
            result = self._pass(
                given,
                [[Step(name, lambda _tensor, _frame: None) for name in hooks]],
                start=start,
                first=first,
                parent=trace,
            )
            assert result.logits is not None  # noqa: S101
            return result.logits[0]

        # Each next check uses only what held before it.
        self._shortcuts = Shortcuts(layers=True, positions=True, plain=True)
        cached = holds("Keys and values", lambda: whole(plain=False))
        self._shortcuts = Shortcuts(layers=True, positions=cached, plain=True)
        if not cached and not holds("Recording", lambda: whole(plain=False)):
            self._shortcuts = None
            return Shortcuts(layers=False, positions=False, plain=False, reasons=tuple(reasons))
        plain = holds("Plain blocks", lambda: whole(plain=True))
        self._shortcuts = Shortcuts(layers=True, positions=cached, plain=plain)
        layers = holds("Starting from a layer", lambda: resumed(0, mixed=plain))
        keeps = bool(
            full and full[-1].cache is not None and len(full[-1].cache.layers) == a.n_layers
        )
        if not a.causal:
            reasons.append("Reusing keys and values: every position sees every other one here.")
        elif cached and not keeps:
            reasons.append("Reusing keys and values: this model keeps none.")
        positions = (
            layers
            and cached
            and keeps
            and a.causal
            and length > 2
            and holds("Reusing keys and values", lambda: resumed(length // 2, mixed=plain))
        )
        return Shortcuts(layers=layers, positions=positions, plain=plain, reasons=tuple(reasons))


class Stream:
    """Continues runs of one input as a batch; made by :meth:`Engine.stream`."""

    def __init__(
        self, engine: Engine, experiments: Sequence[Experiment], traces: Sequence[Trace] | None
    ) -> None:
        self._engine = engine
        self._items = [engine._compile(e.stack, e.surroundings) for e in experiments]  # noqa: SLF001
        given = experiments[0].given
        self._prompt = given
        self._new: list[list[int]] = [[] for _ in experiments]
        self._cache: DynamicCache | None = None
        if traces is not None:
            self._cache = DynamicCache()
            keys = zip(*(trace.keys or () for trace in traces), strict=True)
            values = zip(*(trace.values or () for trace in traces), strict=True)
            self._cache.layers = [
                filled_layer(torch.stack(k), torch.stack(v))
                for k, v in zip(keys, values, strict=True)
            ]

    def step(self, tokens: Tensor, should_stop: ShouldStop | None = None) -> Tensor:
        """Take one token of each run; return Float[run, vocab], the logits of the next.

        Args:
            tokens: LongTensor[run].
            should_stop: asked before every block.
        """
        for new, token in zip(self._new, tokens.tolist(), strict=True):
            new.append(token)
        prompt = list(self._prompt.ids)
        first = len(prompt) + len(self._new[0]) - 1 if self._cache is not None else 0
        rows = [(prompt + new)[first:] for new in self._new]
        logits = self._engine.continued(
            torch.tensor(rows),
            self._items,
            frame=Frame(first, len(prompt), has_bos=self._prompt.has_bos),
            cache=self._cache,
            should_stop=should_stop,
        )
        return logits[:, -1]


_making = threading.Lock()


def _difference(old: Stack, new: Stack, given: Input, model: LanguageModel) -> tuple[int, int]:
    """Return the lowest layer and the first position at which two stacks can differ.

    A new stack that reads something below that layer to act above it starts where it reads.
    """
    anatomy = model.anatomy
    length = len(given.ids)
    spans = {iv: touched_layers(iv, anatomy) for iv in {*old, *new}}
    by_layer: list[dict[int, list[Intervention]]] = [{}, {}]
    for side, stack in zip(by_layer, (old, new), strict=True):
        for iv in stack:
            for layer in spans[iv]:
                side.setdefault(layer, []).append(iv)
    layers = [n for n in {*by_layer[0], *by_layer[1]} if by_layer[0].get(n) != by_layer[1].get(n)]
    if not layers:
        return anatomy.n_layers, length
    start = min(layers)
    differing = {iv for n in layers for side in by_layer for iv in side.get(n, [])}
    positions = [first_position(iv, length, given.has_bos) for iv in differing]
    first = min((p for p in positions if p is not None), default=length)
    moved = True
    while moved:
        moved = False
        for iv in new:
            if spans[iv] and spans[iv][0] < start <= spans[iv][-1]:
                start, moved = spans[iv][0], True
    return start, first


def _compose(
    ids: tuple[int, ...],
    stack: Stack,
    parent: Trace | None,
    start: int,
    first: int,
    result: _Result,
    n_layers: int,
) -> Trace:
    """Put a run together from what it computed and what it took over."""
    residual = []
    for layer in range(n_layers + 1):
        new = result.residual.get(layer)
        if new is None or (parent is not None and layer <= start):
            assert parent is not None  # noqa: S101
            residual.append(parent.residual[layer])
        else:
            row = new[0].detach()
            if parent is not None and first:
                row = torch.cat([parent.residual[layer][:first], row])
            residual.append(row)
    keys = values = None
    if result.cache is not None and len(result.cache.layers) == n_layers:
        pairs = []
        for layer, kept in enumerate(result.cache.layers):
            if (
                parent is not None
                and parent.keys is not None
                and parent.values is not None
                and layer < start
            ):
                pairs.append((parent.keys[layer], parent.values[layer]))
            else:
                assert kept.keys is not None and kept.values is not None  # noqa: PT018, S101
                pairs.append((kept.keys[0], kept.values[0]))
        keys, values = tuple(k for k, _ in pairs), tuple(v for _, v in pairs)
    return Trace(ids, stack, tuple(residual), keys, values)


def _cache(parent: Trace | None, first: int, batch: int) -> DynamicCache:
    """Make a cache that holds an earlier run's keys and values before ``first``."""
    cache = DynamicCache()
    if parent is not None and first and parent.keys is not None and parent.values is not None:
        cache.layers = [
            filled_layer(
                k[:, :first].expand(batch, -1, -1, -1), v[:, :first].expand(batch, -1, -1, -1)
            )
            for k, v in zip(parent.keys, parent.values, strict=True)
        ]
    return cache


def filled_layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    """Make one layer of a cache from Float[batch, head, pos, d_head] keys and values."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


def _layer_of(hook: str) -> int:
    """Return the layer of a hook point: -1 at the embedding, a large number after the last block."""
    if hook.startswith("blocks."):
        return int(hook.split(".")[1])
    return -1 if "embed" in hook and "unembed" not in hook else 10**6


def _acts(layer: int, start: int) -> bool:
    """Say whether a hook of a layer fires in a run that starts at ``start``."""
    return layer >= (start or -1)


def _reader(name: str, taken: dict[str, Tensor]) -> Step:
    def apply(tensor: Tensor, _frame: Frame) -> None:
        taken[name] = tensor.detach()

    return Step(name, apply)


def _combined(
    name: str, entries: Sequence[tuple[int | None, Step]], frame: Frame, fired: set[str]
) -> Callable[..., Tensor | None]:
    """Make one hook of all the steps at a hook point; each acts on its own batch item, in order."""

    def hook(tensor: Tensor, hook: object) -> Tensor | None:  # noqa: ARG001 (TransformerLens names it)
        fired.add(name)
        now = tensor
        owned = False
        for index, step in entries:
            if index is None:
                changed = step.apply(now, frame)
                now = now if changed is None else changed
                continue
            changed = step.apply(now[index : index + 1], frame)
            if changed is not None:
                if not owned:
                    now, owned = now.clone(), True
                now[index : index + 1] = changed
        return None if now is tensor else now

    return hook
