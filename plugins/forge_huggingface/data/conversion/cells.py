"""What a cell of a row holds where a source without nested columns (CSV) writes it as JSON text."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from typing import Any

from forge_huggingface.data.conversion.columns import blank, nothing
from forge_huggingface.rows import BadRow, Label
from forge_huggingface.sources.json_rows import load


def parsed(value: Any, name: str) -> Any:
    """Return a list or object that may be written as JSON text; None for a text of white space."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return load(value, name)
    except json.JSONDecodeError as error:
        raise BadRow(f"has {name} that are not JSON", f"{error.msg} at column {error.colno}") from error


def parsed_list(value: Any) -> Any:
    """Return the list that may be written as JSON text; any other text is one image."""
    return parsed(value, "images") if isinstance(value, str) and value.lstrip().startswith("[") else value


def truth(value: Any, column: str) -> bool:
    """Return a truth value, also as a number or, as CSV has it, a text. Raises :class:`BadRow` for anything else."""
    known = {"true": True, "1": True, "false": False, "0": False}
    found = known.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool) and found not in (0, 1):
        raise BadRow(f"has no truth value in {column!r}", f"it is {value!r}", "write true or false, or 1 or 0")
    return bool(found)


def label_of(value: Any, column: str, row: Mapping[str, Any]) -> Label:
    """Return the label in a cell: a name, a whole number, a number, or the names of several, which may be JSON text.

    Raises:
        BadRow: It is none.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(json.JSONDecodeError):  # else it is a name that begins with a bracket
            value = load(value, column)
    if isinstance(value, list | tuple):
        names = tuple(_name(each, column) for each in value)
        if twice := next((name for name in names if names.count(name) > 1), None):
            do = "write a list of the labels that the row has, not a 0 or 1 for each that there is"
            raise BadRow(f"has the label {twice!r} twice in {column!r}", None, do)
        return names
    if value is None or blank(value):
        raise nothing(row, column)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadRow(f"has no number in {column!r}", f"it is {value}", "take the row out")
        return value
    return value if isinstance(value, int) and not isinstance(value, bool) else _name(value, column)


def _name(value: Any, column: str) -> str:
    """Return the name of a class."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, str) and not blank(value)):
        return str(value)
    what = f"it is {value!r}" if isinstance(value, str | float) or value is None else f"it is a {type(value).__name__}"
    raise BadRow(f"has no label in {column!r}", what, "write a text, a number, or a list of texts")
