"""Files that a training depends on beside its job and its rows, and whether they are still what they were.

The files that a job names (rewards, chat templates, tools, streamed rows, another model), the modules beside the job
that were imported, and a local base model with its weights. Each is hashed as a whole, by threads while the model is
loaded, so that it costs hardly any time; nothing is hashed while a run is planned. On a resume a file whose size, time
and inode are as they were is taken for the same without reading it, and any other is hashed again.
"""

from __future__ import annotations

import glob
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from forge.disk.files import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from forge.job.job import Job

Print = dict[str, Any]
"""What is known of a file: ``bytes``, ``time``, ``inode``, and ``sha256`` unless reading it would take too long."""

_OF_MODEL = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt", ".py"})  # what is read of its folder
_ROWS = 2**30  # bytes; a larger file of rows is streamed because reading it takes long
_THREADS = 4
_ROWS_KEYS = ("path", "eval_path")


class Prints:
    """Hashes files in threads of its own, until :meth:`result` waits for them, or nobody wants to know any more.

    Args:
        files: The files by the name under which they are told.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="forge-hash")
        self._found: dict[str, Future[Print | None]] = {}
        self.add(files)

    def add(self, files: Mapping[str, Path]) -> None:
        """Hash more files."""
        self._found |= {name: self._pool.submit(look, path) for name, path in sorted(files.items())}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def result(self) -> dict[str, Print]:
        """Wait, and return what is known of each file that can be read."""
        found = {name: future.result() for name, future in self._found.items()}
        return {name: seen for name, seen in found.items() if seen is not None}


def look(path: Path) -> Print | None:
    """Return what is known of a file, or None if it cannot be read."""
    try:
        stat = path.stat()
        known: Print = {"bytes": stat.st_size, "time": stat.st_mtime_ns, "inode": stat.st_ino}
        return known if _is_large(path, stat.st_size) else {**known, "sha256": sha256(path)}
    except OSError:
        return None


def altered(path: Path, before: Print) -> str | None:
    """Return how a file differs from what it was, or None if it is the same."""
    try:
        stat = path.stat()
        if stat.st_size != before["bytes"]:
            return f"had {before['bytes']} bytes and has {stat.st_size}"
        if (stat.st_mtime_ns, stat.st_ino) == (before["time"], before["inode"]):
            return None
        if "sha256" not in before:
            return None if stat.st_mtime_ns == before["time"] else "was written to since"
        return None if sha256(path) == before["sha256"] else "has another content"
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def of_job(job: Job) -> dict[str, Path]:
    """Return the files that a job names, by their names there; those of rows only if these are not known otherwise."""
    tables = job.meaning()
    data = dict(tables.get("data", {}))
    rows: list[str] = []
    for table in (data, *data.get("sources", ())):
        rows += [name for key in _ROWS_KEYS for name in _texts(table.pop(key, None))]
    found: dict[str, Path] = {}
    for name in _texts({**tables, "data": data}):
        for text in (name, name.rpartition(":")[0]):  # ./rewards.py:function
            found |= _at(job, text)
    if job.data.streaming:  # of other rows there is a digest
        for name in rows:
            inside = f"{name}/**/*" if job.path(name).is_dir() else name
            for each in [name, *glob.glob(inside, root_dir=job.folder, recursive=True)]:  # noqa: PTH207 - may be absolute
                found |= _at(job, each)
    return found


def _of_model(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if path.suffix in _OF_MODEL and path.is_file()}


def imported(job: Job, run: Path) -> dict[str, Path]:
    """Return the files of the modules that the job names, and of those that were imported from its folder."""
    folder, found = job.folder.resolve(), {}
    for name in _texts(job.meaning()):
        module = sys.modules.get(name.rpartition(":")[0])
        if path := getattr(module, "__file__", None):
            found[path] = Path(path)
    for module in list(sys.modules.values()):
        path = Path(getattr(module, "__file__", None) or "")
        if path.is_absolute() and path.is_relative_to(folder) and not path.is_relative_to(run.resolve()):
            inside = path.relative_to(folder)
            if not {"site-packages", "dist-packages"} & {*inside.parts}:
                found[inside.as_posix()] = path
    return found


def _at(job: Job, text: str) -> dict[str, Path]:
    """Return the file that a text of a job may mean, those of a model or adapter if it is its folder; {} else."""
    if not text or len(text) > 1000 or "\n" in text or "://" in text:
        return {}
    path = job.path(text)
    try:
        if path.is_file():
            return {text: path}
        if any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            return {f"{text}/{name}": each for name, each in _of_model(path).items()}
        return {}
    except (OSError, ValueError):  # no path at all
        return {}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _is_large(path: Path, size: int) -> bool:
    return size > _ROWS and path.suffix != ".safetensors"
