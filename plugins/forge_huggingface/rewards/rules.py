"""What can be said about a job's rewards before anything is imported, the user's own files included.

It goes into the plan beside the other rules of this plugin, so this module imports nothing heavy, and pydantic
only when a job has rewards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Decision, ForgeError, Problem, nearest
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
        say = 'write [[train.reward]] with use = "./rewards.py:function", the name of a built-in, or a reward model'
        yield Problem("train.reward", what, say)
        return
    for index, table in enumerate(tables):
        where = f"train.reward.{index}"
        if table.model is not None or table.use is None:
            yield from _model(job, table, where)
            continue
        if table.revision is not None:
            yield Problem(f"{where}.revision", "a function has no revision on the hub", "remove it")
        refers = reference(table.use)
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


def cannot_reward(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why a reward of the job cannot be computed, or None."""
    from packaging.requirements import Requirement

    from forge_huggingface.rewards.table import reward_tables  # loads pydantic

    for table in reward_tables(job):
        if table.model and facts.task == "vision":
            return f"[[train.reward]] model = {table.model}: reward models read text, and the rows may have images"
        builtin = BUILTINS.get(table.use or "")
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


def _model(job: Job, table: RewardTable, where: str) -> Iterable[Problem]:
    from forge_huggingface.facts.judge import KIND, judge_of  # only jobs with reward models pay for it

    if table.model is None:
        yield Problem(where, "it names no reward", f"write use, or model: {KIND}")
        return
    if table.use is not None:
        yield Problem(f"{where}.model", "use names a reward already", "keep one of them; two rewards are two tables")
        return
    if table.args:
        yield Problem(f"{where}.args", "a reward model takes none: it reads the prompt and the answer", "remove it")
    try:
        judge_of(table.model, table.revision, job.folder)
    except ForgeError as error:
        what = ": ".join(part for part in (error.what, error.why) if part)
        yield Problem(f"{where}.model", what, error.do)


def decide_rewards(job: Job) -> Iterable[Decision]:
    """Yield where the reward models of a job are: a name may stand for another run by tomorrow."""
    if not any(table.get("model") for table in job.train.options.get("reward") or ()):
        return
    from forge_huggingface.facts.judge import judge_of
    from forge_huggingface.rewards.table import names, reward_tables  # loads pydantic

    tables, about = reward_tables(job), []
    called = names(tables)
    for index, table in enumerate(tables):
        if table.model is None:
            continue
        try:
            found = judge_of(table.model, table.revision, job.folder)
        except ForgeError:  # it is told as a problem
            return
        local = found.facts.source == "folder" and found.folder is not None
        changes = {"model": str(found.folder)} if local else {"revision": found.facts.revision}
        tables[index] = table.model_copy(update={**changes, "name": called[index]})
        about.append(found.about)
    value = [table.model_dump(mode="json", exclude_none=True) for table in tables]
    yield Decision("train.reward", value, f"it stands for {'; '.join(about)}")


def _builtin(table: RewardTable, where: str) -> Iterable[Problem]:
    from forge.api import problems_of  # loads pydantic

    if builtin := BUILTINS.get(table.use or ""):
        yield from problems_of(builtin.load().Args, table.args, f"{where}.args")
        return
    near = nearest(str(table.use).replace("_", "-"), BUILTINS)
    there = f'there are: {", ".join(BUILTINS)}; a function of yours is "./rewards.py:function"'
    say = f'did you mean "{near}"?' if near else there
    yield Problem(f"{where}.use", f'there is no built-in reward "{table.use}"', say)
