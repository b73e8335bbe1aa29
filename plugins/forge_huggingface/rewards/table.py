"""``[[train.reward]]``: one table for each reward. Imported while jobs are planned: pydantic, and nothing heavier."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forge.api import NonEmpty, Table
from forge_huggingface.functions.reference import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.api import Job


class RewardTable(Table):
    """``[[train.reward]]``: what scores the completions. The weighted sum of all of them is the reward."""

    use: NonEmpty | None = Field(
        None,
        description="Name of a built-in reward, `package.module:function`, or `./rewards.py:function`: a file, "
        "relative to the job's folder.",
    )
    model: NonEmpty | None = Field(
        None,
        description="In place of `use`, a reward model: a run of `reward`, a folder, or a hub id. It reads the prompt "
        "and the answer, and its number is the score.",
    )
    revision: NonEmpty | None = Field(None, description="Branch, tag or commit of `model` on the hub.")
    weight: float = Field(1.0, description="What its score is multiplied by in the sum; 0 logs it only.")
    args: dict[str, Any] = Field(
        default_factory=dict, description="Settings of a built-in, or further keyword arguments of the function."
    )
    name: str | None = Field(
        None, pattern=r"^[\w][\w.-]*$", description="Name in logs; the function's name if it is missing."
    )


def called(table: RewardTable) -> str:
    """Return what a table names, as the job says it."""
    return table.use or table.model or "nothing"


def _named(table: RewardTable) -> str:
    if table.model:
        return re.sub(r"[^\w.-]+", "-", PurePath(table.model).name).lstrip("-.") or "model"
    refers = reference(called(table))
    return refers.function or refers.place


def reward_tables(job: Job) -> list[RewardTable]:
    """Return the rewards of a job, in the order of its file; none for a method that takes none."""
    return [RewardTable.model_validate(table) for table in job.train.options.get("reward") or ()]


def names(tables: Sequence[RewardTable]) -> list[str]:
    """Return the rewards' names in logs: each its own, so that two uses of one function can be told apart."""
    found: list[str] = []
    taken = {table.name for table in tables}
    for table in tables:
        base = table.name or _named(table)
        name, count = base, 1
        while not table.name and (name in found or name in taken):
            count += 1
            name = f"{base}-{count}"
        found.append(name)
    return found
