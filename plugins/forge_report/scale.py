"""Numbers on a chart: round ticks, logarithmic axes, fewer points, and the mean of noisy ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


TINY = 1e-290
"""Below it, numbers lose their digits."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis: from values to the share of its length, 0 to 1.

    Attributes:
        low: The value at 0.
        high: The value at 1.
        ticks: Where to draw lines, in order.
        log: Whether the axis is logarithmic.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return where a value lies."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def labels(self) -> list[str]:
        """Return the ticks as text, with the digits that tell them apart."""
        if self.log:
            return [short(tick) for tick in self.ticks]
        largest = max(abs(self.low), abs(self.high))
        if largest < 1e-3:
            return [short(tick) for tick in self.ticks]
        unit, name = (1e6, " M") if largest >= 2e6 else (1e3, " k") if largest >= 1e4 else (1.0, "")
        apart = min((after - before for before, after in pairwise(self.ticks)), default=1.0)
        digits = next(
            (
                digits
                for digits in range(12)
                if all(abs(round(tick / unit, digits) - tick / unit) < apart / unit * 1e-3 for tick in self.ticks)
            ),
            12,
        )
        return [f"{tick / unit:.{digits}f}{name if tick else ''}" for tick in self.ticks]


def linear(values: Iterable[float], *, zero: bool = False, whole: bool = False, count: int = 4) -> Scale:
    """Return an axis that holds all values and ends at round ones.

    Args:
        values: Finite values; there is at least one.
        zero: Whether the axis begins at 0.
        whole: Whether ticks are whole numbers and the axis ends at the values themselves, as for steps.
        count: About how many spaces there are between ticks.
    """
    seen = list(values)
    low, high = min(seen), max(seen)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= max(abs(low), abs(high)) * 1e-9 or high - low < TINY:
        room = abs(low) * 0.1 if abs(low) > TINY else 1.0
        low, high = (low - 1, high + 1) if whole else (low if zero else low - room, high + room)
    apart = nice((high - low) / count)
    if whole:
        apart = float(max(1, math.ceil(apart)))  # 2.5 is round, and no number of steps
        ticks = _between(low, high, apart)
        return Scale(low, high, ticks)
    low, high = math.floor(low / apart + 1e-9) * apart, math.ceil(high / apart - 1e-9) * apart
    return Scale(low, high, _between(low, high, apart))


def logarithmic(values: Iterable[float], count: int = 5) -> Scale:
    """Return a logarithmic axis for values that :func:`spread` holds for; it ends at 1, 2 or 5 times a power of 10."""
    seen = list(values)
    first, last = math.floor(math.log10(min(seen)) - 1e-9), math.ceil(math.log10(max(seen)) + 1e-9)
    round_ = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    low = max(each for each in round_ if each <= min(seen) * 1.001)
    high = min(each for each in round_ if each >= max(seen) * 0.999)
    if last - first <= 2:
        ticks = round_
    else:
        every = math.ceil((last - first) / count)
        ticks = [10.0**power for power in range(first, last + 1, every)]
    return Scale(low, high, tuple(tick for tick in ticks if low <= tick <= high), log=True)


def spread(values: Sequence[float]) -> bool:
    """Whether finite values differ so much that only a logarithmic axis shows the small ones."""
    if not values or min(values) <= 0:
        return False
    return max(values) > 20 * sorted(values)[len(values) // 2]


def nice(value: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is not below a value."""
    power = 10.0 ** math.floor(math.log10(max(value, TINY)))
    return next((step * power for step in (1, 2, 2.5, 5) if step * power >= value * (1 - 1e-9)), 10 * power)


def smooth(values: Sequence[float], window: int, at: Iterable[int], *, log: bool = False) -> list[float]:
    """Return the mean over a window around some of the values, the geometric mean where the axis is logarithmic.

    A window on both sides does not lag behind as an exponential mean does, so the line can be compared with held-out
    values at the same step. It ends where the values do, and NaN does not count.

    Args:
        values: The values.
        window: How many of them a mean is of.
        at: The indexes that a mean is wanted for.
        log: Whether to take the geometric mean; then all values are positive.
    """
    sums = [0.0, *accumulate(0.0 if value != value else math.log(value) if log else value for value in values)]
    counts = [0, *accumulate(value == value for value in values)]
    half, found = window // 2, []
    for index in at:
        begin, end = max(0, index - half), min(len(values), index + half + 1)
        many = counts[end] - counts[begin]
        mean = (sums[end] - sums[begin]) / many if many else math.nan
        found.append(math.exp(mean) if log else mean)
    return found


def thin(x: Sequence[int], y: Sequence[float], buckets: int) -> tuple[list[int], list[float]]:
    """Return fewer points that draw the same picture: the lowest and the highest of each part of the line.

    A peak of a single step stays to be seen, as means or every n-th point would not show it (M4, Jugel et al. 2014,
    https://doi.org/10.14778/2732951.2732953, without the first and last of each part). A part with a value that is
    NaN keeps one of those too, so that the line breaks there.
    """
    if len(x) <= 2 * buckets:
        return list(x), list(y)
    keep: set[int] = {0, len(x) - 1}
    for part in range(buckets):
        begin, end = part * len(x) // buckets, (part + 1) * len(x) // buckets
        values = y[begin:end]
        finite = [value for value in values if value == value]
        if finite:
            keep |= {begin + values.index(min(finite)), begin + values.index(max(finite))}
        if len(finite) < len(values):
            keep.add(begin + next(index for index, value in enumerate(values) if value != value))
    chosen = sorted(keep)
    return [x[index] for index in chosen], [y[index] for index in chosen]


def short(value: float) -> str:
    """Return a number for people: four significant digits, 12,300, 2.5e-4; ``not finite`` for NaN."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 1e-3:
        return f"{value:.4g}"
    mantissa, _, power = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def _between(low: float, high: float, apart: float) -> tuple[float, ...]:
    first, last = math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9)
    return tuple(index * apart for index in range(first, last + 1))
