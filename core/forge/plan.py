"""The plan: everything that is decided before anything heavy is imported, written down.

A worker reads its plan and chooses nothing. So the plan is also the answer to "why did it do that": each choice and
each rejected offer has its reason in it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import forge
from forge.api import Decision, Stage
from forge.discovery import import_guard, resolve
from forge.errors import JobError, PlanError, PluginError, Problem, RunError
from forge.facts import ModelFacts
from forge.jobfile import JobFile, dump_job
from forge.locate import locate
from forge.machine import Machine
from forge.selection import Choice, Verdict, answer_needs, asks, missing_requirement, needs, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from forge.discovery import Catalogue
    from forge.estimate import Estimate
    from forge.job import Job

SCHEMA = 1
T = TypeVar("T")


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
    preflight: str | None = None
    resumes: bool = False
    estimate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a worker will do.

    Attributes:
        task: ``"train"``, ``"dry-run"``, ``"data"``, ``"eval"``, ``"chat"`` or ``"export"``.
        job: The job as JSON data, options filled in.
        job_digest: sha256 over what decides the training.
        source: Where the job came from.
        overrides: The ``--set`` changes.
        steps: The chosen implementations, in running order.
        extensions: ``(plugin, module)`` of the observers and wrappers that act, in order.
        verdicts: Every offer and what became of it.
        decisions: Values that the job left open.
        notes: What the user should know, such as tables of plugins that were not chosen.
        machine: The machine planned for.
        facts: What is known about the model.
        preload: Modules that the worker imports first.
        environment: Variables that the worker starts with.
        attempt: 1, or more after an earlier attempt failed before its first step.
        export: For ``task="export"``, the index of the export in the job.
        named: The keys that the user wrote; all others were left open.
        resume: Whether to go on from the newest whole checkpoint.
        rows: For ``task="data"``, how many rows to show.
        models: For ``task="eval"`` and ``"chat"``, what is to answer: ``"base"``, ``"tuned"``, ``"gguf"``.
        gguf: The GGUF file among them.
        target: For ``task="eval"``, the file for its result, relative to the run folder.
        estimate: What the training is expected to take of the device's memory; None if that cannot be said.
    """

    task: str
    job: Mapping[str, Any]
    job_digest: str
    source: str
    steps: tuple[Step, ...]
    verdicts: tuple[Verdict, ...]
    machine: Machine
    facts: ModelFacts
    overrides: tuple[str, ...] = ()
    extensions: tuple[tuple[str, str], ...] = ()
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1
    export: int | None = None
    resume: bool = False
    named: tuple[str, ...] = ()
    rows: int = 0
    models: tuple[str, ...] = ()
    gguf: str | None = None
    target: str | None = None
    estimate: Estimate | None = None
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

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data["machine"] = self.machine.to_json()
        data["facts"] = self.facts.to_json()
        data["estimate"] = self.estimate and self.estimate.to_json()
        for name in ("steps", "verdicts", "decisions"):
            data[name] = [asdict(item) for item in data[name]]
        return json.loads(json.dumps(data))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Rebuild a plan. Raises :class:`RunError` for a plan of another schema."""
        if data.get("schema") != SCHEMA:
            raise RunError(
                f"the plan has schema {data.get('schema')}, this forge reads {SCHEMA}",
                f"the run was made by forge {data.get('forge', 'of another version')}",
                "use that version for it",
            )
        values = dict(data)
        values["machine"] = Machine.from_json(data["machine"])
        values["facts"] = ModelFacts.from_json(data["facts"])
        from forge.estimate import Estimate

        values["estimate"] = Estimate.from_json(data["estimate"]) if data.get("estimate") else None
        values["steps"] = tuple(
            Step(
                **{
                    **step,
                    "stage": Stage(step["stage"]),
                    "words": tuple(step.get("words", ())),
                    "provides": tuple(step["provides"]),
                }
            )
            for step in data["steps"]
        )
        values["verdicts"] = tuple(Verdict(**verdict) for verdict in data["verdicts"])
        values["decisions"] = tuple(Decision(**decision) for decision in data["decisions"])
        values["extensions"] = tuple((plugin, module) for plugin, module in data["extensions"])
        for name in ("overrides", "notes", "preload", "named", "models"):
            values[name] = tuple(data.get(name, ()))
        return cls(**values)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a plan file. Raises :class:`RunError` if it is missing or damaged."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RunError(f"{path.parent} is no run folder", f"it has no {path.name}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # cut short, or not a plan at all
            raise RunError(f"{path} is damaged", str(error)) from error


def make_plan(
    file: JobFile,
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
    *,
    task: str = "train",
    excluded: Mapping[str, str] | None = None,
    relief: Iterable[Decision] = (),
    attempt: int = 1,
) -> Plan:
    """Plan a run of a job.

    Args:
        file: The job.
        catalogue: The plugins.
        machine: The machine.
        facts: What is known about the model.
        task: What the worker is to do.
        excluded: Plugins that failed in an earlier attempt, with the reason.
        relief: Decisions that an earlier attempt's failure suggests; they win over the offers' own.
        attempt: The number of this attempt.

    Raises:
        PlanError: The job cannot be served.
        JobError, DataError: Something that only a plan can see contradicts the job.
    """
    job = file.job
    stages = [Stage.COLLATE] if task == "data" else list(Stage)
    wanted = needs(job, facts, stages, asks(job, facts, catalogue))
    chosen, verdicts = select(wanted, catalogue, machine, job, facts, excluded=excluded)
    _refuse_mistakes(chosen, file)
    # What loads the model knows how it can be trained: of two decisions on one key, the earlier stage's holds.
    decisions: dict[str, Decision] = {}
    for choice in _distinct(chosen):
        for decision in _decide(choice, machine, job, facts):
            decisions.setdefault(decision.key, decision)
    plan = _put_together(
        job,
        chosen,
        machine,
        facts,
        task=task,
        source=file.source,
        overrides=file.overrides,
        named=tuple(sorted(file.named)),
        extensions=tuple(_extensions(job, catalogue, machine)),
        verdicts=tuple(verdicts),
        decisions=(*decisions.values(), *relief),
        notes=tuple(_notes(job, catalogue, chosen, machine, facts)),
        attempt=attempt,
    )
    return plan if task == "data" else _with_estimate(plan, job)


def export_plan(
    job: Job, index: int, catalogue: Catalogue, machine: Machine, facts: ModelFacts, traits: frozenset[str], source: str
) -> Plan:
    """Plan one export of trained weights, afresh, for the machine at hand. Raises :class:`PlanError`."""
    wanted = [needs(job, facts, [Stage.EXPORT])[index]]
    chosen, verdicts = select(wanted, catalogue, machine, job, facts, traits=traits)
    return _put_together(
        job,
        chosen,
        machine,
        facts,
        task="export",
        source=source,
        verdicts=tuple(verdicts),
        decisions=tuple(decision for choice in chosen for decision in _decide(choice, machine, job, facts)),
        export=index,
    )


def answer_plan(
    file: JobFile,
    task: str,
    models: Sequence[str],
    catalogue: Catalogue,
    machine: Machine,
    facts: ModelFacts,
    traits: frozenset[str],
) -> Plan:
    """Plan an evaluation of trained weights, or a chat with them, afresh, for the machine at hand.

    Raises:
        PlanError: Nothing can make one of the models answer, or evaluate them.
        JobError: ``[eval]`` has mistakes.
    """
    job = file.job
    stages = [Stage.GENERATE, Stage.EVALUATE] if task == "eval" else [Stage.GENERATE]
    wanted = [need for stage in stages for need in answer_needs(job, facts, stage, models)]
    chosen, verdicts = select(wanted, catalogue, machine, job, facts, traits=traits)
    _refuse_mistakes(chosen, file)
    decisions = {one.key: one for choice in _distinct(chosen) for one in _decide(choice, machine, job, facts)}
    return _put_together(
        job,
        chosen,
        machine,
        facts,
        task=task,
        source=file.source,
        overrides=file.overrides,
        named=tuple(sorted(file.named)),
        verdicts=tuple(verdicts),
        decisions=tuple(decisions.values()),
        models=tuple(models),
    )


def _put_together(job: Job, chosen: Sequence[Choice], machine: Machine, facts: ModelFacts, **more: Any) -> Plan:
    """Return a plan of what was chosen."""
    return Plan(
        job=dump_job(job),
        job_digest=job.digest(),
        steps=tuple(_step(choice) for choice in chosen),
        machine=machine,
        facts=facts,
        preload=tuple(dict.fromkeys(name for choice in chosen for name in choice.offer.preload)),
        environment={key: value for choice in chosen for key, value in choice.offer.environment.items()},
        **more,
    )


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
        estimate=choice.offer.estimate,
    )


def _distinct(chosen: Sequence[Choice]) -> list[Choice]:
    return list({(choice.plugin.name, choice.offer.impl): choice for choice in chosen}.values())


def _refuse_mistakes(chosen: Sequence[Choice], file: JobFile) -> None:
    """Raise :class:`JobError` for what the chosen offers find wrong with a job."""
    if problems := [problem for choice in _distinct(chosen) for problem in _check(choice, file)]:
        raise JobError(file.source, list(dict.fromkeys(problems)))


def _check(choice: Choice, file: JobFile) -> Iterable[Problem]:
    for problem in _ask(choice, choice.offer.check, file.job):
        key = [int(part) if part.isdigit() else part for part in problem.where.split(".")]
        yield replace(problem, line=locate(file.text, key))


def _decide(choice: Choice, machine: Machine, job: Job, facts: ModelFacts) -> list[Decision]:
    return _ask(choice, choice.offer.decide, machine, job, facts)


def _ask(choice: Choice, function: Callable[..., Iterable[T]] | None, *arguments: object) -> list[T]:
    """Call a function of a plugin, which may be a stranger's, and name the plugin if it fails."""
    try:
        with import_guard():
            return list(function(*arguments)) if function else []
    except Exception as error:
        plugin = choice.plugin
        what = f"plugin {plugin.name} ({plugin.distribution} {plugin.version}) failed at planning"
        raise PluginError(what, f"{type(error).__name__}: {error}", "update it, or go on without it") from error


