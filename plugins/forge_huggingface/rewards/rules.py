"""What can be said about a job's rewards before anything is imported, the user's own files included.

It goes into the plan beside the other rules of this plugin, so this module imports nothing heavy, and pydantic
only when a job has rewards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Problem, nearest
from forge_huggingface.functions.reference import reference
from forge_huggingface.rewards.builtin.registry import BUILTINS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts
    from forge_huggingface.rewards.table import RewardTable


def reward_problems(job: Job, *, judged: bool = False) -> Iterable[Problem]:
    """Yield what is wrong with ``[[train.reward]]``, for a method that learns from rewards.

    Args:
        job: The job.
        judged: Whether something else judges the answers too.
    """
    from forge_huggingface.rewards.table import reward_tables  # loads pydantic

    tables = reward_tables(job)
    if not tables and judged:
        return
    if not tables:
        what = f'method = "{job.train.method}" learns from rewards, and there is none'
        say = 'write [[train.reward]] with use = "./rewards.py:function" or the name of a built-in'
        yield Problem("train.reward", what, say)
        return
    for index, table in enumerate(tables):
        where, refers = f"train.reward.{index}", reference(table.use)
        if refers.kind == "builtin":
            yield from _builtin(table, where)
        else:
            from forge_huggingface.functions.rules import function_problems  # only functions of users pay for it

            yield from function_problems(job, refers, f"{where}.use", table.args, f"{where}.args")
    if not judged and all(table.weight == 0 for table in tables):
        zero = "its weight is 0" if len(tables) == 1 else "all weights are 0"
        yield Problem("train.reward.0.weight", f"{zero}, so nothing would be learned", "give one of them a weight")
    seen: dict[str, int] = {}
    for index, table in enumerate(tables):
        if table.name and table.name in seen:
            what = f"{table.name} is also the name of number {seen[table.name]}"
            yield Problem(f"train.reward.{index}.name", what, "give each a name of its own")
        elif table.name:
            seen[table.name] = index + 1


def cannot_reward(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001 - the probe's signature
    """Return why the machine cannot compute a built-in reward of the job, or None."""
    from packaging.requirements import Requirement

    from forge_huggingface.rewards.table import reward_tables  # loads pydantic

    for table in reward_tables(job):
        builtin = BUILTINS.get(table.use)
        if builtin and builtin.requires_dist:
            needed, pip = Requirement(builtin.requires_dist), f"pip install {builtin.install}"
            there = machine.versions.get(needed.name)
            if there is None:
                return f"[[train.reward]] {table.use} needs {needed.name}, which is not installed ({pip})"
            if not needed.specifier.contains(there, prereleases=True):
                return f"[[train.reward]] {table.use} needs {needed}, and {there} is installed ({pip})"
        open_ = ("allow_network", "allow_processes")
        if table.use == "code-tests" and machine.platform != "linux" and not all(map(table.args.get, open_)):
            return (
                f"[[train.reward]] code-tests runs what the model writes, and on {machine.platform} forge cannot cut "
                "it off from the network, keep it from your other processes or limit its memory; use Linux, or write "
                "args = { allow_network = true, allow_processes = true }"
            )
    return None


def _builtin(table: RewardTable, where: str) -> Iterable[Problem]:
    from forge.api import problems_of  # loads pydantic

    if builtin := BUILTINS.get(table.use):
        yield from problems_of(builtin.load().Args, table.args, f"{where}.args")
        return
    near = nearest(table.use.replace("_", "-"), BUILTINS)
    there = f'there are: {", ".join(BUILTINS)}; a function of yours is "./rewards.py:function"'
    say = f'did you mean "{near}"?' if near else there
    yield Problem(f"{where}.use", f'there is no built-in reward "{table.use}"', say)
