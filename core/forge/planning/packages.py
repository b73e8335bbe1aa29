"""What a plan needs to be installed, as exact requirements: for a machine where nothing is installed yet."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata, version
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from forge.discovery.catalogue import OWN
from forge.discovery.requirements import asked_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api.offer import Offer
    from forge.api.plan import Plan
    from forge.discovery.catalogue import Catalogue
    from forge.job.job import Job


def packages_of(plan: Plan, job: Job, catalogue: Catalogue) -> list[str]:
    """Return the requirements of a plan: forge with the extras of its plugins, others' plugins, and what offers need.

    Each is of the version that the machine planned for has; one that it does not have stays as the plugin wrote it.
    """
    steps = {step.plugin: step for step in plan.steps}
    known = set(metadata(OWN).get_all("Provides-Extra") or ()) if _is_installed(OWN) else set()
    extras = sorted(known & steps.keys())
    wanted = f"[{','.join(extras)}]" if extras else ""
    found = {canonicalize_name(OWN): f"{OWN}{wanted}=={plan.forge}"}
    for step in steps.values():
        if step.distribution != OWN and _is_installed(step.distribution):  # else it is no package, and goes as a file
            found[canonicalize_name(step.distribution)] = f"{step.distribution}=={step.version}"
    for text in _needs(plan, job, catalogue):
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"sys_platform": "linux"})):
            continue
        here = plan.machine.versions.get(name, "").partition("+")[0]  # +cpu and +cu130 are builds of one version
        found[name] = f"{requirement.name}=={here}" if here else text
    first, *others = found.values()
    return [first, *sorted(others)]


def _needs(plan: Plan, job: Job, catalogue: Catalogue) -> Iterator[str]:
    for offer in _offers(plan, catalogue):
        yield from offer.requires_dist
        for package in asked_packages(offer.packages, job, plan.facts):
            yield from package.requires


def _offers(plan: Plan, catalogue: Catalogue) -> Iterator[Offer]:
    for step in plan.steps:
        if plugin := catalogue.find(step.plugin):
            yield from (offer for offer in plugin.offers if (offer.stage, offer.impl) == (step.stage, step.impl))


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
