"""Forward passes over a model's twins: hooks on, compute what is asked for, hooks off."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from patchclamp.engine.attention_interface import (
    HOOKED,
    RECORD,
    RecordedError,
    Scores,
    switched,
)
from patchclamp.engine.hooks import Frame, Step
from patchclamp.engine.plan import Plan
from patchclamp.engine.shell import Pass, Shell
from patchclamp.engine.twin import Twins
from patchclamp.errors import InterventionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from patchclamp.engine.plan import Input
    from patchclamp.models.language_model import LanguageModel

    ShouldStop = Callable[[], bool]

_AFTER_THE_BLOCKS = 10**6


@dataclass(frozen=True)
class Shortcuts:
    """Which short cuts are exact on a model.

    Attributes:
        layers: starting from a cached residual stream.
        positions: reusing keys and values.
        plain: running blocks that nothing hooks without hook points.
        reasons: a sentence for each that is not taken.
    """

    layers: bool
    positions: bool
    plain: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Result:
    """What a pass gave.

    Attributes:
        logits: Float[item, row, vocab]; None where it ended before the last norm.
        residual: Float[item, row, d_model] by layer, where it was recorded.
        cache: the keys and values, where the model keeps any.
        blocks: how many blocks ran.
    """

    logits: Tensor | None
    residual: dict[int, Tensor]
    cache: DynamicCache | None
    blocks: int


class Passes:
    """Runs a model's blocks, hooked or plain, from any layer and position.

    Args:
        model: whose blocks; its own modules are not touched.

    Attributes:
        shortcuts: what may be used; the engine narrows it to what was seen to be exact.
        bridge: the hooked twin.
        shells: the "hooked" and the "plain" twin, ready to run in part.
        attention_checked: whether it was tried to make attention patterns of queries and keys.
        attention_reason: why that does not hold; None where it does.
    """

    def __init__(self, model: LanguageModel) -> None:
        twins = Twins(model)
        self.shortcuts = Shortcuts(layers=True, positions=True, plain=True)
        self.bridge = twins.bridge
        self.shells = {
            "hooked": Shell(twins.hooked, twins.block_path),
            "plain": Shell(twins.plain, twins.block_path),
        }
        self.attention_checked = False
        self.attention_reason: str | None = None
        self._model = model
        self._hook_points = twins.hook_points

    def run(
        self,
        given: Input,
        items: Sequence[Sequence[Step]],
        now: Pass,
        plan: Plan | None = None,
        *,
        plain: bool = True,
        grad: bool = False,
    ) -> Result:
        """Run one input, once for each list of steps, as a batch.

        Args:
            given: the input.
            items: the steps of each batch item.
            now: what to compute; where it starts comes from ``plan``.
            plan: where to start; from the beginning without.
            plain: run blocks that nothing hooks without hook points.
            grad: keep what a gradient needs.

        Raises:
            Stopped: when ``now.should_stop`` said so.
            InterventionError: when a step's hook point never fires.
        """
        plan = plan or Plan()
        first = plan.position
        ids = torch.tensor(given.ids[first:]).expand(len(items), -1)
        if plan.parent is not None:
            stream = plan.parent.residual[plan.layer][first:]
            now = replace(now, start=plan.layer, inject=stream.expand(len(items), -1, -1))
        cache = None
        if self.shortcuts.positions and not grad:
            cache = _cache(plan, len(items))
        frame = Frame(first, len(given.ids), has_bos=given.has_bos)
        with torch.set_grad_enabled(grad):
            return self.forward(ids, items, frame, now, cache=cache, plain=plain)

    def forward(
        self,
        ids: Tensor,
        items: Sequence[Sequence[Step]],
        frame: Frame,
        now: Pass,
        *,
        cache: DynamicCache | None = None,
        plain: bool = True,
        shared: Sequence[Step] = (),
    ) -> Result:
        """Run rows of tokens, one for each list of steps (or many under one list).

        Args:
            ids: LongTensor[item, row].
            items: the steps of each item; a single list acts on all of them.
            frame: which positions the rows are.
            now: what to compute.
            cache: keys and values of the positions before, which grows by the new ones.
            plain: run blocks that nothing hooks without hook points.
            shared: steps that act on the whole batch, after the items' own of the same rank.
        """
        layers = {layer_of(step.hook) for steps in (*items, shared) for step in steps}
        hooked = {layer for layer in layers if _acts(layer, now)}
        n_layers = self._model.anatomy.n_layers
        inside = all(0 <= layer < n_layers for layer in hooked)
        kind = "plain" if plain and self.shortcuts.plain and inside else "hooked"
        shell, with_hooks = self.shells[kind], self.shells["hooked"].blocks
        now = replace(
            now,
            blocks=[
                with_hooks[layer] if layer in hooked else block
                for layer, block in enumerate(shell.blocks)
            ],
            residual={},
        )
        with ExitStack() as during:
            during.enter_context(self._hooked(items, shared, frame, now))
            if self._model.anatomy.delegated and any(
                step.hook.endswith("attn.hook_pattern")
                for steps in (*items, shared)
                for step in steps
            ):
                during.enter_context(switched(self.shells["hooked"].root, HOOKED))
            logits = shell.run(
                ids.to(self._model.device), now, cache=cache, first_position=frame.start
            )
        return Result(logits, now.residual, cache, now.computed)

    def read(self, final: Tensor, *, grad: bool = False) -> Tensor:
        """Return Float[item, row, vocab] logits of Float[item, row, d_model] final streams."""
        shell = self.shells["plain" if self.shortcuts.plain else "hooked"]
        ids = torch.zeros(final.shape[:2], dtype=torch.long, device=final.device)  # any will do
        with torch.set_grad_enabled(grad):
            logits = shell.run(ids, Pass(shell.blocks, start=len(shell.blocks), inject=final))
        assert logits is not None  # noqa: S101 (no layer to stop at was given)
        return logits

    def scores(self, ids: Sequence[int], layer: int, stream: Tensor) -> Scores:
        """Return what the attention scores of a layer are made of, running its block alone.

        Args:
            ids: the token ids of the input.
            layer: which block.
            stream: Float[pos, d_model], the residual stream entering it.

        Raises:
            RecordedError: with the reason, where its attention does not say all of it.
        """
        shell = self.shells["plain"]
        now = Pass(shell.blocks, start=layer, inject=stream[None], stop=layer + 1)
        tokens = torch.tensor([list(ids)], device=self._model.device)
        with torch.no_grad(), switched(shell.root, RECORD):
            try:
                shell.run(tokens, now, cache=DynamicCache() if self.shortcuts.positions else None)
            except RecordedError as found:
                if found.scores is None:
                    raise
                return found.scores
        raise RecordedError(None, "its attention is computed by code that hands nothing over")

    def module(self, path: str) -> torch.nn.Module:
        """Return a component of the hooked twin by its TransformerLens path."""
        found: Any = self.bridge
        for part in path.split("."):
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        return found  # type: ignore[no-any-return]

    @contextmanager
    def _hooked(
        self, items: Sequence[Sequence[Step]], shared: Sequence[Step], frame: Frame, now: Pass
    ) -> Iterator[None]:
        """Put steps on the hooked twin's hook points, and take them away whatever happens."""
        by_hook: dict[str, list[tuple[int | None, Step]]] = {}
        own = [
            (index if len(items) > 1 else None, step)
            for index, steps in enumerate(items)
            for step in steps
        ]
        for index, step in (*own, *((None, step) for step in shared)):
            if _acts(layer_of(step.hook), now):
                by_hook.setdefault(step.hook, []).append((index, step))
        fired: set[str] = set()
        points = []
        try:
            for name, entries in by_hook.items():
                entries.sort(key=lambda entry: entry[1].rank)
                if name not in self._hook_points:
                    msg = f"{self._model.name} has no hook point {name}."
                    raise InterventionError(msg)
                point = self._hook_points[name]
                points.append(point)
                point.add_hook(_combined(name, entries, frame, fired))
            yield
        finally:
            for point in points:
                point.remove_hooks("fwd")
        silent = sorted(set(by_hook) - fired)
        if silent:
            msg = (
                f"{self._model.name} never passes through {silent[0]}: an intervention there would "
                "do nothing. It is computed by code that TransformerLens cannot look into."
            )
            raise InterventionError(msg)


