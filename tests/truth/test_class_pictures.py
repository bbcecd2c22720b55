"""Pictures of classes and channels of EfficientNet-Lite0, made with the defaults. `make truth`.

20 output classes and 20 channels (of `_blocks.9` to `_blocks.14`) are drawn at random with seed 0.
Each is climbed with the default recipe for 256 steps from a picture of 128 x 128.

- *Classified*: the picture of a class, shown to the plain network, is classified as its class, as
  it is and under each of some changes that it was not trained with: mirrored, in perspective, with
  other colours and contrast, a quarter larger, a fifth smaller, and darker. For at least 18 of 20,
  each.
- *Beats*: its unit's value is above the highest one of the shipped sample pictures, shown in their
  own size and in the picture's, and above that of 64 pictures of white noise and 64 of 1/f noise.
  For every unit.

What was measured is written to `results/class-pictures.json`.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from patchclamp import load
from patchclamp.corpora.sample_pictures import pictures
from patchclamp.engine.module_engine import ModuleEngine
from patchclamp.methods.feature_visualization import Climb, Optimization, run
from patchclamp.methods.image_parameterization import Fourier
from patchclamp.methods.objective import objective

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from patchclamp.methods.objective import Objective
    from patchclamp.models.module_model import ModuleModel

COUNT = 20
ENOUGH = 18
SIZE = 128
BLOCKS = range(9, 15)
RESULTS = Path(__file__).parent / "results" / "class-pictures.json"


def perspective(x: Tensor) -> Tensor:
    """Return pictures seen a little from the left and above; grey around."""
    map_ = torch.tensor([[1.0, 0.06, 0.02], [-0.05, 1.05, -0.02], [0.12, 0.08, 1.0]])
    places = torch.linspace(-1, 1, x.shape[-1])
    y, across = torch.meshgrid(places, places, indexing="ij")
    seen = torch.stack([across, y, torch.ones_like(y)], -1) @ map_.T
    grid = (seen[..., :2] / seen[..., 2:]).expand(len(x), *x.shape[2:], 2)
    return functional.grid_sample(x - 0.5, grid, align_corners=True) + 0.5


def resized(x: Tensor, factor: float) -> Tensor:
    side = round(x.shape[-1] * factor)
    return functional.interpolate(x, size=side, mode="bilinear", antialias=factor < 1)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda x: x,
    "mirrored": lambda x: x.flip(3),
    "perspective": perspective,
    "colours": lambda x: ((x - 0.5) * 0.8 + torch.tensor([0.55, 0.5, 0.45])[:, None, None]).clamp(
        0, 1
    ),
    "larger": lambda x: resized(x, 1.25),
    "smaller": lambda x: resized(x, 0.8),
    "darker": lambda x: 0.7 * x,
}


def noise() -> list[Tensor]:
    """Draw 64 pictures of white noise and 64 of 1/f noise with plenty of contrast."""
    generator = torch.Generator().manual_seed(1)
    white = torch.rand(64, 3, SIZE, SIZE, generator=generator)
    waves = Fourier(load("efficientnet-lite0").stimulus, (3, SIZE, SIZE), 64, generator)
    with torch.no_grad():
        waves.values.mul_(50)
        return [white, waves.stimuli()]


def highest(model: ModuleModel, unit: Objective, stimuli: Tensor) -> float:
    """Return the highest value of a unit."""
    engine = ModuleEngine.of(model)
    with torch.no_grad():
        runs = [engine.run(chunk, unit.hooks).values for chunk in stimuli.split(8)]
    return max(float(unit.value(values).max()) for values in runs)


def test_pictures_of_classes_are_classified_and_every_picture_beats_samples_and_noise() -> None:
    model = load("efficientnet-lite0")
    draw = random.Random(0)  # noqa: S311 (a draw of units, not a secret)
    output = model.anatomy.output
    classes = sorted(draw.sample(range(model.anatomy.part(output).channels), COUNT))
    channels = []
    for _ in range(COUNT):
        path = f"_blocks.{draw.choice(BLOCKS)}"
        channels.append(f"{path}:c{draw.randrange(model.anatomy.part(path).channels)}")
    samples = {size: pictures(size).stimuli for size in (224, SIZE)}
    random_ones = noise()
    found = []
    for address in [*(f"{output}:c{index}" for index in classes), *channels]:
        unit = objective(model, address)
        made = Optimization(model, unit, Climb(size=SIZE))
        list(run(made))
        frame = made.frame()
        row: dict[str, Any] = {
            "unit": address,
            "value": highest(model, unit, frame),
            "samples": max(highest(model, unit, x) for x in samples.values()),
            "noise": max(highest(model, unit, x) for x in random_ones),
        }
        if address.startswith(output):
            index = int(address.rpartition("c")[2])
            row["label"] = model.label(index)
            with torch.no_grad():
                for change, of in CHANGES.items():
                    p = model.module(model.prepare(of(frame))).softmax(1)[0]
                    row[change] = {"right": int(p.argmax()) == index, "p": float(p[index])}
        found.append(row)
        print(json.dumps(row), flush=True)  # noqa: T201 (it takes minutes; this says how far it is)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    right = {change: sum(row[change]["right"] for row in found[:COUNT]) for change in CHANGES}
    print(right)  # noqa: T201
    assert all(row["value"] > max(row["samples"], row["noise"]) for row in found)
    assert min(right.values()) >= ENOUGH, right
