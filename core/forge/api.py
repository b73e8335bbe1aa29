"""Everything a plugin needs, and the only module of forge that a plugin imports.

A plugin is a module named by an entry point in the group ``forge_v1``. At planning time forge calls its
``forge_offers`` hook, which yields :class:`Offer` objects: descriptions made of strings. forge chooses one offer per
stage and imports what that offer names, in a worker process, when the stage runs. So this module, and a plugin's own
top level, import nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from forge.errors import (
    BackendImportError,
    DataError,
    DiskFull,
    ExportError,
    ForgeError,
    Interrupted,
    Mistakes,
    ModelError,
    OutOfMemory,
    PlanError,
    PluginError,
    Problem,
    RunError,
    UsageError,
)
from forge.facts import ModelFacts
from forge.machine import Accelerator, Machine, TorchBuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from forge.job import ExportTable, Job
    from forge.run import RunHandle

__all__ = [
    "API", "VOCABULARY", "Accelerator", "BackendImportError", "Data", "DataError", "Decision", "DiskFull", "Event",
    "ExportError", "Exported", "Extension", "Finding", "ForgeError", "Interrupted", "Loaded", "Machine", "Mistakes",
    "ModelError", "ModelFacts", "Offer", "OutOfMemory", "PlanError", "PluginError", "Problem", "RunError", "Stage",
    "TorchBuild", "Trained", "UsageError", "hookimpl",
]  # fmt: skip

API = "forge_v1"
"""The entry-point group. Its name carries the version of this interface."""

hookspec = pluggy.HookspecMarker("forge")
hookimpl = pluggy.HookimplMarker("forge")
"""Marks a plugin's functions as implementations of forge's hooks."""


class Stage(StrEnum):
    """The five stages of a run, in the order in which they run."""

    COLLATE = "collate"
    LOAD = "load"
    ADAPT = "adapt"
    TRAIN = "train"
    EXPORT = "export"


VOCABULARY: Mapping[Stage, frozenset[str]] = {
    Stage.COLLATE: frozenset({"text", "vision", "sft", "streaming", "packing"}),
    Stage.LOAD: frozenset({"text", "vision", "4bit", "8bit", "full", "remote-code"}),
    Stage.ADAPT: frozenset({"lora", "none", "dora"}),
    Stage.TRAIN: frozenset({"sft"}),
    Stage.EXPORT: frozenset({"adapter", "merged", "push"}),
}
"""The words that ``Offer.supports`` may hold. A plugin adds its own as ``<plugin>/<word>``, and a job asks for them by
that name: ``method = "mlx/sft"``. Any other word is a mistake and disables the plugin, with that reason."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A value that the job left open, and why forge took this one.

    Attributes:
        key: The key of the job, as in ``model.dtype``.
        value: The value taken, as JSON data.
        reason: Why, as a phrase.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one implementation of one stage can do, told in strings.

    Attributes:
        stage: The stage that it serves.
        impl: ``"package.module:function"``, imported only if chosen, and only in the worker. The function takes the
            arguments of the hook ``forge_<stage>`` that it names.
        supports: Words from :data:`VOCABULARY`; a job's needs of the stage must all be among them.
        requires_dist: PEP 508 requirements, checked against the installed distributions without importing them.
        platforms: Values of ``sys.platform`` it runs on; empty for any.
        accelerators: Kinds of accelerator of which it needs one (``"cuda"``, ``"rocm"``, ``"mps"``, ``"xpu"``); empty
            if it needs none.
        provides: Traits of what it returns, for later stages (``"hf-model"``).
        depends: Traits that an earlier stage must provide.
        conflicts: Traits that no earlier stage may provide.
        preload: Modules that the worker imports before everything else.
        environment: Variables set before the worker starts.
        priority: 0 for a fallback, 50 for a normal choice; the higher is tried first, ties go by the plugin's name.
        backend: The name by which ``[use] backend`` asks for it.
        options: ``"package.module:name"`` of a pydantic model (or of a function without arguments that returns one)
            for the keys that it adds to its stage's own table.
        config: The same, for the plugin's own table ``[plugins.<name>]``.
        probe: A light, pure function of machine, job and model facts that returns a reason against the offer, or None.
        check: A light, pure function of the job that yields a :class:`Problem` for each contradiction that no single
            key shows; ``Problem.where`` names the key. They are mistakes of the job.
        decide: A light, pure function of machine, job and model facts that yields a :class:`Decision` for each value
            that the job leaves open. Decisions stand in the plan with their reasons.
        preflight: ``"package.module:function"`` of ``(job, run, data)`` that yields :class:`Finding` objects in the
            worker after collating and before the model is loaded; an error stops the run.

    A model of ``options`` or ``config`` may have a static method ``forge_hint(key) -> str | None``: a sentence for a
    key that it does not know, such as the table where the key belongs.
    """

    stage: Stage
    impl: str
    supports: frozenset[str]
    requires_dist: tuple[str, ...] = ()
    platforms: frozenset[str] = frozenset()
    accelerators: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    depends: frozenset[str] = frozenset()
    conflicts: frozenset[str] = frozenset()
    preload: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    backend: str | None = None
    options: str | None = None
    config: str | None = None
    probe: Callable[[Machine, Job, ModelFacts], str | None] | None = None
    check: Callable[[Job], Iterable[Problem]] | None = None
    decide: Callable[[Machine, Job, ModelFacts], Iterable[Decision]] | None = None
    preflight: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """Hook implementations that run beside the chosen ones: observers (``forge_event``) and wrappers.

    An extension acts only if the job names its plugin in ``[use] with``, or holds its table ``[plugins.<name>]``.

    Attributes:
        impl: Name of a module with hook implementations, imported in the worker.
        requires_dist: As in :class:`Offer`.
        config: As in :class:`Offer`.
    """

    impl: str
    requires_dist: tuple[str, ...] = ()
    config: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a preflight check saw."""

    severity: Literal["error", "warning", "note"]
    message: str
    do: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a worker; one line of ``events.jsonl``.

    Attributes:
        kind: From the core ``"stage"``, ``"warning"``, ``"note"``, ``"trained"``, ``"exported"``, ``"failed"``,
            ``"stopped"`` and ``"done"``; from forge's own stages ``"reading"``, ``"data"``, ``"loaded"``,
            ``"adapted"``, ``"trainer"``, ``"probe"``, ``"dry-run"``, ``"training"``, ``"progress"``, ``"step"``,
            ``"eval"`` and ``"checkpoint"``.
        values: What belongs to it, as JSON data.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Rows, ready for a trainer.

    Attributes:
        processor: The tokenizer or processor. No later stage may change it: forge compares it before and after.
        train: The training rows.
        eval: Held-out rows by name; empty if there are none.
        layout: The shape of the rows; ``"tokens"`` has ``input_ids`` and ``labels`` (and ``seq_lengths`` if packed),
            ``"images"`` also where each picture is and which tokens stand for it.
        digest: sha256 over the ids and labels of all rows, in order.
        collator: Makes the batch collator once the model is there; ``None`` for the trainer's own.
        longest: Indices of the longest training rows, the longest first.
        summary: Counts for people: rows, tokens, tokens trained on, rows dropped, truncated.
        preview: For ``forge data``: returns the first rows as JSON data, each with ``length``, ``supervised``,
            ``input_ids``, ``labels``, ``origin`` and ``segments`` (``text``, ``supervised``).
    """

    processor: Any
    train: Any
    eval: Mapping[str, Any]
    layout: str
    digest: str
    collator: Callable[[Loaded], Any] | None = None
    longest: tuple[int, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    preview: Callable[[Data, int], list[dict[str, Any]]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in memory.

    Attributes:
        model: The model.
        traits: What later stages may rely on; at least what the offer ``provides``.
        trainer: Trainer arguments that loading or adapting imposes; a clash with a key of the job is an error.
    """

    model: Any
    traits: frozenset[str]
    trainer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training left on disk, and what every export starts from: the content of ``trained.json``.

    Attributes:
        weights: The folder with the trained weights, relative to the run folder.
        kind: ``"adapter"`` for a peft adapter, ``"full"`` for a whole model.
        task: The model's task, as in :class:`ModelFacts`.
        base: Where the base model came from: ``id``, ``revision``, ``digest``.
        processor: The folder with the tokenizer or processor, relative to the run folder.
        traits: Traits of the trained model.
        best_step: The step of the best evaluation, if the job asked for it.
        metrics: Final numbers.
    """

    weights: str
    kind: Literal["adapter", "full"]
    task: str
    base: Mapping[str, Any]
    processor: str
    traits: frozenset[str]
    best_step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        files: Paths relative to the export's folder.
        report: What was checked and found, as JSON data.
        upload: Uploads the finished folder and returns its address; called once the export is in its place.
    """

    files: tuple[str, ...]
    report: Mapping[str, Any] = field(default_factory=dict)
    upload: Callable[[Path], str] | None = None


