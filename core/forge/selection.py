"""Choosing one offer for every stage, in one joint decision, with a reason for every offer that was not taken.

Stage by stage would not do: what loads the model decides what may train it. So each need first drops the offers that
are unfit by themselves, the rest is sorted, and the first combination that fits together wins. The order of preference
is load, train, adapt, collate, export: the fastest loader is kept as long as anything can train what it loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from forge.api import Offer, Stage
from forge.discovery import import_guard
from forge.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from forge.discovery import Catalogue, Plugin
    from forge.facts import ModelFacts
    from forge.job import Job
    from forge.machine import Machine

LACKS = "does not do"
PREFERENCE = (Stage.LOAD, Stage.TRAIN, Stage.ADAPT, Stage.COLLATE, Stage.GENERATE, Stage.EVALUATE, Stage.EXPORT)


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


@dataclass(frozen=True, slots=True)
class Choice:
    """An offer that was taken for a need."""

    need: Need
    plugin: Plugin
    offer: Offer


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one plugin's offer for one need.

    Attributes:
        label: The need.
        plugin: The plugin.
        chosen: Whether it was taken.
        reason: Why not, or in what respect it was preferred.
    """

    label: str
    plugin: str
    chosen: bool
    reason: str


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
    kind = facts.task if facts.task in {"vision", "seq2seq"} else "text"
    backend = None if job.use.backend == "auto" else job.use.backend
    words: dict[Stage, set[str]] = {
        Stage.COLLATE: {"vision" if kind == "vision" else "text"},
        Stage.LOAD: {kind},
        Stage.ADAPT: {job.adapter.type},
        Stage.TRAIN: train_words(job, facts),
    }
    for stage in (Stage.COLLATE, Stage.LOAD, Stage.ADAPT):
        words[stage] |= (asked or {}).get(stage, frozenset({"tokens"}) if stage is Stage.COLLATE else frozenset())
    if job.data.streaming:
        words[Stage.COLLATE].add("streaming")
    if job.data.packing:
        words[Stage.COLLATE].add("packing")
    if job.model.bits:
        words[Stage.LOAD].add(job.model.bits)
    if job.adapter.type == "none":
        words[Stage.LOAD].add("full")
    if job.model.trust_remote_code:
        words[Stage.LOAD].add("remote-code")
    if job.adapter.use_dora:
        words[Stage.ADAPT].add("dora")
    found = []
    for stage in stages:
        if stage in {Stage.GENERATE, Stage.EVALUATE}:
            found += answer_needs(job, facts, stage, asked_models(job)) if job.eval else []
            continue
        named = getattr(job.use, stage.value)
        told = f'[use] {stage} = "{named}"' if named else f'[use] backend = "{backend}"' if backend else None
        for index, export in enumerate(job.export if stage is Stage.EXPORT else [None]):
            wanted = words.get(stage, set())
            label = stage.value
            if export is not None:
                wanted = {export.format, "push"} if export.push_to_hub else {export.format}
                label = f"export {index + 1} ({export.format})"
            found.append(
                Need(
                    stage,
                    frozenset(wanted),
                    label,
                    plugin=named,
                    # A backend is what loads and adapts; the other stages serve all backends.
                    backend=backend if stage in {Stage.LOAD, Stage.ADAPT} and not named else None,
                    told=told if named or stage in {Stage.LOAD, Stage.ADAPT} else None,
                )
            )
    return found


def asked_models(job: Job) -> tuple[str, ...]:
    """Return the models that a job's ``[eval]`` asks, in the order of the columns."""
    return ("base", "tuned") if job.eval and job.eval.base else ("tuned",)


def answer_needs(job: Job, facts: ModelFacts, stage: Stage, models: Sequence[str]) -> list[Need]:
    """Say what it takes to make models answer, or to judge them.

    Args:
        job: The job.
        facts: What is known about the model.
        stage: Generate, which is needed for each model, or evaluate.
        models: ``"base"``, ``"tuned"``, ``"gguf"``.
    """
    kind = facts.task if facts.task in {"vision", "seq2seq"} else "text"
    named: str | None = getattr(job.use, stage.value)
    told = f'[use] {stage} = "{named}"' if named else None
    if stage is Stage.EVALUATE:
        return [Need(stage, frozenset({kind}), stage.value, plugin=named, told=told)]
    words = {"tuned": "full" if job.adapter.type == "none" else "adapter"}
    return [
        Need(stage, frozenset({kind, words.get(model, model)}), f"{stage} ({model})", plugin=named, told=told)
        if model != "gguf"
        else Need(stage, frozenset({kind, model}), f"{stage} ({model})")
        for model in models
    ]


def train_words(job: Job, facts: ModelFacts) -> set[str]:
    """Say what the stage train must support."""
    return {job.train.method} | ({facts.task} & {"vision", "seq2seq"})