def reading(name: str, taken: dict[str, Tensor]) -> Step:
    """Make the step that keeps what stands at a hook point."""

    def apply(tensor: Tensor, _frame: Frame) -> None:
        taken[name] = tensor.detach()

    return Step(name, apply)


def leaf(hook: str, taken: dict[str, Tensor], name: str | None = None) -> Step:
    """Make the step that keeps what stands at a hook point so that a gradient can be asked for.

    It is kept by the name given, or else by the hook point's.
    """
    name = hook if name is None else name

    def apply(tensor: Tensor, _frame: Frame) -> Tensor:
        # A tensor of its own, or the hook point would go on with what it had: of a head's values
        # that is another view than the one that is kept, and no gradient would reach this one.
        taken[name] = asking(tensor).view_as(tensor)
        return taken[name]

    return Step(hook, apply)


def asking(tensor: Tensor) -> Tensor:
    """Return a tensor that a gradient can be taken by: where parameters are frozen, anew."""
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def last_layer(hooks: Sequence[str]) -> int:
    """Return the number of the layer after the last one of some hook points."""
    return max(layer_of(name) for name in hooks) + 1


def first_layer(hooks: Sequence[str]) -> int:
    """Return the lowest layer of some hook points; the embedding counts as layer 0."""
    return max(min(layer_of(name) for name in hooks), 0)


