"""Prompt sets: pairs that fit a tokenizer, and that SmolLM2 can tell apart."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import tokenizers
import torch
import transformers as hf

import patchclamp as pc
from patchclamp.errors import InputError
from patchclamp.methods.prompt_sets import NAMES, Pair, PromptSet, describe, prompt_set
from patchclamp.models.language_model import LanguageModel
from tests.unit import letters, tiny

if TYPE_CHECKING:
    from torch import Tensor

# What was measured on SmolLM2-135M with a beginning-of-sequence token, 64 pairs, seed 0: the mean
# logit difference on clean and on corrupt prompts, less a margin; and how many are answered right.
SOLVED = {
    "capitals": (10.0, -10.0, 1.0),
    "pronouns": (3.5, -3.5, 1.0),
    "indirect-objects": (3.5, -3.5, 1.0),
    "greater-than": (3.5, -0.5, 1.0),
    "docstrings": (3.0, -3.0, 0.95),
}


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    return pc.load("smollm2")


@pytest.fixture(scope="module")
def two_digits() -> LanguageModel:
    """Make a model whose tokenizer writes years as GPT-2's does, in pieces of two digits."""
    words = "The war trial siege voyage strike drought famine reign peace journey lasted from to"
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\d{1,2}| ?[^\d\s]+"), "isolated")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [split, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(special_tokens=["<bos>"], vocab_size=600)
    pairs = " ".join(f"{n:02}" for n in range(100))
    tokenizer.train_from_iterator([f"{words} the year {pairs}"] * 3, trainer)
    config = hf.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        num_hidden_layers=1,
        hidden_size=8,
        intermediate_size=8,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    begin = "<bos>"
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin)
    return LanguageModel(hf.LlamaForCausalLM(config).eval(), fast, name="two-digits")


def ids_of(made: PromptSet, model: LanguageModel) -> tuple[Tensor, Tensor]:
    clean = torch.stack([model.to_ids(pair.clean) for pair in made.pairs])
    return clean, torch.stack([model.to_ids(pair.corrupt) for pair in made.pairs])


@pytest.mark.model
@pytest.mark.parametrize("name", NAMES)
def test_every_pair_fits_the_tokenizer_and_the_others(name: str, smollm2: LanguageModel) -> None:
    made = prompt_set(name, smollm2, 40)
    assert (made.name, made.about, made.seed) == (name, describe(name), 0)
    assert len(set(made.pairs)) == len(made.pairs) == 40
    clean, corrupt = ids_of(made, smollm2)  # stacks only what is of one length
    assert clean.shape == corrupt.shape
    assert bool((clean != corrupt).any(-1).all())
    for pair, ids in zip(made.pairs, clean, strict=True):
        answer, wrong = smollm2.token_id(pair.answer), smollm2.token_id(pair.wrong)
        assert answer != wrong
        assert smollm2.to_ids(pair.clean + pair.answer).tolist() == [*ids.tolist(), answer]
        assert smollm2.token_text(answer) == pair.answer


@pytest.mark.model
@pytest.mark.parametrize("name", NAMES)
def test_smollm2_tells_the_answer_from_the_wrong_one(name: str, smollm2: LanguageModel) -> None:
    made = prompt_set(name, smollm2, 64)
    answers, wrongs = (
        torch.tensor([smollm2.token_id(getattr(pair, which)) for pair in made.pairs])
        for which in ("answer", "wrong")
    )
    rows = torch.arange(64)
    found = []
    for side in ids_of(made, smollm2):
        with torch.no_grad():
            logits = smollm2.bridge(side, return_type="logits")[:, -1]
        found.append(logits[rows, answers] - logits[rows, wrongs])
    clean, corrupt, share = SOLVED[name]
    assert float(found[0].mean()) > clean
    assert float(found[1].mean()) < corrupt
    assert float((found[0] > 0).float().mean()) >= share


@pytest.mark.model
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_one_set_and_a_smaller_one_is_its_beginning(
    name: str, smollm2: LanguageModel
) -> None:
    made = prompt_set(name, smollm2, 20, seed=3)
    assert prompt_set(name, smollm2, 20, seed=3) == made
    assert prompt_set(name, smollm2, 5, seed=3).pairs == made.pairs[:5]
    assert prompt_set(name, smollm2, 20, seed=4).pairs != made.pairs


@pytest.mark.model
def test_what_is_left_out_is_counted(smollm2: LanguageModel) -> None:
    made = prompt_set("capitals", smollm2, 64)
    several = r"Left out for this tokenizer, of (\d+) candidates: (\d+) with an answer of several"
    match = re.match(several, made.note)
    assert match is not None
    assert int(match[1]) - int(match[2]) == 64
    with pytest.raises(InputError, match=r"only [\d,]+ pairs can be used .* 2,000 were asked for"):
        prompt_set("capitals", smollm2, 2000)


def test_a_tokenizer_that_no_answer_fits_is_told_why() -> None:
    with pytest.raises(InputError, match=r"none can be used with .* answer of several tokens"):
        prompt_set("capitals", letters.model())
    with pytest.raises(InputError, match="longer than the model takes"):
        prompt_set("docstrings", letters.model())


def test_years_are_written_as_the_tokenizer_writes_them(two_digits: LanguageModel) -> None:
    made = prompt_set("greater-than", two_digits, 30)
    for pair in made.pairs:
        started = int(pair.clean.split("year ")[1][2:4])
        assert (int(pair.answer), int(pair.wrong)) == (started + 20, started - 20)
        assert pair.corrupt.split("year ")[1][2] == "0"
    assert len({len(two_digits.to_ids(pair.clean)) for pair in made.pairs}) == 1


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(InputError, match="no prompt set 'colours': capitals, pronouns, indirect-"):
        prompt_set("colours", letters.model())
    with pytest.raises(InputError, match="colours"):
        describe("colours")
    with pytest.raises(InputError, match="llama has no tokenizer"):
        prompt_set("capitals", tiny.model("llama"))
    with pytest.raises(InputError, match="bert-letters predicts no next token"):
        prompt_set("capitals", letters.model("bert"))
    with pytest.raises(InputError, match="at least 1 pair, not 0"):
        prompt_set("capitals", letters.model(), 0)


def test_a_set_goes_to_json_and_back() -> None:
    made = PromptSet("mine", "Letters", 2, (Pair("a b", "a c", " d", " e"),), "a note")
    assert PromptSet.from_json(json.loads(json.dumps(made.to_json()))) == made
    for broken in ({}, {**made.to_json(), "pairs": [{"clean": "a"}]}, {"pairs": 3}):
        with pytest.raises(InputError, match="This is no prompt set"):
            PromptSet.from_json(broken)
    with pytest.raises(InputError, match="'mine' needs pairs"):
        PromptSet("mine", "Letters", 0, ())
