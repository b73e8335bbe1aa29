"""``[[train.reward]]``: one table for each reward. Imported while jobs are planned: pydantic, and nothing heavier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from forge.api import NonEmpty, Table
from forge_huggingface.functions.reference import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.api import Job


class RewardTable(Table):
    """``[[train.reward]]``: what scores the completions. The weighted sum of all of them is the reward."""

    use: NonEmpty = Field(
        description="Name of a built-in reward, `package.module:function`, or `./rewards.py:function`: a file, "
        "relative to the job's folder."
    )
    weight: float = Field(1.0, description="What its score is multiplied by in the sum; 0 logs it only.")
    args: dict[str, Any] = Field(
        default_factory=dict, description="Settings of a built-in, or further keyword arguments of the function."
    )
    name: str | None = Field(
        None, pattern=r"^[\w][\w.-]*$", description="Name in logs; the function's name if it is missing."
    )


def reward_tables(job: Job) -> list[RewardTable]:
    """Return the rewards of a job, in the order of its file; none for a method that takes none."""
    return [RewardTable.model_validate(table) for table in job.train.options.get("reward") or ()]


def names(tables: Sequence[RewardTable]) -> list[str]:
    """Return the rewards' names in logs: each its own, so that two uses of one function can be told apart."""
    found: list[str] = []
    taken = {table.name for table in tables}
    for table in tables:
        refers = reference(table.use)
        base = table.name or refers.function or refers.place
        name, count = base, 1
        while not table.name and (name in found or name in taken):
            count += 1
            name = f"{base}-{count}"
        found.append(name)
    return found
