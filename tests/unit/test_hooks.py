"""Steps do what is written by hand with TransformerLens hooks, or on the plain Hugging Face model.

Differences are relative to the largest logit, and every comparison asks that the effect is at
least 100 times the difference allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchclamp.engine.hooks import (
    Frame,
    check_intervention,
    compile_intervention,
    compile_stack,
    first_layer,
    first_position,
    touched_layers,
)
from patchclamp.errors import InterventionError, PatchclampError
from patchclamp.interventions import (
    Ablate,
    Add,
    Clamp,
    Cut,
    Intervention,
    Knockout,
    Patch,
    Scale,
)
from patchclamp.models.anatomy import Anatomy
from patchclamp.sites import Positions, Site
from tests.unit import tiny

EXACT = 1e-5
SEEN = 100 * EXACT
LENGTH = 8
D, D_HEAD = 32, 8
IDS = tiny.ids(LENGTH)
OTHER = tiny.ids(6, seed=1)
REFERENCE = (tiny.ids(5, seed=2), tiny.ids(7, seed=3))
VECTOR = torch.linspace(-1, 2, D).sin()
HooksByHand = list[tuple[str, Callable[..., Tensor | None]]]


@cache
def bridge_of(name: str) -> Any:
    return tiny.fresh_bridge(name)


@cache
def anatomy_of(name: str) -> Anatomy:
    return Anatomy.of(bridge_of(name))


def run(name: str, hooks: HooksByHand, ids: Tensor = IDS) -> Tensor:
    bridge = bridge_of(name)
    shown = tiny.shown_patterns(bridge) if anatomy_of(name).delegated else nullcontext()
    with torch.no_grad(), shown:
        logits: Tensor = bridge.run_with_hooks(ids[None], fwd_hooks=hooks)
    return logits[0]


def values(name: str, hook: str, ids: Tensor) -> Tensor:
    return _values(name, hook, tuple(ids.tolist()))


@cache
def _values(name: str, hook: str, tokens: tuple[int, ...]) -> Tensor:
    ids = torch.tensor(tokens)
    found: list[Tensor] = []

    def keep(x: Tensor, hook: object) -> None:
        found.append(x.clone())

    run(name, [(hook, keep)], ids)
    return found[0][0]


@dataclass
class Around:
    """The reference set, the other run and the directions, by plain runs."""

    name: str

    def mean(self, hook: str) -> Tensor:
        return torch.cat([values(self.name, hook, ids)[1:] for ids in REFERENCE]).mean(0)

    def resample(self, hook: str, seed: int) -> Tensor:
        return values(self.name, hook, REFERENCE[0])[1 + seed]

    def patch(self, source: str | tuple[int, ...], hook: str) -> Tensor:
        return values(self.name, hook, OTHER if isinstance(source, str) else torch.tensor(source))

    def patterns(self, heads: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Tensor]:
        return {
            (layer, head): values(self.name, f"blocks.{layer}.attn.hook_pattern", OTHER)[head]
            for layer, head in heads
        }

    def direction(self, name: str) -> Tensor:
        return {"dog": VECTOR, "short": torch.ones(3), "none": torch.zeros(D)}[name]

    def module(self, path: str) -> torch.nn.Module:
        module: torch.nn.Module = bridge_of(self.name).get_submodule(path)
        return module


def stepped(name: str, *stack: Intervention, has_bos: bool = True) -> Tensor:
    """Logits under the steps of a stack; every step must fire, and none may edit its input."""
    steps = compile_stack(stack, anatomy_of(name), Around(name))
    fired: list[str] = []

    def hook_of(apply: Callable[..., Tensor | None], at: str) -> Callable[..., Tensor | None]:
        def hook(x: Tensor, hook: object) -> Tensor | None:
            fired.append(at)
            before = x.clone()
            result = apply(x, Frame(0, LENGTH, has_bos))
            assert torch.equal(x, before)
            return result

        return hook

    logits = run(name, [(step.hook, hook_of(step.apply, step.hook)) for step in steps])
    assert sorted(fired) == sorted(step.hook for step in steps)
    return logits


@cache
def untouched(name: str) -> Tensor:
    return run(name, [])


def same(name: str, found: Tensor, expected: Tensor) -> None:
    plain = untouched(name)
    largest = expected.abs().max()
    assert (expected - plain).abs().max() > SEEN * largest, "an effect too small to prove anything"
    assert (found - expected).abs().max() < EXACT * largest


def edit(change: Callable[[Tensor], object]) -> Callable[..., Tensor]:
    """A TransformerLens hook that changes a copy in place."""

    def hook(x: Tensor, hook: object) -> Tensor:
        copy = x.clone()
        change(copy)
        return copy

    return hook


def put(at: Any, value: Any) -> Callable[..., Tensor]:
    return edit(lambda x: x.__setitem__(at, value))


def times(at: Any, factor: float) -> Callable[..., Tensor]:
    return edit(lambda x: x.__setitem__(at, x[at] * factor))


def plus(at: Any, value: Any) -> Callable[..., Tensor]:
    return edit(lambda x: x.__setitem__(at, x[at] + value))


def set_coefficient(new: Callable[[Tensor], Any]) -> Callable[..., Tensor]:
    def change(x: Tensor) -> None:
        c = x[:, 1:] @ VECTOR / VECTOR.dot(VECTOR)
        x[:, 1:] += (new(c) - c)[..., None] * VECTOR

    return edit(change)


def set_coefficient_to(value: Tensor) -> Callable[..., Tensor]:
    return set_coefficient(lambda _c: value)


def set_along(heads: Sequence[int], d: Tensor, target: Tensor) -> Callable[..., Tensor]:
    """What of each head lies along d becomes the target's, [head, d_head]."""

    def change(x: Tensor) -> None:
        for head in heads:
            apart = target[head] - x[:, 1:, head]
            x[:, 1:, head] += (apart @ d / d.dot(d))[..., None] * d

    return edit(change)


