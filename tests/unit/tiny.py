"""Tiny random models of several architectures, with effects large enough to be measured.

Weights are drawn wider than usual: with the usual 0.02 the logits of a model this small hardly
depend on anything, and a comparison would prove nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import transformers as hf
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from patchclamp.engine.attention_interface import HOOKED, show_patterns, switched
from patchclamp.models.language_model import LanguageModel

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCAB = 61
_SMALL: dict[str, Any] = {"vocab_size": VOCAB, "initializer_range": 0.25}
_LLAMA: dict[str, Any] = {
    **_SMALL,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def hugging_face(name: str) -> Any:  # noqa: PLR0911 (one return an architecture)
    """Make a random Hugging Face model."""
    torch.manual_seed(7)
    match name:
        case "gpt2":
            gpt2 = hf.GPT2Config(n_layer=4, n_head=4, n_embd=32, n_positions=64, **_SMALL)
            return hf.GPT2LMHeadModel(gpt2).eval()
        case "llama":
            return hf.LlamaForCausalLM(hf.LlamaConfig(**_LLAMA)).eval()
        case "neox":
            neox = hf.GPTNeoXConfig(
                num_hidden_layers=4,
                num_attention_heads=4,
                hidden_size=32,
                intermediate_size=64,
                max_position_embeddings=64,
                **_SMALL,
            )
            return hf.GPTNeoXForCausalLM(neox).eval()
        case "gemma":
            return hf.GemmaForCausalLM(hf.GemmaConfig(head_dim=8, **_LLAMA)).eval()
        case "gemma2":  # scores have a bound, low enough here to be felt
            gemma2 = hf.Gemma2Config(
                head_dim=8, sliding_window=4, attn_logit_softcapping=1.0, **_LLAMA
            )
            return hf.Gemma2ForCausalLM(gemma2).eval()
        case "gemma3":
            gemma3 = hf.Gemma3TextConfig(head_dim=8, sliding_window=4, **_LLAMA)
            return hf.Gemma3ForCausalLM(gemma3).eval()
        case "opt":
            opt = hf.OPTConfig(
                num_hidden_layers=4,
                num_attention_heads=4,
                hidden_size=32,
                ffn_dim=64,
                word_embed_proj_dim=32,
                max_position_embeddings=64,
                init_std=0.25,
                vocab_size=VOCAB,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
            return hf.OPTForCausalLM(opt).eval()
        case "bert":
            bert = hf.BertConfig(
                num_hidden_layers=3,
                num_attention_heads=4,
                hidden_size=32,
                intermediate_size=64,
                max_position_embeddings=64,
                **_SMALL,
            )
            return hf.BertForMaskedLM(bert).eval()
    raise KeyError(name)


def native() -> TransformerBridge:
    """Make a random TransformerLens-native model."""
    config = TransformerBridgeConfig(
        n_layers=4,
        d_model=32,
        n_heads=4,
        d_head=8,
        d_mlp=64,
        d_vocab=VOCAB,
        n_ctx=64,
        act_fn="gelu",
        normalization_type="LN",
        init_mode="gpt2",
        initializer_range=0.25,
        seed=3,
    )
    made: TransformerBridge = TransformerBridge.boot_native(config)  # type: ignore[attr-defined] # put on the class when it is imported
    return made


@contextmanager
def shown_patterns(bridge: TransformerBridge) -> Iterator[None]:
    """Let a bridge that only the test uses compute attention that passes by its hook points."""
    show_patterns(bridge)
    with switched(bridge.original_model, HOOKED):
        yield


@cache
def model(name: str) -> LanguageModel:
    """Make a random model without a tokenizer; every caller gets the same one."""
    return LanguageModel(native() if name == "native" else hugging_face(name), None, name=name)


def fresh_bridge(name: str) -> TransformerBridge:
    """Make the same model once more, as a bridge that only the test uses."""
    return native() if name == "native" else LanguageModel(hugging_face(name), None).bridge


def ids(length: int = 12, seed: int = 0) -> torch.Tensor:
    """Draw LongTensor[pos] token ids that begin with no special token."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (length,), generator=generator)
