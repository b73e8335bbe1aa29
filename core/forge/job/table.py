"""The base of every table of a job file, forge's own and those of plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from forge.errors import ForgeError, Mistake, Mistakes, PluginError, told_by

T = TypeVar("T", bound=BaseModel)

NonEmpty = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Hint:
    """What to do about a key that a table does not know.

    Attributes:
        do: What to do, as a phrase.
        key: The key of the same table that is meant, if it is one.
    """

    do: str
    key: str | None = None


class Table(BaseModel):
    """One table of a job file: unknown keys and wrong types are errors, and nothing changes afterwards.

    Example:
        What ``Offer.options`` of a plugin may name; a contradiction is told with the line of its first key:

        >>> class ZipOptions(Table):
        ...     level: int = Field(6, ge=0, le=9, description="How hard to try.")
        ...     store: bool = Field(False, description="Do not compress.")
        ...
        ...     def contradictions(self):
        ...         if self.store and "level" in self.model_fields_set:
        ...             yield Mistake("store = true compresses nothing; remove level", ("level", "store"))
        >>> ZipOptions(level=9).level
        9
        >>> [mistake.keys for mistake in ZipOptions.model_construct({"store", "level"}, store=True).contradictions()]
        [('level', 'store')]
    """

    # TOML has nan and inf, and a bound alone lets inf through.
    # A job builds the validators of its tables with its own; none of them needs one of itself before.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def forge_hint(cls, key: str) -> Hint | None:  # noqa: ARG003 - for those who have one
        """Return what to do about a key that this table does not know; None where the nearest name says enough."""
        return None

    @classmethod
    def forge_word(cls, word: str) -> str | None:  # noqa: ARG003
        """Return what to write for a method, type or format that no plugin serves: other tools have other words."""
        return None

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in, which no single key shows."""
        return iter(())

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        context = info.context or {}
        if context.get("checked"):  # a job of an older forge, which did not know what today's calls a mistake
            return self
        changed = context.get("changed", ())  # what a change for this time sets in this table
        found = list(self.contradictions())
        overruled = {each.keys[0] for each in found if each.by in changed and each.keys[0] not in changed}
        if wrong := [each for each in found if each.by is None or each.keys[0] not in overruled]:
            raise Mistakes(*wrong)
        fields = type(self).model_fields
        left_out = {name: fields[name].get_default(call_default_factory=True) for name in overruled}
        return self.model_copy(update=left_out) if left_out else self


class Extensible(Table):
    """A table that plugins add keys to: those are checked by the plugins' models, defaults filled in."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> Mapping[str, Any]:
        """The plugins' keys."""
        return self.model_extra or {}


def judged(model: type[T], value: Any, context: Any = None) -> T:
    """Return a table as a model makes it, which may be a plugin's and do anything.

    Raises:
        ValidationError: The table has mistakes.
        PluginError: The model raised something else.
    """
    try:
        with redirect_stdout(sys.stderr):
            return model.model_validate(value, context=context)
    except (ValidationError, ForgeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        what = f"{model.__module__}.{model.__qualname__} failed at the keys of a job"
        raise PluginError(what, told_by(error), "update its plugin, or go on without it") from error
