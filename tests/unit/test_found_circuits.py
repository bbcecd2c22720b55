"""Circuits that are found in SmolLM2 do the task, on other prompts too; random ones do not.

What is measured is how much of what separates clean from corrupt a circuit keeps when every edge
outside of it carries what it carries on the corrupt prompt.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch

import patchclamp
from patchclamp import LogitDifference, PromptSet, Session
from patchclamp.methods.edge_attribution import eap_ig
from patchclamp.methods.faithfulness import share
from patchclamp.methods.path_patching import edge_runs, with_cut
from tests.unit.pairs import on_worker

if TYPE_CHECKING:
    from patchclamp.methods.task import Task

PAIRS, OTHERS, SIZE = 12, 8, 0.1


def task_of(drawn: PromptSet, pairs: slice) -> Task:
    chosen = drawn.pairs[pairs]
    first = chosen[0]
    session = Session(
        patchclamp.load("smollm2"),
        first.clean,
        metric=LogitDifference(first.answer, first.wrong),
    )
    session.pairs = PromptSet(drawn.name, drawn.about, drawn.seed, chosen)
    return session.task


@cache
def kept(name: str) -> dict[str, list[float]]:
    """The share that circuits of a tenth of the edges keep, and what of the metric that is."""
    drawn = patchclamp.prompt_set(name, patchclamp.load("smollm2"), PAIRS + OTHERS)
    task, other = task_of(drawn, slice(PAIRS)), task_of(drawn, slice(PAIRS, None))

    def measure() -> dict[str, list[float]]:
        *_, (_, scores) = eap_ig(task, steps=5)
        graph = scores.graph
        size = round(SIZE * graph.n_edges)
        found, random = scores.top(size), [drawn_edges(graph.exists, size, n) for n in range(3)]
        runs, others = edge_runs(task), edge_runs(other)
        alone = with_cut(task, runs, ~found)
        ends = [with_cut(other, others, cut) for cut in (~graph.exists, graph.exists)]
        return {
            "found": [share(alone, scores.clean, scores.corrupt)],
            "metric": [alone / scores.clean],
            "elsewhere": [share(with_cut(other, others, ~found), *ends)],
            "without": [share(with_cut(task, runs, found), scores.clean, scores.corrupt)],
            "random": [
                share(with_cut(task, runs, ~each), scores.clean, scores.corrupt) for each in random
            ],
        }

    return on_worker(task, measure)


def drawn_edges(exists: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    places = exists.nonzero()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))[:size]
    found = torch.zeros_like(exists)
    found[tuple(places[order].T)] = True
    return found


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("name", ["capitals", "pronouns"])
def test_a_tenth_of_the_edges_keeps_the_metric_and_a_random_tenth_does_not(name: str) -> None:
    found = kept(name)
    assert found["found"][0] > 0.8
    assert found["metric"][0] > 0.8
    assert found["elsewhere"][0] > 0.8
    assert found["without"][0] < 0.2
    assert max(map(abs, found["random"])) < 0.2
