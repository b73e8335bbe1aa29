"""From ``[[train.reward]]`` to rewards that can score: in the worker, before any model is loaded.

A file of the user's is imported under a name of its own, so that ``rewards.py`` never stands in for a package, and its
folder is at the end of the import path while that happens, so that it may import what lies beside it and nothing there
hides an installed module.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import UsageError
from forge.locate import locate
from forge_huggingface.rewards.builtin import BUILTINS
from forge_huggingface.rewards.reward import Reward
from forge_huggingface.rewards.score import kind_of
from forge_huggingface.rewards.signature import Signature, nearest, of_function
from forge_huggingface.rewards.table import Reference, names, reference, reward_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from forge.job import Job
    from forge.run import RunHandle
    from forge_huggingface.rewards.table import RewardTable


def load(job: Job, run: RunHandle | None = None) -> list[Reward]:
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
                say = nearest(column, there, f"there are {have}")
                found.append(f"{reward.name} ({reward.place}) needs {column}; {say}")
    if found:
        do = "rename it with [data] columns, or name it in the reward's args"
        raise UsageError(f"{rows} lack columns that rewards need", ", ".join(found), do)


def _load(job: Job, table: RewardTable, name: str, place: str) -> Reward:
    refers = reference(table.use)
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
        use=table.use,
        place=place,
        function=function,
        signature=signature,
        args=table.args,
        columns=signature.columns(table.args),
    )


def _load_builtin(table: RewardTable, name: str, place: str) -> Reward:
    module = BUILTINS[table.use].load()
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
        use=table.use,
        place=place,
        function=functools.wraps(module.score)(function),
        signature=Signature(required=("completions", *columns), optional=("completion_ids",)),
        columns=columns,
        notes=notes,
    )


def find(job: Job, refers: Reference, place: str) -> Callable[..., Any]:
    """Import the function that a job refers to, from a file or a module.

    Args:
        job: The job, at whose folder relative paths start.
        refers: What it refers to; not a built-in.
        place: Where the job says so, for messages.

    Raises:
        UsageError: There is no such file, module or function, or importing it failed.
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
            there = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            say = nearest(part, there, f"it has {', '.join(there[:8]) or 'none'}")
            raise UsageError(what, f"{refers.place} has no function {part}", say)
        found = getattr(found, part)
    if isinstance(found, type) or not callable(found):
        is_ = "a class" if isinstance(found, type) else kind_of(found)
        raise UsageError(what, f"{refers.function} is {is_}", "name a function, or an instance that can be called")
    return found  # type: ignore[no-any-return]


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


def _places(count: int, run: RunHandle | None) -> list[str]:
    """Say where each table stands in the job file, or which it is where ``--set`` has made it."""
    import tomli

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
