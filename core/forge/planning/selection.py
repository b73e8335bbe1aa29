"""Choosing one offer for every stage, in one joint decision, with a reason for every offer that was not taken.

Stage by stage would not do: what loads the model decides what may train it. So each need first drops the offers that
are unfit by themselves, the rest is sorted, and the first combination that fits together wins. The order of preference
is load, train, adapt, collate, export: the best loader is kept as long as anything can train what it loads. The best is
the one with which the training ends first, where the offers can tell (:mod:`forge.planning.pace`), else the one of the
highest priority.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forge.api.plan import Against, Verdict
from forge.api.stage import Stage
from forge.discovery.guard import import_guard
from forge.discovery.requirements import missing_requirement
from forge.errors import PlanError
from forge.planning.pace import Timing, timing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from forge.api.offer import Offer
    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.job.job import Job
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts
    from forge.planning.needs import Need


PREFERENCE = (Stage.LOAD, Stage.TRAIN, Stage.ADAPT, Stage.COLLATE, Stage.GENERATE, Stage.EVALUATE, Stage.EXPORT)


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why an offer cannot serve a need: what kind of reason it is, and the reason."""

    against: Against
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """An offer that was taken for a need."""

    need: Need
    plugin: Plugin
    offer: Offer


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
    timings: dict[str, Timing] = {}
    for need in wanted:
        fit[need.label] = []
        for plugin, offer in catalogue.offers(need.stage):
            failed = (excluded or {}).get(plugin.name)
            no = Unfit(Against.FAILED, failed) if failed else unfit(need, plugin, offer, machine, job, facts)
            if no is None:
                fit[need.label].append(Choice(need, plugin, offer))
            else:
                # Of several offers of one plugin, the one that has the words says the most.
                known = verdicts.get((need.label, plugin.name))
                if known is None or known.against is Against.ABILITY:
                    verdicts[need.label, plugin.name] = Verdict(need.label, plugin.name, no.reason, no.against)
        fit[need.label].sort(key=_order)
        timings[need.label] = _first_to_end(fit[need.label], machine, job, facts)
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
            reason = _outdone(other, choice, [c for c in chosen if c is not choice], traits, timings[label])
            verdicts[label, other.plugin.name] = Verdict(label, other.plugin.name, reason, Against.OUTDONE)
        praise = timings[label].praise(choice.plugin.name, _praise(choice, fit[label]))
        verdicts[label, choice.plugin.name] = Verdict(label, choice.plugin.name, praise, None)
    order = {need.label: position for position, need in enumerate(wanted)}
    chosen.sort(key=lambda choice: order[choice.need.label])
    return chosen, sorted(verdicts.values(), key=lambda v: (order[v.label], not v.chosen, v.plugin))


def unfit(need: Need, plugin: Plugin, offer: Offer, machine: Machine, job: Job, facts: ModelFacts) -> Unfit | None:
    """Return the first reason why an offer cannot serve a need, or None."""
    if need.plugin and need.plugin != plugin.name:
        return Unfit(Against.NAMED, f"the job names {need.plugin}")
    if need.backend and need.backend != offer.backend:
        return Unfit(Against.NAMED, f"the job asks for the backend {need.backend}")
    if need.words - offer.words:
        return Unfit(Against.ABILITY, _inability(need, plugin))
    if offer.platforms and machine.platform not in offer.platforms:
        wish = " or ".join(sorted(offer.platforms))
        return Unfit(Against.PLATFORM, f"platform is {machine.platform}; needs {wish}")
    if offer.accelerators and not offer.accelerators & (machine.usable_kinds if machine.torch else machine.kinds):
        wish, there = " or ".join(sorted(offer.accelerators)), " and ".join(sorted(machine.kinds)) or "none"
        return Unfit(Against.ACCELERATOR, machine.mismatch() or f"needs an accelerator ({wish}); there is {there}")
    if missing := missing_requirement(offer.requires_dist, machine):
        return Unfit(Against.REQUIREMENT, str(missing))
    try:
        with import_guard():
            reason = offer.probe(machine, job, facts) if offer.probe else None
    except Exception as error:  # noqa: BLE001 - one plugin's probe must not take the others down
        reason = f"its probe failed: {type(error).__name__}: {error}"
    return Unfit(Against.PROBE, reason) if reason else None


def refuse_unable(need: Need, catalogue: Catalogue) -> None:
    """Raise :class:`PlanError` for a need that no plugin can serve on any machine."""
    offers = [(plugin, offer) for plugin, offer in catalogue.offers(need.stage)]
    if any(need.words <= offer.words for _, offer in offers):
        return
    reasons = {plugin.name: _inability(need, plugin) for plugin, _ in offers}
    verdicts = [Verdict(need.label, name, reason, Against.ABILITY) for name, reason in reasons.items()]
    raise PlanError(*_hopeless(need, verdicts, catalogue))


def _inability(need: Need, plugin: Plugin) -> str:
    """Say which words of a need none of a plugin's offers has, or which it has only apart."""
    offers = [offer for offer in plugin.offers if offer.stage is need.stage]
    served = need.words & frozenset().union(*(offer.serves for offer in offers))
    rest = need.words - served
    lacking = need.words - frozenset().union(*(offer.words for offer in offers))
    if lacking and not (served and rest <= _MODELS.keys()):
        return f"does not do {', '.join(sorted(lacking))}"
    if not served:
        return f"does not do {' and '.join(sorted(need.words))} at once"
    others = sorted({word for offer in offers if rest <= offer.words for word in offer.serves})
    if rest <= _MODELS.keys():
        what = f"does {', '.join(sorted(served))}, but not for {' and '.join(_MODELS[word] for word in sorted(rest))}"
        return f"{what}; for those it does {', '.join(others)}" if others else what
    beside = f"with {', '.join(sorted(rest))}"
    return f"does {', '.join(sorted(served))}, but not {beside}; {beside} it does {', '.join(others) or 'nothing'}"


_MODELS = {"vision": "models that take pictures", "seq2seq": "encoder-decoder models"}
"""Kinds of models, for people."""


def _order(choice: Choice) -> tuple[bool, int, str]:
    # Installing a stranger's package must not change what a job runs: unless named, it comes after forge's own.
    stranger = not choice.plugin.own and not (choice.need.plugin or choice.need.backend)
    return stranger, -choice.offer.priority, choice.plugin.name


def _first_to_end(fit: list[Choice], machine: Machine, job: Job, facts: ModelFacts) -> Timing:
    """Put the offer first with which the training ends first, among forge's own or, if none can, strangers'."""
    rivals = [choice for choice in fit if _order(choice)[0] == _order(fit[0])[0]]
    found = timing([(choice.plugin.name, choice.offer) for choice in rivals], machine, job, facts)
    fit.sort(key=lambda choice: choice.plugin.name != found.first)  # the others keep their order
    return found


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


def _outdone(other: Choice, winner: Choice, rest: list[Choice], traits: frozenset[str], found: Timing) -> str:
    usual = winner.plugin.name != found.first and _order(other) < _order(winner)
    if usual or other.plugin.name == found.first:
        return _clash([*rest, other], traits, complete=True) or "does not fit what serves the other stages"
    if not other.plugin.own and winner.plugin.own:
        return "able too; forge's own plugins come first, name it in [use] to take it"
    return found.beside(other.plugin.name, winner.plugin.name, f"able too; {winner.plugin.name} is preferred")


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
