"""What a cell of attention carries: its norm, and what it adds to a logit, by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers as hf

import patchclamp as pc
from patchclamp.engine.attention import Attention
from patchclamp.errors import ModelError
from patchclamp.methods.attention_value import (
    logit_contribution,
    value_norms,
    why_no_contribution,
    why_no_values,
)
from patchclamp.models.language_model import LanguageModel
from patchclamp.models.weights import Readout
from tests.unit import tiny

LENGTH = 12
TARGET, AGAINST = 30, 44
ADDITIVE = ["native", "gpt2", "llama", "neox", "gemma"]


def made(name: str) -> LanguageModel:
    """Make a random model whose norms and biases are no ones and zeros."""
    inner: Any = tiny.native() if name == "native" else tiny.hugging_face(name)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in inner.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return LanguageModel(inner, None, name=name)


@cache
def gained(name: str) -> LanguageModel:
    """Make it once; every caller gets the same one."""
    return made(name)


def attended(session: pc.Session, job: Any) -> Any:
    return session.submit(lambda _: job(Attention(session.experiment))).result()


def contributions(session: pc.Session, layer: int, head: int) -> torch.Tensor:
    """Put weights, column and scale together: Float[dest, source]."""

    def job(attention: Attention) -> torch.Tensor:
        column, scale = logit_contribution(attention, layer, head, TARGET)
        return attention.rows(layer, head) * column * scale[:, None]

    cells: torch.Tensor = attended(session, job)
    return cells


def hooked(name: str, ids: torch.Tensor) -> Any:
    """Run the same model with TransformerLens alone."""
    _, found = made(name).bridge.run_with_cache(ids[None])
    return {name: value[0].detach().double() for name, value in found.items()}


def output_rows(model: LanguageModel, layer: int, head: int) -> torch.Tensor:
    """Cut a head's rows out of the output projection, by its kind."""
    projection = model.bridge.blocks[layer].attn.o.original_component
    weight: torch.Tensor = projection.weight.detach().double()
    flat = weight if type(projection).__name__ == "Conv1D" else weight.T
    width = model.anatomy.d_head
    return flat[head * width : (head + 1) * width]


