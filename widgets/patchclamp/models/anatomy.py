"""What a language model is made of: which sites it has, and where TransformerLens keeps them.

`Anatomy.of(bridge)` reads sizes and hook-point names off a TransformerBridge's own components and
aliases; it runs nothing and touches no hook. The names it gives are canonical hook points that
fire in a forward pass (`blocks.12.mlp.out.hook_in`), where TransformerLens' alias
(`blocks.12.mlp.hook_post`) is only another name for one.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from patchclamp.errors import AddressError, ModelError
from patchclamp.sites import (
    COMPONENTS,
    HEAD_PARTS,
    NEURON_PARTS,
    End,
    Pattern,
    Site,
    SiteSet,
    end_positions,
    parse_site,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from torch import nn

# What TransformerLens calls a value, for people who know its names.
_READABLE: Mapping[str, str] = MappingProxyType(
    {
        "neuron:post": "mlp.hook_post",
        "neuron:act": "mlp.hook_post",
        "neuron:pre": "mlp.hook_pre",
        "neuron:gate": "mlp.hook_pre",
        "neuron:up": "mlp.hook_pre_linear",
        "head:z": "attn.hook_z",
        "head:q": "attn.hook_q",
        "head:k": "attn.hook_k",
        "head:v": "attn.hook_v",
        "cell": "attn.hook_pattern",
        "mlp": "hook_mlp_out",
        "attn": "hook_attn_out",
        "resid_pre": "hook_resid_pre",
        "resid_mid": "hook_resid_mid",
        "resid_post": "hook_resid_post",
    }
)


@dataclass(frozen=True)
class Anatomy:
    """Sizes and parts of a language model.

    Attributes:
        n_layers: Blocks.
        n_heads: Query heads of a block.
        n_kv_heads: Key/value heads of a block; `n_heads / n_kv_heads` query heads share one.
        d_model: Width of the residual stream.
        d_mlp: Neurons of an MLP (of the largest one where layers differ; `n_neurons(layer)`).
        d_head: Width of a head.
        d_vocab: Tokens in the vocabulary.
        n_ctx: Most tokens the model takes.
        gated: Whether a neuron is act(gate) * up.
        parallel: Whether attention and MLP read the same residual stream side by side.
        post_norms: Whether a norm comes between a component's output and the residual stream
            (Gemma 2 and 3), or the residual stream itself is normed (BERT).
        causal: Whether a position sees only itself and earlier ones.
        attn_only: Whether the blocks have no MLP.
        pattern: Whether an attention pattern can be read and edited.
        delegated: Whether that is only so because the engine's copy of the model computes attention
            by a function of patchclamp's: TransformerLens leaves it to the original code (OPT,
            BERT), which shows no pattern, or shows it when it has been used already.
        additive: Whether the residual stream is the plain sum of the components' outputs.
        hooks: For each layer, hook-point name by value (`"neuron:post"`, `"resid_mid"`, ...).
        neurons: Number of neurons of each layer.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_mlp: int
    d_head: int
    d_vocab: int
    n_ctx: int
    gated: bool
    parallel: bool
    post_norms: bool
    causal: bool
    attn_only: bool
    pattern: bool
    additive: bool
    hooks: tuple[Mapping[str, str], ...]
    neurons: tuple[int, ...]
    #: Whether the residual stream is normed itself, after attention and after the MLP (BERT).
    post_ln: bool = False
    delegated: bool = False

    @classmethod
    def of(cls, bridge: Any) -> Anatomy:
        """The anatomy of a TransformerBridge.

        Raises:
            ModelError: when it is not a transformer of blocks with attention.
        """
        blocks = list(getattr(bridge, "blocks", None) or ())
        if not blocks:
            raise ModelError(
                f"{type(bridge).__name__} has no blocks; a language model here is a "
                "TransformerLens TransformerBridge."
            )
        config = bridge.cfg
        names = frozenset(bridge.hook_dict)
        post_ln = _is_post_ln(blocks[0])
        tables = tuple(
            MappingProxyType(
                _layer_hooks(
                    block,
                    layer,
                    names,
                    post_ln=post_ln,
                    pattern=_edits_pattern(block) or _delegates(block, bridge),
                )
            )
            for layer, block in enumerate(blocks)
        )
        neurons = tuple(_n_neurons(block) for block in blocks)
        gated = any("neuron:gate" in table for table in tables)
        source_config = getattr(getattr(bridge, "original_model", None), "config", None)
        post_norms = post_ln or any(hasattr(block, "ln1_post") for block in blocks)
        scaled = getattr(source_config, "residual_multiplier", 1.0) not in (None, 1.0)
        return cls(
            n_layers=len(blocks),
            n_heads=int(config.n_heads),
            n_kv_heads=int(config.n_key_value_heads or config.n_heads),
            d_model=int(config.d_model),
            d_mlp=max(neurons),
            d_head=int(config.d_head),
            d_vocab=int(config.d_vocab),
            n_ctx=int(config.n_ctx),
            gated=gated,
            parallel=bool(getattr(config, "parallel_attn_mlp", False))
            or type(blocks[0]).__name__.startswith("Parallel"),
            post_norms=post_norms,
            causal=getattr(config, "attention_dir", "causal") == "causal",
            attn_only=not any("mlp" in table for table in tables),
            pattern=all("cell" in table for table in tables),
            delegated=any(_delegates(block, bridge) for block in blocks),
            additive=not post_norms and not scaled,
            hooks=tables,
            neurons=neurons,
            post_ln=post_ln,
        )

    # ------------------------------------------------------------------------------ the sizes

    def n_neurons(self, layer: int) -> int:
        """Number of MLP neurons of a layer; 0 where it has none that can be addressed."""
        return self.neurons[layer]

    def has_ln2(self, layer: int) -> bool:
        """Whether the MLP has a norm of its own (GPT-J and Phi share one with attention)."""
        return "ln2" in self.hooks[layer]

    def kv_head(self, head: int) -> int:
        """The key/value head that a query head uses."""
        return head * self.n_kv_heads // self.n_heads

    def width(self, site: Site) -> int:
        """Number of coordinates of a site's value; 1 for a neuron or a direction."""
        if site.kind == "head":
            return self.d_head
        if site.kind == "logits":
            return self.d_vocab
        return self.d_model if site.kind in {*COMPONENTS, "embed"} else 1

    # ------------------------------------------------------------------------------ the hooks

    def hook(self, site: Site) -> str:
        """The canonical hook point at which a site's value is read and edited.

        A neuron's `:act` is edited where `:post` is (post = act * up). An edge's is where its
        destination reads.

        Raises:
            AddressError: when the model has no such site.
        """
        self.check(site)
        match site.kind:
            case "embed":
                return "embed.hook_out"
            case "logits":
                return "unembed.hook_out"
            case "edge":
                return self._edge_hook(site)
            case "direction":
                return self.hook(self.home(site))
            case _:
                return self.hooks[site.layer or 0][_key(site)]

    def _edge_hook(self, site: Site) -> str:
        end = site.destination
        if end.kind == "logits":
            return "ln_final.hook_out"
        if end.kind == "mlp":
            return f"blocks.{end.layer}.mlp.hook_in"
        return self.hook(end)

    def alias(self, site: Site) -> str:
        """The name under which TransformerLens users know the hook point."""
        hook = self.hook(site)
        if site.kind == "direction":
            return self.alias(self.home(site))
        if site.kind in {"edge", "embed", "logits"}:
            return hook
        key = _key(site)
        # BERT's alias resid_mid names another value than the residual stream.
        if key == "resid_mid" and self.post_ln:
            return hook
        return f"blocks.{site.layer}.{_READABLE[key]}"

    def home(self, site: Site) -> Site:
        """The component that a named direction lives in, at its positions."""
        if site.kind != "direction" or site.component is None:
            return site
        kind = "embed" if site.component == "embed" else site.component
        return Site(kind, site.layer, positions=site.positions)  # type: ignore[arg-type]

    # -------------------------------------------------------------------------- what there is

    def check(self, site: Site | SiteSet, n_positions: int | None = None) -> None:
        """Say when the model has no such site, or the prompt no such position.

        Args:
            site: A site or a set of sites.
            n_positions: Number of prompt tokens; None leaves positions unchecked.

        Raises:
            AddressError: a sentence saying what exists and what is nearest.
        """
        if isinstance(site, SiteSet):
            for written in site.written:
                if isinstance(written, Pattern):
                    self._check_pattern(written)
                    _check_positions(written, n_positions)
                else:
                    self.check(written, n_positions)
            return
        self._check_site(site)
        _check_positions(site, n_positions)
        if self.causal and n_positions is not None:
            self._check_diagonal(site, n_positions)

    def expand(self, sites: SiteSet | Site) -> list[Site]:
        """The members of a set, each checked.

        Raises:
            AddressError: when the model lacks one of them.
        """
        self.check(sites)
        return [sites] if isinstance(sites, Site) else sites.expand(self)

    def _check_pattern(self, pattern: Pattern) -> None:
        start, stop = pattern.layers
        self._check_layer(start, pattern)
        if stop is not None:
            self._check_layer(stop - 1, pattern)
        for layer in range(start, self.n_layers if stop is None else stop):
            if pattern.indices is None:
                self._check_site(Site(pattern.kind, layer))
                continue
            first, last = pattern.indices
            for index in {first, first if last is None else last - 1}:
                found = Site(pattern.kind, layer, index, pattern.part, cell=pattern.cell)
                self._check_site(found)

    def _check_layer(self, layer: int, site: Site | Pattern) -> None:
        if layer >= self.n_layers:
            nearest = f"L{self.n_layers - 1}"
            raise AddressError(
                f"{site}: layer {layer} does not exist; the model has {self.n_layers} layers, L0 "
                f"to {nearest}. The nearest is {_with_layer(site, self.n_layers - 1)}."
            )

    def _check_site(self, site: Site) -> None:
        if site.kind in {"module", "variable", "feature"}:
            raise AddressError(_FOREIGN[site.kind].format(site=site))
        if site.kind == "edge":
            self._check_edge(site)
            return
        if site.kind in {"embed", "logits"} or site.component == "embed":
            return
        layer = site.layer or 0
        self._check_layer(layer, site)
        if site.kind == "direction":
            self._check_site(self.home(site))
        elif site.kind == "neuron":
            self._check_neuron(site, layer, site.index or 0)
        elif site.kind in {"head", "cell"}:
            self._check_head(site, layer, site.index or 0)
        elif site.kind not in self.hooks[layer]:
            raise AddressError(self._missing_component(site, layer))

    def _check_neuron(self, site: Site, layer: int, index: int) -> None:
        count = self.neurons[layer]
        if not count:
            raise AddressError(
                f"{site} does not exist: layer {layer} of this model has no MLP whose neurons can "
                f"be addressed. {self._what_there_is(layer)}"
            )
        if index >= count:
            raise AddressError(
                f"{site}: neuron {index} does not exist; layer {layer} has {count} neurons, "
                f"L{layer}.N0 to L{layer}.N{count - 1}."
            )
        if _key(site) in self.hooks[layer]:
            return
        if "neuron:gate" in self.hooks[layer]:
            wanted, parts = "gate", ":gate (before the nonlinearity), :act (after it), :up"
        else:
            wanted, parts = "pre", ":pre (before the nonlinearity)"
            if site.part == "act":
                wanted = "post"
        kind = "a gated" if "neuron:gate" in self.hooks[layer] else "no gated"
        nearest = f"L{layer}.N{index}" + ("" if wanted == "post" else f":{wanted}")
        raise AddressError(
            f"{site} does not exist: layer {layer} has {kind} MLP, whose neurons have :post (what "
            f"the output projection reads) and {parts}. The nearest is {nearest}."
        )

    def _check_head(self, site: Site, layer: int, index: int) -> None:
        if index >= self.n_heads:
            raise AddressError(
                f"{site}: head {index} does not exist; layer {layer} has {self.n_heads} heads, "
                f"L{layer}.H0 to L{layer}.H{self.n_heads - 1}."
            )
        if self.causal:
            self._check_diagonal(site)
        if _key(site) not in self.hooks[layer]:
            raise AddressError(
                f"{site} cannot be reached: layer {layer} of this model has no separate "
                f"{'pattern' if site.kind == 'cell' else site.part}. {self._what_there_is(layer)}"
            )

    def _check_diagonal(self, site: Site, n_positions: int | None = None) -> None:
        """Say when every one of a site's attention cells lies above the diagonal."""
        if site.cell is None:
            return
        last, first = _last(site.cell[0], n_positions), _first_of(site.cell[1], n_positions)
        if last is None or first is None or (last < 0) != (first < 0) or first <= last:
            return
        turned = replace(site, cell=site.cell[::-1])
        raise AddressError(
            f"{site} is no cell: in a causal model position {last} reads only itself and earlier "
            f"ones. Did you mean {turned}?"
        )

    def _check_edge(self, site: Site) -> None:
        source, end = site.source, site.destination
        self._check_site(source)
        self._check_site(end)
        if source.layer is None or end.kind == "logits":
            return
        first, last = source.layer, end.layer or 0
        # Within a block attention comes before the MLP, unless they stand side by side.
        same_block = source.kind == "head" and end.kind == "mlp" and not self.parallel
        if first < last or (first == last and same_block):
            return
        why = (
            "this model's attention and MLP read the residual stream side by side"
            if first == last and source.kind == "head" and end.kind == "mlp"
            else "an edge goes from an earlier component to a later one"
        )
        raise AddressError(f"{site} does not exist: {why}. Put its source in an earlier layer.")

    def _missing_component(self, site: Site, layer: int) -> str:
        if site.kind == "resid_mid":
            why = (
                "attention and MLP stand side by side, so there is no residual stream between them"
                if self.parallel
                else "there is no MLP after its attention"
            )
            return (
                f"{site} does not exist: in layer {layer} {why}. The nearest are "
                f"L{layer}.resid_pre and L{layer}.resid_post."
            )
        return (
            f"{site} does not exist: layer {layer} has no {site.kind}. {self._what_there_is(layer)}"
        )

    def _what_there_is(self, layer: int) -> str:
        have = [f"L{layer}.{name}" for name in COMPONENTS if name in self.hooks[layer]]
        if "head:z" in self.hooks[layer]:
            have.insert(0, f"L{layer}.H0 to L{layer}.H{self.n_heads - 1}")
        return f"It has {', '.join(have)}."

    # ------------------------------------------------------------------------------ completion

    def complete(self, prefix: str, limit: int = 20) -> list[str]:
        """Addresses of this model that begin with `prefix`, for typed completion.

        Near misses (`l3.n5`, `L3.resid_pots`) complete to what was meant.
        """
        text = prefix.strip()
        found = list(_first(self._completions(text), limit))
        if found or not text:
            return found
        if text[0] in "lL0123456789":  # l12.n3 and 12.N3 mean L12.N3
            head, dot, rest = text.lstrip("lL").partition(".")
            unit = rest[:1].upper() if rest[:1] in "nh" else rest[:1]
            repaired = f"L{head}{dot}{unit}{rest[1:]}"
            if repaired != text:
                found = list(_first(self._completions(repaired), limit))
            if not found and dot and head.isdigit() and int(head) < self.n_layers:
                names = [name for name in COMPONENTS if name in self.hooks[int(head)]]
                near = difflib.get_close_matches(rest, names, limit, 0.4)
                found = [f"L{head}.{name}" for name in near]
        return found

    def _completions(self, text: str) -> Iterator[str]:
        body, at, suffix = text.partition("@")
        if at:
            known = ("-1", "all", "new", "0", "-2")
            yield from (f"{body}@{end}" for end in known if end.startswith(suffix))
            return
        head, dot, rest = text.partition(".")
        if not dot:
            layers = [f"L{layer}." for layer in range(self.n_layers)]
            yield from (name for name in (*layers, "embed") if name.startswith(text))
            return
        number = head.removeprefix("L")
        if not head.startswith("L") or not number.isdecimal() or int(number) >= self.n_layers:
            return
        layer = int(number)
        table = self.hooks[layer]
        unit, bracket, cell = rest.partition("[")
        if bracket:
            digits = unit.removeprefix("H")
            has = unit.startswith("H") and digits.isdecimal() and int(digits) < self.n_heads
            if has and "cell" in table:
                yield from (f"{head}.{unit}[{ends}]" for ends in _cells(cell))
            return
        unit, colon, part = rest.partition(":")
        if colon:
            neuron = unit.startswith("N")
            parts = NEURON_PARTS if neuron else HEAD_PARTS
            kind = "neuron" if neuron else "head"
            have = [name for name in parts if f"{kind}:{name}" in table]
            yield from (f"{head}.{unit}:{name}" for name in have if name.startswith(part))
            return
        if not rest:
            yield from (f"{head}.{name}" for name in COMPONENTS if name in table)
        else:
            names = [name for name in COMPONENTS if name in table]
            yield from (f"{head}.{name}" for name in names if name.startswith(rest))
        if rest[:1] in {"", "N"} and self.neurons[layer]:
            yield from _numbered(f"{head}.N", rest[1:], self.neurons[layer])
        if rest[:1] in {"", "H"} and "head:z" in table:
            yield from _numbered(f"{head}.H", rest[1:], self.n_heads)

    def parse(self, text: str) -> Site | SiteSet:
        """Read an address and check that the model has it.

        Raises:
            AddressError: when it cannot be read, or the model lacks it.
        """
        site = parse_site(text)
        self.check(site)
        return site


