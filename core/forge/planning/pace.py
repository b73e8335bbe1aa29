"""Which of several offers a training ends first with, and how that is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forge.api.pace import Pace
from forge.discovery.calls import call
from forge.errors import ForgeError
from forge.text.units import clock, times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge.api.offer import Offer
    from forge.discovery.catalogue import Plugin
    from forge.job.job import Job
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts


WORTH = 0.95
"""The usual choice stays unless another one ends before this share of its time: estimates are no better than that."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a training takes with each of several offers.

    Attributes:
        paces: By the plugin's name; empty if nobody was asked.
        unknown: Why they cannot be compared; empty if they can.
        first: The plugin with which it ends first, where that is worth leaving the usual order; else None.
    """

    paces: Mapping[str, Pace]
    unknown: str = ""
    first: str | None = None

    def praise(self, winner: str, reason: str) -> str:
        """Return why the one that was taken is preferred; ``reason`` where time has no part in it."""
        if self.unknown or winner not in self.paces:
            return reason
        pace = self.paces[winner]
        assert pace.seconds is not None
        ends = f"{pace.steps} steps end after {clock(pace.seconds)}, {clock(pace.start)} of it to start"
        return f"{f'ends first: {ends}' if winner == self.first else f'{reason}; {ends}'} ({_known(pace)})"

    def beside(self, other: str, winner: str, reason: str) -> str:
        """Return why one was not taken; ``reason`` where time has no part in it."""
        if self.unknown:
            return f"{reason}; which ends first is unknown: {self.unknown}"
        if other not in self.paces or winner not in self.paces:
            return reason
        mine, best = self.paces[other], self.paces[winner]
        assert mine.seconds is not None
        assert best.seconds is not None
        assert mine.step is not None
        assert best.step is not None
        later, more = mine.seconds - best.seconds, mine.start - best.start
        start = f"{clock(abs(more))} {'more' if more >= 0 else 'less'} to start"
        end = f"{mine.steps} steps end {clock(abs(later))} {'later' if later >= 0 else 'sooner'}"
        said = f"{start}, {times(best.step / mine.step)} as fast; {end} ({_known(mine)})"
        return said if later >= 0 else f"{reason}; {said}, too little to leave the usual choice"


def timing(ranked: Sequence[tuple[Plugin, Offer]], machine: Machine, job: Job, facts: ModelFacts) -> Timing:
    """Ask offers for one need, in their usual order, how long the training takes with each.

    Args:
        ranked: The plugins and their offers.
        machine: The machine.
        job: The job, with what it leaves open.
        facts: What is known about the model.
    """
    if len(ranked) < 2 or any(offer.pace is None for _, offer in ranked):
        return Timing({})
    found: dict[str, Pace] = {}
    for plugin, offer in ranked:
        try:
            pace = call(plugin, "its pace", plugin.named(offer.pace or ""), machine, job, facts)
        except ForgeError as error:
            return Timing({}, f"{plugin.name} failed to say ({error.why or error.what})")
        if not isinstance(pace, Pace) or pace.seconds is None:
            why = pace.why if isinstance(pace, Pace) else ""
            return Timing({}, f"{plugin.name}: {why or 'it does not say how long it takes'}")
        found[plugin.name] = pace
    ends = {name: pace.seconds or 0.0 for name, pace in found.items()}
    best, usual = min(ends, key=lambda name: ends[name]), ranked[0][0].name
    return Timing(found, first=best if ends[best] < WORTH * ends[usual] else None)


def _known(pace: Pace) -> str:
    return "measured here" if pace.how == "measured" else "estimated"
