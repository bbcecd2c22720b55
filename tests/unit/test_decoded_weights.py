"""Neurons' weights read through the LM head: exact, and a planted neuron comes first."""

from __future__ import annotations

import pytest
import torch

from patchclamp.errors import InputError, Stopped
from patchclamp.methods.decoded_weights import Decoded, Decoder, Matrix, permuted_rows
from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny


def last(
    decoder: Decoder, matrix: Matrix, *, top: int = 4, controls: int = 16, block: int = 1024
) -> Decoded:
    return list(decoder.decode(matrix, top=top, controls=controls, block=block))[-1]


def logits_by_hand(model: LanguageModel, layer: int, neuron: int) -> torch.Tensor:
    """What writing the neuron's vector into an empty stream would give, by the model's own parts.

    The final norm is scale times a linear map: its slope at the stream is taken with the scale
    held, which multiplies all logits alike and so leaves their z as it is.
    """
    bridge = model.bridge
    out = bridge.blocks[layer].mlp.out.original_component
    conv1d = type(out).__name__ == "Conv1D"
    written = (out.weight[neuron] if conv1d else out.weight[:, neuron]).detach().double()
    norm = bridge.ln_final.original_component
    if "LayerNorm" in type(norm).__name__ and "RMS" not in type(norm).__name__:
        written = written - written.mean()
    weight = bridge.unembed.original_component.weight.detach().double()
    gained: torch.Tensor = weight @ (written * norm.weight.detach().double())
    return gained


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
def test_what_a_neuron_writes_is_decoded_as_by_hand(name: str) -> None:
    model = tiny.model(name)
    found = last(Decoder(model), "down")
    for neuron in (0, 5, 47, 60):
        layer, index = int(found.layer[neuron]), int(found.index[neuron])
        logits = logits_by_hand(model, layer, index)
        z = (logits - logits.mean()) / logits.std(correction=0)
        high, low = z.topk(4), z.topk(4, largest=False)
        assert found.tokens[neuron].tolist() == [high.indices.tolist(), low.indices.tolist()]
        torch.testing.assert_close(
            found.z[neuron].double(), torch.stack([high.values, low.values]), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("matrix", ["up", "gate"])
def test_what_a_neuron_reads_with_is_decoded_as_it_is(matrix: Matrix) -> None:
    model = tiny.model("llama")
    found = last(Decoder(model), matrix)
    block = model.bridge.blocks[2].mlp
    part = getattr(block, "gate" if matrix == "gate" else "in").original_component
    logits = part.weight[7].detach() @ model.bridge.unembed.original_component.weight.detach().T
    place = int(((found.layer == 2) & (found.index == 7)).nonzero())
    assert found.tokens[place, 0].tolist() == logits.topk(4).indices.tolist()


def test_how_far_any_token_stands_out_is_the_farthest_of_those_that_are_kept() -> None:
    decoder = Decoder(tiny.model("llama"))
    decoded = last(decoder, "up")
    rows = torch.cat([decoder.rows("up", layer) for layer in decoder.layers])
    torch.testing.assert_close(decoder.peaks(rows, block=50), decoded.z[:, :, 0].abs().amax(1))


def test_one_token_is_searched_in_closed_form() -> None:
    model = tiny.model("llama")
    decoder = Decoder(model)
    found = last(decoder, "down", top=tiny.VOCAB)
    searched = torch.cat(decoder.of_token(17, "down"))
    decoded = found.z[:, 0].gather(1, found.tokens[:, 0].argsort(1)[:, 17:18])[:, 0]
    torch.testing.assert_close(searched, decoded, rtol=1e-4, atol=1e-4)


def test_blocks_and_layers_change_nothing() -> None:
    decoder = Decoder(tiny.model("gpt2"))
    whole, pieces = last(decoder, "down"), last(decoder, "down", block=7)
    assert torch.equal(whole.tokens, pieces.tokens)
    torch.testing.assert_close(whole.score, pieces.score, rtol=1e-4, atol=1e-4)


def test_a_planted_neuron_is_the_most_special_and_permuted_weights_are_not() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), None)
    bridge = model.bridge
    reading = bridge.unembed.original_component.weight.detach()[23]
    with torch.no_grad():
        bridge.blocks[1].mlp.out.original_component.weight[:, 11] = reading
    found = last(Decoder(model), "down", controls=48)
    best = int(found.score.argmax())
    assert (int(found.layer[best]), int(found.index[best])) == (1, 11)
    assert int(found.tokens[best, 0, 0]) == 23
    # The same numbers in another order say nothing.
    control = found.control[1]
    assert float(found.peak[best]) > float(control.max())
    ordinary = found.score[found.layer == 2]
    assert float(ordinary.mean().abs()) < 0.75  # random weights are like permuted ones


