"""Events: how a worker tells what happens, and how anyone reads it.

A worker appends one JSON object a line to ``events.jsonl``; the parent follows that file. A file needs no pipe that
could block or break, survives both processes, and is all that a report or another program needs.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from forge.api.event import Event, event_of
from forge.disk.faults import disk_errors
from forge.masking import masked

if TYPE_CHECKING:
    from pathlib import Path


class EventLog:
    """Appends events to a file, each flushed at once."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("ab")
        if path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill in the middle of a line leaves half of one
                    self._file.write(b"\n")

    def append(self, event: Event) -> None:
        """Write one event with the time in seconds since the epoch."""
        head = {"time": round(time.time(), 3), "kind": event.kind}
        line = {**head, **plain(event.values), **head}  # the head comes first, and no value may take its place
        text = masked(json.dumps(line, ensure_ascii=False, allow_nan=False))
        with disk_errors(self._path):
            self._file.write(text.encode(errors="backslashreplace") + b"\n")  # a file's name may be no text
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def plain(value: Any) -> Any:
    """Make a value JSON: numpy's and torch's become numbers and lists, and what is not finite becomes ``null``."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


class Follower:
    """Reads the events that are appended to a file from a position on, its end if none is said."""

    def __init__(self, path: Path, position: int | None = None) -> None:
        self._path = path
        self._position = position if position is not None else path.stat().st_size if path.exists() else 0
        self._rest = b""

    def poll(self) -> Iterator[Event]:
        """Yield the events that have been completed since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            text = self._rest + file.read()
            self._position = file.tell()
        *lines, self._rest = text.split(b"\n")
        yield from map(event_of, _parse(lines))


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file as they are, for who reads a hundred thousand; half-written ones are skipped."""
    if path.exists():
        yield from _parse(path.read_bytes().split(b"\n"))


def last_event(path: Path) -> dict[str, Any] | None:
    """Return the last whole line of a file, read from its end; None if there is none."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        end, rest = file.seek(0, os.SEEK_END), b""
        while end > 0:
            begin = max(end - _PIECE, 0)
            file.seek(begin)
            first, *lines = (file.read(end - begin) + rest).split(b"\n")
            if begin == 0:
                lines.insert(0, first)
            if found := next(_parse(lines[::-1]), None):
                return found
            end, rest = begin, first
    return None


_PIECE = 2**16
"""Bytes that are read at once from the end of a file."""


def _parse(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.strip():
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):  # half a line, from a killed worker
                continue
            if isinstance(event, dict) and isinstance(event.get("kind"), str):
                yield event
