"""What plugins of others said of themselves, remembered for as long as their files stay the same.

So a plugin is imported once after it was installed or changed, and no command waits for it again. A plugin that failed
is asked again once anything else was installed, since that may have mended it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forge
from forge.machine.places import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.discovery.installed import Found

_FILES = 2000
"""The most files of a package that are looked at, of a plugin that did not live to tell which it read."""


class Memory:
    """The answers of this environment's plugins.

    Args:
        path: The file that holds them.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = _home() if path is None else path
        self.changed = False
        self._stamps: dict[str, list[int] | None] = {}
        self.used: dict[str, Any] = {}
        self.known: Mapping[str, Any] = {}
        if self.path is not None:
            with suppress(OSError, ValueError):
                data = json.loads(self.path.read_text(encoding="utf-8"))
                self.known = data if isinstance(data, dict) else {}

    def recall(self, found: Found) -> dict[str, Any] | None:
        """Return what a plugin said, or None if it is to be asked."""
        entry = self.known.get(_key(found))
        if entry is None or any(self._stamp(path) != stamp for path, stamp in entry["files"].items()):
            return None
        self.used[_key(found)] = entry
        told: dict[str, Any] = entry["told"]
        return told

    def _stamp(self, path: str) -> list[int] | None:
        """Return what tells one state of a file from another; plugins share many, so each is looked at once."""
        if path not in self._stamps:
            self._stamps[path] = _stamp(path)
        return self._stamps[path]

    def keep(self, found: Found, told: Mapping[str, Any], files: Iterable[str] | None) -> None:
        """Remember what a plugin said.

        Args:
            found: The plugin.
            told: What it said.
            files: The files that this depends on; None if it did not live to tell.
        """
        if found.place is None:  # it is not installed, but given by a test
            return
        paths = {found.place, *(files or ())}
        if told["reason"] is not None:  # what is missing may be installed, and what failed did not stay imported
            paths |= {*_package(found), *(entry or "." for entry in sys.path)}
        self.used[_key(found)] = {"files": {path: _stamp(path) for path in sorted(paths)}, "told": dict(told)}
        self.changed = True

    def write(self) -> None:
        """Write down what has changed; where that cannot be, the plugins are asked again the next time."""
        if self.path is None or not self.changed:
            return
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            part.write_text(json.dumps(self.used), encoding="utf-8")
            part.replace(self.path)


def _home() -> Path | None:
    """Return this environment's file: one for each Python, place of packages and version of the contract."""
    contract = [_stamp(str(Path(__file__).with_name(name))) for name in ("asking.py", "faults.py", "told.py")]
    about = [forge.__version__, sys.version, sys.prefix, contract]
    with suppress(RuntimeError):  # there is no home folder
        return cache_folder() / "plugins" / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}.json"
    return None


def _key(found: Found) -> str:
    return json.dumps([found.point.name, found.point.value, *found.source, found.place])


def _stamp(path: str) -> list[int] | None:
    try:
        seen = os.stat(path)  # noqa: PTH116 - looked at by every command, in hundreds: a Path costs more than the look
    except OSError:
        return None
    return [seen.st_mtime_ns, seen.st_size]


def _package(found: Found) -> list[str]:
    """Return the files of a plugin's package, without importing it."""
    top = found.point.value.partition(":")[0].partition(".")[0]
    spec = None
    with suppress(ImportError, OSError, ValueError, AttributeError):
        spec = PathFinder.find_spec(top)
    if spec is None:
        return []
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [spec.origin] if spec.origin else []
    for folder in folders:
        files += [str(path) for path, _ in zip(sorted(folder.rglob("*.py")), range(_FILES), strict=False)]
    return files
