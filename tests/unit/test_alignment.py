"""Two prompts side by side: partners go up, and cells without one are NaN."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchclamp.errors import InputError
from patchclamp.methods.alignment import (
    align_pattern,
    align_sources,
    by_position,
    by_tokens,
    check_partners,
    paired,
)

TOKENS = st.lists(st.integers(0, 4), min_size=1, max_size=30)


def test_the_same_positions_are_partners_as_far_as_both_prompts_go() -> None:
    assert by_position(3, 3) == [0, 1, 2]
    assert by_position(4, 2) == [0, 1, None, None]
    assert by_position(2, 4) == [0, 1]


def test_the_same_tokens_are_partners_around_what_was_put_in() -> None:
    assert by_tokens([1, 2, 3], [1, 2, 3]) == [0, 1, 2]
    assert by_tokens([1, 2, 9, 3], [1, 2, 3]) == [0, 1, None, 2]
    assert by_tokens([1, 2, 3], [1, 7, 8, 2, 3]) == [0, 3, 4]
    assert by_tokens([1, 2], [3, 4]) == [None, None]


def test_a_token_that_comes_often_in_a_long_prompt_has_its_partner_too() -> None:
    ids = [5, *([7, 8] * 150)]
    assert by_tokens(ids, ids[1:]) == [None, *range(300)]


@given(TOKENS, TOKENS)
def test_partners_by_tokens_are_equal_and_go_up(first: list[int], second: list[int]) -> None:
    partners = by_tokens(first, second)
    check_partners(partners, len(first), len(second))
    pairs = [(i, p) for i, p in enumerate(partners) if p is not None]
    assert all(first[i] == second[p] for i, p in pairs)
    assert all(a[1] < b[1] for a, b in pairwise(pairs))
    assert bool(pairs) == bool({*first} & {*second})


@given(TOKENS, TOKENS)
def test_an_aligned_pattern_has_the_second_ones_cells(first: list[int], second: list[int]) -> None:
    partners = by_tokens(first, second)
    pattern = torch.rand(2, len(second), len(second)).tril()
    aligned = align_pattern(pattern, partners)
    assert aligned.shape == (2, len(first), len(first))
    for t, row in enumerate(partners):
        for s, column in enumerate(partners):
            cells = aligned[:, t, s]
            if row is None or column is None:
                assert bool(cells.isnan().all())
            else:
                assert torch.equal(cells, pattern[:, row, column])
    present = ~aligned.isnan()
    assert torch.equal(aligned.nan_to_num().triu(1), torch.zeros_like(aligned))
    assert bool(present.any()) == any(p is not None for p in partners)


def test_nan_of_the_second_pattern_stays_and_the_pattern_itself_is_untouched() -> None:
    pattern = torch.eye(3)
    pattern[2, 0] = torch.nan
    before = pattern.clone()
    aligned = align_pattern(pattern, [0, None, 2])
    assert aligned.isnan().tolist() == [
        [False, True, False],
        [True, True, True],
        [True, True, False],
    ]
    assert torch.equal(pattern.nan_to_num(-1), before.nan_to_num(-1))


def test_some_rows_can_be_rearranged_alone() -> None:
    rows = torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    found = align_sources(rows, [2, None, 0][::-1])
    assert torch.equal(found[:, [0, 2]], rows[:, [0, 2]])
    assert bool(found[:, 1].isnan().all())


def test_a_pair_can_be_made_and_freed() -> None:
    start = [0, None, 2]
    assert paired(start, 1, 1, second=3) == [0, 1, 2]
    assert paired(start, 0, None, second=3) == [None, None, 2]
    assert paired(start, 2, 1, second=3) == [0, None, 1]
    assert start == [0, None, 2]


@pytest.mark.parametrize(
    ("position", "partner", "why"),
    [
        (1, 2, "must not cross"),
        (1, 0, "must not cross"),
        (0, 2, "must not cross"),
        (1, 3, "outside the second prompt"),
        (1, -1, "outside the second prompt"),
        (3, 1, "outside the prompt"),
        (-1, 1, "outside the prompt"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(position: int, partner: int, why: str) -> None:
    with pytest.raises(InputError, match=why):
        paired([0, None, 2], position, partner, second=3)


def test_an_alignment_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match="one partner"):
        check_partners([0, 1], 3, 3)
