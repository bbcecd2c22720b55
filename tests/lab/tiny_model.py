"""Random models that the kernel builds in a second, with a tokenizer of words."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import tokenizers
import torch
import transformers as hf
from transformers import PreTrainedTokenizerFast

from patchclamp.models.language_model import LanguageModel
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.stimulus import Stimulus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchclamp.session import Session

SCRIPT = "<script>window.taken=1</script>"
"""A token whose text would run if anything took it for HTML."""
WORDS = ("the", "cat", "sat", "on", "mat", "and", "saw", "a", "dog", "city", "of", "in", SCRIPT)
SENTENCE = "the cat sat on the mat and saw a dog"


def tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer that knows WORDS and, for the rest of the vocabulary, w0, w1, ..."""
    words = ["<unk>", "<bos>", "<eos>", *WORDS]
    words += [f"w{i}" for i in range(64 - len(words))]
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def _llama(**sizes: Any) -> Any:
    torch.manual_seed(7)
    config = hf.LlamaConfig(
        vocab_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        # Wider than usual: with 0.02 nothing in a model this small depends on anything.
        initializer_range=0.25,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **sizes,
    )
    return hf.LlamaForCausalLM(config).eval()


@cache
def tiny() -> LanguageModel:
    """Make a model of 4 layers that answers in milliseconds; at most 64 tokens."""
    sizes = {
        "num_hidden_layers": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    return LanguageModel(_llama(**sizes), tokenizer(), name="tiny")


@cache
def slow() -> LanguageModel:
    """Make a model whose dose-response curve at 250 tokens takes seconds."""
    sizes = {
        "num_hidden_layers": 8,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "max_position_embeddings": 512,
    }
    return LanguageModel(_llama(**sizes), tokenizer(), name="slow")


@contextmanager
def slower(session: Session, seconds: float = 0.1) -> Iterator[None]:
    """Let every block of a session's model take so much longer: a hand comes before the end."""
    blocks = session.engine.passes.shells["plain"].blocks
    waits = [each.register_forward_pre_hook(lambda *_: time.sleep(seconds)) for each in blocks]
    yield
    for each in waits:
        each.remove()


@cache
def wide() -> LanguageModel:
    """Make a model of as many neurons as SmolLM2, 46,080, of which L2.N5 writes "dog"."""
    sizes = {
        "num_hidden_layers": 4,
        "hidden_size": 16,
        "intermediate_size": 11_520,
        "max_position_embeddings": 64,
    }
    made = _llama(**sizes)
    with torch.no_grad():
        dog = made.lm_head.weight[tokenizer().convert_tokens_to_ids("dog")]
        made.model.layers[2].mlp.down_proj.weight[:, 5] = dog
    return LanguageModel(made, tokenizer(), name="wide")


def texts() -> list[str]:
    """Make 16 texts of the tokenizer's words."""
    draw = torch.Generator().manual_seed(7)
    words = [*WORDS, *(f"w{i}" for i in range(48))]
    chosen = torch.randint(0, len(words), (16, 20), generator=draw).tolist()
    return [" ".join(words[i] for i in each) for each in chosen]


@cache
def encoder() -> LanguageModel:
    """Make a model in which every position sees every other one, and nothing predicts."""
    torch.manual_seed(7)
    config = hf.BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.25,
    )
    return LanguageModel(hf.BertForMaskedLM(config).eval(), tokenizer(), name="encoder")


class _Eye(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.second = torch.nn.Conv2d(4, 6, 3, padding=1)
        self.classes = torch.nn.Linear(6, 5)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        seen = self.second(self.first(pictures).relu()).relu()
        return cast("torch.Tensor", self.classes(seen.mean(dim=(2, 3))))


@cache
def eye() -> ModuleModel:
    """Make a convolutional model of small colour pictures that takes a step in a millisecond."""
    torch.manual_seed(7)
    takes = Stimulus((3, None, None), low=0, high=1, renderer="image", size=32, smallest=8)
    return ModuleModel(_Eye(), takes, name="eye", labels=("ant", "bee", "cat", "dog", "emu"))


def squares() -> torch.Tensor:
    """Make 24 pictures: a red square each in the first half, a blue one in the other."""
    drawn = torch.full((24, 3, 32, 32), 0.1)
    places = torch.Generator().manual_seed(7)
    for index, picture in enumerate(drawn):
        row, column = torch.randint(0, 16, (2,), generator=places).tolist()
        picture[0 if index < 12 else 2, row : row + 16, column : column + 16] = 0.9
    return drawn
