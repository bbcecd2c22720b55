"""The anatomy of many architectures: what it names is there, fires, and matters."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from patchclamp.errors import AddressError, ModelError
from patchclamp.models.anatomy import Anatomy
from patchclamp.models.language_model import LanguageModel
from patchclamp.sites import COMPONENTS, Site, SiteSet
from tests.unit import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

_SIZES: dict[str, Any] = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
_WIDE: dict[str, Any] = {**_SIZES, "intermediate_size": 48, "initializer_range": 0.3}

HUGGING_FACE: dict[str, Callable[[], Any]] = {
    "gemma2": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(num_key_value_heads=2, head_dim=8, **_WIDE)
    ),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(ffn_dim=48, word_embed_proj_dim=32, init_std=0.3, **_SIZES)
    ),
    "qwen3": lambda: hf.Qwen3ForCausalLM(
        hf.Qwen3Config(num_key_value_heads=2, head_dim=8, **_WIDE)
    ),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**_WIDE)),
}


def fused() -> Anatomy:
    """Of a model whose attention is not computed by whatever function is named."""
    model = hf.OPTForCausalLM(
        hf.OPTConfig(ffn_dim=48, word_embed_proj_dim=32, init_std=0.3, **_SIZES)
    )
    model._supports_attention_backend = False
    return LanguageModel(model, None).anatomy


NATIVE: dict[str, dict[str, Any]] = {
    "native-gated": {
        "gated_mlp": True,
        "act_fn": "silu",
        "normalization_type": "RMS",
        "n_key_value_heads": 2,
        "positional_embedding_type": "rotary",
    },
    "native-attention-only": {"attn_only": True},
    "native-solu": {"act_fn": "solu_ln", "normalization_type": None},
    "native-bidirectional": {"attention_dir": "bidirectional"},
}
TINY = ["native", "gpt2", "llama", "neox", "gemma", "gemma3", "bert"]
ALL = [*TINY, *HUGGING_FACE, *NATIVE]


@cache
def bridge_of(name: str) -> Any:
    if name in TINY:
        return tiny.fresh_bridge(name)
    torch.manual_seed(5)
    if name in HUGGING_FACE:
        model = HUGGING_FACE[name]().eval()
        kind = type(model).__name__
        model.config.architectures = [kind]
        return build_bridge_from_module(
            model, architecture=kind, hf_config=model.config, tokenizer=None
        )
    config: dict[str, Any] = {"act_fn": "gelu", "normalization_type": "LN", **NATIVE[name]}
    bridge: Any = TransformerBridge  # boot_native is attached when the package is imported
    return bridge.boot_native(
        TransformerBridgeConfig(
            n_layers=2, d_model=32, n_heads=4, d_head=8, d_mlp=48, d_vocab=tiny.VOCAB, n_ctx=32,
            init_mode="gpt2", initializer_range=0.3, seed=3, **config,
        )
    )  # fmt: skip


@cache
def anatomy_of(name: str) -> Anatomy:
    return Anatomy.of(bridge_of(name))


def run(bridge: Any, hooks: list[Any]) -> torch.Tensor:
    shown = any(name.endswith("hook_pattern") for name, _ in hooks)
    with torch.no_grad(), tiny.shown_patterns(bridge) if shown else nullcontext():
        logits: torch.Tensor = bridge.run_with_hooks(tiny.ids(8)[None], fwd_hooks=hooks)
    return logits


def sites_of(anatomy: Anatomy) -> list[Site]:
    """One site of every kind that the anatomy says layer 1 has."""
    found = [Site("embed")]
    for key in anatomy.hooks[1]:
        kind, _, part = key.partition(":")
        if kind == "cell":
            found.append(Site("cell", 1, 2, cell=(5, 3)))
        elif part:
            found.append(Site(kind, 1, 2, part))  # type: ignore[arg-type]
        elif kind in COMPONENTS:
            found.append(Site(kind, 1))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("name", ALL)
def test_every_site_has_a_hook_point_that_fires_once_and_changes_the_output(name: str) -> None:
    bridge, anatomy = bridge_of(name), anatomy_of(name)
    before = run(bridge, [])
    assert len(sites_of(anatomy)) >= 7
    for site in sites_of(anatomy):
        fired: list[tuple[int, ...]] = []

        def edit(x: torch.Tensor, hook: object, fired: list[Any] = fired) -> torch.Tensor:
            fired.append(tuple(x.shape))
            return x * torch.linspace(0.5, 1.5, x.numel()).reshape(x.shape)

        after = run(bridge, [(anatomy.hook(site), edit)])
        assert len(fired) == 1, site
        effect = (after - before).abs().max() / before.abs().max()
        assert effect > 1e-3, (str(site), float(effect))
        width = fired[0][-1]
        if site.kind == "neuron":
            assert width == anatomy.n_neurons(1)
        elif site.kind == "cell":
            assert fired[0] == (1, anatomy.n_heads, 8, 8)
        else:
            assert width == anatomy.width(site)
        if site.kind == "head":
            heads = anatomy.n_kv_heads if site.part in {"k", "v"} else anatomy.n_heads
            assert fired[0] == (1, 8, heads, anatomy.d_head)


@pytest.mark.parametrize("name", ALL)
def test_the_readable_name_is_the_same_hook_point(name: str) -> None:
    bridge, anatomy = bridge_of(name), anatomy_of(name)
    for site in sites_of(anatomy):
        canonical, alias = anatomy.hook(site), anatomy.alias(site)
        assert bridge.hook_dict[alias] is bridge.hook_dict[canonical], (canonical, alias)


def test_sizes_are_the_models_own() -> None:
    llama = anatomy_of("llama")
    assert (llama.n_layers, llama.n_heads, llama.n_kv_heads, llama.d_head) == (4, 4, 2, 8)
    assert (llama.d_model, llama.d_mlp, llama.d_vocab, llama.n_ctx) == (32, 48, tiny.VOCAB, 64)
    assert [llama.kv_head(head) for head in range(4)] == [0, 0, 1, 1]
    # TransformerLens' config says 4 x 32 here; the weights say otherwise.
    assert anatomy_of("opt").d_mlp == 48


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("gated", {"llama", "gemma", "gemma2", "gemma3", "qwen3", "native-gated"}),
        ("parallel", {"neox", "phi"}),
        ("post_norms", {"gemma2", "gemma3", "bert"}),
        ("attn_only", {"native-attention-only"}),
        ("causal", set(ALL) - {"bert", "native-bidirectional"}),
        ("pattern", set(ALL)),
        ("delegated", {"bert", "opt"}),
        ("additive", set(ALL) - {"bert", "gemma2", "gemma3"}),
    ],
)
def test_what_kind_of_model_it_is(flag: str, names: set[str]) -> None:
    assert {name for name in ALL if getattr(anatomy_of(name), flag)} == names


@pytest.mark.parametrize("name", sorted(set(ALL) - {"bert", "gemma2", "gemma3", "gpt2", "opt"}))
def test_additive_means_that_the_residual_stream_is_a_sum(name: str) -> None:
    bridge, anatomy = bridge_of(name), anatomy_of(name)
    kept: dict[str, torch.Tensor] = {}
    kinds = [
        kind for kind in ("resid_pre", "attn", "mlp", "resid_post") if kind in anatomy.hooks[1]
    ]

    def keep(x: torch.Tensor, hook: Any) -> None:
        kept[hook.name] = x

    names = {kind: anatomy.hooks[1][kind] for kind in kinds}
    run(bridge, [(hook, keep) for hook in names.values()])
    parts = [kept[names[kind]] for kind in kinds if kind != "resid_post"]
    after = kept[names["resid_post"]]
    assert (sum(parts) - after).abs().max() < 1e-5 * after.abs().max()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("llama", "L4.N1", "the model has 4 layers, L0 to L3. The nearest is L3.N1."),
        ("llama", "L3.N48", "layer 3 has 48 neurons, L3.N0 to L3.N47"),
        ("llama", "L3.H4", "layer 3 has 4 heads, L3.H0 to L3.H3"),
        ("llama", "L3.N1:pre", "The nearest is L3.N1:gate."),
        ("gpt2", "L3.N1:gate", "The nearest is L3.N1:pre."),
        ("gpt2", "L3.N1:act", "The nearest is L3.N1."),
        ("neox", "L3.resid_mid", "The nearest are L3.resid_pre and L3.resid_post."),
        ("native-attention-only", "L1.N1", "has no MLP"),
        ("native-attention-only", "L1.mlp", "It has L1.H0 to L1.H3, L1.attn"),
        ("llama", "L1.H2[2:4<-5:7]", "Did you mean L1.H2[5:7<-2:4]?"),
        ("llama", "L[1:3].H*[2<-5]", "Did you mean L1.H0[5<-2]?"),
        ("llama", "L[1:9].H*[5<-2]", "layer 8 does not exist"),
        ("llama", "L1.H[2:6][5<-2]", "layer 1 has 4 heads"),
        ("llama", "L1.H2[3<-5]", "Did you mean L1.H2[5<-3]?"),
        ("llama", "L2.H1->L1.mlp", "from an earlier component to a later one"),
        ("llama", "L2.mlp->L2.H1:q", "from an earlier component to a later one"),
        ("neox", "L2.H1->L2.mlp", "side by side"),
        ("llama", "L1.H1->L2.H9:q", "layer 2 has 4 heads"),
        ("llama", "L[2:9].N*", "layer 8 does not exist"),
        ("llama", "L1.N[0:99]", "neuron 98 does not exist"),
        ("llama", "{L1.N1, L1.N99}", "neuron 99 does not exist"),
        ("llama", "_blocks.7:c3", "a channel of a module"),
        ("llama", "h[83]", "a variable of a stepped model"),
        ("llama", "L1.snmf.F42", "a feature of a basis"),
        ("llama", "L9.resid_post[dog]", "layer 9 does not exist"),
    ],
)
def test_a_wrong_address_says_what_exists(name: str, text: str, sentence: str) -> None:
    with pytest.raises(AddressError) as error:
        anatomy_of(name).parse(text)
    assert sentence in str(error.value)


def test_a_pattern_that_cannot_be_reached_is_no_site() -> None:
    anatomy = fused()
    assert not anatomy.pattern
    with pytest.raises(AddressError, match="has no separate pattern"):
        anatomy.parse("L1.H2[5<-3]")


def test_right_addresses_pass() -> None:
    for text in [
        "L3.N47:act@-1",
        "L1.H0->L1.mlp",
        "embed->logits",
        "L0.mlp[dog]",
        "L*.N*",
        "embed",
        "L[1:3].H*[7<-2]",
        "L1.H2[2:6<-5]",
        "L1.H2[-3:-1<-0:4]",
    ]:
        anatomy_of("llama").parse(text)
    anatomy_of("native-bidirectional").parse("L1.H2[3<-5]")


def test_positions_are_checked_against_the_prompt() -> None:
    anatomy = anatomy_of("llama")
    for text in ["L1.N1@8", "L1.H2[8<-1]", "L1.H2[-1<-8]", "L1.N*@-9", "{L1.N1, L1.N2@8}"]:
        with pytest.raises(AddressError, match="out of range: the prompt has 8 tokens"):
            anatomy.check(SiteSet.parse(text), 8)
    anatomy.check(Site.parse("L1.N1@-8,7"), 8)
    with pytest.raises(AddressError, match="positions 8:10 select nothing"):
        anatomy.check(SiteSet.parse("L*.H1[8:10<-1]"), 8)
    with pytest.raises(AddressError, match="position 2 reads only itself and earlier ones"):
        anatomy.check(Site.parse("L1.H2[0:3<--2]"), 8)
    anatomy.check(Site.parse("L1.H2[0:3<--6]"), 8)


def test_sets_expand_to_what_the_model_has() -> None:
    assert len(anatomy_of("llama").expand(SiteSet.parse("L[1:3].N* | L3.H*"))) == 2 * 48 + 4


@pytest.mark.parametrize(
    ("prefix", "first"),
    [
        ("", ["L0.", "L1.", "L2.", "L3.", "embed"]),
        ("L3.r", ["L3.resid_pre", "L3.resid_mid", "L3.resid_post"]),
        ("L3.N4", ["L3.N4", "L3.N40", "L3.N41"]),
        ("L3.H", ["L3.H0", "L3.H1", "L3.H2", "L3.H3"]),
        ("L3.N4:", ["L3.N4:post", "L3.N4:gate", "L3.N4:act", "L3.N4:up"]),
        ("L3.N4@", ["L3.N4@-1", "L3.N4@all"]),
        ("l3.n47", ["L3.N47"]),
        ("3.h2", ["L3.H2"]),
        ("L3.rsid_post", ["L3.resid_post"]),
        ("L3.H2[", ["L3.H2[-1<-0]"]),
        ("L3.H2[7:9<-2:", []),
        ("L3.H2[7:9<-", ["L3.H2[7:9<-0]", "L3.H2[7:9<-*]"]),
        ("L3.H9[", []),
        ("L9.", []),
        ("nonsense", []),
    ],
)
def test_completion(prefix: str, first: list[str]) -> None:
    found = anatomy_of("llama").complete(prefix)
    assert found[: len(first)] == first
    assert bool(found) is bool(first)


def test_completion_completes_to_addresses_and_no_more_than_asked() -> None:
    anatomy = anatomy_of("gpt2")
    for prefix in ["L1.", "L1.N", "L1.H2:", "L1.H2[", "L1.H2[5", "L1.mlp@", "e"]:
        found = anatomy.complete(prefix, 7)
        assert 0 < len(found) <= 7
        for address in found:
            anatomy.parse(address)


def test_what_is_no_transformer_is_refused() -> None:
    with pytest.raises(ModelError, match="has no blocks"):
        Anatomy.of(torch.nn.Linear(2, 2))
