"""What ``forge_v1`` holds, a line for each thing that a plugin can rely on: ``core/forge/api/forge_v1.txt``.

``nox -s contract`` adds the lines that are missing. It removes and changes none: that is done by hand, by who has read
what docs/plugins/stability.md says of it.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from forge import api, testing
from forge.api import hooks
from forge.api.deprecated import DEPRECATED
from forge.api.hooks import API
from forge.discovery.discover import discover
from forge.errors import ForgeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE = Path(api.__file__).with_name(f"{API}.txt")

HEAD = """\
# What plugins can rely on, a line for each thing, held by a test; docs/plugins/stability.md has the rules.
# Adding: `nox -s contract`. Removing or changing: deprecate it, and take the line out two minor versions later.
"""

CHANGING = {"api.Plan.forge", "api.Plan.schema"}
"""Fields whose defaults tell a version, and are to change."""


def written() -> list[str]:
    """Return the lines of the file."""
    text = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def contract() -> list[str]:
    """Return the lines as forge is now, sorted."""
    return sorted({line.replace("\n", " ") for line in _lines()})


def add() -> list[str]:
    """Add the missing lines to the file, and return them."""
    before = written()
    missing = sorted(set(contract()) - set(before))
    FILE.write_text(HEAD + "\n".join(sorted({*before, *missing})) + "\n", encoding="utf-8")
    return missing


def differences(before: Sequence[str], now: Sequence[str]) -> str:
    """Return what to do about lines that are not the same, or nothing."""
    gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    told = []
    if gone:
        told += ["These are gone or changed, and plugins rely on them. Bring them back; to end one, mark it in", *_ENDS]
        told += [f"  {line}" for line in gone]
    if new:
        told += ["These are new, which is allowed, if they are meant to stay: `nox -s contract` adds the lines", *_NEW]
        told += [f"  {line}" for line in new]
    return "\n".join(told)


_ENDS = ("forge/api/deprecated.py and remove it two minor versions later, with its line: docs/plugins/stability.md",)
_NEW = ("(a field or argument needs a default, or plugins that do not know it stop working)",)


def _lines() -> Iterator[str]:
    yield f"group {API}"
    for prefix, module in (("api", api), ("testing", testing)):
        for name in module.__all__:
            yield from _thing(f"{prefix}.{name}", getattr(module, name))
    yield from (f"name api.{key.removeprefix('name ')}" for key in DEPRECATED if key.startswith("name "))
    for kind in (hooks.PlanHooks, hooks.RunHooks, hooks.ReadHooks, hooks.EventHooks):
        for name, hook in vars(kind).items():
            if name.startswith("forge_"):
                yield from _function(f"hook {name}", hook, places=False)
    for label, words in (("serves", api.NAMES), ("supports", api.ABILITIES)):
        for stage, known in words.items():
            yield from (f"word {label} {stage.value} {word}" for word in known)
    for plugin in discover({"FORGE_PLUGINS": ""}).plugins:
        for offer in plugin.offers:
            yield from (f"word trait {trait}" for trait in offer.provides | offer.depends | offer.removes)
    yield from (f"event {kind}: {event.__name__}" for kind, event in api.EVENTS.items())


def _thing(name: str, thing: Any) -> Iterator[str]:
    """Yield what can be relied on about a public name."""
    if name in {"api.PlanHooks", "api.RunHooks"}:  # told as hooks
        yield f"name {name}"
    elif inspect.isclass(thing):
        yield from _class(name, thing)
    elif inspect.isfunction(thing):
        yield f"name {name}"
        yield from _function(f"call {name}", thing)
    else:
        yield f"name {name}"
        if get_origin(thing) is Literal:
            yield from (f"word {name} {word}" for word in get_args(thing))


def _class(name: str, kind: type) -> Iterator[str]:
    bases = [base.__name__ for base in kind.__bases__ if base.__module__.startswith("forge")]
    yield f"name {name}" + (f" is a {', '.join(bases)}" if bases else "")
    if issubclass(kind, Enum):
        yield from (f"member {name}.{each.name} = {each.value!r}" for each in kind)
    elif issubclass(kind, BaseModel):
        known: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            known |= vars(base).get("__annotations__", {})
        for field, its in kind.model_fields.items():
            default = "" if its.is_required() else f" = {_shown(its.get_default(call_default_factory=True))}"
            yield f"field {name}.{field}: {known[field]}{default}"
    elif is_dataclass(kind):
        positional = 0
        for each in fields(kind):
            place = "" if each.kw_only else f" [{positional}]"
            positional += not each.kw_only
            yield f"field {name}.{each.name}{place}: {each.type}{_default(name, each)}"
    elif issubclass(kind, Exception) and inspect.isfunction(kind.__init__):
        yield from _function(f"call {name}", kind.__init__)
    else:
        for field, said in vars(kind).get("__annotations__", {}).items():
            yield f"field {name}.{field}: {said}"
    if issubclass(kind, ForgeError):
        yield f"exit {name} = {kind.exit_code}"
    for member, found in vars(kind).items():
        if not member.startswith("_"):
            yield from _member(f"{name}.{member}", found)


def _member(name: str, found: Any) -> Iterator[str]:
    function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
    if isinstance(found, property):
        yield f"has {name}: {inspect.signature(found.fget).return_annotation}"  # type: ignore[arg-type]
    elif inspect.isfunction(function):
        yield from _function(f"call {name}", function)


def _function(name: str, function: Any, *, places: bool = True) -> Iterator[str]:
    """Yield what a function returns, and each argument: its place, where it can be told by it, and its default.

    pluggy gives a hook's arguments by their names, so their places say nothing.
    """
    signature = inspect.signature(function)
    yield f"{name} -> {signature.return_annotation}"
    arguments = [each for each in signature.parameters.values() if each.name not in {"self", "cls"}]
    for place, each in enumerate(arguments):
        default = "" if each.default is each.empty else f" = {_shown(each.default)}"
        at = f" [{place}]" if places and each.kind is each.POSITIONAL_OR_KEYWORD else ""
        star = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        yield f"{name}({star}{each.name}){at}: {each.annotation}{default}"


def _default(name: str, field: Field[Any]) -> str:
    if f"{name}.{field.name}" in CHANGING:
        return " = …"
    if field.default is not MISSING:
        return f" = {_shown(field.default)}"
    return f" = {_shown(field.default_factory())}" if field.default_factory is not MISSING else ""


def _shown(value: Any) -> str:
    """Return a default as text that is the same in every process."""
    if value is os.environ:
        return "os.environ"
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, frozenset | set):
        return f"{{{', '.join(sorted(map(repr, value)))}}}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_shown(item)}' for key, item in sorted(value.items()))}}}"
    if isinstance(value, BaseModel):
        return f"{type(value).__name__}()"
    if callable(value):
        return "a function"
    said = repr(value)
    return f"{type(value).__name__}()" if " at 0x" in said else said


if __name__ == "__main__":
    for line in add():
        sys.stdout.write(f"added: {line}\n")
    sys.exit(differences(written(), contract()) or 0)
