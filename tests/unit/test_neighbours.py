"""Neurons that are alike, and what a neuron feeds, equal a naive computation."""

from __future__ import annotations

import pytest
import torch

from patchclamp.methods.neighbours import feeds, fires_like, writes_like
from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny


def test_the_neuron_that_writes_the_opposite_is_found_first() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), None)
    out = [model.bridge.blocks[n].mlp.out.original_component.weight for n in range(4)]
    with torch.no_grad():
        out[3][:, 17] = -2 * out[1][:, 4]
    found = writes_like(model, 1, 4, count=3)
    assert found[0].address == "L3.N17"
    assert found[0].value == pytest.approx(-1, abs=1e-6)
    mine, other = out[1][:, 4], out[int(found[1].address[1])]
    column = other[:, int(found[1].address.split("N")[1])]
    truth = torch.cosine_similarity(mine.detach(), column.detach(), dim=0)
    assert found[1].value == pytest.approx(float(truth), abs=1e-6)
    assert "L1.N4" not in [near.address for near in found]


def test_correlations_are_numpys() -> None:
    values = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    values[:, 5] = -3 * values[:, 2] + 7
    values[:, 6] = 1.0  # never changes: alike to none
    found = fires_like(values, [0] * 4 + [1] * 4, [0, 1, 2, 3] * 2, 2, count=7)
    assert found[0].address == "L1.N1"
    assert found[0].value == pytest.approx(-1, abs=1e-5)
    truth = torch.corrcoef(values[:, [2, 0]].T)[0, 1]
    assert dict(found)["L0.N0"] == pytest.approx(float(truth), abs=1e-5)
    assert dict(found)["L1.N2"] == 0


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
def test_a_planted_reader_is_found_first(name: str) -> None:
    model = LanguageModel(tiny.hugging_face(name), None)
    bridge = model.bridge
    out = bridge.blocks[0].mlp.out.original_component
    conv1d = type(out).__name__ == "Conv1D"
    written = out.weight[3] if conv1d else out.weight[:, 3]
    mlp = bridge.blocks[2].mlp
    part = getattr(mlp, "gate" if name == "llama" else "in").original_component
    norm = bridge.blocks[2].ln2.original_component
    with torch.no_grad():  # what reads exactly this vector, the norm's gain taken off again
        row = (written if name == "llama" else written - written.mean()) / norm.weight
        if conv1d:
            part.weight[:, 9] = row
        else:
            part.weight[9] = row
    found = feeds(model, 0, 3)
    assert found[0].address == ("L2.N9:gate" if name == "llama" else "L2.N9:pre")
    assert all(abs(near.value) <= 1 + 1e-6 for near in found)


def test_what_a_head_reads_is_a_share_of_the_most_it_could() -> None:
    model = tiny.model("llama")
    found = dict(feeds(model, 1, 5, count=10**6))
    heads = [name for name in found if ".H" in name]
    # Two layers of 4 query heads and 2 shared key/value heads.
    assert len(heads) == 2 * (4 + 2 + 2)
    assert {"L2.H0:k", "L2.H2:k", "L3.H3:q"} <= set(heads)
    block = model.bridge.blocks[3]
    W = block.attn.q.original_component.weight.detach()[24:32].T  # head 3 of 8 dimensions each
    W = block.ln1.original_component.weight.detach()[:, None] * W
    written = model.bridge.blocks[1].mlp.out.original_component.weight.detach()[:, 5]
    truth = (written @ W).norm() / written.norm() / torch.linalg.svdvals(W)[0]
    assert found["L3.H3:q"] == pytest.approx(float(truth), rel=1e-4)
    assert not any(name.startswith(("L0", "L1")) for name in found)
