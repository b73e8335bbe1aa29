"""What a plugin says of itself, as a record and as JSON: it is asked in another process, and its answer remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from forge.api.check import Check
from forge.api.command import Command
from forge.api.offer import Extension, Function, Offer, Package
from forge.api.stage import Stage
from forge.api.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.model.facts import ModelFacts

FUNCTIONS = ("probe", "check", "decide")
"""The fields of an offer or extension that are functions."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a plugin says of itself.

    Attributes:
        reason: Why it cannot be used, or None; it has nothing else then.
        offers: What it can do.
        extensions: Its observers.
        functions: The functions that jobs may name.
        commands: The commands that it brings.
        targets: The places where it can send jobs.
        checks: What `forge doctor` checks of it.
        describe: Its hook ``forge_describe``, if it has one.
        deprecated: What it uses and should not any more, each as a phrase.
    """

    reason: str | None = None
    offers: tuple[Offer, ...] = ()
    extensions: tuple[Extension, ...] = ()
    functions: tuple[Function, ...] = ()
    commands: tuple[Command, ...] = ()
    targets: tuple[Target, ...] = ()
    checks: tuple[Check, ...] = ()
    describe: Callable[..., ModelFacts | None] | None = None
    deprecated: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data; of a function, that there is one."""
        return {
            "reason": self.reason,
            "offers": [_plain(offer) for offer in self.offers],
            "extensions": [_plain(extension) for extension in self.extensions],
            "functions": [asdict(function) for function in self.functions],
            "commands": [asdict(command) for command in self.commands],
            "targets": [asdict(target) for target in self.targets],
            "checks": [asdict(check) for check in self.checks],
            "describe": self.describe is not None,
            "deprecated": list(self.deprecated),
        }

    def function(self, index: int, name: str) -> Callable[..., Any] | None:
        """Return one of its functions, as ``from_json`` calls them."""
        if index == -1:
            return self.describe
        found: Callable[..., Any] | None = getattr(
            self.offers[index] if index >= 0 else self.extensions[-2 - index], name
        )
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any], function: Callable[[int, str], Callable[..., Any]]) -> Told:
        """Rebuild it.

        Args:
            data: The data.
            function: Returns what stands for a function, by its name: of the offer of this index, of the hook (-1), or
                of an extension, counted down from -2.

        Raises:
            KeyError, TypeError, ValueError: It is no such data.
        """
        return cls(
            data["reason"],
            tuple(_offer(each, index, function) for index, each in enumerate(data["offers"])),
            tuple(_extension(each, index, function) for index, each in enumerate(data["extensions"])),
            tuple(Function(**each) for each in data.get("functions", ())),
            tuple(Command(**each) for each in data["commands"]),
            tuple(Target(**each) for each in data.get("targets", ())),
            tuple(Check(**each) for each in data.get("checks", ())),
            function(-1, "forge_describe") if data["describe"] else None,
            tuple(data["deprecated"]),
        )


def _plain(value: Any) -> Any:
    """Return a record's fields as JSON data, without those that are as they would be anyway."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {}
        for each in fields(value):
            own = getattr(value, each.name)
            default = each.default if each.default_factory is MISSING else each.default_factory()
            if own != default:
                found[each.name] = _plain(own)
        return found
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return {"set": sorted(value)}  # told from a tuple
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return True if callable(value) else value


def _offer(data: Mapping[str, Any], index: int, function: Callable[[int, str], Callable[..., Any]]) -> Offer:
    values: dict[str, Any] = _tuples(data)
    values["stage"] = Stage(values["stage"])
    values |= {name: function(index, name) for name in FUNCTIONS if name in values}
    if "packages" in values:
        values["packages"] = tuple(Package(**_tuples(each)) for each in data["packages"])
    if "asks" in values:
        values["asks"] = {Stage(stage): words for stage, words in values["asks"].items()}
    return Offer(**values)


def _extension(data: Mapping[str, Any], index: int, function: Callable[[int, str], Callable[..., Any]]) -> Extension:
    values: dict[str, Any] = _tuples(data)
    return Extension(**values | {name: function(-2 - index, name) for name in FUNCTIONS if name in values})


def _tuples(data: Any) -> Any:
    """Return JSON data with the sets and tuples that it was made of."""
    if isinstance(data, dict):
        if data.keys() == {"set"}:
            return frozenset(data["set"])
        return {key: _tuples(item) for key, item in data.items()}
    return tuple(_tuples(item) for item in data) if isinstance(data, list) else data
