"""Choosing one offer for every stage, in one joint decision, with a reason for every offer that was not taken.

Each need first drops the offers that are unfit by themselves, the rest is sorted, and the first combination that fits
together wins. The probes of others' plugins are asked last: of those alone that would be taken. The first by rank stays
so unless another one of forge's own ends the training sooner (:mod:`forge.planning.pace`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forge.api.plan import Against, Verdict
from forge.api.stage import Stage
from forge.discovery.calls import call, failed, line_of
from forge.discovery.ranking import preferred, rank, unsuited
from forge.errors import ForgeError, PlanError
from forge.planning.fitting import PREFERENCE, Choice, clash, combination
from forge.planning.pace import Timing, timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from forge.api.offer import Offer
    from forge.discovery.catalogue import Catalogue, Plugin
    from forge.discovery.ranking import Rank
    from forge.job.job import Job
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts
    from forge.planning.needs import Need

    Foreign = Callable[[Choice], str | None]


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why an offer cannot serve a need: what kind of reason it is, and the reason."""

    against: Against
    reason: str


@dataclass(slots=True)
class _Field:
    """The offers for every need: those that are still in the running, and what became of the others.

    Attributes:
        fit: Of each need, by its label, those that can serve it as far as is known, the best first.
        verdicts: By need and plugin, what became of an offer.
        rejected: What has the words and cannot serve for another reason.
        timings: By need, how long the training takes with each, where that is known.
    """

    fit: dict[str, list[Choice]] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    rejected: list[tuple[Choice, Unfit]] = field(default_factory=list)
    timings: dict[str, Timing] = field(default_factory=dict)

    def reject(self, choice: Choice, no: Unfit) -> None:
        """Take an offer out of the running."""
        label, plugin = choice.need.label, choice.plugin.name
        self.fit[label] = [each for each in self.fit[label] if each.offer is not choice.offer]
        if no.against not in {Against.ABILITY, Against.NAMED}:
            self.rejected.append((choice, no))
        # Of several offers of one plugin, the one that has the words says the most.
        known = self.verdicts.get((label, plugin))
        if known is None or known.against is Against.ABILITY:
            self.verdicts[label, plugin] = Verdict(label, plugin, no.reason, no.against)


