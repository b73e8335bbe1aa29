"""Where two texts, or two rows of tokens, part."""

from __future__ import annotations

import doctest

import pytest

from forge_huggingface import rows
from forge_huggingface.rows import parting


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [("abc", "abd", 2), ("ab", "abc", 2), ("abc", "ab", 2), ("", "a", 0), ([1, 2], [1, 2], 2)],
)
def test_texts_part_at_the_first_difference_or_where_the_shorter_ends(first, second, place) -> None:
    assert parting(first, second) == place


def test_the_example_is_true() -> None:
    assert doctest.testmod(rows).failed == 0
