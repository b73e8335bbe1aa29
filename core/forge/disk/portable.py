"""A job that is sent elsewhere: as its user wrote it, its model pinned, and its local files where they will be found.

Unlike a lock it leaves open what the job leaves open: the machine that trains is another, and decides it there.
"""

from __future__ import annotations

import ast
import glob
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.disk.faults import disk_errors
from forge.errors import UsageError
from forge.job.read import written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.job.read import JobFile
    from forge.model.facts import ModelFacts

_PATHS = frozenset({"path", "eval_path", "chat_template", "include_path", "tools"})
"""Keys whose value is a path wherever one of that name is there; of others only a file, or the folder of a model."""

_OF_MODEL = ("config.json", "adapter_config.json")


class Portable:
    """A job to be sent.

    Args:
        file: The job.
        facts: What is known about its model.
        name: Its name, for a job that has none.
        carry: Whether local files go with it. Otherwise it names them by their whole paths.
        adapter: The folder of the adapter that it goes on from, where that is one of this machine.

    Attributes:
        files: Which file is to lie where, relative to the job.
    """

    def __init__(self, file: JobFile, facts: ModelFacts, name: str, *, carry: bool, adapter: str | None = None) -> None:
        self.job, self.carry = file.job, carry
        self.files: dict[str, Path] = {}
        self._places: dict[Path, str] = {}
        tables = {"name": name, **written(file)}
        pinned = {"revision": facts.revision} if facts.source in {"cache", "hub"} and facts.revision else {}
        tables["model"] = {**tables["model"], **pinned}
        if adapter is not None:
            tables["adapter"] = {**tables["adapter"], "from": adapter}
        self.tables: dict[str, Any] = {key: self._found(value, key) for key, value in tables.items() if key != "name"}
        self.tables = {"name": tables["name"], **self.tables}

    def text(self, forge: str) -> str:
        """Return the job file."""
        import tomli_w  # only who sends a job writes one

        head = f"# Written by forge {forge}: the job as it was sent. `forge run` takes it.\n\n"
        return head + tomli_w.dumps(self.tables)

    def bytes(self) -> int:
        """Return how large the files are that go with the job."""
        return sum(path.stat().st_size for path in self.files.values())

    def copy(self, folder: Path) -> None:
        """Copy the files that go with the job below a folder."""
        for name, path in self.files.items():
            target = folder / name
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    def _found(self, value: Any, key: str) -> Any:
        if key == "columns":  # their names are none of files
            return value
        if isinstance(value, dict):
            return {name: self._found(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self._found(item, key) for item in value]
        return self._of_text(value, key) if isinstance(value, str) else value

    def _of_text(self, text: str, key: str) -> str:
        """Return a text of the job as it is written where it is sent."""
        if not text or len(text) > 1000 or "\n" in text or "://" in text or "{" in text:  # a prompt or a template
            return text
        if placed := self._placed(text, wide=key in _PATHS):
            return placed
        before, colon, after = text.rpartition(":")
        if colon and (placed := self._placed(before, wide=False)):  # ./rewards.py:function
            return f"{placed}:{after}"
        if colon and "/" in before and (placed := self._placed(after, wide=True)):  # a reader's path
            return f"{before}:{placed}"
        if colon and (self.job.folder / f"{before}.py").is_file():  # a module beside the job
            self.files[f"{before}.py"] = module = self.job.folder / f"{before}.py"
            self._carry_beside(module, Path())
        return text

    def _placed(self, text: str, *, wide: bool) -> str | None:
        """Return where a path of the job is found, or None if it is none."""
        try:
            path = self.job.path(text)
            if path.is_file() or any((path / name).is_file() for name in _OF_MODEL) or (wide and path.is_dir()):
                return self._place(_whole(path))
        except (OSError, ValueError, UsageError):  # no path at all
            return None
        if wide and any(sign in text for sign in "*?[") and (matches := glob.glob(str(path), recursive=True)):  # noqa: PTH207 - may be absolute
            fixed = Path(*_until_pattern(path.parts))
            where = self._place(_whole(fixed), [_whole(Path(match)) for match in matches])
            return str(Path(where, *path.parts[len(fixed.parts) :]))
        return None

    def _place(self, path: Path, only: list[Path] | None = None) -> str:
        """Return the place of a file or folder; of a folder, with all that is below it or ``only`` some."""
        if not self.carry:
            return str(path)
        if (place := self._places.get(path)) is None:
            place = f"files/{path.name or 'root'}"
            if place in self._places.values():
                place = f"files/{len(self._places) + 1}/{path.name}"
            self._places[path] = place
        chosen = [path] if only is None else only
        for each in (file for one in chosen for file in ([one] if one.is_file() else _below(one, set()))):
            self.files[place if each == path else f"{place}/{each.relative_to(path).as_posix()}"] = each
        if path.suffix == ".py" and path.is_file():
            self._carry_beside(path, Path(place).parent)
        return place

    def _carry_beside(self, path: Path, place: Path) -> None:
        """Carry the modules beside a file of code that it imports, and what these import."""
        for beside in _imported(path):
            for each in [beside] if beside.is_file() else _below(beside, set()):
                name = (place / each.relative_to(path.parent)).as_posix()
                if each.suffix == ".py" and name not in self.files:
                    self.files[name] = each
                    self._carry_beside(each, place / each.relative_to(path.parent).parent)


def _below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield the files below a folder, also behind links to folders, each folder once: as rows are looked for."""
    if (real := folder.resolve()) in seen:
        return
    seen.add(real)
    for each in sorted(folder.iterdir()):
        if each.is_dir():
            yield from _below(each, seen)
        elif each.is_file():
            yield each


def _imported(path: Path) -> Iterator[Path]:
    """Yield the modules and packages beside a file of code that it imports, as far as it says so in plain words."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError):  # what runs it says what is wrong with it
        return
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names |= dict.fromkeys([node.module] if node.module else [alias.name for alias in node.names])
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        for each in (path.with_name(f"{name}.py"), path.with_name(name)):
            if each.is_file() or (each / "__init__.py").is_file():
                yield each
                break


def _whole(path: Path) -> Path:
    """Return a path from the root on. Links keep their names: what lies behind one may be called anything."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - see above


def _until_pattern(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if any(sign in part for sign in "*?["):
            return
        yield part
