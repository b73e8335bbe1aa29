"""Functions of libraries that are replaced while a model is trained, and how they come back."""

from __future__ import annotations

from typing import Any

_REPLACED: dict[tuple[str, str], tuple[Any, Any]] = {}


def replace(module: Any, name: str, value: Any) -> None:
    """Put a value in the place of a module's, once; :func:`restore` undoes it."""
    key = (module.__name__, name)
    if key not in _REPLACED:
        _REPLACED[key] = (module, getattr(module, name))
    setattr(module, name, value)


def original(module: Any, name: str) -> Any:
    """Return what the library itself has under a name."""
    replaced = _REPLACED.get((module.__name__, name))
    return replaced[1] if replaced else getattr(module, name)


def restore() -> None:
    """Give every library its own back."""
    while _REPLACED:
        (_, name), (module, value) = _REPLACED.popitem()
        setattr(module, name, value)
