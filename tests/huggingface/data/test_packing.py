"""Packs: every row is in one, and little room is left."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_huggingface.data.packing import pack

if TYPE_CHECKING:
    pass


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 40))
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_pack_that_holds_it(lengths: list[int], capacity: int) -> None:
    packs = pack(lengths, capacity)
    assert sorted(index for chosen in packs for index in chosen) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in chosen) <= capacity for chosen in packs)
    assert all(chosen == sorted(chosen) for chosen in packs)
    assert packs == sorted(packs)
    assert len(packs) <= 11 / 9 * -(-sum(lengths) // capacity) * 1.5 + 1


def test_packing_leaves_little_room() -> None:
    rng = random.Random(0)
    lengths = [rng.randint(10, 700) for _ in range(3000)]
    assert len(pack(lengths, 2048)) <= -(-sum(lengths) // 2048) * 1.01


def test_a_row_longer_than_a_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 9 tokens"):
        pack([3, 9], 8)