_FOREIGN = {
    "module": (
        "{site} names a channel of a module; a language model is addressed by its parts, such as "
        "L12.N304 or L7.mlp."
    ),
    "variable": (
        "{site} names a variable of a stepped model; a language model is addressed by its parts, "
        "such as L12.N304 or L7.mlp."
    ),
    "feature": (
        "{site} names a feature of a basis, and this model has no such basis; name a direction "
        "such as L12.resid_post[dog], or a neuron such as L12.N304."
    ),
}


def _check_positions(site: Site | Pattern, n_positions: int | None) -> None:
    if n_positions is None:
        return
    site.positions.check(n_positions)
    for end in site.cell or ():
        if end is not None:
            end_positions(end).check(n_positions)


def _last(end: End, n_positions: int | None) -> int | None:
    """The last position of a cell's end; from the end of the prompt where that is not known."""
    if end is None:
        return None
    if n_positions is not None:
        return max(end_positions(end).indices(0, n_positions, n_positions, has_bos=False))
    return end if isinstance(end, int) else end[1] - 1


def _first_of(end: End, n_positions: int | None) -> int | None:
    """The first one, in the same way."""
    if end is None:
        return None
    if n_positions is not None:
        return min(end_positions(end).indices(0, n_positions, n_positions, has_bos=False))
    return end if isinstance(end, int) else end[0]


