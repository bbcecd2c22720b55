"""The architecture of the shipped digit classifier: three convolutions, one hidden layer.

Small enough to be trained in seconds, and deep enough that a unit's image is not its weights:

    pixels [1, 16, 16] -> conv1 (16 channels) -> pool -> conv2 (32) -> pool -> conv3 (48)
                       -> hidden (48 units) -> digit (10 classes)

each followed by a ReLU but the last. `hidden` is the penultimate layer: what facets of a class are
told apart by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SIDE = 16  # pixels
CLASSES = 10
HIDDEN = 48
LABELS = tuple(str(digit) for digit in range(CLASSES))


class DigitClassifier(nn.Module):
    """From pictures of digits, white on black, to logits."""

    def __init__(self) -> None:
        """Draw the weights as torch does."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(32, 48, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.flat = nn.Flatten()
        self.hidden = nn.Linear(48 * (SIDE // 4) ** 2, HIDDEN)
        self.code = nn.ReLU()
        self.digit = nn.Linear(HIDDEN, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Classify Float[batch, 1, 16, 16], 0 black and 1 white, as logits, Float[batch, 10]."""
        x = self.pool1(self.relu1(self.conv1(pixels)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.flat(self.relu3(self.conv3(x)))
        logits: Tensor = self.digit(self.code(self.hidden(x)))
        return logits


def read(folder: Path) -> DigitClassifier:
    """Make the classifier whose weights a folder holds, in evaluation mode.

    Raises:
        OSError, RuntimeError, SafetensorError: If they are not all there.
    """
    from safetensors.torch import load_file

    module = DigitClassifier()
    module.load_state_dict(load_file(folder / "model.safetensors"))
    return module.eval()
