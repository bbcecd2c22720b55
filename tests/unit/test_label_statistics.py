"""Statistics of labels equal scikit-learn's, and find a planted neuron."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, mutual_info_score

from patchclamp.errors import InputError
from patchclamp.methods.label_statistics import label_statistics

LABELS = ["north", "south", "east"] * 20


def values(units: int = 30) -> torch.Tensor:
    found = torch.randn(60, units, generator=torch.Generator().manual_seed(1))
    return found.round(decimals=1)  # so that some are equal


@pytest.mark.parametrize("name", ["north", "south", "east"])
def test_average_precision_and_mutual_information_are_scikit_learns(name: str) -> None:
    given = values()
    found = label_statistics(given, LABELS)
    row = found.labels.index(name)
    truth = np.array([label == name for label in LABELS])
    for unit in range(given.shape[1]):
        scores = given[:, unit].numpy()
        assert float(found.average_precision[row, unit]) == pytest.approx(
            average_precision_score(truth, scores), abs=1e-12
        )
        assert float(found.mutual_information[row, unit]) == pytest.approx(
            mutual_info_score(truth, scores > 0) / math.log(2), abs=1e-12
        )


def test_selectivity_and_activation_probability_are_those_of_their_definition() -> None:
    given = values()
    found = label_statistics(given, LABELS, threshold=0.3)
    mine = torch.tensor([label == "east" for label in LABELS])
    row = found.labels.index("east")
    inside, outside = given[mine].double(), given[~mine].double()
    within = (inside.var(0, correction=0) * 20 + outside.var(0, correction=0) * 40) / 60
    torch.testing.assert_close(
        found.selectivity[row], (inside.mean(0) - outside.mean(0)) / within.sqrt()
    )
    torch.testing.assert_close(
        found.activation_probability[row], (given[mine] > 0.3).double().mean(0)
    )


def test_a_planted_neuron_is_ranked_first_and_shuffled_labels_find_none() -> None:
    given = values(400)
    mine = torch.tensor([label == "south" for label in LABELS])
    given[:, 123] += 6 * mine
    found = label_statistics(given, LABELS)
    row = found.labels.index("south")
    for table in (found.average_precision, found.mutual_information, found.selectivity):
        assert int(table[row].argmax()) == 123
    assert found.saturated.tolist() == [int(name == "south") for name in found.labels]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = label_statistics(given, [LABELS[place] for place in order])
    assert float(shuffled.average_precision[:, 123].max()) < 0.6


def test_a_neuron_that_never_changes_says_nothing() -> None:
    given = torch.ones(60, 1)
    found = label_statistics(given, LABELS)
    assert found.selectivity.tolist() == [[0.0]] * 3
    assert found.mutual_information.tolist() == [[0.0]] * 3
    torch.testing.assert_close(
        found.average_precision, torch.full((3, 1), 1 / 3, dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("labels", "said"), [(["a"] * 60, "at least two"), (["a", "b"], "needs one label")]
)
def test_labels_that_cannot_be_told_apart_are_a_sentence(labels: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        label_statistics(values(), labels)
