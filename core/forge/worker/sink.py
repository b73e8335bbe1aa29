"""Where a worker's events go: into the run's file, and to the observers that the job switched on."""

from __future__ import annotations

import importlib
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import pluggy

from forge.api.deprecated import heard
from forge.api.event import Noted, Warned
from forge.api.hooks import EventHooks, Hooks, PlanHooks
from forge.errors import PluginError, told_by
from forge.worker.faults import log_traceback
from forge.worker.place import coming_back

if TYPE_CHECKING:
    from forge.api.event import Event
    from forge.api.run import Run

NAMED_AFTER = 5.0
"""Seconds after which an observer is named: that is not done with one event, or takes much of the run altogether."""

SHARE = 0.05
"""How much of the run's time an observer may take without being named."""


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
        self._began = time.monotonic()
        self._taken: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()
        self._active: list[tuple[str, float]] = []

    def admit(self, run: Run) -> None:
        """Import the observers of a run's plan, which see all that comes after. Raises :class:`PluginError`."""
        for plugin, module in run.plan.observers:
            try:
                name = f"{plugin}: {module}"
                self._views[name] = run.of(plugin)
                with heard() as old, coming_back():
                    self._observers.admit(importlib.import_module(module), name)
            except (ImportError, pluggy.PluginValidationError) as error:
                raise PluginError(f"plugin {plugin} cannot act on this run", str(error)) from error
            except BaseException as error:  # a stranger's module can raise anything
                raise PluginError(f"plugin {plugin} cannot act on this run", told_by(error)) from error
            for what in old:
                run.emit(Warned(f"plugin {plugin} ({run.plan.versions().get(plugin)}) uses {what}"))
        if self._views:
            threading.Thread(target=_watch, args=(weakref.ref(self),), name="observers", daemon=True).start()

    def __call__(self, event: Event) -> None:
        """Write an event down and show it; what an observer raises is told once, and stops nothing."""
        self._log.append(event)
        for implementation in self._observers.hook.forge_event.get_hookimpls():
            name, start = implementation.plugin_name, time.monotonic()
            if name in dict(self._active):
                continue  # it has emitted the event itself
            self._active.append((name, start))
            try:
                given = {"event": event, "run": self._views[name]}
                with coming_back():
                    implementation.function(*(given[argument] for argument in implementation.argnames))
            except BaseException as error:  # noqa: BLE001 - an observer must not stop a training, nor by sys.exit
                log_traceback()
                told = f"observer {name} failed at an event, which stops nothing: {told_by(error)}; see log.txt"
                self._tell(name, "failed", Warned(told))
            finally:
                self._active.pop()
            self._count(name, time.monotonic() - start)

    def _count(self, name: str, seconds: float) -> None:
        taken = self._taken[name] = self._taken.get(name, 0.0) + seconds
        whole = time.monotonic() - self._began
        if taken > max(NAMED_AFTER, SHARE * whole):
            told = f"observer {name} has taken {taken:.0f} of the {whole:.0f} seconds so far; training waits for it"
            self._tell(name, "slow", Warned(told))

    def look(self) -> None:
        """Name an observer that does not come to an end."""
        for name, start in self._active[-1:]:
            if time.monotonic() - start > NAMED_AFTER:
                self._tell(name, "hangs", Noted(f"waiting for observer {name}, which is not done with an event"))

    def _tell(self, name: str, kind: str, event: Event) -> None:
        """Write an event about an observer down, once of its kind; no observer sees it."""
        if (name, kind) not in self._told:
            self._told.add((name, kind))
            with suppress(Exception):  # the disk may be full, which the next event tells
                self._log.append(event)


def _watch(sink: weakref.ref[Sink]) -> None:
    while (there := sink()) is not None:
        there.look()
        del there
        time.sleep(NAMED_AFTER / 5)
