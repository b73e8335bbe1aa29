"""Where a worker's events go: into the run's file, and to the observers that the job switched on."""

from __future__ import annotations

import importlib
import traceback
from typing import TYPE_CHECKING, Protocol

import pluggy

from forge.api.deprecated import heard
from forge.api.event import Warned
from forge.api.hooks import EventHooks, Hooks, PlanHooks
from forge.errors import PluginError

if TYPE_CHECKING:
    from forge.api.event import Event
    from forge.api.run import Run


class Log(Protocol):
    """Writes events down."""

    def append(self, event: Event) -> None:
        """Write one down."""


class Sink:
    """Takes the events of one worker.

    Args:
        log: Where they are written down: the run's file of events.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._views: dict[str, Run] = {}
        self._observers = Hooks(EventHooks, beside=PlanHooks)

    def admit(self, run: Run) -> None:
        """Import the observers of a run's plan, which see all that comes after. Raises :class:`PluginError`."""
        for plugin, module in run.plan.observers:
            try:
                name = f"{plugin}: {module}"
                self._views[name] = run.of(plugin)
                with heard() as old:
                    self._observers.admit(importlib.import_module(module), name)
            except KeyboardInterrupt:
                raise
            except (ImportError, pluggy.PluginValidationError) as error:
                raise PluginError(f"plugin {plugin} cannot act on this run", str(error)) from error
            except BaseException as error:  # a stranger's module can raise anything
                why = f"{type(error).__name__}: {error}"
                raise PluginError(f"plugin {plugin} cannot act on this run", why) from error
            for what in old:
                run.emit(Warned(f"plugin {plugin} ({run.plan.versions().get(plugin)}) uses {what}"))

    def __call__(self, event: Event) -> None:
        """Write an event down and show it; what an observer raises is printed to the worker's log and dropped."""
        self._log.append(event)
        for implementation in self._observers.hook.forge_event.get_hookimpls():
            try:
                given = {"event": event, "run": self._views[implementation.plugin_name]}
                implementation.function(*(given[name] for name in implementation.argnames))
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - an observer must not stop a training, nor by sys.exit
                print(f"observer {implementation.plugin_name} failed; its error is dropped")  # noqa: T201 - the log
                traceback.print_exc()
