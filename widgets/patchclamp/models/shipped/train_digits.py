"""Train the shipped digit classifier, in whose sevens two writing styles are planted.

What is learned from, and what was planted in it, is in `written_digits.py`; the classifier itself
in `models/digits.py`. It is told which digit a picture shows and nothing of styles: that the unit
"7" has two facets is something it had to find out, and that others can find in it.

Pictures are moved by up to a pixel and get some noise while it learns, so that what drives a unit
looks like something.

Run `python -m patchclamp.models.shipped.train_digits [FOLDER]`; the same seed on one machine gives
the same weights. It takes some seconds, says how many of the pictures that it did not learn from
are classified rightly, and writes `model.safetensors`, `training.json` and a manifest, which
`patchclamp.load("digits")` reads.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from patchclamp.models import catalogue, store
from patchclamp.models.digits import DigitClassifier
from patchclamp.models.shipped.written_digits import WrittenDigits, written_digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.01
NOISE = 0.1
SHIFT = 1  # pixels


@dataclass(frozen=True)
class Training:
    """How long it learns, on how many pictures at a time, and what seeds it."""

    epochs: int = 40
    batch: int = 64
    seed: int = 0


TRAINING = Training()


def train(
    training: Training = TRAINING, data: WrittenDigits | None = None
) -> tuple[DigitClassifier, dict[str, float]]:
    """Train a classifier and measure it.

    Args:
        training: How.
        data: What on, but for what is held out; None is `written_digits()`.

    Returns:
        The classifier, and what share of pictures it gets right; see `accuracies`.
    """
    torch.set_num_threads(1)  # sums in another order would be other weights
    given = written_digits() if data is None else data
    learned = given.where(~given.held_out)
    generator = torch.Generator().manual_seed(training.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = DigitClassifier()
    steps = training.epochs * len(learned) // training.batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for _ in range(steps):
        drawn = torch.randint(len(learned), (training.batch,), generator=generator)
        pixels = varied(learned.images[drawn], generator)
        loss = cross_entropy(model(pixels), learned.classes[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval(), accuracies(model, given)


def varied(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move a batch of pictures by up to a pixel, all in one way, and add noise."""
    down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
    noise = NOISE * torch.randn(pixels.shape, generator=generator)
    return (pixels.roll((down, right), (2, 3)) + noise).clip(0, 1)


@torch.no_grad()
def accuracies(
    model: Callable[[Tensor], Tensor], data: WrittenDigits | None = None
) -> dict[str, float]:
    """Measure a classifier on what it did not learn from.

    Args:
        model: From Float[batch, 1, 16, 16] to logits, Float[batch, 10].
        data: The pictures; None is `written_digits()`.

    Returns:
        The share that it gets right, of all pictures and of those that lie.
    """
    given = written_digits() if data is None else data
    kept = given.where(given.held_out)
    right = (model(kept.images).argmax(1) == kept.classes).float()
    return {"all": float(right.mean()), "lying": float(right[kept.lying].mean())}


def save(
    model: DigitClassifier, measured: dict[str, float], folder: Path, training: Training = TRAINING
) -> None:
    """Write the model's folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = {"training": asdict(training), "right": measured}
    (folder / "training.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    store.write_manifest(catalogue.DIGITS, folder)


def main(folder: Path) -> None:
    """Train, say what came out, and write it."""
    model, measured = train()
    weights = sum(p.numel() for p in model.parameters())
    print(f"{weights:,} weights; right: {measured}")
    save(model, measured, folder)
    print(f"written to {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else store.folder_of(catalogue.DIGITS))
