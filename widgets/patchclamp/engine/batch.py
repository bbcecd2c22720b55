"""Several inputs of one length, run together under one stack: what methods on prompt pairs work on.

A :class:`Batch` keeps the residual streams (and keys and values) of its inputs. A sweep puts values
in many places, one place after the other; each is run from its own layer and first position on, on
plain blocks but for the one that is edited, as many places and inputs at a time as fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import DynamicCache

from patchclamp.engine.hooks import Frame, Step, compile_stack, touched_layers
from patchclamp.engine.passes import (
    asking,
    filled_layer,
    first_layer,
    last_layer,
    layer_of,
    leaf,
    reading,
)
from patchclamp.engine.shell import Pass
from patchclamp.errors import BudgetError, InputError
from patchclamp.interventions import Patch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from torch import Tensor

    from patchclamp.engine.engine import Engine
    from patchclamp.engine.hooks import Lookup
    from patchclamp.engine.passes import Result
    from patchclamp.engine.plan import Input, Stack
    from patchclamp.interventions import Intervention
    from patchclamp.models.anatomy import Anatomy
    from patchclamp.sites import Site

    ShouldStop = Callable[[], bool]

ROWS = 256
"""Tokens that are run at once: a chunk ends soon enough for interactive work to get in."""

_ADDED = 32  # rows more that a chunk may get; each chunk of its own costs as much besides its rows
_DEEP = 4  # times as many rows, where few blocks are left
_READ = 32  # rows whose logits are computed at once: the whole unembedding is read for any number
_WORTH = 0.05  # the share of positions from which on taking over keys and values is worth it


@dataclass(frozen=True)
class Spot:
    """Where a sweep puts a value.

    Attributes:
        hook: canonical hook-point name.
        index: the neuron or head there; None for everything.
        positions: which; None for all but a beginning-of-sequence token.
    """

    hook: str
    index: int | None = None
    positions: tuple[int, ...] | None = None

    @classmethod
    def of(cls, site: Site, anatomy: Anatomy, positions: tuple[int, ...] | None = None) -> Spot:
        """Return where a site's value lies: a key or value is its key/value head's.

        Raises:
            AddressError: when the model has no such site.
        """
        index = site.index
        if site.kind == "head" and site.part in {"k", "v"} and index is not None:
            index = anatomy.kv_head(index)
        return cls(anatomy.hook(site), index, positions)


if TYPE_CHECKING:
    Edit = tuple[Spot, ...]
    """Spots whose values are put in at once: one run of a sweep."""
    Item = tuple[int, int]
    """Which edit of a sweep, and which input."""


@dataclass(frozen=True)
class Cost:
    """What a sweep takes, known before it begins.

    Attributes:
        passes: how many whole passes of all inputs it is worth, about.
        chunks: in how many pieces it runs.
        nbytes: how much memory a piece takes at the most, about.
    """

    passes: float
    chunks: int
    nbytes: int


@dataclass(frozen=True, eq=False)
class Base:
    """What the inputs' own run left.

    Attributes:
        residual: Float[item, pos, d_model] for every layer, the stream entering it, and after the
            last one.
        keys: Float[item, head, pos, d_head] for every layer; none where the model keeps no cache.
        values: the same of the values.
    """

    residual: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]


@dataclass(eq=False)
class Batch:
    """Inputs of one length under one stack.

    Its methods compute where they are called, so they belong on the model's worker.

    Args:
        engine: what runs the model.
        inputs: the inputs, all of one length.
        lookups: for each input, where what the stack needs comes from; none without a stack.
        stack: interventions that act in every run; what a sweep puts in comes after them.

    Raises:
        InputError: when there are no inputs, or they differ in length or in whether they begin with
            a beginning-of-sequence token.
    """

    engine: Engine
    inputs: tuple[Input, ...]
    lookups: Sequence[Lookup] = ()
    stack: Stack = ()
    _kept: Base | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.inputs:
            msg = "There is no input to run."
            raise InputError(msg)
        counts = sorted({len(one.ids) for one in self.inputs})
        if len(counts) > 1:
            msg = f"Inputs that are run together have one length; these have {counts} tokens."
            raise InputError(msg)
        if len({one.has_bos for one in self.inputs}) > 1:
            msg = (
                "Inputs that are run together all begin with a beginning-of-sequence token, or "
                "none does."
            )
            raise InputError(msg)

    @property
    def count(self) -> int:
        """How many inputs there are."""
        return len(self.inputs)

    @property
    def length(self) -> int:
        """How many tokens each has."""
        return len(self.inputs[0].ids)

    @property
    def has_bos(self) -> bool:
        """Whether position 0 is a beginning-of-sequence token."""
        return self.inputs[0].has_bos

    @property
    def ids(self) -> Tensor:
        """LongTensor[item, pos]."""
        return torch.tensor([one.ids for one in self.inputs])

    @property
    def positions(self) -> tuple[int, ...]:
        """All positions but a beginning-of-sequence token."""
        return tuple(range(int(self.has_bos and self.length > 1), self.length))

    @property
    def at_once(self) -> int:
        """How many inputs are run at once."""
        return max(1, ROWS // self.length)

    # --- the inputs' own run ---------------------------------------------------------------------

    def base(self, should_stop: ShouldStop | None = None) -> Base:
        """Run the inputs and keep what later runs build on; computed once.

        Raises:
            BudgetError: when that alone is more than the engine's budget.
            Stopped: when ``should_stop`` said so.
        """
        if self._kept is None:
            self._kept = self._run_base(should_stop)
        return self._kept

    def residual(self, layer: int, should_stop: ShouldStop | None = None) -> Tensor:
        """Return Float[item, pos, d_model], the stream entering a layer, or after the last one."""
        return self.base(should_stop).residual[layer]

    def logits(self, rows: Sequence[int], should_stop: ShouldStop | None = None) -> Tensor:
        """Return Float[item, row, vocab], the logits at some positions."""
        return torch.cat([part for _, part in self.sweep([()], {}, rows, should_stop=should_stop)])

    def capture(
        self, hooks: Sequence[str], should_stop: ShouldStop | None = None
    ) -> dict[str, Tensor]:
        """Return Float[item, pos, ...] of each hook point, after the stack acted."""
        found: dict[str, list[Tensor]] = {name: [] for name in hooks}
        if not hooks:
            return {}
        layer = self.start_from(first_layer(hooks))
        self.base(should_stop)
        for items in _split(list(range(self.count)), self.at_once):
            taken: dict[str, Tensor] = {}
            self.forward(
                items,
                layer,
                [reading(name, taken) for name in hooks],
                stop=last_layer(hooks),
                should_stop=should_stop,
            )
            for name, parts in found.items():
                parts.append(taken[name])
        return {name: torch.cat(parts) for name, parts in found.items()}

    # --- many edits ------------------------------------------------------------------------------

    def sweep(
        self,
        edits: Sequence[Edit],
        values: Mapping[str, Tensor],
        rows: Sequence[int] = (-1,),
        *,
        should_stop: ShouldStop | None = None,
    ) -> Generator[tuple[list[Item], Tensor], None, None]:
        """Run every input under every edit; those that cost least, of the last layers, come first.

        Args:
            edits: the spots of each; an empty edit is the inputs' own run.
            values: Float[item, pos, ...] by hook point, what is put there; the first two
                dimensions may be 1, the others are the hook point's.
            rows: the positions whose logits are wanted.
            should_stop: asked before every block.

        Yields:
            After each chunk which (edit, item) pairs are done, and Float[pair, row, vocab], their
            logits. There may be none: logits of a few pairs wait for those of the next chunks.

        Raises:
            BudgetError: when one input alone needs more memory than there is to spend.
            Stopped: when ``should_stop`` said so.
        """
        wanted = [row % self.length for row in rows]
        end = self._end()
        self.base(should_stop)
        unread: list[tuple[list[Item], Tensor]] = []
        chunks = list(self._chunks(edits, wanted))
        for place, (layer, first, pairs) in enumerate(chunks):
            items = [item for _, item in pairs]
            placed = [edits[edit] for edit, _ in pairs]
            if end is not None and layer == end:
                final = self.residual(end)[items][:, wanted]
            else:
                result = self.forward(
                    items,
                    layer,
                    _put(placed, items, values, self.positions),
                    first=first,
                    stop=end,
                    should_stop=should_stop,
                )
                if end is None:
                    assert result.logits is not None  # noqa: S101 (no layer to stop at was given)
                    yield pairs, result.logits[:, [row - first for row in wanted]]
                    continue
                final = result.residual[end][:, [row - first for row in wanted]]
            unread.append((pairs, final))
            count = len(wanted) * sum(len(each) for each, _ in unread)
            if count >= _READ or place == len(chunks) - 1:
                logits = self.engine.passes.read(torch.cat([each for _, each in unread]))
                yield [pair for each, _ in unread for pair in each], logits
                unread = []
            else:
                yield [], final.new_empty(0, len(wanted), self.engine.model.anatomy.d_vocab)

    def cost(self, edits: Sequence[Edit], rows: Sequence[int] = (-1,)) -> Cost:
        """Say what a sweep takes; runs nothing.

        Raises:
            BudgetError: as :meth:`sweep`.
        """
        wanted = [row % self.length for row in rows]
        n_layers = self.engine.model.anatomy.n_layers
        passes, chunks, most = 0.0, 0, 0
        for layer, first, pairs in self._chunks(edits, wanted):
            share = (n_layers - layer) / n_layers * (self.length - first) / self.length
            passes += share * len(pairs) / self.count
            chunks += 1
            most = max(most, len(pairs) * self._nbytes(layer, first, len(wanted)))
        return Cost(passes, chunks, most)

    # --- gradients -------------------------------------------------------------------------------

    def gradients(
        self,
        hooks: Sequence[str],
        objective: Callable[[Tensor, Sequence[int]], Tensor],
        rows: Sequence[int] = (-1,),
        *,
        items: Sequence[int] | None = None,
        inject: Tensor | None = None,
        should_stop: ShouldStop | None = None,
    ) -> tuple[dict[str, tuple[Tensor, Tensor]], tuple[Tensor, Tensor], Tensor]:
        """Differentiate a number of the logits by the values at hook points, for every input.

        Args:
            hooks: canonical hook-point names.
            objective: from Float[item, row, vocab] logits and which inputs they are of to
                Float[item]; of each input's own logits alone.
            rows: the positions whose logits it is told.
            items: which inputs; all without.
            inject: Float[item, pos, d_model], another stream of theirs entering the first block.
            should_stop: asked before every block.

        Returns:
            Values and gradients, Float[item, pos, ...] each: by hook point, of the stream after the
            last block, and Float[item], the objective.

        Raises:
            Stopped: when ``should_stop`` said so.
        """
        wanted = [row % self.length for row in rows]
        n_layers = self.engine.model.anatomy.n_layers
        parts: list[list[tuple[Tensor, Tensor]]] = []
        measured: list[Tensor] = []
        names = [*hooks, ""]
        # What acts after the blocks acts on what is differentiated, too.
        end = self._end()
        after = [] if end is not None else [self.engine.model.anatomy.hooks[-1]["resid_post"]]
        asked = list(range(self.count)) if items is None else list(items)
        for places in _split(list(range(len(asked))), self.at_once):
            taken: dict[str, Tensor] = {}
            chosen = [asked[place] for place in places]
            with torch.enable_grad():
                result = self.forward(
                    chosen,
                    0,
                    [*(leaf(h, taken) for h in hooks), *(leaf(h, taken, "") for h in after)],
                    stop=end,
                    inject=None if inject is None else inject[places],
                    grad=True,
                    should_stop=should_stop,
                )
                if result.logits is None:
                    taken[""] = final = asking(result.residual[n_layers])
                    logits = self.engine.passes.read(final[:, wanted], grad=True)
                else:
                    logits = result.logits[:, wanted]
                value = objective(logits, chosen)
            grads = torch.autograd.grad(
                value.sum(), [taken[name] for name in names], materialize_grads=True
            )
            found = [taken[name].detach() for name in names]
            parts.append(list(zip(found, grads, strict=True)))
            measured.append(value.detach())
        whole = [
            (torch.cat([v for v, _ in column]), torch.cat([g for _, g in column]))
            for column in zip(*parts, strict=True)
        ]
        return dict(zip(hooks, whole, strict=False)), whole[-1], torch.cat(measured)

    # --- inside ----------------------------------------------------------------------------------

    def _run_base(self, should_stop: ShouldStop | None) -> Base:
        a = self.engine.model.anatomy
        size = 4 * self.count * self.length * a.n_layers * (a.d_model + 2 * a.n_kv_heads * a.d_head)
        if size > self.engine.budget:
            msg = (
                f"{self.count} inputs of {self.length} tokens need {size / 2**20:,.0f} MiB, and "
                f"the budget is {self.engine.budget / 2**20:,.0f} MiB: use fewer or shorter ones."
            )
            raise BudgetError(msg)
        found: list[Base] = []
        for items in _split(list(range(self.count)), self.at_once):
            result = self.forward(items, 0, [], stop=a.n_layers, should_stop=should_stop)
            layers = [] if result.cache is None else result.cache.layers
            found.append(
                Base(
                    [result.residual[layer] for layer in range(a.n_layers + 1)],
                    [each.keys for each in layers],  # type: ignore[union-attr, misc] # just filled
                    [each.values for each in layers],  # type: ignore[union-attr, misc]
                )
            )
        return Base(
            *(
                [torch.cat(parts) for parts in zip(*(getattr(b, name) for b in found), strict=True)]
                for name in ("residual", "keys", "values")
            )
        )

    def forward(
        self,
        items: Sequence[int],
        layer: int,
        steps: Sequence[Step],
        *,
        first: int = 0,
        stop: int | None = None,
        inject: Tensor | None = None,
        grad: bool = False,
        should_stop: ShouldStop | None = None,
    ) -> Result:
        """Run some inputs from a layer and a position on, under the stack and then some steps."""
        passes = self.engine.passes
        if inject is None and layer > 0:
            inject = self.base().residual[layer][items][:, first:]
        cache = None
        if passes.shortcuts.positions and not grad:
            cache = self._cache(items, layer, first)
        now = Pass(start=layer, inject=inject, stop=stop, record=True, should_stop=should_stop)
        with torch.set_grad_enabled(grad):
            return passes.forward(
                self.ids[list(items), first:],
                self._stack_steps(items),
                Frame(first, self.length, has_bos=self.has_bos),
                now,
                cache=cache,
                shared=steps,
            )

    def _cache(self, items: Sequence[int], layer: int, first: int) -> DynamicCache:
        """Make a cache of the positions before the first one, for the blocks from a layer on."""
        cache = DynamicCache()
        if not first:
            return cache
        base = self.base()
        which = torch.tensor(items, device=base.keys[0].device)
        for at, kept in enumerate(zip(base.keys, base.values, strict=True)):
            # Blocks below do not run, but the model counts the positions that the first one has.
            keys, values = (
                x[:, :, :first][which]
                if at >= layer
                else x[:1, :, :first].expand(len(items), -1, -1, -1)
                for x in kept
            )
            cache.layers.append(filled_layer(keys, values))
        return cache

    def _stack_steps(self, items: Sequence[int]) -> list[list[Step]]:
        """The steps of the stack: for all items at once where they take nothing from elsewhere."""
        if not self.stack:
            return [[]]
        anatomy = self.engine.model.anatomy
        own = any(_from_elsewhere(iv) for iv in self.stack) and len(set(items)) > 1
        chosen = items if own else items[:1]
        return [compile_stack(self.stack, anatomy, self.lookups[item]) for item in chosen]

    def start_from(self, layer: int) -> int:
        """Return where to start so that what the stack reads below a layer is read again."""
        if not self.engine.shortcuts.layers:
            return 0
        for _ in self.stack:  # what starts lower may cross another one
            for iv in self.stack:
                touched = touched_layers(iv, self.engine.model.anatomy)
                if touched and touched[0] < layer <= touched[-1]:
                    layer = max(touched[0], 0)
        return layer

    def _end(self) -> int | None:
        """Return where a pass may end, before the final norm; None when the stack acts after it."""
        n_layers = self.engine.model.anatomy.n_layers
        touched = [touched_layers(iv, self.engine.model.anatomy) for iv in self.stack]
        return None if any(t and t[-1] >= n_layers for t in touched) else n_layers

    def _start(self, edit: Edit, wanted: Sequence[int]) -> tuple[int, int]:
        """Return the layer and the position from which on an edit's run can differ."""
        n_layers = self.engine.model.anatomy.n_layers
        layer = min((layer_of(spot.hook) for spot in edit), default=n_layers)
        end = self._end()
        layer = self.start_from(max(0, layer if end is not None else min(layer, n_layers - 1)))
        if not self.engine.shortcuts.positions or end is None:
            return layer, 0
        places = [self.positions if s.positions is None else s.positions for s in edit]
        first = min((min(place) for place in places if place), default=self.length - 1)
        first = min(first, self.length - 1, *wanted)
        return layer, first if first > _WORTH * self.length else 0

    def _chunks(
        self, edits: Sequence[Edit], wanted: Sequence[int]
    ) -> Generator[tuple[int, int, list[Item]], None, None]:
        """Group edits by where they start, and cut the groups into what is run at once."""
        starts: dict[tuple[int, int], list[int]] = {}
        for index, edit in enumerate(edits):
            starts.setdefault(self._start(edit, wanted), []).append(index)
        layers = sorted({layer for layer, _ in starts}, reverse=True)
        for layer in layers:
            firsts = sorted((f for at, f in starts if at == layer), reverse=True)
            waiting: list[Item] = []
            wasted = 0
            for first, following in zip(firsts, [*firsts[1:], None], strict=True):
                waiting += [
                    (edit, item) for edit in starts[layer, first] for item in range(self.count)
                ]
                size = self._at_once(layer, first, len(wanted))
                while len(waiting) >= size:
                    yield layer, first, waiting[:size]
                    waiting, wasted = waiting[size:], 0
                # What is left goes along with the next group, from earlier on, if that adds little.
                wasted += 0 if following is None else len(waiting) * (first - following)
                if waiting and (following is None or wasted > _ADDED):
                    yield layer, first, waiting
                    waiting, wasted = [], 0

    def _at_once(self, layer: int, first: int, n_logits: int) -> int:
        need = self._nbytes(layer, first, n_logits)
        if need > self.engine.budget:
            msg = (
                f"One run of this sweep needs about {need / 2**20:,.0f} MiB, and the budget is "
                f"{self.engine.budget / 2**20:,.0f} MiB: use a shorter prompt or a larger budget."
            )
            raise BudgetError(msg)
        # The fewer blocks are left, the more rows run in the same time; logits take some, too.
        n_layers = self.engine.model.anatomy.n_layers
        rows = ROWS * min(_DEEP, n_layers / max(1, n_layers - layer))
        size = min(int(rows) // (self.length - first), ROWS // max(1, n_logits))
        return max(1, min(self.engine.budget // need, size))

    def _nbytes(self, layer: int, first: int, n_logits: int) -> int:
        """About how much memory one input takes in a sweep."""
        a = self.engine.model.anatomy
        n_rows = self.length - first
        wide = max(a.d_mlp, a.d_model, a.n_heads * self.length)
        streams = (a.n_layers - layer + 1) * n_rows * a.d_model
        keys = 2 * (a.n_layers - layer) * a.n_kv_heads * a.d_head * self.length
        n_logits = n_logits if self._end() is not None else n_rows
        return math.ceil(4 * (8 * n_rows * wide + streams + 2 * keys + 3 * n_logits * a.d_vocab))


def _from_elsewhere(intervention: Intervention) -> bool:
    """Say whether what an intervention puts in is of another run, each input's its own."""
    return isinstance(intervention, Patch) or getattr(intervention, "how", None) == "contrast"


def _put(
    placed: Sequence[Edit],
    items: Sequence[int],
    values: Mapping[str, Tensor],
    everywhere: tuple[int, ...],
) -> list[Step]:
    """Make the steps that put values in the spots of each row of a batch."""
    by_hook: dict[str, list[tuple[int, Spot]]] = {}
    for row, edit in enumerate(placed):
        for spot in edit:
            by_hook.setdefault(spot.hook, []).append((row, spot))

    def putting(name: str, entries: list[tuple[int, Spot]]) -> Step:
        groups: dict[tuple[int | None, tuple[int, ...]], list[int]] = {}
        for row, spot in entries:
            places = everywhere if spot.positions is None else spot.positions
            groups.setdefault((spot.index, places), []).append(row)

        def apply(x: Tensor, frame: Frame) -> Tensor:
            new, source = x.clone(), values[name].to(x)
            for (index, places), rows in groups.items():
                at = torch.tensor(places, device=x.device)
                which = torch.tensor(rows, device=x.device)[:, None]
                of = torch.tensor([items[row] for row in rows], device=x.device)[:, None]
                taken = source[
                    torch.zeros_like(of) if source.shape[0] == 1 else of,
                    torch.zeros_like(at) if source.shape[1] == 1 else at,
                ]
                if index is None:
                    new[which, at - frame.start] = taken
                else:
                    new[which, at - frame.start, index] = taken[:, :, index]
            return new

        return Step(name, apply)

    return [putting(name, entries) for name, entries in by_hook.items()]


def _split(items: list[int], size: int) -> list[list[int]]:
    return [items[begin : begin + size] for begin in range(0, len(items), size)]