class Discovery:
    """Hooks called on every plugin at planning time. They must be light: importing torch here disables the plugin."""

    @hookspec
    def forge_offers(self) -> Iterable[Offer | Extension]:
        """Yield what the plugin can do."""
        raise NotImplementedError


class RunHooks:
    """Hooks called in the worker. Each has one chosen implementation; extensions may wrap them.

    pluggy passes an implementation only the arguments that it names.
    """

    @hookspec(firstresult=True)
    def forge_collate(self, job: Job, run: RunHandle) -> Data:
        """Turn the job's sources into rows. Only the tokenizer or processor and the model's config are needed."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_load(self, job: Job, run: RunHandle, data: Data) -> Loaded:
        """Load the base model from a local folder and leave that folder in ``model.config._name_or_path``."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_adapt(self, job: Job, run: RunHandle, loaded: Loaded) -> Loaded:
        """Add trainable parameters, or choose which to train."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_train(self, job: Job, run: RunHandle, loaded: Loaded, data: Data) -> Trained:
        """Train, from ``run.resume`` if that is set, and leave the weights in the run folder."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_export(self, job: Job, run: RunHandle, trained: Trained, export: ExportTable, out: Path) -> Exported:
        """Write one export into ``out``, from files only: no training backend is needed."""
        raise NotImplementedError

    @hookspec
    def forge_event(self, event: Event) -> None:
        """See an event. What an observer raises is logged, never fatal."""
