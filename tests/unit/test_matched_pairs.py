"""Matched pairs of recall and reasoning: what differs, what does not, and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import patchclamp as pc
from patchclamp.errors import InputError
from patchclamp.methods.matched_pairs import MatchedPairs, matched_pairs
from patchclamp.methods.prompt_sets import read
from patchclamp.models.shipped import train_recall as training

if TYPE_CHECKING:
    from patchclamp.models.language_model import LanguageModel


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return pc.load("recall-4l")


@pytest.fixture(scope="module")
def pairs(model: LanguageModel) -> MatchedPairs:
    return matched_pairs(model, count=60, seed=4)


def test_both_kinds_have_one_length_and_the_same_premises(
    model: LanguageModel, pairs: MatchedPairs
) -> None:
    recall, reasoning = read(pairs.recall, model), read(pairs.reasoning, model)
    lengths = {len(one.ids) for kind in (recall, reasoning) for one in (*kind.clean, *kind.corrupt)}
    assert lengths == {18}
    for one, other in zip(recall.clean, reasoning.clean, strict=True):
        differing = [at for at, (a, b) in enumerate(zip(one.ids, other.ids, strict=True)) if a != b]
        assert differing == [14, 16], "capital or tallest, country or them"


def test_only_what_decides_differs_between_clean_and_corrupt(
    model: LanguageModel, pairs: MatchedPairs
) -> None:
    recall, reasoning = read(pairs.recall, model), read(pairs.reasoning, model)
    for one, other in zip(recall.clean, recall.corrupt, strict=True):
        assert [at for at in range(18) if one.ids[at] != other.ids[at]] == [16]
    for one, other in zip(reasoning.clean, reasoning.corrupt, strict=True):
        assert sorted(one.ids) == sorted(other.ids), "the same words"
        assert len([at for at in range(18) if one.ids[at] != other.ids[at]]) == 2


@pytest.mark.parametrize("kind", ["recall", "reasoning"])
def test_the_model_answers_both_prompts_of_every_pair(
    model: LanguageModel, pairs: MatchedPairs, kind: str
) -> None:
    given = getattr(pairs, kind)
    wrong = []
    for pair in given.pairs:
        for prompt, answer in ((pair.clean, pair.answer), (pair.corrupt, pair.wrong)):
            with torch.no_grad():
                logits = model.bridge(model.to_ids(prompt)[None])[0, -1]
            if int(logits.argmax()) != model.token_id(answer):
                wrong.append(prompt)
    assert len(wrong) <= 1, wrong


def test_the_people_are_kept_for_measuring_and_no_country_comes_twice(pairs: MatchedPairs) -> None:
    places = {name.capitalize(): place for place, name in enumerate(training.PEOPLE)}
    for pair in pairs.reasoning.pairs:
        words = pair.clean.replace(".", "").split()
        people = {places[word] for word in words if word in places}
        assert sum(people) % training.HELD_OUT == 0
    countries = [pair.clean.split()[-2] for pair in pairs.recall.pairs]
    assert len(set(countries)) == len(countries) == 60
    for pair in pairs.recall.pairs:
        assert training.CAPITALS[pair.clean.split()[-2].lower()] == pair.answer.strip().lower()


def test_a_seed_draws_the_same_pairs_and_a_split_loses_none(
    model: LanguageModel, pairs: MatchedPairs
) -> None:
    assert matched_pairs(model, count=60, seed=4) == pairs
    assert matched_pairs(model, count=60, seed=5) != pairs
    assert matched_pairs(model, count=9, seed=4) == pairs.split(9)[0]
    first, rest = pairs.split(25)
    assert (len(first.recall.pairs), len(rest.reasoning.pairs)) == (25, 35)
    assert (*first.reasoning.pairs, *rest.reasoning.pairs) == pairs.reasoning.pairs


def test_another_tokenizer_gets_those_that_fit_it_and_too_few_are_said(
    model: LanguageModel,
) -> None:
    with pytest.raises(InputError, match=r"candidates .* 0 can be used with induction-2l's"):
        matched_pairs(pc.load("induction-2l"))
    with pytest.raises(InputError, match=r"1284 can be used.*2000 were asked for"):
        matched_pairs(model, count=2000)
    with pytest.raises(InputError, match="at least 1 of each kind, not 0"):
        matched_pairs(model, count=0)


@pytest.mark.model
def test_a_language_model_reads_both_kinds_in_one_length() -> None:
    language_model = pc.load("smollm2")
    found = matched_pairs(language_model, count=8, seed=1)
    both = [read(kind, language_model) for kind in (found.recall, found.reasoning)]
    assert len({len(one.ids) for kind in both for one in (*kind.clean, *kind.corrupt)}) == 1
