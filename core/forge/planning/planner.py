"""Making plans: of a run, of an export, of what answers."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from forge.api.plan import Answers, Export, Preview, Step, Task, Training
from forge.api.reference import load_object
from forge.api.stage import Stage
from forge.discovery.guard import import_guard
from forge.discovery.requirements import missing_requirement
from forge.errors import JobError, PlanError, PluginError, Problem, RunError
from forge.job.decisions import Decision, decidable, settle
from forge.job.job import dump_job
from forge.masking import masked
from forge.planning.mistakes import ask, distinct, failed, refuse_decided, refuse_mistakes
from forge.planning.needs import answer_needs, asks, judge_need, needs
from forge.planning.selection import Choice, refuse_unable, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from forge.api.estimate import Estimate
    from forge.api.offer import Offer
    from forge.api.plan import Who
    from forge.discovery.catalogue import Catalogue
    from forge.job.job import Job
    from forge.job.read import JobFile
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts


def make_plan(
    file: JobFile,
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
    *,
    task: Task = Task.TRAIN,
    rows: int = 0,
    excluded: Mapping[str, str] | None = None,
    relief: Iterable[Decision] = (),
    attempt: int = 1,
) -> Training | Preview:
    """Plan a run of a job.

    Args:
        file: The job.
        catalogue: The plugins.
        machine: The machine.
        facts: What is known about the model.
        task: What the worker is to do: train, try (a dry run), or show rows.
        rows: How many rows to show.
        excluded: Plugins that failed in an earlier attempt, with the reason.
        relief: Decisions that an earlier attempt's failure suggests; they win over the offers' own.
        attempt: The number of this attempt.

    Raises:
        PlanError: The job cannot be served.
        JobError, DataError: Something that only a plan can see contradicts the job.
    """
    job = file.job
    stages = [Stage.COLLATE] if task is Task.DATA else list(Stage)
    wanted = needs(job, facts, stages, asks(job, facts, catalogue))
    if task is Task.DATA:
        for need in needs(job, facts, [Stage.TRAIN]):
            refuse_unable(need, catalogue)  # else the rows would be shown as another method takes them
    chosen, verdicts = select(wanted, catalogue, machine, job, facts, excluded=excluded)
    refuse_mistakes(chosen, file, machine, facts)
    decisions = _decisions(chosen, machine, job, facts)
    if task is not Task.DATA:
        decisions = (*decisions, *_fitted(chosen, decisions, file, machine, facts))
    refuse_decided(chosen, file, decisions, catalogue, machine, facts)
    relief = tuple(relief)
    parts = _parts(job, chosen, catalogue, machine, facts) | {
        "source": file.source,
        "overrides": file.overrides,
        "named": tuple(sorted(file.named)),
        "observers": tuple(_observers(job, catalogue, machine)),
        "verdicts": tuple(verdicts),
        "decisions": (*decisions, *relief),
        "notes": tuple(map(masked, _notes(job, catalogue, chosen, machine, facts))),
        "attempt": attempt,
    }
    if task is Task.DATA:
        return Preview(**parts, rows=rows)
    return _with_estimate(Training(**parts, task=task, relieved=bool(relief)), job)


def export_plan(
    job: Job, index: int, catalogue: Catalogue, machine: Machine, facts: ModelFacts, traits: frozenset[str], source: str
) -> Export:
    """Plan one export of trained weights, afresh, for the machine at hand.

    Raises:
        PlanError: Nothing can make it.
        JobError: What makes it finds a mistake in its table.
    """
    wanted = [needs(job, facts, [Stage.EXPORT])[index]]
    chosen, verdicts = select(wanted, catalogue, machine, job, facts, traits=traits)
    found = [problem for choice in chosen for problem in ask(choice, choice.offer.check, Problem, job)]
    if mine := [problem for problem in found if problem.where.startswith(f"export.{index}")]:
        raise JobError(source, mine)
    return Export(
        **_parts(job, chosen, catalogue, machine, facts),
        source=source,
        verdicts=tuple(verdicts),
        decisions=_decisions(chosen, machine, job, facts),
        index=index,
    )


def answer_plan(
    file: JobFile,
    task: Task,
    models: Sequence[Who],
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
    traits: frozenset[str],
) -> Answers:
    """Plan an evaluation of trained weights, or a chat with them, afresh, for the machine at hand.

    Raises:
        PlanError: Nothing can make one of the models answer, or evaluate them.
        JobError: ``[eval]`` has mistakes.
    """
    job = file.job
    wanted = answer_needs(job, facts, models)
    if task is Task.EVAL:
        wanted.append(judge_need(job, facts))
    chosen, verdicts = select(wanted, catalogue, machine, job, facts, traits=traits)
    refuse_mistakes(chosen, file, machine, facts)
    decisions = _decisions(chosen, machine, job, facts)
    refuse_decided(chosen, file, decisions, catalogue, machine, facts)
    return Answers(
        **_parts(job, chosen, catalogue, machine, facts),
        task=task,
        source=file.source,
        overrides=file.overrides,
        named=tuple(sorted(file.named)),
        verdicts=tuple(verdicts),
        decisions=decisions,
        models=tuple(models),
    )


def renewed(plan: Training, catalogue: Catalogue, machine: Machine) -> Training:
    """Return the plan of a run that goes on, here and with the plugins of today: the same choices, by today's names.

    What was decided stays decided. A plugin may have moved an implementation since, so each step takes the one that the
    same plugin offers for the same words.

    Raises:
        RunError: A plugin is gone, cannot be used, or has no such offer any more.
    """
    steps, offers = [], []
    for step in plan.steps:
        plugin = catalogue.find(step.plugin)
        if plugin is None or plugin.status != "ok":
            if step.stage is Stage.EXPORT:  # exports are planned afresh
                continue
            why = "is not installed" if plugin is None else f"is {plugin.status}: {plugin.reason}"
            raise RunError(f"the run's {step.stage} needs plugin {step.plugin}", f"it {why}", "install it here")
        able = [offer for offer in plugin.offers if offer.stage is step.stage and set(step.words) <= offer.words]
        offer = next((offer for offer in able if offer.impl == step.impl), able[0] if able else None)
        if offer is None:
            why = f"its version {plugin.version} does not do {', '.join(step.words)} any more"
            raise RunError(f"the run's {step.stage} needs plugin {step.plugin}", why, f"install {step.version} of it")
        offers.append(offer)
        steps.append(
            replace(
                step,
                impl=offer.impl,
                preflight=offer.preflight,
                resumes=offer.resumes,
                upload=offer.upload,
                estimate=offer.estimate,
                fit=offer.fit,
            )
        )
    return replace(plan, machine=machine, steps=tuple(steps), **_of_offers(offers, catalogue))


def _parts(
    job: Job, chosen: Sequence[Choice], catalogue: Catalogue, machine: Machine, facts: ModelFacts
) -> dict[str, Any]:
    """Return what plans of all tasks say of what was chosen."""
    return {
        "job": dump_job(job),
        "job_digest": job.digest(),
        "steps": tuple(_step(choice) for choice in chosen),
        "machine": machine,
        "facts": facts,
        **_of_offers([choice.offer for choice in chosen], catalogue),
    }


def _of_offers(offers: Sequence[Offer], catalogue: Catalogue) -> dict[str, Any]:
    """Return what a worker's process must be like for some offers."""
    every = [offer for plugin in catalogue.usable for offer in plugin.offers]
    patched = {name for offer in offers for name in offer.patches}
    return {
        "preload": tuple(dict.fromkeys(name for offer in _patching_first(offers) for name in offer.preload)),
        "before": tuple(dict.fromkeys(name for offer in offers for name in offer.before)),
        "refused": tuple(sorted({name for offer in every for name in offer.patches} - patched)),
        "environment": {key: value for offer in offers for key, value in offer.environment.items()},
        "shed": tuple(sorted({prefix for offer in every for prefix in offer.sheds})),
    }


