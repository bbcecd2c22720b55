"""A model that is not a language model: any `torch.nn.Module` with a declared input."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InputError, ModelError
from patchclamp.models.module_anatomy import ModuleAnatomy
from patchclamp.models.shared_weights import buffers_of, changed, weights_of
from patchclamp.models.stimulus import Stimulus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn


class ModuleModel:
    """A module, what it takes, and what there is to address in it.

    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 5), torch.nn.ReLU())
    >>> sound = Stimulus((1, None), low=-1, high=1, renderer="curve", size=400, smallest=5)
    >>> ModuleModel(net, sound, name="ears").anatomy.parts["1"].channels
    4

    Args:
        module: The module; it is called with one tensor, a batch of stimuli, and is never changed
            or hooked. patchclamp runs copies of it in evaluation mode that share its weights.
        stimulus: What it takes.
        name: What to call it; by default its class.
        labels: A name for each channel of its output.
        source: Python code that binds `model` to the same model.
        note: What a reader of its outputs has to know.

    Raises:
        ModelError: When it is no module, cannot be copied, does not take such a stimulus, or gives
            no tensor with a batch dimension.

    Attributes:
        module: The module.
        stimulus: What it takes.
        labels: A name for each channel of its output; empty when they have none.
        anatomy: The parts that it has, a :class:`~patchclamp.models.module_anatomy.ModuleAnatomy`.
        name: What to call it.
        source: Python code that binds `model` to the same model, or None.
        note: What a reader of its outputs has to know; None when there is nothing to say.
    """

    def __init__(
        self,
        module: nn.Module,
        stimulus: Stimulus,
        *,
        name: str | None = None,
        labels: Sequence[str] = (),
        source: str | None = None,
        note: str | None = None,
    ) -> None:
        _check_types(module, stimulus)
        self.module = module
        self._weight = next(_places(module), None)
        self.stimulus = stimulus
        self.name = name or type(module).__name__
        self.source = source
        self.note = note
        self.anatomy = ModuleAnatomy.of(module, stimulus, self.prepare)
        self.labels = tuple(labels)
        classes = self.anatomy.parts[self.anatomy.output].channels
        if self.labels and len(self.labels) != classes:
            raise ModelError(
                f"{self.name} gives {classes} numbers, and there are {len(self.labels)} labels: "
                "one is needed for each."
            )
        # The engine's place: one for all sessions of this model, gone with it.
        self.engine: object = None
        self._version = 0
        self._looking = threading.Lock()
        self._noted = [*weights_of(module), *buffers_of(module)]

    def __repr__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        takes = "×".join("any" if n is None else str(n) for n in self.stimulus.shape)
        return f"ModuleModel({self.name!r}: {takes}, {len(self.anatomy.parts)} parts{note})"

    @property
    def weights_version(self) -> int:
        """A number that grows when a weight or buffer was updated or replaced (a training step)."""
        with self._looking:
            if changed(self._noted):
                self._version += 1
                self._noted = [*weights_of(self.module), *buffers_of(self.module)]
            return self._version

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        first = self._a_weight()
        return torch.device("cpu") if first is None else first.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored as."""
        first = self._a_weight()
        return torch.float32 if first is None else first.dtype

    def _a_weight(self) -> Tensor | None:
        # Walking the module tree for it at every run would cost more than all else here.
        if self._weight is None:
            return None
        table, name = self._weight
        return table.get(name)

    def prepare(self, stimuli: Tensor) -> Tensor:
        """Return what the module is given: on its device, in its type, normalised.

        Args:
            stimuli: Float[batch, *shape] in the declared range; a graph that it has goes on.
        """
        put = stimuli.to(self.device, self.dtype)
        for values, apply in ((self.stimulus.mean, torch.sub), (self.stimulus.std, torch.div)):
            if values:
                each = put.new_tensor(values).view(-1, *[1] * (put.ndim - 2))
                put = apply(put, each)
        return put

    def label(self, index: int) -> str:
        """The name of a channel of the output, its number where it has none.

        Raises:
            InputError: When there is no such channel.
        """
        count = self.anatomy.parts[self.anatomy.output].channels
        if not 0 <= index < count:
            raise InputError(f"{self.name} has the outputs 0 to {count - 1}, not {index}.")
        return self.labels[index] if self.labels else str(index)


def _places(module: nn.Module) -> Iterator[tuple[Mapping[str, Tensor | None], str]]:
    """Where floating-point weights and buffers hang, by table and name."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):  # noqa: SLF001 (as shared_weights does)
            for name, tensor in table.items():
                if tensor is not None and tensor.is_floating_point():
                    yield table, name


def _check_types(module: object, stimulus: object) -> None:
    if isinstance(module, ModuleModel):
        raise ModelError("This is a ModuleModel already: use it as it is.")
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"ModuleModel takes a torch.nn.Module, not a {type(module).__name__}; to load one by "
            "its name use patchclamp.load(...)."
        )
    if not isinstance(stimulus, Stimulus):
        raise ModelError(
            "ModuleModel needs a patchclamp.Stimulus that says what the module takes, such as "
            f"Stimulus((3, None, None), size=224), not a {type(stimulus).__name__}."
        )
