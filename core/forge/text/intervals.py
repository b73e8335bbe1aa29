"""How much a number can be trusted: standard errors and 95 % intervals over the rows that were asked.

Two models answer the same rows, so their difference is taken row by row: that is far surer than the difference of two
separate numbers. Shares of yes and no get Wilson's score interval, and their difference Newcombe's for paired
proportions (1998, Statistics in Medicine 17, 2635-2650, method 10), since a bootstrap of 24 right answers out of 24
would say that nothing is left to chance. Everything else is bootstrapped over rows (Efron 1979), percentiles, seeded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


_Z = 1.959963984540054  # of the 95 % interval
_RESAMPLES = 2000
_AT_ONCE = 2_000_000  # drawn indices in memory


def summary(
    values: Sequence[float | None], *, seed: int, weights: Sequence[float] | None = None, binary: bool = False
) -> dict[str, Any]:
    """Return the mean of a metric's values with what chance may have done to it.

    Args:
        values: One for each row; None does not count.
        seed: For the bootstrap.
        weights: How much each row counts, for means over tokens: ``sum(values) / sum(weights)``.
        binary: Whether the values are 0 and 1 only.

    Returns:
        ``value``, ``stderr``, ``low``, ``high``, ``n`` (rows that count).
    """
    kept = [(value, weights[at] if weights else 1.0) for at, value in enumerate(values) if value is not None]
    if not kept:
        return {"value": None, "stderr": None, "low": None, "high": None, "n": 0}
    sums, totals = [value for value, _ in kept], [weight for _, weight in kept]
    mean, count = sum(sums) / sum(totals), len(kept)
    if binary:
        low, high = wilson(sum(sums), count)
        error = math.sqrt(mean * (1 - mean) / count)
    else:
        low, high, error = bootstrap(sums, totals, seed)
    return {"value": mean, "stderr": error, "low": low, "high": high, "n": count}


def difference(
    first: Sequence[float | None],
    second: Sequence[float | None],
    *,
    seed: int,
    weights: Sequence[float] | None = None,
    binary: bool = False,
) -> dict[str, Any]:
    """Return by how much the second model's mean is above the first's, on the rows that count for both."""
    rows = [
        (one, other, weights[at] if weights else 1.0)
        for at, (one, other) in enumerate(zip(first, second, strict=True))
        if one is not None and other is not None
    ]
    if not rows:
        return {"value": None, "stderr": None, "low": None, "high": None, "n": 0}
    gains, totals = [other - one for one, other, _ in rows], [weight for _, _, weight in rows]
    low, high, error = bootstrap(gains, totals, seed)
    if binary:
        low, high = newcombe([other for _, other, _ in rows], [one for one, _, _ in rows])
    value = sum(gains) / sum(totals)
    return {"value": value, "stderr": error, "low": low, "high": high, "n": len(rows)}


def wilson(right: float, count: int) -> tuple[float, float]:
    """Return Wilson's score interval of a share (Wilson 1927)."""
    share, square = right / count, _Z * _Z
    centre = (right + square / 2) / (count + square)
    half = _Z / (count + square) * math.sqrt(count * share * (1 - share) + square / 4)
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))  # rounding puts 0 beside 0


def newcombe(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the difference of two shares on the same rows: the first's less the second's."""
    count = len(first)
    both = sum(1 for a, b in zip(first, second, strict=True) if a and b)
    only_first, only_second = int(sum(first)) - both, int(sum(second)) - both
    neither = count - both - only_first - only_second
    p, q = sum(first) / count, sum(second) / count
    (p_low, p_high), (q_low, q_high) = wilson(sum(first), count), wilson(sum(second), count)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    product = both * neither - only_first * only_second
    # The method's correction for continuity.
    corrected = max(product - count / 2, 0.0) if product > 0 else float(product)
    correlation = corrected / math.sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))

    return p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)


def bootstrap(sums: Sequence[float], totals: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Return the 95 % interval and the standard error of ``sum(sums) / sum(totals)`` over drawn rows."""
    import numpy

    count = len(sums)
    above, below = numpy.asarray(sums, dtype=float), numpy.asarray(totals, dtype=float)
    rng = numpy.random.default_rng(seed)
    means: list[Any] = []
    step = max(1, _AT_ONCE // count)
    for begin in range(0, _RESAMPLES, step):
        drawn = rng.integers(count, size=(min(step, _RESAMPLES - begin), count))
        means.append(above[drawn].sum(1) / below[drawn].sum(1))
    found = numpy.concatenate(means)
    low, high = numpy.quantile(found, (0.025, 0.975))
    return float(low), float(high), float(found.std(ddof=1))
