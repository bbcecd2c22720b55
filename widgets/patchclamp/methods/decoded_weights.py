"""What every MLP neuron's weights say in tokens: its vectors read through the LM head.

"Decoding specialised feature neurons in LLMs with the final projection layer" (2025): a neuron's
weight vector w, taken for a residual stream, has a logit for each token, W_U w, and for some
neurons a handful of related tokens stand far out of all others. The paper decodes the *up*
projection, with which a neuron reads; in a gated MLP the *gate* reads, too, and *down* is what the
neuron writes, which is decoded with the final norm's gain, as a run would. The rows that read are
decoded as they are.

How far out a token stands is said in standard deviations of the neuron's own logits,

    z[t] = (w . u[t] - mean) / sd,

with mean and sd over the vocabulary in closed form from the mean and the covariance of W_U. How
special a neuron is: its largest |z|, against the largest |z| of neurons of the same layer whose
weights were permuted (each over its own input dimensions, which keeps its size and loses what it
says): how many standard deviations of theirs it lies above their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import torch

from patchclamp.errors import InputError, ModelError, Stopped
from patchclamp.models.weights import Readout, neuron_reads, neuron_writes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    import pandas as pd
    from torch import Tensor

    from patchclamp.models.language_model import LanguageModel

Matrix = Literal["down", "up", "gate"]
"""What is decoded: what a neuron writes, or one of the two things it reads with."""

TOP = 10
CONTROLS = 64
BLOCK = 1024
"""Neurons whose logits are held at once: 200 MB at a vocabulary of 49,152."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """One matrix of all neurons, decoded.

    Attributes:
        matrix: which.
        layer: LongTensor[neuron].
        index: LongTensor[neuron], each one's number in its layer.
        tokens: LongTensor[neuron, 2, k]: the tokens that stand out most, upwards and downwards.
        z: Float[neuron, 2, k], how far, in standard deviations of the neuron's logits.
        score: Float[neuron], how special it is; see this module.
        control: Float[layer, control], the largest |z| of permuted neurons; of decoded layers.
        done: how many neurons are decoded; the rest hold NaN, and -1 for tokens.
    """

    matrix: Matrix
    layer: Tensor
    index: Tensor
    tokens: Tensor
    z: Tensor
    score: Tensor
    control: Tensor
    done: int

    @property
    def peak(self) -> Tensor:
        """Float[neuron], the largest |z|."""
        return self.z[:, :, 0].abs().amax(1)

    def frame(self, model: LanguageModel) -> pd.DataFrame:
        """Return one neuron a row: address, layer, index, score, peak, sign, token, top, bottom."""
        import pandas as pd

        words = [[[_text(model, t) for t in side] for side in one] for one in self.tokens.tolist()]
        sign = torch.where(self.z[:, 0, 0] >= -self.z[:, 1, 0], 1, -1).tolist()
        layers, indices = self.layer.tolist(), self.index.tolist()
        return pd.DataFrame(
            {
                "address": [f"L{a}.N{b}" for a, b in zip(layers, indices, strict=True)],
                "layer": layers,
                "index": indices,
                "score": self.score.numpy(),
                "peak": self.peak.numpy(),
                "sign": sign,
                "token": [w[0][0] if s > 0 else w[1][0] for w, s in zip(words, sign, strict=True)],
                "top": [w[0] for w in words],
                "bottom": [w[1] for w in words],
            }
        )


class Decoder:
    """Reads vectors through a model's LM head.

    Computes where it is called, and only reads weights.

    Args:
        model: whose neurons.

    Raises:
        ModelError: when the model does not end in one norm and one unembedding, or has no neurons.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._readout = Readout.of(model.bridge)
        self._version = model.weights_version
        self._spreads: dict[tuple[Matrix, int], tuple[Tensor, Tensor]] = {}
        a = model.anatomy
        self.layers = tuple(layer for layer in range(a.n_layers) if a.n_neurons(layer))
        if not self.layers:
            msg = f"{model.name} has no MLP neurons to decode."
            raise ModelError(msg)

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Those that the model has; an MLP without a gate has none."""
        gated = "neuron:gate" in self.model.anatomy.hooks[self.layers[0]]
        return ("down", "up", "gate") if gated else ("down", "up")

    def rows(self, matrix: Matrix, layer: int) -> Tensor:
        """Return Float[neuron, d_model], what is multiplied with the unembedding.

        Raises:
            InputError: when there is no such matrix.
        """
        if matrix not in get_args(Matrix):
            msg = f"A neuron has the matrices {', '.join(self.matrices)}, not {matrix!r}."
            raise InputError(msg)
        bridge = self.model.bridge
        if matrix == "down":
            return self._readout.through(neuron_writes(bridge, layer)).float()
        return neuron_reads(bridge, layer, matrix).float()

    def check_layers(self, layers: Collection[int] | None) -> tuple[int, ...]:
        """Return the layers whose neurons are meant; None means all.

        Raises:
            InputError: when there is none, or one has no neurons.
        """
        if layers is None:
            return self.layers
        unknown = [layer for layer in layers if layer not in self.layers]
        if unknown or not layers:
            what = f"Layer {unknown[0]} has no neurons" if unknown else "No layer was named"
            msg = f"{what}; the layers are {self.layers[0]} to {self.layers[-1]}."
            raise InputError(msg)
        return tuple(sorted(set(layers)))

    @cached_property
    def _unembed(self) -> Tensor:
        return self._readout.unembed.float()

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean Float64[d_model] and covariance Float[d_model, d_model] of the unembedding."""
        mean = self._unembed.mean(0, dtype=torch.float64)
        # Centred first: a mean that is large beside the spread would take its digits.
        centred = self._unembed - mean.float()
        return mean, centred.T @ centred / len(centred)

    def _look_again(self) -> None:
        """Forget what was computed of weights that have changed since."""
        version = self.model.weights_version
        if version != self._version:
            self._version = version
            self._readout = Readout.of(self.model.bridge)
            self._spreads.clear()
            for name in ("_unembed", "_moments"):
                self.__dict__.pop(name, None)

    def spread(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each row's logits, Float[row] each."""
        mean, covariance = self._moments
        variance = ((rows @ covariance) * rows).sum(1).clamp_min(0)
        return (rows.double() @ mean).float(), variance.sqrt()

    def decode(
        self,
        matrix: Matrix = "down",
        *,
        top: int = TOP,
        controls: int = CONTROLS,
        seed: int = 0,
        block: int = BLOCK,
        layers: Collection[int] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Generator[Decoded, None, None]:
        """Decode one matrix of every neuron; the last layers come first.

        Args:
            matrix: which.
            top: how many tokens of either sign are kept.
            controls: permuted neurons of each layer.
            seed: what draws and permutes them.
            block: how many neurons' logits are held at once.
            layers: only these layers' neurons; all by default.
            should_stop: asked before every block.

        Yields:
            What is decoded so far, after each layer.

        Raises:
            InputError: when there is no such matrix or layer, or the numbers are not positive.
            Stopped: when ``should_stop`` said so.
        """
        self._look_again()
        vocabulary = len(self._unembed)
        if not (0 < top <= vocabulary and controls > 1 and block > 0):
            msg = f"top is 1 to {vocabulary:,}, controls at least 2 and block at least 1."
            raise InputError(msg)
        wanted = self.check_layers(layers)
        counts = [self.model.anatomy.n_neurons(layer) for layer in self.layers]
        starts = torch.tensor([0, *counts]).cumsum(0).tolist()
        total = starts[-1]
        layer_of = torch.repeat_interleave(torch.tensor(self.layers), torch.tensor(counts))
        index = torch.cat([torch.arange(count) for count in counts])
        tokens = torch.full((total, 2, top), -1)
        z = torch.full((total, 2, top), torch.nan)
        score = torch.full((total,), torch.nan)
        control = torch.full((len(self.layers), controls), torch.nan)
        done = 0
        for place in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[place]
            if layer not in wanted:
                continue
            rows = self.rows(matrix, layer)
            permuted = permuted_rows(rows, controls, seed + layer)
            here = slice(starts[place], starts[place + 1])
            found = self._top(torch.cat([rows, permuted]), top, block, should_stop)
            own = len(rows)
            tokens[here], z[here] = found[0][:own], found[1][:own]
            control[place] = found[1][own:, :, 0].abs().amax(1)
            peak = z[here, :, 0].abs().amax(1)
            score[here] = (peak - control[place].mean()) / control[place].std()
            done += own
            yield Decoded(
                matrix, layer_of, index, tokens.clone(), z.clone(), score.clone(), control, done
            )

    def _top(
        self, rows: Tensor, top: int, block: int, should_stop: Callable[[], bool] | None
    ) -> tuple[Tensor, Tensor]:
        """Return tokens and z, [row, 2, top] each."""
        tokens, values = [], []
        for begin in range(0, len(rows), block):
            if should_stop is not None and should_stop():
                raise Stopped("Stopped before all neurons were decoded.")
            logits = rows[begin : begin + block] @ self._unembed.T
            high, low = logits.topk(top), logits.topk(top, largest=False)
            tokens.append(torch.stack([high.indices, low.indices], 1))
            values.append(torch.stack([high.values, low.values], 1))
        mean, sd = self.spread(rows)
        # A neuron without weights says nothing: its z is 0.
        z = (torch.cat(values) - mean[:, None, None]) / sd.clamp_min(torch.finfo(sd.dtype).tiny)[
            :, None, None
        ]
        return torch.cat(tokens), z

    def peaks(self, rows: Tensor, *, block: int = BLOCK) -> Tensor:
        """Return the largest |z| of each vector, Float[row]: how far any token stands out of it.

        Args:
            rows: Float[row, d_model], such as some of :meth:`rows`, or :func:`permuted_rows`.
            block: how many rows' logits are held at once.
        """
        far = []
        mean, sd = self.spread(rows)
        for some, middle in zip(rows.split(block), mean.split(block), strict=True):
            low, high = (some @ self._unembed.T).aminmax(dim=1)
            far.append(torch.maximum(high - middle, middle - low))
        return torch.cat(far) / sd.clamp_min(torch.finfo(sd.dtype).tiny)

    def of_token(self, token: int, matrix: Matrix = "down") -> list[Tensor]:
        """Return the z of one token for every neuron, Float[neuron] by layer of ``layers``.

        In closed form: nothing is decoded for it. What does not depend on the token is computed
        for the first one, and anew when a weight has changed.
        """
        self._look_again()
        reading = self._unembed[token]
        found = []
        for layer in self.layers:
            rows = self.rows(matrix, layer)
            if (matrix, layer) not in self._spreads:
                self._spreads[matrix, layer] = self.spread(rows)
            mean, sd = self._spreads[matrix, layer]
            found.append((rows @ reading - mean) / sd.clamp_min(torch.finfo(sd.dtype).tiny))
        return found


def permuted_rows(rows: Tensor, count: int, seed: int) -> Tensor:
    """Draw neurons of a layer, and permute each over its own input dimensions.

    Args:
        rows: Float[neuron, d_model].
        count: how many; more than there are neurons draws some twice.
        seed: what draws and permutes.

    Returns:
        Float[count, d_model].
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(rows), (count,), generator=generator)
    order = torch.rand(count, rows.shape[1], generator=generator).argsort(1)
    return rows[chosen].gather(1, order.to(rows.device))


def _text(model: LanguageModel, token: int) -> str:
    return "" if token < 0 else model.token_text(token)