def _first(names: Iterator[str], limit: int) -> Iterator[str]:
    return (name for _, name in zip(range(limit), names, strict=False))


def _numbered(stem: str, digits: str, count: int) -> Iterator[str]:
    """`stem` with each number under `count` that begins with `digits`, smallest first."""
    if digits and not digits.isdecimal():
        return
    if not digits:
        yield from (f"{stem}{index}" for index in range(count))
        return
    if digits != "0" and digits.startswith("0"):
        return
    low, high = int(digits), int(digits)
    while low < count:
        yield from (f"{stem}{index}" for index in range(low, min(high + 1, count)))
        if low == 0:
            return
        low, high = low * 10, high * 10 + 9


def _cells(text: str) -> Iterator[str]:
    """What an attention cell's brackets may say that begins with `text`."""
    end = r"\*|-?\d+(?::-?\d+)?"
    destination, arrow, source = text.removesuffix("]").partition("<-")
    destination = destination.removesuffix("<")
    destinations = [destination] if re.fullmatch(end, destination) else []
    if not destination:
        destinations = ["-1", "*", "0"]
    sources = ["0", "*"]
    if arrow and source:
        sources = [source] if re.fullmatch(end, source) else []
    yield from (f"{d}<-{s}" for d in destinations for s in sources)


