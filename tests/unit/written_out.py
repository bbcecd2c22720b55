"""A transformer written out, in which every reader has a residual stream of its own.

An ordinary forward pass has one residual stream, of which every component reads the same value.
Here each *reader* (a head's query, a key/value head's key and its value, an MLP, the logits) adds
up its own from what the *sources* before it wrote (the embedding, heads, MLPs), so that an edge
between a source and a reader can carry something else than the others do. It is the definition
that methods on edges are measured against: plain PyTorch on a model's weights, without a hook,
without a short cut, and without a line of patchclamp but the model's addresses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import linear

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    Carry = Callable[[str, str, Tensor], Tensor]
    """From a reader, a source and what that source wrote in this run to what the edge carries."""


def plain(module: Any) -> Any:
    """The module itself, where TransformerLens wrapped it."""
    return getattr(module, "original_component", module)


@dataclass
class Run:
    """What a run left.

    Attributes:
        logits: Float[item, pos, vocab].
        wrote: Float[item, pos, d_model] by source.
        read: Float[item, pos, d_model] by reader, the stream before its norm.
    """

    logits: Tensor
    wrote: dict[str, Tensor] = field(default_factory=dict)
    read: dict[str, Tensor] = field(default_factory=dict)


class WrittenOut:
    """A Llama, GPT-2, GPT-NeoX or TransformerLens-native model, from its modules' weights.

    Args:
        model: the Hugging Face model or `NativeModel`; bridged or not.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        name = type(model).__name__
        self.kind = {
            "LlamaForCausalLM": "llama",
            "GPT2LMHeadModel": "gpt2",
            "GPTNeoXForCausalLM": "neox",
            "NativeModel": "native",
        }[name]
        config = model.cfg if self.kind == "native" else model.config
        self.n_heads = int(config.n_heads if self.kind == "native" else config.num_attention_heads)
        shared = getattr(config, "num_key_value_heads", None)
        if self.kind == "native":
            shared = config.n_key_value_heads
        self.n_shared = int(shared or self.n_heads)
        self.group = self.n_heads // self.n_shared
        self.parallel = self.kind == "neox" and bool(config.use_parallel_residual)
        self.blocks = [plain(block) for block in self._blocks()]
        self.has_mlp = hasattr(self.blocks[0], "mlp")

    # --- what an architecture calls its parts ----------------------------------------------------

    def _blocks(self) -> Any:
        match self.kind:
            case "llama":
                return self.model.model.layers
            case "gpt2":
                return self.model.transformer.h
            case "neox":
                return self.model.gpt_neox.layers
            case _:
                return self.model.layers

    def embed(self, ids: Tensor) -> Tensor:
        """What enters the first block: Float[item, pos, d_model]."""
        places = torch.arange(ids.shape[1])
        match self.kind:
            case "llama":
                return plain(self.model.model.embed_tokens).weight[ids]  # type: ignore[no-any-return]
            case "gpt2":
                body = self.model.transformer
                return plain(body.wte).weight[ids] + plain(body.wpe).weight[places]  # type: ignore[no-any-return]
            case "neox":
                return plain(self.model.gpt_neox.embed_in).weight[ids]  # type: ignore[no-any-return]
            case _:
                stream = plain(self.model.tok_embed).weight[ids]
                if self.model.pos is not None:
                    stream = stream + plain(self.model.pos).weight[places]
                return stream  # type: ignore[no-any-return]

    def norm(self, layer: int, which: str) -> Any:
        """The norm through which attention or the MLP reads."""
        names = {
            "llama": ("input_layernorm", "post_attention_layernorm"),
            "gpt2": ("ln_1", "ln_2"),
            "neox": ("input_layernorm", "post_attention_layernorm"),
            "native": ("ln1", "ln2"),
        }[self.kind]
        return plain(getattr(self.blocks[layer], names[which == "mlp"])).forward

    def unembed(self, stream: Tensor) -> Tensor:
        """Logits of a stream, through the final norm."""
        match self.kind:
            case "llama":
                norm, head = self.model.model.norm, self.model.lm_head
            case "gpt2":
                norm, head = self.model.transformer.ln_f, self.model.lm_head
            case "neox":
                norm, head = self.model.gpt_neox.final_layer_norm, self.model.lm_head
            case _:
                norm, head = self.model.ln_out, self.model.head
        return linear(plain(norm).forward(stream), plain(head).weight)

    def matrices(self, layer: int) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Weights [head, d_head, d_model] and biases [head, d_head] of q, k and v, and o's.

        o's weight is [d_model, head, d_head], its bias [d_model].
        """
        block = self.blocks[layer]
        n, shared = self.n_heads, self.n_shared
        if self.kind in {"llama", "native"}:
            attn = plain(block.self_attn if self.kind == "llama" else block.attn)
            end = "_proj" if self.kind == "llama" else ""
            found = {}
            for part, heads in (("q", n), ("k", shared), ("v", shared)):
                module = plain(getattr(attn, part + end))
                bias = module.bias
                found[part] = (
                    module.weight.reshape(heads, -1, module.weight.shape[1]),
                    None if bias is None else bias.reshape(heads, -1),
                )
            out = plain(getattr(attn, "o" + end))
            found["o"] = (out.weight.reshape(len(out.weight), n, -1), out.bias)
            return found
        if self.kind == "gpt2":
            attn = plain(block.attn)
            joint, out = plain(attn.c_attn), plain(attn.c_proj)
            weights = joint.weight.T.reshape(3, n, -1, len(joint.weight))
            biases = joint.bias.reshape(3, n, -1)
            found = {part: (weights[i], biases[i]) for i, part in enumerate("qkv")}
            found["o"] = (out.weight.T.reshape(out.weight.shape[1], n, -1), out.bias)
            return found
        attn = plain(block.attention)
        joint, out = plain(attn.query_key_value), plain(attn.dense)
        weights = joint.weight.reshape(n, 3, -1, joint.weight.shape[1])
        biases = joint.bias.reshape(n, 3, -1)
        found = {part: (weights[:, i], biases[:, i]) for i, part in enumerate("qkv")}
        found["o"] = (out.weight.reshape(len(out.weight), n, -1), out.bias)
        return found

    def rotated(self, x: Tensor) -> Tensor:
        """Queries or keys Float[item, pos, d_head] turned by their position, where a model does."""
        if self.kind in {"gpt2", "native"}:
            assert self.kind == "gpt2" or self.model.rotary is None
            return x
        body = self.model.model if self.kind == "llama" else self.model.gpt_neox
        places = torch.arange(x.shape[1])[None]
        cos, sin = plain(body.rotary_emb).forward(x, places)
        width = cos.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        half = torch.cat([-turned[..., width // 2 :], turned[..., : width // 2]], -1)
        return torch.cat([turned * cos + half * sin, rest], -1)

    def mlp(self, layer: int, normed: Tensor) -> Tensor:
        """What the MLP writes: Float[item, pos, d_model]."""
        mlp = plain(self.blocks[layer].mlp)
        act = getattr(mlp, "act_fn", None) or mlp.act
        match self.kind:
            case "llama":
                gate = linear(normed, plain(mlp.gate_proj).weight)
                up = linear(normed, plain(mlp.up_proj).weight)
                return linear(act(gate) * up, plain(mlp.down_proj).weight)
            case "gpt2":
                into, out = plain(mlp.c_fc), plain(mlp.c_proj)
                return act(normed @ into.weight + into.bias) @ out.weight + out.bias  # type: ignore[no-any-return]
            case "neox":
                into, out = plain(mlp.dense_h_to_4h), plain(mlp.dense_4h_to_h)
            case _:
                into, out = plain(mlp.fc_in), plain(mlp.fc_out)
        return linear(act(linear(normed, into.weight, into.bias)), out.weight, out.bias)

    # --- a run -----------------------------------------------------------------------------------

    def run(
        self,
        ids: Tensor,
        carry: Carry | None = None,
        read: Callable[[str, Tensor], Tensor] | None = None,
    ) -> Run:
        """Run LongTensor[item, pos].

        Args:
            ids: what to run.
            carry: what an edge carries; what its source wrote, without.
            read: from a reader and its stream to the stream it is given, to take gradients at.
        """
        result = Run(torch.empty(0))
        wrote = result.wrote
        wrote["embed"] = self.embed(ids)
        constant = torch.zeros(())  # output biases of attention, which belong to no head

        def stream(reader: str) -> Tensor:
            total = constant
            for source, value in wrote.items():
                total = total + (value if carry is None else carry(reader, source, value))
            total = total if read is None else read(reader, total)
            result.read[reader] = total
            return total

        for layer in range(len(self.blocks)):
            heads = self._attention(layer, stream)
            beside = self._mlp(layer, stream) if self.parallel else {}
            wrote.update(heads)
            b_O = self.matrices(layer)["o"][1]
            constant = constant if b_O is None else constant + b_O
            wrote.update(beside if self.parallel else self._mlp(layer, stream))
        result.logits = self.unembed(stream("logits"))
        return result

    def _attention(self, layer: int, stream: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """What a layer's heads write: Float[item, pos, d_model] by head."""
        matrices, norm = self.matrices(layer), self.norm(layer, "attn")

        def projected(part: str, index: int, reader: str) -> Tensor:
            W, b = matrices[part]
            return linear(norm(stream(reader)), W[index], None if b is None else b[index])

        keys, values = [], []
        for shared in range(self.n_shared):
            named = f"L{layer}.H{shared * self.group}"
            keys.append(self.rotated(projected("k", shared, f"{named}:k")))
            values.append(projected("v", shared, f"{named}:v"))
        heads = {}
        W_O, _ = matrices["o"]
        for head in range(self.n_heads):
            query = self.rotated(projected("q", head, f"L{layer}.H{head}:q"))
            scores = query @ keys[head // self.group].mT / query.shape[-1] ** 0.5
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            pattern = scores.masked_fill(ahead, -torch.inf).softmax(-1)
            heads[f"L{layer}.H{head}"] = pattern @ values[head // self.group] @ W_O[:, head].T
        return heads

    def _mlp(self, layer: int, stream: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """What a layer's MLP writes, if it has one."""
        if not self.has_mlp:
            return {}
        name = f"L{layer}.mlp"
        return {name: self.mlp(layer, self.norm(layer, "mlp")(stream(name)))}

    def edges(self) -> list[tuple[str, str]]:
        """Every (source, reader) of the model, in the order in which a run meets them."""
        met: list[tuple[str, str]] = []

        def carry(reader: str, source: str, value: Tensor) -> Tensor:
            met.append((source, reader))
            return value

        with torch.no_grad():
            self.run(torch.tensor([[0, 0]]), carry)
        return met


def replacing(
    edges: Collection[tuple[str, str]],
    other: Mapping[str, Tensor],
    rows: Any = slice(None),
) -> Carry:
    """Some (source, reader) edges carry what the source wrote elsewhere.

    Args:
        edges: which.
        other: Float[item, pos, d_model] by source (1 where it is the same for all).
        rows: at which positions.
    """
    chosen = frozenset(edges)

    def carry(reader: str, source: str, value: Tensor) -> Tensor:
        if (source, reader) not in chosen:
            return value
        value = value.clone()
        value[:, rows] = other[source].expand(value.shape)[:, rows]
        return value

    return carry
