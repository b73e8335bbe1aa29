"""What must be imported before everything else, and what must not be imported at all."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import TYPE_CHECKING

from forge.api.stage import Stage
from forge.disk.cache import COMPILERS
from forge.errors import BackendImportError, PluginError, told_by
from forge.worker.faults import log_traceback

if TYPE_CHECKING:
    from forge.api.plan import Plan


def check_imports(plan: Plan) -> None:
    """Refuse a process in which patches are active that nobody planned. Raises :class:`PluginError`."""
    for name in plan.refused:
        if name in sys.modules:
            raise PluginError(f"{name} was imported though the plan does not have it", "it changes every other library")


def preload(plan: Plan) -> None:
    """Import what must come before everything else; where compilers keep their work stays as the parent said.

    Raises:
        PluginError: Something that it must come before has been imported already.
        BackendImportError: It cannot be imported.
    """
    early = [name for name in plan.before if name in sys.modules]
    if early and plan.preload:
        raise PluginError(f"{', '.join(early)} came before {plan.preload[0]}", "a plugin imported it too early")
    folders = {name: os.environ[name] for name in COMPILERS if name in os.environ}
    gc.disable()  # objects by the hundred thousand, none of them garbage: looking for it takes a fifth of the time
    try:
        for name in plan.preload:
            _import(name, plan)
    finally:
        gc.enable()
    gc.freeze()  # nor need it be looked for among them later
    os.environ.update(folders)  # Unsloth drops inductor's at its import, and /tmp is seldom there for the next run


def _import(name: str, plan: Plan) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:  # Unsloth raises NotImplementedError where there is no GPU
        log_traceback()
        why = told_by(error)
        loader = next((step.plugin for step in plan.steps if step.stage is Stage.LOAD), plan.steps[0].plugin)
        raise BackendImportError(f"cannot import {name}", why, plugin=loader) from error
