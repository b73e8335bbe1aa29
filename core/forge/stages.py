"""Calling the chosen implementations: one typed method for each stage.

pluggy's calls are untyped, so this is the only place that makes them. It imports what the plan names, gives each stage
exactly one implementation, times it, checks what it returns, and turns whatever it raises into an error that names the
plugin, its distribution and version.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from forge.api import Data, Evaluated, Event, Exported, Finding, Loaded, RunHooks, Stage, Trained, hookimpl
from forge.discovery import resolve
from forge.errors import BackendImportError, ForgeError, PluginError, UsageError

if TYPE_CHECKING:
    from forge.api import Generator
    from forge.job import ExportTable, Job
    from forge.plan import Step
    from forge.run import RunHandle

T = TypeVar("T")


class _Chosen:
    """Holds the one implementation of a stage, in the shape that pluggy registers."""


class Stages:
    """The stages of one run, ready to be called.

    Args:
        run: The run.
        job: The job.
    """

    def __init__(self, run: RunHandle, job: Job) -> None:
        self.run, self.job = run, job
        self._manager = pluggy.PluginManager("forge")
        self._manager.add_hookspecs(RunHooks)
        self._holders: dict[str, list[_Chosen]] = {}
        for plugin, module in run.plan.extensions:
            import importlib

            try:
                self._manager.register(importlib.import_module(module), name=plugin)
            except (ImportError, pluggy.PluginValidationError) as error:
                raise PluginError(f"plugin {plugin} cannot act on this run", str(error)) from error

    def observe(self, event: Event) -> None:
        """Show an event to the observers; what one raises is printed to the log and dropped."""
        for implementation in self._manager.hook.forge_event.get_hookimpls():
            try:
                implementation.function(event)
            except Exception:  # noqa: BLE001 - an observer must not stop a training
                print(f"observer {implementation.plugin_name} failed; its error is dropped")  # noqa: T201 - the log
                traceback.print_exc()

    def collate(self) -> Data:
        """Turn the sources into rows."""
        return self._call(Stage.COLLATE, Data, job=self.job, run=self.run)

    def preflight(self, data: Data) -> None:
        """Run the chosen offers' checks; raise :class:`UsageError` with all errors that they found."""
        errors: list[Finding] = []
        done: set[tuple[str, str]] = set()
        for step in self.run.plan.steps:
            if step.preflight is None or (step.plugin, step.preflight) in done:
                continue  # two exports of one format share a check, which sees the whole job
            done.add((step.plugin, step.preflight))
            for finding in self._findings(step, step.preflight, data):
                if finding.severity == "error":
                    errors.append(finding)
                self.run.emit(Event(finding.severity, {"message": finding.message, "do": finding.do}))
        if errors:
            first = errors[0]
            more = f" (and {len(errors) - 1} more, listed above)" if len(errors) > 1 else ""
            raise UsageError(f"the job cannot succeed here{more}", first.message, first.do)

    def load(self, data: Data) -> Loaded:
        """Load the base model."""
        return self._with_traits(Stage.LOAD, job=self.job, run=self.run, data=data)

    def adapt(self, loaded: Loaded) -> Loaded:
        """Make the model trainable."""
        return self._with_traits(Stage.ADAPT, job=self.job, run=self.run, loaded=loaded)

    def train(self, loaded: Loaded, data: Data) -> Trained:
        """Train it."""
        return self._call(Stage.TRAIN, Trained, job=self.job, run=self.run, loaded=loaded, data=data)

    def generate(self, trained: Trained, source: str) -> Generator:
        """Make a model answer: ``"tuned"``, ``"base"`` or ``"gguf"``, each by the implementation chosen for it."""
        step = self.run.plan.step(Stage.GENERATE, f"{Stage.GENERATE} ({source})")
        file = Path(self.run.plan.gguf) if source == "gguf" and self.run.plan.gguf else None
        made: Generator = self._call(
            Stage.GENERATE, object, step, job=self.job, run=self.run, trained=trained, source=source, file=file
        )  # type: ignore[assignment]
        if missing := [name for name in ("chat", "complete", "losses", "base", "close") if not hasattr(made, name)]:
            raise PluginError(f"{_name(step)} returned {type(made).__name__}, which has no {missing[0]}")
        return made

    def evaluate(self, trained: Trained) -> Evaluated:
        """Ask the held-out rows of the plan's models."""
        return self._call(
            Stage.EVALUATE, Evaluated, job=self.job, run=self.run, trained=trained,
            generate=lambda source: self.generate(trained, source),
        )  # fmt: skip

    def export(self, trained: Trained, export: ExportTable, out: Path) -> Exported:
        """Write one export."""
        return self._call(Stage.EXPORT, Exported, job=self.job, run=self.run, trained=trained, export=export, out=out)

    def _with_traits(self, stage: Stage, **arguments: Any) -> Loaded:
        loaded = self._call(stage, Loaded, **arguments)
        step = self.run.plan.step(stage)
        if missing := set(step.provides) - loaded.traits:
            raise PluginError(f"{_name(step)} did not provide {', '.join(sorted(missing))}, as its offer says")
        return loaded

    def _findings(self, step: Step, reference: str, data: Data) -> list[Finding]:
        check: Callable[..., Iterable[Finding]] = self._import(step, reference)
        return self._guarded(step, lambda: list(check(self.job, self.run, data)))

    def _call(self, stage: Stage, kind: type[T], step: Step | None = None, **arguments: Any) -> T:
        step = step or self.run.plan.step(stage)
        hook, name = f"forge_{stage}", f"forge_{stage} {step.impl}"
        holders = self._holders.setdefault(hook, [])
        if not self._manager.has_plugin(name):
            holder = _Chosen()
            setattr(holder, hook, hookimpl(self._import(step, step.impl)))
            try:
                self._manager.register(holder, name=name)
            except pluggy.PluginValidationError as error:
                raise PluginError(f"{_name(step)} does not fit the hook {hook}", str(error)) from error
            holders.append(holder)
        # A stage with several implementations (the base model's and a file's) calls that of the step, and wrappers.
        others = [each for each in holders if each is not self._manager.get_plugin(name)]
        call = self._manager.subset_hook_caller(hook, others)
        self.run.emit(Event("stage", {"stage": stage.value, "state": "started", "plugin": step.plugin}))
        start = time.perf_counter()
        result = self._guarded(step, lambda: call(**arguments))
        if not isinstance(result, kind):
            raise PluginError(f"{_name(step)} returned {type(result).__name__}, not {kind.__name__}")
        seconds = round(time.perf_counter() - start, 3)
        self.run.emit(Event("stage", {"stage": stage.value, "state": "finished", "seconds": seconds}))
        return result

    def _import(self, step: Step, reference: str) -> Any:
        try:
            return resolve(reference)
        except ForgeError:
            raise
        except Exception as error:  # an import can raise anything: Unsloth without a GPU raises NotImplementedError
            traceback.print_exc()
            raise BackendImportError(
                f"{_name(step)} cannot be imported",
                f"{type(error).__name__}: {error}",
                "see `forge doctor`",
                plugin=step.plugin,
            ) from error

    def _guarded(self, step: Step, call: Callable[[], T]) -> T:
        try:
            return call()
        except ForgeError:
            raise
        except Exception as error:
            traceback.print_exc()
            if isinstance(error, MemoryError):
                from forge.errors import OutOfMemory

                raise OutOfMemory(f"{step.stage} ran out of memory", str(error) or None) from error
            raise PluginError(
                f"{step.stage} failed in {_name(step)}",
                f"{type(error).__name__}: {error}",
                f"the traceback is in {self.run.folder / 'log.txt'}",
            ) from error


def _name(step: Step) -> str:
    return f"plugin {step.plugin} ({step.distribution} {step.version})"
