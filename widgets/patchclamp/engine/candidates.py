"""Prompts that differ in one token: what a search for prompts tries by the thousand.

A search asks two numbers of a prompt: a score (a number made of what stands at hook points) and its
cross-entropy, the mean over its tokens of -log p(token | those before), in nats, by the model that
is searched. :class:`Candidates` computes both with no more work than they need, and exactly:

- *positions*: a prompt with one token swapped is its parent up to there. The parent's keys and
  values are taken over, and so are its predictions up to that token; only positions from the swap
  on are computed.
- *layers*: the score needs the blocks up to the last hook point that it reads. The cross-entropy
  needs the others as well: a search that can tell by the score, and by what the tokens up to the
  swap already cost, that a prompt is of no use leaves them out.
- *batches*: swaps in the same place, and of many parents, run together.

A text's beginning-of-sequence token is position 0 of every prompt. It is never swapped, it is not
counted among the tokens that are predicted, and the first token is predicted from it. Without such
a token the first token is not predicted, and a prompt of one token has no cross-entropy (NaN).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

import torch
from transformers.cache_utils import DynamicCache

from patchclamp.engine.batch import ROWS
from patchclamp.engine.hooks import Frame, Step
from patchclamp.engine.passes import filled_layer, layer_of, reading
from patchclamp.engine.shell import Pass
from patchclamp.errors import BudgetError, InputError, MetricError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from patchclamp.engine.engine import Engine
    from patchclamp.engine.passes import Result

    ShouldStop = Callable[[], bool]
    Worth = Callable[[Tensor, Tensor], Tensor]


class Score(Protocol):
    """A number that a search makes large."""

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hook points that it reads."""
        ...

    @property
    def text(self) -> str:
        """How a reader knows it."""
        ...

    def value(self, values: Mapping[str, Tensor], *, start: int = 0) -> Tensor:
        """Return Float[batch] of Float[batch, pos, ...] by hook point."""
        ...


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a prompt's own run left for those that differ from it in a token.

    Attributes:
        ids: its token ids, with a beginning-of-sequence token where the model has one.
        activation: its score.
        losses: Float[pos - 1], the nats of each token but the first, given those before.
        taken: Float[pos, ...], what stands at the score's hook points.
        stream: Float[pos, d_model], the residual stream after the score's blocks.
        keys: Float[head, pos, d_head] of every layer; none where the model keeps no cache.
        values: the same of the values.
        log_probs: Float[pos, vocab], its predictions.
        slopes: Float[pos, d_model] each, the gradients of the score and of the cross-entropy by the
            tokens' embeddings; None where nobody asked.
    """

    ids: tuple[int, ...]
    activation: float
    losses: Tensor
    taken: Mapping[str, Tensor]
    stream: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    log_probs: Tensor
    slopes: tuple[Tensor, Tensor] | None = None

    @property
    def cross_entropy(self) -> float:
        """Nats a token; NaN where no token is predicted."""
        return float(self.losses.mean())


@dataclass(frozen=True)
class Swap:
    """A prompt with one token put in the place of another.

    Attributes:
        parent: which of some prompts.
        position: where; a beginning-of-sequence token is position 0.
        token: what is put there.
    """

    parent: int
    position: int
    token: int


@dataclass(frozen=True, eq=False)
class Tried:
    """What became of some swaps.

    Attributes:
        items: which swaps.
        activations: Float[item], their scores.
        cross_entropies: Float[item], nats a token; infinite where it was not worth computing.
    """

    items: list[int]
    activations: Tensor
    cross_entropies: Tensor


@dataclass(eq=False)
class Candidates:
    """Runs prompts of one length that differ in single tokens.

    Its methods compute where they are called, so they belong on the model's worker.

    Args:
        engine: what runs the model.
        score: what is asked of a prompt besides its cross-entropy.
        length: how many tokens a prompt has, besides a beginning-of-sequence token.

    Raises:
        InputError: when there is no token, or more than the model takes.
        ModelError: when the model is not causal.
        BudgetError: when the predictions of one prompt are more than the engine's budget.
    """

    engine: Engine
    score: Score
    length: int
    _stop: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        model = self.engine.model
        if not model.anatomy.causal:
            msg = (
                f"{model.name} reads both ways: prompts are searched for where each token is "
                "predicted from those before it."
            )
            raise ModelError(msg)
        most = model.n_ctx - len(self.front)
        if not 1 <= self.length <= most:
            msg = (
                f"A prompt of {self.length} tokens was asked for; {model.name} takes 1 to "
                f"{most:,}"
                f"{' besides its beginning-of-sequence token' if self.front else ''}."
            )
            raise InputError(msg)
        # Logits, their logarithms as probabilities and a gradient of them, of one prompt.
        need = 3 * 4 * self.n_pos * model.anatomy.d_vocab
        if need > self.engine.budget:
            msg = (
                f"The predictions of a prompt of {self.length:,} tokens take {need / 2**20:,.0f} "
                f"MiB, and the budget is {self.engine.budget / 2**20:,.0f} MiB: search for a "
                "shorter one."
            )
            raise BudgetError(msg)
        self._weights = model.weights_version
        n_layers = model.anatomy.n_layers
        last = max(layer_of(hook) for hook in self.score.hooks) + 1
        self._stop = min(last, n_layers) if self.engine.shortcuts.layers else n_layers
        self._inner = [hook for hook in self.score.hooks if layer_of(hook) < n_layers]
        self._outer = [hook for hook in self.score.hooks if layer_of(hook) >= n_layers]

    @property
    def front(self) -> tuple[int, ...]:
        """What stands before every prompt: the beginning-of-sequence token, or nothing."""
        bos = self.engine.model.bos_id
        return () if bos is None else (bos,)

    @property
    def n_pos(self) -> int:
        """How many positions a prompt has."""
        return len(self.front) + self.length

    @property
    def swappable(self) -> range:
        """The positions of the tokens that are searched for."""
        return range(len(self.front), self.n_pos)

    @cached_property
    def embeddings(self) -> Tensor:
        """Float[vocab, d_model], what the model embeds each token as, before positions."""
        module = self._embeddings_of("plain")
        with torch.no_grad():
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.Tensor):
                few = torch.arange(min(8, len(weight)), device=weight.device)
                if torch.equal(module(few), weight[few]):
                    return weight.detach()
            every = torch.arange(self.engine.model.anatomy.d_vocab)
            return cast("Tensor", module(every.to(self.engine.model.device))).detach()

    # --- prompts by themselves -------------------------------------------------------------------

    def prompts(
        self,
        ids: Sequence[tuple[int, ...]],
        *,
        slopes: bool = True,
        should_stop: ShouldStop | None = None,
    ) -> list[Prompt]:
        """Run whole prompts, and keep what swaps in them build on.

        Args:
            ids: token ids of each, with the beginning-of-sequence token.
            slopes: differentiate score and cross-entropy by the tokens' embeddings.
            should_stop: asked before every block.

        Raises:
            MetricError: when the score or the cross-entropy is no finite number, or the score has
                no gradient.
            ModelError: when the weights have changed since the search began.
            Stopped: when ``should_stop`` said so.
        """
        self._same_weights()
        size = max(1, ROWS // self.n_pos)
        return [
            prompt
            for begin in range(0, len(ids), size)
            for prompt in self._prompts(ids[begin : begin + size], should_stop, slopes=slopes)
        ]

    def _prompts(
        self, ids: Sequence[tuple[int, ...]], should_stop: ShouldStop | None, *, slopes: bool
    ) -> list[Prompt]:
        passes, n_layers = self.engine.passes, self.engine.model.anatomy.n_layers
        tokens = torch.tensor(ids, device=self.engine.model.device)
        cache = DynamicCache() if passes.shortcuts.positions else None
        taken: dict[str, Tensor] = {}
        embedded: list[Tensor] = []
        with torch.set_grad_enabled(slopes):
            with self._embedding(embedded, watch=slopes):
                result = passes.forward(
                    tokens,
                    [[]],
                    self._frame(0),
                    Pass(stop=n_layers, record=True, should_stop=should_stop),
                    cache=cache,
                    shared=[_watching(hook, taken) for hook in self._inner],
                )
            logits = self._read(result.residual[n_layers], taken, grad=slopes)
            log_probs = logits.float().log_softmax(-1)  # in half precision nats would be coarse
            losses = -log_probs[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
            scores = self.score.value(taken, start=len(self.front))
            self._check(scores, ids)
            self._check(losses.sum(-1), ids, "cross-entropy")
            found = self._slopes(scores, losses, embedded) if slopes else None
        layers = [] if cache is None else cache.layers
        keys = [each.keys.detach() for each in layers]  # type: ignore[union-attr] # just filled
        values = [each.values.detach() for each in layers]  # type: ignore[union-attr]
        return [
            Prompt(
                tuple(one),
                float(scores[item].detach()),
                losses[item].detach(),
                {hook: tensor[item].detach() for hook, tensor in taken.items()},
                result.residual[self._stop][item].detach(),
                tuple(each[item] for each in keys),
                tuple(each[item] for each in values),
                log_probs[item].detach(),
                None if found is None else (found[0][item], found[1][item]),
            )
            for item, one in enumerate(ids)
        ]

    def _slopes(
        self, scores: Tensor, losses: Tensor, embedded: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        if not scores.requires_grad:
            msg = (
                f"{self.score.text} has no gradient: it must be computed from the activations by "
                "operations that torch can differentiate."
            )
            raise MetricError(msg)
        (up,) = torch.autograd.grad(
            scores.sum(), embedded, retain_graph=True, materialize_grads=True
        )
        if not losses.numel():
            return up, torch.zeros_like(up)
        (dear,) = torch.autograd.grad(losses.mean(-1).sum(), embedded, materialize_grads=True)
        return up, dear

    # --- swaps -----------------------------------------------------------------------------------

    def swaps(
        self,
        parents: Sequence[Prompt],
        swaps: Sequence[Swap],
        *,
        worth: Worth | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Iterator[Tried]:
        """Try swaps; those that cost least, in the last positions, come first.

        Args:
            parents: what :meth:`prompts` gave.
            swaps: one token of one parent each.
            worth: from Float[item] scores and Float[item], what the cross-entropies are at least,
                to Bool[item], whose cross-entropy is to be computed; asked again before each chunk,
                so that it may grow pickier. All without.
            should_stop: asked before every block.

        Yields:
            After each chunk what is known of which swaps. There may be none.

        Raises:
            MetricError: when a score or a cross-entropy is no finite number.
            ModelError: when the weights have changed since the parents were run.
            Stopped: when ``should_stop`` said so.
        """
        order = sorted(range(len(swaps)), key=lambda item: -swaps[item].position)
        waiting: list[_Waiting] = []
        for first, items in self._chunks(order, swaps, self.n_pos):
            self._same_weights()  # others may have the model between chunks
            scores, streams = self._scores(parents, swaps, items, first, should_stop)
            least = torch.stack([self._at_least(parents, swaps[item]) for item in items])
            wanted = _asked(worth, scores, least)
            # After the last position nothing is left to predict: the bound is the number itself.
            last = torch.tensor([swaps[item].position == self.n_pos - 1 for item in items])
            exact = torch.where(last.to(least.device), least, torch.inf)
            known = [place for place in range(len(items)) if last[place] or not wanted[place]]
            waiting += [
                _Waiting(item, scores[place], least[place], streams[place])
                for place, item in enumerate(items)
                if place not in known
            ]
            yield Tried([items[place] for place in known], scores[known], exact[known])
        waiting_by = {each.item: each for each in waiting}
        for first, items in self._chunks([each.item for each in waiting], swaps, self.n_pos - 1):
            self._same_weights()
            these = [waiting_by.pop(item) for item in items]
            scores, least = (torch.stack([getattr(w, name) for w in these]) for name in _ASKED)
            wanted = _asked(worth, scores, least)
            found = torch.full_like(least, torch.inf)
            kept = [place for place in range(len(these)) if wanted[place]]
            if kept:
                found[kept] = self._cross_entropies(
                    parents, swaps, [these[place] for place in kept], first, should_stop
                )
            yield Tried(items, scores, found)

    def _scores(
        self,
        parents: Sequence[Prompt],
        swaps: Sequence[Swap],
        items: Sequence[int],
        first: int,
        should_stop: ShouldStop | None,
    ) -> tuple[Tensor, Tensor]:
        """Return Float[item] and Float[item, row, d_model], the stream after the score's blocks."""
        passes = self.engine.passes
        of = [swaps[item].parent for item in items]
        ids = self._swapped(parents, swaps, items)
        taken: dict[str, Tensor] = {}
        stop = self._stop
        with torch.no_grad():
            result: Result = passes.forward(
                ids[:, first:],
                [[]],
                self._frame(first),
                Pass(stop=stop, record=True, should_stop=should_stop),
                cache=self._cache(parents, of, first, 0, stop),
                shared=[reading(hook, taken) for hook in self._inner],
            )
            stream = result.residual[stop]
            if self._outer:
                self._read(stream, taken)
            whole = {
                hook: torch.cat([torch.stack([parents[p].taken[hook][:first] for p in of]), x], 1)
                for hook, x in taken.items()
            }
            scores = self.score.value(whole, start=len(self.front)).detach()
        self._check(scores, ids)
        return scores, stream

    def _cross_entropies(
        self,
        parents: Sequence[Prompt],
        swaps: Sequence[Swap],
        waiting: Sequence[_Waiting],
        first: int,
        should_stop: ShouldStop | None,
    ) -> Tensor:
        """Return Float[item]; the last position predicts nothing that is asked for."""
        passes, n_layers = self.engine.passes, self.engine.model.anatomy.n_layers
        items = [each.item for each in waiting]
        of = [swaps[item].parent for item in items]
        ids = self._swapped(parents, swaps, items)
        with torch.no_grad():
            streams = []
            for parent, each in zip(of, waiting, strict=True):
                begin = self.n_pos - len(each.stream)
                before = parents[parent].stream[first:begin]
                streams.append(torch.cat([before, each.stream[max(0, first - begin) :]])[:-1])
            stream = torch.stack(streams)
            if self._stop < n_layers:
                result = passes.forward(
                    ids[:, first:-1],
                    [[]],
                    self._frame(first),
                    Pass(
                        start=self._stop,
                        inject=stream,
                        stop=n_layers,
                        record=True,
                        should_stop=should_stop,
                    ),
                    cache=self._cache(parents, of, first, self._stop, n_layers),
                )
                stream = result.residual[n_layers]
            logits = passes.read(stream).float()
            new = logits.logsumexp(-1) - logits.gather(-1, ids[:, first + 1 :, None])[..., 0]
            losses = torch.stack([parents[parent].losses for parent in of])
            for row, item in enumerate(items):
                position = swaps[item].position
                if position:
                    losses[row, position - 1] = self._swap_loss(parents, swaps[item])
                losses[row, position:] = new[row, position - first :]
            found = losses.mean(-1)
        self._check(found, ids, "cross-entropy")
        return found

    # --- inside ----------------------------------------------------------------------------------

    def _at_least(self, parents: Sequence[Prompt], swap: Swap) -> Tensor:
        """Return what the tokens up to a swap cost, as nats a token of the whole prompt."""
        losses, position = parents[swap.parent].losses, swap.position
        if not position:
            return losses.sum() * 0 if losses.numel() else losses.mean()
        known = losses[: position - 1].sum() + self._swap_loss(parents, swap)
        return known / len(losses)

    @staticmethod
    def _swap_loss(parents: Sequence[Prompt], swap: Swap) -> Tensor:
        return -parents[swap.parent].log_probs[swap.position - 1, swap.token]

    def _swapped(
        self, parents: Sequence[Prompt], swaps: Sequence[Swap], items: Sequence[int]
    ) -> Tensor:
        """Return LongTensor[item, pos]."""
        ids = torch.tensor([parents[swaps[item].parent].ids for item in items])
        for row, item in enumerate(items):
            ids[row, swaps[item].position] = swaps[item].token
        return ids.to(self.engine.model.device)

    def _chunks(
        self, order: Sequence[int], swaps: Sequence[Swap], end: int
    ) -> Iterator[tuple[int, list[int]]]:
        """Cut swaps, ordered from the last position on, into what runs at once from one position.

        A chunk goes on with swaps of the position before as long as its rows stay within bounds.
        """
        reuses = self.engine.shortcuts.positions
        chunk: list[int] = []
        for item in order:
            rows = end - swaps[item].position if reuses else end
            if chunk and (len(chunk) + 1) * rows > ROWS:
                yield (swaps[chunk[-1]].position if reuses else 0), chunk
                chunk = []
            chunk.append(item)
        if chunk:
            yield (swaps[chunk[-1]].position if reuses else 0), chunk

    def _cache(
        self, parents: Sequence[Prompt], of: Sequence[int], first: int, start: int, stop: int
    ) -> DynamicCache | None:
        """Make a cache of what stands before a position, for the blocks that will run."""
        if not self.engine.shortcuts.positions:
            return None
        cache = DynamicCache()
        if not first:
            return cache
        for layer in range(self.engine.model.anatomy.n_layers):
            # Blocks that do not run still say how many positions there are.
            runs = start <= layer < stop
            keys, values = (
                torch.stack([kept[parent] for parent in of])
                if runs
                else kept[of[0]][None].expand(len(of), -1, -1, -1)
                for kept in (
                    {p: getattr(parents[p], name)[layer][:, :first] for p in set(of)}
                    for name in ("keys", "values")
                )
            )
            cache.layers.append(filled_layer(keys, values))
        return cache

    def _read(self, final: Tensor, taken: dict[str, Tensor], *, grad: bool = False) -> Tensor:
        """Return the logits of final streams; keeps what the score reads after the blocks."""
        passes, n_layers = self.engine.passes, self.engine.model.anatomy.n_layers
        if not self._outer:
            return passes.read(final, grad=grad)
        ids = torch.zeros(final.shape[:2], dtype=torch.long)  # any will do
        result = passes.forward(
            ids,
            [[]],
            self._frame(0),
            Pass(start=n_layers, inject=final),
            shared=[_watching(hook, taken) for hook in self._outer],
        )
        assert result.logits is not None  # noqa: S101 (no layer to stop at was given)
        return result.logits

    def _frame(self, first: int) -> Frame:
        return Frame(first, self.n_pos, has_bos=bool(self.front))

    def _embeddings_of(self, kind: str) -> nn.Module:
        passes = self.engine.passes
        path = str(passes.bridge.adapter.get_component_mapping()["embed"].name)
        return passes.shells[kind].root.get_submodule(path)

    @contextmanager
    def _embedding(self, found: list[Tensor], *, watch: bool) -> Iterator[None]:
        """Put a tensor that a gradient can be taken by in the place of the tokens' embeddings.

        On the engine's own twins: at TransformerLens' hook point for it every block would have to
        run with hooks.
        """

        def hold(_module: nn.Module, _given: object, output: Tensor) -> Tensor:
            found.append(output.detach().requires_grad_())
            return found[-1]

        modules = {id(m): m for m in map(self._embeddings_of, self.engine.passes.shells)}
        handles = [m.register_forward_hook(hold) for m in modules.values() if watch]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _same_weights(self) -> None:
        if self.engine.model.weights_version != self._weights:
            msg = (
                f"The weights of {self.engine.model.name} have changed since this search began: "
                "begin it anew."
            )
            raise ModelError(msg)

    def _check(
        self, values: Tensor, ids: Tensor | Sequence[tuple[int, ...]], what: str = ""
    ) -> None:
        values = values.detach()
        if bool(values.isfinite().all()):
            return
        wrong = int((~values.isfinite()).nonzero()[0])
        text = self.engine.model.text([int(token) for token in ids[wrong]])
        msg = f"{what or self.score.text} is {float(values[wrong])} on {text!r}: no finite number."
        raise MetricError(msg[0].upper() + msg[1:] if what else msg)


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A swap whose cross-entropy is still to be computed."""

    item: int
    score: Tensor
    least: Tensor
    stream: Tensor


_ASKED = ("score", "least")


def _asked(worth: Worth | None, scores: Tensor, least: Tensor) -> list[bool]:
    if worth is None:
        return [True] * len(scores)
    return [bool(one) for one in worth(scores, least)]


def _watching(hook: str, taken: dict[str, Tensor]) -> Step:
    """Make the step that keeps what stands at a hook point, with its graph."""

    def apply(tensor: Tensor, _frame: Frame) -> None:
        taken[hook] = tensor

    return Step(hook, apply)
