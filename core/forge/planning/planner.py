"""Making plans: of a run, of an export, of what answers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from forge.api.estimate import Estimate
from forge.api.plan import Answers, Export, Preview, Step, Task, Training
from forge.api.stage import Stage
from forge.discovery.calls import call, failed, records_of
from forge.discovery.keys import PluginKeys
from forge.errors import ForgeError, JobError, PlanError, Problem
from forge.job.decisions import PINNED, Decision, decidable, settle, value_at
from forge.job.job import dump_job
from forge.masking import masked
from forge.planning.choosing import choose
from forge.planning.mistakes import Decided, Voice, checked, refuse, refuse_decided, refuse_mistakes, voices
from forge.planning.needs import answer_needs, judge_needs, needs
from forge.planning.notes import notes
from forge.planning.observing import acting, configs, named_functions, still_acting
from forge.planning.selection import refuse_unable, select
from forge.planning.spreading import spread

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from forge.api.offer import Offer
    from forge.api.plan import Who
    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.job.job import Job
    from forge.job.read import JobFile
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts
    from forge.planning.fitting import Choice
    from forge.planning.observing import Acting


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
    every: bool = False,
) -> Training | Preview:
    """Plan a run of a job, over as many processes as it says, or as can share it.

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
        every: Whether the plan is to tell of every offer, also of those that never came into question.

    Raises:
        PlanError: The job cannot be served.
        JobError, DataError: Something that only a plan can see contradicts the job.
    """
    more: dict[str, Any] = {"excluded": excluded, "attempt": attempt, "every": every}
    if task is not Task.DATA:
        return spread(file, machine, partial(_training, file, catalogue, machine, facts, task, tuple(relief), **more))
    for need in needs(file.job, facts, [Stage.TRAIN]):
        refuse_unable(need, catalogue)  # else the rows would be shown as another method takes them
    parts = _planned(file, [Stage.COLLATE], catalogue, machine, facts, **more)
    return Preview(**parts, rows=rows)


def _training(
    file: JobFile,
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
    task: Task,
    relief: tuple[Decision, ...],
    launch: tuple[Decision, ...],
    **more: Any,
) -> Training:
    """Plan a training with what was decided of ``[launch]``."""
    parts = _planned(file, list(Stage), catalogue, machine, facts, launch=launch, **more)
    parts["decisions"] += relief
    return _with_estimate(Training(**parts, task=task, relieved=bool(relief)), file.job, catalogue)


def _planned(
    file: JobFile,
    stages: Sequence[Stage],
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
    *,
    excluded: Mapping[str, str] | None,
    attempt: int,
    every: bool,
    launch: tuple[Decision, ...] = (),
) -> dict[str, Any]:
    """Choose, decide and check; return what a plan of these stages says."""
    file, chosen, verdicts = choose(file, stages, catalogue, machine, facts, excluded, every=every, launch=launch)
    asked = file.job
    job = settle(asked, launch)
    file = replace(file, job=job)
    observers = acting(job, catalogue, machine)
    heard = voices(chosen, observers)
    refuse_mistakes(chosen, heard, file, machine, facts)
    decisions = _decisions(heard, machine, job, facts, file.named)
    if Stage.LOAD in stages:
        decisions |= _fitted(chosen, decisions, file, machine, facts)
    refuse_decided(chosen, heard, file, decisions, catalogue, machine, facts)
    return _parts(asked, chosen, observers, catalogue, machine, facts) | {
        "source": file.source,
        "overrides": file.overrides,
        "named": tuple(sorted(file.named)),
        "verdicts": tuple(verdicts),
        "decisions": (*launch, *_told(decisions)),
        "notes": tuple(map(masked, notes(file, catalogue, chosen, observers, machine, facts))),
        "attempt": attempt,
    }


def export_plan(
    job: Job,
    index: int,
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
    traits: frozenset[str],
    source: str,
    named: Collection[str] = (),
) -> Export:
    """Plan one export of trained weights, afresh, for the machine at hand.

    Raises:
        PlanError: Nothing can make it.
        JobError: What makes it finds a mistake in its table.
    """
    wanted = [needs(job, facts, [Stage.EXPORT])[index]]
    chosen, verdicts = select(wanted, catalogue, machine, job, facts, traits=traits)
    _refuse_foreign(job, index, chosen[0], catalogue)
    observers, lacking = still_acting(job, catalogue, machine)
    heard = voices(chosen, observers)
    found = [problem for voice in heard for problem in checked(voice, job)]
    if mine := [problem for problem in found if problem.where.startswith(f"export.{index}")]:
        raise JobError(source, mine)
    return Export(
        **_parts(job, chosen, observers, catalogue, machine, facts),
        source=source,
        verdicts=tuple(verdicts),
        decisions=_told(_decisions(heard, machine, job, facts, named)),
        notes=tuple(lacking),
        index=index,
    )


def _refuse_foreign(job: Job, index: int, choice: Choice, catalogue: Catalogue) -> None:
    """Refuse to let a plugin make an export whose keys are another's. Raises :class:`PlanError`."""
    keys, table = PluginKeys(catalogue, owners={"export": choice.plugin.name}), job.export[index]
    mine = {name for model in keys.models("export", table.format, {}) for name in model.model_fields}
    if strange := sorted(table.options.keys() - mine):
        what = f"nothing can serve {choice.need.label}"
        why = f"{choice.plugin.name} would, and the job has {', '.join(strange)}, which is a key of another plugin's"
        raise PlanError(what, why, "name that plugin with --set use.export=NAME, or remove the key")


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
        wanted += judge_needs(job, facts)
    chosen, verdicts = select(wanted, catalogue, machine, job, facts, traits=traits)
    observers, lacking = still_acting(job, catalogue, machine)
    heard = voices(chosen, observers)
    refuse_mistakes(chosen, heard, file, machine, facts)
    decisions = _decisions(heard, machine, job, facts, file.named)
    refuse_decided(chosen, heard, file, decisions, catalogue, machine, facts)
    return Answers(
        **_parts(job, chosen, observers, catalogue, machine, facts),
        notes=tuple(lacking),
        task=task,
        source=file.source,
        overrides=file.overrides,
        named=tuple(sorted(file.named)),
        verdicts=tuple(verdicts),
        decisions=_told(decisions),
        models=tuple(models),
    )


