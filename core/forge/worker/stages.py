"""Calling the chosen implementations: one typed method for each stage.

pluggy's calls are untyped, so this is the only place that makes them. It imports what the plan names, gives each stage
exactly one implementation, times it, checks what it returns, and turns whatever it raises into an error that names the
plugin, its distribution and version.
"""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from forge.api.deprecated import heard
from forge.api.event import Noted, Objected, StageChanged, Warned
from forge.api.hooks import Hooks, RunHooks, hookimpl
from forge.api.offer import Finding
from forge.api.plan import Answers, Training, Who
from forge.api.reference import load_object
from forge.api.results import Data, Evaluated, Exported, Loaded, Trained
from forge.api.stage import Stage
from forge.disk.events import plain
from forge.errors import BackendImportError, ForgeError, OutOfMemory, PluginError, UsageError, told_by
from forge.job.decisions import Decision, settle
from forge.job.literal import setting
from forge.worker.faults import log_traceback, trained_fault
from forge.worker.place import coming_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from forge.api.generation import Generator
    from forge.api.plan import Plan, Step
    from forge.api.run import Run
    from forge.job.job import Job
    from forge.job.tables import ExportTable


T = TypeVar("T")


class Stages:
    """The stages of one run, ready to be called.

    Args:
        run: The run.
        job: The job; collating may settle what it leaves open.
    """

    def __init__(self, run: Run, job: Job) -> None:
        self.run, self.job = run, job

    def resolve(self) -> None:
        """Import what the plan names, that of later workers too, so that what is missing is told before any work."""
        for step in self.run.plan.steps:
            with heard() as old:
                for reference in filter(None, (step.impl, step.preflight, step.upload)):
                    self._function(step, reference)
                self._hooks(step)
            self._tell_of(name_of(step), old)
        for name, reference in self.run.plan.functions.items():
            try:
                with heard() as old:
                    load_object(reference)
            except ForgeError:
                raise
            except BaseException as error:
                log_traceback()
                why, owner = told_by(error), name.partition("/")[0]
                raise PluginError(f"{name} cannot be imported", why, f"update plugin {owner}") from error
            owner = name.partition("/")[0]
            self._tell_of(f"plugin {owner} ({self.run.plan.versions().get(owner)})", old)

    def collate(self) -> Data:
        """Turn the sources into rows."""
        data = self._call(Stage.COLLATE, Data, job=self._copy())
        self.job = settle(self.job, self.run.plan.decisions)  # the rows may have settled what the plan could not
        return data

    def fit(self, data: Data) -> None:
        """Have what memory decides decided again, for the rows that are really there.

        A run that goes on keeps what it began with, and one that ran out of memory what was taken because of it.
        """
        plan = self.run.plan
        step = next((step for step in plan.steps if step.fit), None)
        if step is None or step.fit is None or not isinstance(plan, Training) or plan.resume or plan.relieved:
            return
        function: Callable[..., Iterable[Decision]] = self._import(step, step.fit)
        arguments = {"asked": plan.asked(), "named": frozenset(plan.named), "rows": data.summary}
        found = self._guarded(
            step, "its fit", lambda: list(function(plan.machine, self._copy(), plan.facts, **arguments))
        )
        for decision in (each for each in found if isinstance(each, Decision)):  # the plan has refused the rest
            if plan.decided(decision.key) != decision.value:
                self.run.decide(decision)
                if decision.value is not None:
                    told = f"{setting(decision.key, decision.value)}: {decision.reason}"
                    self.run.emit(Noted(f"now that the rows are known, {told}"))
        self.job = settle(self.job, self.run.plan.decisions)

    def follow(self, plan: Plan) -> None:
        """Take over what rank 0 has found out and decided."""
        self.run.plan = plan
        self.job = settle(self.job, plan.decisions)

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
                self.run.emit(_FINDINGS[finding.severity](finding.message, finding.do))
        if errors:
            first = errors[0]
            more = f" (and {len(errors) - 1} more, listed above)" if len(errors) > 1 else ""
            raise UsageError(f"the job cannot succeed here{more}", first.message, first.do)

    def load(self, data: Data) -> Loaded:
        """Load the base model."""
        return self._with_traits(Stage.LOAD, job=self._copy(), data=data)

    def adapt(self, loaded: Loaded) -> Loaded:
        """Make the model trainable."""
        return self._with_traits(Stage.ADAPT, job=self._copy(), loaded=loaded)

    def train(self, loaded: Loaded, data: Data) -> Trained:
        """Train it."""
        trained = self._call(Stage.TRAIN, Trained, job=self._copy(), loaded=loaded, data=data)
        return trained if self.run.dry_run else self._sound(trained)

    def generate(self, trained: Trained, source: Who) -> Generator:
        """Make a model answer: ``"tuned"``, ``"base"`` or ``"gguf"``, each by the implementation chosen for it."""
        step = self.run.plan.step(Stage.GENERATE, f"{Stage.GENERATE} ({source})")
        plan = self.run.plan
        file = Path(plan.gguf) if source is Who.GGUF and isinstance(plan, Answers) and plan.gguf else None
        made: Generator = self._call(
            Stage.GENERATE, object, step, job=self._copy(), trained=trained, source=source, file=file
        )  # type: ignore[assignment]
        if missing := [name for name in ("chat", "complete", "losses", "base", "close") if not hasattr(made, name)]:
            raise PluginError(f"{name_of(step)} returned {type(made).__name__}, which has no {missing[0]}")
        return made

    def evaluate(self, trained: Trained) -> Evaluated:
        """Ask the plan's models the questions of each plugin that brings some, and then the held-out rows."""
        steps = [step for step in self.run.plan.steps if step.stage is Stage.EVALUATE]
        steps.sort(key=lambda step: step.label == Stage.EVALUATE)
        measured: Evaluated | None = None
        for step in steps:
            generate = functools.partial(self.generate, trained)
            arguments = {"job": self._copy(), "trained": trained, "generate": generate, "measured": measured}
            measured = self._call(Stage.EVALUATE, Evaluated, step, **arguments).beside(measured)
        assert measured is not None, "a plan of an evaluation has a step that evaluates"
        return measured

    def export(self, trained: Trained, export: ExportTable, out: Path) -> Exported:
        """Write one export."""
        table = export.model_copy(deep=True)
        return self._call(Stage.EXPORT, Exported, job=self._copy(), trained=trained, export=table, out=out)

    def upload(self, export: ExportTable, folder: Path) -> str:
        """Upload a finished export as its table says, and return its address."""
        step = self.run.plan.step(Stage.EXPORT)
        if step.upload is None:
            raise PluginError(f"{name_of(step)} cannot upload", "its offer names no upload")
        function: Callable[..., str] = self._function(step, step.upload)
        return self._guarded(step, "upload", lambda: function(folder, export.model_copy(deep=True)))

    def _copy(self) -> Job:
        """Return the job for one stage: what that changes in it is not what the next one does, nor what is recorded."""
        return self.job.model_copy(deep=True)

    def _sound(self, trained: Trained) -> Trained:
        """Return what training left without numbers that are none; refuse what no later worker could read."""
        step = self.run.plan.step(Stage.TRAIN)
        if wrong := trained_fault(trained, self.run.folder):
            where = f"what it wrote is in {self.run.folder}; with the plugin mended, `forge resume` goes on"
            raise PluginError(f"{name_of(step)} returned a Trained that cannot be kept", wrong, where)
        told = plain(trained.metrics)  # which makes null of what is not finite
        metrics = {name: value for name, value in told.items() if isinstance(value, int | float)}
        if odd := sorted(told.keys() - metrics.keys()):
            self.run.emit(Warned(f"{name_of(step)} measured no finite number for {', '.join(odd)}; it is left out"))
        return replace(trained, metrics=metrics)

    def _with_traits(self, stage: Stage, **arguments: Any) -> Loaded:
        loaded = self._call(stage, Loaded, **arguments)
        step = self.run.plan.step(stage)
        if missing := set(step.provides) - loaded.traits:
            raise PluginError(f"{name_of(step)} did not provide {', '.join(sorted(missing))}, as its offer says")
        if kept := set(step.removes) & loaded.traits:
            raise PluginError(f"{name_of(step)} did not remove {', '.join(sorted(kept))}, as its offer says")
        return loaded

    def _findings(self, step: Step, reference: str, data: Data) -> list[Finding]:
        check: Callable[..., Iterable[Finding]] = self._function(step, reference)
        found = self._guarded(step, "preflight", lambda: list(check(self._copy(), self.run.of(step.plugin), data)))
        for each in found:
            if not isinstance(each, Finding) or each.severity not in _FINDINGS:
                due = f"{each!r:.80} where forge.api.Finding with the severity error, warning or note is due"
                raise PluginError(f"preflight failed in {name_of(step)}", f"it yields {due}", "update it")
        return found

    def _call(self, stage: Stage, kind: type[T], step: Step | None = None, **arguments: Any) -> T:
        step = step or self.run.plan.step(stage)
        hook = f"forge_{stage}"
        with heard():  # it was told when the worker began
            manager = self._hooks(step)
        arguments["run"] = self.run.of(step.plugin)
        self.run.emit(StageChanged(stage.value, "started", plugin=step.plugin))
        start = time.perf_counter()
        result = self._guarded(step, stage.value, lambda: getattr(manager.hook, hook)(**arguments))
        if not isinstance(result, kind):
            raise PluginError(f"{name_of(step)} returned {type(result).__name__}, not {kind.__name__}")
        self.run.emit(StageChanged(stage.value, "finished", seconds=round(time.perf_counter() - start, 3)))
        return result

    def _hooks(self, step: Step) -> Hooks:
        """Return a manager for one step, since a stage can have several implementations."""
        hook, manager = f"forge_{step.stage}", Hooks(RunHooks)
        try:
            manager.admit(SimpleNamespace(**{hook: hookimpl(self._function(step, step.impl))}))
        except (pluggy.PluginValidationError, AttributeError) as error:  # what is built in cannot be marked
            raise PluginError(f"{name_of(step)} does not fit the hook {hook}", str(error)) from error
        return manager

    def _tell_of(self, who: str, deprecated: Iterable[str]) -> None:
        for told in (f"{who} uses {what}" for what in deprecated):
            if told not in self.run.plan.notes:
                self.run.emit(Warned(told))

    def _import(self, step: Step, reference: str) -> Any:
        try:
            return load_object(reference)
        except ForgeError:
            raise
        except BaseException as error:  # an import can raise anything: Unsloth without a GPU raises NotImplementedError
            log_traceback()
            raise BackendImportError(
                f"{name_of(step)} cannot be imported",
                told_by(error),
                "see `forge doctor`",
                plugin=step.plugin,
            ) from error

    def _function(self, step: Step, reference: str) -> Callable[..., Any]:
        found: Callable[..., Any] = self._import(step, reference)
        if not callable(found):
            raise PluginError(f"{name_of(step)} names {reference}, which is no function", None, "update it")
        return found

    def _guarded(self, step: Step, what: str, call: Callable[[], T]) -> T:
        try:
            with coming_back():
                return call()
        except ForgeError:
            raise
        except BaseException as error:
            log_traceback()
            if isinstance(error, MemoryError):
                raise OutOfMemory(f"{what} ran out of memory", str(error) or None) from error
            raise PluginError(
                f"{what} failed in {name_of(step)}",
                told_by(error),
                f"the traceback is in {self.run.folder / 'log.txt'}",
            ) from error


_FINDINGS = {"error": Objected, "warning": Warned, "note": Noted}


def name_of(step: Step) -> str:
    """Return the plugin of a step, for messages."""
    return f"plugin {step.plugin} ({step.distribution} {step.version})"
