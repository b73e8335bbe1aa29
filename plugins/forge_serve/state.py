"""The note that a server leaves of itself, for programs of the same user: where it is, and its token."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where this system keeps what programs note of their state."""
    home = Path(environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - a home that is not there raises nothing
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "forge"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "forge"
    return Path(environ.get("XDG_STATE_HOME") or home / ".local" / "state").absolute() / "forge"


@contextmanager
def noted(port: int, about: Mapping[str, object], folder: Path | None = None) -> Iterator[Path]:
    """Keep a note of a server for as long as it lives, in a file that its user alone can read.

    Args:
        port: The port that it listens on.
        about: What the note holds.
        folder: Where it lies.
    """
    folder = folder or state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"serve-{port}.json"
    path.unlink(missing_ok=True)  # of a server that was killed; perhaps with other rights
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(about, file, indent=2)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