def _patching_first(offers: Sequence[Offer]) -> list[Offer]:
    """Return offers in their order, but those first that change others' libraries, and so must be imported first."""
    return sorted(offers, key=lambda offer: not offer.patches)


def _decisions(chosen: Sequence[Choice], machine: Machine, job: Job, facts: ModelFacts) -> tuple[Decision, ...]:
    """Return what the chosen offers decide; of two decisions on one key, the earlier stage's holds.

    What loads the model knows how it can be trained.
    """
    found: dict[str, Decision] = {}
    for choice in distinct(chosen):
        for decision in ask(choice, choice.offer.decide, Decision, machine, job, facts):
            if not decidable(job, decision.key):
                why = f"it decides {decision.key}, and there is no such key"
                raise PluginError(failed(choice), why, "update it, or go on without it")
            found.setdefault(decision.key, decision)
    return tuple(found.values())


def _fitted(
    chosen: Sequence[Choice], decisions: tuple[Decision, ...], file: JobFile, machine: Machine, facts: ModelFacts
) -> Iterable[Decision]:
    """Yield what memory decides, once all else is decided: by the first chosen offer that can tell."""
    choice = next((choice for choice in chosen if choice.offer.fit), None)
    if choice is None or choice.offer.fit is None:
        return []
    function = functools.partial(_call, choice.offer.fit, asked=file.job, named=file.named)
    return ask(choice, function, Decision, machine, settle(file.job, decisions), facts)


