"""The store of traces: bounded, and what everything builds on stays in it."""

from __future__ import annotations

import torch

from patchclamp import Clamp
from patchclamp.engine.trace import Trace, TraceStore

IDS = (1, 2, 3)
ROW = 4 * 8


def trace(value: float | None, *shared: torch.Tensor, ids: tuple[int, ...] = IDS) -> Trace:
    stack = () if value is None else (Clamp("L1.N0", value),)
    return Trace(ids, stack, (*shared, torch.zeros(8)), None, None)


def test_a_long_drag_leaves_a_few_runs_and_the_one_without_interventions() -> None:
    store = TraceStore(2**20)
    store.add(None, trace(None))
    for step in range(100):
        found = store.of_input(None, IDS)
        assert found[0].stack == ()
        assert len(found) <= store.most
        store.add(None, trace(float(step)))
    assert store.get(None, IDS, (Clamp("L1.N0", 99.0),)) is not None


def test_an_input_that_is_left_makes_room() -> None:
    store = TraceStore(2**20, most=4)
    store.add(None, trace(None, ids=(9,)))
    store.add(None, trace(None))
    for step in range(4):
        store.of_input(None, IDS)
        store.add(None, trace(float(step)))
    assert store.get(None, (9,), ()) is None


def test_what_traces_share_counts_once_and_until_the_last_of_them_goes() -> None:
    store = TraceStore(2**20, most=3)
    shared = torch.zeros(8)
    store.add(None, trace(0.0, shared, shared[2:]))
    store.add(None, trace(1.0, shared))
    assert store.nbytes == 3 * ROW
    store.add(None, trace(1.0, shared))
    assert store.nbytes == 3 * ROW
    for value in (2.0, 3.0, 4.0):
        store.add(None, trace(value))
    assert store.nbytes == 3 * ROW == 3 * shared.untyped_storage().nbytes()
    store.add(None, trace(5.0, shared))
    assert store.nbytes == 4 * ROW
    store.clear()
    assert (len(store), store.nbytes) == (0, 0)


def test_the_last_trace_stays_however_large() -> None:
    store = TraceStore(ROW)
    store.add(None, trace(0.0, torch.zeros(1000)))
    store.add(None, trace(1.0, torch.zeros(1000)))
    assert [t.stack for t in store.of_input(None, IDS)] == [(Clamp("L1.N0", 1.0),)]
