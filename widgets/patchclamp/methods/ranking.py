"""Which of a prompt's neurons matter: by activation, by direct effect, by gradient x activation.

- *activation*: |a|, the neuron's value (its post activation) at a position.
- *direct*: what the neuron adds to the target token's logit through the unembedding alone:
  a (w · d), with w what it writes and d the final norm's reading of the token with the norm's scale
  held ("direct logit attribution", Elhage et al., "A Mathematical Framework for Transformer
  Circuits", 2021). Exact, and summing over all components to the logit.
- *gradient*: a (∂ metric / ∂a), the first-order estimate of what the neuron's value does to the
  metric (attribution; Simonyan et al. 2013, Nanda 2023), taken on the very tensor that a
  clamp edits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from patchclamp.errors import InputError, ModelError
from patchclamp.methods.massive import massive_neurons, neuron_hooks
from patchclamp.models.weights import Readout, neuron_writes

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from patchclamp.engine.experiment import Experiment
    from patchclamp.methods.metric import Measure

By = Literal["activation", "direct", "gradient"]


@dataclass(frozen=True)
class RankedNeuron:
    """A neuron of a ranking.

    Attributes:
        layer: its layer.
        index: its number in the layer.
        score: what it was ranked by: an activation, logits, or the metric's unit.
        activation: its value at the position.
        massive: whether it is a massive-activation neuron.
    """

    layer: int
    index: int
    score: float
    activation: float
    massive: bool

    @property
    def address(self) -> str:
        """Its address."""
        return f"L{self.layer}.N{self.index}"


def rank_neurons(
    experiment: Experiment,
    by: By,
    *,
    measure: Measure,
    position: int = -1,
    count: int = 20,
    include_massive: bool = False,
    should_stop: Callable[[], bool] | None = None,
) -> list[RankedNeuron]:
    """Rank all MLP neurons at one position; the largest absolute score first.

    Runs on the model's worker.

    Args:
        experiment: the run to rank in.
        by: "activation", "direct" or "gradient"; see this module.
        measure: what the gradient is of; its first token is the direct effect's, or, where it is
            about none, the one that is likeliest without interventions.
        position: where the neurons are; -1 is the prompt's last token.
        count: how many to return.
        include_massive: also the massive-activation neurons.
        should_stop: asked before every block.

    Raises:
        InputError: when the position is not one of the prompt's.
        ModelError: when a direct effect is not defined on this model.
        MetricError: when the metric is no number, or has no gradient where that is asked for.
    """
    length = experiment.length
    if not -length <= position < length:
        msg = f"Position {position} is outside the prompt (0 to {length - 1})."
        raise InputError(msg)
    model = experiment.engine.model
    hooks = neuron_hooks(model.anatomy)
    names = list(hooks.values())
    if by == "gradient":
        found = experiment.gradients(
            names,
            lambda logits: measure.differentiable(logits[None])[0],
            should_stop,
            rows=measure.rows,
        )
        values = {layer: found[name][0][position] for layer, name in hooks.items()}
        scores = {layer: values[layer] * found[name][1][position] for layer, name in hooks.items()}
    else:
        captured = experiment.capture(names, should_stop=should_stop)
        values = {layer: captured[name][position] for layer, name in hooks.items()}
        scores = values
        if by == "direct":
            scores = _direct(experiment, values, measure, position, should_stop)
    massive = massive_neurons(experiment.surroundings.reference, model.anatomy)
    where = torch.tensor([(layer, n) for layer in hooks for n in range(len(scores[layer]))])
    flat = torch.cat([scores[layer].float() for layer in hooks])
    size = flat.abs()
    if not include_massive:
        hidden = [n for n, pair in enumerate(where.tolist()) if tuple(pair) in massive]
        size[hidden] = -1
    best = size.topk(min(count, len(size) - (0 if include_massive else len(massive)))).indices
    return [
        RankedNeuron(
            layer,
            index,
            float(scores[layer][index]),
            float(values[layer][index]),
            (layer, index) in massive,
        )
        for layer, index in (where[n].tolist() for n in best)
    ]


def _direct(
    experiment: Experiment,
    values: dict[int, Tensor],
    measure: Measure,
    position: int,
    should_stop: Callable[[], bool] | None,
) -> dict[int, Tensor]:
    model = experiment.engine.model
    if not model.anatomy.additive:
        msg = (
            "In this model the residual stream is no plain sum of what its components write (a "
            "norm or a factor stands between), so a neuron's direct effect on a token is not "
            "defined; rank by activation or gradient instead."
        )
        raise ModelError(msg)
    if measure.tokens.numel():
        token = int(measure.tokens[0, 0])
    else:
        token = int(experiment.under(()).outcome(should_stop=should_stop).logits[-1].argmax())
    trace = experiment.outcome(should_stop=should_stop).trace
    direction = Readout.of(model.bridge).direction(trace.residual[-1][position], token)
    return {
        layer: a.float() * (neuron_writes(model.bridge, layer).float() @ direction)
        for layer, a in values.items()
    }
