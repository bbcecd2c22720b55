"""Ablating, patching and scoring everything, against doing it one by one with TransformerLens.

One random prompt of 16 tokens, and a second one without a token in common, so that nothing is the
same in both; the metric is the difference of two logits. Ours is timed with nothing kept from the
time before but the model itself and the reference means: the prompts' own runs count, and so does
the way over the worker.

- *All heads ablated to their mean*: beside a plain loop of ``run_with_hooks``.
- *Activation patching*, clean into corrupt: beside TransformerLens' own ``patching`` functions,
  which are handed the clean run's cache.
- *EAP-IG* of every edge, 5 steps: beside exact path patching of a random sample of edges, both
  ours, as so much an edge. What path patching needs to know of the prompts it knows beforehand.

The loops are slow, so that both sides are timed on every third layer alone. They are run without
gradients, which TransformerLens' functions would otherwise keep. Both sides give the same numbers,
or the benchmark ends.
"""

from __future__ import annotations

import io
import random
from contextlib import redirect_stderr
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
import torch
from transformer_lens import patching

from patchclamp import LogitDifference, load
from patchclamp.engine.batch import Spot
from patchclamp.engine.engine import Engine
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference, reference_inputs
from patchclamp.methods.activation_patching import patching_edits
from patchclamp.methods.edge_attribution import eap_ig
from patchclamp.methods.levels import all_levels
from patchclamp.methods.path_patching import edge_runs, exact_edges
from patchclamp.methods.task import Task
from patchclamp.models import catalogue
from patchclamp.sites import Site
from tests.benchmarks.measure import Figure, faster, in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from patchclamp.methods.activation_patching import Over

T = TypeVar("T")

LENGTH = 16
EVERY = 3  # layers
ANSWER, WRONG = 500, 600
EXACT = 1e-5
SAMPLE = 48  # edges
THEIRS: Mapping[Over, str] = {
    "resid_pre": "resid_pre",
    "attn": "attn_out",
    "mlp": "mlp_out",
    "head": "attn_head_out_all_pos",
}


def figures(rounds: int = 3) -> Iterator[Figure]:
    """Measure the figures on the default model."""
    task = random_task()
    yield ablation(task, rounds)
    for over in THEIRS:
        yield patched(task, over, rounds)
    yield edges(task, rounds)


def random_task() -> Task:
    """Make a task of one pair of random prompts."""
    model = load(catalogue.SMOLLM2.name)
    engine = Engine.of(model)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(1000, model.anatomy.d_vocab, (2, LENGTH), generator=generator).tolist()
    clean, corrupt = (Input(tuple(ids), has_bos=False) for ids in drawn)
    return Task(
        engine,
        (clean,),
        (corrupt,),
        LogitDifference(ANSWER, WRONG),
        ((ANSWER, WRONG),),
        Reference(engine, reference_inputs(model, None)),
    )


def ablation(task: Task, rounds: int) -> Figure:
    """All heads ablated, one after the other."""
    anatomy, bridge = task.engine.model.anatomy, task.engine.model.bridge
    heads = [
        (n, head) for n in range(0, anatomy.n_layers, EVERY) for head in range(anatomy.n_heads)
    ]
    edits = [(Spot.of(Site("head", *place, "z"), anatomy),) for place in heads]
    hooks = list(dict.fromkeys(spot.hook for (spot,) in edits))
    means = on_worker(task, lambda: task.replaced(hooks, "mean"))
    ids = torch.tensor([task.clean[0].ids])

    def ours(_: float) -> Tensor:
        fresh = replace(task, _kept={})
        return on_worker(task, lambda: all_levels(fresh, edits, fresh.replaced(hooks, "mean")))

    def loop(_: float) -> Tensor:
        found = []
        for (layer, head), (spot,) in zip(heads, edits, strict=True):
            mean = means[spot.hook][0, 0, head]

            def ablate(z: Tensor, hook: object, head: int = head, mean: Tensor = mean) -> Tensor:
                del hook
                z = z.clone()
                z[:, :, head] = mean
                return z

            with torch.no_grad():
                name = f"blocks.{layer}.attn.hook_z"
                logits = bridge.run_with_hooks(ids, fwd_hooks=[(name, ablate)])
            found.append(difference(logits))
        return torch.stack(found)

    ways = {"loop": loop, "ours": ours}
    must_agree(task, ways)
    t = in_turns(ways, rounds)
    return faster(f"all-heads-ablated:T={LENGTH}:loop/ours", t["loop"], t["ours"], 6)


