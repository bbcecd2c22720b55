"""What a run left behind for the next one: residual streams, keys and values, in a bounded store."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    import torch

    from patchclamp.interventions import Intervention


@dataclass(frozen=True, eq=False)
class Trace:
    """The state of a finished run of one input under one stack.

    Attributes:
        ids: the token ids of the input.
        stack: the interventions that acted, in order.
        residual: Float[pos, d_model] for every layer, the residual stream entering it, and after
            the last one.
        keys: Float[head, pos, d_head] for every layer; None where the model keeps no cache.
        values: the same of the values.
        logits: Float[pos, vocab], where the stack changes what happens after the last block; else
            they are computed from the last residual stream when asked for.
    """

    ids: tuple[int, ...]
    stack: tuple[Intervention, ...]
    residual: tuple[torch.Tensor, ...]
    keys: tuple[torch.Tensor, ...] | None
    values: tuple[torch.Tensor, ...] | None
    logits: torch.Tensor | None = None

    def tensors(self) -> Iterator[torch.Tensor]:
        """Go through all that it holds."""
        yield from self.residual
        yield from self.keys or ()
        yield from self.values or ()
        if self.logits is not None:
            yield self.logits


class TraceStore:
    """The most recently used traces, within a number of bytes.

    Args:
        budget: bytes; tensors that several traces share count once.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._traces: OrderedDict[Hashable, Trace] = OrderedDict()

    def __len__(self) -> int:
        return len(self._traces)

    def __repr__(self) -> str:
        return f"TraceStore({len(self)} runs, {self.nbytes / 2**20:.0f} of {self.budget / 2**20:.0f} MiB)"

    @property
    def nbytes(self) -> int:
        """What the store holds, in bytes."""
        return _nbytes(self._traces.values())

    def add(self, context: Hashable, trace: Trace) -> None:
        """Keep a trace; the least recently used ones go when the budget is full."""
        key = (context, trace.ids, trace.stack)
        self._traces[key] = trace
        self._traces.move_to_end(key)
        while len(self._traces) > 1 and self.nbytes > self.budget:
            self._traces.popitem(last=False)

    def get(
        self, context: Hashable, ids: tuple[int, ...], stack: tuple[Intervention, ...]
    ) -> Trace | None:
        """Return the trace of just this run, or None."""
        key = (context, ids, stack)
        found = self._traces.get(key)
        if found is not None:
            self._traces.move_to_end(key)
        return found

    def of_input(self, context: Hashable, ids: tuple[int, ...]) -> list[Trace]:
        """Return the traces of this input, the most recent first."""
        return [t for (c, i, _), t in reversed(self._traces.items()) if c == context and i == ids]

    def clear(self) -> None:
        """Forget everything."""
        self._traces.clear()


def _nbytes(traces: Iterator[Trace] | object) -> int:
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for trace in traces  # type: ignore[attr-defined]
        for t in trace.tensors()
    }
    return sum(storages.values())
