"""The attention of a run: pattern rows on demand, instead of all patterns at once.

At 2,048 tokens the patterns of SmolLM2 are 4.5 GB; the rotated queries and keys that they are made
of are 189 MB, and the keys lie in the engine's store already. So of each layer the queries are kept
once somebody looks at it, and rows are computed when asked for:

    pattern[d, s] = softmax over s of (cap(q[d] . k[s] * scale) + mask[d, s])

The queries come from running the layer's block alone on the residual stream that entered it in the
run (:meth:`patchclamp.engine.passes.Passes.scores`); what the stack does to the pattern itself, its
knock-outs, is then done to the rows. Where the stack edits what the scores of a layer are made of,
or a model's attention does not go through transformers' attention interface, the layer's whole
pattern is taken from a hooked run instead. When an engine first meets a model, the short way is
compared with TransformerLens' ``hook_pattern`` in every layer.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.attention_interface import RecordedError, Scores
from patchclamp.engine.engine import BUDGET
from patchclamp.engine.hooks import AFTER, Frame
from patchclamp.engine.passes import reading
from patchclamp.engine.plan import Input
from patchclamp.engine.shell import Pass
from patchclamp.errors import AddressError, BudgetError, ModelError, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from patchclamp.engine.engine import Engine
    from patchclamp.engine.experiment import Experiment
    from patchclamp.engine.hooks import Step
    from patchclamp.engine.trace import Trace
    from patchclamp.models.language_model import LanguageModel

    ShouldStop = Callable[[], bool]

_EXACT = 1e-5
_CHECKED = 8  # tokens
_CHUNK = 2**24  # bytes of a block of rows
# What comes after the scores in a block: an edit there leaves its pattern as it is.
_LATER = (
    "attn.hook_pattern",
    "attn.v.",
    "attn.o.",
    "attn.hook_out",
    "ln1_post.",
    "ln2.",
    "ln2_post.",
    "mlp.",
    "hook_out",
)


class Attention:
    """The attention of one experiment's run. To be used on the model's worker only.

    Args:
        experiment: the input and the stack.
        budget: bytes that it may keep.

    Attributes:
        experiment: whose attention it is.
        n_layers: how many layers there are.
        n_heads: how many heads each has.
        length: how many positions.
        causal: whether a position reads only itself and earlier ones.

    Raises:
        ModelError: where the model's patterns cannot be read at all.
        InterventionError: when an intervention of the stack cannot act on this model.
    """

    def __init__(self, experiment: Experiment, budget: int = BUDGET // 2) -> None:
        anatomy = experiment.engine.model.anatomy
        self.experiment = experiment
        self.budget = budget
        self.n_layers = anatomy.n_layers
        self.n_heads = anatomy.n_heads
        self.length = experiment.length
        self.causal = anatomy.causal
        self._passes = experiment.engine.passes
        self._reason = attention_reason(experiment.engine)
        self._steps = experiment.engine.compile(experiment.stack, experiment.surroundings)
        self._trace: Trace | None = None
        # The least recently used layer goes first.
        self._kept: OrderedDict[int, Scores | Tensor] = OrderedDict()
        self._masks: list[Tensor] = []

    def __repr__(self) -> str:
        used, most = (n / 2**20 for n in (self.nbytes, self.budget))
        return f"Attention({self.length} positions, {used:.0f} of {most:.0f} MiB)"

    @property
    def nbytes(self) -> int:
        """How many bytes it holds beside what the engine's store holds."""
        held = {
            tensor.data_ptr(): tensor.nbytes
            for kept in self._kept.values()
            for tensor in self._own(kept)
        }
        return sum(held.values()) + sum(mask.nbytes for mask in self._masks)

    @property
    def outdated(self) -> bool:
        """Whether the model's weights have changed since; then it gives nothing any more."""
        return self.experiment.engine.passes is not self._passes

    def reason(self, layer: int) -> str | None:
        """Say why a layer's whole pattern is taken from a hooked run; None where it is not."""
        if self._reason is not None:
            return self._reason
        edits = sorted({step.hook for step in self._steps if self._feeds_scores(step, layer)})
        return f"the stack edits {', '.join(edits)}" if edits else None

    def rows(self, layer: int, head: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows of a head's pattern, as the run used them: after the stack's knock-outs.

        Args:
            layer: which layer.
            head: which of its heads.
            start: the first row.
            stop: one past the last; None for all.

        Returns:
            Float[row, source] float32; the columns are all positions. NaN where the run has it.

        Raises:
            AddressError: when there is no such layer, head or row.
            BudgetError: when the layer has to be taken whole, and that is more than the budget.
        """
        stop = self.length if stop is None else stop
        if not (0 <= layer < self.n_layers and 0 <= head < self.n_heads):
            msg = (
                f"L{layer}.H{head} does not exist: there are {self.n_layers} layers of "
                f"{self.n_heads} heads."
            )
            raise AddressError(msg)
        if not 0 <= start < stop <= self.length:
            msg = f"There are no rows {start}:{stop}: the input has {self.length} positions."
            raise AddressError(msg)
        return self._rows(layer, start, stop, head)[0]

    def layer(self, layer: int) -> Tensor:
        """Return all of a layer's patterns, Float[head, dest, source] float32.

        Raises:
            BudgetError: when that is more than the budget: take :meth:`chunks` or :meth:`rows`.
        """
        self._afford(layer)
        return torch.cat([rows for _, rows in self.chunks(layer)], dim=1)

    def chunks(
        self, layer: int, should_stop: ShouldStop | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Go through all of a layer's patterns a block of rows at a time, in bounded memory.

        Args:
            layer: which layer.
            should_stop: asked before every block.

        Yields:
            The first row, and Float[head, row, source] float32.

        Raises:
            Stopped: when ``should_stop`` said so.
        """
        size = max(1, _CHUNK // (4 * self.n_heads * self.length))
        for start in range(0, self.length, size):
            if should_stop is not None and should_stop():
                msg = "Stopped before it was finished."
                raise Stopped(msg)
            yield start, self._rows(layer, start, min(start + size, self.length))

    def values(self, layer: int) -> Tensor:
        """Return Float[kv_head, pos, d_head], the values that a layer's heads read in the run."""
        kept = self._run().values
        if kept is not None:
            return kept[layer]
        hook = self.experiment.engine.model.anatomy.hooks[layer]["head:v"]
        return self.experiment.capture([hook])[hook].transpose(0, 1)

    def final(self) -> Tensor:
        """Return Float[pos, d_model], the residual stream before the final norm."""
        return self._run().residual[-1]

    # Inside -------------------------------------------------------------------------------------

    def _run(self) -> Trace:
        if self.outdated:
            msg = (
                "The model's weights have changed since this attention was asked for: take it "
                "from session.baseline or session.current again."
            )
            raise ModelError(msg)
        if self._trace is None:
            self._trace = self.experiment.outcome().trace
        return self._trace

    def _rows(self, layer: int, start: int, stop: int, head: int | None = None) -> Tensor:
        """Float[head, row, source] float32; of one head, if given, Float[1, row, source]."""
        kept = self._layer(layer)
        if not isinstance(kept, Scores):
            found = kept[:, start:stop] if head is None else kept[head : head + 1, start:stop]
            return found.float().clone()
        rows = kept.rows(start, stop, head)
        frame = Frame(start, self.length, self.experiment.given.has_bos, first_source=0, head=head)
        hook = f"blocks.{layer}.attn.hook_pattern"
        for step in self._steps:
            if step.hook == hook:
                changed = step.apply(rows[None], frame)
                rows = rows if changed is None else changed[0]
        return torch.nn.functional.pad(rows, (0, self.length - rows.shape[-1]))

    def _layer(self, layer: int) -> Scores | Tensor:
        trace = self._run()
        if layer not in self._kept:
            short = self.reason(layer) is None
            self._kept[layer] = self._scores(layer, trace) if short else self._whole(layer)
            while len(self._kept) > 1 and self.nbytes > self.budget:
                self._kept.popitem(last=False)
        self._kept.move_to_end(layer)
        return self._kept[layer]

    def _scores(self, layer: int, trace: Trace) -> Scores:
        found = self._passes.scores(trace.ids, layer, trace.residual[layer])
        key, value, mask = found.key, found.value, found.mask
        if trace.keys is not None and torch.equal(trace.keys[layer], key):
            key = trace.keys[layer]
        if trace.values is not None:
            value = trace.values[layer]
        if mask is not None and found.triangular and bool(mask[:, -1].all()):
            full = torch.ones_like(mask[0]).tril()
            if all(torch.equal(one, full) for one in mask):
                return replace(found, key=key, value=value, mask=None, causal=True)
        if mask is not None:
            mask = self._shared(mask)
        return replace(found, key=key, value=value, mask=mask)

    def _shared(self, mask: Tensor) -> Tensor:
        """The same mask of another layer, if there is one: it has as many cells as a pattern."""
        for other in self._masks:
            if other.dtype == mask.dtype and torch.equal(other, mask):
                return other
        self._masks.append(mask)
        return mask

    def _whole(self, layer: int) -> Tensor:
        self._afford(layer)
        while self._kept and self.nbytes + self._size > self.budget:
            self._kept.popitem(last=False)
        hook = f"blocks.{layer}.attn.hook_pattern"
        return self.experiment.capture([hook])[hook]

    @property
    def _size(self) -> int:
        return 4 * self.n_heads * self.length**2

    def _afford(self, layer: int) -> None:
        if self._size > self.budget:
            why = self.reason(layer)
            msg = (
                f"The attention of layer {layer} takes {self._size / 2**20:,.0f} MiB, and the "
                f"budget is {self.budget / 2**20:,.0f} MiB: "
                + (
                    "ask for some of its rows, or go through it in chunks."
                    if why is None
                    else f"it has to be taken whole, as {why}; use a shorter prompt."
                )
            )
            raise BudgetError(msg)

    def _own(self, kept: Scores | Tensor) -> list[Tensor]:
        """What is held for a layer that the run's trace does not hold too."""
        if not isinstance(kept, Scores):
            return [kept]
        trace = self._trace  # as it is: asking for the run looks at all weights for changes
        ours = () if trace is None else (*(trace.keys or ()), *(trace.values or ()))
        shared = {tensor.data_ptr() for tensor in ours}
        held = (kept.query, kept.key, kept.value)
        return [tensor for tensor in held if tensor.data_ptr() not in shared]

    def _feeds_scores(self, step: Step, layer: int) -> bool:
        """Whether a step edits what the scores of a layer are made of, inside its block."""
        block = f"blocks.{layer}."
        if not step.hook.startswith(block) or step.rank == AFTER:
            return False
        place = step.hook.removeprefix(block)
        if self.experiment.engine.model.anatomy.post_ln and place.startswith("ln1."):
            return False  # there the norm comes after attention
        return not place.startswith(_LATER)


def attention_reason(engine: Engine) -> str | None:
    """Say why a model's patterns are not computed from queries and keys; None where they are.

    The first call for a model, and for new weights of it, tries on a few fixed tokens.
    """
    passes = engine.passes
    if not passes.attention_checked:
        passes.attention_reason = _check(engine.model, engine)
        passes.attention_checked = True
    return passes.attention_reason


def _check(model: LanguageModel, engine: Engine) -> str | None:
    """Compare rows made of queries and keys with ``hook_pattern``, in every layer."""
    anatomy, passes = model.anatomy, engine.passes
    if not (passes.shortcuts.layers and passes.shortcuts.plain):
        return "a block of this model cannot be run by itself"
    length = min(_CHECKED, anatomy.n_ctx)
    generator = torch.Generator().manual_seed(0)
    ids = tuple(torch.randint(0, anatomy.d_vocab, (length,), generator=generator).tolist())
    hooks = [f"blocks.{layer}.attn.hook_pattern" for layer in range(anatomy.n_layers)]
    patterns: dict[str, Tensor] = {}
    full = passes.run(
        Input(ids, has_bos=False),
        [[reading(hook, patterns) for hook in hooks]],
        Pass(stop=anatomy.n_layers, record=True),
    )
    for layer, hook in enumerate(hooks):
        try:
            rows = passes.scores(ids, layer, full.residual[layer][0]).rows(0, length)
        except RecordedError as error:
            return error.reason
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
            return f"this architecture does not take it ({type(error).__name__}: {error})"
        off = float((rows - patterns[hook][0].float()).abs().max())
        if not off <= _EXACT:
            return f"patterns made of queries and keys differ by {off:.1e} in layer {layer}"
    return None
