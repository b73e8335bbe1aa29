"""What is wrong with what a plugin returned or wrote, in words for its author."""

from __future__ import annotations

import json
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from forge.disk.files import files_below

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from forge.api.results import Trained


def log_traceback() -> None:
    """Print the traceback of what is being handled into the log, if a plugin has left one to print into."""
    with suppress(Exception):
        traceback.print_exc()


def trained_fault(trained: Trained, folder: Path) -> str | None:
    """Return what is wrong with what training left in a run folder, or None. Numbers may be what they are."""
    if trained.kind not in ("adapter", "full"):
        return f"kind is {trained.kind!r}; it is adapter or full"
    for name in ("weights", "processor"):
        place = getattr(trained, name)
        if not isinstance(place, str) or not _inside(place):
            return f"{name} is {place!r}; it names a folder of the run folder"
        if not (folder / place).is_dir() or not files_below(folder / place):
            return f"{name} is {place!r}, and there is nothing in that folder"
    if not isinstance(trained.task, str):
        return f"task is {trained.task!r}; it is a text, as in ModelFacts"
    if not isinstance(trained.traits, frozenset) or not all(isinstance(each, str) for each in trained.traits):
        return f"traits is {trained.traits!r}; it is a frozenset of texts"
    if lacking := [name for name in ("id", "revision", "digest") if name not in trained.base]:
        return f"base has no {lacking[0]}; it says which model was trained, by id, revision and digest"
    if fault := _json_fault(trained.base):
        return f"base is no JSON data: {fault}"
    if trained.best_step is not None and not isinstance(trained.best_step, int):
        return f"best_step is {trained.best_step!r}; it is a whole number or None"
    return None


def export_fault(out: Path, files: Iterable[str], report: Any) -> str | None:
    """Return what is wrong with what an export wrote and says of it, or None.

    A link is refused wherever it leads: an upload would follow it, and a copy of the folder would lose what it is to.
    """
    if links := sorted(path for path in out.rglob("*") if path.is_symlink()):
        first = links[0]
        name = first.relative_to(out).as_posix()
        return f"it wrote {name}, a link to {first.readlink()}; an export holds its files itself"
    if not files_below(out):
        return "it wrote no file"
    for name in files:
        if not isinstance(name, str) or not _inside(name):
            return f"it names {name!r} as a file of its own; a name is relative to the export's folder"
        if not (out / name).is_file():
            return f"it names {name} as a file that it wrote, and there is none"
    if fault := _json_fault(report):
        return f"its report is no JSON data: {fault}"
    return None


def _inside(place: str) -> bool:
    parts = place.replace("\\", "/").split("/")
    return bool(place) and ".." not in parts and parts[0] != "" and ":" not in parts[0]


def _json_fault(value: Any) -> str | None:
    try:
        json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return str(error)
    return None
