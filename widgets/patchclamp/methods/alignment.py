"""Which token of a second prompt stands for which of the first, and patterns put side by side.

An alignment is a list of partners: for each position of the first prompt a position of the second
one, or None. Partners go up strictly, so that what comes earlier stays earlier and the causal
triangle of an aligned pattern stays one.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    Partners = Sequence[int | None]


def by_position(length: int, second: int) -> list[int | None]:
    """Pair the same positions of prompts of two lengths.

    >>> by_position(4, 3)
    [0, 1, 2, None]
    """
    return [position if position < second else None for position in range(length)]


def by_tokens(ids: Sequence[int], second: Sequence[int]) -> list[int | None]:
    """Pair the tokens that are the same, longest runs first (Ratcliff and Metzener, 1988).

    The longest common run is paired first, then the longest ones to its left and to its right, and
    so on. Where two stretches between paired tokens have the same length, their tokens stay without
    partners: they differ.

    Args:
        ids: the first prompt's token ids.
        second: the second one's.

    >>> by_tokens([9, 1, 2, 3], [1, 7, 2, 3])
    [None, 0, 2, 3]
    """
    partners: list[int | None] = [None] * len(ids)
    # Without autojunk: it would leave out tokens that come often in a long prompt.
    matcher = SequenceMatcher(None, list(ids), list(second), autojunk=False)
    for mine, theirs, size in matcher.get_matching_blocks():
        partners[mine : mine + size] = range(theirs, theirs + size)
    return partners


def paired(
    partners: Partners, position: int, partner: int | None, *, second: int
) -> list[int | None]:
    """Give a position another partner, or none.

    Args:
        partners: the alignment so far.
        position: which position of the first prompt.
        partner: its partner in the second prompt; None for none.
        second: how many tokens the second prompt has.

    Raises:
        InputError: when there is no such position, or the pair would cross another one.

    >>> paired([0, None, 2], 1, 1, second=3)
    [0, 1, 2]
    """
    if not 0 <= position < len(partners):
        msg = f"Position {position} is outside the prompt (0 to {len(partners) - 1})."
        raise InputError(msg)
    changed = [*partners[:position], partner, *partners[position + 1 :]]
    check_partners(changed, len(partners), second)
    return changed


def check_partners(partners: Partners, length: int, second: int) -> None:
    """Say what is wrong with an alignment of prompts of two lengths.

    Raises:
        InputError: when it has another length, names a position that is not there, or pairs cross.
    """
    if len(partners) != length:
        msg = f"An alignment needs one partner (or None) for each of {length} tokens."
        raise InputError(msg)
    before: tuple[int, int] | None = None
    for position, partner in enumerate(partners):
        if partner is None:
            continue
        if not 0 <= partner < second:
            msg = f"Position {partner} is outside the second prompt (0 to {second - 1})."
            raise InputError(msg)
        if before is not None and partner <= before[1]:
            msg = (
                f"Position {position} cannot be paired with {partner} of the second prompt while "
                f"{before[0]} is paired with {before[1]}: pairs must not cross. Free one first."
            )
            raise InputError(msg)
        before = position, partner


def align_pattern(second: Tensor, partners: Partners) -> Tensor:
    """Rearrange a pattern of the second prompt to the first one's positions.

    Args:
        second: Float[..., dest, source], the second prompt's pattern, whole.
        partners: the alignment.

    Returns:
        Float[..., dest, source], a cell for each two positions of the first prompt; NaN where one
        of them has no partner.
    """
    where = torch.tensor([0 if p is None else p for p in partners], device=second.device)
    rows = align_sources(second.index_select(-2, where), partners)
    return rows.masked_fill(_alone(partners, second)[:, None], torch.nan)


def align_sources(rows: Tensor, partners: Partners) -> Tensor:
    """Rearrange only the sources of some rows: Float[..., source] of the second prompt."""
    where = torch.tensor([0 if p is None else p for p in partners], device=rows.device)
    return rows.index_select(-1, where).masked_fill(_alone(partners, rows), torch.nan)


def _alone(partners: Partners, like: Tensor) -> Tensor:
    return torch.tensor([p is None for p in partners], device=like.device)
