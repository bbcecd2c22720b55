"""The hand-set models do what is worked out for them on paper, by plain TransformerLens hooks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from patchclamp.sites import Site
from tests.unit import planted, tiny
from tests.unit.planted import ANSWER, COPY, HARD, LETTERS, MATCH, OTHER, Planted
from tests.unit.written_out import WrittenOut, replacing

EXACT = 1e-6
EVERY = pytest.mark.parametrize("name", planted.EVERY)


def logits(model: Planted, ids: Tensor, hooks: Any = ()) -> Tensor:
    """Float[pair, vocab] at the last place."""
    with torch.no_grad():
        found: Tensor = model.model.bridge.run_with_hooks(ids, fwd_hooks=list(hooks))
    return found[:, -1]


def metric(model: Planted, found: Tensor) -> Tensor:
    answer, wrong = torch.tensor(model.answers).T
    rows = torch.arange(len(found))
    return found[rows, answer] - found[rows, wrong]


def close(found: Tensor, expected: float, largest: float) -> bool:
    return bool((found - expected).abs().max() < EXACT * largest)


def test_attention_to_a_place_is_exact() -> None:
    """In single precision: what is left for another place is no number above 0."""
    assert torch.tensor(-(HARD**2) / 4).exp() == 0


@EVERY
def test_prompts_are_answered_as_planned(name: str) -> None:
    model = planted.EVERY[name]()
    clean, corrupt = logits(model, model.clean), logits(model, model.corrupt)
    assert close(metric(model, clean), model.clean_metric, model.clean_metric)
    assert close(metric(model, corrupt), model.corrupt_metric, model.clean_metric)
    assert torch.equal(clean[:, LETTERS].argmax(1) + 1, torch.tensor(model.answers)[:, 0])


def test_every_logit_of_the_induction_model_is_the_attention_that_its_letter_gets() -> None:
    model = planted.induction("all")
    for ids in (model.clean, model.corrupt):
        expected = torch.full((len(ids), planted.VOCAB), 0.5)  # the output bias of layer 1
        for row, tokens in enumerate(ids.tolist()):
            for place, token in enumerate(tokens):
                matches = place > 0 and tokens[place - 1] == tokens[-1]
                expected[row, token] += COPY * (MATCH if matches else OTHER)
        found = logits(model, ids)
        torch.testing.assert_close(found[:, :13], expected[:, :13], rtol=1e-6, atol=1e-6)


@EVERY
def test_noise_reaches_logits_but_not_those_of_letters(name: str) -> None:
    """Junk at every place of the stream, as large as one likes, moves three logits only."""
    model = planted.EVERY[name]()
    last = model.model.anatomy.n_layers - 1

    def noisy(resid: Tensor, hook: object) -> Tensor:
        resid = resid.clone()
        resid[..., planted.JUNK] += 100 * torch.randn(8, generator=torch.Generator().manual_seed(0))
        return resid

    plain = logits(model, model.clean)
    for layer in range(last + 1):
        for where in ("hook_in", "hook_out"):
            found = logits(model, model.clean, [(f"blocks.{layer}.{where}", noisy)])
            assert torch.equal(found[:, :13], plain[:, :13])
            moved = (found[:, planted.JUNK_TOKENS] - plain[:, planted.JUNK_TOKENS]).abs()
            assert (moved > 1).any(0).all()


@EVERY
def test_replacing_a_component_has_the_effect_that_is_worked_out(name: str) -> None:
    model = planted.EVERY[name]()
    anatomy = model.model.anatomy
    plain = metric(model, logits(model, model.clean))
    sites = [
        Site("head", n, h, "z") for n in range(anatomy.n_layers) for h in range(anatomy.n_heads)
    ]
    if not anatomy.attn_only:
        sites += [Site("mlp", n) for n in range(anatomy.n_layers)]
    assert model.nodes.keys() <= {str(site) for site in sites}
    for site in sites:
        kept: list[Tensor] = []
        hook = anatomy.hook(site)
        at: Any = (..., site.index, slice(None)) if site.kind == "head" else ...

        def keep(x: Tensor, hook: object, kept: list[Tensor] = kept) -> None:
            kept.append(x.clone())

        def put(x: Tensor, hook: object, kept: list[Tensor] = kept, at: Any = at) -> Tensor:
            x = x.clone()
            x[at] = kept[0][at]
            return x

        logits(model, model.corrupt, [(hook, keep)])
        effect = metric(model, logits(model, model.clean, [(hook, put)])) - plain
        assert close(effect, model.nodes.get(str(site), 0.0), model.clean_metric), site


@EVERY
def test_replacing_what_one_edge_carries_has_the_effect_that_is_worked_out(name: str) -> None:
    model = planted.EVERY[name]()
    written = WrittenOut(model.model.bridge.original_model)
    with torch.no_grad():
        corrupt = written.run(model.corrupt).wrote
        plain = metric(model, written.run(model.clean).logits[:, -1])
        found = {}
        for source, reader in written.edges():
            changed = written.run(model.clean, replacing({(source, reader)}, corrupt)).logits
            found[f"{source}->{reader}"] = metric(model, changed[:, -1]) - plain
    assert model.edges.keys() <= found.keys()
    for edge, effect in found.items():
        assert close(effect, model.edges.get(edge, 0.0), model.clean_metric), edge


@EVERY
def test_the_edges_that_matter_are_all_that_matters(name: str) -> None:
    """With everything else corrupt nothing is lost; without any one of them something is."""
    model = planted.EVERY[name]()
    written = WrittenOut(model.model.bridge.original_model)
    every = {f"{source}->{reader}": (source, reader) for source, reader in written.edges()}
    kept = {every[edge] for edge in model.edges}
    with torch.no_grad():
        corrupt = written.run(model.corrupt).wrote

        def keeping(edges: set[tuple[str, str]]) -> Tensor:
            gone = replacing(set(every.values()) - edges, corrupt)
            return metric(model, written.run(model.clean, gone).logits[:, -1])

        assert close(keeping(kept), model.clean_metric, model.clean_metric)
        assert close(keeping(set()), model.corrupt_metric, model.clean_metric)
        for edge in kept:
            assert (keeping(kept - {edge}) - model.clean_metric).max() < -0.9


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "native"])
def test_a_model_written_out_is_the_model(name: str) -> None:
    ids = torch.stack([tiny.ids(9), tiny.ids(9, seed=1)])
    bridge = tiny.fresh_bridge(name)
    with torch.no_grad():
        expected = bridge(ids)
        written = WrittenOut(bridge.original_model)
        found = written.run(ids)
    assert (found.logits - expected).abs().max() < 1e-5 * expected.abs().max()
    assert written.edges() == list(dict.fromkeys(written.edges()))


def test_two_wrong_inputs_of_the_induction_head_make_a_right() -> None:
    """Corrupt queries and keys agree again: their effects do not add up."""
    model = planted.induction("all")
    hooks = [f"blocks.1.attn.{part}.hook_out" for part in "qk"]
    kept: dict[str, Tensor] = {}

    def keep(x: Tensor, hook: Any) -> None:
        kept[hook.name] = x.clone()

    def put(x: Tensor, hook: Any) -> Tensor:
        x = x.clone()
        x[:, :, 1] = kept[hook.name][:, :, 1]
        return x

    logits(model, model.corrupt, [(name, keep) for name in hooks])
    plain = metric(model, logits(model, model.clean))
    each = [metric(model, logits(model, model.clean, [(name, put)])) - plain for name in hooks]
    both = metric(model, logits(model, model.clean, [(name, put) for name in hooks])) - plain
    assert close(each[0], COPY * (OTHER - MATCH), COPY)
    assert close(each[1], COPY * (OTHER - MATCH), COPY)
    assert close(both, 0.0, COPY)


def test_of_the_redundant_pair_one_is_nearly_enough_and_none_is_not() -> None:
    model = planted.redundant()
    plain = metric(model, logits(model, model.clean))

    def without(*heads: tuple[int, int]) -> Tensor:
        def gone(head: int) -> Any:
            def hook(z: Tensor, hook: object) -> Tensor:
                z = z.clone()
                z[:, :, head] = 0.0
                return z

            return hook

        hooks = [(f"blocks.{layer}.attn.o.hook_in", gone(head)) for layer, head in heads]
        return metric(model, logits(model, model.clean, hooks)) - plain

    a, b, both = without((0, 1)), without((1, 0)), without((0, 1), (1, 0))
    assert close(a, -1.0, 8.0)
    assert close(b, -1.0, 8.0)
    assert close(both, -8.0, 8.0)
    assert planted.INTERACTION == -6
    noise = [(0, 0), (0, 2), (1, 1), (1, 2)]
    for first, second in itertools.combinations(noise, 2):
        assert close(without(first, second), 0.0, 8.0)


def test_the_addition_model_knows_its_whole_table() -> None:
    model = planted.addition()
    for x, y in itertools.product(range(6), range(6)):
        ids = torch.tensor([[planted.BEGINNING, LETTERS[x], 3, 3, LETTERS[6 + y]]])
        found = logits(model, ids)[0, :13]
        expected = torch.zeros(13)
        expected[planted.added(x, y)] = planted.SUM
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_embedding_says_nothing_about_the_answer() -> None:
    """So that embed->logits is no edge of any circuit here."""
    for name in planted.EVERY:
        plain: Any = planted.EVERY[name]().model.bridge.original_model
        W_U: Tensor = plain.head.weight
        streams: Tensor = plain.tok_embed.weight
        assert not (streams @ W_U.T).any()
        assert W_U[:, ANSWER].any()
