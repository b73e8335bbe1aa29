"""What each stage hands on to the next: rows, a model, trained weights, an evaluation, an export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal


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
        fingerprint: Returns what must stay the same about the processor, such as its vocabulary's size and template.
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
    fingerprint: Callable[[Any], Any] | None = None
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
        task: The model's task, as in :class:`~forge.api.ModelFacts`.
        base: Where the base model came from: ``id``, ``revision``, ``digest``.
        processor: The folder with the tokenizer or processor, relative to the run folder.
        traits: Traits of the trained model.
        best_step: The step of the best evaluation, if the job asked for it.
        metrics: Final numbers; one that is not finite is left out, with a warning.
        warnings: What speaks against these weights, as sentences for people: that nothing was learned, and why.
    """

    weights: str
    kind: Literal["adapter", "full"]
    task: str
    base: Mapping[str, Any]
    processor: str
    traits: frozenset[str]
    best_step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        files: What it wrote, relative to the export's folder: each must be there. What else lies there is recorded too.
        report: What was checked and found, as JSON data.
    """

    files: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)


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

    def beside(self, other: Evaluated | None) -> Evaluated:
        """Return both as one: the other's metrics after these, its seconds added, its held-out rows and samples too."""
        if other is None:
            return self
        models = {name: dict(found) for name, found in self.models.items()}
        for name, found in other.models.items():
            mine = models.setdefault(name, {})
            seconds = [each["seconds"] for each in (mine, found) if "seconds" in each]
            models[name] = {**found, **mine} | ({"seconds": round(sum(seconds), 2)} if seconds else {})
        return replace(
            self,
            rows=self.rows + other.rows,
            models=models,
            metrics={**self.metrics, **other.metrics},
            samples=[*self.samples, *other.samples],
            report={**other.report, **self.report},
        )