def _with_estimate(plan: Plan, job: Job) -> Plan:
    """Return a plan with its estimate. A plugin that fails at it costs the estimate, with a note, and not the run."""
    step = next((step for step in plan.steps if step.estimate), None)
    if step is None or step.estimate is None:
        return plan
    from forge.folder import settle  # which needs plans itself

    try:
        with import_guard():
            function = cast("Callable[..., Estimate | None]", resolve(step.estimate))
            return replace(plan, estimate=function(plan.machine, settle(job, plan), plan.facts))
    except Exception as error:  # noqa: BLE001 - one plugin's estimate must not take the run down
        note = f"the memory is not estimated: {step.plugin} failed at it ({type(error).__name__}: {error})"
        return replace(plan, notes=(*plan.notes, note))


def _extensions(job: Job, catalogue: Catalogue, machine: Machine) -> Iterable[tuple[str, str]]:
    names = dict.fromkeys([*job.use.with_, *job.plugins])
    for name in names:
        plugin = catalogue.find(name)
        if plugin is None or plugin.status != "ok" or (name in job.use.with_ and not plugin.extensions):
            if name in job.use.with_:
                why = "it is not installed" if plugin is None else plugin.reason or "it has no observers or wrappers"
                raise PlanError(f'[use] with = ["{name}"] cannot be followed', why)
            continue
        for extension in plugin.extensions:
            if reason := missing_requirement(extension.requires_dist, machine):
                raise PlanError(f"plugin {name} cannot act on this run", reason)
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
    if facts.note:
        yield facts.note