IN_HEAD = torch.linspace(2, -1, D_HEAD).cos()
EVERY = slice(None)
LATER = slice(1, None)  # a beginning-of-sequence token is left alone
POST, Z, MLP = "blocks.2.mlp.hook_post", "blocks.2.attn.hook_z", "blocks.2.hook_mlp_out"
ATTN, EARLIER_POST = "blocks.2.hook_attn_out", "blocks.1.mlp.hook_post"
TWO = torch.tensor([1.0, -3.0])
RESID, PATTERN = "blocks.2.hook_resid_post", "blocks.2.attn.hook_pattern"

BY_HAND: list[tuple[Intervention, Callable[[Around], HooksByHand]]] = [
    (Clamp("L2.N5@-1", 8.0), lambda _: [(POST, put((EVERY, -1, 5), 8.0))]),
    (Clamp("L2.N5", 8.0), lambda _: [(POST, put((EVERY, LATER, 5), 8.0))]),
    (Clamp("L2.N5@all", 8.0), lambda _: [(POST, put((EVERY, EVERY, 5), 8.0))]),
    (Clamp("L2.H1", [1.0] * D_HEAD), lambda _: [(Z, put((EVERY, LATER, 1), 1.0))]),
    (Scale("L2.H1@1,3", 3.0), lambda _: [(Z, times((EVERY, [1, 3], 1), 3.0))]),
    (Scale("L2.mlp@:4", 0.2), lambda _: [(MLP, times((EVERY, slice(4)), 0.2))]),
    (Scale("L2.H3:q", 3.0), lambda _: [("blocks.2.attn.hook_q", times((EVERY, LATER, 3), 3.0))]),
    (Add("L2.N5", 4.0), lambda _: [(POST, plus((EVERY, LATER, 5), 4.0))]),
    (
        Add("L2.resid_post@2:4", TWO, VECTOR),
        lambda _: [(RESID, plus((EVERY, slice(2, 4)), torch.outer(TWO, VECTOR)))],
    ),
    (Add("L2.attn", 2.0, VECTOR), lambda _: [(ATTN, plus((EVERY, LATER), 2 * VECTOR))]),
    (Ablate("embed@-1", "zero"), lambda _: [("hook_embed", put((EVERY, -1), 0.0))]),
    (
        Ablate("L[1:3].N[0:20]@all", "zero"),
        lambda _: [(at, put((EVERY, EVERY, slice(20)), 0.0)) for at in (EARLIER_POST, POST)],
    ),
    (
        Ablate("{L2.N3, L2.N9}"),
        lambda a: [(POST, put((EVERY, LATER, [3, 9]), a.mean(POST)[[3, 9]]))],
    ),
    (Ablate("L2.mlp"), lambda a: [(MLP, put((EVERY, LATER), a.mean(MLP)))]),
    (Ablate("L2.H*"), lambda a: [(Z, put((EVERY, LATER), a.mean(Z)))]),
    (Ablate("L2.H1", "resample", 2), lambda a: [(Z, put((EVERY, LATER, 1), a.resample(Z, 2)[1]))]),
    (
        Ablate("L2.resid_post", direction=(VECTOR / 7).tolist()),
        lambda a: [(RESID, set_coefficient_to(a.mean(RESID) @ VECTOR / VECTOR.dot(VECTOR)))],
    ),
    (
        Ablate("L2.resid_post", "zero", direction=VECTOR.tolist()),
        lambda _: [(RESID, set_coefficient(lambda c: 0 * c))],
    ),
    (
        Ablate("L2.H[1:3]", direction=IN_HEAD.tolist()),
        lambda a: [(Z, set_along((1, 2), IN_HEAD, a.mean(Z)))],
    ),
    (
        Ablate("L2.H1", "resample", 2, IN_HEAD.tolist()),
        lambda a: [(Z, set_along((1,), IN_HEAD, a.resample(Z, 2)))],
    ),
    (Patch("L2.H1@2:5"), lambda a: [(Z, put((EVERY, slice(2, 5), 1), a.patch("", Z)[2:5, 1]))]),
    (
        Patch("L2.mlp@2,7", "x", at="-1"),
        lambda a: [(MLP, put((EVERY, [2, 7]), a.patch("", MLP)[-1]))],
    ),
    (
        Patch("L2.N5@2,7", OTHER, at="0,3"),
        lambda a: [(POST, put((EVERY, [2, 7], 5), a.patch("", POST)[[0, 3], 5]))],
    ),
    (Clamp("L2.resid_post[dog]", 5.0), lambda _: [(RESID, set_coefficient(lambda c: 5.0 + 0 * c))]),
    (Scale("L2.resid_post[dog]", -2.0), lambda _: [(RESID, set_coefficient(lambda c: -2 * c))]),
    (Add("L2.resid_post[dog]", 2.0), lambda _: [(RESID, plus((EVERY, LATER), 2 * VECTOR))]),
    (
        Ablate("L2.resid_post[dog]"),
        lambda a: [(RESID, set_coefficient_to(a.mean(RESID) @ VECTOR / VECTOR.dot(VECTOR)))],
    ),
    (Knockout("L2.H1", "zero"), lambda _: [(PATTERN, put((EVERY, 1, LATER), 0.0))]),
    (
        Knockout("{L2.H0[-1<-2], L2.H0[-1<-3], L2.H1[*<-2]}", "zero"),
        lambda _: [
            (PATTERN, put((EVERY, 0, -1, [2, 3]), 0.0)),
            (PATTERN, put((EVERY, 1, EVERY, 2), 0.0)),
        ],
    ),
    (
        Knockout("L2.H1[3:7<-1:3] | L2.H[2:4][-2:-1<-*]", "zero"),
        lambda _: [
            (PATTERN, put((EVERY, 1, slice(3, 7), slice(1, 3)), 0.0)),
            (PATTERN, put((EVERY, slice(2, 4), -2), 0.0)),
        ],
    ),
    (
        Knockout("{L2.H1[3:6<-0:3], L2.H3[4<-*]}", "contrast"),
        lambda a: [
            (
                PATTERN,
                put((EVERY, 1, slice(3, 6), slice(0, 3)), a.patterns([(2, 1)])[2, 1][3:6, 0:3]),
            ),
            (PATTERN, put((EVERY, 3, 4, slice(0, 6)), a.patterns([(2, 3)])[2, 3][4])),
        ],
    ),
]


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize(
    ("intervention", "by_hand"), BY_HAND, ids=[repr(i)[:48] for i, _ in BY_HAND]
)
def test_an_operation_is_the_hook_written_by_hand(
    name: str, intervention: Intervention, by_hand: Callable[[Around], HooksByHand]
) -> None:
    same(name, stepped(name, intervention), run(name, by_hand(Around(name))))


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
def test_knockout_is_a_score_of_minus_infinity(name: str) -> None:
    """TransformerLens applies edited scores where it computes attention itself."""

    def scores(x: Tensor, hook: object) -> Tensor:
        x = x.clone()
        x[:, 1, -1, [2, 3]] = -torch.inf
        x[:, 3, 4:, 1] = -torch.inf
        return x

    gone = Knockout(
        "{L2.H1[-1<-2], L2.H1[-1<-3], L2.H3[4<-1], L2.H3[5<-1], L2.H3[6<-1], L2.H3[7<-1]}"
    )
    expected = run(name, [("blocks.2.attn.hook_attn_scores", scores)])
    same(name, stepped(name, gone), expected)


