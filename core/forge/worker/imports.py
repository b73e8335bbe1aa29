"""What must be imported before everything else, and what must not be imported at all."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import TYPE_CHECKING

from forge.api.stage import Stage
from forge.errors import BackendImportError, PluginError

if TYPE_CHECKING:
    from forge.api.plan import Plan


def check_imports(plan: Plan) -> None:
    """Refuse a process in which patches are active that nobody planned. Raises :class:`PluginError`."""
    for name in plan.refused:
        if name in sys.modules:
            raise PluginError(f"{name} was imported though the plan does not have it", "it changes every other library")


def preload(plan: Plan) -> None:
    """Import what must come before everything else.

    Raises:
        PluginError: Something that it must come before has been imported already.
        BackendImportError: It cannot be imported.
    """
    early = [name for name in plan.before if name in sys.modules]
    if early and plan.preload:
        raise PluginError(f"{', '.join(early)} came before {plan.preload[0]}", "a plugin imported it too early")
    for name in plan.preload:
        try:
            importlib.import_module(name)
        except Exception as error:  # Unsloth raises NotImplementedError where there is no GPU
            traceback.print_exc()
            why, loader = f"{type(error).__name__}: {error}", plan.step(Stage.LOAD).plugin
            raise BackendImportError(f"cannot import {name}", why, plugin=loader) from error
