"""The plan: everything that is decided before anything heavy is imported, written down.

A worker reads its plan and chooses nothing. So the plan is also the answer to "why did it do that": each choice and
each rejected offer has its reason in it. There is a record for each thing that a worker can be asked to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

import forge
from forge import records
from forge.api.estimate import Estimate
from forge.api.stage import Stage
from forge.errors import PlanError, RunError
from forge.job.decisions import Decision, settle
from forge.job.job import load_job
from forge.job.tables import LaunchTable
from forge.machine.machine import Machine
from forge.model.facts import ModelFacts

if TYPE_CHECKING:
    from pathlib import Path

    from forge.job.job import Job

SCHEMA = 2
"""The version of plan files. Those of version 1, by forge 0.1, are read too."""


class Task(StrEnum):
    """What a worker can be asked to do."""

    TRAIN = "train"
    DRY_RUN = "dry-run"
    DATA = "data"
    EVAL = "eval"
    CHAT = "chat"
    EXPORT = "export"


class Who(StrEnum):
    """Who can be asked: the trained model, its base, a GGUF file of it."""

    TUNED = "tuned"
    BASE = "base"
    GGUF = "gguf"


class Against(StrEnum):
    """What speaks against an offer, by kind; the reason itself is a sentence, which no program need read."""

    NAMED = "named"
    """The job names another plugin or backend."""
    ABILITY = "ability"
    """It is for another kind of job."""
    PLATFORM = "platform"
    ACCELERATOR = "accelerator"
    REQUIREMENT = "requirement"
    PROBE = "probe"
    """Its own probe gave the reason."""
    KEYS = "keys"
    """The job has a key, or a value of one, that it does not take."""
    FAILED = "failed"
    """It failed in an earlier attempt."""
    OUTDONE = "outdone"
    """Another one is preferred."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one plugin's offer for one need.

    Attributes:
        label: The need.
        plugin: The plugin.
        reason: Why it was not taken, or in what respect it was preferred.
        against: What speaks against it; None for the one that was taken.
    """

    label: str
    plugin: str
    reason: str
    against: Against | None

    @property
    def chosen(self) -> bool:
        """Whether it was taken."""
        return self.against is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One chosen implementation, by name only; ``words`` are what the job needs of it."""

    stage: Stage
    label: str
    plugin: str
    distribution: str
    version: str
    impl: str
    words: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    preflight: str | None = None
    resumes: bool = False
    upload: str | None = None
    estimate: str | None = None
    fit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a worker will do: what the plans of all tasks have.

    Attributes:
        task: What it is to do.
        job: The job as JSON data, options filled in.
        job_digest: sha256 over what decides the training.
        source: Where the job came from.
        overrides: The ``--set`` changes.
        named: The keys that the user wrote; all others were left open.
        steps: The chosen implementations, in running order.
        observers: ``(plugin, module)`` of the observers that act, in order.
        configs: The tables ``[plugins.<name>]`` of the plugins that act, checked, with defaults.
        functions: The functions of plugins that the job names, by their names.
        plugins: The plugins that take part, each with its distribution and version: ``"forge-zip 1.0"``.
        code: Those of them that are files beside the job: the sha256 of each; ``plugins/`` of the run folder has them.
        verdicts: Every offer and what became of it.
        decisions: Values that the job left open.
        notes: What the user should know, such as tables of plugins that were not chosen.
        machine: The machine planned for.
        facts: What is known about the model.
        preload: Modules that the worker imports first.
        before: Modules that ``preload`` must come before.
        refused: Modules that must not be loaded: they change others, and belong to offers that were not chosen.
        environment: Variables that the worker starts with.
        shed: Prefixes of variables that it does not take over from the user's environment.
        attempt: 1, or more after an earlier attempt failed before its first step.
    """

    task: Task
    job: Mapping[str, Any]
    job_digest: str
    source: str
    steps: tuple[Step, ...]
    verdicts: tuple[Verdict, ...]
    machine: Machine
    facts: ModelFacts
    overrides: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    observers: tuple[tuple[str, str], ...] = ()
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    shed: tuple[str, ...] = ()
    attempt: int = 1
    schema: int = SCHEMA
    forge: str = forge.__version__

    def step(self, stage: Stage, label: str | None = None) -> Step:
        """Return the step of a stage, that of a label if it has several. Raises :class:`PlanError` if there is none."""
        for step in self.steps:
            if step.stage is stage and label in {None, step.label}:
                return step
        raise PlanError(f"the plan has no stage {label or stage}")

    def decided(self, key: str, default: Any = None) -> Any:
        """Return the value that was decided for a key that the job left open."""
        return next((decision.value for decision in reversed(self.decisions) if decision.key == key), default)

    def versions(self) -> dict[str, str]:
        """Return the plugins that take part, with distribution and version; of an older forge's plan the steps'."""
        return {step.plugin: f"{step.distribution} {step.version}" for step in self.steps} | dict(self.plugins)

    def after(self, decisions: tuple[Decision, ...]) -> Self:
        """Return the plan with the decisions of an earlier one before its own."""
        return replace(self, decisions=(*decisions, *self.decisions))

    def asked(self) -> Job:
        """Return the job as it was written, nothing decided."""
        return load_job(self.job)

    @property
    def launch(self) -> LaunchTable:
        """Over how many processes the work is spread: a training over those of ``[launch]``, all else over none."""
        return LaunchTable(processes=1)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        data: dict[str, Any] = records.to_json(self)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a plan, as the record of its task.

        Raises:
            RunError: It is of another version.
            ValueError: It is no plan.
            TypeError: It is the plan of another task than this class is for.
        """
        data = upgraded_plan(data)
        plan: Plan = records.from_json(_KINDS[Task(data["task"])], data)
        if not isinstance(plan, cls):
            raise TypeError(f"it is a plan to {plan.task}, not a {cls.__name__}")
        return plan

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a plan file. Raises :class:`RunError` if it is missing or damaged."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunError(f"{path.parent} is no run folder", f"it has no {path.name}") from None
        except RunError as error:
            raise RunError(f"{path}: {error.what}", error.why, error.do) from None
        except (
            ValueError,
            RecursionError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:  # cut short, or not a plan at all
            raise RunError(f"{path} is damaged", str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Training(Plan):
    """A training, or a dry run of it.

    Attributes:
        resume: Whether to go on from the newest whole checkpoint.
        relieved: Whether an earlier attempt ran out of memory, so that what was taken because of it stays.
        estimate: What the training is expected to take of the device's memory; None if that cannot be said.
    """

    task: Task = Task.TRAIN
    resume: bool = False
    relieved: bool = False
    estimate: Estimate | None = None

    @property
    def launch(self) -> LaunchTable:
        """``[launch]``, its open values decided."""
        return settle(self.asked(), self.decisions).launch


@dataclass(frozen=True, kw_only=True)
class Preview(Plan):
    """Rows to be shown as the trainer would get them.

    Attributes:
        rows: How many.
    """

    task: Task = Task.DATA
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Answers(Plan):
    """An evaluation of trained weights, or a chat with them.

    Attributes:
        models: Who is to answer.
        gguf: The GGUF file among them.
        target: The file for an evaluation's result, relative to the run folder.
    """

    models: tuple[Who, ...]
    gguf: str | None = None
    target: str = "evaluation.json"


@dataclass(frozen=True, kw_only=True)
class Export(Plan):
    """One export.

    Attributes:
        index: Its place among the job's exports, from 0.
    """

    task: Task = Task.EXPORT
    index: int


_KINDS: Mapping[Task, type[Plan]] = {
    Task.TRAIN: Training,
    Task.DRY_RUN: Training,
    Task.DATA: Preview,
    Task.EVAL: Answers,
    Task.CHAT: Answers,
    Task.EXPORT: Export,
}


def upgraded_plan(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan's JSON data as this forge writes it. Raises :class:`RunError` for a version that it cannot read."""
    version = data.get("schema")
    if version == SCHEMA:
        return dict(data)
    if version != 1:
        raise RunError(
            f"the plan has schema {version}, this forge reads {SCHEMA}",
            f"the run was made by forge {data.get('forge', 'of another version')}",
            "use that version for it",
        )
    # Version 1: one record for all tasks; plugins' keys lay in `options`; reasons had no kind, but for one sentence.
    job = dict(data["job"])
    tables = {"adapter": job["adapter"], "train": job["train"]}
    job |= {name: _flat(table) for name, table in tables.items()}
    job["export"] = [_flat(table) for table in job["export"]]
    verdicts = [
        {key: verdict[key] for key in ("label", "plugin", "reason")}
        | {"against": None if verdict["chosen"] else _kind_of(verdict["reason"])}
        for verdict in data["verdicts"]
    ]
    new: dict[str, Any] = {"job": job, "verdicts": verdicts, "observers": data["extensions"], "schema": SCHEMA}
    if data["task"] == Task.EXPORT:
        new["index"] = data["export"]
    return {**data, **new, "target": data.get("target") or "evaluation.json"}


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in table.items() if key != "options"}, **table.get("options", {})}


def _kind_of(reason: str) -> Against:
    return Against.ABILITY if reason.startswith("does not do ") else Against.PROBE
