"""What in a job names code that would be run: for who plans jobs of people that must not run what they like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_FILE_OF_CODE = re.compile(r"[^\n]*\.(?:py|pyc|pyw|so|pyd)(?::\w*)?")
_KERNELS = re.compile(r"[\w.-]+/[\w.-]+(?:@[\w./-]+)?(?::\w+)?")


def names_code(key: tuple[str | int, ...], value: object) -> str | None:
    """Say of one value of a job that code would be run for it; None if none would.

    It goes by the value, whatever its key is called, since plugins bring keys of their own.

    >>> names_code(("eval", "metrics", 0), "./a.py:f")
    'names a file of Python to be run'
    >>> names_code(("model", "id"), "org/name")

    Args:
        key: The path of its key; entries of lists by their numbers.
        value: The value.
    """
    if key[-1] == "trust_remote_code" and value is not False:
        return "would run Python code that comes with the model"
    if "include_path" in key:
        return "names a folder of tasks, whose Python would be run"
    if not isinstance(value, str):
        return None
    if _FILE_OF_CODE.fullmatch(value.strip()):
        return "names a file of Python to be run"
    if _FUNCTION.fullmatch(value.strip()):
        return "names a function of an installed module to be run"
    if key[-1] == "attn_implementation" and _KERNELS.fullmatch(value.strip()):
        return "names kernels of the hub, which are code"
    return None


def values_of(value: Any, key: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Yield every value of nested tables and lists with the path of its key; names of keys are not values."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [(key, value)]
    while waiting:
        at, found = waiting.pop()
        if isinstance(found, dict):
            waiting += [((*at, name), item) for name, item in found.items()]
        elif isinstance(found, list):
            waiting += [((*at, index), item) for index, item in enumerate(found)]
        elif at:
            yield at, found