def _with_layer(site: Site | Pattern, layer: int) -> str:
    _, _, rest = str(site).partition(".")
    return f"L{layer}.{rest}"


def _key(site: Site) -> str:
    return f"{site.kind}:{site.part}" if site.kind in {"neuron", "head"} else site.kind


def _component(module: Any, name: str) -> Any:
    """A bridge component's own child, not what the bridge forwards to the original model."""
    return module._modules.get(name) if module is not None else None  # noqa: SLF001


def _n_neurons(block: nn.Module) -> int:
    """Width of what the MLP's output projection reads; the config has it wrong for some models."""
    out = _component(_component(block, "mlp"), "out")
    weight = getattr(getattr(out, "original_component", None), "weight", None)
    if weight is None or weight.ndim != 2:
        return 0
    # GPT-2's Conv1D keeps its weight as [in, out].
    conv1d = type(out.original_component).__name__ == "Conv1D"
    return int(weight.shape[0] if conv1d else weight.shape[1])


def _is_post_ln(block: nn.Module) -> bool:
    """Whether the block norms the residual stream itself, as BERT and OPT-350M do."""
    original = getattr(block, "original_component", None)
    if getattr(original, "do_layer_norm_before", True) is False:
        return True
    name = getattr(_component(block, "ln1"), "name", "") or ""
    return "attention.output" in name


