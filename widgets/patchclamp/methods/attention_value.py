"""What a head's attention carries: the size of what is read, and what it adds to a logit.

A head writes, at destination t, the sum over sources s of A[t, s] v[s] W_O, where A is its pattern,
v[s] its value at s (its bias included; the bias of the output projection belongs to no head), and
W_O the head's part of the output projection. So a cell of the pattern stands for one vector, and

- *value-weighted*: A[t, s] ||v[s] W_O||, its norm (Kobayashi et al., "Attention is Not Only a
  Weight: Analyzing Transformers with Vector Norms", 2020): a large weight on a value of nearly zero
  says nothing.
- *contribution*: A[t, s] (v[s] W_O) . r[t], what it adds to a token's logit at t by itself, through
  the unembedding alone, with the final norm's scale held as it is in the run (direct logit
  attribution; Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021). Summed
  over the sources it is the head's direct effect on the logit.

Both factorise: of the final norm only its scale is the destination's, r[t] = scale[t] r, so that

    value-weighted[t, s] = A[t, s] norm[s]
    contribution[t, s] = A[t, s] column[s] scale[t],   column[s] = (v[s] W_O) . r

and a pattern and two vectors are all there is to know. What is added is in logits, before a soft
cap where the model has one. Values are those that the run used; what the stack does to the head
after its pattern and values (an ablation of its output) is not in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from patchclamp.errors import ModelError
from patchclamp.models.weights import Readout, head_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from patchclamp.engine.attention import Attention
    from patchclamp.models.language_model import LanguageModel


def value_norms(attention: Attention, layer: int, head: int) -> Tensor:
    """Return Float[source], the norm of what a head would write if it read one source only.

    A norm that follows attention (Gemma 2 and 3, BERT) is left out: what is measured enters it.
    Runs on the model's worker.

    Args:
        attention: the run's attention.
        layer: which layer.
        head: which of its heads.

    Raises:
        ModelError: when the model has no values or output weights for each head.
    """
    _refuse(why_no_values(attention.experiment.engine.model))
    norms: Tensor = torch.linalg.vector_norm(_written(attention, layer, head), dim=-1)
    return norms.float()


def logit_contribution(
    attention: Attention, layer: int, head: int, tokens: int | Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return what a head's cells add to a logit, but for their weights.

    A cell adds weight * column of its source * scale of its destination. Runs on the model's
    worker.

    Args:
        attention: the run's attention.
        layer: which layer.
        head: which of its heads.
        tokens: the logit's token; of two, the logit of the first minus that of the second.

    Returns:
        Float[source], the column factors, and Float[dest], the scales.

    Raises:
        ModelError: where a contribution to a logit is not defined; see
            :func:`why_no_contribution`.
    """
    model = attention.experiment.engine.model
    _refuse(why_no_contribution(model))
    readout = Readout.of(model.bridge)
    column = _written(attention, layer, head) @ readout.reading(tokens)
    return column.float(), readout.norm.scale(attention.final()).float()


def why_no_values(model: LanguageModel) -> str | None:
    """Say why a model has no value-weighted patterns; None where it has."""
    if any("head:v" not in hooks for hooks in model.anatomy.hooks):
        return (
            f"{model.name} keeps no values for each head, so there is nothing to weight its "
            "attention with: look at the weights alone."
        )
    try:
        head_output(model.bridge, 0, 0)
    except ModelError as error:
        return f"{error} Look at the weights alone."
    return None


def why_no_contribution(model: LanguageModel) -> str | None:
    """Say why a head's contribution to a logit is not defined on a model; None where it is."""
    anatomy = model.anatomy
    if not anatomy.causal:
        return (
            f"{model.name} is an encoder: it predicts no next token, and norms stand between its "
            "heads and its output, so a head's contribution to a logit is not defined. "
            "The value-weighted pattern is."
        )
    if not anatomy.additive:
        return (
            f"In {model.name} the residual stream is no plain sum of what its components write (a "
            "norm or a factor stands between), so a head's contribution to a logit is not "
            "defined. The value-weighted pattern is."
        )
    try:
        Readout.of(model.bridge)
    except ModelError:
        return (
            f"{model.name} does not end in one norm and one unembedding, so a head's contribution "
            "to a logit is not defined."
        )
    return why_no_values(model)


def _written(attention: Attention, layer: int, head: int) -> Tensor:
    """Float64[source, d_model], what the head writes for each source that it reads wholly."""
    model = attention.experiment.engine.model
    values = attention.values(layer)[model.anatomy.kv_head(head)]
    return values.double() @ head_output(model.bridge, layer, head).double()


def _refuse(why: str | None) -> None:
    if why is not None:
        raise ModelError(why)
