"""A circuit beside random ones: the planted circuit keeps all, and random ones do not."""

from __future__ import annotations

from functools import partial

import pytest

from patchclamp.errors import InputError
from patchclamp.methods.beside_random import beside_random
from patchclamp.methods.edge_attribution import eap_ig, ends
from patchclamp.methods.faithfulness import Checked, check, random_circuit
from patchclamp.methods.path_patching import edge_runs
from tests.unit import planted
from tests.unit.pairs import on_worker, task_on
from tests.unit.test_planted_circuits import task_of


@pytest.mark.parametrize("name", ["induction: cue", "grouped", "addition"])
def test_a_planted_circuit_keeps_all_on_prompts_that_it_was_not_found_on(name: str) -> None:
    model = planted.EVERY[name]()
    task = task_of(model)
    *_, (_, scores) = on_worker(task, lambda: list(eap_ig(task)))
    circuit = scores.graph.cut(list(model.edges))
    found = beside_random(task, scores, circuit, seeds=4)
    assert found.circuit.faithfulness == pytest.approx(1.0, abs=1e-4)
    assert found.circuit.completeness < 0.5
    assert len(found.random) == 4
    assert found.random_keeps < 0.9
    assert all(one.edges == found.circuit.edges for one in found.random)


def test_each_number_is_that_of_a_check_by_itself() -> None:
    task = task_on("native")
    *_, (_, scores) = on_worker(task, lambda: list(eap_ig(task, steps=2)))
    circuit = scores.top(40)
    # Other prompts of the same length: what is measured is theirs, not that of the scores' own.
    other = task_on("native", pairs=2, differs=2)
    found = beside_random(other, scores, circuit, seeds=3)
    runs = on_worker(other, partial(edge_runs, other))
    clean, corrupt = on_worker(other, partial(ends, other, runs))
    circuits = [circuit, *(random_circuit(runs.graph, circuit, seed=seed) for seed in range(3))]
    for one, measured in zip(circuits, (found.circuit, *found.random), strict=True):
        checked = check(other, runs, one, clean=clean, corrupt=corrupt)
        assert measured == on_worker(other, partial(list[Checked], checked))[-1]
    assert found.random_keeps == max(one.faithfulness for one in found.random)
    assert found.random_takes == max(1 - one.completeness for one in found.random)
    assert found.circuit.clean != pytest.approx(scores.clean)


def test_no_random_circuit_at_all_is_refused() -> None:
    task = task_on("native")
    *_, (_, scores) = on_worker(task, lambda: list(eap_ig(task, steps=1)))
    with pytest.raises(InputError, match="at least one random circuit, not 0"):
        beside_random(task, scores, scores.top(5), seeds=0)
