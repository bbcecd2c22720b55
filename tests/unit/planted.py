"""Tiny transformers with a known circuit: every weight is written by hand, none is trained.

The residual stream is cut into spaces of one-hot codes: which token stands here, at which place,
which token came before, what the answer is, and junk. A head or an MLP matters exactly when a
chain of weights leads from the spaces that it writes to the answer; what only reaches junk cannot
matter, however much it writes. There is no normalisation (`normalization_type=None`): a norm would
let everything that writes change the scale of everything that is read, and no edge would be
exactly without effect.

Every model comes with pairs of prompts, and with the effect of each edge that matters: what the
difference of two logits changes by when that one edge carries what the corrupt prompt gives it.
These are worked out on paper, in the docstrings. All other edges have the effect 0.

Junk is read by the logits of three tokens that are never an answer: noise reaches the logits, and
a metric of the whole distribution sees it, but not the difference of two answers' logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.model_bridge.sources.native import NativeModel

from patchclamp.models.language_model import LanguageModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

VOCAB = 16
BEGINNING = 0
LETTERS = range(1, 13)
JUNK_TOKENS = slice(13, 16)

# The spaces of the residual stream, and how wide a head is: as wide as one of them.
TOKEN, PLACE, PREVIOUS, ANSWER, JUNK = (
    slice(0, 16),
    slice(16, 24),
    slice(24, 40),
    slice(40, 56),
    slice(56, 64),
)
D_MODEL, D_HEAD, CONTEXT = 64, 16, 8

HARD = 60.0  # its square, by a query's and a key's scale, leaves other places exactly nothing
SOFT = 4.0  # the score of a match: soft enough that queries and keys have gradients


@dataclass(frozen=True, eq=False)
class Planted:
    """A model whose circuit is known, and prompts that show it.

    Attributes:
        model: the model; it has no tokenizer.
        clean: LongTensor[pair, pos].
        corrupt: LongTensor[pair, pos].
        answers: of each pair the answer, and the wrong answer of the metric: the logit of the one
            less that of the other.
        clean_metric: the metric on clean prompts, the same for each pair.
        corrupt_metric: the metric on corrupt prompts.
        edges: the effect of each edge that matters, by its address.
        nodes: the effect of each head or MLP that matters, when all that it writes is replaced.
    """

    model: LanguageModel
    clean: Tensor
    corrupt: Tensor
    answers: tuple[tuple[int, int], ...]
    clean_metric: float
    corrupt_metric: float
    edges: Mapping[str, float]
    nodes: Mapping[str, float]


# ------------------------------------------------------------------------- writing weights


def _reads(space: slice, code: Tensor | None = None) -> Tensor:
    """Float[d_head, d_model]: a projection that reads one space, through `code` if it is given."""
    W = torch.zeros(D_HEAD, D_MODEL)
    width = space.stop - space.start
    W[:width, space] = torch.eye(width) if code is None else code
    return W


def _writes(space: slice, scale: float = 1.0) -> Tensor:
    """Float[d_model, d_head]: an output projection that writes into one space."""
    return scale * _reads(space).T


class _Hand:
    """Writes weights into a model that has none but what every model here has in common."""

    def __init__(self, seed: int, **more: Any) -> None:
        config = {
            "d_model": D_MODEL,
            "d_head": D_HEAD,
            "d_vocab": VOCAB,
            "n_ctx": CONTEXT,
            "normalization_type": None,
            "act_fn": "relu",
            **more,
        }
        self.draws = torch.Generator().manual_seed(seed)
        self.model: Any = NativeModel(TransformerBridgeConfig(**config))
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.zero_()
            self.model.tok_embed.weight[:, TOKEN] = torch.eye(VOCAB)
            assert self.model.pos is not None
            self.model.pos.weight[:, PLACE] = torch.eye(CONTEXT)
            self.model.head.weight[:, ANSWER] = torch.eye(VOCAB)
            self.model.head.weight[JUNK_TOKENS, JUNK] = self.noise(3, 8)

    def finished(self, name: str) -> LanguageModel:
        bridge = build_bridge_from_module(
            self.model.eval(), "TransformerLensNative", tl_config=self.model.cfg, tokenizer=None
        )
        return LanguageModel(bridge, None, name=name)

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.draws) / 2

    def to_junk(self) -> Tensor:
        """Float[d_model, d_head]: an output projection that nothing of the answer reads."""
        W = torch.zeros(D_MODEL, D_HEAD)
        W[JUNK] = self.noise(8, D_HEAD)
        return W

    def head(self, layer: int, head: int, **W: Tensor) -> None:
        """Write projections: `q`, `k`, `v` Float[d_head, d_model], `o` Float[d_model, d_head].

        Keys and values are written where the head's group has them.
        """
        attn = self.model.layers[layer].attn
        shared = head // attn.kv_repeats
        with torch.no_grad():
            for name, matrix in W.items():
                index = head if name in {"q", "o"} else shared
                part = slice(index * D_HEAD, (index + 1) * D_HEAD)
                if name == "o":
                    attn.o.weight[:, part] = matrix
                else:
                    getattr(attn, name).weight[part] = matrix

    def noisy_head(self, layer: int, head: int, *, own_keys: bool = True) -> None:
        """A head that reads everything and writes into junk."""
        W = {"q": self.noise(D_HEAD, D_MODEL), "o": self.to_junk()}
        if own_keys:
            W |= {"k": self.noise(D_HEAD, D_MODEL), "v": self.noise(D_HEAD, D_MODEL)}
        self.head(layer, head, **W)

    def neurons(
        self, layer: int, first: int, W_in: Tensor, b: Tensor | float, W_out: Tensor
    ) -> int:
        """Write neurons relu(W_in x + b) from the first one on; returns the next that is free.

        Args:
            layer: where.
            first: the first neuron's index.
            W_in: Float[neuron, d_model].
            b: Float[neuron], or a number for all.
            W_out: Float[d_model, neuron].
        """
        mlp = self.model.layers[layer].mlp
        part = slice(first, first + len(W_in))
        with torch.no_grad():
            mlp.fc_in.weight[part] = W_in
            mlp.fc_in.bias[part] = b
            mlp.fc_out.weight[:, part] = W_out
        return part.stop

    def noisy_neurons(self, layer: int, first: int = 0, count: int = 12) -> None:
        """Neurons that read everything and write into junk."""
        W_out = torch.zeros(D_MODEL, count)
        W_out[JUNK] = self.noise(8, count)
        self.neurons(layer, first, self.noise(count, D_MODEL), self.noise(count), W_out)


def _previous(**more: Tensor) -> dict[str, Tensor]:
    """What makes a head attend to the place before: exactly, all other weights are 0.

    The query of place i is one-hot i, the key of place j one-hot j + 1. The first place has none
    before it and attends to itself.
    """
    after = torch.zeros(CONTEXT, CONTEXT)
    after[torch.arange(1, CONTEXT), torch.arange(CONTEXT - 1)] = 1.0
    return {"q": HARD * _reads(PLACE), "k": HARD * _reads(PLACE, after), **more}


def _matching(**more: Tensor) -> dict[str, Tensor]:
    """What makes a head attend to the places whose previous token is the token here."""
    scale = math.sqrt(SOFT * math.sqrt(D_HEAD))
    return {"q": scale * _reads(TOKEN), "k": scale * _reads(PREVIOUS), **more}


def _at_place(place: int, **more: Tensor) -> dict[str, Tensor]:
    """What makes a head attend to one place, from there on: exactly."""
    q, k = torch.zeros(D_HEAD, D_MODEL), torch.zeros(D_HEAD, D_MODEL)
    q[0, PLACE], k[0, PLACE.start + place] = HARD, HARD
    return {"q": q, "k": k, **more}


# ------------------------------------------------------------------------------- induction

COPY = 8.0  # the scale at which induction heads write
LONG, LONGER = 5.0, 3.0  # in the grouped model, of its two induction heads
MATCH = math.exp(SOFT) / (math.exp(SOFT) + 5)
"""Attention to the one of six places whose previous token matches; five do not."""
OTHER = 1 / (math.exp(SOFT) + 5)
"""Attention to each place that does not match."""


@cache
def _induction_model() -> LanguageModel:
    hand = _Hand(0, n_layers=2, n_heads=4, attn_only=True)
    hand.noisy_head(0, 1)
    hand.head(0, 2, **_previous(v=_reads(TOKEN), o=_writes(PREVIOUS)))
    hand.head(0, 3, **_previous(v=_reads(TOKEN), o=hand.to_junk()))
    hand.head(1, 1, **_matching(v=_reads(TOKEN), o=_writes(ANSWER, COPY)))
    hand.head(1, 2, **_matching(v=_reads(TOKEN), o=hand.to_junk()))
    hand.noisy_head(1, 3)
    with torch.no_grad():  # an output bias belongs to no head
        hand.model.layers[0].attn.o.bias[JUNK] = hand.noise(8)
        hand.model.layers[1].attn.o.bias[ANSWER] = 0.5
    return hand.finished("planted-induction")


@cache
def _grouped_model() -> LanguageModel:
    hand = _Hand(1, n_layers=2, n_heads=4, n_key_value_heads=2, attn_only=True)
    hand.head(0, 1, **_previous(v=_reads(TOKEN), o=_writes(PREVIOUS)))
    hand.noisy_head(0, 0, own_keys=False)  # its keys and values are those of L0.H1
    hand.noisy_head(0, 3)
    hand.head(1, 0, **_matching(v=_reads(TOKEN), o=hand.to_junk()))
    hand.noisy_head(1, 1, own_keys=False)
    hand.head(1, 2, **_matching(v=_reads(TOKEN), o=_writes(ANSWER, LONG)))
    hand.head(1, 3, **_matching(o=_writes(ANSWER, LONGER)))
    return hand.finished("planted-grouped")


FAMILIES = ("copied", "cue", "query", "all")


def _induction_prompts(
    family: str, count: int
) -> tuple[Tensor, Tensor, tuple[tuple[int, int], ...]]:
    """Prompts `<s> A B C D A`, to be continued with B, and how they are corrupted."""
    generator = torch.Generator().manual_seed(FAMILIES.index(family))
    clean, corrupt, answers = [], [], []
    for _ in range(count):
        drawn = torch.randperm(len(LETTERS), generator=generator)[:6] + LETTERS.start
        a, b, c, d, e, f = drawn.tolist()
        clean.append([BEGINNING, a, b, c, d, a])
        match family:
            case "copied":  # another token is there to be copied
                corrupt.append([BEGINNING, a, e, c, d, a])
                answers.append((b, e))
            case "cue":  # A and C change places
                corrupt.append([BEGINNING, c, b, a, d, a])
                answers.append((b, d))
            case "query":  # it is C that comes again
                corrupt.append([BEGINNING, a, b, c, d, c])
                answers.append((b, d))
            case "all":
                corrupt.append([BEGINNING, c, e, a, f, c])
                answers.append((b, e))
    return torch.tensor(clean), torch.tensor(corrupt), tuple(answers)


def induction(family: str = "all", count: int = 6) -> Planted:
    """Two layers of attention: a previous-token head, an induction head, and six that do nothing.

    L0.H2 attends to the place before (it reads places only), and writes there which token that was.
    L1.H1 looks for places whose previous token is the token here (keys: what L0.H2 wrote; queries
    and values: the tokens themselves), and writes the token that stands there as the answer. Of six
    places one matches, with attention m = MATCH; the others get o = OTHER each. Its output's scale
    is s = COPY.

    Nothing else reaches an answer. L0.H0 and L1.H0 have no weights; L0.H1 and L1.H3 are noise that
    reads everything; L0.H3 and L1.H2 attend and read as the two heads of the circuit do; but all of
    them write into junk. embed->logits carries no answer: a token's code is not where the answer is
    read.

    Clean prompts are `<s> A B C D A`. The attention of L1.H1 is m at B, o elsewhere. With other
    letters as wrong answers:

    - "copied": `<s> A E C D A`, B against E. Only what is copied differs, so the answer goes from
      B to E along embed->L1.H1:v, L1.H1->logits: from s m to -s m. (L0.H2 tells place 3 that its
      previous token is E; A matches neither that nor B.)
    - "cue": `<s> C B A D A`, B against D. Place 4 has now what place 2 had, A before it:
      embed->L0.H2:v, L0.H2->L1.H1:k, L1.H1->logits turn s (m - o) into s (o - m). (Values differ at
      places 1 and 3: the logits of A and C see that, those of B and D do not.)
    - "query": `<s> A B C D C`, B against D. Along embed->L1.H1:q, L1.H1->logits, in the same way.
      (The value at place 5 differs: seen by the logits of A and C.)
    - "all": `<s> C E A F C`, B against E. Each of the three inputs alone: values give E for B (s m
      to -s m), queries or keys give D (s m to s o, as D is not in the metric). Queries and keys
      together agree again and give B: two wrongs make a right, which no sum of effects shows.

    Args:
        family: what the corrupt prompts change.
        count: how many pairs.
    """
    s, m, o = COPY, MATCH, OTHER
    clean, corrupt, answers = _induction_prompts(family, count)
    match family:
        case "copied":
            before, after = s * m, -s * m
            edges = {"embed->L1.H1:v": -2 * s * m}
        case "cue":
            before, after = s * (m - o), s * (o - m)
            through_keys = 2 * s * (o - m)
            edges = {"embed->L0.H2:v": through_keys, "L0.H2->L1.H1:k": through_keys}
        case "query":
            before, after = s * (m - o), s * (o - m)
            edges = {"embed->L1.H1:q": 2 * s * (o - m)}
        case _:
            before, after = s * m, -s * m
            lost = s * (o - m)
            edges = {
                "embed->L0.H2:v": lost,
                "L0.H2->L1.H1:k": lost,
                "embed->L1.H1:q": lost,
                "embed->L1.H1:v": -2 * s * m,
            }
    edges["L1.H1->logits"] = after - before
    nodes = {"L1.H1": after - before}
    if "L0.H2->L1.H1:k" in edges:
        nodes["L0.H2"] = edges["L0.H2->L1.H1:k"]
    return Planted(_induction_model(), clean, corrupt, answers, before, after, edges, nodes)


def grouped(count: int = 6) -> Planted:
    """The same with two query heads to a key/value head: the circuit shares keys and values.

    L0.H1 is the previous-token head; its keys and values are also those of L0.H0, which is noise,
    and are called L0.H0:k and L0.H0:v after the first head that uses them. L1.H2 and L1.H3 are both
    induction heads on the key/value head L1.H2:k, L1.H2:v; they write the answer with the scales
    LONG and LONGER. L1.H0 attends as they do and writes junk.

    With prompts of the family "all", keys and values concern both heads at once, queries and
    outputs each its own.

    Args:
        count: how many pairs.
    """
    m, o, both = MATCH, OTHER, LONG + LONGER
    clean, corrupt, answers = _induction_prompts("all", count)
    lost = both * (o - m)
    edges = {
        "embed->L0.H0:v": lost,
        "L0.H1->L1.H2:k": lost,
        "embed->L1.H2:v": -2 * both * m,
        "embed->L1.H2:q": LONG * (o - m),
        "embed->L1.H3:q": LONGER * (o - m),
        "L1.H2->logits": -2 * LONG * m,
        "L1.H3->logits": -2 * LONGER * m,
    }
    nodes = {"L0.H1": lost, "L1.H2": -2 * LONG * m, "L1.H3": -2 * LONGER * m}
    before = both * m
    return Planted(_grouped_model(), clean, corrupt, answers, before, -before, edges, nodes)


# ------------------------------------------------------------------------- a redundant pair

SHARE = 0.875  # what each of two heads contributes where 1 is enough
ENOUGH = 8.0  # the answer's logit then

#: How the answer's logit changes when both are gone, beyond the sum of what each one changes.
INTERACTION = -ENOUGH + 2 * (1 - SHARE) * ENOUGH


@cache
def _redundant_model() -> LanguageModel:
    hand = _Hand(2, n_layers=2, n_heads=3, d_mlp=48)
    letters = torch.zeros(VOCAB, VOCAB)
    known = torch.tensor(LETTERS[:-1])  # the last letter means nothing to either head
    letters[known, known] = 1.0
    for layer, head in ((0, 1), (1, 0)):
        # What they write is not the answer yet: the space of previous tokens is free here.
        write = _writes(PREVIOUS, SHARE)
        hand.head(layer, head, **_at_place(1, v=_reads(TOKEN, letters), o=write))
    for layer, head in ((0, 0), (0, 2), (1, 1), (1, 2)):
        hand.noisy_head(layer, head)
    hand.noisy_neurons(0)
    told = _reads(PREVIOUS)
    free = hand.neurons(1, 0, told, 1.0, _writes(ANSWER, ENOUGH))
    free = hand.neurons(1, free, told, -1.0, _writes(ANSWER, -ENOUGH))
    hand.noisy_neurons(1, free)
    with torch.no_grad():
        hand.model.layers[1].mlp.fc_out.bias[ANSWER] = -ENOUGH
    return hand.finished("planted-redundant")


def redundant(count: int = 6) -> Planted:
    """Two heads that both tell an MLP the answer, of whom one is nearly enough.

    L0.H1 and L1.H0 attend to place 1 and write 0.875 for the letter x that stands there. The MLP of
    layer 1 has two neurons for each letter, which make of a sum x the logit

        8 (relu(x + 1) - relu(x - 1) - 1) = 8 min(x, 1)   for x >= 0.

    Both heads give x = 1.75: the logit is 8. Without one it is 7, an effect of -1; without both it
    is 0, an effect of -8: the interaction is -6. At 1.75 the gradient is 0, so that a gradient at
    the clean prompt sees neither of the two, while one that is integrated along the way does.

    The other four heads and the MLP of layer 0 are noise.

    Clean prompts have a letter at place 1; corrupt prompts have there the one letter that neither
    head writes anything for, so that a corrupt output is no output. The wrong answer is
    a letter that is nowhere.

    Args:
        count: how many pairs.
    """
    generator = torch.Generator().manual_seed(0)
    clean, corrupt, answers = [], [], []
    for _ in range(count):
        a, b, c, wrong = (torch.randperm(11, generator=generator)[:4] + LETTERS.start).tolist()
        clean.append([BEGINNING, a, b, c])
        corrupt.append([BEGINNING, LETTERS[-1], b, c])
        answers.append((a, wrong))
    alone = -(1 - SHARE) * ENOUGH
    edges = {
        "embed->L0.H1:v": alone,
        "embed->L1.H0:v": alone,
        "L0.H1->L1.mlp": alone,
        "L1.H0->L1.mlp": alone,
        "L1.mlp->logits": -ENOUGH,
    }
    nodes = {"L0.H1": alone, "L1.H0": alone, "L1.mlp": -ENOUGH}
    return Planted(
        _redundant_model(),
        torch.tensor(clean),
        torch.tensor(corrupt),
        tuple(answers),
        ENOUGH,
        0.0,
        edges,
        nodes,
    )


# ---------------------------------------------------------------------- an MLP that matters

SUM = 6.0  # the logit of the answer
_ADDENDS = 6


def added(first: int, second: int) -> int:
    """The letter that the model of `addition` answers."""
    return LETTERS.start + (first + second) % _ADDENDS


@cache
def _addition_model() -> LanguageModel:
    hand = _Hand(3, n_layers=2, n_heads=2, d_mlp=48)
    hand.noisy_head(0, 0)
    hand.head(0, 1, **_at_place(1, v=_reads(TOKEN), o=_writes(PREVIOUS)))
    sums = range(_ADDENDS**2)
    W_in, W_out = torch.zeros(len(sums), D_MODEL), torch.zeros(D_MODEL, len(sums))
    for n in sums:
        first, second = divmod(n, _ADDENDS)
        W_in[n, PREVIOUS.start + LETTERS[first]] = 1.0
        W_in[n, TOKEN.start + LETTERS[_ADDENDS + second]] = 1.0
        W_out[ANSWER.start + added(first, second), n] = 2 * SUM
    free = hand.neurons(0, 0, W_in, -1.5, W_out)
    hand.noisy_neurons(0, free)
    hand.noisy_head(1, 0)
    hand.noisy_head(1, 1)
    hand.noisy_neurons(1)
    return hand.finished("planted-addition")


def addition(count: int = 6) -> Planted:
    """A head whose output matters only through an MLP: addition modulo 6 by a table.

    L0.H1 attends to place 1 and writes which letter stands there, one of six that stand for 0 to
    5. The MLP of layer 0 has a neuron for each pair of that letter and the token here (six further
    letters): relu(1 + 1 - 1.5) = 0.5 when both are there, relu(1 - 1.5) = 0 otherwise. It writes
    the letter of the sum, at a logit of 6. L0.H0, all of layer 1, and twelve more neurons of layer
    0 are noise.

    Clean prompts are `<s> X . . Y`; corrupt ones have other X and Y, chosen such that the four sums
    that can be made of them differ. A corrupt X or Y alone gives a third letter (6 to 0), both the
    corrupt answer (6 to -6).

    Args:
        count: how many pairs.
    """
    generator = torch.Generator().manual_seed(0)
    clean: list[list[int]] = []
    corrupt, answers = [], []
    while len(clean) < count:
        x, y, by_x, by_y, filler = torch.randint(1, 6, (5,), generator=generator).tolist()
        if by_x == by_y or (by_x + by_y) % _ADDENDS == 0:
            continue
        other_x, other_y = (x + by_x) % _ADDENDS, (y + by_y) % _ADDENDS
        middle = [LETTERS[filler], LETTERS[filler]]
        clean.append([BEGINNING, LETTERS[x], *middle, LETTERS[_ADDENDS + y]])
        corrupt.append([BEGINNING, LETTERS[other_x], *middle, LETTERS[_ADDENDS + other_y]])
        answers.append((added(x, y), added(other_x, other_y)))
    edges = {
        "embed->L0.H1:v": -SUM,
        "L0.H1->L0.mlp": -SUM,
        "embed->L0.mlp": -SUM,
        "L0.mlp->logits": -2 * SUM,
    }
    nodes = {"L0.H1": -SUM, "L0.mlp": -2 * SUM}
    return Planted(
        _addition_model(),
        torch.tensor(clean),
        torch.tensor(corrupt),
        tuple(answers),
        SUM,
        -SUM,
        edges,
        nodes,
    )


EVERY: Mapping[str, Callable[[], Planted]] = {
    **{f"induction: {family}": partial(induction, family) for family in FAMILIES},
    "grouped": grouped,
    "redundant": redundant,
    "addition": addition,
}
