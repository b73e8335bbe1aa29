"""Plugins that are one file beside the job: ``[use] plugins = ["./my_plugin.py"]``.

The process that is to have one is given its content, and imports that under the file's name: what is run is what was
read, whatever becomes of the file. Nothing else in the file's folder can be imported.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.util import spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

LOCAL = "local code"
"""What stands for the distribution of such a plugin."""


@dataclass(frozen=True)
class Code:
    """A plugin that is one file.

    Attributes:
        name: Its name, and its module's: the file's, without ``.py``.
        path: The file.
        content: What it holds.
    """

    name: str
    path: Path
    content: bytes

    @cached_property
    def digest(self) -> str:
        """sha256 over its content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def version(self) -> str:
        """The beginning of the digest."""
        return self.digest[:12]


_known: dict[str, Code] = {}


def know_code(codes: Iterable[Code]) -> None:
    """Let this process import files as the modules of their names; another file of a name is forgotten."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for code in codes:
        before = _known.get(code.name)
        if before is not None and (before.digest, before.path) != (code.digest, code.path):
            sys.modules.pop(code.name, None)
        _known[code.name] = code


def forget_code() -> None:
    """Let no module of this process be a file of a job any more."""
    for name in _known:
        sys.modules.pop(name, None)
    _known.clear()


def known_code(name: str) -> Code | None:
    """Return the file that is the module of a name in this process, or None."""
    return _known.get(name)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        code = _known.get(fullname)
        return None if code is None else spec_from_loader(fullname, _Loader(code), origin=str(code.path))


class _Loader(SourceLoader):
    """Loads a module from the content that was read; it looks for no compiled one, and leaves none."""

    def __init__(self, code: Code) -> None:
        self.code = code

    def get_filename(self, fullname: str) -> str:
        del fullname
        return str(self.code.path)

    def get_data(self, path: str) -> bytes:
        del path
        return self.code.content
