"""Speed: what is taken for a backend where nothing has run on the machine."""

from __future__ import annotations

from forge_huggingface.speed.pace import RATES
from parts.markdown import table


def rates() -> str:
    """The shares of the limit and the start-up, by backend."""
    head = ("loaded by", "start, s", "1 B", "1 B, checkpointing", "8 B", "8 B, checkpointing")
    rows = (
        (f"`{name}`", f"{rate.start:g}", *(f"{share:.0%}".replace("%", " %") for share in (*rate.small, *rate.large)))
        for name, rate in RATES.items()
    )
    return table(head, rows)
