"""Saying where in a function of the user's something went wrong."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def line_of(function: Callable[..., Any], error: BaseException) -> str:
    """Say in which line of the user's code an error arose: the last one in the function's file, or else the deepest."""
    frames = traceback.extract_tb(error.__traceback__)
    code = getattr(inspect.unwrap(function), "__code__", None)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    outside = [frame for frame in frames if frame.filename != __file__]
    there = own or outside
    return f" at {Path(there[-1].filename).name}:{there[-1].lineno}" if there else ""


def defined(function: Callable[..., Any]) -> str:
    """Return the file and line where a function is defined."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code is not None else repr(function)


def kind_of(value: Any) -> str:
    """Name what a value is, for messages."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return f'the string "{value}"' if len(value) < 40 else "a string"
    return f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"
