"""What can be said of a function that a job names, before it is imported: that it is there, and takes what it gets.

Nothing of the user's is run for it: a file is read, not imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Problem, did_you_mean, nearest
from forge_huggingface.functions import source
from forge_huggingface.functions.signature import of_source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from forge.api import Job
    from forge_huggingface.functions.reference import Reference
    from forge_huggingface.functions.source import Source


def function_problems(
    job: Job, refers: Reference, where: str, args: Collection[str] = (), args_at: str = ""
) -> Iterable[Problem]:
    """Yield what is wrong with a function of the user's, as far as its source tells.

    Args:
        job: The job, at whose folder relative paths start.
        refers: What it refers to; not a built-in.
        where: The key that names the function.
        args: Further arguments that the job gives it.
        args_at: The key of their table.
    """
    find = _in_file if refers.kind == "file" else _in_module
    found = find(job, refers, where)
    if isinstance(found, Problem):
        yield found
    elif not refers.function:
        first = found.public[0] if found and found.public else "function"
        yield Problem(where, f"names no function of {refers.place}", f'write "{refers.place}:{first}"')
    elif found:
        yield from _fitting(found, refers, where, args, args_at)


def _in_file(job: Job, refers: Reference, where: str) -> Source | Problem:
    """Return what is in a file, or why it cannot be read."""
    path = job.path(refers.place)
    if not path.is_file():
        beside = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        near = nearest(path.name, beside) or next(iter(beside), None)
        say = f"did you mean {near}?" if near else "relative paths start at the folder of the job"
        return Problem(where, f"there is no file {path}", say)
    try:
        return source.read(path)
    except SyntaxError as error:
        return Problem(where, f"{refers.place} is not Python: line {error.lineno}: {error.msg}")
    except (OSError, ValueError) as error:
        return Problem(where, f"{refers.place} cannot be read: {error}")


def _in_module(job: Job, refers: Reference, where: str) -> Source | Problem | None:
    """Return what is in a module, or why there is none; None if only importing it would tell."""
    try:
        path = source.module_file(refers.place)
    except ModuleNotFoundError as error:
        if job.path(f"{refers.place}.py").is_file():
            say = f'for the file beside the job write "./{refers.place}.py:{refers.function or "function"}"'
        else:
            say = 'install it; a file beside the job is "./file.py:function"'
        return Problem(where, f"there is no module {error}", say)
    try:
        return source.read(path) if path else None
    except (OSError, SyntaxError, ValueError):
        return None  # an installed module in another encoding or for another Python


def _fitting(found: Source, refers: Reference, where: str, args: Collection[str], args_at: str) -> Iterable[Problem]:
    """Yield what is wrong with the function itself, or that it is none."""
    name = refers.function
    if name in found.functions:
        signature = of_source(found.functions[name])
        for message, do in signature.faults(args):
            yield Problem(where, f"{name} {message}", do)
        for key, say in signature.unknown(args):
            yield Problem(f"{args_at}.{key}", f"{name} has no parameter {key}", say)
    elif name in found.classes:
        yield Problem(where, f"{name} is a class", "name a function, or an instance that can be called")
    elif name not in found.others and not found.open:
        there = f"it has {', '.join(found.public[:8])}" if found.public else "it defines no function"
        say = did_you_mean(name, [*found.functions, *found.others], there)
        yield Problem(where, f"{refers.place} has no function {name}", say)
