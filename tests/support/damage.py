"""Damage to files, by a seed: the same each time, and of every kind that copying, editing and disks do to them."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

_WRONG: tuple[Any, ...] = (None, True, -1, 0, 10**30, 1.5, "x", "", [], {}, [None], {"a": {}}, float("nan"), "\ud83d")
_PLACES: tuple[Any, ...] = (*_WRONG, "F16", "F4", [0, 0], [0, 10**12], [5, 1], [-4, 0], [0], ["a", "b"], [1, 2, 3])
_TEMPLATES = (
    "{{ 1 // 0 }}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ 10 ** 400 * 1.0 }}",
    "{{ messages[99].x }}",
    "{% if %}",
    "{{ " + "(" * 300 + ")" * 300 + " }}",
    "{{ ''.encode('x') }}",
    "{{ cycler().next() }}",
    "{{ '\\ud83d' }}",
)


def damage(rng: random.Random, path: Path) -> str:
    """Damage a file, and return what was done to it."""
    raw = path.read_bytes()
    if path.suffix == ".jinja" and rng.random() < 0.7:
        added = rng.choice(_TEMPLATES)
        path.write_bytes(added.encode() + raw)
        return added
    if path.suffix == ".json" and rng.random() < 0.7:
        value = json.loads(raw)
        done = _put(rng, value, _WRONG)
        path.write_text(json.dumps(value))
        return done
    if path.suffix == ".safetensors" and rng.random() < 0.7:
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        done = _put(rng, header, _PLACES)
        written = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(written)) + written + raw[8 + length :])
        return done
    return damage_bytes(rng, path)


def damage_bytes(rng: random.Random, path: Path) -> str:
    """Damage the bytes of a file, and return what was done to them."""
    raw = path.read_bytes()
    first, second = sorted(rng.randrange(len(raw)) for _ in range(2))
    noise = bytearray(raw)
    for _ in range(rng.randrange(1, 20)):
        noise[rng.randrange(len(noise))] = rng.randrange(256)
    forms = {
        "cut": raw[:first],
        "emptied": b"",
        "null": b"null",
        "a list": b"[]",
        "nested": b'{"a":' * 20_000,
        "digits": b'{"a": ' + b"9" * 5000 + b"}",
        "no UTF-8": raw[:first] + b"\xff\xfe" + raw[first:],
        "noise": bytes(noise),
        "a piece lost": raw[:first] + raw[second:],
        "a piece twice": raw[:second] + raw[first:],
    }
    done = rng.choice(sorted(forms))
    path.write_bytes(forms[done])
    return done


def _put(rng: random.Random, value: Any, wrong: tuple[Any, ...]) -> str:
    places = sorted(_places(value), key=len)
    near = places[: max(20, len(places) // 20)]  # what matters stands at the top
    *path, last = rng.choice(near if rng.random() < 0.7 else places)
    for key in path:
        value = value[key]
    value[last] = rng.choice(wrong)
    return f"{'.'.join(map(str, (*path, last)))} = {str(value[last])[:20]!r}"


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:40]) if isinstance(value, list) else ()
    for key, each in pairs:
        yield (*at, key)
        yield from _places(each, (*at, key))
