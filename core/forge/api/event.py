"""What happens in a worker, as records: a class for each kind, and a line of ``events.jsonl`` for each that happens.

A line is the record's fields, with ``time`` and ``kind``. What belongs to no field, such as the numbers that a trainer
logs by its own names, stands in ``more`` and in the line beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: Its kind, by which the line is known.
        more: Values beside the fields, as JSON data.
        time: Seconds since the epoch, for an event that was read back.

    Example:
        >>> Noted("the disk is nearly full").values
        {'message': 'the disk is nearly full'}
        >>> StepLogged.from_values({"step": 1, "of": 9, "loss": 2.5, "entropy": 0.3}).more
        {'entropy': 0.3}
    """

    kind: ClassVar[str] = ""
    more: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    time: float | None = field(default=None, kw_only=True)

    @property
    def values(self) -> dict[str, Any]:
        """All that belongs to the event, as its line has it, without ``time``, ``kind`` and what is None."""
        own = {name.rstrip("_"): value for name in _names(type(self)) if (value := getattr(self, name)) is not None}
        return {**self.more, **own}

    @classmethod
    def from_values(cls, values: Mapping[str, Any], *, time: float | None = None) -> Self:
        """Make an event of values: those that are fields, and the rest as ``more``.

        Raises:
            TypeError: A field without a default is missing.
        """
        names = {name.rstrip("_"): name for name in _names(cls)}
        own = {names[key]: value for key, value in values.items() if key in names}
        return cls(**own, more={key: value for key, value in values.items() if key not in names}, time=time)


def _names(kind: type[Event]) -> list[str]:
    return [each.name for each in fields(kind) if each.name not in {"more", "time", "kind"}]


@dataclass(frozen=True)
class Custom(Event):
    """An event of a plugin's own kind, named ``<plugin>/<word>``; also a line of another forge."""

    kind: str  # type: ignore[misc]  # of each event, where the others have one of their class


@dataclass(frozen=True)
class Planned(Event):
    """A plan has been written; the first line of ``forge run --json``, told by the parent and in no file."""

    kind: ClassVar[str] = "planned"
    folder: str
    attempt: int


@dataclass(frozen=True)
class Preloaded(Event):
    """A worker is ready: its process and what its plan imports before everything else took ``seconds``."""

    kind: ClassVar[str] = "preloaded"
    seconds: float


@dataclass(frozen=True)
class StageChanged(Event):
    """A stage has begun, with its ``plugin``, or ended, after ``seconds``: ``state`` is ``started`` or ``finished``."""

    kind: ClassVar[str] = "stage"
    stage: str
    state: str
    plugin: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Reading(Event):
    """So many rows have been read so far."""

    kind: ClassVar[str] = "reading"
    rows: int


@dataclass(frozen=True)
class Collated(Event):
    """The rows are ready: their digest, counts of rows and tokens, the longest, and those cut, split or dropped."""

    kind: ClassVar[str] = "data"
    digest: str
    rows: int | None = None
    tokens: int | None = None
    supervised: int | None = None
    share: float | None = None
    longest: int | None = None
    truncated: int | None = None
    cut_share: float | None = None
    cut_share_of_rows: float | None = None
    split: int | None = None
    pieces: int | None = None
    dropped: int | None = None
    eval: Mapping[str, Mapping[str, Any]] | None = None
    sources: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class ModelLoaded(Event):
    """The base model is in memory."""

    kind: ClassVar[str] = "loaded"
    parameters: int
    dtype: str
    attention: str
    device: str


@dataclass(frozen=True)
class Adapted(Event):
    """The model is trainable: how many of all its parameters are trained, in which modules."""

    kind: ClassVar[str] = "adapted"
    trainable: int
    all: int
    targets: Sequence[str]
    type: str | None = None


@dataclass(frozen=True)
class TrainerMade(Event):
    """The trainer is there: where the code that runs comes from, and what of it is ``patched``."""

    kind: ClassVar[str] = "trainer"
    trainer: str
    patched: Sequence[str] = ()


@dataclass(frozen=True)
class Probed(Event):
    """The longest batch was tried: rows, tokens, seconds, bytes at the peak."""

    kind: ClassVar[str] = "probe"
    rows: int
    tokens: int
    seconds: float
    memory: int | None = None
    loss: float | None = None


@dataclass(frozen=True)
class DryRunDone(Event):
    """A dry run has ended: what training would take."""

    kind: ClassVar[str] = "dry-run"
    steps: int
    seconds_per_step: float
    memory: int | None = None
    longest: int | None = None
    tokens_in_all: int | None = None
    estimate: Mapping[str, Any] | None = None
    measured: Mapping[str, Any] | None = None
    disk: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TrainingStarted(Event):
    """Training begins, ``from`` a step if it goes on."""

    kind: ClassVar[str] = "training"
    steps: int
    from_: int = 0
    epochs: float | None = None


