"""What a cell of a row holds where a source without nested columns (CSV) writes it as JSON text."""

from __future__ import annotations

import json
from typing import Any

from forge_huggingface.rows import BadRow
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
