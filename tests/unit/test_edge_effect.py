"""What one edge does, beside path patching of that edge and the plain run."""

from typing import Any

import pytest
import torch

from patchclamp.engine.edges import Graph
from patchclamp.methods.edge_effect import disagreement, edge_effect
from patchclamp.methods.metric import KL, LogitDifference, Loss
from patchclamp.methods.path_patching import edge_runs, exact_edges
from patchclamp.session import Session
from tests.unit import tiny


@pytest.mark.parametrize("metric", [LogitDifference(7, 12), Loss(), KL()])
def test_the_effect_of_an_edge_is_that_of_path_patching(metric: Any) -> None:
    session = Session(tiny.model("llama"), tiny.ids(8), contrast=tiny.ids(8, seed=5), metric=metric)
    graph = Graph.of(session.model.anatomy)
    edge = graph.cut(["L1.H1->L3.H2:q"]).nonzero()[0].tolist()

    def job(_stop: Any) -> Any:
        task = session.task
        runs = edge_runs(task)
        found = edge_effect(task, runs, tuple(edge))
        *_, (_, exact) = exact_edges(task, runs, [tuple(edge)])
        return found, float(exact[0])

    found, exact = session.submit(job).result()
    assert found.exact == pytest.approx(exact, abs=1e-6)
    assert abs(exact) > 1e-4
    before = session.baseline.log_probs().exp()
    assert torch.allclose(found.probabilities[0], before, atol=1e-6)
    moved = found.moved(5)
    assert len(moved) == 5
    sizes = [abs(after - then) for _, then, after in moved]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(
        float((found.probabilities[1] - found.probabilities[0]).abs().max())
    )


def test_an_estimate_is_contradicted_by_sign_or_by_more_than_half() -> None:
    assert disagreement(-0.2, 0.2) == "sign"
    assert disagreement(0.2, 0.41) == "half"
    assert disagreement(0.61, 0.4) == "half"
    assert disagreement(0.59, 0.4) is None
    assert disagreement(0.0, 0.0) is None
    assert disagreement(float("nan"), 1.0) is None
    assert disagreement(1.0, float("nan")) is None
