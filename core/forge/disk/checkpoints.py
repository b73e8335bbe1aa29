"""Whole checkpoints: a mark that is written last, and a rotation that never leaves fewer than two.

Trainers write a checkpoint file by file and delete the old ones in between, so a kill at the wrong moment can leave
nothing usable (transformers rotates inside ``Trainer._save_checkpoint``, before it tells anyone). Here a checkpoint
counts once ``complete.json`` holds the size and the sha256 of each of its files, and old ones go only after that.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING

from forge.disk.files import broken_seal, seal, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


MARK = "complete.json"


def step_of(folder: Path) -> int:
    """Return the step in a checkpoint folder's name, ``checkpoint-12``."""
    return int(folder.name.rpartition("-")[2])


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders in a folder, the oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdigit()]
    return sorted(found, key=step_of)


def mark(checkpoint: Path, *, finished: bool = False) -> None:
    """Flush a checkpoint's files to the disk and declare it whole.

    Args:
        checkpoint: The checkpoint's folder.
        finished: Whether training ended here, so that resuming has nothing left to train.
    """
    files = seal(checkpoint, but=frozenset({MARK}))
    write_json(checkpoint / MARK, {"step": step_of(checkpoint), "finished": finished, "files": files})


def is_last(checkpoint: Path) -> bool:
    """Whether training ended at a whole checkpoint."""
    return bool(json.loads((checkpoint / MARK).read_text(encoding="utf-8")).get("finished"))


def fault(checkpoint: Path) -> str | None:
    """Return why a checkpoint cannot be used, or None if it is whole."""
    path = checkpoint / MARK
    if not path.exists():
        return "it was not finished"
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return broken_seal(checkpoint, files)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return f"{MARK} is damaged"


def newest_whole(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """Return the newest checkpoint that is whole, and the newer ones that are not, with the reason."""
    rejected: list[tuple[Path, str]] = []
    for checkpoint in reversed(checkpoints(folder)):
        reason = fault(checkpoint)
        if reason is None:
            return checkpoint, rejected
        rejected.append((checkpoint, reason))
    return None, rejected


def rotate(folder: Path, keep: int, protected: Iterable[Path] = ()) -> list[Path]:
    """Delete the oldest marked checkpoints until ``keep`` of them are left, at least two.

    Args:
        folder: The folder of the checkpoints.
        keep: How many to keep.
        protected: Checkpoints to keep in any case, such as the best one.

    Returns:
        The folders that were deleted.
    """
    spared = {path.resolve() for path in protected}
    found = checkpoints(folder)
    whole = [path for path in found if (path / MARK).exists()]
    kept = whole[-max(keep, 2) :]
    # What an earlier kill left half written or half deleted goes too, but not what is newer: it is being written.
    old = [path for path in found[: found.index(kept[-1])] if path not in kept] if kept else []
    old = [path for path in old if path.resolve() not in spared]
    for path in old:
        (path / MARK).unlink(missing_ok=True)  # first of all: what is half deleted must not count
        with contextlib.suppress(OSError):  # a virus scanner or NFS can hold a file; the next rotation tries again
            shutil.rmtree(path)
    return [path for path in old if not path.exists()]


def newest_marked(folder: Path) -> Path | None:
    """Return the newest checkpoint that was finished, without reading its files."""
    marked = [path for path in checkpoints(folder) if (path / MARK).exists()]
    return marked[-1] if marked else None
