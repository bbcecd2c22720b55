"""How neurons tell labels apart: one stored value per prompt and neuron, and a label per prompt.

What relation, language and culture neurons are found by. For each neuron and label, with the
prompts of that label against all others:

- *average precision* (AP): prompts ranked by the neuron's value, the mean of the precision at each
  prompt of the label; exact, equal values counted as one step, as scikit-learn does. 1 where all
  prompts of the label come first, the label's share of the prompts where the value says nothing.
- *mutual information* between the label and whether the neuron is active, in bits.
- *selectivity*: mean on the label minus mean on the others, over the standard deviation within
  both: d' of signal detection.
- *activation probability*: on which share of the label's prompts the neuron is active.

Active means above a threshold, 0 by default. A neuron with AP 1 on prompts that are all made by one
template may have found the template: :class:`LabelStatistics` says how many are saturated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_AT_ONCE = 4096  # neurons that are sorted at once


@dataclass(frozen=True, eq=False)
class LabelStatistics:
    """For each label and neuron.

    Attributes:
        labels: the labels' names.
        counts: how many prompts each has.
        average_precision: Float[label, unit].
        mutual_information: Float[label, unit], bits.
        selectivity: Float[label, unit], standard deviations; 0 where the value never changes.
        activation_probability: Float[label, unit].
    """

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    average_precision: Tensor
    mutual_information: Tensor
    selectivity: Tensor
    activation_probability: Tensor

    @property
    def saturated(self) -> Tensor:
        """LongTensor[label]: how many neurons have an average precision of 1."""
        return (self.average_precision >= 1).sum(1)


def label_statistics(
    values: Tensor, labels: Sequence[str], *, threshold: float = 0.0
) -> LabelStatistics:
    """Compare the prompts of each label with all others.

    Args:
        values: Float[prompt, unit], one value of each neuron per prompt.
        labels: each prompt's.
        threshold: above it a neuron is active.

    Raises:
        InputError: when there are not as many labels as prompts, or all prompts have the same one.
    """
    if len(labels) != len(values):
        msg = f"Each of the {len(values)} prompts needs one label; there are {len(labels)}."
        raise InputError(msg)
    names = tuple(dict.fromkeys(labels))
    if len(names) < 2:
        msg = "Labels are told apart by prompts of at least two of them; all of these are the same."
        raise InputError(msg)
    place = {name: index for index, name in enumerate(names)}
    belongs = torch.zeros(len(names), len(values), dtype=torch.bool)
    for prompt, name in enumerate(labels):
        belongs[place[name], prompt] = True
    parts = [
        (
            average_precision(some, belongs),
            _mutual_information(some > threshold, belongs),
            _selectivity(some, belongs),
            _share(some > threshold, belongs),
        )
        for some in values.split(_AT_ONCE, 1)
    ]
    found = [torch.cat(column, 1) for column in zip(*parts, strict=True)]
    counts = tuple(belongs.sum(1).tolist())
    return LabelStatistics(names, counts, found[0], found[1], found[2], found[3])


def average_precision(values: Tensor, belongs: Tensor) -> Tensor:
    """Return the average precision of each label and neuron.

    Args:
        values: Float[prompt, unit].
        belongs: Bool[label, prompt]; each label has a prompt.

    Returns:
        Float64[label, unit].
    """
    ranked, order = values.T.sort(dim=1, descending=True, stable=True)
    rank = torch.arange(1, len(values) + 1, dtype=torch.float64)
    # Equal values are one step: what is reached at its end counts for all of it.
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    results = []
    for hits in belongs.double():
        reached = hits[order].cumsum(1)
        at_ends = torch.where(last, reached, 0.0).cummax(1).values
        gained = at_ends - torch.cat([torch.zeros_like(at_ends[:, :1]), at_ends[:, :-1]], 1)
        results.append((gained * reached / rank).sum(1) / hits.sum())
    return torch.stack(results)


def _mutual_information(active: Tensor, belongs: Tensor) -> Tensor:
    prompts = len(active)
    both = belongs.double() @ active.double() / prompts
    of_label = belongs.double().mean(1)[:, None]
    of_unit = active.double().mean(0)[None]
    total = torch.zeros_like(both)
    for joint, alone in (
        (both, of_label * of_unit),
        (of_label - both, of_label * (1 - of_unit)),
        (of_unit - both, (1 - of_label) * of_unit),
        (1 - of_label - of_unit + both, (1 - of_label) * (1 - of_unit)),
    ):
        # Rounding may leave a little less than nothing; nothing tells nothing.
        some = joint > 1e-12
        total += torch.where(some, joint * (joint / alone.clamp_min(1e-300)).log2(), 0.0)
    return total.clamp_min(0)


def _selectivity(values: Tensor, belongs: Tensor) -> Tensor:
    exact, mine = values.double(), belongs.double()
    count = mine.sum(1)[:, None]
    other = len(values) - count
    total, squares = exact.sum(0), exact.square().sum(0)
    inside, inside_squares = mine @ exact, mine @ exact.square()
    difference = inside / count - (total - inside) / other
    within = (
        (inside_squares - inside.square() / count)
        + (squares - inside_squares - (total - inside).square() / other)
    ).clamp_min(0) / len(values)
    spread = within.sqrt()
    return torch.where(spread > 0, difference / spread.clamp_min(1e-300), 0.0)


def _share(active: Tensor, belongs: Tensor) -> Tensor:
    return belongs.double() @ active.double() / belongs.double().sum(1)[:, None]
