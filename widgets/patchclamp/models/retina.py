"""A synthetic retina: cells of known types, to find the types again.

Each cell is a linear filter and a nonlinearity (an LN cell; Chichilnisky, "A simple white noise
analysis of neuronal light responses", 2001): a window in space, a kernel in time, a threshold, and
the mean rate over a stimulus. There are eight types, every combination of

- *polarity*: ON cells answer to light, OFF cells to dark;
- *kinetics*: transient cells to changes, sustained cells as long as it lasts;
- *size*: small cells, with an inhibitory surround, to fine patterns, large ones to wide fields.

Cells of one type differ a little in width, speed, gain and place. What they see is a film of
flickering bars, bars across and frames along, centred on each cell as an experimenter centres it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import nn

from patchclamp.errors import InputError
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.stimulus import Stimulus

if TYPE_CHECKING:
    from torch import Tensor

BARS, FRAMES = 24, 30
MEMORY = 10  # frames that a cell looks back
VARIATION = 0.03  # standard deviation of width, speed and gain, as a share
JITTER = 0.15  # of a cell's place, bars
THRESHOLD = 1.5
STEEPNESS = 4.0
SMALL, LARGE = 1.2, 3.0  # bars
SPEED = 1.2  # frames

TYPES: tuple[str, ...] = tuple(
    " ".join(words)
    for words in itertools.product(("ON", "OFF"), ("transient", "sustained"), ("small", "large"))
)


class Retina(nn.Module):
    """Eight types of LN cells.

    Args:
        cells: how many of each type.
        seed: of what makes cells of a type differ.

    Attributes:
        types: LongTensor[cell], which of `TYPES` each cell is; cells of a type are not neighbours.
    """

    types: Tensor

    def __init__(self, cells: int = 10, seed: int = 0) -> None:
        super().__init__()
        if cells < 1:
            msg = f"A retina has at least 1 cell of each type, not {cells}."
            raise InputError(msg)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(cells * len(TYPES), generator=generator)
        types = torch.arange(len(TYPES)).repeat_interleave(cells)[order]
        windows, kernels = [], []
        for kind in types.tolist():
            light, kinetics, size = TYPES[kind].split()
            off = torch.randn(4, generator=generator).clip(-2, 2).tolist()
            width = (SMALL if size == "small" else LARGE) * (1 + VARIATION * off[0])
            middle = (BARS - 1) / 2 + JITTER * off[1]
            sign = 1 if light == "ON" else -1
            gain = sign * (1 + VARIATION * off[2])
            windows.append(gain * _window(width, middle, surround=size == "small"))
            speed = SPEED * (1 + VARIATION * off[3])
            kernels.append(_kernel(speed, transient=kinetics == "transient"))
        count = len(types)
        self.space = nn.Conv1d(BARS, count, 1, bias=False)
        self.time = nn.Conv1d(count, count, MEMORY, groups=count, bias=False)
        self.spikes = nn.Softplus(beta=STEEPNESS)
        self.rate = nn.AdaptiveAvgPool1d(1)
        self.cell = nn.Flatten()
        with torch.no_grad():
            self.space.weight.copy_(torch.stack(windows)[..., None])
            self.time.weight.copy_(torch.stack(kernels)[:, None])
        self.register_buffer("types", types)
        self.double()  # a search takes hundreds of steps: the same ones on every machine

    def forward(self, film: Tensor) -> Tensor:
        """Answer to Float[batch, bar, frame] with rates, Float[batch, cell]."""
        seen = nn.functional.pad(self.space(film), (MEMORY - 1, 0))  # grey before it starts
        rates: Tensor = self.cell(self.rate(self.spikes(self.time(seen) - THRESHOLD)))
        return rates


def synthetic_retina(cells: int = 10, seed: int = 0) -> ModuleModel:
    """Return a retina whose cells are the units ``cell:c0``, ``cell:c1``, ...

    The type of each is ``model.module.types``, an index into `TYPES`.

    Args:
        cells: how many of each of the eight types.
        seed: of what makes cells of a type differ.

    Raises:
        InputError: when there is not a single cell.
    """
    retina = Retina(cells, seed)
    film = Stimulus((BARS, FRAMES), low=-1, high=1, renderer="raster")
    source = (
        "from patchclamp.models.retina import synthetic_retina\n\n"
        f"model = synthetic_retina({cells}, seed={seed})\n"
    )
    return ModuleModel(retina, film, name="retina", source=source)


def _window(width: float, middle: float, *, surround: bool) -> Tensor:
    """Return Float[bar] of length 1: a bell, less nearly as much of a wider one."""
    place = torch.arange(BARS) - middle
    bell = torch.exp(-((place / width) ** 2) / 2)
    window = bell / bell.sum()
    if surround:
        wide = torch.exp(-((place / (2.5 * width)) ** 2) / 2)
        window = window - 0.9 * wide / wide.sum()
    unit: Tensor = window / window.norm()
    return unit


def _kernel(speed: float, *, transient: bool) -> Tensor:
    """Return Float[frame] of length 1, the latest frame last: slow, or fast less slow."""
    ago = torch.arange(float(MEMORY)).flip(0)
    fast, slow = ((ago / tau) ** 2 * torch.exp(-ago / tau) for tau in (speed, 2 * speed))
    kernel = fast / fast.sum() - slow / slow.sum() if transient else slow
    unit: Tensor = kernel / kernel.norm()
    return unit
