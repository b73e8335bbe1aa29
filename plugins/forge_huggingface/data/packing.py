"""Fill rows of one length with several short ones.

Padding is work without learning. Best-fit decreasing puts each row, the longest first, where the least room is left,
and needs no more than a few per cent above the fewest rows possible. Rows are never cut, and are kept apart later by
their lengths (see :mod:`forge_huggingface.batches.tokens`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


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