@dataclass(frozen=True)
class Progress(Event):
    """A step has ended; told now and then."""

    kind: ClassVar[str] = "progress"
    step: int
    of: int
    seconds_left: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class StepLogged(Event):
    """The trainer logged a step; its numbers stand beside these by the trainer's own names."""

    kind: ClassVar[str] = "step"
    step: int
    of: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class AnswersShown(Event):
    """Some answers that the model gave while it is trained, each with ``prompt``, ``completion`` and ``rewards``."""

    kind: ClassVar[str] = "answers"
    step: int
    answers: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class EvalLogged(Event):
    """The trainer evaluated; its numbers stand beside these as ``eval_loss`` and the like."""

    kind: ClassVar[str] = "eval"
    step: int
    of: int | None = None


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A checkpoint is whole."""

    kind: ClassVar[str] = "checkpoint"
    step: int
    bytes: int
    path: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class SpeedMeasured(Event):
    """Training has ended, and how fast it was; no number here made the device wait.

    Attributes:
        first: Seconds of the first step, in which kernels are compiled.
        steps: How many steps came after it.
        seconds: What these took, without evaluations and checkpoints.
        evaluating: Seconds of the evaluations.
        saving: Seconds of the checkpoints.
        tokens: Tokens of the rows in these steps, as the trainer counts them.
        padded: The same with what fills the batches up.
        padding: The share of the batches that fills them up.
        tokens_per_second: Of the rows.
        flops: Floating-point operations a second that the model takes for all of its batches, padding included.
        peak: What the device could do at best.
        share: The share of that limit which went into tokens of the rows (MFU).
    """

    kind: ClassVar[str] = "speed"
    first: float
    steps: int
    seconds: float
    evaluating: float = 0.0
    saving: float = 0.0
    tokens: int | None = None
    padded: int | None = None
    padding: float | None = None
    tokens_per_second: float | None = None
    flops: float | None = None
    peak: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class TrainingDone(Event):
    """The weights are saved."""

    kind: ClassVar[str] = "trained"
    weights: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Answering(Event):
    """A model has answered so many of the held-out rows."""

    kind: ClassVar[str] = "answering"
    model: str
    rows: int
    of: int


@dataclass(frozen=True)
class EvaluationDone(Event):
    """An evaluation is whole: what :class:`forge.api.Evaluated` holds, and its file."""

    kind: ClassVar[str] = "evaluated"
    rows: int
    models: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]
    samples: Sequence[Mapping[str, Any]]
    report: Mapping[str, Any]
    file: str


@dataclass(frozen=True)
class Writing(Event):
    """A large file of an export is written: bytes ``done`` of ``total``."""

    kind: ClassVar[str] = "writing"
    file: str
    done: int
    total: int
    seconds_left: float


@dataclass(frozen=True)
class ExportDone(Event):
    """An export is in its place."""

    kind: ClassVar[str] = "exported"
    format: str
    folder: str
    files: Mapping[str, Mapping[str, Any]]
    url: str | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Noted(Event):
    """Something that a user may want to know."""

    kind: ClassVar[str] = "note"
    message: str
    do: str | None = None


@dataclass(frozen=True)
class Warned(Event):
    """Something that a user should know."""

    kind: ClassVar[str] = "warning"
    message: str
    do: str | None = None


@dataclass(frozen=True)
class Objected(Event):
    """A preflight check found an error; the run fails once all checks have spoken."""

    kind: ClassVar[str] = "error"
    message: str
    do: str | None = None


@dataclass(frozen=True)
class Failed(Event):
    """The worker ends with an error."""

    kind: ClassVar[str] = "failed"
    error: Mapping[str, Any]


@dataclass(frozen=True)
class Stopped(Event):
    """The worker ends, as it was asked to."""

    kind: ClassVar[str] = "stopped"
    message: str


@dataclass(frozen=True)
class Done(Event):
    """The worker ends, and what its plan says is done."""

    kind: ClassVar[str] = "done"
    task: str


EVENTS: Mapping[str, type[Event]] = {each.kind: each for each in Event.__subclasses__() if each is not Custom}
"""Every kind of forge's own."""


def event_of(line: Mapping[str, Any]) -> Event:
    """Return the event of a line: of its kind's class, or a :class:`Custom` one if forge does not know it so."""
    values = {key: value for key, value in line.items() if key not in {"kind", "time"}}
    kind, time = str(line.get("kind")), line.get("time")
    try:
        return EVENTS[kind].from_values(values, time=time)
    except (KeyError, TypeError):  # a plugin's own, or of another forge
        return Custom(kind, more=values, time=time)
