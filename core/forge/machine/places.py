"""Where this system keeps a program's files: forge's cache, and the file of what a user always wants."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return forge's cache: ``FORGE_CACHE``, or where the system keeps such things."""
    if named := environ.get("FORGE_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "forge"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "forge"
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forge"


def config_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the user's ``config.toml``, whether it is there or not: ``FORGE_CONFIG``, or the system's place for it.

    An empty ``FORGE_CONFIG`` means none.
    """
    named = environ.get("FORGE_CONFIG")
    if named is not None:
        return Path(named) if named else None
    try:
        if sys.platform == "win32":
            return Path(environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "forge" / "config.toml"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Application Support" / "forge" / "config.toml"
        return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "forge" / "config.toml"
    except RuntimeError:  # there is no home folder
        return None
