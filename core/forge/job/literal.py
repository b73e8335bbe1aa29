"""Keys and values as a job file writes them, for texts about jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def literal(value: Any) -> str:
    """Return a value as TOML writes it.

    >>> literal(True), literal("adamw"), literal([0.5, "a"])
    ('true', '"adamw"', '[0.5, "a"]')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {literal(item)}" for key, item in value.items()) + " }"
    return str(value)


def setting(key: str, value: Any) -> str:
    """Return a key with its table and its value.

    >>> setting("train.gradient_checkpointing", True)
    '[train] gradient_checkpointing = true'
    """
    table, _, name = key.partition(".")
    return f"[{table}] {name} = {literal(value)}"
