"""Head weights are what the model computes with; composition equals its dense matrices."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from patchclamp.errors import AddressError, Stopped
from patchclamp.methods.composition import (
    DRAWS,
    Circuits,
    Composition,
    baseline,
    circuits,
    compose,
    composition,
)
from patchclamp.models.language_model import LanguageModel
from patchclamp.models.weights import (
    attention_gain,
    attention_norm,
    folded_head_weights,
    head_output,
    head_weights,
)
from tests.unit import tiny

MODELS = ["native", "gpt2", "llama", "neox", "gemma", "gemma3", "bert"]
LENGTH = 10


def made(name: str) -> LanguageModel:
    """Make a random model whose norms and biases are no ones and zeros."""
    inner: Any = tiny.native() if name == "native" else tiny.hugging_face(name)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in inner.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return LanguageModel(inner, None, name=name)


@cache
def gained(name: str) -> LanguageModel:
    """Make it once; nobody runs it."""
    return made(name)


@cache
def activations(name: str) -> dict[str, torch.Tensor]:
    """Run the same model with TransformerLens alone."""
    _, found = made(name).bridge.run_with_cache(tiny.ids(LENGTH)[None])
    return {hook: value[0].detach().double() for hook, value in found.items()}


def constant(values: torch.Tensor) -> bool:
    """Whether Float[pos, ...] is the same at all positions: a bias and nothing else."""
    return torch.allclose(values, values[:1].expand_as(values), atol=1e-5)


# The weights of heads -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_heads_read_and_write_with_the_matrices_that_the_model_computes_with(name: str) -> None:
    model, truth = gained(name), activations(name)
    anatomy = model.anatomy
    for layer in range(anatomy.n_layers):
        at = f"blocks.{layer}.attn."
        W = head_weights(model.bridge, layer)
        assert W.W_Q.shape == (anatomy.n_heads, anatomy.d_model, anatomy.d_head)
        assert W.W_K.shape == (anatomy.n_kv_heads, anatomy.d_model, anatomy.d_head)
        assert W.W_V.shape == (anatomy.n_kv_heads, anatomy.d_model, anatomy.d_head)
        assert W.W_O.shape == (anatomy.n_heads, anatomy.d_head, anatomy.d_model)
        x = truth[f"{at}hook_in"]
        for part, weights in (("q", W.W_Q), ("k", W.W_K), ("v", W.W_V)):
            read = torch.einsum("pd,hde->phe", x, weights.double())
            values = truth[f"{at}{part}.hook_out"]
            assert constant(values - read)
            assert not constant(values)
        z = truth[f"{at}o.hook_in"]
        written = sum(
            z[:, head] @ head_output(model.bridge, layer, head).double()
            for head in range(anatomy.n_heads)
        )
        assert constant(truth[f"{at}o.hook_out"] - written)
        assert not constant(truth[f"{at}o.hook_out"])


@pytest.mark.parametrize("name", ["native", "gpt2", "llama", "neox", "gemma"])
def test_folded_weights_read_the_residual_stream_itself(name: str) -> None:
    model, truth = gained(name), activations(name)
    for layer in range(model.anatomy.n_layers):
        stream = truth[f"blocks.{layer}.ln1.hook_in"]
        norm = attention_norm(model.bridge, layer)
        assert torch.equal(attention_gain(model.bridge, layer), norm.gain)
        scaled = stream * norm.scale(stream)[:, None]
        folded = folded_head_weights(model.bridge, layer)
        raw = head_weights(model.bridge, layer)
        for part in ("Q", "K", "V"):
            weights = getattr(folded, f"W_{part}").double()
            values = truth[f"blocks.{layer}.attn.{part.lower()}.hook_out"]
            assert constant(values - torch.einsum("pd,hde->phe", scaled, weights))
            plain = getattr(raw, f"W_{part}").double()
            assert not constant(values - torch.einsum("pd,hde->phe", scaled, plain))


def test_norms_of_queries_and_after_attention_are_folded_in_too() -> None:
    model = gained("gemma3")
    raw, folded = (f(model.bridge, 1) for f in (head_weights, folded_head_weights))
    inner: Any = model.bridge.original_model
    layer = inner.model.layers[1]
    original = layer.self_attn.original_component
    gain = 1 + layer.input_layernorm.weight.detach()
    q, k = (1 + getattr(original, f"{x}_norm").weight.detach() for x in "qk")
    after = 1 + layer.post_attention_layernorm.weight.detach()
    assert torch.allclose(folded.W_Q, gain[:, None] * raw.W_Q * q, rtol=1e-5)
    assert torch.allclose(folded.W_K, gain[:, None] * raw.W_K * k, rtol=1e-5)
    assert torch.allclose(folded.W_V, gain[:, None] * raw.W_V, rtol=1e-5)
    assert torch.allclose(folded.W_O, raw.W_O * after, rtol=1e-5)


def test_where_no_norm_comes_before_attention_nothing_is_folded() -> None:
    model = gained("bert")
    assert attention_gain(model.bridge, 1).tolist() == [1.0] * 32
    for raw, folded in zip(
        head_weights(model.bridge, 1), folded_head_weights(model.bridge, 1), strict=True
    ):
        assert torch.equal(raw, folded)


# Composition --------------------------------------------------------------------------------------


def dense(name: str, layer: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make W_QK and W_OV, [d_model, d_model], of a head with its norm's gain and centring."""
    model = gained(name)
    W_Q, W_K, W_V, W_O = (w.double() for w in head_weights(model.bridge, layer))
    norm: Any = model.bridge.blocks[layer].ln1.original_component
    gain = norm.weight.detach().double() + (name == "gemma")
    width = len(gain)
    read = torch.diag(gain)
    if name in {"native", "gpt2", "neox"}:
        read = (torch.eye(width).double() - 1 / width) @ read
    shared = head * len(W_K) // len(W_Q)
    return (
        read @ W_Q[head] @ W_K[shared].T @ read.T,
        read @ W_V[shared] @ W_O[head],
    )


