"""What interventions need beside the run itself: reference statistics, other runs, directions."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.attention import Attention
from patchclamp.engine.experiment import Experiment
from patchclamp.engine.hooks import (
    Frame,
    check_contrast,
    check_contrast_edge,
    groups,
    patch_rows,
)
from patchclamp.engine.plan import Input
from patchclamp.engine.reference_texts import REFERENCE_TEXTS
from patchclamp.errors import BudgetError, InterventionError
from patchclamp.interventions import Cut, Knockout, Patch
from patchclamp.sites import Site, SiteSet

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Mapping, Sequence

    from torch import Tensor, nn

    from patchclamp.engine.engine import Engine
    from patchclamp.interventions import Intervention
    from patchclamp.models.language_model import LanguageModel

_BATCH_ROWS = 192
_KEPT_RUNS = 64
_KEPT_PATTERN = 2**22  # bytes; a larger pattern is made anew rather than kept


@dataclass(frozen=True, eq=False)
class Statistics:
    """What stands at a hook point over the reference set.

    Attributes:
        mean: one position's shape, the mean without position 0.
        sd: the standard deviation without position 0.
        peak: the largest absolute value, position 0 included.
    """

    mean: Tensor
    sd: Tensor
    peak: Tensor


class Reference:
    """Statistics of a model's values over a set of inputs, measured when first asked for.

    Means and spreads leave position 0 out: what stands there (a beginning-of-sequence token, an
    attention sink) is unlike any other position.

    Args:
        engine: what runs the model.
        inputs: the inputs.
    """

    def __init__(self, engine: Engine, inputs: tuple[Input, ...]) -> None:
        self.inputs = inputs
        self._engine = engine
        self._found: dict[str, Statistics] = {}

    def has(self, hooks: Sequence[str]) -> bool:
        """Say whether these hook points were measured."""
        return all(hook in self._found for hook in hooks)

    def measure(
        self, hooks: Sequence[str], should_stop: Callable[[], bool] | None = None
    ) -> Generator[tuple[int, int], None, None]:
        """Measure hook points, on the model's worker.

        Yields:
            How many inputs are done, and how many there are.
        """
        missing = [hook for hook in hooks if hook not in self._found]
        if not missing:
            return
        sums: dict[str, list[Tensor]] = {}
        done, count = 0, 0
        for batch in _batches(self.inputs):
            for values in self._engine.capture_many(batch, missing, should_stop=should_stop):
                for hook, tensor in values.items():
                    value = tensor.double()
                    # An input of one token has nothing but its position 0.
                    inner = value[1:] if value.shape[0] > 1 else value
                    new = [inner.sum(0), inner.square().sum(0), value.abs().amax(0)]
                    old = sums.get(hook)
                    sums[hook] = (
                        new
                        if old is None
                        else [old[0] + new[0], old[1] + new[1], torch.maximum(old[2], new[2])]
                    )
            done += len(batch)
            count += sum(max(len(i.ids) - 1, 1) for i in batch)
            yield done, len(self.inputs)
        for hook, (total, squares, peak) in sums.items():
            mean = total / count
            variance = (squares / count - mean.square()).clamp_min(0)
            self._found[hook] = Statistics(mean.float(), variance.sqrt().float(), peak.float())

    def statistics(self, hook: str) -> Statistics:
        """Return the statistics of one hook point; measures it if need be."""
        for _ in self.measure([hook]):
            pass
        return self._found[hook]

    def position(self, hook: str, seed: int) -> Tensor:
        """Return the values at one position, drawn from all but the first of each input."""
        return self.positions([hook], seed)[hook]

    def positions(self, hooks: Sequence[str], seed: int) -> dict[str, Tensor]:
        """Return what stands at hook points at one position, drawn as :meth:`position` does."""
        places = [(i, p) for i, one in enumerate(self.inputs) for p in range(1, len(one.ids))]
        if not places:
            msg = "The reference set has no position after the first one to resample from."
            raise InterventionError(msg)
        generator = torch.Generator().manual_seed(seed)
        which, position = places[int(torch.randint(len(places), (1,), generator=generator))]
        found = self._engine.capture_many([self.inputs[which]], hooks)[0]
        return {hook: values[position] for hook, values in found.items()}


@dataclass
class Surroundings:
    """Implements :class:`patchclamp.engine.hooks.Lookup` for one session.

    Attributes:
        engine: what runs the model.
        reference: the reference set.
        contrast: the session's contrast input, if it has one.
        directions: vectors by name.
        length: how many tokens the session's own input has.
    """

    engine: Engine
    reference: Reference
    contrast: Input | None = None
    directions: Mapping[str, Tensor] = field(default_factory=dict)
    _runs: OrderedDict[Hashable, Tensor] = field(default_factory=OrderedDict, repr=False)
    _attention: Attention | None = field(default=None, repr=False)

    def check(self, intervention: Intervention, given: Input) -> None:
        """Say when an intervention needs what is not there.

        Args:
            intervention: what is to be done.
            given: the input it is done to.

        Raises:
            InterventionError: when its direction is not defined, there is no contrast input, or
                the run to patch from lacks a position.
            InputError: when what to patch from cannot be run.
        """
        sites = intervention.site.written if isinstance(intervention.site, SiteSet) else ()
        for site in sites or (intervention.site,):
            if isinstance(site, Site) and site.kind == "direction":
                self.direction(site.name or "")
        if isinstance(intervention, Knockout) and intervention.how == "contrast":
            contrast, length = self._source("contrast"), len(given.ids)
            anatomy = self.engine.model.anatomy
            for site in anatomy.expand(intervention.site):
                frame = Frame(0, length, given.has_bos)
                check_contrast(site, frame, len(contrast.ids), causal=anatomy.causal)
        if isinstance(intervention, Cut) and intervention.how == "contrast":
            contrast, length = self._source("contrast"), len(given.ids)
            for edge in self.engine.model.anatomy.expand(intervention.site):
                touched = edge.positions.indices(0, length, length, given.has_bos)
                check_contrast_edge(edge, touched, len(contrast.ids))
        if isinstance(intervention, Patch):
            source, length = self._source(intervention.source), len(given.ids)
            frame = Frame(0, length, given.has_bos)
            for site, _ in groups(intervention.site, self.engine.model.anatomy):
                rows = frame.rows(length, site.positions)
                if rows:
                    patch_rows(intervention, site, rows, frame, len(source.ids))

    def mean(self, hook: str) -> Tensor:
        """Return the reference mean at a hook point, in one position's shape."""
        return self.reference.statistics(hook).mean.to(self.engine.model.dtype)

    def resample(self, hook: str, seed: int) -> Tensor:
        """Return one reference position's value at a hook point."""
        return self._kept(("resample", hook, seed), lambda: self.reference.position(hook, seed))

    def patch(self, source: str | tuple[int, ...], hook: str) -> Tensor:
        """Return another run's values at a hook point, Float[pos, ...]."""
        given = self._source(source)
        return self._kept((given, hook), lambda: self.engine.capture_many([given], [hook])[0][hook])

    def patterns(self, heads: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Tensor]:
        """Return Float[dest, source] of each (layer, head) on the contrast input.

        Raises:
            InterventionError: when there is no contrast input.
            BudgetError: when they are more than the engine's budget.
        """
        given = self._source("contrast")
        size = 4 * len(heads) * len(given.ids) ** 2
        if size > self.engine.budget:
            msg = (
                f"The contrast input's attention of {len(heads)} heads takes {size / 2**20:,.0f} "
                f"MiB, and the budget is {self.engine.budget / 2**20:,.0f} MiB: knock out fewer "
                "heads at once, or shorten the contrast input."
            )
            raise BudgetError(msg)
        if self._attention is None or self._attention.outdated:
            self._attention = Attention(Experiment(self.engine, given, (), self, ("contrast",)))
        rows = self._attention.rows
        if 4 * len(given.ids) ** 2 > _KEPT_PATTERN:
            return {(layer, head): rows(layer, head) for layer, head in heads}
        version = self.engine.model.weights_version
        return {
            place: self._kept(("pattern", place, version), partial(rows, *place)) for place in heads
        }

    def direction(self, name: str) -> Tensor:
        """Return a named direction, Float[d]."""
        if name not in self.directions:
            known = ", ".join(self.directions) or "none is defined"
            msg = f"There is no direction named {name!r} ({known}): use session.define(...) first."
            raise InterventionError(msg)
        return self.directions[name].to(self.engine.model.dtype)

    def module(self, path: str) -> nn.Module:
        """Return a component of the model."""
        return self.engine.passes.module(path)

    def _source(self, source: str | tuple[int, ...]) -> Input:
        model = self.engine.model
        if source == "contrast":
            if self.contrast is None:
                msg = "There is no contrast input to take values from: set session.contrast."
                raise InterventionError(msg)
            return self.contrast
        if isinstance(source, str):
            return input_of(model, model.to_ids(source))
        return input_of(model, model.check_ids(torch.tensor(source)))

    def _kept(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        if key not in self._runs:
            self._runs[key] = make()
            if len(self._runs) > _KEPT_RUNS:
                self._runs.popitem(last=False)
        return self._runs[key]


def input_of(model: LanguageModel, ids: Tensor) -> Input:
    """Make an input of token ids, noticing a beginning-of-sequence token."""
    return Input(
        tuple(ids.tolist()), has_bos=model.bos_id is not None and int(ids[0]) == model.bos_id
    )


def reference_inputs(
    model: LanguageModel, reference: Sequence[str | Tensor] | None
) -> tuple[Input, ...]:
    """Tokenize a reference set; the model's own or the shipped texts where the user gave none.

    Returns:
        The inputs; none where there is neither a reference set nor a tokenizer.
    """
    if reference is None:
        if model.tokenizer is None:
            return ()
        # A small model's context may be shorter than a text.
        shipped = model.reference or REFERENCE_TEXTS
        return tuple(input_of(model, model.beginning(text)) for text in shipped)
    texts = [model.to_ids(t) if isinstance(t, str) else model.check_ids(t) for t in reference]
    return tuple(input_of(model, ids) for ids in texts)


def _batches(inputs: Sequence[Input]) -> Generator[list[Input], None, None]:
    batch: list[Input] = []
    for one in sorted(inputs, key=lambda i: len(i.ids)):
        if batch and (len(batch) + 1) * len(one.ids) > _BATCH_ROWS:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch
