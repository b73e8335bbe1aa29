"""What is looked at before a model is loaded: what the model may call, and the rows that its environments are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Finding, UsageError, did_you_mean
from forge_huggingface.acting.guard import resets
from forge_huggingface.acting.load import load
from forge_huggingface.acting.rules import REWARD
from forge_huggingface.rewards import preflight
from forge_huggingface.rewards.table import names, reward_tables
from forge_huggingface.rows import put_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.api import Data, Job, Run
    from forge_huggingface.acting.load import Acting

WHICH = "environment"
"""The column that says which environment is a row's own."""


def findings(job: Job, run: Run, data: Data) -> Iterable[Finding]:
    """Yield an error for each reward that cannot use a row, and for rows that an environment cannot begin with.

    Raises:
        UsageError: A function or class cannot be found, imported or called, or this machine cannot do what it needs.
    """
    acting = load(job)
    if acting is not None:
        _check_rewards(job, acting)
        for rows in (data.train, *data.eval.values()):
            yield from unfit(acting, rows)
        if job.eval is not None:
            what = "[eval] asks the model without what it may call: its answers are not those that it was trained for"
            yield Finding("warning", what, "with tools, held-out rows are judged while it trains: eval_reward")
    yield from preflight.findings(job, run, data)


def unfit(acting: Acting, rows: Iterable[Mapping[str, Any]]) -> Iterable[Finding]:
    """Yield the first row that an environment cannot begin with."""
    for stored in rows if acting.environments else ():
        row = put_back(stored)
        origin, name = row.get("origin", "a row"), row.get(WHICH) if acting.several else None
        if name not in acting.environments:
            there = ", ".join(map(str, acting.environments))
            what = f"{origin} has no column {WHICH}" if name is None else f"{origin}: there is no environment {name!r}"
            yield Finding("error", what, f"with several environments a row names its own: {there}")
            return
        kind = acting.environments[name]
        for column in resets(kind.reset).required:  # type: ignore[attr-defined]  # it was looked for
            if column not in row:
                say = did_you_mean(column, row, f"there are {', '.join(sorted(row))}")
                what = f"{origin} has no column {column}, which {kind.__name__}.reset needs"
                yield Finding("error", what, f"{say}; rename it with [data] columns, or give it a default")
                return


def _check_rewards(job: Job, acting: Acting) -> None:
    """Refuse a job in which nobody judges answers, and environments whose scores would be logged as another reward's.

    Raises:
        UsageError: It is so.
    """
    tables = reward_tables(job)
    kinds = [kind for kind in acting.environments.values() if hasattr(kind, REWARD)]
    if not tables and not kinds:
        what = f"nobody judges the answers: no environment has a method {REWARD}, and there is no [[train.reward]]"
        raise UsageError(what, None, "write one of them")
    taken = [*names(tables), *(kind.__name__ for kind in dict.fromkeys(kinds))]
    if twice := next((name for name in taken if taken.count(name) > 1), None):
        raise UsageError(f"two rewards are called {twice}", None, "name the [[train.reward]], or rename the class")
