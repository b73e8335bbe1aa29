"""What plugins may still use and should not any more: since when, until when, and what to use instead.

A deprecation lasts two minor versions. Whoever uses what stands here is told by name in ``forge plugins``, in plans, in
the worker and by :func:`forge.testing.check_plugin`.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from forge.api.stage import ABILITIES, NAMES, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LASTS = 2
"""Minor versions for which what is deprecated still works."""


class ForgeDeprecationWarning(FutureWarning):
    """A plugin uses what a later forge will not have."""


@dataclass(frozen=True, slots=True)
class Deprecation:
    """Something that plugins should not use any more.

    Attributes:
        key: What it is: ``"name X"`` of forge.api, ``"hook forge_x"``, ``"argument forge_x(y)"``, ``"field Offer.x"``,
            ``"word serves train x"``, or a sign of its own where code looks for it.
        what: The same as a phrase, for messages.
        since: The version, as in ``"0.3"``, that first said so.
        cure: What to do instead, as a phrase.
        value: For a name: returns what it stands for.
    """

    key: str
    what: str
    since: str
    cure: str
    value: Callable[[], Any] | None = None

    @property
    def gone(self) -> str:
        """The version that does not have it any more."""
        major, minor = map(int, self.since.split("."))
        return f"{major}.{minor + LASTS}"

    def __str__(self) -> str:
        return f"{self.what}, deprecated since forge {self.since} and gone in {self.gone}: {self.cure}"


SERVES_IN_SUPPORTS = "serves in supports"

_ALL = (
    Deprecation(
        "name VOCABULARY",
        "forge.api.VOCABULARY",
        "0.1",
        "take NAMES for what a job asks for by name, and ABILITIES for the rest",
        lambda: {stage: NAMES.get(stage, frozenset()) | ABILITIES[stage] for stage in Stage},
    ),
    Deprecation(
        SERVES_IN_SUPPORTS,
        "Offer.supports for what a job asks for by name",
        "0.1",
        "write these words into Offer.serves",
    ),
)

DEPRECATED: dict[str, Deprecation] = {each.key: each for each in _ALL}
"""All that is deprecated, by its key."""

_heard: list[list[str]] = []


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what is used inside the block, each thing once; of blocks in blocks, the innermost hears it."""
    told: list[str] = []
    _heard.append(told)
    try:
        yield told
    finally:
        _heard.pop()


def used(what: Deprecation | str) -> None:
    """Tell that something deprecated is used: to who listens, or as a warning."""
    if not _heard:
        warnings.warn(str(what), ForgeDeprecationWarning, stacklevel=4)  # who asked forge.api for the name
    elif str(what) not in _heard[-1]:
        _heard[-1].append(str(what))


def old_name(name: str) -> Any:
    """Return what a deprecated name of forge.api stands for. Raises :class:`KeyError` if it is none."""
    found = DEPRECATED[f"name {name}"]
    used(found)
    assert found.value is not None, name
    return found.value()


def hook_warnings(hook: str, arguments: Iterable[str]) -> tuple[Warning | None, dict[str, Warning]]:
    """Return what pluggy is to warn of: of a hook, and of arguments that an implementation names."""
    named = {each: DEPRECATED[key] for each in arguments if (key := f"argument {hook}({each})") in DEPRECATED}
    whole = DEPRECATED.get(f"hook {hook}")
    warning = ForgeDeprecationWarning(str(whole)) if whole else None
    return warning, {each: ForgeDeprecationWarning(str(said)) for each, said in named.items()}


def in_described(described: Any) -> Iterator[Deprecation]:
    """Yield the deprecated fields that an offer, observer or function sets, and the words that an offer names."""
    kind = type(described).__name__
    for each in fields(described):
        if f"field {kind}.{each.name}" in DEPRECATED and getattr(described, each.name) != _default(each):
            yield DEPRECATED[f"field {kind}.{each.name}"]
    for label in ("serves", "supports"):
        for word in sorted(getattr(described, label, ())):
            if found := DEPRECATED.get(f"word {label} {getattr(described, 'stage', '')} {word}"):
                yield found


def _default(field: Any) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default
