"""The entry points of the plugin API, read from the folders of installed distributions; nothing is imported.

``importlib.metadata`` stops at the first distribution whose metadata is damaged, also where that is no plugin's, and
reads every METADATA file. Here a damaged distribution costs itself alone.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from forge.api.code import LOCAL, Code
from forge.api.hooks import API

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

UNKNOWN = ("unknown", "0")
"""The distribution of an entry point that has none."""


class Found(NamedTuple):
    """An entry point.

    Attributes:
        point: The entry point.
        source: Name and version of its distribution.
        place: The folder of its distribution's metadata, if it has one.
        fault: What is wrong with that metadata, if anything.
        needs: What its distribution depends on, as PEP 508 requirements.
        code: The file that it is, if it is one beside a job.
    """

    point: EntryPoint
    source: tuple[str, str]
    place: str | None = None
    fault: str | None = None
    needs: tuple[str, ...] = ()
    code: Code | None = None


def installed(path: Iterable[str] | None = None) -> Iterator[Found]:
    """Yield the entry points of every version of the plugin API; of two distributions of a name, the first's."""
    seen: set[str] = set()
    for entry in sys.path if path is None else path:
        try:
            names = sorted(
                item.name for item in os.scandir(entry or ".") if item.name.endswith((".dist-info", ".egg-info"))
            )
        except OSError:  # a zip archive, or a folder that is not there
            continue
        for name in names:
            project = re.sub(r"[-_.]+", "-", name.rpartition(".")[0].rsplit("-", 1)[0]).lower()
            if project not in seen:
                seen.add(project)
                yield from _points(Path(entry) / name)


def of_points(points: Iterable[EntryPoint]) -> Iterator[Found]:
    """Yield entry points with their distributions, each of which parses its metadata whenever it is asked."""
    read: dict[int, tuple[tuple[str, str], tuple[str, ...]]] = {}
    for point in points:
        if point.dist is None:
            yield Found(point, UNKNOWN)
            continue
        if id(point.dist) not in read:
            needs = tuple(map(str, point.dist.requires or ()))
            read[id(point.dist)] = (point.dist.name, point.dist.version), needs
        source, needs = read[id(point.dist)]
        yield Found(point, source, needs=needs)


def of_code(code: Code) -> Found:
    """Return the entry point that a file beside a job stands for."""
    return Found(EntryPoint(code.name, code.name, API), (LOCAL, code.version), str(code.path), code=code)


def _points(folder: Path) -> Iterator[Found]:
    """Yield the entry points of one distribution."""
    text = _read(f"{folder}/entry_points.txt")
    if text is None or "forge_v" not in text:
        return
    source, fault, needs = _source(folder)
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[]").strip()
        elif re.fullmatch(r"forge_v\d+", group) and line and line[0] not in "#;":
            name, equals, value = (part.strip() for part in line.partition("="))
            usable = equals and name and EntryPoint.pattern.match(value)
            damaged = None if usable else f"its entry_points.txt is damaged: {line[:80]!r}"
            yield Found(EntryPoint(name or "?", value, group), source, str(folder), fault or damaged, needs)


def _read(path: str) -> str | None:
    """Return a file's text, or None: it is not there, or its link leads nowhere."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - by every command, in hundreds
            return file.read()
    except OSError:
        return None


def _source(folder: Path) -> tuple[tuple[str, str], str | None, tuple[str, ...]]:
    """Return a distribution's name and version, what is wrong with its metadata, and what it depends on.

    Name and version are from its folder's name where its metadata does not tell.
    """
    stem = folder.name.rpartition(".")[0]
    name, _, version = stem.partition("-")
    for file in ("METADATA", "PKG-INFO"):
        head = _read(f"{folder}/{file}")
        if head is None:
            continue
        head = head.partition("\n\n")[0]  # behind it comes the page of the package
        told = {key: re.search(rf"^{key}:[ \t]*(\S+)", head, re.MULTILINE) for key in ("Name", "Version")}
        if told["Name"] and told["Version"]:
            needs = tuple(re.findall(r"^Requires-Dist:[ \t]*(.+?)[ \t]*$", head, re.MULTILINE))
            return (told["Name"][1], told["Version"][1]), None, needs
        return (name.replace("_", "-"), version or "0"), "its METADATA is damaged; install it again", ()
    return (name.replace("_", "-"), version or "0"), "its METADATA is missing; install it again", ()
