"""Which offers fit together: the first combination of choices whose traits do not contradict each other.

Stage by stage would not do: what loads the model decides what may train it. Offers that are alike in all that other
offers ask about stand for each other, and a combination is given up as soon as some other stage has nothing left that
fits: so three hundred plugins take no longer than what they have to say to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forge.api.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from forge.api.offer import Offer
    from forge.discovery.catalogue import Plugin
    from forge.planning.needs import Need

PREFERENCE = (Stage.LOAD, Stage.TRAIN, Stage.ADAPT, Stage.COLLATE, Stage.GENERATE, Stage.EVALUATE, Stage.EXPORT)
"""The order in which stages choose: the fastest loader is kept as long as anything can train what it loads."""

Traits = frozenset[str]


@dataclass(frozen=True, slots=True)
class Choice:
    """An offer that was taken for a need."""

    need: Need
    plugin: Plugin
    offer: Offer


@dataclass(frozen=True, slots=True)
class Clash:
    """Why choices do not fit together.

    Attributes:
        reason: It as a phrase.
        lacking: The traits that nothing provides, if that is it.
    """

    reason: str
    lacking: Traits = frozenset()

    def __str__(self) -> str:
        return self.reason


def combination(wanted: Sequence[Need], fit: Mapping[str, Sequence[Choice]], traits: Traits) -> list[Choice] | None:
    """Return the first choices, by the order of ``fit``, that fit together; None if none do.

    Args:
        wanted: The needs.
        fit: Of each need, by its label, those that can serve it, the best first.
        traits: Traits that are there from the start.
    """
    ordered = sorted(wanted, key=lambda need: PREFERENCE.index(need.stage))
    options = _reachable({need.label: _representatives(need.label, fit) for need in ordered}, traits)
    return next(_found(ordered, options, [], traits), None) if all(options.values()) else None


def _representatives(label: str, fit: Mapping[str, Sequence[Choice]]) -> list[Choice]:
    """Return of the choices that are alike to all others the first."""
    every = [choice.offer for choices in fit.values() for choice in choices]
    asked = frozenset().union(*(offer.depends | offer.conflicts for offer in every))
    alike: dict[tuple[Traits, ...], Choice] = {}
    for choice in fit[label]:
        offer = choice.offer
        alike.setdefault((offer.provides & asked, offer.removes & asked, offer.depends, offer.conflicts), choice)
    return list(alike.values())


def _reachable(options: dict[str, list[Choice]], traits: Traits) -> dict[str, list[Choice]]:
    """Leave out what depends on traits that no choice left for an earlier stage provides."""
    while True:
        every = [choice for choices in options.values() for choice in choices if choice.offer.provides]
        left = {
            label: [choice for choice in choices if _can_come(choice, every, traits)]
            for label, choices in options.items()
        }
        if sum(map(len, left.values())) == sum(map(len, options.values())):
            return left
        options = left


def _can_come(choice: Choice, every: Sequence[Choice], traits: Traits) -> bool:
    depends = choice.offer.depends - traits
    return not depends or depends <= frozenset().union(*(o.offer.provides for o in every if _before(o, choice)))


def _before(other: Choice, choice: Choice) -> bool:
    return _ORDER[other.need.stage] <= _ORDER[choice.need.stage] and other.need.label != choice.need.label


_ORDER = {stage: index for index, stage in enumerate(Stage)}


def _found(
    wanted: Sequence[Need], options: Mapping[str, Sequence[Choice]], taken: list[Choice], traits: Traits
) -> Iterator[list[Choice]]:
    if not wanted:
        yield taken
        return
    need, rest = wanted[0], wanted[1:]
    for choice in options[need.label]:
        now = [*taken, choice]
        if clash(now, traits, _open(rest, options)) is None and all(
            any(
                clash([*now, other], traits, _open([each for each in rest if each is not left], options)) is None
                for other in options[left.label]
            )
            for left in rest
        ):
            yield from _found(rest, options, now, traits)


def _open(rest: Sequence[Need], options: Mapping[str, Sequence[Choice]]) -> dict[Stage, Traits]:
    """Return what stages without a choice yet may come to provide."""
    found: dict[Stage, Traits] = {}
    for need in rest:
        provided = frozenset().union(*(choice.offer.provides for choice in options[need.label]))
        found[need.stage] = found.get(need.stage, frozenset()) | provided
    return found


def clash(taken: Sequence[Choice], traits: Traits, undecided: Mapping[Stage, Traits] | None = None) -> Clash | None:
    """Walk through the stages in running order and return the first contradiction between traits.

    Args:
        taken: The choices.
        traits: Traits that are there from the start.
        undecided: What stages that have no choice yet may come to provide.
    """
    there, maybe = set(traits), set[str]()
    for stage in Stage:
        for choice in taken:
            offer = choice.offer
            if choice.need.stage is not stage:
                continue
            who = f"{choice.plugin.name} ({stage})"
            if trait := next(iter(sorted(offer.conflicts & there)), None):
                return Clash(f"{who} conflicts with {trait}")
            if lacking := offer.depends - there - maybe:
                return Clash(f"{who} depends on {', '.join(sorted(lacking))}", lacking)
            there = (there - offer.removes) | offer.provides
            maybe -= offer.removes
        maybe |= (undecided or {}).get(stage, frozenset())
    return None
