"""Fill rows of one length with several short ones.

Padding is work without learning. Best-fit decreasing puts each row, the longest first, where the least room is left,
and needs no more than a few per cent above the fewest rows possible. Rows are never cut, and are kept apart later by
their lengths (see :mod:`forge_huggingface.batches.tokens`). Of a stream a buffer of rows is packed at a time.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


_ROWS = 512
_PACKS = 16


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return which rows go together.

    The result depends on nothing but the arguments. Rows keep their order within a pack, and packs are ordered by
    their first row, so that the data's own order is disturbed as little as may be.

    Args:
        lengths: The rows' lengths, each at most ``capacity``.
        capacity: The room of a pack.
    """
    room: list[int] = []  # the different amounts of room left, ascending
    packs: dict[int, list[list[int]]] = {}  # room left: the packs that have it
    done: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"row {index} has {length} tokens and a pack holds {capacity}")
        at = bisect_left(room, length)
        if at < len(room):
            left = room[at]
            chosen = packs[left].pop()
            if not packs[left]:
                del packs[left], room[at]
        else:
            left, chosen = capacity, []
            done.append(chosen)
        chosen.append(index)
        left -= length
        if left:
            if left not in packs:
                packs[left] = []
                insort(room, left)
            packs[left].append(chosen)
    for chosen in done:
        chosen.sort()
    done.sort(key=lambda chosen: chosen[0])
    return done


def joined(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return the columns of a pack."""
    columns = {name: list(chain.from_iterable(row[name] for row in rows)) for name in ("input_ids", "labels")}
    return {**columns, "seq_lengths": [len(row["input_ids"]) for row in rows]}


def packed(rows: Iterable[Mapping[str, Any]], capacity: int) -> Iterator[dict[str, list[int]]]:
    """Yield the packs of a stream of rows.

    A buffer of at least 512 rows, and of tokens for 16 packs, is packed at a time. Its emptiest pack is taken apart
    again, and its rows begin the next buffer. What comes out depends on the rows and their order alone.

    Args:
        rows: The rows, each of at most ``capacity`` tokens.
        capacity: The room of a pack.
    """
    rest, more = iter(rows), True
    waiting: list[Mapping[str, Any]] = []
    while more:
        tokens = sum(len(row["input_ids"]) for row in waiting)
        while more and (len(waiting) < _ROWS or tokens < _PACKS * capacity):
            row = next(rest, None)
            if row is None:
                more = False
            else:
                waiting.append(row)
                tokens += len(row["input_ids"])
        lengths = [len(row["input_ids"]) for row in waiting]
        packs = pack(lengths, capacity)
        emptiest: list[int] = []
        if more:
            emptiest = min(packs, key=lambda chosen: sum(lengths[index] for index in chosen))
            packs.remove(emptiest)
        for chosen in packs:
            yield joined([waiting[index] for index in chosen])
        waiting = [waiting[index] for index in emptiest]
