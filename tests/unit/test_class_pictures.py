"""A small part of the truth about class pictures, which `make truth` measures on many."""

from __future__ import annotations

import pytest
import torch

import patchclamp as pc
from patchclamp.methods.feature_visualization import Climb, Optimization, run
from patchclamp.methods.objective import objective

CLASSES = {"goldfish": 1, "golden retriever": 207, "school bus": 779}


@pytest.mark.slow
def test_pictures_of_classes_are_classified_as_theirs_mirrored_too() -> None:
    model = pc.load("efficientnet-lite0")
    drawn = torch.Generator().manual_seed(0)
    noise = torch.rand(16, 3, 128, 128, generator=drawn)
    with torch.no_grad():
        of_noise = model.module(model.prepare(noise))
    for label, index in CLASSES.items():
        assert label in model.label(index)
        made = Optimization(model, objective(model, f"_fc:c{index}"), Climb(size=128, steps=128))
        list(run(made))
        frame = made.frame()
        with torch.no_grad():
            logits = model.module(model.prepare(torch.cat([frame, frame.flip(3)])))
        assert logits.argmax(1).tolist() == [index, index]
        assert float(logits[0, index]) > float(of_noise[:, index].max()) + 10