def _cache(plan: Plan, batch: int) -> DynamicCache:
    """Make a cache that holds an earlier run's keys and values before the first position."""
    cache, parent, first = DynamicCache(), plan.parent, plan.position
    if parent is not None and first and parent.keys is not None and parent.values is not None:
        cache.layers = [
            filled_layer(
                k[:, :first].expand(batch, -1, -1, -1), v[:, :first].expand(batch, -1, -1, -1)
            )
            for k, v in zip(parent.keys, parent.values, strict=True)
        ]
    return cache


def filled_layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    """Make one layer of a cache from Float[batch, head, pos, d_head] keys and values."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


def layer_of(hook: str) -> int:
    """Return a hook point's layer: -1 at the embedding, a large number after the blocks."""
    if hook.startswith("blocks."):
        return int(hook.split(".")[1])
    return -1 if "embed" in hook and "unembed" not in hook else _AFTER_THE_BLOCKS


def _acts(layer: int, now: Pass) -> bool:
    """Say whether a hook of a layer fires in a pass."""
    return (now.start or -1) <= layer and (now.stop is None or layer < now.stop)


def _combined(
    name: str, entries: Sequence[tuple[int | None, Step]], frame: Frame, fired: set[str]
) -> Callable[..., Tensor | None]:
    """Make one hook of all the steps at a hook point; each acts on its own batch item, in order."""

    def act(tensor: Tensor, hook: object) -> Tensor | None:  # noqa: ARG001 (TransformerLens' word)
        fired.add(name)
        now = tensor
        owned = False
        for index, step in entries:
            if index is None:
                changed = step.apply(now, frame)
                now = now if changed is None else changed
                continue
            changed = step.apply(now[index : index + 1], frame)
            if changed is not None:
                if not owned:
                    now, owned = now.clone(), True
                now[index : index + 1] = changed
        return None if now is tensor else now

    return act