def test_permuted_rows_keep_what_they_are_made_of() -> None:
    rows = torch.randn(9, 32)
    permuted = permuted_rows(rows, 20, seed=5)
    sorted_rows = {tuple(row.sort().values.tolist()) for row in rows}
    assert all(tuple(row.sort().values.tolist()) in sorted_rows for row in permuted)
    assert torch.equal(permuted, permuted_rows(rows, 20, seed=5))
    assert not torch.equal(permuted, permuted_rows(rows, 20, seed=6))


def test_decoding_fills_in_and_stops() -> None:
    decoder = Decoder(tiny.model("llama"))
    first = next(decoder.decode("down", controls=4))
    assert first.done == 48
    assert first.score.isnan().sum() == 3 * 48
    assert not first.score[first.layer == 3].isnan().any()
    with pytest.raises(Stopped):
        next(decoder.decode("down", controls=4, should_stop=lambda: True))


def test_some_layers_are_decoded_as_among_all_and_the_others_not() -> None:
    decoder = Decoder(tiny.model("llama"))
    everything = list(decoder.decode("down"))[-1]
    some = list(decoder.decode("down", layers=[2, 0]))
    assert [each.done for each in some] == [48, 96]
    here = (everything.layer == 0) | (everything.layer == 2)
    assert torch.equal(some[-1].score[here], everything.score[here])
    assert some[-1].score[~here].isnan().all()
    assert (some[-1].tokens[~here] == -1).all()
    with pytest.raises(InputError, match="Layer 4 has no neurons; the layers are 0 to 3"):
        next(decoder.decode("down", layers=[4]))
    with pytest.raises(InputError, match="No layer was named"):
        next(decoder.decode("down", layers=[]))


def test_the_table_has_a_row_for_each_neuron() -> None:
    model = tiny.model("llama")
    table = last(Decoder(model), "down").frame(model)
    assert len(table) == 4 * 48
    assert table.address[50] == "L1.N2"
    assert len(table.top[0]) == 4
    sides = [
        top[0] if sign > 0 else bottom[0]
        for sign, top, bottom in zip(table.sign, table.top, table.bottom, strict=True)
    ]
    assert table.token.tolist() == sides


def test_a_matrix_that_is_not_there_is_a_sentence() -> None:
    decoder = Decoder(tiny.model("gpt2"))
    assert decoder.matrices == ("down", "up")
    with pytest.raises(InputError, match="down, up"):
        next(decoder.decode("sideways"))  # type: ignore[arg-type]


def test_a_weight_that_was_trained_is_read_anew() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), None)
    decoder = Decoder(model)
    before = decoder.of_token(9)[2][4]
    with torch.no_grad():
        model.bridge.unembed.original_component.weight.mul_(
            torch.linspace(0.5, 2, tiny.VOCAB)[:, None]
        )
    after = decoder.of_token(9)[2][4]
    torch.testing.assert_close(after, Decoder(model).of_token(9)[2][4])
    assert float((after - before).abs()) > 1e-3
