"""Packs: every row is in one, and little room is left."""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_huggingface.data.packing import pack, packed

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def numbered(count: int) -> Iterator[dict[str, Any]]:
    """Yield rows that tell which they are: the number is their first token."""
    rng = random.Random(0)
    for number in range(count):
        ids = [number, *range(rng.randint(1, 30))]
        yield {"input_ids": ids, "labels": [-100, *ids[1:]]}


@pytest.mark.parametrize("count", [0, 1, 40, 511, 512, 513, 2000])
def test_packs_of_a_stream_hold_every_row_once_and_apart(count: int) -> None:
    found = []
    for row in packed(numbered(count), 64):
        assert sum(row["seq_lengths"]) == len(row["input_ids"]) == len(row["labels"]) <= 64
        start = 0
        for length in row["seq_lengths"]:
            found.append((row["input_ids"][start : start + length], row["labels"][start : start + length]))
            start += length
    assert sorted(found) == sorted((row["input_ids"], row["labels"]) for row in numbered(count))


def test_packs_of_a_stream_are_full_and_the_same_each_time() -> None:
    packs = list(packed(numbered(5000), 64))
    assert packs == list(packed(numbered(5000), 64))
    assert sum(len(each["input_ids"]) for each in packs) / (64 * len(packs)) > 0.98


def test_packing_a_stream_reads_no_further_than_it_must() -> None:
    rows = numbered(10**6)
    assert len(list(islice(packed(rows, 64), 10))) == 10
    assert next(rows)["input_ids"][0] == 512
    rows = numbered(10**6)  # short rows in large packs: 16 of them are filled before any is given
    next(packed(rows, 4096))
    assert 16 * 4096 / 32 < next(rows)["input_ids"][0] < 16 * 4096 / 12