def _parts(
    job: Job,
    chosen: Sequence[Choice],
    observers: Sequence[Acting],
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
) -> dict[str, Any]:
    """Return what plans of all tasks say of what was chosen."""
    functions = named_functions(job, catalogue.functions)
    taking: list[Plugin | None] = [*(choice.plugin for choice in chosen), *(each.plugin for each in observers)]
    taking += [catalogue.find(name.partition("/")[0]) for name in functions]
    return {
        "job": dump_job(job),
        "job_digest": job.digest(),
        "steps": tuple(_step(choice) for choice in chosen),
        "observers": tuple((each.plugin.name, each.extension.impl) for each in observers),
        "functions": functions,
        "plugins": {each.name: f"{each.distribution} {each.version}" for each in taking if each is not None},
        "code": {code.name: code.digest for code in catalogue.code},
        "configs": configs(job, [*(each.plugin for each in chosen), *(each.plugin for each in observers)]),
        "machine": machine,
        "facts": facts,
        **of_offers([choice.offer for choice in chosen], catalogue),
    }


def of_offers(offers: Sequence[Offer], catalogue: Catalogue) -> dict[str, Any]:
    """Return what a worker's process must be like for some offers; another's that was not chosen has no say in it."""
    every = [*offers, *(offer for plugin in catalogue.usable if plugin.own for offer in plugin.offers)]
    patched = {name for offer in offers for name in offer.patches}
    environment: dict[str, str] = {}
    for offer in offers:
        for key, value in offer.environment.items():
            if environment.setdefault(key, value) != value:
                what, why = "the stages do not fit together", f"{key} is to be {environment[key]} and {value}"
                raise PlanError(what, f"{why}, for {offer.impl}", "name other plugins in [use]")
    return {
        "preload": tuple(dict.fromkeys(name for offer in _patching_first(offers) for name in offer.preload)),
        "before": tuple(dict.fromkeys(name for offer in offers for name in offer.before)),
        "refused": tuple(sorted({name for offer in every for name in offer.patches} - patched)),
        "environment": environment,
        "shed": tuple(sorted({prefix for offer in every for prefix in offer.sheds})),
    }


