"""ACDC: cut every edge that does not change the metric, from the logits down, exactly.

Conmy et al., "Towards Automated Circuit Discovery for Mechanistic Interpretability" (2023): go
through the readers from the last to the first; cut an edge into one of them, and leave it cut if
the metric then changes by less than a threshold against what it was before. What is left is the
circuit. Each trial is a run of the model; since every cut so far is in later layers, it starts in
the reader's own layer.

One edge at a time is as published, and for small models. A large model has 70,000 edges, so here a
reader's edges are tried together first: if cutting all of them changes less than the threshold they
all go; if not, the half with the smaller estimates (EAP) is tried, and so on down to single edges.
Edges that go together change the metric by less than the threshold *together*: many small effects
of one sign, each below it, stay in, while two large ones that cancel each other may go.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InputError
from patchclamp.methods.edge_attribution import EdgeScores, eap_ig, ends
from patchclamp.methods.path_patching import edge_runs, with_cut

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from patchclamp.methods.task import Replacement, Task

    ShouldStop = Callable[[], bool]

SHARE = 1 / 20
"""The default threshold, as a share of what separates clean from corrupt."""


def acdc(
    task: Task,
    how: Replacement = "corrupt",
    *,
    threshold: float | None = None,
    runs: int = 500,
    together: bool = True,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> Generator[tuple[int, EdgeScores], None, None]:
    """Find a circuit by cutting edges one trial after the other; see this module.

    Runs on the model's worker. The task's stack does not act.

    Args:
        task: the pairs and the metric.
        how: what edges carry when they are cut.
        threshold: in units of the metric; None for a twentieth of what separates clean from
            corrupt.
        runs: the most trials; edges that were not tried by then stay in, and the note says so.
        together: try a reader's edges together first.
        seed: of what is resampled.
        should_stop: asked before every block.

    Yields:
        How many trials were made, and the scores: of an edge that was tried alone and kept, what
        cutting it changed; 0 of one that was cut; of all others the estimate. ``chosen`` is the
        circuit so far.

    Raises:
        ModelError, InputError, MetricError: as :func:`patchclamp.methods.edge_attribution.eap_ig`.
    """
    if threshold is not None and not threshold >= 0:
        msg = f"The threshold of ACDC is 0 or more, not {threshold}."
        raise InputError(msg)
    estimate = _estimate(task, how, seed, should_stop) if together else None
    running = edge_runs(task, how, seed=seed, should_stop=should_stop)
    graph = running.graph
    if estimate is None:
        clean, corrupt = ends(task, running, should_stop)
        unknown = torch.full(graph.exists.shape, torch.nan)
        estimate = EdgeScores(graph, unknown, "acdc", how, clean, corrupt)
    bound = abs(estimate.clean - estimate.corrupt) * SHARE if threshold is None else threshold
    values, kept = estimate.values.clone(), graph.exists.clone()
    tried = torch.zeros_like(kept)
    now, made = estimate.clean, 0
    waiting = [_into(graph.exists, reader) for reader in range(len(graph.readers))]

    def found() -> EdgeScores:
        left = int((graph.exists & ~tried).sum())
        note = f"Cut where the metric changes by less than {bound:.3g}; {made:,} trials."
        if left:
            note += f" {left:,} of {graph.n_edges:,} edges were not tried and stay in."
        scores = replace(estimate, values=values.clone(), method="acdc", note=note)
        return replace(scores, chosen=kept.clone())

    while waiting and made < runs:
        edges = waiting.pop()
        if not together and len(edges) > 1:
            waiting += edges.split(1)
            continue
        trial = kept.clone()
        trial[edges[:, 0], edges[:, 1]] = False
        level = with_cut(task, running, ~trial, should_stop)
        made += 1
        if abs(level - now) < bound:
            kept, now = trial, level
            values[edges[:, 0], edges[:, 1]] = 0.0
            tried[edges[:, 0], edges[:, 1]] = True
        elif len(edges) == 1:
            values[edges[0, 0], edges[0, 1]] = level - now
            tried[edges[0, 0], edges[0, 1]] = True
        else:
            size = estimate.values[edges[:, 0], edges[:, 1]].abs()
            weak, strong = edges[size.argsort()].tensor_split(2)
            waiting += [strong, weak]  # the weak half is tried first
        yield made, found()
    if not made:
        yield 0, found()


def _estimate(
    task: Task, how: Replacement, seed: int, should_stop: ShouldStop | None
) -> EdgeScores:
    """Score all edges; KL has no slope at the clean prompt, but half way to the corrupt one."""
    steps = 2 if task.metric.kind == "kl" else 1
    *_, (_, found) = eap_ig(task, how, steps=steps, seed=seed, should_stop=should_stop)
    return found


def _into(exists: Tensor, reader: int) -> Tensor:
    """Return LongTensor[edge, 2], (reader, source) of a reader's edges."""
    sources = exists[reader].nonzero().flatten()
    return torch.stack([torch.full_like(sources, reader), sources], -1)