def _call(reference: str, *arguments: Any, **options: Any) -> Iterable[Decision]:
    function = cast("Callable[..., Iterable[Decision]]", load_object(reference))
    return function(*arguments, **options)


def _step(choice: Choice) -> Step:
    return Step(
        stage=choice.need.stage,
        label=choice.need.label,
        plugin=choice.plugin.name,
        distribution=choice.plugin.distribution,
        version=choice.plugin.version,
        impl=choice.offer.impl,
        words=tuple(sorted(choice.need.words)),
        provides=tuple(sorted(choice.offer.provides)),
        preflight=choice.offer.preflight,
        resumes=choice.offer.resumes,
        upload=choice.offer.upload,
        estimate=choice.offer.estimate,
        fit=choice.offer.fit,
    )


def _with_estimate(plan: Training, job: Job) -> Training:
    """Return a plan with its estimate. A plugin that fails at it costs the estimate, with a note, and not the run."""
    step = next((step for step in plan.steps if step.estimate), None)
    if step is None or step.estimate is None:
        return plan
    try:
        with import_guard():
            function = cast("Callable[..., Estimate | None]", load_object(step.estimate))
            return replace(plan, estimate=function(plan.machine, settle(job, plan.decisions), plan.facts))
    except Exception as error:  # noqa: BLE001 - one plugin's estimate must not take the run down
        note = f"the memory is not estimated: {step.plugin} failed at it ({type(error).__name__}: {error})"
        return replace(plan, notes=(*plan.notes, masked(note)))


def _observers(job: Job, catalogue: Catalogue, machine: Machine) -> Iterable[tuple[str, str]]:
    names = dict.fromkeys([*job.use.with_, *job.plugins])
    for name in names:
        plugin = catalogue.find(name)
        if plugin is None or plugin.status != "ok" or (name in job.use.with_ and not plugin.extensions):
            if name in job.use.with_:
                why = "it is not installed" if plugin is None else plugin.reason or "it has no observer"
                raise PlanError(f'[use] with = ["{name}"] cannot be followed', why)
            continue
        for extension in plugin.extensions:
            if missing := missing_requirement(extension.requires_dist, machine):
                raise PlanError(f"plugin {name} cannot act on this run", str(missing))
            yield name, extension.impl


def _notes(
    job: Job, catalogue: Catalogue, chosen: Sequence[Choice], machine: Machine, facts: ModelFacts
) -> Iterable[str]:
    taken = {choice.plugin.name for choice in chosen}
    for name in job.plugins:
        plugin = catalogue.find(name)
        if plugin and plugin.offers and name not in taken and not plugin.extensions:
            yield f"[plugins.{name}] does nothing here: {name} was not chosen"
    for plugin in catalogue.unusable:
        if plugin.status != "disabled":
            yield f"plugin {plugin.name} ({plugin.distribution} {plugin.version}) is {plugin.status}: {plugin.reason}"
    if mismatch := machine.mismatch():
        yield mismatch
    cards = [card for card in machine.accelerators if card.kind in machine.usable_kinds]
    if len(cards) > 1 and not job.train.options.get("use_cpu"):
        idle = len(cards) - 1
        yield f"a run uses one GPU, {cards[0].name}; {idle} more {'is' if idle == 1 else 'are'} idle"
    if facts.note:
        yield facts.note