@pytest.mark.parametrize("name", ["native", "llama"])
def test_a_row_without_sources_reads_nothing(name: str) -> None:
    expected = run(name, [(PATTERN, put((EVERY, 1, LATER), 0.0))])
    same(name, stepped(name, Knockout("L2.H1")), expected)


def test_the_first_position_is_left_alone_only_when_it_is_a_beginning() -> None:
    expected = run("llama", [(POST, put((EVERY, EVERY, 5), 8.0))])
    same("llama", stepped("llama", Clamp("L2.N5", 8.0), has_bos=False), expected)


def test_later_interventions_see_the_result_of_earlier_ones() -> None:
    clamp, scale, add = Clamp("L2.N5", 4.0), Scale("L2.N5", 3.0), Add("L2.N5", 1.0)
    assert torch.equal(stepped("llama", clamp, scale, add), stepped("llama", Clamp("L2.N5", 13.0)))
    assert torch.equal(stepped("llama", add, scale, clamp), stepped("llama", clamp))


def test_muted_interventions_have_no_steps() -> None:
    assert not compile_stack(
        [Clamp("L2.N5", 4.0, muted=True), Cut("L1.H1->L2.mlp", muted=True)],
        anatomy_of("llama"),
        Around("llama"),
    )


@pytest.mark.parametrize("part", ["k", "v"])
def test_heads_that_share_keys_and_values_change_together(part: str) -> None:
    hook = f"blocks.2.attn.hook_{part}"
    expected = run("llama", [(hook, times((EVERY, LATER, 1), 3.0))])
    for sites in (f"L2.H3:{part}", f"{{L2.H2:{part}, L2.H3:{part}}}"):
        same("llama", stepped("llama", Scale(sites, 3.0)), expected)


