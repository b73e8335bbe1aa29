"""What can be said of a function that a job names, before it is imported: that it is there, and takes what it gets.

Nothing of the user's is run for it: a file is read, not imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Problem, did_you_mean, nearest
from forge_huggingface.functions import source
from forge_huggingface.functions.find import NAME
from forge_huggingface.functions.signature import of_source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from forge.api import Job
    from forge_huggingface.functions.find import Kind
    from forge_huggingface.functions.reference import Reference
    from forge_huggingface.functions.source import Source


_OTHER = {"function": "class", "class": "function"}


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
    found = sought(job, refers, where)
    if isinstance(found, Problem):
        yield found
    elif found and refers.function in found.functions:
        signature = of_source(found.functions[refers.function])
        for message, do in signature.faults(args):
            yield Problem(where, f"{refers.function} {message}", do)
        for key, say in signature.unknown(args):
            yield Problem(f"{args_at}.{key}", f"{refers.function} has no parameter {key}", say)


def sought(job: Job, refers: Reference, where: str, kind: Kind = "function") -> Source | Problem | None:
    """Return the source in which what a job names is, or what is wrong with the name.

    Args:
        job: The job, at whose folder relative paths start.
        refers: What it refers to; not a built-in.
        where: The key that names it.
        kind: What it must be.

    Returns:
        The source, in which it may be bound by an import or an assignment too; None if only importing it would tell.
    """
    find = _in_file if refers.kind == "file" else _in_module
    found = find(job, refers, where)
    if isinstance(found, Problem):
        return found
    if not refers.function:
        there = found.named(kind) if found else ()
        first = there[0] if there else kind
        return Problem(where, f"names no {kind} of {refers.place}", f'write "{refers.place}:{first}"')
    return (_absent(found, refers, where, kind) or found) if found else None


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


def _absent(found: Source, refers: Reference, where: str, kind: Kind) -> Problem | None:
    """Return that a source does not have what is named, or has something else of that name; None if it has it."""
    name = refers.function
    mine, theirs = (found.functions, found.classes) if kind == "function" else (found.classes, found.functions)
    if name in theirs:
        return Problem(where, f"{name} is a {_OTHER[kind]}", NAME[kind])
    if name in mine or name in found.others or found.open:
        return None
    there = found.named(kind)
    have = f"it has {', '.join(there[:8])}" if there else f"it defines no {kind}"
    return Problem(where, f"{refers.place} has no {kind} {name}", did_you_mean(name, [*mine, *found.others], have))