def _edits_pattern(block: nn.Module) -> bool:
    """Whether the attention applies its values with the pattern that its hook returns."""
    from transformer_lens.model_bridge.generalized_components import (
        JointQKVAttentionBridge,
        PositionEmbeddingsAttentionBridge,
    )

    attn = _component(block, "attn")
    if attn is None:
        return False
    if isinstance(attn, (JointQKVAttentionBridge, PositionEmbeddingsAttentionBridge)):
        return True
    # Otherwise the original attention runs as it is, and hook_pattern (if it fires at all) only
    # decorates the weights that it returned.
    return bool(getattr(attn.original_component, "accepts_pattern_fn", False))


def _delegates(block: nn.Module, bridge: Any) -> bool:
    """Whether the block's attention is the original's, computed by whatever function is named.

    Then a function can be named that passes the pattern through the hook point.
    """
    from transformer_lens.model_bridge.generalized_components import AttentionBridge

    attn = _component(block, "attn")
    return (
        isinstance(attn, AttentionBridge)
        and not _edits_pattern(block)
        and type(attn).forward is AttentionBridge.forward
        and not attn.requires_relative_position_bias
        and bool(getattr(bridge.original_model, "_supports_attention_backend", False))
    )


def _layer_hooks(
    block: Any, layer: int, names: Collection[str], *, post_ln: bool, pattern: bool
) -> dict[str, str]:
    """Hook-point name of each value of a block, for those that exist."""
    aliases = block.hook_aliases
    gated = _component(_component(block, "mlp"), "gate") is not None
    wanted = {
        "neuron:post": "mlp.out.hook_in",
        "head:z": "attn.o.hook_in",
        "head:q": "attn.q.hook_out",
        "head:k": "attn.k.hook_out",
        "head:v": "attn.v.hook_out",
        "mlp": _resolve(aliases, "hook_mlp_out", "mlp.hook_out"),
        "attn": _resolve(aliases, "hook_attn_out", "attn.hook_out"),
        "resid_pre": _resolve(aliases, "hook_resid_pre", "hook_in"),
        "resid_post": _resolve(aliases, "hook_resid_post", "hook_out"),
    }
    if _component(block, "ln2") is not None:
        wanted["ln2"] = "ln2.hook_in"
    if gated:
        wanted |= {
            "neuron:gate": "mlp.gate.hook_out",
            "neuron:up": "mlp.in.hook_out",
            "neuron:act": "mlp.out.hook_in",
        }
    else:
        wanted["neuron:pre"] = "mlp.in.hook_out"
    if post_ln:
        wanted["resid_mid"] = "ln1.hook_out"
    elif "hook_resid_mid" in aliases and _component(block, "mlp") is not None:
        wanted["resid_mid"] = _resolve(aliases, "hook_resid_mid", "ln2.hook_in")
    if pattern:
        wanted["cell"] = "attn.hook_pattern"
    if _component(block, "mlp") is None:
        wanted.pop("mlp", None)
    if _component(block, "attn") is None:
        wanted.pop("attn", None)
    full = {key: f"blocks.{layer}.{name}" for key, name in wanted.items()}
    found = {key: name for key, name in full.items() if name in names}
    if "neuron:post" not in found or not _n_neurons(block):
        found = {key: name for key, name in found.items() if not key.startswith("neuron")}
    return found


def _resolve(aliases: Mapping[str, Any], alias: str, otherwise: str) -> str:
    """The hook point that TransformerLens' own alias stands for; some list several."""
    target = aliases.get(alias, otherwise)
    return str(target if isinstance(target, str) else target[0])
