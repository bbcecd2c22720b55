"""Prompt pairs on tiny models, and the same measured with plain TransformerLens hooks.

Nothing of what is tested is used for the truth: values are read and put with `run_with_hooks` on
the bridge that no engine hooks, one pair after the other, and every run is whole.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch

from patchclamp import LogitDifference
from patchclamp.engine.engine import Engine
from patchclamp.engine.hooks import AFTER, Frame, Step, compile_stack
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference, Surroundings
from patchclamp.methods.task import Task
from tests.unit import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from patchclamp.interventions import Intervention
    from patchclamp.methods.metric import Metric
    from patchclamp.models.language_model import LanguageModel

    T = TypeVar("T")

LENGTH = 10
DIFFERS = 3
"""The first position at which a clean prompt and its corrupt one differ."""
BEGINNING = 1
EXACT = 1e-5
SEEN = 100 * EXACT


def task_on(
    model: LanguageModel | str,
    *,
    pairs: int = 3,
    metric: Metric | None = None,
    stack: Sequence[Intervention] = (),
    bos: bool = False,
    differs: int = DIFFERS,
    length: int = LENGTH,
) -> Task:
    """Make a task of random pairs; each has tokens of its own for the metric."""
    model = tiny.model(model) if isinstance(model, str) else model
    engine = Engine.of(model)
    clean, corrupt, tokens = [], [], []
    for pair in range(pairs):
        drawn = tiny.ids(2 * length, seed=pair).tolist()
        ids = [BEGINNING, *drawn[1:length]] if bos else drawn[:length]
        clean.append(Input(tuple(ids), has_bos=bos))
        corrupt.append(Input((*ids[:differs], *drawn[length + differs :]), has_bos=bos))
        tokens.append((5 + pair, 20 + pair))
    reference = Reference(
        engine,
        tuple(Input(tuple(tiny.ids(8, seed=50 + n).tolist()), has_bos=False) for n in range(3)),
    )
    metric = metric or LogitDifference(5, 20)
    own = tuple(tokens) if isinstance(metric, LogitDifference) else ((),) * pairs
    directions = {"up": torch.linspace(-1, 1, model.anatomy.d_model)}
    return Task(
        engine, tuple(clean), tuple(corrupt), metric, own, reference, tuple(stack), directions
    )


def on_worker(task: Task, job: Callable[[], T]) -> T:
    """Do something where the model's runs belong."""
    return task.engine.queue.submit(lambda _: job()).result()


