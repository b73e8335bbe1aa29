"""Where this system keeps a program's files: forge's cache, and the file of what a user always wants."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return forge's cache, which need not be there yet; ``FORGE_CACHE`` names another."""
    if chosen := environ.get("FORGE_CACHE"):
        return Path(chosen).absolute()
    home = Path(environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - a home that is not there raises nothing
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "forge"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "forge"
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache").absolute() / "forge"


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
