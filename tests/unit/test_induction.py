"""Knocking out induction heads: the numbers are TransformerLens' own, and wrong heads show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import patchclamp as pc
from patchclamp.engine.engine import Engine
from patchclamp.errors import AddressError, InputError, ModelError
from patchclamp.interventions import Ablate, Intervention, Knockout
from patchclamp.methods import induction
from patchclamp.methods.head_scores import repeated_tokens
from patchclamp.sites import SiteSet
from tests.unit import tiny

if TYPE_CHECKING:
    from torch import Tensor

    from patchclamp.engine.plan import Input
    from patchclamp.models.language_model import LanguageModel

LENGTH, BATCH, SEED = 12, 3, 2


@pytest.fixture(scope="module")
def trained() -> Engine:
    return Engine.of(pc.load("induction-2l"))


def measured(model: LanguageModel, stack: tuple[Intervention, ...]) -> list[induction.Losses]:
    """The losses without and with a stack, by the method."""
    engine = Engine.of(model)
    return engine.queue.submit(
        lambda _: induction.losses(
            engine, lambda _: [(), stack], length=LENGTH, batch=BATCH, seed=SEED
        )
    ).result()


def drawn(model: LanguageModel) -> list[Input]:
    return repeated_tokens(model, length=LENGTH, batch=BATCH, seed=SEED)


def by_hand(model: LanguageModel, hooks: list[tuple[Any, Any]]) -> induction.Losses:
    """The same with TransformerLens alone: its own hooked pass on a bridge of the test's own."""
    bridge = tiny.fresh_bridge(model.name)
    ids = torch.tensor([one.ids for one in drawn(model)])
    with torch.no_grad():
        logits = bridge.run_with_hooks(ids, fwd_hooks=hooks)
    logits = getattr(logits, "logits", logits)
    each = cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return induction.Losses(float(each[:, :-LENGTH].mean()), float(each[:, 1 - LENGTH :].mean()))


def close(one: induction.Losses, other: induction.Losses) -> bool:
    return all(
        abs(a - b) <= 1e-5 * abs(b)
        for a, b in ((one.first, other.first), (one.second, other.second))
    )


@pytest.mark.parametrize("name", ["llama", "native"])
def test_losses_without_cells_are_those_of_patterns_edited_by_hand(name: str) -> None:
    model = tiny.model(name)
    cells = induction.induction_cells(drawn(model)[0], LENGTH)
    every = range(4)  # one head's cells alone hardly move a random model
    sites = SiteSet.of(*(f"L{n}.H{h}[{d}<-{s}]" for n in every for h in every for d, s in cells))

    def edit(pattern: Tensor, hook: object) -> Tensor:
        new = pattern.clone()
        for d, s in cells:
            new[:, :, d, s] = 0
            new[:, :, d] /= new[:, :, d].sum(-1, keepdim=True)
        return new

    before, after = measured(model, (Knockout(sites),))
    assert close(before, by_hand(model, []))
    edits = [(f"blocks.{layer}.attn.hook_pattern", edit) for layer in every]
    assert close(after, by_hand(model, edits))
    assert abs(after.second - before.second) > 1e-3 * before.second
    assert after.first == pytest.approx(before.first, rel=1e-6), "the cells are in the second half"


@pytest.mark.parametrize("name", ["llama", "native"])
def test_losses_without_heads_are_those_of_means_put_in_by_hand(name: str) -> None:
    model = tiny.model(name)
    hook = model.anatomy.hook(pc.Site.parse("L1.H2"))
    engine = Engine.of(model)
    values = []
    bridge = tiny.fresh_bridge(name)
    for one in induction._unrepeated(engine, LENGTH):
        with torch.no_grad():
            _, cache = bridge.run_with_cache(torch.tensor([one.ids]))
        values.append(cache[hook][0, 1:].reshape(len(one.ids) - 1, -1))
    width = model.anatomy.d_head
    mean = torch.cat(values).mean(0)[2 * width : 3 * width]
    has_bos = drawn(model)[0].has_bos

    def put(z: Tensor, hook: object) -> Tensor:
        new = z.clone()
        flat = new.flatten(2) if new.ndim == 4 else new
        flat[:, int(has_bos) :, 2 * width : 3 * width] = mean
        return flat.view(z.shape)

    before, after = measured(model, (Ablate("L1.H2"),))
    assert close(after, by_hand(model, [(hook, put)]))
    assert abs(after.second - before.second) > 1e-3 * before.second


