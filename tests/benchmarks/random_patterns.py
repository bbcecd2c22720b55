"""A random model of one layer and 12 heads: the patterns that the attention benchmark draws.

Its queries and keys are wide enough for peaked patterns: a share of cells near 1, most near 0.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import transformers as hf

from patchclamp import Session
from patchclamp.models.language_model import LanguageModel
from tests.lab.tiny_model import tokenizer

if TYPE_CHECKING:
    from torch import Tensor

HEADS = 12
LONGEST = 2048
_WORDS = 64


@cache
def model() -> LanguageModel:
    """Make the model; it answers in milliseconds at 256 tokens."""
    torch.manual_seed(7)
    config = hf.LlamaConfig(
        vocab_size=_WORDS,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        hidden_size=8 * HEADS,
        intermediate_size=64,
        max_position_embeddings=LONGEST,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LanguageModel(hf.LlamaForCausalLM(config).eval(), tokenizer(), name="random heads")


def session(length: int) -> Session:
    """Make a session on as many random tokens."""
    generator = torch.Generator().manual_seed(length)
    return Session(model(), torch.randint(16, _WORDS, (length,), generator=generator))


def patterns(of: Session) -> Tensor:
    """Return Float[head, dest, source], as TransformerLens gives them."""
    hook = "blocks.0.attn.hook_pattern"
    with torch.no_grad():
        _, cache = model().bridge.run_with_cache(of.ids[None], names_filter=[hook])
    found: Tensor = cache[hook][0]
    return found
