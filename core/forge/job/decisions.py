"""Values that a job leaves open: what forge took for them, and a job with them filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.job.keys import SELECTORS, keys_of

if TYPE_CHECKING:
    from forge.job.job import Job


@dataclass(frozen=True, slots=True)
class Decision:
    """A value that the job left open, and why forge took this one.

    Attributes:
        key: The key of the job, as in ``model.dtype``.
        value: The value taken, as JSON data.
        reason: Why, as a phrase.

    Example:
        An offer's ``decide`` yields one for each value that the job leaves open:

        >>> def decide(machine, job, facts):
        ...     if job.model.dtype == "auto":
        ...         yield Decision("model.dtype", "float32", "no GPU is used")
    """

    key: str
    value: Any
    reason: str


def settle(job: Job, decisions: Iterable[Decision]) -> Job:
    """Return the job with decisions in place of what it left open; the last one for a key holds.

    >>> from forge.api import Job
    >>> job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "rows.jsonl"}})
    >>> settle(job, [Decision("model.dtype", "float32", "no GPU is used")]).model.dtype
    'float32'
    """
    for decision in decisions:
        name, _, key = decision.key.partition(".")
        if name == "plugins":
            plugin, _, key = key.partition(".")
            own = {**job.plugins.get(plugin, {}), key: decision.value}
            job = job.model_copy(update={"plugins": {**job.plugins, plugin: own}})
        else:
            table = getattr(job, name)
            told = {keys_of(type(table)).get(key, key): decision.value}
            job = job.model_copy(update={name: table.model_copy(update=told)})
    return job


def decidable(job: Job, key: str) -> bool:
    """Whether a decision can name a key: it is one of the job's, or of a plugin's table.

    What plans are made by is not to be decided while one is made: the model, the words that say what is asked for,
    and ``[use]``.

    >>> from forge.api import Job
    >>> job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "rows.jsonl"}})
    >>> decidable(job, "model.dtype"), decidable(job, "model.dtpe")
    (True, False)
    >>> decidable(job, "train.method")
    False
    """
    if key in _ASKED or key.startswith("use."):
        return False
    name, _, rest = key.partition(".")
    if name == "plugins":
        return "." in rest
    table = getattr(job, name, None) if name in type(job).model_fields else None
    fields = keys_of(type(table)) if table is not None else {}
    return rest in fields or rest in (getattr(table, "model_extra", None) or {})


def value_at(job: Job, key: str) -> Any:
    """Return the value of a key that :func:`decidable` knows; None if it is not there."""
    name, _, rest = key.partition(".")
    if name == "plugins":
        plugin, _, rest = rest.partition(".")
        return job.plugins.get(plugin, {}).get(rest)
    table = getattr(job, name)
    return getattr(table, keys_of(type(table)).get(rest, rest), None)


PINNED = frozenset({"adapter.from", "train.reward"})
"""Keys whose value names what a plan pins: a run becomes its folder, so that a later one does not count."""

_ASKED = frozenset({"model.id", "model.revision", *(f"{table}.{key}" for table, key in SELECTORS.items())})


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Name what differs between two jobs' tables by its key, as ``train.max_steps: 10 → 20``."""
    found: dict[str, str] = {}
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found[f"{prefix}{key}"] = f"{prefix}{key}: {old} → {new}"
    return found
