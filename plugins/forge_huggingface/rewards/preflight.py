"""What is looked at before a model is loaded: that reward functions can be had, and rows used by them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from forge.api import Finding, did_you_mean
from forge_huggingface.functions.signature import GIVEN
from forge_huggingface.rewards.load import load
from forge_huggingface.rows import put_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.api import Data, Job, Run
    from forge_huggingface.rewards.reward import Reward


_FIRST = 8  # of rows whose number nobody knows


def findings(job: Job, run: Run, data: Data) -> Iterable[Finding]:
    """Yield an error for each reward that cannot use a row.

    Raises:
        UsageError: A function cannot be found, imported or called, or this machine cannot do what it needs.
    """
    rewards = load(job, run)
    for rows in (data.train, *data.eval.values()):
        yield from lacking(rewards, rows)


def lacking(rewards: Iterable[Reward], rows: Iterable[Mapping[str, Any]]) -> Iterable[Finding]:
    """Yield, for each reward, the first row that it cannot use; of a stream, only the first are read."""
    left, told = list(rewards), False
    for number, stored in enumerate(rows if hasattr(rows, "__len__") else islice(rows, _FIRST), 1):
        row = put_back(stored)
        if not told and (taken := sorted(GIVEN.intersection(row))):
            told = True
            yield Finding(
                "warning",
                f"no reward sees the column {', '.join(taken)}: the trainer gives rewards something of that name",
                f'rename it: [data] columns = {{ … = "{taken[0]}" }}, or in the file',
            )
        if not left:
            return
        there = sorted(name for name in row if name not in {"prompt", "origin"})
        for reward in list(left):
            column = next((name for name in reward.columns if name not in row), None)
            origin = row.get("origin", f"row {number}")
            if column is None:
                if reward.row_fault and (fault := reward.row_fault(row)):
                    left.remove(reward)
                    yield Finding("error", f"{origin}: {fault} ({reward.name}, {reward.place})", "mend the row")
                continue
            left.remove(reward)
            have = f"there are {', '.join(there)}" if there else "there is none but the prompt"
            yield Finding(
                "error",
                f"{origin} has no column {column}, which the reward {reward.name} needs "
                f"({reward.place}); {did_you_mean(column, there, have)}",
                "rename it with [data] columns, or name it in the reward's args",
            )