def patched(task: Task, over: Over, rounds: int) -> Figure:
    """Every activation of a kind, clean into corrupt."""
    bridge = task.engine.model.bridge
    assert task.corrupt is not None
    clean, corrupt = (torch.tensor([side[0].ids]) for side in (task.clean, task.corrupt))
    edits = {p: edit for p, edit in patching_edits(task, over).items() if p[0] % EVERY == 0}
    hooks = list(dict.fromkeys(spot.hook for (spot,) in edits.values()))
    column = "head" if over == "head" else "pos"
    index = pd.DataFrame(list(edits), columns=["layer", column])
    sweep: Any = getattr(patching, f"get_act_patch_{THEIRS[over]}")
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)

    def ours(_: float) -> Tensor:
        fresh = replace(task, _kept={})
        return on_worker(
            task,
            lambda: all_levels(
                fresh, list(edits.values()), fresh.base().capture(hooks), side="corrupt"
            ),
        )

    def theirs(_: float) -> Tensor:
        with torch.no_grad(), redirect_stderr(io.StringIO()):  # a progress bar
            found: Tensor = sweep(
                bridge, corrupt, cache, difference, index_df=index, index_axis_names=None
            )
        return found

    ways = {"theirs": theirs, "ours": ours}
    must_agree(task, ways)
    t = in_turns(ways, rounds)
    return faster(f"patching-{over}:T={LENGTH}:transformer-lens/ours", t["theirs"], t["ours"], 3)


def edges(task: Task, rounds: int) -> Figure:
    """Every edge scored, against a sample of edges that are cut."""
    runs = on_worker(task, lambda: edge_runs(task))
    every = runs.graph.exists.nonzero().tolist()
    drawn = random.Random(0).sample([(int(r), int(s)) for r, s in every], SAMPLE)  # noqa: S311

    def scored(_: float) -> object:
        fresh = replace(task, _kept={})
        return on_worker(task, lambda: list(eap_ig(fresh)))

    def cut(_: float) -> object:
        return on_worker(task, lambda: list(exact_edges(task, runs, drawn)))

    t = in_turns({"scored": scored, "cut": cut}, rounds)
    every_cut = [seconds * len(every) / SAMPLE for seconds in t["cut"]]
    name = f"eap-ig:T={LENGTH}:{len(every)}-edges:exact/estimated"
    return faster(name, every_cut, t["scored"], 100)


def difference(logits: Tensor) -> Tensor:
    """Return the metric of Float[1, pos, vocab] logits."""
    return logits[0, -1, ANSWER] - logits[0, -1, WRONG]


def on_worker(task: Task, job: Callable[[], T]) -> T:
    """Do something where the model's runs belong."""
    return task.engine.queue.submit(lambda _: job()).result()


def must_agree(task: Task, ways: Mapping[str, Callable[[float], Tensor]]) -> None:
    """Raise where two ways do not give the same numbers: they would not be the same work."""
    largest = float(on_worker(task, lambda: task.base().logits((-1,))).abs().max())
    truth, *others = (way(0.0) for way in ways.values())
    for found in others:
        off = float((found - truth).abs().max()) / largest
        if not off <= EXACT:
            raise ValueError(f"They differ by {off:.1e} of the largest logit.")
