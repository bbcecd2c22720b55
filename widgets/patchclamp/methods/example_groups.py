"""What a unit does over a corpus: its distribution, and examples of every part of it.

The largest activations alone mislead: they show what a unit answers to most, and not what it does
usually (Bolukbasi et al., "An Interpretability Illusion for BERT", 2021). So beside the top
examples stand some that are drawn at random from every part of the distribution, as in OpenAI's
neuron viewer (Bills et al., "Language models can explain neurons in language models", 2023) and in
Neuronpedia: contexts (of a text so many tokens, or one stimulus) are ordered by their largest
activation and cut at percentiles. Units that can be negative have a group of the lowest, too.

Maximum, minimum, mean, standard deviation and histogram are exact, over every activation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch

from patchclamp.errors import InputError, MetricError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from torch import Tensor

    from patchclamp.methods.stimulus_examples import StimulusExample
    from patchclamp.methods.text_examples import TextExample

    Example: TypeAlias = TextExample | StimulusExample

Of = Literal["tokens", "stimuli"]


@dataclass(frozen=True)
class Survey:
    """How a corpus is gone through and what is shown of it.

    Attributes:
        context: the most tokens that are run as one context, a beginning-of-sequence token
            included; a longer text becomes several. Of stimuli nothing.
        top: how many examples of the largest activations (and of the lowest).
        each: how many examples of each other group.
        shares: where contexts, ordered by their largest activation, are cut into groups: the share
            of them that lies below, falling.
        bins: of the histogram.
        seed: of the examples that are drawn.

    Raises:
        InputError: when these are no sizes or shares.
    """

    context: int = 128
    top: int = 12
    each: int = 6
    shares: tuple[float, ...] = (0.9, 0.75, 0.5, 0.0)
    bins: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", tuple(self.shares))
        least = {"context": 3, "top": 1, "each": 0, "bins": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                msg = f"{name} of a survey is at least {low}, not {getattr(self, name)}."
                raise InputError(msg)
        falling = all(a > b for a, b in zip(self.shares, self.shares[1:], strict=False))
        if not falling or not all(0 <= share < 1 for share in self.shares):
            msg = f"shares of a survey fall from below 1 to 0, not {self.shares}."
            raise InputError(msg)


@dataclass(frozen=True)
class ExampleGroup:
    """Examples of one part of the distribution.

    Attributes:
        name: "top", "90th to 100th percentile", ..., "lowest".
        low: the smallest activation of its contexts (each counts by its largest one, of "lowest"
            by its smallest).
        high: the largest.
        count: how many contexts it is drawn from.
        examples: some of them, the largest activation first (of "lowest" the smallest).
    """

    name: str
    low: float
    high: float
    count: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class CorpusUnit:
    """A unit on a corpus.

    Attributes:
        unit: what was measured, in words.
        of: what an activation is of: "tokens" or "stimuli".
        done: how many contexts were measured.
        total: how many there are.
        sources: how many texts or stimuli the corpus has.
        split: how many texts were longer than a context and became several.
        skipped: how many texts have no token in them and were left out.
        values: Float[activation], every one, in the corpus' order.
        maximum: the largest; minimum the smallest.
        minimum: the smallest.
        mean: the mean.
        sd: the standard deviation (of the population).
        edges: bins + 1 edges of the histogram.
        counts: how many activations lie in each bin; the last bin includes its upper edge.
        groups: examples: "top", then the groups at percentiles, highest first, then "lowest".
    """

    unit: str
    of: Of
    done: int
    total: int
    sources: int
    split: int
    skipped: int
    values: Tensor
    maximum: float
    minimum: float
    mean: float
    sd: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    groups: tuple[ExampleGroup, ...]

    @property
    def count(self) -> int:
        """How many activations were measured."""
        return len(self.values)

    @property
    def finished(self) -> bool:
        """Whether it is of the whole corpus, and not of what was measured before a stop."""
        return self.done == self.total

    @property
    def note(self) -> str:
        """What a reader must know, in sentences; may be empty."""
        told = []
        if not self.finished:
            what = "contexts" if self.of == "tokens" else "stimuli"
            told.append(f"Of {self.total:,} {what} {self.done:,} were measured.")
        if self.split:
            were = "text was" if self.split == 1 else "texts were"
            told.append(f"{self.split:,} {were} longer than a context and split.")
        if self.skipped:
            have = "text has" if self.skipped == 1 else "texts have"
            told.append(f"{self.skipped:,} {have} no token and count for nothing.")
        return " ".join(told)

    def share_above(self, value: float) -> float:
        """Return the share of activations that are larger than a value."""
        return float((self.values > value).double().mean())

    def frame(self) -> pd.DataFrame:
        """Return the examples as a table, one row each."""
        import pandas as pd

        rows = [
            {"group": group.name, "activation": example.activation, **example.row()}
            for group in self.groups
            for example in group.examples
        ]
        return pd.DataFrame(rows)

    def histogram(self) -> pd.DataFrame:
        """Return the histogram as a table: from, to, count."""
        import pandas as pd

        return pd.DataFrame(
            {"from": self.edges[:-1], "to": self.edges[1:], "count": self.counts},
        )


@dataclass(eq=False)
class Scan:
    """What a pass over a corpus has measured so far; it grows.

    Attributes:
        unit: what is measured, in words.
        of: what an activation is of.
        survey: what is shown.
        total: how many contexts there are.
        sources: how many texts or stimuli.
        make: from a context's index and a place in it to the example there.
        split: how many texts became several contexts.
        skipped: how many texts have no token.
        found: by context Float[place], its activations.
    """

    unit: str
    of: Of
    survey: Survey
    total: int
    sources: int
    make: Callable[[int, int], Example]
    split: int = 0
    skipped: int = 0
    found: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def done(self) -> int:
        """How many contexts are measured."""
        return len(self.found)

    def add(self, context: int, values: Tensor, where: str) -> None:
        """Take Float[place], the activations of a context.

        Raises:
            MetricError: when one is no finite number.
        """
        self.found[context] = finite(values, self.unit, where)

    def so_far(self) -> CorpusUnit:
        """Return the distribution and examples of what is measured.

        Raises:
            InputError: when nothing is.
        """
        if not self.found:
            msg = f"Nothing of the corpus was measured yet for {self.unit}."
            raise InputError(msg)
        contexts = sorted(self.found)
        parts = [self.found[context] for context in contexts]
        values = torch.cat(parts)
        exact = values.double()
        counts, edges = np.histogram(exact.numpy(), bins=self.survey.bins)
        return CorpusUnit(
            unit=self.unit,
            of=self.of,
            done=self.done,
            total=self.total,
            sources=self.sources,
            split=self.split,
            skipped=self.skipped,
            values=values,
            maximum=float(exact.max()),
            minimum=float(exact.min()),
            mean=float(exact.mean()),
            sd=float(exact.std(correction=0)),
            edges=tuple(edges.tolist()),
            counts=tuple(counts.tolist()),
            groups=self._groups(contexts, parts),
        )

    def _groups(self, contexts: Sequence[int], parts: Sequence[Tensor]) -> tuple[ExampleGroup, ...]:
        """Draw the examples of each part of the distribution; no context comes twice above."""
        peaks = torch.stack([part.max() for part in parts])
        order = peaks.sort(descending=True, stable=True).indices.tolist()
        top = order[: self.survey.top]
        groups = [self._group("top", top, len(top), contexts, parts)]
        begin = 0
        for share, upper in zip(self.survey.shares, (1.0, *self.survey.shares), strict=False):
            end = len(order) - math.floor(share * len(order))
            inside, begin = order[max(begin, len(top)) : end], end
            if not inside:
                continue
            generator = torch.Generator().manual_seed(self.survey.seed)
            drawn = torch.randperm(len(inside), generator=generator)[: self.survey.each].tolist()
            name = f"{_ordinal(share)} to {_ordinal(upper)} percentile"
            chosen = [inside[place] for place in sorted(drawn)]
            groups.append(self._group(name, chosen, len(inside), contexts, parts, inside))
        lows = torch.stack([part.min() for part in parts])
        if float(lows.min()) < 0:
            lowest = lows.sort(stable=True).indices[: self.survey.top].tolist()
            groups.append(self._group("lowest", lowest, len(lowest), contexts, parts, lowest=True))
        return tuple(groups)

    def _group(
        self,
        name: str,
        chosen: Sequence[int],
        count: int,
        contexts: Sequence[int],
        parts: Sequence[Tensor],
        inside: Sequence[int] = (),
        *,
        lowest: bool = False,
    ) -> ExampleGroup:
        def extreme(at: int) -> tuple[float, int]:
            part = parts[at]
            place = int(part.argmin() if lowest else part.argmax())
            return float(part[place]), place

        examples = [self.make(contexts[at], extreme(at)[1]) for at in chosen]
        found = [extreme(at)[0] for at in (inside or chosen)]
        return ExampleGroup(name, min(found), max(found), count, tuple(examples))


def finite(values: Tensor, unit: str, where: str) -> Tensor:
    """Return activations as float32 on the CPU.

    Raises:
        MetricError: when one is no finite number.
    """
    if not bool(values.isfinite().all()):
        msg = f"{unit} is no finite number on {where}."
        raise MetricError(msg)
    return values.detach().float().cpu()


def _ordinal(share: float) -> str:
    number = f"{100 * share:g}"
    last = {"1": "st", "2": "nd", "3": "rd"}
    teen = number[-2:] in {"11", "12", "13"}
    return number + ("th" if teen else last.get(number[-1], "th"))
