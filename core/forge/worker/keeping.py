"""Making a checkpoint for a plugin: an empty folder, which counts once it has been written whole."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from forge.api.event import CheckpointSaved
from forge.disk.checkpoints import mark, rotate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from forge.api.run import Run


@contextmanager
def keep(run: Run, checkpoints: Path, step: int, kept: int, finished: bool) -> Iterator[Path]:
    """Yield the folder of a new checkpoint; seal it, and delete old ones, when the block ends.

    Args:
        run: The run, which is told of it.
        checkpoints: The folder of the checkpoints.
        step: The step that has ended.
        kept: How many to keep.
        finished: Whether training ends here.
    """
    folder, start = checkpoints / f"checkpoint-{step}", time.monotonic()
    if run.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier worker that came as far
        folder.mkdir(parents=True)
    run.group.barrier()
    try:
        yield folder
    except BaseException:
        if run.rank == 0:  # which may still be writing where another one has failed
            shutil.rmtree(folder, ignore_errors=True)
        raise
    run.group.barrier()  # all have written their part
    if run.rank == 0:
        mark(folder, finished=finished)
        rotate(checkpoints, kept)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        run.emit(CheckpointSaved(step, size, str(folder), round(time.monotonic() - start, 3)))
    run.group.first(None)
