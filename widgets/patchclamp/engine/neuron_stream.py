"""Runs whole batches of texts and hands over every neuron's values, a layer at a time.

A corpus pass is forward passes and nothing else, so it runs the plain blocks, which are faster than
those that TransformerLens can hook: what an MLP's output projection reads *is* the neurons' post
activations. Which module that is, is told by its weight, which all twins of a model share. Where
there is no such module, or the plain blocks are not exact on an architecture, TransformerLens' hook
points are taken.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from patchclamp.engine.hooks import Frame, Step
from patchclamp.engine.shell import Pass
from patchclamp.errors import ModelError
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from patchclamp.engine.engine import Engine

    Consume = Callable[[int, Tensor], None]


class NeuronStream:
    """The neurons' values of one batch after the other.

    It computes where it is called, so it belongs on the model's worker.

    Args:
        engine: what runs the model.

    Attributes:
        layers: those that have neurons.
        plain: whether the plain blocks are run.

    Raises:
        ModelError: when the model has no neurons.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        anatomy = engine.model.anatomy
        self.layers = tuple(layer for layer in range(anatomy.n_layers) if anatomy.n_neurons(layer))
        if not self.layers:
            msg = f"{engine.model.name} has no MLP neurons to look at."
            raise ModelError(msg)
        self._outs = self._found() if engine.shortcuts.plain else {}
        self.plain = set(self._outs) == set(self.layers)

    def run(
        self,
        ids: Tensor,
        consume: Consume,
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Run rows of tokens, all of one length or padded on the right.

        Args:
            ids: LongTensor[item, pos]; a causal model's values left of the padding are its own.
            consume: gets each layer and Float[item, pos, neuron], its neurons' post activations, as
                soon as they are there; the tensor is the model's own and is not to be changed.
            should_stop: asked before every block.

        Raises:
            Stopped: when ``should_stop`` said so.
        """
        engine = self._engine
        passes, now = engine.passes, Pass(stop=self.layers[-1] + 1, should_stop=should_stop)
        with torch.no_grad():
            if self.plain:
                shell = passes.shells["plain"]
                now.blocks = shell.blocks
                with ExitStack() as during:
                    for layer, module in self._outs.items():
                        tell = partial(_tell, consume, layer)
                        handle = module.register_forward_pre_hook(tell)
                        during.callback(handle.remove)
                    shell.run(ids.to(engine.model.device), now)
                return
            hooks = {layer: self._hook(layer) for layer in self.layers}
            steps = [Step(hook, partial(_take, consume, layer)) for layer, hook in hooks.items()]
            passes.forward(ids, [steps], Frame(0, ids.shape[1], has_bos=True), now)

    def _hook(self, layer: int) -> str:
        return self._engine.model.anatomy.hook(Site("neuron", layer, 0, "post"))

    def _found(self) -> dict[int, nn.Module]:
        """The module of the plain twin that reads each layer's neurons."""
        passes = self._engine.passes
        blocks: Any = passes.bridge.blocks
        outs: dict[int, nn.Module] = {}
        for layer in self.layers:
            weight = blocks[layer].mlp.out.original_component.weight
            for module in passes.shells["plain"].blocks[layer].modules():
                if getattr(module, "weight", None) is weight:
                    outs[layer] = module
        return outs


def _tell(consume: Consume, layer: int, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
    consume(layer, given[0])


def _take(consume: Consume, layer: int, tensor: Tensor, _frame: Frame) -> None:
    consume(layer, tensor)
