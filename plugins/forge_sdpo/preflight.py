"""What is looked at once the rows are there, before a model is loaded: prompts, columns, and what rewards can reach."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from forge.api import DataError, Finding
from forge_huggingface.rewards.table import reward_tables
from forge_huggingface.rows import put_back
from forge_sdpo.context import question_of
from forge_sdpo.options import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from forge.api import Data, Job, Run
    from forge_sdpo.options import Sdpo

EDGE = 0.05
"""An alpha nearer to 0 or 1 than this is probably meant to be 0 or 1."""


def findings(job: Job, run: Run, data: Data) -> Iterable[Finding]:  # noqa: ARG001 - the contract's signature
    """Yield what would make an SDPO run fail, or learn little."""
    settings = settings_of(job)
    yield from prompts(data.train, settings)
    for rows in data.eval.values():
        yield from prompts(rows, settings)
    yield from threshold([table.weight for table in reward_tables(job)], settings)
    if settings.teacher == "live":
        yield Finding(
            "warning",
            "the teacher has the student's present weights: in the paper (Table 4) such runs diverged",
            'take teacher = "trust-region", "ema" or "frozen"',
        )
    if settings.alpha is not None and (0 < settings.alpha < EDGE or 1 - EDGE < settings.alpha < 1):
        end = round(settings.alpha)
        yield Finding(
            "warning",
            f"alpha = {settings.alpha:g} is not nearly {end}: between 0 and 1 the divergence goes to 0 at both ends",
            f"write {end}, or something like 0.5",
        )


def prompts(rows: Iterable[Mapping[str, Any]], settings: Sdpo) -> Iterable[Finding]:
    """Yield the first row whose prompt a teacher could not be shown, or which lacks the column with feedback."""
    for stored in rows:
        row = put_back(stored)
        origin = row.get("origin", "a row")
        if settings.feedback_column is not None and settings.feedback_column not in row:
            there = ", ".join(name for name in row if name not in {"prompt", "origin"}) or "none"
            yield Finding("error", f"{origin} has no column {settings.feedback_column}", f"there are: {there}")
            return
        if isinstance(row["prompt"], str):
            continue
        try:
            question_of(row["prompt"])
        except DataError as error:
            yield Finding("error", f"{origin}: {error.what}: {error.why}", error.do)
            return


def threshold(weights: Sequence[float], settings: Sdpo) -> Iterable[Finding]:
    """Yield a warning if no rollout can be a demonstration, supposing that each function gives 1 at the most."""
    highest, needed = sum(weight for weight in weights if weight > 0), settings.success_reward_threshold
    if settings.use_successful_as_teacher and highest < needed and not math.isclose(highest, needed):
        yield Finding(
            "warning",
            f"if every reward gives 1 at the most, their weighted sum is {highest:g} at the most, and "
            f"success_reward_threshold = {needed:g} is never reached: no rollout would be a demonstration",
            "lower the threshold, or raise the weights",
        )