class Plain:
    """A task's metric by plain TransformerLens hooks.

    Args:
        task: whose prompts, stack and metric are meant.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.anatomy = task.engine.model.anatomy
        self.bridge = task.engine.model.bridge
        self.largest = 0.0

    def prompts(self, side: str) -> Sequence[Input]:
        found = self.task.clean if side == "clean" else self.task.corrupt
        assert found is not None
        return found

    def run(
        self, side: str, pair: int, steps: Sequence[Step] = (), *, grad: bool = False
    ) -> torch.Tensor:
        """Return Float[pos, vocab]; the clean side is under the stack."""
        given = self.prompts(side)[pair]
        frame = Frame(0, len(given.ids), given.has_bos)
        stack: list[Step] = []
        if side == "clean" and self.task.stack:
            corrupt = self.task.corrupt[pair] if self.task.corrupt else None
            surroundings = Surroundings(
                self.task.engine, self.task.reference, corrupt, self.task.directions
            )
            stack = compile_stack(self.task.stack, self.anatomy, surroundings)
        ordered = sorted([*stack, *steps], key=lambda step: step.rank)

        def act(tensor: torch.Tensor, hook: object, step: Step) -> torch.Tensor | None:
            return step.apply(tensor, frame)

        hooks: list[Any] = [(step.hook, partial(act, step=step)) for step in ordered]
        ids = torch.tensor([given.ids], device=self.task.engine.model.device)
        bridge = self.bridge
        shown: AbstractContextManager[None] = nullcontext()
        if self.anatomy.delegated:
            # There the bridge's own pattern hook does nothing, so that it needs another bridge.
            bridge = _fresh(self.task.engine.model.name)
            shown = tiny.shown_patterns(bridge)
        with torch.set_grad_enabled(grad), shown:
            logits: torch.Tensor = bridge.run_with_hooks(ids, fwd_hooks=hooks)[0]
        self.largest = max(self.largest, float(logits.detach().abs().max()))
        return logits

    def values(self, side: str, hook: str, pair: int) -> torch.Tensor:
        """Return what stands at a hook point, Float[pos, ...], after the stack acted."""
        found: list[torch.Tensor] = []
        self.run(side, pair, [Step(hook, lambda x, _: found.append(x[0].clone()), AFTER)])
        return found[0]

    def gradient(self, hook: str, pair: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what stands at a hook point, and the metric's gradient by it, Float[pos, ...]."""
        held: list[torch.Tensor] = []

        def keep(x: torch.Tensor, _: Frame) -> torch.Tensor:
            held.append((x if x.requires_grad else x.detach().requires_grad_()).view_as(x))
            return held[0]

        logits = self.run("clean", pair, [Step(hook, keep)], grad=True)
        answer, wrong = self.task.tokens[pair]
        (grad,) = torch.autograd.grad(logits[-1, answer] - logits[-1, wrong], held)
        return held[0][0].detach(), grad[0]

    def replacement(self, how: str, hook: str, pair: int) -> torch.Tensor:
        """Return what is put in the place of what stands at a hook point, Float[pos, ...]."""
        clean = self.values("clean", hook, pair)
        if how == "corrupt":
            return self.values("corrupt", hook, pair)
        if how == "zero":
            return torch.zeros_like(clean)
        assert how == "mean"
        rows = []
        for given in self.task.reference.inputs:
            with torch.no_grad():
                _, found = self.bridge.run_with_cache(torch.tensor([given.ids]))
            rows.append(found[hook][0, 1:])
        return torch.cat(rows).mean(0).expand(clean.shape)

    def score(self, logits: torch.Tensor, pair: int) -> float:
        """Measure Float[pos, vocab] logits of a pair."""
        measure = on_worker(self.task, self.task.measure)
        alone = replace(
            measure,
            tokens=measure.tokens[[pair]],
            ids=measure.ids[[pair]],
            baseline=None if measure.baseline is None else self.unstacked(pair)[None, [-1]],
        )
        return float(alone(logits[list(self.task.rows)][None])[0])

    def unstacked(self, pair: int) -> torch.Tensor:
        """Return Float[pos, vocab] of a clean prompt without the stack."""
        return Plain(self.task.without_stack()).run("clean", pair)

    def level(self, side: str = "clean") -> float:
        """Return the metric of one side, averaged over the pairs."""
        found = [self.score(self.run(side, n), n) for n in range(self.task.n_pairs)]
        return sum(found) / len(found)

    def put(
        self,
        edits: Sequence[tuple[str, int | None, Sequence[int]]],
        value: Callable[[str, int], torch.Tensor],
        side: str = "clean",
    ) -> float:
        """Return the metric with values put in some places, averaged over the pairs.

        Args:
            edits: hook point, index there and positions of each.
            value: gives Float[pos, ...] of a hook point and a pair.
            side: which prompts are run.
        """
        total = 0.0
        for pair in range(self.task.n_pairs):
            steps = [
                Step(hook, partial(put, value=value(hook, pair), index=index, places=list(places)))
                for hook, index, places in edits
            ]
            total += self.score(self.run(side, pair, steps), pair)
        return total / self.task.n_pairs

    def everywhere(self) -> list[int]:
        """Return all positions but that of a beginning-of-sequence token."""
        return list(range(int(self.task.clean[0].has_bos), self.task.length))


_fresh = cache(tiny.fresh_bridge)


def put(
    x: torch.Tensor, _: Frame, *, value: torch.Tensor, index: int | None, places: list[int]
) -> torch.Tensor:
    """Put a value in some places of one run's tensor, Float[1, pos, ...]."""
    new = x.clone()
    if index is None:
        new[0, places] = value[places]
    else:
        new[0, places, index] = value[places, index]
    return new


def assert_same(found: torch.Tensor, truth: torch.Tensor, base: float, largest: float) -> None:
    """Say when a measured metric is not the true one, or no effect is there to be seen."""
    assert found.shape == truth.shape
    assert bool((found.isnan() == truth.isnan()).all())
    seen = ~truth.isnan()
    assert float((truth - base)[seen].abs().max()) >= SEEN * largest
    assert float((found - truth)[seen].abs().max()) <= EXACT * largest
