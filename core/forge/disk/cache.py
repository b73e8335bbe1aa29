"""forge's cache: what runs leave for later ones, where the system keeps such things, and for nobody else to write.

What compilers leave there is code that a later run executes. So the folder is the user's own and closed to others;
where it cannot be, compilers get a folder in the run's own, and the next run begins cold.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from forge.machine.places import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COMPILERS = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Variables by which compilers find what they made before, and the folders that forge gives them."""

_DECIDING = ("torch", "triton")


def private(folder: Path) -> str | None:
    """Make a folder, close it to other users, and return why that cannot be, or None."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "nt":  # it lies in the user's profile, which Windows keeps to the user
            return None
        if any(seen.st_uid != os.getuid() for seen in (folder.lstat(), folder.stat())):
            return f"{folder} belongs to another user"
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        return f"{folder} cannot be used ({error.strerror or error})"
    return None


def kept_for_later(
    environ: Mapping[str, str], versions: Mapping[str, str], python: str, instead: Path
) -> tuple[dict[str, str], str | None]:
    """Return a worker's environment with the folders that keep what it compiles, and why nothing is kept, or None.

    Args:
        environ: The environment. A compiler's folder that the user has named stays; a value that lies in forge's cache
            moves with it.
        versions: Versions of what is installed: each combination has a folder of its own.
        python: Python's version.
        instead: A folder of the run, for where the cache cannot be closed to others.
    """
    root = cache_folder(environ)
    why = private(root)
    key = "-".join([f"python{python}", *(f"{name}{versions[name]}" for name in _DECIDING if name in versions)])
    folders = {name: str(root / "compiled" / key / folder) for name, folder in COMPILERS.items()}
    found = folders | {name: value for name, value in environ.items() if value or name not in folders}
    if why is not None:
        inside = f"{root}{os.sep}"
        for name, value in found.items():
            if value.startswith(inside):
                found[name] = str(instead / value.removeprefix(inside))
    return found, why
