"""Reads the fields of trainer configs without importing the trainers.

A job names the trainer's own arguments, so forge must know them while it plans, and importing trl to ask takes seconds
and would let Unsloth come second. :mod:`.source` reads the sources instead. Where they are not installed,
``fields.json`` holds the same table for the tested versions; ``python -m forge_huggingface.arguments.fields --write``
renews the entry of the installed ones.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_huggingface.arguments.source import Declared, Field, declared

if TYPE_CHECKING:
    from collections.abc import Callable


COMMITTED = Path(__file__).with_name("fields.json")
"""The committed table: per class its own fields in the newest tested versions, and of older ones what differs."""

CONFIGS = (
    "SFTConfig",
    "DPOConfig",
    "KTOConfig",
    "ORPOConfig",
    "CPOConfig",
    "RewardConfig",
    "GRPOConfig",
    "RLOOConfig",
    "DistillationConfig",
)
"""The configs that are in the committed table, with the classes that they inherit from."""


@functools.cache
def read(config: str = "SFTConfig") -> dict[str, Field] | None:
    """Read a config's fields from the installed sources, in the order of the dataclass.

    Args:
        config: Name of a config class of trl.

    Returns:
        The fields by name, or ``None`` if trl or transformers is not installed, or not laid out as forge knows it.
    """
    try:
        return _merge(config, declared)
    except (FileNotFoundError, LookupError, SyntaxError):
        return None


@functools.cache
def table(config: str = "SFTConfig") -> dict[str, Field]:
    """Return a config's fields: those installed, or else those of the newest tested versions."""
    installed = read(config)
    if installed is not None:
        return installed
    return next(iter(committed(config).values()))


@functools.cache
def committed(config: str = "SFTConfig") -> dict[str, dict[str, Field]]:
    """Return the committed tables by versions (``"trl 1.16.0, transformers 5.23.0"``), the newest first."""
    return {
        versions: dict(sorted(_merge(config, classes.__getitem__).items()))
        for versions, classes in _committed_classes().items()
        if config in classes
    }


@functools.cache
def _committed_classes() -> dict[str, dict[str, Declared]]:
    """Return the committed classes by versions, the newest first."""
    found: dict[str, dict[str, Declared]] = {}
    if not COMMITTED.exists():
        return found
    for name, entry in json.loads(COMMITTED.read_text(encoding="utf-8")).items():
        newest: dict[str, Any] = {}
        for versions, entries in entry["fields"].items():
            newest = newest or entries
            whole = {**newest, **entries}
            fields = {key: Field.from_json(key, values) for key, values in whole.items() if values is not None}
            found.setdefault(versions, {})[name] = tuple(entry["bases"]), fields
    return found


def installed() -> str | None:
    """Return the installed versions as the committed table names them, or ``None``."""
    # Imported here: few callers need it, and it costs more than reading the sources.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"trl {version('trl')}, transformers {version('transformers')}"
    except PackageNotFoundError:
        return None


def write() -> str:
    """Put the installed versions' fields into the committed table.

    Returns:
        The versions written.

    Raises:
        FileNotFoundError: trl or transformers is not installed.
    """
    versions = installed()
    if versions is None or read() is None:
        raise FileNotFoundError("trl or transformers is not installed here, so there is nothing to read")
    tables = {key: classes for key, classes in _committed_classes().items() if key != versions}
    fresh = tables[versions] = {}
    left = list(CONFIGS)
    while left:
        name = left.pop()
        if name not in fresh:
            fresh[name] = declared(name)
            left += fresh[name][0]
    known = {
        name: {
            "bases": list(fresh[name][0]),
            "fields": _differences({key: each[name][1] for key, each in tables.items() if name in each}),
        }
        for name in sorted(fresh)
    }
    COMMITTED.write_text(_dump(known), encoding="utf-8")
    committed.cache_clear()
    _committed_classes.cache_clear()
    return versions


def _differences(tables: dict[str, dict[str, Field]]) -> dict[str, Any]:
    """Keep the newest table whole, and of the others what differs from it; ``None`` marks a field that is not there."""
    order = sorted(tables, key=lambda versions: [int(part) for part in re.findall(r"\d+", versions)], reverse=True)
    newest = {name: field.to_json() for name, field in tables[order[0]].items()}
    entries: dict[str, Any] = {order[0]: newest}
    for versions in order[1:]:
        older = {name: field.to_json() for name, field in tables[versions].items()}
        names = newest.keys() | older.keys()
        entries[versions] = {name: older.get(name) for name in names if older.get(name) != newest.get(name)}
    return entries


def _dump(known: dict[str, Any]) -> str:
    """Write one field a line, so that a new version of trl makes a readable diff."""
    configs = []
    for name, entry in known.items():
        versions = []
        for key, entries in entry["fields"].items():
            lines = [
                f"    {json.dumps(field)}: {json.dumps(values, ensure_ascii=False)}"
                for field, values in sorted(entries.items())
            ]
            versions.append(f"   {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n   }")
        head = f'{{\n  "bases": {json.dumps(entry["bases"])},\n  "fields": {{\n'
        configs.append(f" {json.dumps(name)}: {head}" + ",\n".join(versions) + "\n  }\n }")
    return "{\n" + ",\n".join(configs) + "\n}\n"


def _merge(config: str, own: Callable[[str], Declared]) -> dict[str, Field]:
    """Put together a class and its bases, the bases first: a later class overrides what an earlier one declares."""
    bases, fields = own(config)
    merged: dict[str, Field] = {}
    for base in reversed(bases):
        merged.update(_merge(base, own))
    return merged | fields


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m forge_huggingface.arguments.fields --write")
    sys.stdout.write(f"{COMMITTED}: {write()}\n")
