"""How much a head's reading matrices fit what earlier heads write (composition).

Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021): a later head B can read
what an earlier head A wrote through its queries, its keys or its values. How much of A's output its
matrices pick up, compared with what any two such matrices do, is, with vectors as rows, x W,

    Q:  ||W_OV(A) W_QK(B)||   / (||W_OV(A)|| ||W_QK(B)||)
    K:  ||W_OV(A) W_QK(B)^T|| / (||W_OV(A)|| ||W_QK(B)||)
    V:  ||W_OV(A) W_OV(B)||   / (||W_OV(A)|| ||W_OV(B)||)

with W_QK = W_Q W_K^T, W_OV = W_V W_O and Frobenius norms; from 0 to 1. Random matrices of these
shapes score about sqrt(1 / d_model) already; their mean over seeded draws is subtracted, as there.

The norm before attention is folded into what reads the stream (gain and centring), norms of queries
and keys into these, the gain of a norm after attention into what writes: what is left of a norm is
one factor for each token, which the quotient does not see. In a model that norms the residual
stream itself (BERT) that norm is left out. Rotary positions turn queries against keys: the scores
are for queries and keys at the same position. With grouped-query attention heads share W_K and
W_V. Biases are no part of it.

No matrix of d_model x d_model is made: with A's and B's thin factors all norms are traces of
products of d_head x d_head Gram matrices, ||X Y^T||^2 = tr(X^T X Y^T Y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from patchclamp.errors import AddressError, Stopped
from patchclamp.models.weights import folded_head_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from patchclamp.models.language_model import LanguageModel

DRAWS = 20
"""How many pairs of random heads the baseline is the mean of."""


@dataclass(frozen=True, eq=False)
class Composition:
    """Composition of one head with all others, minus the baseline.

    A row is a layer. Of heads in earlier layers the locked head reads, through its Q, K or V; of
    heads in later layers it is read, through theirs. NaN in its own layer: heads of one layer do
    not read each other.

    Attributes:
        layer: the locked head's layer.
        head: its number.
        q: Float[layer, head].
        k: Float[layer, head].
        v: Float[layer, head].
        baseline: the mean of random matrices' scores, which was subtracted.
        spread: the standard deviation of these scores.
    """

    layer: int
    head: int
    q: Tensor
    k: Tensor
    v: Tensor
    baseline: float
    spread: float


class Circuits(NamedTuple):
    """The thin factors of heads: each Float[head, d_model, d_head], what writes transposed.

    Attributes:
        Q: queries read with it.
        K: keys read with it.
        V: values read with it.
        O: W_O^T, what is written.
    """

    Q: Tensor
    K: Tensor
    V: Tensor
    O: Tensor  # noqa: E741 (the field's name)

    def of(self, heads: slice) -> Circuits:
        """Return some of the heads."""
        return Circuits(*(factor[heads] for factor in self))


def composition(
    model: LanguageModel,
    layer: int,
    head: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    should_stop: Callable[[], bool] | None = None,
) -> Composition:
    """Score how one head composes with all heads of other layers.

    Of the weights alone: no prompt, no run.

    Args:
        model: the model.
        layer: the locked head's layer.
        head: its number.
        draws: pairs of random heads for the baseline.
        seed: of the draws.
        should_stop: asked before every layer.

    Raises:
        AddressError: when there is no such head.
        ModelError: when the model's heads have no such matrices.
        Stopped: when ``should_stop`` said so.
    """
    anatomy = model.anatomy
    if not (0 <= layer < anatomy.n_layers and 0 <= head < anatomy.n_heads):
        msg = (
            f"L{layer}.H{head} does not exist: there are {anatomy.n_layers} layers of "
            f"{anatomy.n_heads} heads."
        )
        raise AddressError(msg)
    mine = circuits(model, layer).of(slice(head, head + 1))
    found = torch.full((3, anatomy.n_layers, anatomy.n_heads), torch.nan)
    for other in range(anatomy.n_layers):
        if other == layer:
            continue
        if should_stop is not None and should_stop():
            msg = "Stopped before it was finished."
            raise Stopped(msg)
        theirs = circuits(model, other)
        pair = (mine, theirs) if layer < other else (theirs, mine)
        found[:, other] = compose(*pair)
    random = baseline(anatomy.d_model, anatomy.d_head, draws=draws, seed=seed)
    mean, spread = float(random.mean()), float(random.std())
    q, k, v = found - mean
    return Composition(layer, head, q, k, v, mean, spread)


def circuits(model: LanguageModel, layer: int) -> Circuits:
    """Return a layer's heads' factors, norms folded in, shared keys and values repeated."""
    W_Q, W_K, W_V, W_O = folded_head_weights(model.bridge, layer)
    shared = [model.anatomy.kv_head(head) for head in range(len(W_Q))]
    return Circuits(W_Q, W_K[shared], W_V[shared], W_O.transpose(1, 2))


def compose(earlier: Circuits, later: Circuits) -> Tensor:
    """Score Q, K and V composition of heads with heads; one of the two may be a single one.

    Returns:
        Float[3, head], from 0 to 1; NaN of a head whose weights are all zero.
    """
    written = _gram(earlier.V)
    ov = _norm(written, _gram(earlier.O))
    qk = _norm(_gram(later.Q), _gram(later.K))
    ends = {"q": (later.Q, later.K), "k": (later.K, later.Q), "v": (later.V, later.O)}
    whole = {"q": qk, "k": qk, "v": _norm(_gram(later.V), _gram(later.O))}
    scores = []
    for name, (reads, goes) in ends.items():
        # ||V (O^T R) G^T||, with M = O^T R between: tr(V^T V M G^T G M^T).
        between = earlier.O.transpose(1, 2) @ reads
        inside = between @ _gram(goes) @ between.transpose(1, 2)
        scores.append(_norm(written, inside) / (ov * whole[name]))
    return torch.stack(scores)


def baseline(d_model: int, d_head: int, *, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Return Float[draw], the scores of Gaussian matrices of the shapes of a model's heads.

    For such matrices Q, K and V composition are the same thing; each draw is a new pair of heads.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        factors = [torch.randn(1, d_model, d_head, generator=generator) for _ in range(4)]
        V, O, Q, K = factors  # noqa: E741 (the field's names)
        found.append(compose(Circuits(Q, K, V, O), Circuits(Q, K, V, O))[0, 0])
    return torch.stack(found)


def _gram(factor: Tensor) -> Tensor:
    """Float[head, d_head, d_head], of Float[head, d_model, d_head]."""
    return factor.transpose(1, 2) @ factor


def _norm(left: Tensor, right: Tensor) -> Tensor:
    """||X Y^T|| of Gram matrices X^T X and Y^T Y: both are symmetric."""
    return (left * right).sum((-2, -1)).clamp_min(0).sqrt()
