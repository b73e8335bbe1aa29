"""What a job needs of each stage, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forge.api.functions import measured_by
from forge.api.plan import Who
from forge.api.stage import Stage
from forge.discovery.ranking import rank, unsuited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from forge.discovery.catalogue import Catalogue
    from forge.job.job import Job
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Need:
    """What a job needs of one stage.

    Attributes:
        stage: The stage.
        words: What an offer must support.
        label: The need's name for people: ``"load"``, ``"export 2"``.
        plugin: The plugin that the job names for it.
        backend: The backend that the job names for it.
        told: Where the job names that plugin or backend, for messages.
    """

    stage: Stage
    words: frozenset[str]
    label: str
    plugin: str | None = None
    backend: str | None = None
    told: str | None = None


def needs(
    job: Job,
    facts: ModelFacts,
    stages: Sequence[Stage] = tuple(Stage),
    asked: Mapping[Stage, frozenset[str]] | None = None,
) -> list[Need]:
    """Say what a job needs of each stage.

    Args:
        job: The job.
        facts: What is known about the model.
        stages: The stages to say it of.
        asked: What the method asks of other stages: :func:`asks`.
    """
    asked = asked or {}
    return [need for stage in stages for need in _NEEDS[stage](job, facts, asked.get(stage, frozenset()))]


def asked_models(job: Job) -> tuple[Who, ...]:
    """Return the models that a job's ``[eval]`` asks, in the order of the columns."""
    return (Who.BASE, Who.TUNED) if job.eval and job.eval.base else (Who.TUNED,)


def answer_needs(job: Job, facts: ModelFacts, models: Sequence[Who]) -> list[Need]:
    """Say what it takes to make models answer: an offer to generate for each."""
    kept = "full" if job.adapter.leaves_model else "adapter"
    lent = {"lender"} if _measuring(job) else set()
    found = []
    for who in models:
        label = f"{Stage.GENERATE} ({who})"
        if who is Who.GGUF:  # what reads a file is for files to say, and no file is lent
            found.append(_need(Stage.GENERATE, {_kind(facts), who.value}, label))
        else:
            words = {_kind(facts), kept if who is Who.TUNED else who.value, *lent}
            found.append(_need(Stage.GENERATE, words, label, _named(job, Stage.GENERATE)))
    return found


def judge_needs(job: Job, facts: ModelFacts) -> Iterator[Need]:
    """Say what it takes to judge answers: to held-out rows, and to the questions of each plugin that brings some."""
    yield _need(Stage.EVALUATE, {_kind(facts)}, named=_named(job, Stage.EVALUATE))
    for name, metric in _measuring(job).items():
        told = f'[eval] metrics = ["{metric}"]'
        yield Need(Stage.EVALUATE, frozenset({"metrics"}), f"{Stage.EVALUATE} ({name})", name, told=told)


def _measuring(job: Job) -> dict[str, str]:
    """Return the plugins that a job's ``[eval]`` asks to measure by questions of their own, each with one metric."""
    metrics = job.eval.metrics if job.eval else []
    return {found[0]: metric for metric in reversed(metrics) if (found := measured_by(metric))}


def asks(job: Job, facts: ModelFacts, catalogue: Catalogue, machine: Machine) -> Mapping[Stage, frozenset[str]]:
    """Return what the job's method asks of other stages, as the offer says that would most likely train it."""
    words, named = _train_words(job, facts), job.use.train
    offers = [
        (unsuited(offer, machine) is not None, rank(plugin, offer, job.use.prefer, named=bool(named)), offer)
        for plugin, offer in catalogue.offers(Stage.TRAIN)
        if words <= offer.words and named in {None, plugin.name}
    ]
    return min(offers, key=lambda each: each[:2])[2].asks if offers else {}


