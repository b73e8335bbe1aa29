"""Calling a function of the user's, and saying where in it something went wrong."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def call(function: Callable[..., Any], keywords: Mapping[str, Any], run: Callable[[Any], Any], *own: Any) -> Any:
    """Call a function, bound to ``own`` if given, and wait for its end if it is a coroutine, which ``run`` runs."""
    returned = function(*own, **keywords)
    if not inspect.isawaitable(returned):
        return returned
    value, left = run(_end_of(returned))
    if left is not None:
        raise left
    return value


async def call_inside(function: Callable[..., Any], keywords: Mapping[str, Any], *own: Any) -> Any:
    """Call a function inside a running event loop; as :func:`call` otherwise."""
    returned = function(*own, **keywords)
    return await returned if inspect.isawaitable(returned) else returned


async def _end_of(returned: Any) -> tuple[Any, SystemExit | None]:
    """Make a coroutine, which runners want, of whatever can be awaited; ``exit()`` would end the loop that runs it."""
    try:
        return await returned, None
    except SystemExit as error:
        return None, error


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a function, or the ``__call__`` of what can be called, is a coroutine function."""
    inner = inspect.unwrap(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004 - not whether it can be called


FAULTS = (Exception, SystemExit)
"""What a function of the user's may raise that is its fault: ``exit()`` in it ends no training without a word."""


def guilty(call_alone: Callable[[int], Any], count: int, error: BaseException) -> int | None:
    """Return the first of so many rows for which a function fails alike when it gets that one alone."""
    for index in range(count):
        try:
            call_alone(index)
        except type(error):
            return index
        except FAULTS:  # it fails otherwise alone, so this tells nothing
            return None
    return None


def said(function: Callable[..., Any], error: BaseException) -> str:
    """Return what a function raised, and in which line of the user's code."""
    try:
        words = str(error)
    except Exception as other:  # noqa: BLE001 - an error of the user's whose text fails too
        words = f"its text cannot be made ({type(other).__name__})"
    name = type(error).__name__
    return f"{name}: {words}{line_of(function, error)}" if words else f"{name}{line_of(function, error)}"


def line_of(function: Callable[..., Any], error: BaseException) -> str:
    """Say in which line of the user's code an error arose: the last one in the function's file, or else the deepest."""
    frames = traceback.extract_tb(error.__traceback__)
    # What comes before the last call from here is forge, and nothing comes after a call that did not come about.
    calls = [place for place, frame in enumerate(frames) if frame.filename == __file__]
    inside = frames[calls[-1] + 1 :] if calls else frames
    code = getattr(inspect.unwrap(function), "__code__", None)
    own = [frame for frame in inside if code is not None and frame.filename == code.co_filename]
    there = own or inside
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