def asks(job: Job, facts: ModelFacts, catalogue: Catalogue) -> Mapping[Stage, frozenset[str]]:
    """Return what the job's method asks of other stages, as forge's own offers for it say, or else a stranger's."""
    words = train_words(job, facts)
    offers = [(not plugin.own, offer) for plugin, offer in catalogue.offers(Stage.TRAIN) if words <= offer.supports]
    return min(offers, key=lambda item: item[0])[1].asks if offers else {}


def select(
    wanted: Sequence[Need],
    catalogue: Catalogue,
    machine: Machine,
    job: Job,
    facts: ModelFacts,
    *,
    traits: frozenset[str] = frozenset(),
    excluded: Mapping[str, str] | None = None,
) -> tuple[list[Choice], list[Verdict]]:
    """Choose an offer for every need.

    Args:
        wanted: The needs.
        catalogue: The plugins.
        machine: The machine to plan for.
        job: The job.
        facts: What is known about the model.
        traits: Traits that are there from the start, of trained weights for instance.
        excluded: Plugins that failed before in this run, with the reason.

    Raises:
        PlanError: A need has no fit offer, the job names an unfit plugin, or no combination fits together.
    """
    verdicts: dict[tuple[str, str], Verdict] = {}
    fit: dict[str, list[Choice]] = {}
    for need in wanted:
        fit[need.label] = []
        for plugin, offer in catalogue.offers(need.stage):
            reason = (excluded or {}).get(plugin.name) or unfit(need, plugin, offer, machine, job, facts)
            if reason is None:
                fit[need.label].append(Choice(need, plugin, offer))
            else:
                # Of several offers of one plugin, the one that has the words says the most.
                known = verdicts.get((need.label, plugin.name))
                if known is None or (need.words <= offer.supports and known.reason.startswith(LACKS)):
                    verdicts[need.label, plugin.name] = Verdict(need.label, plugin.name, False, reason)
        fit[need.label].sort(key=_order)
        if not fit[need.label]:
            raise PlanError(*_hopeless(need, list(verdicts.values()), catalogue))
    ordered = sorted(wanted, key=lambda need: PREFERENCE.index(need.stage))
    chosen = next(_combinations(ordered, fit, [], traits), None)
    if chosen is None:
        raise PlanError(
            "the stages do not fit together",
            "; ".join(_clashes(ordered, fit, traits)) or "the offers' traits contradict each other",
            "leave [use] to forge, or name plugins that share a backend",
        )
    for choice in chosen:
        label = choice.need.label
        for other in fit[label]:
            if other.plugin.name == choice.plugin.name:
                continue
            reason = _outdone(other, choice, [c for c in chosen if c is not choice], traits)
            verdicts[label, other.plugin.name] = Verdict(label, other.plugin.name, False, reason)
        verdicts[label, choice.plugin.name] = Verdict(label, choice.plugin.name, True, _praise(choice, fit[label]))
    order = {need.label: position for position, need in enumerate(wanted)}
    chosen.sort(key=lambda choice: order[choice.need.label])
    return chosen, sorted(verdicts.values(), key=lambda v: (order[v.label], not v.chosen, v.plugin))


