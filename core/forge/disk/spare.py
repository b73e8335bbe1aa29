"""Second names of a run's files, from which they are put back where a plugin deletes them.

They lie beside the run's folder, where deleting that does not reach, and take no room: the files are the same.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from forge.disk.files import files_below

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def spare(run: Path, names: Iterable[str]) -> None:
    """Give files of a run folder second names, where the file system has such names.

    Args:
        run: The run folder.
        names: The files, relative to it.
    """
    restore(run)  # those of a worker that was killed
    with suppress(OSError):
        for name in names:
            path = _aside(run) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(run / name, path)


def restore(run: Path) -> list[str]:
    """Put back what is gone of the files of a run folder that have second names, and take those away.

    Returns:
        What was put back, relative to the folder.
    """
    aside, back = _aside(run), []
    for name in files_below(aside):
        path = run / name
        if not os.path.lexists(path):
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                (aside / name).replace(path)
                back.append(name.as_posix())
    shutil.rmtree(aside.parent, ignore_errors=True)
    return back


def _aside(run: Path) -> Path:
    return run.with_name(f".{run.name}.spare") / "files"  # one level more, lest it be taken for a run


def some(names: list[str]) -> str:
    """Return the first of some names, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
