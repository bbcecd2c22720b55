"""What a run leaves behind for the next one: residual streams, keys and values; the store of it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    import torch

    from patchclamp.interventions import Intervention

    _Key = tuple[Hashable, tuple[int, ...], tuple[Intervention, ...]]


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
    """The most recently used traces, within a number of bytes and of traces.

    Every look for a run to build on compares with all of them, so a long drag must not fill the
    store with its steps.

    Args:
        budget: bytes; tensors that several traces share count once.
        most: traces.
    """

    def __init__(self, budget: int, most: int = 12) -> None:
        self.budget = budget
        self.most = most
        self.nbytes = 0
        self._traces: OrderedDict[_Key, Trace] = OrderedDict()
        self._holders: Counter[int] = Counter()  # by storage: how many tensors of traces it holds

    def __len__(self) -> int:
        return len(self._traces)

    def __repr__(self) -> str:
        used, most = (n / 2**20 for n in (self.nbytes, self.budget))
        return f"TraceStore({len(self)} runs, {used:.0f} of {most:.0f} MiB)"

    def add(self, context: Hashable, trace: Trace) -> None:
        """Keep a trace; the least recently used ones go when the store is full."""
        key = (context, trace.ids, trace.stack)
        if key in self._traces:
            self._drop(self._traces.pop(key))
        self._traces[key] = trace
        for storage in map(_storage, trace.tensors()):
            self._holders[storage.data_ptr()] += 1
            if self._holders[storage.data_ptr()] == 1:
                self.nbytes += storage.nbytes()
        while len(self) > 1 and (self.nbytes > self.budget or len(self) > self.most):
            self._drop(self._traces.popitem(last=False)[1])

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
        """Return the traces of this input, the one without interventions first, then by recency.

        Everything can be built on that one, so it stays while its input is in use.
        """
        self.get(context, ids, ())
        return [t for (c, i, _), t in reversed(self._traces.items()) if c == context and i == ids]

    def clear(self) -> None:
        """Forget everything."""
        self._traces.clear()
        self._holders.clear()
        self.nbytes = 0

    def _drop(self, trace: Trace) -> None:
        for storage in map(_storage, trace.tensors()):
            self._holders[storage.data_ptr()] -= 1
            if self._holders[storage.data_ptr()] == 0:
                del self._holders[storage.data_ptr()]
                self.nbytes -= storage.nbytes()


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
