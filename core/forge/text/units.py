"""Numbers for people: bytes, counts, durations."""

from __future__ import annotations


def size(count: float | None) -> str:
    """Return a number of bytes for people."""
    if count is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def amount(count: float | None) -> str:
    """Return a count for people: 135 M, 1.2 B."""
    if count is None:
        return "unknown"
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:g}"


def counted(number: int, what: str) -> str:
    """Return a number of things for people: 1 row, 2 rows."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """Return a duration for people: 42 s, 3:07, 2:05:00."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def times(ratio: float) -> str:
    """Return a ratio for people: 1.3 times."""
    return f"{ratio:.{2 if ratio < 0.95 else 1 if ratio < 10 else 0}f} times"


def percent(share: float) -> str:
    """Return a share for people: 86 %."""
    return "under 1 %" if 0 < share < 0.01 else f"{share * 100:.0f} %"


def cut(rows: int, of_rows: float | None, of_all: float | None) -> str:
    """Return how much of the rows was cut off.

    Args:
        rows: How many rows were cut.
        of_rows: The share of their own tokens that they lost; None if nobody counted.
        of_all: The share of all tokens.
    """
    said = counted(rows, "row")
    if of_rows is None or of_all is None:
        return said
    return f"{said}, {percent(of_rows)} of {'its' if rows == 1 else 'their'} tokens, {percent(of_all)} of all"
