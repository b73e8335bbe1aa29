"""Everything a plugin needs: the one door into forge, beside :mod:`forge.disk` and :mod:`forge.text`.

A plugin is a module named by an entry point in the group ``forge_v1``. At planning time forge calls its hook
``forge_offers``, which yields :class:`Offer` objects: descriptions made of strings. forge chooses one offer per stage
and imports what that offer names, in a worker process, when the stage runs. So this module, and a plugin's own top
level, import nothing heavy.

Example:
    The whole ``__init__.py`` of a plugin that exports, named ``zip`` by its entry point:

    >>> from forge.api import Offer, Stage, hookimpl
    >>> @hookimpl
    ... def forge_offers():
    ...     yield Offer(stage=Stage.EXPORT, impl="forge_zip.export:export", serves=frozenset({"zip/weights"}))
    >>> [offer.impl for offer in forge_offers()]
    ['forge_zip.export:export']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from forge.api.check import Check
from forge.api.command import Command
from forge.api.deprecated import DEPRECATED as _DEPRECATED
from forge.api.deprecated import ForgeDeprecationWarning
from forge.api.deprecated import old_name as _old_name
from forge.api.functions import function_of, measured_by, read_by, rows_of
from forge.api.hooks import API, PlanHooks, RunHooks, hookimpl
from forge.api.offer import Extension, Finding, Function, Offer, Package
from forge.api.reference import load_object
from forge.api.stage import ABILITIES, NAMES, Stage
from forge.api.target import Target
from forge.errors import (
    BackendImportError,
    DataError,
    DiskFull,
    ExportError,
    ForgeError,
    Interrupted,
    JobError,
    MachineError,
    Mistake,
    Mistakes,
    ModelError,
    OutOfMemory,
    PeerLost,
    PlanError,
    PluginError,
    Problem,
    RunError,
    UsageError,
    first_line,
    no_text,
)
from forge.job.decisions import Decision, settle
from forge.masking import masked

if TYPE_CHECKING:
    from forge.api.estimate import Estimate, Lever, Part
    from forge.api.event import (
        EVENTS,
        Adapted,
        Answering,
        AnswersShown,
        CheckpointSaved,
        Collated,
        Custom,
        Done,
        DryRunDone,
        EvalLogged,
        EvaluationDone,
        Event,
        ExportDone,
        Failed,
        ModelLoaded,
        Noted,
        Objected,
        Planned,
        Preloaded,
        Probed,
        Progress,
        Reading,
        SpeedMeasured,
        StageChanged,
        StepLogged,
        Stopped,
        TrainerMade,
        TrainingDone,
        TrainingStarted,
        Warned,
        Writing,
        event_of,
    )
    from forge.api.generation import Answer, Generator, Lender, Prompt, Sampling, ask_each
    from forge.api.group import Group
    from forge.api.pace import Pace
    from forge.api.plan import (
        Against,
        Answers,
        Export,
        Plan,
        Preview,
        Step,
        Task,
        Training,
        Verdict,
        Who,
        upgraded_plan,
    )
    from forge.api.results import Data, Evaluated, Exported, Loaded, Trained
    from forge.api.run import Run
    from forge.api.submitter import Bundle, Status, Submitter, Ticket
    from forge.job.adapter import AdapterTable
    from forge.job.data import DataTable, Source
    from forge.job.elsewhere import folded
    from forge.job.explain import problems_of
    from forge.job.foreign import names_code, values_of
    from forge.job.job import Job
    from forge.job.literal import literal, setting
    from forge.job.locate import locate
    from forge.job.nearest import alike, did_you_mean, nearest
    from forge.job.table import Hint, NonEmpty, Table
    from forge.job.tables import (
        EvalTable,
        ExportTable,
        GenerationTable,
        LaunchTable,
        ModelTable,
        TrainTable,
    )
    from forge.machine.machine import Accelerator, Machine, TorchBuild
    from forge.machine.peak import peak_flops
    from forge.machine.places import cache_folder
    from forge.machine.probe import cores
    from forge.model.facts import ModelFacts, ModelTask
    from forge.model.shape import Linear, Shape

__all__ = [
    "ABILITIES",
    "API",
    "EVENTS",
    "NAMES",
    "Accelerator",
    "Adapted",
    "AdapterTable",
    "Against",
    "Answer",
    "Answering",
    "Answers",
    "AnswersShown",
    "BackendImportError",
    "Bundle",
    "Check",
    "CheckpointSaved",
    "Collated",
    "Command",
    "Custom",
    "Data",
    "DataError",
    "DataTable",
    "Decision",
    "DiskFull",
    "Done",
    "DryRunDone",
    "Estimate",
    "EvalLogged",
    "EvalTable",
    "Evaluated",
    "EvaluationDone",
    "Event",
    "Export",
    "ExportDone",
    "ExportError",
    "ExportTable",
    "Exported",
    "Extension",
    "Failed",
    "Finding",
    "ForgeDeprecationWarning",
    "ForgeError",
    "Function",
    "GenerationTable",
    "Generator",
    "Group",
    "Hint",
    "Interrupted",
    "Job",
    "JobError",
    "LaunchTable",
    "Lender",
    "Lever",
    "Linear",
    "Loaded",
    "Machine",
    "MachineError",
    "Mistake",
    "Mistakes",
    "ModelError",
    "ModelFacts",
    "ModelLoaded",
    "ModelTable",
    "ModelTask",
    "NonEmpty",
    "Noted",
    "Objected",
    "Offer",
    "OutOfMemory",
    "Pace",
    "Package",
    "Part",
    "PeerLost",
    "Plan",
    "PlanError",
    "PlanHooks",
    "Planned",
    "PluginError",
    "Preloaded",
    "Preview",
    "Probed",
    "Problem",
    "Progress",
    "Prompt",
    "Reading",
    "Run",
    "RunError",
    "RunHooks",
    "Sampling",
    "Shape",
    "Source",
    "SpeedMeasured",
    "Stage",
    "StageChanged",
    "Status",
    "Step",
    "StepLogged",
    "Stopped",
    "Submitter",
    "Table",
    "Target",
    "Task",
    "Ticket",
    "TorchBuild",
    "TrainTable",
    "Trained",
    "TrainerMade",
    "Training",
    "TrainingDone",
    "TrainingStarted",
    "UsageError",
    "Verdict",
    "Warned",
    "Who",
    "Writing",
    "alike",
    "ask_each",
    "cache_folder",
    "cores",
    "did_you_mean",
    "event_of",
    "first_line",
    "folded",
    "function_of",
    "hookimpl",
    "literal",
    "load_object",
    "locate",
    "masked",
    "measured_by",
    "names_code",
    "nearest",
    "no_text",
    "peak_flops",
    "problems_of",
    "read_by",
    "rows_of",
    "setting",
    "settle",
    "upgraded_plan",
    "values_of",
]

# What a plugin's offers do not need is imported when it is asked for: a record takes a millisecond, pydantic fifty, and
# every command that looks for plugins would pay for them.
_LATER = {
    "forge.api.event": (
        "Adapted",
        "Answering",
        "AnswersShown",
        "Check",
        "CheckpointSaved",
        "Collated",
        "Custom",
        "Done",
        "DryRunDone",
        "EVENTS",
        "EvalLogged",
        "EvaluationDone",
        "Event",
        "ExportDone",
        "Failed",
        "ModelLoaded",
        "Noted",
        "Objected",
        "Planned",
        "Preloaded",
        "Probed",
        "Progress",
        "Reading",
        "SpeedMeasured",
        "StageChanged",
        "StepLogged",
        "Stopped",
        "TrainerMade",
        "TrainingDone",
        "TrainingStarted",
        "Warned",
        "Writing",
        "event_of",
    ),
    "forge.api.estimate": ("Estimate", "Lever", "Part"),
    "forge.api.generation": ("Answer", "Generator", "Lender", "Prompt", "Sampling", "ask_each"),
    "forge.api.group": ("Group",),
    "forge.api.pace": ("Pace",),
    "forge.api.plan": (
        "Against",
        "Answers",
        "Export",
        "Plan",
        "Preview",
        "Step",
        "Task",
        "Training",
        "Verdict",
        "Who",
        "upgraded_plan",
    ),
    "forge.api.results": ("Data", "Evaluated", "Exported", "Loaded", "Trained"),
    "forge.api.run": ("Run",),
    "forge.api.submitter": ("Bundle", "Status", "Submitter", "Ticket"),
    "forge.job.adapter": ("AdapterTable",),
    "forge.job.data": ("DataTable", "Source"),
    "forge.job.elsewhere": ("folded",),
    "forge.job.explain": ("problems_of",),
    "forge.job.foreign": ("names_code", "values_of"),
    "forge.job.job": ("Job",),
    "forge.job.literal": ("literal", "setting"),
    "forge.job.locate": ("locate",),
    "forge.job.nearest": ("alike", "did_you_mean", "nearest"),
    "forge.job.table": ("Hint", "NonEmpty", "Table"),
    "forge.job.tables": (
        "EvalTable",
        "ExportTable",
        "GenerationTable",
        "LaunchTable",
        "ModelTable",
        "TrainTable",
    ),
    "forge.machine.machine": ("Accelerator", "Machine", "TorchBuild"),
    "forge.machine.peak": ("peak_flops",),
    "forge.machine.places": ("cache_folder",),
    "forge.machine.probe": ("cores",),
    "forge.model.facts": ("ModelFacts", "ModelTask"),
    "forge.model.shape": ("Linear", "Shape"),
}
_HOMES = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if f"name {name}" in _DEPRECATED:
        return _old_name(name)
    if name in _HOMES:
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)  # asked for once
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
