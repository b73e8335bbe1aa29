"""Everything a plugin needs, and the only module of forge that a plugin imports.

A plugin is a module named by an entry point in the group ``forge_v1``. At planning time forge calls its
``forge_offers`` hook, which yields :class:`Offer` objects: descriptions made of strings. forge chooses one offer per
stage and imports what that offer names, in a worker process, when the stage runs. So this module, and a plugin's own
top level, import nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

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
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Generator as Stream
    from pathlib import Path

    from forge.estimate import Estimate, Lever, Part
    from forge.job import ExportTable, Job
    from forge.run import RunHandle

__all__ = [
    "API", "VOCABULARY", "Accelerator", "Answer", "BackendImportError", "Data", "DataError", "Decision", "DiskFull",
    "Estimate", "Evaluated", "Event", "ExportError", "Exported", "Extension", "Finding", "ForgeError", "Generator",
    "Interrupted", "Lever", "Loaded", "Machine", "Mistakes", "ModelError", "ModelFacts", "Offer", "OutOfMemory", "Part",
    "PlanError", "PluginError", "Problem", "Prompt", "RunError", "Sampling", "Stage", "TorchBuild", "Trained",
    "UsageError", "hookimpl",
]  # fmt: skip

API = "forge_v1"
"""The entry-point group. Its name carries the version of this interface."""

hookspec = pluggy.HookspecMarker("forge")
hookimpl = pluggy.HookimplMarker("forge")
"""Marks a plugin's functions as implementations of forge's hooks."""


def __getattr__(name: str) -> Any:
    if name in {"Estimate", "Lever", "Part"}:  # 2 ms that only a command which estimates needs to pay
        from forge import estimate

        return getattr(estimate, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Stage(StrEnum):
    """The stages of a run, in the order in which they run. Generate and evaluate come where a job has ``[eval]``."""

    COLLATE = "collate"
    LOAD = "load"
    ADAPT = "adapt"
    TRAIN = "train"
    GENERATE = "generate"
    EVALUATE = "evaluate"
    EXPORT = "export"


VOCABULARY: Mapping[Stage, frozenset[str]] = {
    Stage.COLLATE: frozenset(
        {"text", "vision", "streaming", "packing", "tokens", "seq2seq", "pairs", "rated", "ranked", "prompts"}
    ),
    Stage.LOAD: frozenset({"text", "vision", "seq2seq", "reward-head", "4bit", "8bit", "full", "remote-code"}),
    Stage.ADAPT: frozenset({"lora", "none", "dora"}),
    Stage.TRAIN: frozenset(
        {"vision", "seq2seq", "sft", "dpo", "kto", "orpo", "cpo", "reward", "grpo", "rloo", "distill", "sdpo"}
    ),
    Stage.GENERATE: frozenset({"text", "vision", "seq2seq", "base", "adapter", "full", "gguf"}),
    Stage.EVALUATE: frozenset({"text", "vision", "seq2seq"}),
    Stage.EXPORT: frozenset({"adapter", "merged", "gguf", "push"}),
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
        asks: For a stage ``train``: words that it asks of other stages' offers, as the layout of the rows
            (``{Stage.COLLATE: {"pairs"}}``; without it ``"tokens"``) or a head of the model.
        preload: Modules that the worker imports before everything else.
        environment: Variables set before the worker starts.
        priority: 0 for a fallback, 50 for a normal choice; the higher is tried first, ties go by the plugin's name.
        backend: The name by which ``[use] backend`` asks for it.
        options: ``"package.module:name"`` of a pydantic model for the keys that it adds to its stage's own table, or of
            a function that takes the method, type or format and returns one.
        config: The same for the plugin's own table ``[plugins.<name>]``; a function takes no argument.
        probe: A light, pure function of machine, job and model facts that returns a reason against the offer, or None.
        check: A light, pure function of the job that yields a :class:`Problem` for each contradiction that no single
            key shows; ``Problem.where`` names the key. They are mistakes of the job.
        decide: A light, pure function of machine, job and model facts that yields a :class:`Decision` for each value
            that the job leaves open. Decisions stand in the plan with their reasons.
        preflight: ``"package.module:function"`` of ``(job, run, data)`` that yields :class:`Finding` objects in the
            worker after collating and before the model is loaded; an error stops the run.
        resumes: For exports: whether the implementation goes on from what an earlier try left in ``out``. Without it,
            each try begins with an empty folder.
        estimate: ``"package.module:function"`` of ``(machine, job, facts, *, longest=None)`` that returns an
            :class:`Estimate` of the memory of a training, or None; ``longest`` is the longest row in tokens, if known.
            The first chosen offer that has one is asked, in running order: what loads the model knows its kernels.
            It is imported at planning time, so it must be light, and again in the worker of a dry run.

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
    asks: Mapping[Stage, frozenset[str]] = field(default_factory=dict)
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
    resumes: bool = False
    estimate: str | None = None


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
            ``"stopped"``, ``"evaluated"`` and ``"done"``; from forge's own stages ``"reading"``, ``"data"``,
            ``"loaded"``, ``"adapted"``, ``"trainer"``, ``"probe"``, ``"dry-run"``, ``"training"``, ``"progress"``,
            ``"step"``, ``"answers"``, ``"eval"``, ``"checkpoint"`` and ``"writing"``.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is generated. The defaults are greedy: the most probable token each time, and nothing penalised.

    Attributes:
        max_new_tokens: The longest answer.
        temperature: 0 takes the most probable token each time; above, tokens are drawn.
        top_p: Draw among the most probable tokens that together have this probability; 1 is all.
        top_k: Draw among this many tokens; 0 is all.
        min_p: Draw among tokens with at least this share of the best one's probability.
        repetition_penalty: Divides the score of what is there already, prompt included; 1 is none (arXiv 1909.05858).
        presence_penalty: Is taken from the score of what the answer holds already; 0 is none.
        seed: For repeatable draws; None draws anew each time.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is to go on from.

    Attributes:
        text: The text, special tokens written out, the first one of a text included; nothing is to be added.
        images: The images, in the order of their places in the text. They may be opened when they are looked at.
    """

    text: str
    images: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    Attributes:
        text: The text, without special tokens.
        tokens: Their number.
        finished: Whether it ended by itself, not by ``max_new_tokens``.
    """

    text: str
    tokens: int
    finished: bool


class Generator(Protocol):
    """Trained weights, a base model or a file, ready to answer.

    Attributes:
        sampling: How it is meant to answer: the job's word, its model's, its family's, in this order.
        advice: Where those values come from, as a phrase.
    """

    sampling: Sampling
    advice: str

    def chat(self, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Stream[str, None, Answer]:
        """Yield the answer to a conversation as it comes, and return the :class:`Answer`; closing it stops the model.

        Raises:
            UsageError: The messages cannot be rendered by the chat template.
        """
        ...

    def complete(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, count: int = 1, batch_size: int = 8
    ) -> Iterator[tuple[int, list[Answer]]]:
        """Yield the index of a prompt and ``count`` answers to it, in whatever order serves the model best."""
        ...

    def losses(self, rows: Sequence[Mapping[str, Any]], *, batch_size: int = 8) -> list[tuple[float, int]] | None:
        """Return for each row (layouts ``tokens`` and ``images``) the sum of its loss and its tokens in the loss.

        The sum is that of negative log-likelihoods, in nats. None if this generator cannot say it.
        """
        ...

    def base(self) -> Generator | None:
        """Return the base model, where the same weights in memory serve it, or None."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What an evaluation found: the content of ``evaluation.json``.

    Attributes:
        rows: How many held-out rows were asked.
        models: Those that answered, as ``"base"``, ``"tuned"`` and ``"gguf"``, each with seconds and counts.
        metrics: By name of the metric and of the model: ``value``, ``stderr``, ``low``, ``high`` (95 %), ``n``,
            ``share`` (whether it is one, from 0 to 1); under ``"difference"`` the last two models, on the same rows.
        samples: A few rows with what each model answered.
        report: How it was done: the rows, the sampling, notes.
    """

    rows: int
    models: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]
    samples: Sequence[Mapping[str, Any]] = ()
    report: Mapping[str, Any] = field(default_factory=dict)


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
    def forge_generate(
        self, job: Job, run: RunHandle, trained: Trained, source: Literal["tuned", "base", "gguf"], file: Path | None
    ) -> Generator:
        """Make the trained weights, the base model or a GGUF file answer: what chat and evaluation talk to."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_evaluate(
        self, job: Job, run: RunHandle, trained: Trained, generate: Callable[[str], Generator]
    ) -> Evaluated:
        """Ask the held-out rows of the models in ``run.plan.models``, each of them made by ``generate``."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def forge_export(self, job: Job, run: RunHandle, trained: Trained, export: ExportTable, out: Path) -> Exported:
        """Write one export into ``out``, from files only: no training backend is needed."""
        raise NotImplementedError

    @hookspec
    def forge_event(self, event: Event) -> None:
        """See an event. What an observer raises is logged, never fatal."""