def unfit(need: Need, plugin: Plugin, offer: Offer, machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return the first reason why an offer cannot serve a need, or None."""
    if need.plugin and need.plugin != plugin.name:
        return f"the job names {need.plugin}"
    if need.backend and need.backend != offer.backend:
        return f"the job asks for the backend {need.backend}"
    if missing := need.words - offer.supports:
        return f"{LACKS} {', '.join(sorted(missing))}"
    if offer.platforms and machine.platform not in offer.platforms:
        return f"platform is {machine.platform}; needs {' or '.join(sorted(offer.platforms))}"
    if offer.accelerators and not offer.accelerators & (machine.usable_kinds if machine.torch else machine.kinds):
        wish, there = " or ".join(sorted(offer.accelerators)), " and ".join(sorted(machine.kinds)) or "none"
        return machine.mismatch() or f"needs an accelerator ({wish}); there is {there}"
    if reason := missing_requirement(offer.requires_dist, machine):
        return reason
    try:
        with import_guard():
            return offer.probe(machine, job, facts) if offer.probe else None
    except Exception as error:  # noqa: BLE001 - one plugin's probe must not take the others down
        return f"its probe failed: {type(error).__name__}: {error}"


def missing_requirement(requirements: Sequence[str], machine: Machine) -> str | None:
    """Return what is missing of some PEP 508 requirements, with the line that installs it, or None."""
    unmet = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            return f"its requirement {text!r} cannot be read: {str(error).splitlines()[0]}"
        if requirement.marker and not requirement.marker.evaluate(_markers(machine)):
            continue
        version = machine.versions.get(canonicalize_name(requirement.name))
        if version is None:
            unmet.append((text, f"{requirement.name} is not installed"))
        elif not requirement.specifier.contains(version, prereleases=True):
            unmet.append((text, f"{requirement.name} is {version}; needs {requirement.specifier}"))
    if not unmet:
        return None
    line = " ".join(f'"{text.split(";")[0].strip()}"' for text, _ in unmet)
    return f"{', '.join(reason for _, reason in unmet)} (pip install {line})"


def _markers(machine: Machine) -> dict[str, str]:
    """Return what PEP 508 markers are to see: the machine planned for, which need not be this one."""
    system = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}.get(machine.platform, machine.platform)
    return {
        "sys_platform": machine.platform,
        "platform_system": system,
        "os_name": "nt" if machine.platform == "win32" else "posix",
        "platform_machine": machine.arch,
        "python_version": ".".join(machine.python.split(".")[:2]),
        "python_full_version": machine.python,
    }


def _order(choice: Choice) -> tuple[bool, int, str]:
    # Installing a stranger's package must not change what a job runs: unless named, it comes after forge's own.
    stranger = not choice.plugin.own and not (choice.need.plugin or choice.need.backend)
    return stranger, -choice.offer.priority, choice.plugin.name


def _combinations(
    wanted: Sequence[Need], fit: Mapping[str, list[Choice]], taken: list[Choice], traits: frozenset[str]
) -> Iterator[list[Choice]]:
    if not wanted:
        if _clash(taken, traits, complete=True) is None:
            yield list(taken)
        return
    for choice in fit[wanted[0].label]:
        if _clash([*taken, choice], traits, complete=False) is None:
            yield from _combinations(wanted[1:], fit, [*taken, choice], traits)


def _clash(taken: Sequence[Choice], traits: frozenset[str], *, complete: bool) -> str | None:
    """Walk through the stages in running order and return the first contradiction between traits."""
    there = set(traits)
    for choice in sorted(taken, key=lambda c: list(Stage).index(c.need.stage)):
        offer = choice.offer
        if trait := next(iter(sorted(offer.conflicts & there)), None):
            return f"{choice.plugin.name} ({choice.need.stage}) conflicts with {trait}"
        if complete and (lacking := offer.depends - there):
            return f"{choice.plugin.name} ({choice.need.stage}) depends on {', '.join(sorted(lacking))}"
        there |= offer.provides
    return None


def _clashes(wanted: Sequence[Need], fit: Mapping[str, list[Choice]], traits: frozenset[str]) -> list[str]:
    first = [fit[need.label][0] for need in wanted]
    clash = _clash(first, traits, complete=True)
    return [clash] if clash else []


def _outdone(other: Choice, winner: Choice, rest: list[Choice], traits: frozenset[str]) -> str:
    if _order(other) < _order(winner):
        return _clash([*rest, other], traits, complete=True) or "does not fit what serves the other stages"
    if not other.plugin.own and winner.plugin.own:
        return "able too; forge's own plugins come first, name it in [use] to take it"
    return f"able too; {winner.plugin.name} is preferred"


def _praise(choice: Choice, fit: Sequence[Choice]) -> str:
    if choice.need.told:
        return f"the job says {choice.need.told}"
    return "the only one that can" if len(fit) == 1 else "preferred among those that can"


def _hopeless(need: Need, verdicts: Sequence[Verdict], catalogue: Catalogue) -> tuple[str, str, str | None]:
    """Explain why nothing serves a need: what happened, why, what to do."""
    tried = [verdict for verdict in verdicts if verdict.label == need.label]
    if need.plugin:
        plugin = catalogue.find(need.plugin)
        what = f"{need.told} cannot be followed"
        if plugin is None:
            names = ", ".join(p.name for p in catalogue.usable)
            return what, f"there is no plugin {need.plugin}", f"install it, or take one of: {names}"
        if plugin.status != "ok":
            return what, f"plugin {plugin.name} is {plugin.status}: {plugin.reason}", None
        mine = next((verdict.reason for verdict in tried if verdict.plugin == need.plugin), None)
        return what, mine or f"it has no offer for the stage {need.stage}", f"remove {need.told}, or mend the cause"
    if need.backend:
        backends = sorted({offer.backend for _, offer in catalogue.offers(need.stage) if offer.backend})
        if need.backend not in backends:
            return f"{need.told} cannot be followed", "no plugin is that backend", f"take one of: {', '.join(backends)}"
        holders = {plugin.name for plugin, offer in catalogue.offers(need.stage) if offer.backend == need.backend}
        tried = [verdict for verdict in tried if verdict.plugin in holders]
    reasons = "; ".join(f"{verdict.plugin}: {verdict.reason}" for verdict in tried) or "no plugin offers it"
    what = f"nothing can {need.label}" if need.stage is not Stage.EXPORT else f"nothing can serve {need.label}"
    broken = [f"{p.name} ({p.distribution} {p.version}): {p.reason}" for p in catalogue.unusable]
    return what, reasons, f"unusable plugins: {'; '.join(broken)}" if broken else "see `forge doctor`"
