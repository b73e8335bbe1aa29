"""What a translation reads from and writes to: the keys of the other tool, each taken once, and the job that comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SECRETS = ("token", "api_key", "secret", "password", "access_key")
"""Parts of the names of keys whose values are never copied."""


@dataclass(frozen=True, slots=True)
class Said:
    """A key of the other tool that has no place in the job, and why.

    Attributes:
        key: Its name there.
        value: Its value, not shown if the name is that of a secret.
        why: What it would do, or what to do instead.
    """

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        shown = "" if secret(self.key) or self.value is None else f" = {short(self.value)}"
        return f"{self.key}{shown}: {self.why}"


def secret(key: str) -> bool:
    """Whether a key holds a secret, by its name."""
    name = key.lower()
    return any(name.endswith(word) for word in SECRETS)


def short(value: Any) -> str:
    """Return a value in few words."""
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}…"


class Given:
    """The keys of a configuration. Each is taken once; what nobody takes has no translation.

    Empty values (``key:`` in YAML) are nothing, as in the tools themselves.
    """

    def __init__(self, values: Mapping[str, Any], prefix: str = "") -> None:
        self._values = {str(key): value for key, value in values.items() if value is not None and value != ""}
        self._prefix = prefix

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def look(self, name: str, default: Any = None) -> Any:
        """Return a value that is taken elsewhere."""
        return self._values.get(name, default)

    def take(self, name: str, default: Any = None) -> Any:
        """Return a value; it is dealt with then."""
        return self._values.pop(name, default)

    def number(self, name: str, default: Any = None) -> Any:
        """Return a value as a number: YAML reads ``2e-4`` as a text."""
        return numeric(self.take(name, default))

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a value as true or false."""
        return truth(self.take(name, default))

    def words(self, name: str) -> list[str]:
        """Return a value as a list of words; a text is taken apart at commas and blanks."""
        value = self.take(name)
        if value is None:
            return []
        if isinstance(value, str):
            return value.replace(",", " ").split()
        return [str(word) for word in value] if isinstance(value, list | tuple) else [str(value)]

    def starting(self, *starts: str) -> Iterator[tuple[str, Any]]:
        """Take all keys that begin so."""
        for name in [name for name in self._values if name.startswith(starts)]:
            yield self._prefix + name, self._values.pop(name)

    def rest_if(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
        """Take all keys whose names are wanted."""
        for name in [name for name in self._values if wanted(name)]:
            yield self._prefix + name, self._values.pop(name)

    def rest(self) -> Iterator[tuple[str, Any]]:
        """Take all that is left."""
        for name in list(self._values):
            yield self._prefix + name, self._values.pop(name)


def numeric(value: Any) -> Any:
    """Return a text that is a number as one; whole where it is written so.

    >>> numeric("2e-4"), numeric("8"), numeric("all")
    (0.0002, 8, 'all')
    """
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def truth(value: Any) -> bool:
    """Return what a flag says; texts as command lines have them."""
    return value.strip().lower() in {"true", "yes", "1", "on"} if isinstance(value, str) else bool(value)


@dataclass
class Draft:
    """A job in the making.

    Attributes:
        tool: The other tool's name, for comments.
        tables: Values by table and key.
        notes: Comments beside values.
        sources: Tables of ``[[data.sources]]``; a single one is written as ``[data]``.
        rewards: Tables of ``[[train.reward]]``.
        exports: Tables of ``[[export]]``.
        missing: What changes the training and cannot be had.
        dropped: What changes nothing of it.
        told: What should be known of the job.
    """

    tool: str
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    rewards: list[dict[str, Any]] = field(default_factory=list)
    exports: list[dict[str, Any]] = field(default_factory=list)
    missing: list[Said] = field(default_factory=list)
    dropped: list[Said] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def set(self, key: str, value: Any, note: str | None = None) -> None:
        """Write ``table.key``; None writes nothing."""
        if value is None:
            return
        table, _, name = key.partition(".")
        self.tables.setdefault(table, {})[name] = value
        if note:
            self.notes[table, name] = note

    def get(self, key: str, default: Any = None) -> Any:
        """Return what ``table.key`` was set to."""
        table, _, name = key.partition(".")
        return self.tables.get(table, {}).get(name, default)

    def otherwise(self, key: str, value: Any, note: str | None = None) -> None:
        """Write the other tool's default where its configuration says nothing."""
        if self.get(key) is None:
            self.set(key, value, note or f"{self.tool}'s default")

    def lack(self, key: str, value: Any, why: str) -> None:
        """Say that a key changes the training and cannot be had."""
        self.missing.append(Said(key, value, why))

    def drop(self, key: str, value: Any, why: str) -> None:
        """Say that a key falls away, and that it changes nothing."""
        self.dropped.append(Said(key, value, why))

    def tell(self, text: str) -> None:
        """Say what should be known of the job."""
        if text not in self.told:
            self.told.append(text)
