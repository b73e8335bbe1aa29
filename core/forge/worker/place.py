"""What stays as it was whatever a plugin does: the current folder, and the files of the run that it has no say in."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from forge.disk.spare import restore, some, spare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@contextmanager
def coming_back() -> Iterator[None]:
    """Return to the current folder when the block ends: a run's paths may be relative to it."""
    here: Path | None = None
    with suppress(OSError):  # it has been deleted
        here = Path.cwd()
    try:
        yield
    finally:
        if here is not None:
            with suppress(OSError):
                os.chdir(here)


@dataclass(slots=True)
class Harm:
    """What became of a run's files.

    Attributes:
        restored: Those that were deleted or moved away, and are back.
        lost: Those that were deleted, and could not be put back.
        changed: Those that were written over.
        added: Those that were put among them.
    """

    restored: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether files are gone, or others than they were."""
        return bool(self.restored or self.lost or self.changed)

    def __str__(self) -> str:
        """Say what is gone and what is another, as a phrase."""
        told = {"deleted and put back": self.restored, "deleted and lost": self.lost, "written over": self.changed}
        return "; ".join(f"{did}: {some(names)}" for did, names in told.items() if names)


@contextmanager
def kept(run: Path, weights: Iterable[str] = (), out: Path | None = None) -> Iterator[Harm]:
    """Keep the files of a run while a plugin works that has to write into ``out`` alone.

    Each has a second name beside the run's folder meanwhile, from which it is put back; where the file system has no
    such names, what is lost is told.

    Args:
        run: The run folder. What observers and others have written there is theirs.
        weights: The folders of the trained weights in it.
        out: The folder that may be written, below it.

    Yields:
        What became of them, filled in when the block ends, also by an error.
    """
    own = (*_OWN, *(f"{place}/" for place in weights))
    before, harm = _seen(run, own, out), Harm()
    spare(run, before)
    try:
        yield harm
    finally:
        after = _seen(run, own, out)
        harm.restored += restore(run)
        harm.lost += [name for name in before if name not in after and name not in harm.restored]
        harm.changed += [
            name for name in before if name in after and after[name] != before[name] and not _is_living(name)
        ]
        harm.added += [name for name in after if name not in before and not _is_living(name)]


_OWN = (
    "plan.",
    "job.",
    "trained.json",
    "data.json",
    "inputs.json",
    "evaluation",
    "checkpoints/",
    "exports/",
    "plugins/",
)
"""How the names of what forge writes begin, beside the weights."""

_LIVING = ("log.txt", "events.", ".lock", "ticket.json")
"""What is written to while plugins work."""


def _seen(run: Path, own: tuple[str, ...], out: Path | None) -> dict[str, tuple[int, int, int]]:
    """Return what tells whether a file is another one, by its name in the run folder, but of those in ``out``."""
    found: dict[str, tuple[int, int, int]] = {}
    for folder, names, files in os.walk(run):
        place = Path(folder)
        names[:] = [name for name in names if place / name != out]
        for path in (place / name for name in files):
            name = path.relative_to(run).as_posix()
            with suppress(OSError):  # another process may have put another in its place
                if name.startswith((*own, *_LIVING)):
                    seen = path.stat(follow_symlinks=False)
                    found[name] = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
    return found


def _is_living(name: str) -> bool:
    return name.startswith(_LIVING)
