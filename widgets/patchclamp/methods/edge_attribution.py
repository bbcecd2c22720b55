"""Which edges matter, estimated from gradients for all of them at once: EAP and EAP-IG.

Edge attribution patching (Syed, Rager and Conmy, "Attribution Patching Outperforms Automated
Circuit Discovery", 2023): to first order, replacing what an edge from u to v carries changes the
metric m by

    score(u, v) = sum over positions of (u' - u) . dm/dv,

with u what the source writes, u' what it is replaced by, and dm/dv the metric's gradient by what
the reader v reads from the residual stream, through v's own norm and projection alone. With
integrated gradients (EAP-IG; Hanna, Pezzelle and Belinkov, "Have Faith in Faithfulness", 2024) the
gradient is the mean over ``steps`` runs in which the stream entering the first block is k / steps
of the way from its replacement to the clean one, k = 1 .. steps; one step is EAP.

A source's scores over all its readers add up to its *node* score, (u' - u) . dm/du: attribution
patching (Nanda 2023). All scores are averages over the prompt pairs, in units of the metric, and
estimate what :func:`patchclamp.methods.path_patching.exact_edges` measures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from patchclamp.engine.hooks import reader_of
from patchclamp.errors import InputError, MetricError
from patchclamp.methods.path_patching import cut_levels, edge_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import pandas as pd
    from torch import Tensor

    from patchclamp.engine.edges import EdgeRuns, Graph
    from patchclamp.methods.task import Replacement, Task

    ShouldStop = Callable[[], bool]

STEPS = 5
"""Runs of integrated gradients."""

Of = Literal["edges", "nodes"]
Method = Literal["attribution", "eap", "eap-ig", "acdc"]


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """Scores of all edges of a model.

    Attributes:
        graph: the edges.
        values: Float[reader, source]: what cutting an edge does to the metric; NaN where there is
            no edge, or nothing is known of one.
        method: how they were found.
        how: what edges carry when they are cut.
        clean: the metric with nothing cut, averaged over the pairs.
        corrupt: the metric with every edge cut.
        chosen: Bool[reader, source], the circuit, where the method says one.
        note: what a reader must know; may be empty.
    """

    graph: Graph
    values: Tensor
    method: Method
    how: Replacement
    clean: float
    corrupt: float
    chosen: Tensor | None = field(default=None, repr=False)
    note: str = ""

    def nodes(self) -> Tensor:
        """Return Float[source]: what replacing all that a source writes does, to first order."""
        return self.values.nansum(0)

    def total(self, of: Of = "edges") -> int:
        """How many edges, or sources, there are."""
        return self.graph.n_edges if of == "edges" else len(self.graph.sources)

    def ranked(self) -> list[tuple[int, int]]:
        """Return (reader, source) of all edges, the largest absolute score first."""
        size = self.values.abs().nan_to_num(-1.0)
        order = size[self.graph.exists].argsort(descending=True, stable=True)
        places = self.graph.exists.nonzero()[order]
        return [(int(reader), int(source)) for reader, source in places.tolist()]

    def top(self, count: int, of: Of = "edges") -> Tensor:
        """Return Bool[reader, source]: the edges with the largest absolute scores.

        Args:
            count: how many, of all if there are fewer.
            of: "nodes" takes so many sources, with all edges between them and to the logits.
        """
        exists = self.graph.exists
        kept = torch.zeros_like(exists)
        count = max(0, min(count, self.total(of)))
        if of == "nodes":
            kept[:, self.nodes().abs().argsort(descending=True, stable=True)[:count]] = True
            return kept & exists
        size = self.values.abs().nan_to_num(-1.0)[exists]
        flat = torch.zeros(len(size), dtype=torch.bool)
        flat[size.argsort(descending=True, stable=True)[:count]] = True
        kept[exists] = flat
        return kept

    def threshold(self, count: int, of: Of = "edges") -> float:
        """Return the least absolute score among the largest ``count``; 0 of none."""
        size = self.nodes().abs() if of == "nodes" else self.values[self.graph.exists].abs()
        size = size.nan_to_num(0.0).sort(descending=True).values
        return float(size[min(count, len(size)) - 1]) if count > 0 else 0.0

    def frame(self, edges: Sequence[tuple[int, int]] | None = None) -> pd.DataFrame:
        """Return a table: address, source, reader, estimate.

        Args:
            edges: (reader, source) of each row; all, the largest first, without.
        """
        import pandas as pd

        chosen = self.ranked() if edges is None else list(edges)
        return pd.DataFrame(
            {
                "address": [self.graph.edge(*edge) for edge in chosen],
                "source": [self.graph.sources[source].address for _, source in chosen],
                "reader": [self.graph.readers[reader].address for reader, _ in chosen],
                "estimate": [float(self.values[edge]) for edge in chosen],
            }
        )


def eap(
    task: Task,
    how: Replacement = "corrupt",
    *,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> EdgeScores:
    """Score all edges by edge attribution patching; see this module and :func:`eap_ig`."""
    *_, (_, found) = eap_ig(task, how, steps=1, seed=seed, should_stop=should_stop)
    return found


def eap_ig(
    task: Task,
    how: Replacement = "corrupt",
    *,
    steps: int = STEPS,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> Generator[tuple[int, EdgeScores], None, None]:
    """Score all edges by edge attribution patching with integrated gradients; see this module.

    Runs on the model's worker. The task's stack does not act.

    Args:
        task: the prompt pairs and the metric.
        how: what edges carry when they are cut.
        steps: of the integrated gradients; 1 takes the gradient of the clean run alone.
        seed: of what is resampled.
        should_stop: asked before every block.

    Yields:
        How many of the ``steps`` are done for all pairs, and the scores, whose values are whole
        with the last step; until then they are the mean of fewer.

    Raises:
        ModelError: when the model has no graph of components.
        InputError: when there is no corrupt prompt where one is needed.
        MetricError: when the metric has no gradient, or none at the clean prompt, or is not finite.
    """
    if steps < 1:
        msg = f"Integrated gradients take at least one step, not {steps}."
        raise InputError(msg)
    if steps == 1 and task.metric.kind == "kl":
        msg = (
            "KL from the baseline has its minimum at the clean prompt, so every estimate from the "
            "gradient there is 0: take more steps of integrated gradients, or a logit difference."
        )
        raise MetricError(msg)
    runs = edge_runs(task, how, seed=seed, should_stop=should_stop)
    clean, corrupt = ends(task, runs, should_stop)
    total = torch.zeros(runs.graph.exists.shape)
    for done, step in enumerate(range(steps, 0, -1), start=1):
        total += _step(task, runs, step / steps, should_stop)
        values = torch.where(runs.graph.exists, total / done, torch.nan)
        method: Method = "eap" if steps == 1 else "eap-ig"
        yield done, EdgeScores(runs.graph, values, method, how, clean, corrupt)


def ends(task: Task, runs: EdgeRuns, should_stop: ShouldStop | None = None) -> tuple[float, float]:
    """Return the metric with no edge cut and with every edge cut, averaged over the pairs."""
    nothing = torch.zeros_like(runs.graph.exists)
    cuts = [nothing, runs.graph.exists]
    *_, (_, found) = cut_levels(task, runs, cuts, should_stop=should_stop)
    return float(found[0]), float(found[1])


def _step(task: Task, runs: EdgeRuns, share: float, should_stop: ShouldStop | None) -> Tensor:
    """Return Float[reader, source], the scores by the gradient so far from the replacement."""
    batch, graph = runs.batch, runs.graph
    measure = task.measure(should_stop)
    found = torch.zeros(graph.exists.shape)
    by_hook: dict[str, list[int]] = {}
    norms: dict[str, str] = {}
    for reader, site in enumerate(graph.readers[:-1]):
        path, hook, _ = reader_of(site, graph.anatomy)
        by_hook.setdefault(hook, []).append(reader)
        norms[hook] = f"{path}.hook_in"
    hooks = list(dict.fromkeys([*by_hook, *norms.values()]))
    # Values and gradients at every hook point are held at once: only of so many pairs.
    for begin in range(0, batch.count, batch.at_once):
        items = list(range(begin, min(begin + batch.at_once, batch.count)))
        apart = [runs.difference(source, items) for source in range(len(graph.sources))]
        whole = torch.stack(apart).flatten(1)
        stream = batch.residual(0)[items]
        moved = stream.clone()
        moved[:, runs.offset :] -= (1 - share) * apart[0]
        taken, (_, final), _ = batch.gradients(
            hooks,
            lambda logits, of: measure.at(of).differentiable(logits),
            task.rows,
            items=items,
            inject=moved,
            should_stop=should_stop,
        )
        for hook, readers in by_hook.items():
            values, _ = taken[norms[hook]]
            _, slope = taken[hook]
            slopes = runs.slopes(readers, values[:, runs.offset :], slope[:, runs.offset :])
            before = graph.before[readers[0]]
            found[readers, :before] -= (slopes.flatten(1) @ whole[:before].T).cpu().float()
        found[-1] -= (final[:, runs.offset :].flatten() @ whole.T).cpu().float()
    return found / batch.count