def test_the_found_heads_raise_the_loss_and_random_ones_do_not(trained: Engine) -> None:
    for how in ("ablate", "cells"):
        found = induction.knock_out_heads(trained, ["L1.H0", "L1.H1", "L1.H4"], how=how, seed=1)
        assert found.rise > 4
        assert max(found.control_rises) < 0.25 * found.rise
        assert found.before.second < 1
        assert found.before.first > 5
        assert len(found.controls) == 10


def test_wrong_heads_do_not_pass_for_induction_heads(trained: Engine) -> None:
    wrong = induction.knock_out_heads(trained, "{L1.H2, L1.H3, L1.H5}", seed=1)
    assert wrong.rise < 1
    assert wrong.rise < max(wrong.control_rises), "some of the random sets hold the real ones"


def test_controls_are_other_heads_of_the_same_layers_each_set_once(trained: Engine) -> None:
    found = induction.knock_out_heads(trained, "{L0.H5, L1.H0, L1.H4}", seeds=7, length=5, batch=1)
    own = set(found.found.heads)
    assert induction.counts(found.found) == {0: 1, 1: 2}
    assert all(induction.counts(trial) == {0: 1, 1: 2} for trial in found.controls)
    assert not any(own & set(trial.heads) for trial in found.controls)
    assert len({trial.heads for trial in found.controls}) == len(found.controls) == 7


def test_where_a_layer_has_few_other_heads_all_sets_are_taken(trained: Engine) -> None:
    seven = SiteSet.of(*(f"L1.H{head}" for head in range(1, 5)))
    found = induction.knock_out_heads(trained, seven, seeds=5, length=5, batch=1)
    assert [str(site) for site in found.controls[0].heads] == ["L1.H0", "L1.H5", "L1.H6", "L1.H7"]
    assert len(found.controls) == 1


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(trained: Engine) -> None:
    one, again, other = (
        induction.knock_out_heads(trained, "L1.H4", seeds=5, length=8, batch=2, seed=seed)
        for seed in (3, 3, 4)
    )
    assert one == again
    assert one.before != other.before


def test_cells_are_where_a_token_comes_again() -> None:
    (given,) = repeated_tokens(tiny.model("llama"), length=6, batch=1, seed=0)
    cells = induction.induction_cells(given, 6)
    assert len(cells) == 6
    for destination, source in cells:
        assert given.ids[source - 1] == given.ids[destination]
        assert source <= destination


def test_what_cannot_be_done_is_said(trained: Engine) -> None:
    with pytest.raises(InputError, match="at least 5 random sets of heads, not 4"):
        induction.knock_out_heads(trained, "L1.H4", seeds=4)
    with pytest.raises(InputError, match="no head to knock out"):
        induction.knock_out_heads(trained, [])
    with pytest.raises(InputError, match=r"L1\.attn is no head"):
        induction.knock_out_heads(trained, "L1.attn")
    with pytest.raises(AddressError, match="head 9 does not exist"):
        induction.knock_out_heads(trained, "L1.H9")
    with pytest.raises(AddressError, match="3 heads left to draw from"):
        induction.knock_out_heads(trained, "L1.H[0:5]")
    with pytest.raises(InputError, match="use at most 63"):
        induction.knock_out_heads(trained, "L1.H4", length=100)
    encoder = Engine.of(tiny.model("bert"))
    with pytest.raises(ModelError, match="encoder, which foretells no next token"):
        induction.knock_out_heads(encoder, "L1.H1", length=5)
