"""Objects by name: ``"package.module:name"``, as offers and plans write what is imported later."""

from __future__ import annotations

import importlib


def load_object(reference: str) -> object:
    """Import ``"package.module:name"`` and return the object.

    >>> load_object("json:dumps")([1])
    '[1]'

    Raises:
        ImportError: The module, or the name in it, does not exist.
    """
    module, colon, name = reference.partition(":")
    if not colon:
        raise ImportError(f"{reference} names no object: write package.module:name")
    target = importlib.import_module(module)
    try:
        return getattr(target, name)
    except AttributeError:
        raise ImportError(f"{module} has no {name}") from None
