"""Matched prompt pairs of recall and of reasoning, for the shipped model that does both.

Both kinds of prompt begin with the same two premises and end with a question of five words:

    Anna is taller than Ben. Carl is shorter than Ben. The capital of France is     -> Paris
    Anna is taller than Ben. Carl is shorter than Ben. The tallest of them is       -> Anna

so that what one kind needs and the other does not is neither a matter of length, nor of position,
nor of what stands before. The answer of the first is in the model's weights and nowhere in the
prompt; that of the second is in no weight, as the three people never stood together in the
training text. In the corrupt prompt of a recall it is another country; in that of a puzzle the
tallest and the shortest have changed places, so that the words are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InputError
from patchclamp.methods.prompt_sets import Pair, PromptSet, read
from patchclamp.models.shipped import train_recall as trained
from patchclamp.models.shipped.word_level import SPECIAL, UNKNOWN

if TYPE_CHECKING:
    from patchclamp.models.language_model import LanguageModel


@dataclass(frozen=True)
class MatchedPairs:
    """Pairs of two kinds; those at the same place have the same premises.

    Attributes:
        recall: asks for capitals.
        reasoning: asks who is the tallest or the shortest.
    """

    recall: PromptSet
    reasoning: PromptSet

    def split(self, first: int) -> tuple[MatchedPairs, MatchedPairs]:
        """Return the first so many pairs of both kinds, and the rest."""
        head, tail = (
            MatchedPairs(*(replace(kind, pairs=kind.pairs[part]) for kind in self._kinds))
            for part in (slice(first), slice(first, None))
        )
        return head, tail

    @property
    def _kinds(self) -> tuple[PromptSet, PromptSet]:
        return self.recall, self.reasoning


def matched_pairs(model: LanguageModel, count: int = 32, seed: int = 0) -> MatchedPairs:
    """Draw pairs of both kinds, of one token length throughout; no country comes twice.

    Premises say "taller" or "shorter", in either order, and the question is for the tallest or the
    shortest, all as coins fall. The three people are among those kept for measuring.

    Args:
        model: the shipped model `recall-4l`, or another that the same script trained.
        count: how many pairs of each kind.
        seed: of what is drawn.

    Raises:
        InputError: when the model does not know the words, or there are fewer countries.
    """
    if not 1 <= count <= len(trained.CAPITALS):
        msg = f"There are 1 to {len(trained.CAPITALS)} matched pairs, one a country, not {count}."
        raise InputError(msg)
    generator = torch.Generator().manual_seed(seed)
    people = trained.draw_people(generator, count, held_out=True)
    directions = torch.rand(count, 2, generator=generator) < 0.5
    swapped, shortest = (trained.coins(generator, count) for _ in range(2))
    order = torch.randperm(len(trained.CAPITALS), generator=generator)
    countries, others = (order.roll(-shift)[:count, None] for shift in (0, 1))
    exchanged = people.flip(1)
    premises = trained.puzzle(people, directions, swapped)
    turned = trained.puzzle(exchanged, directions, swapped)
    recall, recall_corrupt = (
        torch.cat([premises, trained.question_of_fact(asked)], 1) for asked in (countries, others)
    )
    reasoning, reasoning_corrupt = (
        torch.cat([said, trained.question_of_height(who, shortest)], 1)
        for said, who in ((premises, people), (turned, exchanged))
    )
    found = MatchedPairs(
        _set("recall", "A capital, after two premises", seed, recall, recall_corrupt),
        _set(
            "reasoning", "The tallest or the shortest of three", seed, reasoning, reasoning_corrupt
        ),
    )
    for kind in (found.recall, found.reasoning):
        _check(kind, model)
    return found


_NAMES = (*SPECIAL, *trained.WORDS)
_PROPER = {*trained.PEOPLE, *trained.CAPITALS, *trained.CAPITALS.values()}


def _set(name: str, about: str, seed: int, clean: torch.Tensor, corrupt: torch.Tensor) -> PromptSet:
    """Make a set of LongTensor[pair, pos], whose last two words are the answer and a full stop."""
    pairs = tuple(
        Pair(_text(one[:-2]), _text(other[:-2]), *(f" {_cased(end[-2])}" for end in (one, other)))
        for one, other in zip(clean.tolist(), corrupt.tolist(), strict=True)
    )
    return PromptSet(name, about, seed, pairs)


def _text(ids: list[int]) -> str:
    sentences = " ".join(_cased(i) for i in ids).replace(" .", ".").split(". ")
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _cased(word: int) -> str:
    return _NAMES[word].capitalize() if _NAMES[word] in _PROPER else _NAMES[word]


def _check(kind: PromptSet, model: LanguageModel) -> None:
    made_for = f"these pairs are made for recall-4l, and {model.name} does not know their words"
    try:
        given = read(kind, model)
    except InputError as error:
        msg = f"Matched pairs of recall and reasoning: {made_for} ({error})"
        raise InputError(msg) from error
    unknown = _NAMES.index(UNKNOWN)
    words = [word for one in given.clean for word in one.ids]
    if model.anatomy.d_vocab != len(_NAMES) or unknown in words:
        msg = f"Matched pairs of recall and reasoning: {made_for}."
        raise InputError(msg)
