"""Importing a plugin's module and collecting what it says of itself: forge's own here, others' in another process."""

from __future__ import annotations

from functools import partial
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from forge.api.command import Command
from forge.api.hooks import PlanHooks
from forge.api.offer import Extension, Function, Offer
from forge.discovery.faults import MOST, fault_of
from forge.discovery.guard import import_guard
from forge.discovery.told import Told

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from forge.model.facts import ModelFacts


def load(point: EntryPoint) -> Told:
    """Import a plugin's module under the guard and collect what it offers, or why it cannot be used."""
    manager = pluggy.PluginManager("forge")
    described: list[Any] = []
    commands: list[Any] = []
    with import_guard() as seen:
        try:
            manager.add_hookspecs(PlanHooks)
            module = point.load()
            manager.register(module, name=point.name)
            manager.check_pending()
            described += islice((item for items in manager.hook.forge_offers() for item in items), MOST + 1)
            commands += islice((item for items in manager.hook.forge_commands() for item in items), MOST + 1)
            describes = bool(manager.hook.forge_describe.get_hookimpls())
            reason = fault_of(point.name, described, commands, describes=describes)
            if not isinstance(module, ModuleType):
                reason = f"its entry point names {point.value}, of the type {type(module).__name__}; it names a module"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a stranger's module raises is its own verdict
            reason = f"{type(error).__name__}: {error}"
    if seen:
        reason = f"imports {seen[0]} at discovery; import it inside the implementation"
    if reason:
        return Told(reason)
    return Told(
        offers=tuple(item for item in described if isinstance(item, Offer)),
        extensions=tuple(item for item in described if isinstance(item, Extension)),
        functions=tuple(item for item in described if isinstance(item, Function)),
        commands=tuple(item for item in commands if isinstance(item, Command)),
        describe=partial(_describe, manager) if describes else None,
    )


def _describe(manager: pluggy.PluginManager, id: str, revision: str | None, folder: Path) -> ModelFacts | None:  # noqa: A002
    answers: list[ModelFacts] = manager.hook.forge_describe(id=id, revision=revision, folder=folder)
    return answers[0] if answers else None