# ------------------------------------------------------- against the plain Hugging Face model


@cache
def plain_of(name: str) -> Any:
    return tiny.hugging_face(name)


def plain_run(name: str, hooks: Sequence[tuple[torch.nn.Module, str, Any]]) -> Tensor:
    """Logits of the plain model under PyTorch's own forward hooks."""
    with pytorch_hooks(hooks), torch.no_grad():
        logits: Tensor = plain_of(name)(IDS[None]).logits
    return logits[0]


@contextmanager
def pytorch_hooks(hooks: Sequence[tuple[torch.nn.Module, str, Any]]) -> Iterator[None]:
    handles = [
        module.register_forward_pre_hook(hook)
        if when == "in"
        else module.register_forward_hook(hook)
        for module, when, hook in hooks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(
    ("intervention", "new"),
    [
        (Clamp("L2.N5:act@all", 2.0), lambda _act: 2.0),
        (Scale("L2.N5:act@all", -3.0), lambda act: -3.0 * act),
        (Add("L2.N5:act@all", 3.0), lambda act: act + 3.0),
        (Ablate("L2.N5:act@all", "zero"), lambda _act: 0.0),
    ],
    ids=str,
)
def test_the_value_after_a_gates_nonlinearity_is_set_by_way_of_what_it_is_multiplied_with(
    intervention: Intervention, new: Callable[[Tensor], Any]
) -> None:
    mlp = plain_of("llama").model.layers[2].mlp
    kept: dict[str, Tensor] = {}

    def down(_module: object, inputs: tuple[Tensor]) -> tuple[Tensor]:
        post = inputs[0].clone()
        post[..., 5] = new(mlp.act_fn(kept["gate"][..., 5])) * kept["up"][..., 5]
        return (post,)

    expected = plain_run(
        "llama",
        [
            (mlp.gate_proj, "out", lambda _m, _i, out: kept.update(gate=out)),
            (mlp.up_proj, "out", lambda _m, _i, out: kept.update(up=out)),
            (mlp.down_proj, "in", down),
        ],
    )
    same("llama", stepped("llama", intervention), expected)


@pytest.mark.parametrize("how", ["resample", "patch"])
def test_the_value_after_the_nonlinearity_comes_from_another_run(how: str) -> None:
    around = Around("llama")
    gate, up = "blocks.2.mlp.gate.hook_out", values("llama", "blocks.2.mlp.in.hook_out", IDS)
    if how == "patch":
        intervention: Intervention = Patch("L2.N5:act@0:5")
        act = torch.nn.functional.silu(around.patch("", gate)[:5, 5])
        rows = slice(5)
    else:
        intervention = Ablate("L2.N5:act", "resample", 1)
        act = torch.nn.functional.silu(around.resample(gate, 1)[5])
        rows = LATER
    expected = run("llama", [(POST, put((EVERY, rows, 5), act * up[rows, 5]))])
    same("llama", stepped("llama", intervention), expected)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "bert", "native"])
