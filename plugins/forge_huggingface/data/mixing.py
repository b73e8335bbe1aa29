"""How several sources are mixed: by how often each row is seen, or by a source's share of all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import DataError

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from forge.api import DataTable, Source


def weights(data: DataTable, counts: Sequence[int]) -> list[float]:
    """Return how often the rows of each source are seen in an epoch.

    >>> from forge.api import DataTable
    >>> sources = [{"path": "a", "share": 0.5}, {"path": "b", "share": 0.5}]
    >>> weights(DataTable(sources=sources), [100, 400])
    [1.0, 0.25]
    >>> weights(DataTable(sources=sources, stopping_strategy="all_exhausted"), [100, 400])
    [4.0, 1.0]

    Args:
        data: ``[data]``, whose sources have a weight, or a share of the mixture.
        counts: How many rows each of them has.

    Raises:
        DataError: A source has none, and a share.
    """
    sources = data.all_sources()
    shares = [source.share for source in sources if source.share is not None]
    if not shares:
        return [source.weight for source in sources]
    if not all(counts):
        empty = sources[list(counts).index(0)]
        raise DataError(f"no rows of {empty.path} are left", f"its share is to be {empty.share:g}", "remove the source")
    lengths = [count / share for count, share in zip(counts, shares, strict=True)]  # of a mixture that uses each up
    length = max(lengths) if data.stopping_strategy == "all_exhausted" else min(lengths)
    return [length / each for each in lengths]


def mixed(parts: Sequence[Sequence[int]], weights: Sequence[float], rng: random.Random) -> list[int]:
    """Return the rows of an epoch: each as often as its source's weight says, the rest of a share drawn once."""
    order: list[int] = []
    for part, weight in zip(parts, weights, strict=True):
        whole, rest = divmod(weight, 1)
        order += list(part) * int(whole)
        if rest:
            order += sorted(rng.sample(list(part), round(len(part) * rest)))
    return order


def whole(source: Source, **changes: Any) -> Source:
    """Return a source of which every row counts once, as held-out ones do, with other changes."""
    return source.model_copy(update={"weight": 1.0, "share": None, "max_rows": None, "draw_rows": None, **changes})