def select(
    wanted: Sequence[Need],
    catalogue: Catalogue,
    machine: Machine,
    job: Job,
    facts: ModelFacts,
    *,
    traits: frozenset[str] = frozenset(),
    excluded: Mapping[str, str] | None = None,
    every: bool = False,
    foreign: Foreign | None = None,
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
        every: Whether to tell what became of every plugin, also of those of others that never came into question.
        foreign: Says which key of the job an offer of others does not take, or None if it takes them all.

    Raises:
        PlanError: A need has no fit offer, the job names an unfit plugin, or no combination fits together.
    """
    running = _Field()
    for need in wanted:
        running.fit[need.label] = []
        for plugin, offer in catalogue.offers(need.stage):
            choice = Choice(need, plugin, offer)
            gone = (excluded or {}).get(plugin.name)
            no = Unfit(Against.FAILED, gone) if gone else unfit(need, plugin, offer, machine)
            if plugin.own and (no is None or no.against is Against.REQUIREMENT):
                no = refusal(choice, machine, job, facts) or no  # what no package mends says more than a missing one
            if no is None:
                running.fit[need.label].append(choice)
            else:
                running.reject(choice, no)
        running.fit[need.label].sort(key=lambda choice: _rank(choice, job))
        running.timings[need.label] = _first_to_end(running.fit[need.label], machine, job, facts)
        if not running.fit[need.label]:
            raise PlanError(*_hopeless(need, running.verdicts.values(), catalogue))
    chosen = _agreed(wanted, running, catalogue, machine, job, facts, traits, foreign)
    for choice in chosen:
        label = choice.need.label
        for other in running.fit[label]:
            if other.plugin.name != choice.plugin.name:
                rest = [c for c in chosen if c is not choice]
                reason = _outdone(other, choice, rest, traits, job, running)
                running.verdicts[label, other.plugin.name] = Verdict(label, other.plugin.name, reason, Against.OUTDONE)
        praise = running.timings[label].praise(choice.plugin.name, _praise(choice, running.fit[label], job))
        running.verdicts[label, choice.plugin.name] = Verdict(label, choice.plugin.name, praise, None)
    order = {need.label: position for position, need in enumerate(wanted)}
    chosen.sort(key=lambda choice: order[choice.need.label])
    told = running.verdicts.values() if every else _telling(running, chosen, catalogue, job)
    return chosen, sorted(told, key=lambda v: (order[v.label], not v.chosen, v.plugin))


def _agreed(
    wanted: Sequence[Need],
    running: _Field,
    catalogue: Catalogue,
    machine: Machine,
    job: Job,
    facts: ModelFacts,
    traits: frozenset[str],
    foreign: Foreign | None,
) -> list[Choice]:
    """Return the first choices that fit together and whose plugins do not refuse when they are asked."""
    asked: set[tuple[str, int]] = set()
    while True:
        chosen = combination(wanted, running.fit, traits)
        if chosen is None:
            raise PlanError(*_misfit(wanted, running, traits))
        unasked = [c for c in chosen if not c.plugin.own and (c.need.label, id(c.offer)) not in asked]
        asked |= {(choice.need.label, id(choice.offer)) for choice in unasked}
        refused = [
            (choice, no)
            for choice in unasked
            if (no := _strange(choice, foreign) or refusal(choice, machine, job, facts))
        ]
        if not refused:
            return chosen
        for choice, no in refused:
            running.reject(choice, no)
            if not running.fit[choice.need.label]:
                raise PlanError(*_hopeless(choice.need, running.verdicts.values(), catalogue))


def _strange(choice: Choice, foreign: Foreign | None) -> Unfit | None:
    """Return the key of the job that an offer does not take as a reason against it; of a named one it is a mistake."""
    if foreign is None or choice.need.plugin:
        return None
    reason = foreign(choice)
    return Unfit(Against.KEYS, reason) if reason else None


def unfit(need: Need, plugin: Plugin, offer: Offer, machine: Machine) -> Unfit | None:
    """Return the first reason why an offer cannot serve a need, as far as it says so itself, or None."""
    if need.plugin and need.plugin != plugin.name:
        return Unfit(Against.NAMED, f"the job names {need.plugin}")
    if need.backend and need.backend != offer.backend:
        return Unfit(Against.NAMED, f"the job asks for the backend {need.backend}")
    if need.words - offer.words:
        return Unfit(Against.ABILITY, _inability(need, plugin))
    found = unsuited(offer, machine)
    return Unfit(*found) if found else None


def refusal(choice: Choice, machine: Machine, job: Job, facts: ModelFacts) -> Unfit | None:
    """Ask an offer's probe, and return its reason against the offer, or None; what goes wrong in it is one too."""
    plugin, probe = choice.plugin, choice.offer.probe
    if probe is None:
        return None
    try:
        reason = call(plugin, "its probe", probe, machine, job, facts)
    except ForgeError as error:
        return Unfit(Against.PROBE, f"its probe failed: {error.why or error.what}")
    if reason is not None and not isinstance(reason, str):
        due = failed(plugin, "its probe", f"it returns {type(reason).__name__} where a reason or None is due")
        return Unfit(Against.PROBE, f"its probe failed: {due.why}")
    return Unfit(Against.PROBE, reason if plugin.own else line_of(reason)) if reason else None


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
    if lacking and served and not rest <= _MODELS.keys():
        return f"does {', '.join(sorted(served))}, but not {', '.join(sorted(lacking))}"
    if lacking and not served:
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


def _rank(choice: Choice, job: Job) -> Rank:
    named = bool(choice.need.plugin or choice.need.backend)
    return rank(choice.plugin, choice.offer, job.use.prefer, named=named)


def _first_to_end(fit: list[Choice], machine: Machine, job: Job, facts: ModelFacts) -> Timing:
    """Put the offer of forge's own first with which the training ends first, among those that rank like the best."""
    rivals = [choice for choice in fit if choice.plugin.own and _rank(choice, job)[:2] == _rank(fit[0], job)[:2]]
    if not rivals or rivals[0] is not fit[0]:
        return Timing({})
    found = timing([(choice.plugin, choice.offer) for choice in rivals], machine, job, facts)
    fit.sort(key=lambda choice: choice.plugin.name != found.first)  # the others keep their order
    return found


def _telling(running: _Field, chosen: Sequence[Choice], catalogue: Catalogue, job: Job) -> list[Verdict]:
    """Return the verdicts that say something: all of forge's own, and of others what was asked for or came close.

    Close came what goes before the choice, and could not be taken.
    """
    won = {choice.need.label: choice for choice in chosen}
    own = {plugin.name for plugin in catalogue.usable if plugin.own}
    wished = {name for name in (*job.use.prefer, *(c.need.plugin for c in chosen)) if name}
    close = {
        (choice.need.label, choice.plugin.name)
        for choice, _ in (*running.rejected, *((each, None) for fit in running.fit.values() for each in fit))
        if preferred(choice.plugin, choice.offer, job.use.prefer)
        or _rank(choice, job) < _rank(won[choice.need.label], job)
    }
    return [
        verdict
        for (label, name), verdict in running.verdicts.items()
        if verdict.chosen or name in own or name in wished or (label, name) in close
    ]


def _misfit(wanted: Sequence[Need], running: _Field, traits: frozenset[str]) -> tuple[str, str, str]:
    """Explain why the offers that can serve do not fit together, with what is known of others that would."""
    found = None
    for stage in reversed(PREFERENCE):
        without = [need for need in wanted if need.stage is not stage]
        if found is None and (rest := combination(without, running.fit, traits)):  # without it, the others would do
            found = clash([*rest, *(running.fit[need.label][0] for need in wanted if need.stage is stage)], traits)
    found = found or clash([running.fit[need.label][0] for need in wanted], traits)
    lacking = found.lacking if found else frozenset()
    would = [
        f"{choice.plugin.name} could {choice.need.stage}, but {no.reason}"
        for choice, no in running.rejected
        if not lacking or lacking & choice.offer.provides
    ]
    why = "; ".join([str(found or "the offers' traits contradict each other"), *_some(would)])
    do = "mend that cause" if would else "leave [use] to forge, or name plugins that share a backend"
    return "the stages do not fit together", why, do


def _alone(other: Choice, rest: Iterable[Choice], running: _Field) -> str | None:
    """Return why an offer would come without one of its plugin's that it goes with; None if those are there."""
    for choice in rest:
        need, plugin = choice.need, other.plugin
        goes_with = any(
            offer.stage is need.stage and (offer.depends & other.offer.provides or offer.provides & other.offer.depends)
            for offer in plugin.offers
        )
        verdict = running.verdicts.get((need.label, plugin.name))
        left = any(each.plugin.name == plugin.name for each in running.fit[need.label])
        if goes_with and verdict and not left:
            return f"its own {need.stage} cannot: {verdict.reason}"
    return None


def _outdone(
    other: Choice, winner: Choice, rest: list[Choice], traits: frozenset[str], job: Job, running: _Field
) -> str:
    found = running.timings[winner.need.label]
    usual = winner.plugin.name != found.first and _rank(other, job) < _rank(winner, job)
    if usual or other.plugin.name == found.first:
        reason = _alone(other, rest, running) or clash([*rest, other], traits)
        return str(reason or "does not fit what serves the other stages")
    if not other.plugin.own and winner.plugin.own:
        return f'not asked: forge\'s own plugins come first; [use] prefer = ["{other.plugin.name}"] puts it before them'
    if not other.plugin.own:
        return f"{winner.plugin.name} is preferred"
    return found.beside(other.plugin.name, winner.plugin.name, f"able too; {winner.plugin.name} is preferred")


def _praise(choice: Choice, fit: Sequence[Choice], job: Job) -> str:
    if choice.need.told:
        return f"the job says {choice.need.told}"
    if preferred(choice.plugin, choice.offer, job.use.prefer):
        return f"[use] prefer = {list(job.use.prefer)}".replace("'", '"')
    own = [each for each in fit if each.plugin.own]
    if not choice.plugin.own and own:
        without = f"FORGE_PLUGINS=-{choice.plugin.name} goes without it"
        if _rank(own[0], job) < _rank(choice, job):
            return f"{own[0].plugin.name} goes before it, and does not fit what serves the other stages; {without}"
        made = " and ".join(sorted(choice.offer.platforms | choice.offer.accelerators))
        before = f"priority {choice.offer.priority} against {own[0].offer.priority} of {own[0].plugin.name}"
        return f"made for {made}: {before}; {without}" if made else f"{before}; {without}"
    # Others that were not asked are not counted: nobody knows whether they can.
    return "the only one that can" if len(own or fit) == 1 else "preferred among those that can"


def _some(texts: Sequence[str], count: int = 6) -> list[str]:
    """Return the first of many texts, and how many more there are."""
    more = len(texts) - count
    return [*texts[:count], *([f"and {more} more, see `forge plugins`"] if more > 0 else [])]


def _hopeless(need: Need, verdicts: Iterable[Verdict], catalogue: Catalogue) -> tuple[str, str, str | None]:
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
    near = {plugin.name for plugin, offer in catalogue.offers(need.stage) if need.words & offer.serves}
    closer = any(verdict.against is not Against.ABILITY for verdict in tried)
    own = {plugin.name for plugin in catalogue.usable if plugin.own and not closer}
    telling = [v for v in tried if v.against is not Against.ABILITY or v.plugin in own | near]
    able = sorted(telling, key=lambda verdict: verdict.plugin not in near)
    said = [f"{verdict.plugin}: {verdict.reason}" for verdict in able or tried]
    reasons = "; ".join(_some(said)) or "no plugin offers it"
    what = f"nothing can {need.label}" if need.stage is not Stage.EXPORT else f"nothing can serve {need.label}"
    broken = _some([f"{p.name} ({p.distribution} {p.version}): {p.reason}" for p in catalogue.unusable])
    return what, reasons, f"unusable plugins: {'; '.join(broken)}" if broken else "see `forge doctor`"