def test_an_edit_of_resid_mid_is_one_of_the_residual_stream(name: str) -> None:
    """Adding to it is adding to what the attention writes there (in BERT, after its norm)."""
    where = "blocks.1.ln1.hook_out" if name == "bert" else "blocks.1.hook_attn_out"
    expected = run(name, [(where, plus((EVERY, LATER), 2 * VECTOR))])
    same(name, stepped(name, Add("L1.resid_mid", 2.0, VECTOR)), expected)
    same(name, stepped(name, Add("L1.resid_mid[dog]", 2.0)), expected)


def test_the_middle_of_a_layer_is_edited_before_its_end_wherever_it_stands_in_the_list() -> None:
    mid, end = Add("L2.resid_mid", 2.0, VECTOR), Clamp("L2.resid_post[dog]", 1.0)
    by_hand: HooksByHand = [
        (ATTN, plus((EVERY, LATER), 2 * VECTOR)),
        (RESID, set_coefficient(torch.ones_like)),
    ]
    same("llama", stepped("llama", mid, end), run("llama", by_hand))
    assert torch.equal(stepped("llama", mid, end), stepped("llama", end, mid))


@dataclass
class Path:
    """How a plain model reads and writes its residual stream, for cutting edges by hand."""

    name: str
    kept: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = plain_of(self.name)
        match self.name:
            case "llama":
                self.blocks, self.final = model.model.layers, model.model.norm
                self.embed = model.model.embed_tokens
            case "gpt2":
                self.blocks, self.final = model.transformer.h, model.transformer.ln_f
                self.embed = model.transformer.wte
            case "neox":
                self.blocks, self.final = model.gpt_neox.layers, model.gpt_neox.final_layer_norm
                self.embed = model.gpt_neox.embed_in

    def attn_out(self, layer: int) -> torch.nn.Module:
        block = self.blocks[layer]
        module: torch.nn.Module = {
            "llama": lambda: block.self_attn.o_proj,
            "gpt2": lambda: block.attn.c_proj,
            "neox": lambda: block.attention.dense,
        }[self.name]()
        return module

    def mlp_out(self, layer: int) -> torch.nn.Module:
        mlp = self.blocks[layer].mlp
        module: torch.nn.Module = {
            "llama": lambda: mlp.down_proj,
            "gpt2": lambda: mlp.c_proj,
            "neox": lambda: mlp.dense_4h_to_h,
        }[self.name]()
        return module

    def norm(self, layer: int, which: str) -> torch.nn.Module:
        first = {"gpt2": "ln_1"}.get(self.name, "input_layernorm")
        second = {"gpt2": "ln_2"}.get(self.name, "post_attention_layernorm")
        module: torch.nn.Module = getattr(self.blocks[layer], first if which == "attn" else second)
        return module

    def matrix(self, module: Any) -> Tensor:
        weight: Tensor = module.weight
        return weight if self.name == "gpt2" else weight.T

    def written(self, source: str, inputs: Tensor) -> Tensor:
        """What a source writes, from its output projection's input (or its own output)."""
        site = Site.parse(source)
        index, layer = site.index or 0, site.layer or 0
        if site.kind == "head":
            W = self.matrix(self.attn_out(layer))
            part = slice(index * D_HEAD, (index + 1) * D_HEAD)
            return inputs[..., part] @ W[part]
        if site.kind == "neuron":
            return inputs[..., [index]] * self.matrix(self.mlp_out(layer))[index]
        return inputs

    def read(self, source: str) -> tuple[torch.nn.Module, str, Any]:
        site = Site.parse(source)
        layer = site.layer or 0

        def keep_in(_module: object, inputs: tuple[Tensor]) -> None:
            self.kept[source] = self.written(source, inputs[0])

        def keep_out(_module: object, _inputs: object, output: Tensor) -> None:
            self.kept[source] = output

        match site.kind:
            case "head":
                return self.attn_out(layer), "in", keep_in
            case "neuron":
                return self.mlp_out(layer), "in", keep_in
            case "mlp":
                return self.mlp_out(layer), "out", keep_out
            case _:
                return self.embed, "out", keep_out

    def without(self, resid: Tensor, sources: Sequence[str], means: dict[str, Tensor]) -> Tensor:
        for source in sources:
            resid = resid - self.kept[source] + means.get(source, 0.0)
        return resid

    def cut(
        self, sources: Sequence[str], end: str, means: dict[str, Tensor], rows: slice = EVERY
    ) -> Tensor:
        """Logits with edges into one destination cut, at some positions."""
        hooks = [self.read(source) for source in sources]
        if end == "logits" or end.endswith("mlp"):
            module = self.final if end == "logits" else self.norm(Site.parse(end).layer or 0, "mlp")

            def reads(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
                output = output.clone()
                gone = self.without(inputs[0], sources, means)
                output[:, rows] = module.forward(gone)[:, rows]
                return output

            return plain_run(self.name, [*hooks, (module, "out", reads)])
        site = Site.parse(end)
        layer, head = site.layer or 0, site.index or 0
        norm = self.norm(layer, "attn")
        linear, columns = self.columns(layer, head, site.part or "")

        def keep(_module: object, inputs: tuple[Tensor]) -> None:
            self.kept["resid"] = inputs[0]

        def project(module: Any, _inputs: object, output: Tensor) -> Tensor:
            output = output.clone()
            gone = norm.forward(self.without(self.kept["resid"], sources, means))
            output[:, rows, columns] = module.forward(gone)[:, rows, columns]
            return output

        return plain_run(self.name, [*hooks, (norm, "in", keep), (linear, "out", project)])

    def columns(self, layer: int, head: int, part: str) -> tuple[torch.nn.Module, slice]:
        """The projection that makes a head's q, k or v, and where in its output they lie."""
        block = self.blocks[layer]
        which = "qkv".index(part)
        if self.name == "llama":
            head = head if part == "q" else head // 2  # two query heads share a key/value head
            module: torch.nn.Module = getattr(block.self_attn, f"{part}_proj")
            return module, slice(head * D_HEAD, (head + 1) * D_HEAD)
        if self.name == "gpt2":
            start = which * D + head * D_HEAD
            return block.attn.c_attn, slice(start, start + D_HEAD)
        start = (head * 3 + which) * D_HEAD
        return block.attention.query_key_value, slice(start, start + D_HEAD)

    def elsewhere(self, source: str, ids: Tensor) -> Tensor:
        """What a source writes in a plain run of other tokens, as many rows as ours has."""
        with pytorch_hooks([self.read(source)]), torch.no_grad():
            plain_of(self.name)(ids[None])
        written = self.kept[source].reshape(len(ids), D)
        return torch.cat([written, written.new_full((LENGTH - len(ids), D), torch.nan)])

    def mean(self, source: str) -> Tensor:
        """A source's mean contribution over the reference texts, by plain runs."""
        each: list[Tensor] = []
        for ids in REFERENCE:
            with pytorch_hooks([self.read(source)]), torch.no_grad():
                plain_of(self.name)(ids[None])
            each.append(self.kept[source].reshape(len(ids), D)[1:])
        return torch.cat(each).mean(0)


CUTS = [
    (["L1.H1"], "L3.H2:q"),
    (["L0.H1"], "L2.H3:k"),
    (["L1.mlp"], "L3.H0:v"),
    (["L1.mlp"], "L2.mlp"),
    (["L1.N7"], "L2.mlp"),
    (["embed"], "L2.mlp"),
    (["L3.mlp"], "logits"),
    (["L1.H1", "L0.mlp", "L1.N7"], "L3.H2:q"),
    (["L2.H0", "L1.mlp"], "logits"),
]


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize(("sources", "end"), CUTS, ids=[f"{s}->{e}" for s, e in CUTS])
@pytest.mark.parametrize("how", ["zero", "mean"])
def test_a_cut_edge_is_the_same_edit_of_the_plain_model(
    name: str, sources: list[str], end: str, how: Any
) -> None:
    path = Path(name)
    means = {source: path.mean(source) for source in sources} if how == "mean" else {}
    expected = path.cut(sources, end, means, LATER)
    edges = [f"{source}->{end}" for source in sources]
    # One by one and as one set: all of them are left out at once.
    found = stepped(name, *(Cut(edge, how=how) for edge in edges))
    same(name, found, expected)
    assert torch.equal(found, stepped(name, Cut("{" + ", ".join(edges) + "}", how=how)))


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize(("sources", "end"), CUTS, ids=[f"{s}->{e}" for s, e in CUTS])
def test_an_edge_that_carries_the_contrast_is_the_same_edit_of_the_plain_model(
    name: str, sources: list[str], end: str
) -> None:
    path = Path(name)
    others = {source: path.elsewhere(source, OTHER) for source in sources}
    expected = path.cut(sources, end, others, slice(2, len(OTHER)))
    edges = [f"{source}->{end}@2:{len(OTHER)}" for source in sources]
    found = stepped(name, *(Cut(edge, "contrast") for edge in edges))
    same(name, found, expected)
    assert torch.equal(found, stepped(name, Cut("{" + ", ".join(edges) + "}", "contrast")))


def test_edges_into_one_place_may_be_cut_in_three_ways_at_several_positions() -> None:
    path = Path("llama")
    ways = {"L1.H1": ("contrast", 2), "L0.mlp": ("mean", 7), "L1.N7": ("zero", 4)}
    other, mean = path.elsewhere("L1.H1", OTHER), path.mean("L0.mlp")
    resid_less: dict[int, Callable[[], Tensor]] = {
        2: lambda: path.kept["L1.H1"][:, 2] - other[2],
        7: lambda: path.kept["L0.mlp"][:, 7] - mean,
        4: lambda: path.kept["L1.N7"][:, 4],
    }

    def reads(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        resid, output = inputs[0].clone(), output.clone()
        for row, gone in resid_less.items():
            resid[:, row] -= gone()
            output[:, row] = module.forward(resid)[:, row]
        return output

    hooks = [*(path.read(source) for source in ways), (path.norm(3, "mlp"), "out", reads)]
    expected = plain_run("llama", hooks)
    stack = [Cut(f"{s}->L3.mlp@{row}", how) for s, (how, row) in ways.items()]  # type: ignore[arg-type] # each a way
    same("llama", stepped("llama", *stack), expected)


def test_an_edge_beyond_the_contrast_input_is_refused_and_generated_tokens_keep_their_own() -> None:
    with pytest.raises(InterventionError, match=r"L1.mlp->L2.mlp touches position 7, .* only 6"):
        stepped("llama", Cut("L1.mlp->L2.mlp", "contrast"))
    generated = stepped("llama", Cut("L1.mlp->L2.mlp@new", "contrast"))
    assert torch.equal(generated, untouched("llama"))


def test_a_cut_within_a_block_leaves_out_its_attention() -> None:
    expected = Path("llama").cut(["L2.H1"], "L2.mlp", {}, slice(3, 5))
    same("llama", stepped("llama", Cut("L2.H1->L2.mlp@3:5", how="zero")), expected)


def test_a_value_clamped_where_an_edge_ends_stays_clamped() -> None:
    cut, clamp = Cut("L0.mlp->L2.H1:q"), Clamp("L2.H1:q", [1.0] * D_HEAD)
    assert torch.equal(stepped("llama", clamp, cut), stepped("llama", clamp))
    assert torch.equal(stepped("llama", cut, clamp), stepped("llama", clamp))


def test_edges_into_a_shared_key_head_are_one() -> None:
    both = stepped("llama", Cut("{L0.mlp->L2.H2:k, L0.mlp->L2.H3:k}"))
    assert torch.equal(both, stepped("llama", Cut("L0.mlp->L2.H2:k")))


# ----------------------------------------------------------------------- rows, layers, refusals


@given(
    st.sampled_from(
        [
            Clamp("L2.N5", 8.0),
            Add("L2.H1@1,3", [1.0, 2.0], [1.0] * D_HEAD),
            Ablate("L2.mlp@-2:"),
            Patch("L2.N5@1:5"),
            Patch("L2.H1@0,3,7", at="0,1,2"),
            Knockout("L2.H1[*<-2]"),
            Knockout("{L2.H1[-1<-2], L2.H0[4<--3]}", "zero"),
            Knockout("L2.H*[2:-1<-1:4]", "zero"),
            Knockout("L2.H1[2:6<-1:4]", "contrast"),
            Clamp("L2.resid_post[dog]@new,3", 2.0),
        ]
    ),
    st.integers(0, LENGTH + 1),
)
@settings(deadline=None, max_examples=60)
def test_a_step_on_the_last_rows_is_the_end_of_the_step_on_all(
    intervention: Intervention, start: int
) -> None:
    """What a key/value cache needs: rows at any start, the newest ones generated."""
    total = LENGTH + 2
    (step,) = compile_intervention(intervention, anatomy_of("llama"), Around("llama"))
    generator = torch.Generator().manual_seed(0)
    if isinstance(intervention, Knockout):
        x = torch.rand((2, 4, total, total), generator=generator).tril()
        x, part = (
            x / x.sum(-1, keepdim=True),
            x[:, :, start:] / x[:, :, start:].sum(-1, keepdim=True),
        )
    else:
        shape = {"mlp.out": (48,), "attn.o.": (4, D_HEAD)}
        last = next((size for key, size in shape.items() if key in step.hook), (D,))
        x = torch.randn((2, total, *last), generator=generator)
        part = x[:, start:]
    whole = step.apply(x, Frame(0, LENGTH, has_bos=True))
    some = step.apply(part, Frame(start, LENGTH, has_bos=True))
    assert whole is not None
    expected = whole[:, :, start:] if isinstance(intervention, Knockout) else whole[:, start:]
    # A direction's coefficient is a dot product, which rounds differently in other shapes.
    torch.testing.assert_close(part if some is None else some, expected, rtol=1e-6, atol=1e-6)


def test_which_layers_and_positions_are_touched() -> None:
    anatomy = anatomy_of("llama")
    cases: list[tuple[Intervention, tuple[int, ...], int | None]] = [
        (Clamp("L2.N5", 1.0), (2,), 1),
        (Clamp("L2.N5@all", 1.0), (2,), 0),
        (Clamp("L2.N5@-1", 1.0), (2,), 7),
        (Clamp("L2.N5@new", 1.0), (2,), None),
        (Ablate("L[1:3].N* | {embed@3}"), (-1, 1, 2), 1),
        (Knockout("L1.H2[5<-3]"), (1,), 5),
        (Knockout("L1.H2[*<-3]"), (1,), 3),
        (Knockout("L1.H2[*<-*]"), (1,), 0),
        (Knockout("L1.H2[2:8<-3:5]"), (1,), 3),
        (Knockout("L[1:3].H*[5:7<-3]"), (1, 2), 5),
        (Cut("L1.H2->L3.mlp@4"), (1, 3), 4),
        (Cut("embed->logits"), (-1, 4), 1),
    ]
    for intervention, layers, position in cases:
        assert touched_layers(intervention, anatomy) == layers
        assert first_layer(intervention, anatomy) == max(layers[0], 0)
        assert first_position(intervention, LENGTH, True) == position


def test_a_step_that_touches_nothing_returns_nothing() -> None:
    (step,) = compile_intervention(Clamp("L2.N5@new", 1.0), anatomy_of("llama"), Around("llama"))
    assert step.apply(torch.zeros(1, LENGTH, 48), Frame(0, LENGTH, has_bos=True)) is None


REFUSED: list[tuple[str, Intervention, str]] = [
    ("gemma3", Cut("L0.mlp->L2.mlp"), "cannot be cut"),
    ("bert", Cut("L0.mlp->L2.mlp"), "cannot be cut"),
    ("llama", Cut("{L0.mlp->L2.mlp, L0.N3->L2.mlp}"), "cut the same thing twice"),
    ("llama", Ablate("L2.N5:act"), "has no reference mean"),
    ("llama", Clamp("L2.mlp", [1.0, 2.0]), "has 2 numbers, but L2.mlp is a vector of 32"),
    ("llama", Add("L2.H1", 1.0, [1.0] * 32), "L2.H1 is a vector of 8"),
    ("llama", Add("L2.N5@0:5", [1.0, 2.0]), "touches 5 prompt positions"),
    ("gpt2", Clamp("L2.N5:gate", 1.0), "The nearest is L2.N5:pre"),
    ("llama", Clamp("L2.N5@9", 1.0), "the prompt has 8 tokens"),
    ("llama", Clamp("_blocks.7:c3", 1.0), "a channel of a module"),
]


@pytest.mark.parametrize(("name", "intervention", "sentence"), REFUSED, ids=str)
def test_what_a_model_cannot_do_is_refused_beforehand(
    name: str, intervention: Intervention, sentence: str
) -> None:
    with pytest.raises(PatchclampError) as error:
        check_intervention(intervention, anatomy_of(name), LENGTH, has_bos=True)
    assert sentence in str(error.value)


def test_knockout_is_refused_where_no_pattern_can_be_edited() -> None:
    fused = replace(anatomy_of("opt"), pattern=False)
    with pytest.raises(InterventionError, match="would do nothing"):
        check_intervention(Knockout("L1.H2"), fused, LENGTH, has_bos=True)


@pytest.mark.parametrize(
    ("intervention", "sentence"),
    [
        (Patch("L2.N5"), "has only 6 positions"),
        (Patch("L2.N5@0:3", at="0,1"), "names 2 positions, but L2.N5@0:3 touches 3"),
        (Patch("L2.N5@0", at="9"), "in the run to patch from, position 9 is out of range"),
        (Knockout("L2.H1[5:7<-2]", "contrast"), "the contrast input has only 6 positions"),
        (Clamp("L2.mlp[short]", 1.0), "has the shape (3,)"),
        (Clamp("L2.mlp[none]", 1.0), "no finite length above zero"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_met(
    intervention: Intervention, sentence: str
) -> None:
    with pytest.raises(InterventionError) as error:
        stepped("llama", intervention)
    assert sentence in str(error.value)


def test_frames_count_rows_from_their_start() -> None:
    assert Frame(5, LENGTH, has_bos=True).rows(5, Positions.parse("6,new")) == [1, 3, 4]