def _collate(job: Job, facts: ModelFacts, asked: frozenset[str]) -> Iterator[Need]:
    words = {"vision" if facts.task == "vision" else "text", *(asked or {"tokens"})}
    words |= {word for word, wanted in (("streaming", job.data.streaming), ("packing", job.data.packing)) if wanted}
    words |= {"ddp"} if _spread(job) else set()  # the rows are the same, whatever holds the model
    yield _need(Stage.COLLATE, words, named=_named(job, Stage.COLLATE))


def _load(job: Job, facts: ModelFacts, asked: frozenset[str]) -> Iterator[Need]:
    words = {_kind(facts), *asked}
    if job.model.bits:
        words.add(job.model.bits)
    if job.adapter.leaves_model:
        words.add("full")
    if job.model.trust_remote_code:
        words.add("remote-code")
    if job.model.config:
        words.add("config")
    if job.model.dequantize:
        words.add("dequantize")
    if job.model.changes_tokenizer:
        words.add("named-tokens")
    words |= _spread(job)
    yield _need(Stage.LOAD, words, named=_named(job, Stage.LOAD), backend=_backend(job))


def _adapt(job: Job, _facts: ModelFacts, asked: frozenset[str]) -> Iterator[Need]:
    words = {job.adapter.type, *asked, *(["dora"] if job.adapter.use_dora else [])}
    words |= {"from"} if job.adapter.from_ else set()
    words |= {"target_parameters"} if job.adapter.target_parameters else set()
    yield _need(Stage.ADAPT, words, named=_named(job, Stage.ADAPT), backend=_backend(job))


def _train(job: Job, facts: ModelFacts, _asked: frozenset[str]) -> Iterator[Need]:
    yield _need(Stage.TRAIN, _train_words(job, facts), named=_named(job, Stage.TRAIN))


def _generate(job: Job, facts: ModelFacts, _asked: frozenset[str]) -> Iterator[Need]:
    if job.eval:
        yield from answer_needs(job, facts, asked_models(job))


def _evaluate(job: Job, facts: ModelFacts, _asked: frozenset[str]) -> Iterator[Need]:
    if job.eval:
        yield from judge_needs(job, facts)


def _export(job: Job, _facts: ModelFacts, _asked: frozenset[str]) -> Iterator[Need]:
    for number, export in enumerate(job.export, 1):
        words = {export.format, *(["push"] if export.push_to_hub else [])}
        yield _need(Stage.EXPORT, words, f"export {number} ({export.format})", _named(job, Stage.EXPORT))


_NEEDS: Mapping[Stage, Callable[[Job, ModelFacts, frozenset[str]], Iterator[Need]]] = {
    Stage.COLLATE: _collate,
    Stage.LOAD: _load,
    Stage.ADAPT: _adapt,
    Stage.TRAIN: _train,
    Stage.GENERATE: _generate,
    Stage.EVALUATE: _evaluate,
    Stage.EXPORT: _export,
}


def _need(
    stage: Stage, words: Iterable[str], label: str = "", named: str | None = None, backend: str | None = None
) -> Need:
    told = f'[use] {stage} = "{named}"' if named else f'[use] backend = "{backend}"' if backend else None
    label = label or stage.value
    return Need(stage, frozenset(words), label, named, backend if not named else None, told)


def _named(job: Job, stage: Stage) -> str | None:
    named: str | None = getattr(job.use, stage.value)
    return named


def _backend(job: Job) -> str | None:
    """Return the backend that the job names: it is what loads and adapts, and the other stages serve all."""
    return None if job.use.backend == "auto" else job.use.backend


def _kind(facts: ModelFacts) -> str:
    return facts.task if facts.task in {"vision", "seq2seq"} else "text"


def _spread(job: Job) -> set[str]:
    """Return what several processes ask of the stages that they all run."""
    return set() if job.launch.world_size == 1 else {"fsdp2"} if job.launch.shard == "full" else {"ddp"}


def _train_words(job: Job, facts: ModelFacts) -> set[str]:
    return {job.train.method} | ({facts.task} & {"vision", "seq2seq"}) | _spread(job)
