"""What can be said about a job's rewards before anything is imported, the user's own files included.

It goes into the plan beside the other rules of this plugin, so this module imports nothing heavy, and pydantic and
``ast`` only when a job has rewards.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from forge.api import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts
    from forge_huggingface.functions.reference import Reference
    from forge_huggingface.functions.source import Source
    from forge_huggingface.rewards.table import RewardTable


def reward_problems(job: Job) -> Iterable[Problem]:
    """Yield what is wrong with ``[[train.reward]]``, for a method that learns from rewards."""
    from forge_huggingface.functions.reference import reference
    from forge_huggingface.rewards.table import reward_tables

    tables = reward_tables(job)
    if not tables:
        yield Problem(
            "train.reward", f'method = "{job.train.method}" learns from rewards, and there is none',
            'write [[train.reward]] with use = "./rewards.py:function" or the name of a built-in',
        )  # fmt: skip
        return
    for index, table in enumerate(tables):
        refers = reference(table.use)
        find = {"builtin": _builtin, "file": _file, "module": _module}[refers.kind]
        yield from find(job, index, table, refers)
    if all(table.weight == 0 for table in tables):
        zero = "its weight is 0" if len(tables) == 1 else "all weights are 0"
        yield Problem("train.reward.0.weight", f"{zero}, so nothing would be learned", "give one of them a weight")
    seen: dict[str, int] = {}
    for index, table in enumerate(tables):
        if table.name and table.name in seen:
            yield Problem(f"train.reward.{index}.name", f"{table.name} is also the name of number {seen[table.name]}",
                          "give each a name of its own")  # fmt: skip
        elif table.name:
            seen[table.name] = index + 1


def cannot_reward(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001 - the probe's signature
    """Return why the machine cannot compute a built-in reward of the job, or None."""
    from packaging.requirements import Requirement

    from forge_huggingface.rewards.builtin.table import BUILTINS
    from forge_huggingface.rewards.table import reward_tables

    for table in reward_tables(job):
        builtin = BUILTINS.get(table.use)
        if builtin and builtin.requires_dist:
            needed, pip = Requirement(builtin.requires_dist), f"pip install {builtin.install}"
            there = machine.versions.get(needed.name)
            if there is None:
                return f"[[train.reward]] {table.use} needs {needed.name}, which is not installed ({pip})"
            if not needed.specifier.contains(there, prereleases=True):
                return f"[[train.reward]] {table.use} needs {needed}, and {there} is installed ({pip})"
        if table.use == "code-tests" and not table.args.get("allow_network") and machine.platform != "linux":
            return (
                f"[[train.reward]] code-tests runs what the model writes, and on {machine.platform} forge cannot cut "
                "it off from the network or limit its memory; use Linux, or write args = { allow_network = true }"
            )
    return None


def _builtin(job: Job, index: int, table: RewardTable, refers: Reference) -> Iterable[Problem]:  # noqa: ARG001
    from pydantic import ValidationError

    from forge_huggingface.rewards.builtin.table import BUILTINS

    where = f"train.reward.{index}"
    if table.use not in BUILTINS:
        near = difflib.get_close_matches(table.use.replace("_", "-"), BUILTINS, n=1)
        yield Problem(
            f"{where}.use", f'there is no built-in reward "{table.use}"',
            f'did you mean "{near[0]}"?' if near else
            f'there are: {", ".join(BUILTINS)}; a function of yours is "./rewards.py:function"',
        )  # fmt: skip
        return
    args = BUILTINS[table.use].load().Args
    try:
        args.model_validate(table.args)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = ".".join([f"{where}.args", *map(str, detail["loc"])])
            if detail["type"] == "extra_forbidden":
                known = list(args.model_fields)
                near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
                yield Problem(key, f"{table.use} has no such setting",
                              f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}")  # fmt: skip
            elif detail["type"] == "value_error":
                yield Problem(key, str(detail["ctx"]["error"]))
            elif detail["type"] == "missing":
                yield Problem(key, "is missing")
            else:
                yield Problem(key, f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {_show(detail['input'])}")


def _file(job: Job, index: int, table: RewardTable, refers: Reference) -> Iterable[Problem]:
    from forge_huggingface.functions import source

    where, path = f"train.reward.{index}.use", job.path(refers.place)
    if not path.is_file():
        beside = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1) or beside[:1]
        say = f"did you mean {near[0]}?" if near else "relative paths start at the folder of the job"
        yield Problem(where, f"there is no file {path}", say)
        return
    try:
        found = source.read(path)
    except SyntaxError as error:
        yield Problem(where, f"{refers.place} is not Python: line {error.lineno}: {error.msg}")
    except (OSError, ValueError) as error:
        yield Problem(where, f"{refers.place} cannot be read: {error}")
    else:
        yield from _function(index, table, refers, found)


def _module(job: Job, index: int, table: RewardTable, refers: Reference) -> Iterable[Problem]:
    from forge_huggingface.functions import source

    where = f"train.reward.{index}.use"
    try:
        path = source.module_file(refers.place)
    except ModuleNotFoundError as error:
        if job.path(f"{refers.place}.py").is_file():
            say = f'for the file beside the job write "./{refers.place}.py:{refers.function or "function"}"'
        else:
            say = 'install it; a file beside the job is "./file.py:function"'
        yield Problem(where, f"there is no module {error}", say)
        return
    if path is None and refers.function:
        return  # not to be seen from here; the worker will tell
    try:
        found = source.read(path) if path else None
    except (OSError, SyntaxError, ValueError):
        return  # an installed module in another encoding or for another Python; importing it will tell
    yield from _function(index, table, refers, found)


def _function(index: int, table: RewardTable, refers: Reference, found: Source | None) -> Iterable[Problem]:
    """Yield what is wrong with the function that ``use`` names, as far as its source tells."""
    from forge_huggingface.functions.signature import of_source

    where, name = f"train.reward.{index}", refers.function
    public = found.public if found else []
    there = f"it has {', '.join(public[:8])}" if public else "it defines no function"
    if not name:
        first = public[0] if public else "function"
        yield Problem(f"{where}.use", f"names no function of {refers.place}", f'write "{refers.place}:{first}"')
    elif found and name in found.functions:
        signature = of_source(found.functions[name])
        for message, do in signature.faults(table.args):
            yield Problem(f"{where}.use", f"{name} {message}", do)
        for key, say in signature.unknown(table.args):
            yield Problem(f"{where}.args.{key}", f"{name} has no parameter {key}", say)
    elif found and name in found.classes:
        yield Problem(f"{where}.use", f"{name} is a class", "name a function, or an instance that can be called")
    elif found and name not in found.others and not found.open:
        near = difflib.get_close_matches(name, [*found.functions, *found.others], n=1)
        yield Problem(f"{where}.use", f"{refers.place} has no function {name}",
                      f"did you mean {near[0]}?" if near else there)  # fmt: skip


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'the string "{value}"' if len(value) < 40 else "a string"
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else str(value)
