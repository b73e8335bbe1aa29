"""Tools and their calls, in the one form in which templates get them, however a data set keeps them.

A call is ``{"type": "function", "function": {"name", "arguments"}}`` with an object of arguments, and an ``id`` where
the row has one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from forge_huggingface.rows import BadRow
from forge_huggingface.sources.json_rows import load, scan
from forge_huggingface.tools import FORM, wrapped, wrong_tool

_BETWEEN = re.compile(r"(?:\s|,|;|</?(?:tool_calls?|functioncall|function_calls?)>)*")
_QUOTED = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*\'\s*')
_CLOSED = re.compile(r"\s*'\s*\}")
_NONE = ("", "[]", "{}", "null")
_FLAT = ("name", "arguments", "parameters")


def calls_of(value: Any, number: int) -> list[dict[str, Any]]:
    """Return the calls that a message's key holds: a list of calls, one call, or either as JSON text.

    JSON text may say that there are none, as a table's cell does.

    Raises:
        BadRow: They are no calls.
    """
    if isinstance(value, str):
        return [] if len(value) < 99 and "".join(value.split()) in _NONE else spoken_calls(value, number)
    return [_call(call, number) for call in (value if isinstance(value, list) else [value])]


def spoken_calls(text: str, number: int) -> list[dict[str, Any]]:
    """Return the calls that a message's text is: an object, a list of them, or several one after the other.

    The marks that model families put around calls may stand between them.

    Raises:
        BadRow: The text is something else.
    """
    found: list[Any] = []
    at = _end(_BETWEEN, text, 0)
    while at < len(text):
        try:
            value, at = scan(text, at, f"in a tool call of message {number}, ")
        except json.JSONDecodeError as error:
            quoted = _quoted(text, at, number)
            if quoted is None:
                raise BadRow(
                    "has a tool call that is not JSON",
                    f"message {number}: {error.msg} at character {error.pos + 1}",
                    'write {"name": …, "arguments": {…}}, or a list of these',
                ) from error
            value, at = quoted
        except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
            raise BadRow("has a tool call that cannot be read", f"message {number}: {error}") from error
        if isinstance(value, BadRow):
            raise value
        found += value if isinstance(value, list) else [value]
        at = _end(_BETWEEN, text, at)
    if not found:
        raise BadRow("has no tool call where one should be", f"message {number} is empty")
    return [_call(call, number) for call in found]


def tools_of(value: Any) -> tuple[Any, ...] | None:
    """Return a row's tools: objects, or JSON texts of them, in a list or alone.

    Raises:
        BadRow: They are something else.
    """
    value = _loaded(value)
    if value is None:
        return None
    if not isinstance(value, list | Mapping):
        raise BadRow("has tools that are not a list", f"they are a {type(value).__name__}")
    tools = [_loaded(tool) for tool in (value if isinstance(value, list) else [value])]
    for tool in tools:
        if (wrong := wrong_tool(tool)) is not None:
            raise BadRow(f"has a tool {wrong}", None, f"write each as {FORM}")
    if not _writable(tools):
        raise BadRow("has a tool that holds a number that JSON cannot write", _ENDLESS, _LEAVE)
    return tuple(wrapped(tool) for tool in tools) or None


def pruned(value: Any) -> Any:
    """Return a value without the nulls of its objects: Arrow writes them so that all objects are alike."""
    if isinstance(value, dict):
        return {key: pruned(kept) for key, kept in value.items() if kept is not None}
    if isinstance(value, list) and (not value or value[0] is None or isinstance(value[0], dict | list)):
        return [pruned(item) for item in value]
    return value  # also a list of numbers, however long: Arrow's lists are of one kind


def _call(value: Any, number: int) -> dict[str, Any]:
    where = f"message {number}"
    if not isinstance(value, Mapping):
        raise BadRow("has a tool call that is not an object", f"{where} has a {type(value).__name__}")
    nested = value.get("function")
    inner = dict(nested) if isinstance(nested, Mapping) else {key: value[key] for key in _FLAT if key in value}
    name = inner.pop("name", None)
    if not isinstance(name, str) or not name:
        raise BadRow("has a tool call without a name", where, 'write {"name": …, "arguments": {…}}')
    arguments = inner.pop("arguments", None)
    if arguments is None:
        arguments = inner.pop("parameters", None)
    if isinstance(arguments, str):
        try:
            arguments = load(arguments, f"{where}, {name}") if arguments.strip() else None
        except json.JSONDecodeError as error:
            raise BadRow(
                "has a tool call whose arguments are not JSON",
                f"{where}, {name}: {error.msg} at character {error.pos + 1}",
            ) from error
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise BadRow(
            "has a tool call whose arguments are not an object", f"{where}, {name}: {type(arguments).__name__}"
        )
    if not _writable(arguments):
        raise BadRow(
            "has a tool call that holds a number that JSON cannot write", f"{where}, {name}: {_ENDLESS}", _LEAVE
        )
    used = {"type", "id", "function", *(() if isinstance(nested, Mapping) else _FLAT)}
    rest = {key: kept for key, kept in value.items() if key not in used}
    id_ = {"id": value["id"]} if value.get("id") is not None else {}
    return {"type": "function", **id_, "function": {"name": name, "arguments": arguments, **inner}, **rest}


def _quoted(text: str, at: int, number: int) -> tuple[dict[str, Any], int] | None:
    """Return a call as glaive's data sets write it, its arguments as JSON within single quotes, and where it ends."""
    begun = _QUOTED.match(text, at)
    if begun is None:
        return None
    arguments: Any = {}
    end = begun.end()
    if _CLOSED.match(text, end) is None:
        try:
            arguments, end = scan(text, end, f"in a tool call of message {number}, ")
        except json.JSONDecodeError as error:
            raise BadRow(
                "has a tool call whose arguments are not JSON",
                f"message {number}, {json.loads(begun[1])}: {error.msg} at character {error.pos + 1}",
            ) from error
        if isinstance(arguments, BadRow):
            raise arguments
    closed = _CLOSED.match(text, end)
    return None if closed is None else ({"name": json.loads(begun[1]), "arguments": arguments}, closed.end())


_ENDLESS = "NaN, Infinity, or one that is too large"
_LEAVE = "write another number or a text"


def _writable(value: Any) -> bool:
    """Tell whether JSON can write all numbers of a value: Python reads 1e400 as Infinity, and takes NaN for one."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return True
    for inner in value:
        if type(inner) is str:  # most are, and every row with tools comes by here
            continue
        if not _writable(inner):
            return False
    return True


def _loaded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return load(value, "tools") if value.strip() else None
    except json.JSONDecodeError as error:
        raise BadRow("has tools that are not JSON", f"{error.msg} at column {error.colno}") from error


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
