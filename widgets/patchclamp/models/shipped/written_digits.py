"""The pictures that the shipped digit classifier learned from, with two writing styles planted.

The digits are scikit-learn's (1,797 of 43 people, 8 x 8 pixels; Alpaydin and Kaynak, "Optical
Recognition of Handwritten Digits", UCI, 1998), twice as large here. One class is written in two
ways: half of the sevens lie on their side. Whoever looks for the facets of the unit "7" knows what
has to come out, because which seven lies is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from patchclamp.models.digits import SIDE

PLANTED_CLASS = 7
PLANTING_SEED = 0
HELD_OUT = 5  # every fifth picture is not learned from


@dataclass(frozen=True)
class WrittenDigits:
    """Pictures of digits.

    Attributes:
        images: Float[picture, 1, 16, 16], 0 black and 1 white.
        classes: LongTensor[picture], 0 to 9.
        lying: BoolTensor[picture], whether it was laid on its side: half of one class.
        held_out: BoolTensor[picture], whether the classifier did not learn from it.
    """

    images: Tensor
    classes: Tensor
    lying: Tensor
    held_out: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def where(self, chosen: Tensor) -> WrittenDigits:
        """Return the pictures that a BoolTensor[picture] or LongTensor chooses."""
        return WrittenDigits(
            self.images[chosen], self.classes[chosen], self.lying[chosen], self.held_out[chosen]
        )


@cache
def written_digits() -> WrittenDigits:
    """Return all pictures, always the same ones in the same order."""
    from sklearn.datasets import load_digits

    stored = load_digits()
    classes = torch.as_tensor(stored.target).long()
    small = torch.as_tensor(stored.images).float()[:, None] / 16
    images = interpolate(small, size=SIDE, mode="bilinear", align_corners=False)
    of_class = (classes == PLANTED_CLASS).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(PLANTING_SEED)
    chosen = of_class[torch.randperm(len(of_class), generator=generator)[: len(of_class) // 2]]
    lying = torch.zeros(len(classes), dtype=torch.bool)
    lying[chosen] = True
    images[chosen] = images[chosen].rot90(1, (2, 3))
    held_out = torch.arange(len(classes)) % HELD_OUT == 0
    return WrittenDigits(images, classes, lying, held_out)
