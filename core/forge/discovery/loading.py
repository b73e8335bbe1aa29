"""Importing a plugin's module and collecting what it says of itself: forge's own here, others' in another process."""

from __future__ import annotations

import traceback
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from types import ModuleType
from typing import TYPE_CHECKING, Any

from forge.api.check import Check
from forge.api.code import known_code
from forge.api.command import Command
from forge.api.deprecated import DEPRECATED, SERVES_IN_SUPPORTS, heard, in_described, used
from forge.api.hooks import EventHooks, Hooks, PlanHooks
from forge.api.offer import Extension, Function, Offer
from forge.api.stage import NAMES, Stage
from forge.api.target import Target
from forge.discovery.faults import MOST, fault_of
from forge.discovery.guard import import_guard
from forge.discovery.told import Told
from forge.errors import told_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from forge.model.facts import ModelFacts


def _observes(module: object) -> bool:
    """Tell whether a module is an observer; before pluggy 1.7 only a member that is there can be asked for."""
    hooks = Hooks(EventHooks, beside=PlanHooks)
    return hasattr(module, "forge_event") and hooks.parse_hookimpl_opts(module, "forge_event") is not None


def load(point: EntryPoint) -> Told:
    """Import a plugin's module under the guard and collect what it offers, or why it cannot be used."""
    described: list[Any] = []
    commands: list[Any] = []
    targets: list[Any] = []
    checks: list[Any] = []
    with import_guard() as seen, heard() as old:
        try:
            manager, module = Hooks(PlanHooks, beside=EventHooks), point.load()
            manager.admit(module, point.name)
            described += (_today(point.name, item) for item in _some(manager.hook.forge_offers()))
            commands += _some(manager.hook.forge_commands())
            targets += _some(manager.hook.forge_targets())
            checks += _some(manager.hook.forge_checks())
            describes = bool(manager.hook.forge_describe.get_hookimpls())
            reason = fault_of(point.name, described, [*commands, *targets, *checks], describes=describes)
            if reason is None and _observes(module) and not any(_is_observer(each, point.value) for each in described):
                reason = f'has a forge_event, and offers no Extension(impl="{point.value}") that would call it'
            if not isinstance(module, ModuleType):
                reason = f"its entry point names {point.value}, of the type {type(module).__name__}; it names a module"
            for each in described if reason is None else ():
                for deprecation in in_described(each):
                    used(deprecation)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a stranger's module raises is its own verdict
            reason = f"{told_by(error)}{_line(error, point.value)}"
    if reason is None and commands and known_code(point.value):
        reason = "brings commands, which only an installed plugin can: no job is read when one is called"
    if reason is None and targets and known_code(point.value):
        reason = "brings targets, which only an installed plugin can: `forge logs` and `forge cancel` read no job"
    if seen:
        reason = f"imports {seen[0]} at discovery; import it inside the implementation"
    if reason:
        return Told(reason)
    return Told(
        offers=tuple(item for item in described if isinstance(item, Offer)),
        extensions=tuple(item for item in described if isinstance(item, Extension)),
        functions=tuple(item for item in described if isinstance(item, Function)),
        commands=tuple(item for item in commands if isinstance(item, Command)),
        targets=tuple(item for item in targets if isinstance(item, Target)),
        checks=tuple(item for item in checks if isinstance(item, Check)),
        describe=partial(_describe, manager) if describes else None,
        deprecated=tuple(old),
    )


def _some(items: Iterable[Iterable[Any]]) -> Iterator[Any]:
    """Yield what hooks yield, and no more than it takes to see that one does not end."""
    return islice(chain.from_iterable(items), MOST + 1)


def _is_observer(described: object, module: str) -> bool:
    return isinstance(described, Extension) and described.impl == module


def _line(error: BaseException, module: str) -> str:
    """Return the line of a file beside a job in which something went wrong, for messages."""
    code = known_code(module)
    if code is None or isinstance(error, SyntaxError):  # which says it itself
        return ""
    lines = [
        line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(code.path)
    ]
    return f" ({code.path.name}, line {lines[-1]})" if lines else ""


def _today(plugin: str, item: Any) -> Any:
    """Return what a plugin yields as forge has it today: 0.1 had all words of an offer in ``supports``."""
    if not isinstance(item, Offer) or not isinstance(item.stage, Stage) or item.stage not in NAMES:
        return item
    if item.serves != frozenset() or not isinstance(item.supports, frozenset):
        return item
    named = {word for word in item.supports if word in NAMES[item.stage] or str(word).startswith(f"{plugin}/")}
    if not named:
        return item
    used(DEPRECATED[SERVES_IN_SUPPORTS])
    return replace(item, serves=frozenset(named), supports=item.supports - named)


def _describe(manager: Hooks, id: str, revision: str | None, folder: Path) -> ModelFacts | None:  # noqa: A002
    answers: list[ModelFacts] = manager.hook.forge_describe(id=id, revision=revision, folder=folder)
    return answers[0] if answers else None
