"""The engine against a plain TransformerLens hooked pass, and against the bare minimum by hand.

The engine is timed as a user meets it: a new value on the session's stack, then the logits of the
last position; hand-over to the worker and bookkeeping count. The plain pass is what the user would
write otherwise, with the logits of all positions, as TransformerLens gives them. The bare minimum
runs the same blocks at the same positions on keys and values of the others, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache, DynamicLayer

from patchclamp import Clamp, Session, load
from patchclamp.models import catalogue, store
from tests.benchmarks.measure import costlier, faster, in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from tests.benchmarks.measure import Figure

LENGTH = 128
LAYER, NEURON = 15, 304
HOOK = f"blocks.{LAYER}.mlp.out.hook_in"  # TransformerLens' name of hook_post that always fires
LAST, ALL = f"L{LAYER}.N{NEURON}@-1", f"L{LAYER}.N{NEURON}@all"
EXACT = 1e-5


def figures(rounds: int = 15) -> Iterator[Figure]:
    """Measure the engine's figures on the default model, at its middle layer, on 128 tokens."""
    model = load(catalogue.SMOLLM2.name)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, model.anatomy.d_vocab, (LENGTH,), generator=generator)
    session = Session(model, ids)
    session.baseline.rows([-1])
    bare = ByHand.of(model.bridge, ids)

    def ours(address: str, *, plain: bool) -> Callable[[float], Tensor]:
        passes = session.engine.passes
        usable = replace(passes.shortcuts, plain=plain)

        def way(value: float) -> Tensor:
            passes.shortcuts = usable
            session.interventions = [Clamp(address, value)]
            return session.current.rows([-1])

        return way

    def hooked(where: int | slice) -> Callable[[float], Tensor]:
        def way(value: float) -> Tensor:
            with torch.no_grad():
                logits: Tensor = model.bridge.run_with_hooks(
                    ids.unsqueeze(0), fwd_hooks=[(HOOK, clamp(where, value))]
                )
            return logits[0, -1:]

        return way

    last = {
        "plain pass": hooked(-1),
        "bridged": ours(LAST, plain=False),
        "bridged by hand": lambda value: bare.last(value, plain=False),
        "twins": ours(LAST, plain=True),
        "twins by hand": lambda value: bare.last(value, plain=True),
    }
    everywhere = {"plain pass": hooked(slice(None)), "ours": ours(ALL, plain=True)}
    for ways in (last, everywhere):
        must_agree(ways)
    t = in_turns(last, rounds)
    one = f"last-token-clamp:T={LENGTH}:"
    yield faster(one + "bridged-blocks:plain-pass/ours", t["plain pass"], t["bridged"], 6)
    yield faster(one + "plain-twins:plain-pass/ours", t["plain pass"], t["twins"], 8)
    yield costlier(one + "bridged-blocks:ours/by-hand", t["bridged"], t["bridged by hand"], 1.2)
    yield costlier(one + "plain-twins:ours/by-hand", t["twins"], t["twins by hand"], 1.2)
    t = in_turns(everywhere, rounds)
    every = f"all-position-clamp:T={LENGTH}:plain-pass/ours"
    yield faster(every, t["plain pass"], t["ours"], 1.8)


def must_agree(ways: dict[str, Callable[[float], Tensor]]) -> None:
    """Raise where two ways do not give the same logits: they would not be the same work."""
    found = {name: way(50.0) for name, way in ways.items()}
    truth = found["plain pass"]
    for name, logits in found.items():
        off = float((logits - truth).abs().max() / truth.abs().max())
        if not off <= EXACT:
            raise ValueError(f"{name} is off the plain pass by {off:.1e} of its largest logit.")


def clamp(where: int | slice, value: float) -> Callable[..., Tensor]:
    """Make a TransformerLens hook that sets the neuron."""

    def act(post: Tensor, hook: object) -> Tensor:
        del hook
        post = post.clone()
        post[:, where, NEURON] = value
        return post

    return act


@dataclass(frozen=True)
class ByHand:
    """The last position's way through the upper blocks, with nothing of patchclamp.

    Attributes:
        bridge: a TransformerBridge, for hooked blocks.
        plain: the same model as transformers loads it.
        stream: Float[1, 1, d_model], the residual stream entering the layer at the last position.
        kept: every layer's keys and values at the positions before.
    """

    bridge: Any
    plain: Any
    stream: Tensor
    kept: Sequence[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, bridge: Any, ids: Tensor) -> ByHand:
        """Run the model once and keep what the last position needs."""
        plain = AutoModelForCausalLM.from_pretrained(store.cached_path(catalogue.SMOLLM2)).eval()
        cache: Any = DynamicCache()
        with torch.no_grad():
            out = plain(
                ids.unsqueeze(0), past_key_values=cache, use_cache=True, output_hidden_states=True
            )
        kept = [(each.keys[:, :, :-1], each.values[:, :, :-1]) for each in cache.layers]
        return cls(bridge, plain, out.hidden_states[LAYER][:, -1:], kept)

    def last(self, value: float, *, plain: bool) -> Tensor:
        """Return Float[1, vocab], the last position's logits under the clamp.

        Args:
            value: what to set the neuron to.
            plain: run the blocks above the hooked one as transformers has them.
        """
        cache = DynamicCache()
        for keys, values in self.kept:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
            cache.layers.append(layer)
        model = self.plain.model
        blocks = self.bridge.original_model.model.layers[LAYER:]
        if plain:
            blocks = [blocks[0], *model.layers[LAYER + 1 :]]
        place = torch.tensor([[LENGTH - 1]])
        stream = self.stream
        with torch.no_grad(), self.bridge.hooks(fwd_hooks=[(HOOK, clamp(-1, value))]):
            rotary = model.rotary_emb(stream, place)
            for block in blocks:
                out = block(
                    stream,
                    attention_mask=None,
                    position_ids=place,
                    past_key_values=cache,
                    use_cache=True,
                    position_embeddings=rotary,
                )
                stream = out if isinstance(out, torch.Tensor) else out[0]
            return self.plain.lm_head(model.norm(stream))[0]  # type: ignore[no-any-return]
