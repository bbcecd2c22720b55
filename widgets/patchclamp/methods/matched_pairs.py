"""Matched prompt pairs of recall and of reasoning: what is asked differs, and nothing before it.

Both kinds of prompt begin with the same two premises and end with a question of five words:

    Anna is taller than Ben. Carl is shorter than Ben. The capital of France is     -> Paris
    Anna is taller than Ben. Carl is shorter than Ben. The tallest of them is       -> Anna

so that what one kind needs and the other does not is neither a matter of length, nor of position,
nor of what stands before. The answer of the first is in the model's weights and nowhere in the
prompt; that of the second is in no weight: for the shipped model `recall-4l` the three people are
some that never stood together in its training text. In the corrupt prompt of a recall it is another
country; in that of a puzzle the tallest and the shortest have changed places, so that the words are
the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InputError
from patchclamp.methods.prompt_sets import Pair, PromptSet, fitted
from patchclamp.models.shipped import train_recall as trained
from patchclamp.models.shipped.word_level import SPECIAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

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
    """Draw pairs of both kinds, of one token length throughout.

    Premises say "taller" or "shorter", in either order, and the question is for the tallest or the
    shortest, all as coins fall. No country comes twice before all have come. With the same seed
    fewer pairs are the beginning of more.

    Args:
        model: whose tokenizer they are for. With `recall-4l` every candidate can be used; another
            model's tokenizer must read the names and both answers as one token each, which leaves
            few.
        count: how many pairs of each kind.
        seed: of what is drawn.

    Raises:
        InputError: when the model reads no text or predicts no next token, or fewer pairs fit.
    """
    if count < 1:
        msg = f"Matched pairs are at least 1 of each kind, not {count}."
        raise InputError(msg)
    generator = torch.Generator().manual_seed(seed)
    by_length: dict[int, list[tuple[Pair, Pair]]] = {}
    drawn = 0
    for step in range(1, _ROUNDS + 1):
        for both in _draw(generator, step):
            drawn += 1
            (_, one), (_, other) = (fitted(pair, model) for pair in both)
            if isinstance(one, int) and one == other:
                by_length.setdefault(one, []).append(both)
        if any(len(some) >= count for some in by_length.values()):
            break
    chosen = max(by_length.values(), key=len, default=[])[:count]
    if len(chosen) < count:
        msg = (
            f"Of {drawn} candidates for matched pairs {len(chosen)} can be used with "
            f"{model.name}'s tokenizer, in which both kinds of prompt must have one length and "
            f"answers one token; {count} were asked for. All of them can be used with recall-4l."
        )
        raise InputError(msg)
    recall, reasoning = zip(*chosen, strict=True)
    return MatchedPairs(
        PromptSet("recall", "A capital, after two premises", seed, recall),
        PromptSet("reasoning", "The tallest or the shortest of three", seed, reasoning),
    )


_ROUNDS = 12
"""How often all countries are gone through; another tokenizer can use few of the candidates."""
_NAMES = (*SPECIAL, *trained.WORDS)
_PROPER = {*trained.PEOPLE, *trained.CAPITALS, *trained.CAPITALS.values()}


def _draw(generator: torch.Generator, step: int) -> Iterable[tuple[Pair, Pair]]:
    """Draw a pair of either kind for each country; corrupt is the country so many places on."""
    count = len(trained.CAPITALS)
    people = trained.draw_people(generator, count, held_out=True)
    directions = torch.rand(count, 2, generator=generator) < 0.5
    swapped, shortest = (trained.coins(generator, count) for _ in range(2))
    countries = torch.randperm(count, generator=generator)[:, None]
    exchanged = people.flip(1)
    premises = trained.puzzle(people, directions, swapped)
    turned = trained.puzzle(exchanged, directions, swapped)
    recall = [
        torch.cat([premises, trained.question_of_fact(asked)], 1)
        for asked in (countries, countries.roll(-step, 0))
    ]
    reasoning = [
        torch.cat([said, trained.question_of_height(who, shortest)], 1)
        for said, who in ((premises, people), (turned, exchanged))
    ]
    return zip(_pairs(*recall), _pairs(*reasoning), strict=True)


def _pairs(clean: Tensor, corrupt: Tensor) -> list[Pair]:
    """Read LongTensor[pair, pos], whose last two words are the answer and a full stop."""
    return [
        Pair(_text(one[:-2]), _text(other[:-2]), *(f" {_cased(end[-2])}" for end in (one, other)))
        for one, other in zip(clean.tolist(), corrupt.tolist(), strict=True)
    ]


def _text(ids: list[int]) -> str:
    sentences = " ".join(_cased(i) for i in ids).replace(" .", ".").split(". ")
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _cased(word: int) -> str:
    return _NAMES[word].capitalize() if _NAMES[word] in _PROPER else _NAMES[word]
