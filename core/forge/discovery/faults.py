"""What is wrong with what a plugin says of itself, in words for its author."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from forge.api.command import Command
from forge.api.offer import Extension, Function, Offer, Package
from forge.api.stage import ABILITIES, NAMES, Stage
from forge.api.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REFERENCE = re.compile(r"[\w.]+:\w+")
MODULE = re.compile(r"[\w.]+")
LONGEST = 64
"""Letters of a plugin's name; it becomes part of messages, tables and names of files."""
RESERVED = re.compile(r"PATH|HOME|USER|LD_.*|DYLD_.*|PYTHON.*|FORGE_.*")
"""Variables that no offer may set: a worker that cannot find its modules would blame the wrong plugin."""


def name_fault(name: str) -> str | None:
    """Return what is wrong with a plugin's name, or None."""
    if len(name) > LONGEST or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        return f"a plugin's name is of at most {LONGEST} letters (a-z), digits, dashes and dots"
    return None


def fault_of(plugin: str, described: Sequence[object], brought: Sequence[object], *, describes: bool) -> str | None:
    """Return what is wrong with what a plugin yields, or None; ``brought`` are its commands and targets."""
    if not described and not brought and not describes:
        hooks = "forge_offers, forge_commands and forge_targets"
        return f"offers nothing: its hooks {hooks} yield nothing and it has no forge_describe"
    for item in described:
        if isinstance(item, Function):
            if fault := _function_fault(plugin, item):
                return fault
            continue
        if not isinstance(item, Offer | Extension):
            return f"yields {type(item).__name__} where forge.api.Offer, Extension or Function is due"
        if fault := _offer_fault(plugin, item) if isinstance(item, Offer) else _extension_fault(item):
            return fault
    for item in brought:
        if not isinstance(item, Command | Target):
            return f"yields {type(item).__name__} where forge.api.Command or Target is due"
        kind = type(item).__name__.lower()
        if not isinstance(item.name, str) or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", item.name):
            return f"brings the {kind} {item.name!r}; a name is of lower-case letters, digits and dashes"
        if not isinstance(item.help, str):
            return f"brings the {kind} {item.name} with the help {item.help!r}; write a text"
        if not _is_reference(item.impl):
            return f"brings the {kind} {item.name} as {item.impl!r}; write package.module:name"
    return None


def _is_reference(value: object) -> bool:
    return isinstance(value, str) and bool(REFERENCE.fullmatch(value))


def _holds(kind: type[frozenset[Any] | tuple[Any, ...]]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind) and all(isinstance(each, str) for each in value)


def _optional(test: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or test(value)


_WORDS = ("frozenset({'…'})", _holds(frozenset))
_TEXTS = ("('…',)", _holds(tuple))
_NAMED = ("package.module:name", _optional(_is_reference))
_FUNCTION = ("a function", _optional(callable))
_TEXT = ("a text", _optional(lambda value: isinstance(value, str)))

_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "impl": ("package.module:function", _is_reference),
    **dict.fromkeys(
        ("serves", "supports", "platforms", "accelerators", "provides", "removes", "depends", "conflicts", "patches"),
        _WORDS,
    ),
    **dict.fromkeys(("requires_dist", "preload", "before", "sheds"), _TEXTS),
    **dict.fromkeys(("options", "config", "preflight", "upload", "estimate", "fit", "pace", "trial"), _NAMED),
    **dict.fromkeys(("probe", "check", "decide"), _FUNCTION),
    "packages": (
        "a tuple of forge.api.Package",
        lambda value: isinstance(value, tuple) and all(isinstance(each, Package) for each in value),
    ),
    "asks": (
        "{Stage.COLLATE: frozenset({'…'})}",
        lambda value: (
            isinstance(value, Mapping)
            and all(isinstance(stage, Stage) and _WORDS[1](words) for stage, words in value.items())
        ),
    ),
    "environment": (
        "a dict of texts",
        lambda value: (
            isinstance(value, Mapping) and all(isinstance(each, str) for pair in value.items() for each in pair)
        ),
    ),
    "untried": (
        "a dict of tuples of texts",
        lambda value: (
            isinstance(value, Mapping)
            and all(isinstance(key, str) and _TEXTS[1](tasks) for key, tasks in value.items())
        ),
    ),
    "priority": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "backend": _TEXT,
    "resumes": ("true or false", lambda value: isinstance(value, bool)),
}
"""What each field of an offer holds, and whether a value is that."""


def _offer_fault(plugin: str, offer: Offer) -> str | None:
    if not isinstance(offer.stage, Stage):
        return f"offers the stage {offer.stage!r}; write a member of forge.api.Stage"
    for each in fields(Offer):
        due, fits = _KINDS.get(each.name, ("", lambda _value: True))
        value = getattr(offer, each.name)
        if not fits(value):
            return f"offers {offer.stage} with {each.name} = {value!r:.80}; write {due}"
    if offer.options and offer.stage not in NAMES:
        return f"offers {offer.stage} with options, and no table of a job is this stage's; its keys belong into config"
    if taken := sorted(name for name in offer.environment if RESERVED.fullmatch(name)):
        return f"offers {offer.stage} with {taken[0]} in its environment, which is for the user and forge to set"
    for name, words, known in (
        ("serves", offer.serves, NAMES.get(offer.stage, frozenset())),
        ("supports", offer.supports, ABILITIES[offer.stage]),
    ):
        if strange := sorted(word for word in words if word not in known and not word.startswith(f"{plugin}/")):
            other = "serves" if name == "supports" else "supports"
            if set(strange) <= (ABILITIES if name == "serves" else NAMES).get(offer.stage, frozenset()):
                return f"{name} {', '.join(strange)} at {offer.stage}; that belongs to {other}"
            there = ", ".join([*sorted(known), f"{plugin}/…"])
            return f"{name} {', '.join(strange)}, unknown for {offer.stage}; known: {there}"
    if offer.stage in NAMES and not offer.serves:
        return f"offers {offer.stage} and serves no word of it, so that no job could ask for it"
    return None


def _function_fault(plugin: str, function: Function) -> str | None:
    if not isinstance(function.name, str) or not re.fullmatch(rf"{re.escape(plugin)}/[\w.-]+", function.name):
        return f"brings the function {function.name!r}; its name is {plugin}/ and a word"
    if not _is_reference(function.impl):
        return f"brings the function {function.name} as {function.impl!r}; write package.module:function"
    return None


def _extension_fault(extension: Extension) -> str | None:
    if not isinstance(extension.impl, str) or not MODULE.fullmatch(extension.impl):
        return f"brings an observer as {extension.impl!r}; write package.module"
    for name in ("requires_dist", "config", "check", "decide"):
        due, fits = _KINDS[name]
        if not fits(getattr(extension, name)):
            return f"brings an observer with {name} = {getattr(extension, name)!r:.80}; write {due}"
    return None