def _patching_first(offers: Sequence[Offer]) -> list[Offer]:
    """Return offers in their order, but those first that change others' libraries, and so must be imported first."""
    return sorted(offers, key=lambda offer: not offer.patches)


def _decisions(
    heard: Sequence[Voice], machine: Machine, job: Job, facts: ModelFacts, named: Collection[str]
) -> dict[str, Decided]:
    """Return what is decided, by key; of two decisions on one key, the earlier stage's holds, and no observer's.

    What loads the model knows how it can be trained.
    """
    found: dict[str, Decided] = {}
    wrote = frozenset(named)
    for voice in heard:
        what = f"its decide of {voice.about}"
        for decision in records_of(voice.plugin, what, Decision, voice.says.decide, machine, job, facts, named=wrote):
            if not decidable(job, decision.key):
                raise failed(voice.plugin, what, f"it decides {decision.key}, which is no key that a plan decides")
            free = decision.key in PINNED or value_at(job, decision.key) in ("auto", decision.value)
            if decision.key in named and not free:
                raise failed(voice.plugin, what, f"it decides {decision.key}, which the job sets")
            found.setdefault(decision.key, Decided(decision, voice))
    return found


def _told(decided: Mapping[str, Decided]) -> tuple[Decision, ...]:
    return tuple(each.decision for each in decided.values())


def _fitted(
    chosen: Sequence[Choice], decided: Mapping[str, Decided], file: JobFile, machine: Machine, facts: ModelFacts
) -> dict[str, Decided]:
    """Return what memory decides, once all else is decided: by the first chosen offer that can tell.

    Raises:
        JobError: What the job says leaves nothing to decide.
    """
    choice = next((choice for choice in chosen if choice.offer.fit), None)
    if choice is None or choice.offer.fit is None:
        return {}

    def ask(*arguments: Any) -> Iterable[Decision | Problem]:
        fit = choice.plugin.named(choice.offer.fit or "")
        found: Iterable[Decision | Problem] = fit(*arguments, asked=file.job, named=file.named)
        return found

    job = settle(file.job, _told(decided))
    what = f"its fit of {choice.need.stage}"
    said = records_of(choice.plugin, what, (Decision, Problem), ask, machine, job, facts)
    refuse(file, [each for each in said if isinstance(each, Problem)])
    found = [each for each in said if isinstance(each, Decision)]
    voice = Voice(choice.plugin, choice.need.stage.value, choice.offer)
    return {decision.key: Decided(decision, voice) for decision in found}


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
        removes=tuple(sorted(choice.offer.removes)),
        preflight=choice.offer.preflight,
        resumes=choice.offer.resumes,
        upload=choice.offer.upload,
        estimate=choice.offer.estimate,
        fit=choice.offer.fit,
    )


def _with_estimate(plan: Training, job: Job, catalogue: Catalogue) -> Training:
    """Return a plan with its estimate. A plugin that fails at it costs the estimate, with a note, and not the run."""
    step = next((step for step in plan.steps if step.estimate), None)
    if step is None or step.estimate is None or (plugin := catalogue.find(step.plugin)) is None:
        return plan
    try:
        found = call(plugin, "its estimate", _estimated, plugin, step.estimate, plan, job)
        if found is not None and not isinstance(found, Estimate):
            due = f"it returns {type(found).__name__} where forge.api.Estimate or None is due"
            raise failed(plugin, "its estimate", due)
    except ForgeError as error:
        note = f"the memory is not estimated: {step.plugin} failed at it ({error.why or error.what})"
        return replace(plan, notes=(*plan.notes, masked(note)))
    return replace(plan, estimate=found)


def _estimated(plugin: Plugin, reference: str, plan: Training, job: Job) -> object:
    return plugin.named(reference)(plan.machine, settle(job, plan.decisions), plan.facts)
