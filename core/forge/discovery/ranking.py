"""Which of several able offers is tried first, and which cannot work on a machine whatever the job is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.api.offer import Offer
    from forge.api.plan import Against
    from forge.discovery.catalogue import Plugin
    from forge.machine.machine import Machine

Rank = tuple[int, bool, int, bool, str]


def rank(plugin: Plugin, offer: Offer, prefer: Sequence[str] = (), *, named: bool = False) -> Rank:
    """Return the place of an offer among those that can serve a need; the lowest is tried first.

    What the user prefers comes first, in that order. Of the rest, an offer of somebody else's competes with forge's own
    by its priority only where it is made for the machine at hand, which its platforms or accelerators say: else
    installing a package would change what a job runs that never heard of it. Ties go to forge's own, then by name.

    Args:
        plugin: The plugin.
        offer: Its offer.
        prefer: Names of plugins or backends, the best first.
        named: Whether the job names the plugin or its backend, so that nothing but priority is left to compare.
    """
    place = next((index for index, name in enumerate(prefer) if name in {plugin.name, offer.backend}), len(prefer))
    competes = plugin.own or named or bool(offer.platforms or offer.accelerators)
    return place, not competes, -offer.priority, not plugin.own, plugin.name


def preferred(plugin: Plugin, offer: Offer, prefer: Sequence[str]) -> bool:
    """Whether the user prefers an offer, by its plugin's or its backend's name."""
    return bool({plugin.name, offer.backend} & set(prefer))


def unsuited(offer: Offer, machine: Machine) -> tuple[Against, str] | None:
    """Return why an offer cannot work on a machine, whatever the job is: the kind of reason, and the reason."""
    from forge.api.plan import Against  # a schema is made without a machine, and without these
    from forge.discovery.requirements import missing_requirement

    if offer.platforms and machine.platform not in offer.platforms:
        wish = " or ".join(sorted(offer.platforms))
        return Against.PLATFORM, f"platform is {machine.platform}; needs {wish}"
    if offer.accelerators and not offer.accelerators & (machine.usable_kinds if machine.torch else machine.kinds):
        wish, there = " or ".join(sorted(offer.accelerators)), " and ".join(sorted(machine.kinds)) or "none"
        return Against.ACCELERATOR, machine.mismatch() or f"needs an accelerator ({wish}); there is {there}"
    if missing := missing_requirement(offer.requires_dist, machine):
        return Against.REQUIREMENT, str(missing)
    return None
