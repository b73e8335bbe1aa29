"""Finding a function of the user's, and importing it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forge.api import UsageError, did_you_mean
from forge_huggingface.functions.blame import kind_of
from forge_huggingface.functions.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from forge.api import Job


Kind = Literal["function", "class"]
"""What a job may name of a file or a module."""

NAME: Mapping[Kind, str] = {
    "function": "name a function, or an instance that can be called",
    "class": "name a class that can be made without arguments",
}
"""What to do where something else is named."""


def find(job: Job, refers: Reference, place: str, kind: Kind = "function") -> Callable[..., Any]:
    """Import the function or class that a job refers to, from a file or a module.

    Args:
        job: The job, at whose folder relative paths start.
        refers: What it refers to; not a built-in.
        place: Where the job says so, for messages.
        kind: What it must be.

    Raises:
        UsageError: There is no such file, module, function or class, or importing it failed.
    """
    what = f"{refers.place}:{refers.function} cannot be used ({place})"
    file = job.path(refers.place) if refers.kind == "file" else None
    module: Any
    try:
        module = _import_file(file) if file else importlib.import_module(refers.place)
    except FileNotFoundError as error:
        raise UsageError(what, f"there is no file {error.filename}", "restore it") from error
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        last = next((frame for frame in reversed(frames) if frame.filename != __file__), None)
        at = f" at {Path(last.filename).name}:{last.lineno}" if last else ""
        raise UsageError(what, f"importing it failed: {type(error).__name__}: {error}{at}", "mend it") from error
    found: Any = module
    for part in refers.function.split("."):
        if not hasattr(found, part):
            there = [name for name, value in vars(module).items() if _is(value, kind) and not name.startswith("_")]
            say = did_you_mean(part, there, f"it has {', '.join(there[:8]) or 'none'}")
            raise UsageError(what, f"{refers.place} has no {kind} {part}", say)
        found = getattr(found, part)
    if not _is(found, kind):
        is_ = "a class" if isinstance(found, type) else "a function" if inspect.isfunction(found) else kind_of(found)
        raise UsageError(what, f"{refers.function} is {is_}", NAME[kind])
    return found  # type: ignore[no-any-return]


def _is(value: Any, kind: Kind) -> bool:
    return isinstance(value, type) if kind == "class" else callable(value) and not isinstance(value, type)


def _import_file(path: Path) -> Any:
    """Import a file under a name of its own, once a process."""
    path = path.resolve()
    name = f"forge_rewards_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported for a while, after all installed ones."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file has changed the path itself
            sys.path.remove(str(folder))
