"""What is wrong with a job that only a plan can tell: what its offers find, what is not installed, what was decided."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from forge.discovery.calls import failed, records_of
from forge.discovery.keys import STAGES, PluginKeys, word_of
from forge.discovery.requirements import lacking
from forge.errors import JobError, Problem
from forge.job.decisions import settle
from forge.job.keys import SELECTORS, keys_of
from forge.job.table import judged
from forge.job.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from forge.api.offer import Extension, Offer
    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.job.decisions import Decision
    from forge.job.job import Job
    from forge.job.read import JobFile
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts
    from forge.planning.fitting import Choice
    from forge.planning.observing import Acting


class Voice(NamedTuple):
    """What has a say in a plan: a chosen offer, or an observer that acts.

    Attributes:
        plugin: Its plugin.
        about: Its stage, or ``"its observer"``.
        says: It.
    """

    plugin: Plugin
    about: str
    says: Offer | Extension


class Decided(NamedTuple):
    """What was decided for a key, and by whom."""

    decision: Decision
    voice: Voice

    @property
    def what(self) -> str:
        """The function that decided it."""
        return f"its decide of {self.voice.about}"


def voices(chosen: Sequence[Choice], observers: Sequence[Acting]) -> list[Voice]:
    """Return the chosen offers, each once, and the observers after them."""
    once = {(choice.plugin.name, choice.offer.impl): choice for choice in chosen}.values()
    offers = [Voice(choice.plugin, choice.need.stage.value, choice.offer) for choice in once]
    return [*offers, *(Voice(each.plugin, "its observer", each.extension) for each in observers)]


def checked(voice: Voice, job: Job) -> list[Problem]:
    """Return what a voice finds wrong with a job."""
    return records_of(voice.plugin, f"its check of {voice.about}", Problem, voice.says.check, job)


def refuse_mistakes(
    chosen: Sequence[Choice], heard: Sequence[Voice], file: JobFile, machine: Machine, facts: ModelFacts
) -> None:
    """Raise :class:`JobError` for what the chosen offers find wrong with a job, and for what is not installed."""
    found = [problem for voice in heard for problem in checked(voice, file.job)]
    refuse(file, found, *_not_installed(chosen, file.job, machine, facts))


def refuse_decided(
    chosen: Sequence[Choice],
    heard: Sequence[Voice],
    file: JobFile,
    decided: Mapping[str, Decided],
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
) -> None:
    """Raise :class:`JobError` where the job and what was decided for it contradict each other, as two of its keys may.

    Raises:
        JobError: The two do not fit.
        PluginError: A plugin decided what is no value of the key.
    """
    settled = settle(file.job, [each.decision for each in decided.values()])
    found = [
        problem
        for prefix, models in _models(chosen, file.job, catalogue, decided)
        for problem in _contradictions(prefix, models, settled, file.named, decided)
    ]
    found += [problem for voice in heard for problem in checked(voice, settled)]
    refuse(file, found, *_not_installed(chosen, settled, machine, facts))


def refuse(file: JobFile, found: list[Problem], missing: Sequence[Problem] = (), install: Sequence[str] = ()) -> None:
    """Raise :class:`JobError` for what is wrong with a job, if anything is, each with its line."""
    if problems := [*found, *missing]:
        from forge.job.locate import locate  # only mistakes pay for it

        placed = []
        for problem in dict.fromkeys(problems):
            key = [int(part) if part.isdigit() else part for part in problem.where.split(".")]
            placed.append(replace(problem, line=locate(file.text, key)))
        line = " ".join(f'"{text}"' if set(text) & set("<>=!~[ ") else text for text in dict.fromkeys(install))
        raise JobError(file.source, placed, f"install what is missing: pip install {line}" if line else None)


def _not_installed(
    chosen: Sequence[Choice], job: Job, machine: Machine, facts: ModelFacts
) -> tuple[list[Problem], list[str]]:
    """Return what the job's values need that is not there, and all that is to be installed."""
    packages = dict.fromkeys(package for choice in chosen for package in choice.offer.packages)
    found: list[Problem] = []
    install: list[str] = []
    for where, value, missing in lacking(packages, job, machine, facts):
        named = "it" if value == "True" else f'"{value}"'
        what = missing.reason if missing.reason.startswith("it ") else f"{named} needs a package: {missing.reason}"
        found.append(Problem(where, what, None if missing.install else "take another value, or remove it"))
        install += missing.install
    return found, install


def _models(
    chosen: Sequence[Choice], job: Job, catalogue: Catalogue, decided: Mapping[str, Decided]
) -> Iterator[tuple[str, Sequence[type[BaseModel]]]]:
    """Yield the tables of a job for which something was decided, each with the models of its keys."""
    serving = {choice.need.stage: choice.plugin.name for choice in chosen}
    owners = {table: serving[stage] for table, stage in STAGES.items() if stage in serving}
    keys = PluginKeys(catalogue, owners=owners)
    for prefix in dict.fromkeys(key.rpartition(".")[0] for key in decided):
        name, _, plugin = prefix.partition(".")
        if name == "plugins":
            settings = keys.settings(plugin)
            yield prefix, settings.models if settings else ()
        elif name in TABLES:
            use = job.use.model_dump(by_alias=True)
            yield prefix, (TABLES[name], *(keys.models(name, word_of(job, name), use) if name in SELECTORS else ()))


def _contradictions(
    prefix: str,
    models: Sequence[type[BaseModel]],
    job: Job,
    named: frozenset[str],
    decided: Mapping[str, Decided],
) -> Iterator[Problem]:
    """Yield what one table, with what was decided in it, contradicts itself in."""
    name, _, plugin = prefix.partition(".")
    if name == "plugins":
        whole = job.plugins.get(plugin, {})
    else:  # of another type than is due is told below, where it is of one
        whole = getattr(job, name).model_dump(by_alias=True, warnings=False)
    for model in models:
        values = {
            key: value
            for key, value in whole.items()
            if key in keys_of(model) and (_written(f"{prefix}.{key}", named) or f"{prefix}.{key}" in decided)
        }
        try:
            judged(model, values)
        except ValidationError as error:
            yield from _explained(model, values, error, prefix, named, decided)


def _explained(
    model: type[BaseModel],
    values: Mapping[str, Any],
    error: ValidationError,
    prefix: str,
    named: frozenset[str],
    decided: Mapping[str, Decided],
) -> Iterator[Problem]:
    from forge.job.explain import faults  # only mistakes pay for it
    from forge.job.literal import literal

    for fault in faults(model, values, error, tuple(prefix.split("."))):
        about = [f"{prefix}.{key}" for key in fault.names] or [".".join(map(str, fault.key))]
        mine = [decided[key] for key in about if key in decided]
        if not fault.names and mine:
            decision, voice = mine[0]
            why = f"it decides {decision.key} = {literal(decision.value)}, which cannot be: it {fault.message}"
            raise failed(voice.plugin, mine[0].what, why)
        said = "; ".join(f"{each.key} = {literal(each.value)} was decided: {each.reason}" for each, _ in mine)
        where = next((key for key in about if _written(key, named)), about[0])
        yield Problem(where, f"{fault.message} ({said})" if said else fault.message, fault.do)


def _written(key: str, named: frozenset[str]) -> bool:
    return key in named or any(each.startswith(f"{key}.") for each in named)
