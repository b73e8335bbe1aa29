"""The one way to call a plugin while forge plans: what goes wrong in it is told with its name, version and function."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from forge.discovery.guard import NoAnswer, import_guard
from forge.errors import ForgeError, PluginError, told_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forge.discovery.catalogue import Plugin

T = TypeVar("T")


def call(plugin: Plugin, what: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function of a plugin.

    Args:
        plugin: The plugin.
        what: What is called, as in ``"its probe"``.
        function: The function.
        arguments: What it is given.

    Raises:
        PluginError: It raised something, or did not answer.
        ForgeError: It raised that: what it says is for the user.
    """
    try:
        with import_guard():
            return function(*arguments)
    except (ForgeError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a stranger's function may raise SystemExit, too
        raise failed(plugin, what, reason_of(error)) from error


def taken(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some keyword arguments that a function takes: it may be older than they are.

    >>> taken(lambda job, *, named=(): named, {"named": {"train.seed"}, "rows": 3})
    {'named': {'train.seed'}}
    """
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return dict(offered)
    names = {each.name for each in parameters if each.kind in {each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD}}
    return {name: value for name, value in offered.items() if name in names}


def records_of(
    plugin: Plugin,
    what: str,
    kind: type[T] | tuple[type[T], ...],
    function: Callable[..., Iterable[T]] | None,
    *arguments: Any,
    **offered: Any,
) -> list[T]:
    """Call a function of a plugin that yields records, with what it takes of what is offered by name.

    Raises:
        PluginError: It raised something, or yields other things.
    """
    if function is None:
        return []
    try:
        found = call(plugin, what, lambda: list(function(*arguments, **taken(function, offered))))
    except ForgeError as error:
        if isinstance(error, PluginError):
            raise
        raise failed(plugin, what, reason_of(error)) from error
    if strange := next((each for each in found if not isinstance(each, kind)), None):
        kinds = " or ".join(f"forge.api.{each.__name__}" for each in (kind if isinstance(kind, tuple) else (kind,)))
        due = f"it yields {type(strange).__name__} where {kinds} is due"
        raise failed(plugin, what, due)
    return found


def failed(plugin: Plugin, what: str, why: str) -> PluginError:
    """Return the error of a plugin that broke its contract."""
    return PluginError(f"{plugin}: {what} failed", why, f"update it, or go on without it: FORGE_PLUGINS=-{plugin.name}")


def reason_of(error: BaseException) -> str:
    """Return what a plugin raised, as a phrase."""
    return line_of(str(error) if isinstance(error, NoAnswer) else told_by(error))


def line_of(text: str) -> str:
    """Return what a plugin says as one line, and not a long one: it stands in lists."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


_LONGEST = 400
