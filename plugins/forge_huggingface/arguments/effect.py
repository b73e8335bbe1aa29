"""A key that matters only beside another key's value, and what writes several of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]

NOT_READ = "{by} does not read it"


@dataclass(frozen=True, slots=True)
class Effect:
    """A key that matters only if another one has certain values.

    Attributes:
        key: The key.
        by: The other key.
        idle: Whether the values leave the key without effect.
        why: Why, as a phrase; ``{by}`` is the other key with its value, as a job writes it.
        do: What to do, as a phrase.
    """

    key: str
    by: str
    idle: Callable[[Values], bool]
    why: str
    do: str


def losses_of(values: Values) -> frozenset[str]:
    """Return the losses of a method, of which dpo may have several."""
    found = values.get("loss_type")
    return frozenset([found] if isinstance(found, str) else found or [])


def by_loss(reads: Mapping[str, tuple[str, ...]], *methods: str) -> tuple[Effect, ...]:
    """Return effects of keys that only some losses read.

    Args:
        reads: For each key the losses that read it.
        methods: A key that only these methods' arguments have, since others share the key's name.
    """

    def idle(losses: tuple[str, ...]) -> Callable[[Values], bool]:
        return lambda values: all(mark in values for mark in methods) and not losses_of(values) & set(losses)

    return tuple(
        Effect(key, "loss_type", idle(losses), NOT_READ, f"remove it, or take {' or '.join(losses)}")
        for key, losses in reads.items()
    )


def switched(switch: str, keys: tuple[str, ...]) -> tuple[Effect, ...]:
    """Return effects of keys that matter only where a switch is on."""
    do = f"write {switch} = true, or remove it"
    return tuple(Effect(key, switch, lambda values: not values.get(switch), "{by}", do) for key in keys)
