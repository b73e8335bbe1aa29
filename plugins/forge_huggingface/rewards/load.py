"""From ``[[train.reward]]`` to rewards that can score: in the worker, before any model is loaded.

A file of the user's is imported under a name of its own, so that ``rewards.py`` never stands in for a package, and its
folder is at the end of the import path while that happens, so that it may import what lies beside it and nothing there
hides an installed module.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from forge.api import UsageError, did_you_mean, locate
from forge_huggingface.facts.judge import judge_of
from forge_huggingface.functions.find import find
from forge_huggingface.functions.reference import reference
from forge_huggingface.functions.signature import Signature, of_function
from forge_huggingface.rewards.builtin.registry import BUILTINS
from forge_huggingface.rewards.reward import Reward
from forge_huggingface.rewards.scorer import Scorer
from forge_huggingface.rewards.table import called, names, reward_tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from forge.api import Job, Run
    from forge_huggingface.rewards.table import RewardTable


def load(job: Job, run: Run | None = None) -> list[Reward]:
    """Return the job's rewards, in the order of its file.

    Args:
        job: The job.
        run: The run, whose copy of the job file tells the lines for messages.

    Raises:
        UsageError: One cannot be found, imported or called, or this machine cannot do what it needs.
    """
    tables = reward_tables(job)
    places = _places(len(tables), run)
    return [_load(job, table, name, place) for table, name, place in zip(tables, names(tables), places, strict=True)]


def check_columns(rewards: Iterable[Reward], there: Collection[str], *, rows: str = "the rows") -> None:
    """Refuse rows that lack a column which a reward needs.

    Args:
        rewards: The rewards.
        there: The columns that the rewards will get: all but the prompt.
        rows: What to call the rows.

    Raises:
        UsageError: Columns are missing; it names all of them.
    """
    found = []
    for reward in rewards:
        for column in reward.columns:
            if column not in there:
                have = ", ".join(sorted(there)) or "none but the prompt"
                say = did_you_mean(column, there, f"there are {have}")
                found.append(f"{reward.name} ({reward.place}) needs {column}; {say}")
    if found:
        do = "rename it with [data] columns, or name it in the reward's args"
        raise UsageError(f"{rows} lack columns that rewards need", ", ".join(found), do)


def _load(job: Job, table: RewardTable, name: str, place: str) -> Reward:
    if table.model is not None:
        return _load_model(job, table, name, place)
    refers = reference(called(table))
    if refers.kind == "builtin":
        return _load_builtin(table, name, place)
    what = f"{table.use} cannot be used ({place})"
    function = find(job, refers, place)
    try:
        signature = of_function(function)
    except ValueError as error:
        raise UsageError(what, str(error), "wrap it in a function of yours") from error
    for message, do in signature.faults(table.args):
        raise UsageError(what, f"{refers.function} {message}", do)
    for key, say in signature.unknown(table.args):
        raise UsageError(what, f"{refers.function} has no parameter {key}", say)
    return Reward(
        name=name,
        weight=table.weight,
        use=called(table),
        place=place,
        function=function,
        signature=signature,
        args=table.args,
        columns=signature.columns(table.args),
    )


def _load_model(job: Job, table: RewardTable, name: str, place: str) -> Reward:
    assert table.model is not None
    return Reward(
        name=name,
        weight=table.weight,
        use=table.model,
        place=place,
        function=Scorer(judge_of(table.model, table.revision, job.folder)),
        signature=Signature(required=("prompts", "completions")),
    )


def _load_builtin(table: RewardTable, name: str, place: str) -> Reward:
    module = BUILTINS[called(table)].load()
    args = module.Args.model_validate(table.args)
    columns = args.columns()

    def function(*, completions: Sequence[Any], **given: Any) -> list[Any]:
        scored: list[Any] = module.score(args, completions, given)
        return scored

    notes: tuple[str, ...] = ()
    if hasattr(module, "prepare"):  # what only this machine can tell
        try:
            notes = tuple(module.prepare(args))
        except UsageError as error:
            raise UsageError(f"{error.what} ({place})", error.why, error.do) from error
    return Reward(
        name=name,
        weight=table.weight,
        use=called(table),
        place=place,
        function=functools.wraps(module.score)(function),
        signature=Signature(required=("completions", *columns), optional=("completion_ids",)),
        columns=columns,
        row_fault=functools.partial(module.row_fault, args) if hasattr(module, "row_fault") else None,
        notes=notes,
    )


def _places(count: int, run: Run | None) -> list[str]:
    """Say where each table stands in the job file, or which it is where ``--set`` has made it."""
    plain = [f"[[train.reward]] number {index + 1}" for index in range(count)]
    file = run.folder / "job.toml" if run else None
    if run is None or file is None or not file.is_file():
        return plain
    text = file.read_text(encoding="utf-8-sig")
    written = tomli.loads(text).get("train", {}).get("reward", [])
    if len(written) != count:
        return plain
    source = Path(run.plan.source).name
    return [f"{source}:{locate(text, ('train', 'reward', index))}" for index in range(count)]