def logit_of(model: LanguageModel, final: torch.Tensor, written: torch.Tensor, name: str) -> Any:
    """What writing to the final residual stream adds to all logits, with the norm's scale held."""
    norm = model.bridge.ln_final.original_component
    gain = norm.weight.detach().double() + (name == "gemma")
    centred = name in {"native", "gpt2", "neox"}

    def centre(x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(-1, keepdim=True) if centred else x

    eps = getattr(norm, "eps", None) or norm.variance_epsilon
    root = (centre(final).square().mean(-1, keepdim=True) + eps).sqrt()
    unembed = model.bridge.unembed.original_component.weight.detach().double()
    return (centre(written) / root * gain) @ unembed.T


@pytest.mark.parametrize("name", ADDITIVE)
def test_contributions_sum_to_the_heads_direct_logit_attribution(name: str) -> None:
    model, ids = gained(name), tiny.ids(LENGTH)
    session = pc.Session(model, ids)
    truth = hooked(name, ids)
    last = model.anatomy.n_layers - 1
    final = truth.get(f"blocks.{last}.hook_out", truth.get(f"blocks.{last}.hook_resid_post"))
    sizes = []
    for layer in range(model.anatomy.n_layers):
        z = truth[f"blocks.{layer}.attn.hook_z"]
        for head in range(model.anatomy.n_heads):
            cells = contributions(session, layer, head)
            written = z[:, head] @ output_rows(model, layer, head)
            by_hand = logit_of(model, final, written, name)[:, TARGET]
            off = (cells.sum(-1).double() - by_hand).abs().max() / by_hand.abs().max()
            assert float(off) < 1e-5
            sizes.append(float(by_hand.abs().max()))
    assert sorted(sizes)[len(sizes) // 2] > 0.1


def test_of_two_tokens_the_first_counts_minus_the_second() -> None:
    session = pc.Session(gained("llama"), tiny.ids(LENGTH))

    def column(tokens: Any) -> torch.Tensor:
        found: torch.Tensor = attended(session, lambda a: logit_contribution(a, 2, 3, tokens)[0])
        return found

    apart = column(TARGET) - column(AGAINST)
    assert torch.allclose(column((TARGET, AGAINST)), apart, rtol=1e-4, atol=1e-6)
    assert torch.equal(column((TARGET,)), column(TARGET))
    assert float(apart.abs().max()) > 0.1


@pytest.mark.parametrize("name", [*ADDITIVE, "gemma3", "bert"])
def test_value_norms_are_those_of_what_each_value_writes(name: str) -> None:
    model, ids = gained(name), tiny.ids(LENGTH)
    session = pc.Session(model, ids)
    truth = hooked(name, ids)
    shared = model.anatomy.n_heads // model.anatomy.n_kv_heads
    for layer in range(model.anatomy.n_layers):
        v = truth[f"blocks.{layer}.attn.hook_v"]
        for head in range(model.anatomy.n_heads):
            found = attended(session, lambda a, at=(layer, head): value_norms(a, *at))
            written = v[:, head // shared] @ output_rows(model, layer, head)
            by_hand = written.square().sum(-1).sqrt()
            assert torch.allclose(found.double(), by_hand, rtol=1e-5)
            assert float(by_hand.std() / by_hand.mean()) > 0.01
    assert why_no_values(model) is None


def test_values_and_weights_are_those_under_the_stack() -> None:
    stack = [pc.Scale("L1.H2:v@4", 5.0), pc.Knockout("L1.H2[*<-3]"), pc.Scale("L0.mlp", 2.0)]
    model = gained("llama")
    plain = pc.Session(model, tiny.ids(LENGTH))
    session = pc.Session(model, tiny.ids(LENGTH), interventions=stack)

    z = session.current.activation("L1.H2").double()
    final = session.current.activation("L3.resid_post").double()
    by_hand = logit_of(model, final, z @ output_rows(model, 1, 2), "llama")[:, TARGET]
    cells = contributions(session, 1, 2)
    off = (cells.sum(-1).double() - by_hand).abs().max() / by_hand.abs().max()
    assert float(off) < 1e-5
    assert float(cells[:, 3].abs().max()) == 0
    assert float((cells.sum(-1) - contributions(plain, 1, 2).sum(-1)).abs().max()) > 0.01


def test_where_a_contribution_is_not_defined_a_sentence_says_so() -> None:
    for name, why in (("gemma3", "no plain sum"), ("bert", "is an encoder")):
        session = pc.Session(tiny.model(name), tiny.ids(LENGTH))
        with pytest.raises(ModelError, match=why):
            attended(session, lambda a: logit_contribution(a, 0, 0, TARGET))
        assert "The value-weighted pattern is" in str(why_no_contribution(tiny.model(name)))
    assert why_no_contribution(tiny.model("llama")) is None


def test_a_factor_on_all_logits_is_in_every_contribution() -> None:
    torch.manual_seed(7)
    small = {**tiny._LLAMA, "tie_word_embeddings": False}
    granite = hf.GraniteConfig(**small, logits_scaling=8.0, residual_multiplier=1.0)
    cohere = hf.CohereConfig(**small, logit_scale=0.25)
    models: list[Any] = [hf.GraniteForCausalLM(granite), hf.CohereForCausalLM(cohere)]
    for inner in models:
        model = LanguageModel(inner.eval(), None)
        assert why_no_contribution(model) is None
        session = pc.Session(model, tiny.ids(LENGTH))
        final = session.current.activation("L3.resid_post").double()
        readout = Readout.of(model.bridge)
        read = torch.stack([readout.reading(t) for t in range(tiny.VOCAB)])
        logits = (final @ read.T) * readout.norm.scale(final)[:, None]
        off = (logits - session.current.logits).abs().max() / session.current.logits.abs().max()
        assert float(off) < 1e-5
        assert readout.factor == (0.125 if "Granite" in type(inner).__name__ else 0.25)
