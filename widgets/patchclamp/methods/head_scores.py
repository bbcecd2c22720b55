"""What a head attends to, in a number: previous token, duplicate, induction, and some others.

Of a head's pattern A (rows t are destinations, columns s sources, x the token ids), each score but
the last two is the share of all its attention that falls on some cells:

    score = sum of A[t, s] over the cells / sum of A

- *previous*: s = t - 1.
- *duplicate*: an earlier token that is the same, x[s] = x[t], s < t.
- *induction*: the token after an earlier one that is the same, x[s - 1] = x[t], s <= t.
- *current*: s = t.
- *first*: s = 0.
- *entropy*: mean over t of the entropy of row t, in nats.
- *distance*: mean over t of the attention-weighted number of tokens back, |t - s|.

The first three are the detection patterns of TransformerLens' ``head_detector`` with
``error_measure="mul"`` (after Olsson et al., "In-context Learning and Induction Heads", 2022), but
for a text in which no token comes twice, where *duplicate* and *induction* are not defined: NaN,
where the detector says 0. An encoder sees both ways: there a duplicate is the same token at any
other place (s != t), and so is the one before what induction reads; *previous* stays s = t - 1, and
*distance* is absolute.

A row that reads nothing (all its cells knocked out) has no entropy and no distance and is left out
of these means; a row that sums to less than one counts as if it were scaled to one there. NaN in a
pattern makes its head's scores NaN, not 0.

Two scores cost runs of their own: *random induction* (:func:`random_induction`), and a head's
*effect* on the metric when it is ablated (:func:`head_effects`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.attention import Attention
from patchclamp.engine.experiment import Experiment
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference, Surroundings
from patchclamp.errors import InputError
from patchclamp.interventions import Ablate
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from patchclamp.engine.engine import Engine
    from patchclamp.methods.metric import Measure
    from patchclamp.models.language_model import LanguageModel

    ShouldStop = Callable[[], bool]

SCORES = ("previous", "duplicate", "induction", "current", "first", "entropy", "distance")
"""The scores that a pattern gives by itself."""

THUMB = 24
"""Pixels that a small pattern has a side, at most."""


@dataclass(frozen=True, eq=False)
class LayerScores:
    """Scores and small patterns of a layer.

    Attributes:
        values: Float64[head] by the score's name.
        thumbs: Float[head, n, n], the largest cell of each ``block`` x ``block`` cells; NaN where
            one of them is. The last row and column may stand for fewer cells.
        block: how many cells a side a pixel stands for; 1 is exact.
    """

    values: dict[str, Tensor]
    thumbs: Tensor
    block: int


class HeadScores:
    """Scores and small patterns of one layer, from its pattern row block by row block.

    Args:
        ids: LongTensor[pos], the token ids.
        n_heads: heads of the layer.
        causal: whether a position sees only itself and earlier ones.
        thumb: pixels that a small pattern has a side, at most.
    """

    def __init__(self, ids: Tensor, n_heads: int, *, causal: bool, thumb: int = THUMB) -> None:
        self._ids, self._causal = ids, causal
        length = len(ids)
        self.block = -(-length // thumb)
        side = -(-length // self.block)
        self.thumbs = torch.full((n_heads, side, side), -torch.inf)
        self._total = torch.zeros(n_heads, dtype=torch.double)
        self._shares = {name: self._total.clone() for name in SCORES[:5]}
        self._rows = self._total.clone()  # that read something
        self._entropy, self._distance = self._total.clone(), self._total.clone()
        self._repeats = len(ids.unique()) < length

    def add(self, start: int, rows: Tensor) -> None:
        """Take in rows of the patterns; every row once, in any order.

        Args:
            start: the first row's destination.
            rows: Float[head, row, source], with all positions as sources.
        """
        stop = start + rows.shape[1]
        rows = rows.float()
        self._shrink(start, rows)
        if self._causal:
            rows = rows[..., :stop]
        masses = rows.sum(-1).cpu().double()
        self._total += masses.sum(-1)
        shares = self._shares
        shares["previous"] += _diagonal(rows, start - 1)
        shares["current"] += _diagonal(rows, start)
        shares["first"] += rows[..., 0].cpu().double().sum(-1)
        if self._repeats:
            same = self._same(start, stop, rows.shape[-1]).to(rows.device)
            shares["duplicate"] += _on(rows, same)
            shares["induction"] += _on(rows, self._after(start, same))
        # H(A / m) = H(A) / m + log m, with m the row's sum and H(A) = -sum A log A.
        reads = masses != 0
        entropy = torch.special.entr(rows).sum(-1).cpu().double() / masses + masses.log()
        places = torch.arange(rows.shape[-1], device=rows.device).float()
        back = (torch.arange(start, stop, device=rows.device)[:, None] - places).abs()
        distance = (rows * back).sum(-1).cpu().double() / masses
        nothing = torch.zeros_like(masses)
        self._rows += reads.sum(-1)
        self._entropy += torch.where(reads, entropy, nothing).sum(-1)
        self._distance += torch.where(reads, distance, nothing).sum(-1)

    def result(self) -> dict[str, Tensor]:
        """Return Float64[head] by the score's name, of the rows that were added."""
        undefined = torch.full_like(self._total, torch.nan)
        found = {name: share / self._total for name, share in self._shares.items()}
        if not self._repeats:
            found |= {"duplicate": undefined, "induction": undefined}
        if len(self._ids) < 2:
            found["previous"] = undefined
        means = {"entropy": self._entropy, "distance": self._distance}
        return found | {name: sums / self._rows for name, sums in means.items()}

    def _same(self, start: int, stop: int, width: int) -> Tensor:
        """Return Bool[row, source]: the same token at an earlier place (or any other one)."""
        same = self._ids[start:stop, None] == self._ids[:width]
        return same.tril(start - 1) if self._causal else _without_diagonal(same, start)

    def _after(self, start: int, same: Tensor) -> Tensor:
        """Return Bool[row, source]: the place before it holds the same token."""
        after = torch.zeros_like(same)
        after[:, 1:] = same[:, :-1]
        return after.tril(start) if self._causal else after

    def _shrink(self, start: int, rows: Tensor) -> None:
        """Take the largest cells into the small patterns; NaN wins."""
        n_heads, count, length = rows.shape
        side = self.thumbs.shape[-1]
        padding = side * self.block - length
        wide = torch.nn.functional.pad(rows, (0, padding), value=-torch.inf)
        narrow = wide.reshape(n_heads, count, side, self.block).amax(-1).cpu()
        for pixel in range(start // self.block, (start + count - 1) // self.block + 1):
            first = max(pixel * self.block - start, 0)
            last = (pixel + 1) * self.block - start
            largest = narrow[:, first:last].amax(1)
            self.thumbs[:, pixel] = torch.maximum(self.thumbs[:, pixel], largest)


def scores(
    attention: Attention, *, thumb: int = THUMB, should_stop: ShouldStop | None = None
) -> Generator[tuple[int, LayerScores], None, None]:
    """Score all heads of a run, layer by layer, in one pass over the patterns.

    Runs on the model's worker.

    Args:
        attention: the run's attention.
        thumb: pixels that a small pattern has a side, at most.
        should_stop: asked between blocks of rows.

    Yields:
        Each layer with its scores and small patterns.
    """
    ids = torch.tensor(attention.experiment.given.ids)
    for layer in range(attention.n_layers):
        found = HeadScores(ids, attention.n_heads, causal=attention.causal, thumb=thumb)
        for start, rows in attention.chunks(layer, should_stop=should_stop):
            found.add(start, rows)
        yield layer, LayerScores(found.result(), found.thumbs, found.block)


def random_induction(
    engine: Engine,
    *,
    length: int = 25,
    batch: int = 4,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> Tensor:
    """Score induction on repeated random tokens, where nothing but repetition can be followed.

    The mean attention from each token of the repeated half to the token after its first occurrence
    (Olsson et al. 2022, "prefix matching"), without interventions. The tokens are drawn without
    replacement from those that are not special, so that no token of a half comes twice; the
    beginning-of-sequence token stands in front where the model has one. Runs on the model's worker.

    Args:
        engine: what runs the model.
        length: tokens of each half.
        batch: how many sequences are drawn.
        seed: of what is drawn.
        should_stop: asked before every block.

    Returns:
        Float[layer, head], from 0 to 1.

    Raises:
        InputError: when the model has too few tokens or too short a context.
    """
    total = torch.zeros(engine.model.anatomy.n_layers, engine.model.anatomy.n_heads).double()
    for given in repeated_tokens(engine.model, length=length, batch=batch, seed=seed):
        surroundings = Surroundings(engine, Reference(engine, (given,)))
        attention = Attention(Experiment(engine, given, (), surroundings))
        for layer in range(attention.n_layers):
            for start, rows in attention.chunks(layer, should_stop=should_stop):
                # The second half's rows, each with the token after the first occurrence of its own.
                first = max(start, len(given.ids) - length)
                stop = start + rows.shape[1]
                places = torch.arange(first, max(first, stop))
                cells = rows[:, places - start, places - (length - 1)]
                total[layer] += cells.cpu().double().sum(-1)
    return (total / (length * batch)).float()


def repeated_tokens(model: LanguageModel, *, length: int, batch: int, seed: int) -> list[Input]:
    """Draw sequences of random tokens that come twice; see :func:`random_induction`.

    Raises:
        InputError: when the model has too few tokens or too short a context.
    """
    if length < 2 or batch < 1:
        msg = f"Repeated random tokens need a length of 2 or more, not {length}."
        msg = msg if length < 2 else f"At least 1 sequence is needed, not {batch}."
        raise InputError(msg)
    has_bos = model.bos_id is not None
    needed = 2 * length + has_bos
    plain = _plain_tokens(model)
    if needed > model.n_ctx or length > len(plain):
        most = min((model.n_ctx - has_bos) // 2, len(plain))
        msg = (
            f"{length} random tokens, twice, do not fit {model.name}, which has {len(plain):,} "
            f"plain tokens and takes at most {model.n_ctx:,} at once: use at most {most:,}."
        )
        raise InputError(msg)
    generator = torch.Generator().manual_seed(seed)
    beginning = () if model.bos_id is None else (model.bos_id,)
    drawn = []
    for _ in range(batch):
        half = plain[torch.randperm(len(plain), generator=generator)[:length]].tolist()
        drawn.append(Input((*beginning, *half, *half), has_bos=has_bos))
    return drawn


def head_effects(
    experiment: Experiment,
    *,
    measure: Measure,
    should_stop: ShouldStop | None = None,
) -> Generator[tuple[int, Tensor], None, None]:
    """Measure what ablating each head to its mean does to the metric, exactly.

    Every head is a run of its own, in batches that start where it acts; the stack of the
    experiment stays in place, the ablation comes after it. The mean is over the reference set.
    Runs on the model's worker.

    Args:
        experiment: the input and stack.
        measure: what to measure, on the experiment's input.
        should_stop: asked before every block.

    Yields:
        How many heads are done, and Float[layer, head]: the metric with the head ablated minus
        the metric without, NaN where it was not measured yet. The last layers, which cost least,
        come first.

    Raises:
        MetricError: when the metric is no number with some head ablated; what was measured before
            was yielded.
    """
    anatomy = experiment.engine.model.anatomy
    experiment = replace(experiment, stack=tuple(iv for iv in experiment.stack if not iv.muted))
    whole = experiment.outcome(measure.rows, should_stop).logits
    base = float(measure.finite(whole[None])[0])
    heads = [
        [Site("head", layer, head, "z") for head in range(anatomy.n_heads)]
        for layer in range(anatomy.n_layers)
    ]
    # All layers' means in one pass, not one after the other.
    hooks = [anatomy.hook(sites[0]) for sites in heads]
    for _ in experiment.surroundings.reference.measure(hooks, should_stop=should_stop):
        pass
    found = torch.full((anatomy.n_layers, anatomy.n_heads), torch.nan)
    done = 0
    for layer in reversed(range(anatomy.n_layers)):
        stacks = [(*experiment.stack, Ablate(site)) for site in heads[layer]]
        for begin, logits in experiment.sweep(stacks, measure.rows, should_stop):
            measured = measure.finite(logits).cpu() - base
            found[layer, begin : begin + len(measured)] = measured
            done += len(measured)
            yield done, found.clone()


def _plain_tokens(model: LanguageModel) -> Tensor:
    """Return LongTensor[token]: the ids that are no special token and that the tokenizer knows."""
    tokenizer, size = model.tokenizer, model.anatomy.d_vocab
    special = {model.bos_id, model.eos_id}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id"):
        special.add(getattr(model.bridge.cfg, name, None))
    if tokenizer is not None:
        special |= {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        size = min(size, len(tokenizer))
    return torch.tensor([token for token in range(size) if token not in special])


def _diagonal(rows: Tensor, offset: int) -> Tensor:
    """Return Float64[head], the sum along a diagonal."""
    return torch.diagonal(rows, offset, -2, -1).cpu().double().sum(-1)


def _on(rows: Tensor, cells: Tensor) -> Tensor:
    """Return Float64[head], the sum over some cells, Bool[row, source]; NaN elsewhere is no matter.

    A product with 0 and 1 would make NaN of any row that holds one.
    """
    return rows[:, cells].cpu().double().sum(-1)


def _without_diagonal(same: Tensor, start: int) -> Tensor:
    kept = same.clone()
    torch.diagonal(kept, start).fill_(value=False)
    return kept
