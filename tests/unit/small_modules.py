"""Tiny modules of every sort that tests look into, each with the stimulus that it takes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchclamp.models.module_model import ModuleModel
from patchclamp.models.stimulus import Stimulus


class Convolutions(nn.Module):
    """A picture classifier with one ReLU that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.second(x))
        logits: Tensor = self.out(self.pool(x).flatten(1))
        return logits


class Recurrent(nn.Module):
    """A sequence [time, feature] read by an LSTM, batch first or time first."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.lstm = nn.LSTM(4, 7, batch_first=batch_first)
        self.out = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        given = x.transpose(1, 2)  # the stimulus is [channel, time]
        states, _ = self.lstm(given if self.batch_first else given.transpose(0, 1))
        last = states[:, -1] if self.batch_first else states[-1]
        decided: Tensor = self.out(last)
        return decided


class Cells(nn.Module):
    """One cell that runs once a time step: its calls are positions."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2, 5)
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 5)
        for step in x.unbind(2):
            state = self.cell(step, state)
        decided: Tensor = self.out(state)
        return decided


class Leaky(nn.Module):
    """Keeps its state in a buffer, as spiking nets do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.membrane: Tensor
        self.register_buffer("membrane", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        now: Tensor = self.membrane + self.inner(x).mean(1)
        self.membrane += 1
        return now


class Heaviside(nn.Module):
    """What fires or does not: no gradient goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.drive = nn.Linear(4, 4)
        self.spikes = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        fired: Tensor = self.spikes((self.drive(x.flatten(1)) > 0).float())
        return fired


class Overwrites(nn.Module):
    """Writes into what a part of it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x.flatten(1))
        y *= 0
        read: Tensor = self.second(y)
        return read


class Speaks(nn.Module):
    """Has a part that returns no tensor, and a part that mixes its batch away."""

    def __init__(self) -> None:
        super().__init__()
        self.says = _Dictionary()
        self.mixes = _Mean()
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.says(x.flatten(1))["value"]
        mixed: Tensor = self.out(said + self.mixes(said))
        return mixed


class _Dictionary(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"value": x}


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean()


PICTURE = Stimulus((3, None, None), size=12, smallest=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
SEQUENCE = Stimulus((4, None), low=-1, high=1, renderer="curve", size=6)
STEPS = Stimulus((2, 5), low=-2, high=2, renderer="curve")
ROW = Stimulus((1, 4), low=-3, high=3, renderer="curve")


def model(module: nn.Module, stimulus: Stimulus, *, name: str = "tiny") -> ModuleModel:
    """A model of a module whose weights the seed draws."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for path, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point():
                least = 0.2 if path.endswith("running_var") else -0.3
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + least)
    return ModuleModel(module, stimulus, name=name)


def convolutions() -> ModuleModel:
    """The picture classifier, with its batch norm in evaluation mode."""
    return model(Convolutions().eval(), PICTURE, name="pictures")


def draw(stimulus: Stimulus, batch: int = 2, *, size: int | None = None, seed: int = 1) -> Tensor:
    """Some stimuli inside of their range."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *stimulus.example_shape(size))
    drawn = torch.rand(shape, generator=generator)
    return stimulus.low + (stimulus.high - stimulus.low) * drawn