def size(matrix: torch.Tensor) -> float:
    return float(matrix.square().sum().sqrt())


@pytest.mark.parametrize("name", ["native", "gpt2", "llama", "neox", "gemma"])
def test_composition_is_that_of_the_dense_matrices(name: str) -> None:
    layer, head = 2, 1
    found = composition(gained(name), layer, head)
    mine_qk, mine_ov = dense(name, layer, head)
    for other in (0, 1, 3):
        for index in range(4):
            qk, ov = dense(name, other, index)
            if other < layer:
                wrote, read_qk, read_ov = ov, mine_qk, mine_ov
            else:
                wrote, read_qk, read_ov = mine_ov, qk, ov
            truth = {
                "q": size(wrote @ read_qk) / (size(wrote) * size(read_qk)),
                "k": size(wrote @ read_qk.T) / (size(wrote) * size(read_qk)),
                "v": size(wrote @ read_ov) / (size(wrote) * size(read_ov)),
            }
            for part, score in truth.items():
                ours = float(getattr(found, part)[other, index]) + found.baseline
                assert ours == pytest.approx(score, rel=1e-5)


def test_heads_of_one_layer_do_not_read_each_other() -> None:
    found = composition(gained("llama"), 1, 2)
    for part in (found.q, found.k, found.v):
        assert part.shape == (4, 4)
        assert bool(part[1].isnan().all())
        assert bool(part[[0, 2, 3]].isfinite().all())


def test_two_heads_have_one_score_whichever_is_locked() -> None:
    model = gained("llama")
    early, late = composition(model, 0, 3), composition(model, 2, 1)
    for part in ("q", "k", "v"):
        a, b = float(getattr(early, part)[2, 1]), float(getattr(late, part)[0, 3])
        assert a == pytest.approx(b, rel=1e-5)


def test_a_head_that_reads_what_another_writes_stands_out_by_the_way_it_reads() -> None:
    inner: Any = tiny.hugging_face("gpt2")
    attention, writer = inner.transformer.h[2].attn, inner.transformer.h[0].attn
    with torch.no_grad():
        # L2.H1's keys read what L0.H3 writes, and nothing else.
        written = writer.c_proj.weight[24:32]
        attention.c_attn.weight[:, 32 + 8 : 32 + 16] = written.T
    found = composition(LanguageModel(inner, None), 2, 1)
    best = found.k[:2].flatten().argmax()
    assert divmod(int(best), 4) == (0, 3)
    others = torch.cat([found.k[:2].flatten(), found.q[:2].flatten(), found.v[:2].flatten()])
    ahead = float(found.k[0, 3]) / float(others.sort().values[-2])
    assert ahead > 1.5


def test_the_baseline_is_the_mean_of_seeded_random_matrices() -> None:
    assert DRAWS >= 20
    drawn = baseline(32, 8)
    assert len(drawn) == DRAWS
    assert torch.equal(drawn, baseline(32, 8))
    assert not torch.equal(drawn, baseline(32, 8, seed=1))
    found = composition(gained("llama"), 2, 1)
    assert found.baseline == pytest.approx(float(drawn.mean()))
    assert found.spread == pytest.approx(float(drawn.std()))
    # Dense, other draws: the mean is that of the shapes, not of these matrices.
    generator = torch.Generator().manual_seed(77)
    truth = []
    for _ in range(200):
        V, O, Q, K = (torch.randn(32, 8, generator=generator) for _ in range(4))  # noqa: E741
        ov, qk = V @ O.T, Q @ K.T
        truth.append(size(ov @ qk) / (size(ov) * size(qk)))
    mean = sum(truth) / len(truth)
    error = float(drawn.std()) / DRAWS**0.5
    assert abs(found.baseline - mean) < 4 * error
    assert mean > 10 * error


def test_heads_of_random_weights_compose_as_the_baseline_does() -> None:
    # The plain random model: no head was made for another one.
    found = [composition(tiny.model("gpt2"), 2, head) for head in range(4)]
    rest = torch.stack([part[[0, 1, 3]] for one in found for part in (one.q, one.k, one.v)])
    assert abs(float(rest.mean())) < 0.1 * found[0].baseline
    assert isinstance(found[0], Composition)


def test_one_score_of_matrices_that_fit_wholly_is_one() -> None:
    # What is written lies along what is read, in one dimension: nothing is lost.
    along = torch.zeros(1, 6, 1)
    along[0, 2] = 3.0
    only = Circuits(along, along, along, along)
    assert compose(only, only).flatten().tolist() == pytest.approx([1, 1, 1])


def test_grouped_heads_share_keys_and_values() -> None:
    found = circuits(gained("llama"), 1)
    assert [len(factor) for factor in found] == [4, 4, 4, 4]
    assert torch.equal(found.K[0], found.K[1])
    assert not torch.equal(found.K[1], found.K[2])
    assert not torch.equal(found.Q[0], found.Q[1])


def test_a_head_that_is_not_there_and_a_stop_are_said() -> None:
    with pytest.raises(AddressError, match=r"L4\.H0 does not exist"):
        composition(gained("llama"), 4, 0)
    with pytest.raises(Stopped):
        composition(gained("llama"), 1, 0, should_stop=lambda: True)
