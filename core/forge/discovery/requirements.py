"""What offers and values of a job need to be installed, checked against a machine without importing anything."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import forge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from packaging.specifiers import Specifier

    from forge.api.offer import Package
    from forge.job.job import Job
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not installed, or not in a version that will do.

    Attributes:
        reason: What is missing, as a phrase.
        install: What to give to ``pip install``; empty if that does not help.
    """

    reason: str
    install: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the reason, with the line that installs what is missing."""
        return f"{self.reason} (pip install {quoted(self.install)})" if self.install else self.reason


def quoted(requirements: Iterable[str]) -> str:
    """Return requirements as a shell takes them: without quotes, ``>`` would write to a file.

    >>> quoted(["trl>=1.14", "peft"])
    '"trl>=1.14" "peft"'
    """
    return " ".join(f'"{text}"' for text in requirements)


def missing_requirement(requirements: Sequence[str], machine: Machine) -> Missing | None:
    """Return what a machine lacks of some PEP 508 requirements, or None."""
    unmet = []
    for text in requirements:
        try:
            requirement = _requirement(text)
        except InvalidRequirement as error:
            return Missing(f"its requirement {text!r} cannot be read: {str(error).splitlines()[0]}")
        if requirement.marker and not requirement.marker.evaluate(_markers(machine)):
            continue
        version = machine.versions.get(canonicalize_name(requirement.name))
        if version is None:
            unmet.append((text, f"{requirement.name} is not installed"))
        elif not requirement.specifier.contains(version, prereleases=True):
            unmet.append((text, f"{requirement.name} is {version}; needs {requirement.specifier}"))
    if not unmet:
        return None
    return Missing(", ".join(reason for _, reason in unmet), tuple(text.split(";")[0].strip() for text, _ in unmet))


def unmet_forge(requirements: Iterable[str], distribution: str | None) -> str | None:
    """Return why this forge is not one that a distribution, or a file, works with, and the line that mends it, or None.

    >>> unmet_forge(["forge-train>=99", "zipp"], "forge-zip").rpartition(": ")[2]
    'pip install "forge-train>=99"'
    >>> unmet_forge(["forge-train>=0.1"], "forge-zip")
    """
    here = Version(Version(forge.__version__).base_version)  # what leads to a version has what that has
    for text in requirements:
        if not re.match(r"forge[-_.]+train\b", text, re.IGNORECASE):
            continue
        try:
            requirement = _requirement(text)
        except InvalidRequirement as error:
            return f"its requirement {text!r} cannot be read: {str(error).splitlines()[0]}"
        marker = requirement.marker
        if canonicalize_name(requirement.name) != forge.DISTRIBUTION or (marker and not marker.evaluate({"extra": ""})):
            continue
        if not requirement.specifier.contains(here):
            later = [each for each in requirement.specifier if _is_later(each, here)]
            mends = later or distribution is None  # else a later version of the plugin may do
            asked = f'"{forge.DISTRIBUTION}{requirement.specifier}"' if mends else f"--upgrade {distribution}"
            said = f"needs forge {requirement.specifier}, and this is {forge.__version__}"
            return f"{said}: pip install {asked}"
    return None


def _is_later(specifier: Specifier, version: Version) -> bool:
    """Tell whether a specifier asks for a later version than this one."""
    asked = specifier.version.removesuffix(".*")
    return specifier.operator in {">", ">=", "==", "~="} and Version(asked) >= version


@functools.cache
def _requirement(text: str) -> Requirement:
    return Requirement(text)


def lacking(
    packages: Iterable[Package], job: Job, machine: Machine, facts: ModelFacts
) -> Iterator[tuple[str, str, Missing]]:
    """Yield the key and the value of a job that need what a machine lacks, with what it lacks."""
    for package in packages:
        for where, value in _asking(package, job, facts):
            if missing := missing_package(package, machine):
                yield where, str(value), missing


def asked_packages(packages: Iterable[Package], job: Job, facts: ModelFacts) -> list[Package]:
    """Return the packages that some value of a job needs."""
    return [package for package in packages if any(True for _ in _asking(package, job, facts))]


def _asking(package: Package, job: Job, facts: ModelFacts) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a job that a package is about."""
    if package.tasks and facts.task not in package.tasks:
        return
    for where, value in values_of(job, package.key):
        asked = (
            isinstance(value, str) and any(fnmatchcase(value, each) for each in package.values)
            if package.values
            else value is True
        )
        if asked:
            yield where, value


def missing_package(package: Package, machine: Machine) -> Missing | None:
    """Return what a machine lacks of what a value needs, or None."""
    if package.accelerators and not package.accelerators & machine.usable_kinds:
        wish, there = " or ".join(sorted(package.accelerators)), " and ".join(sorted(machine.usable_kinds)) or "none"
        return Missing(f"it needs an accelerator ({wish}), and there is {there}")
    if any(missing_requirement([text], machine) is None for text in package.instead):
        return None
    missing = missing_requirement(package.requires, machine)
    return Missing(missing.reason, (package.install,)) if missing and package.install else missing


def values_of(job: Job, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of a job's key, each with its path: of ``train.reward.use`` one for every reward.

    >>> from forge.api import Job
    >>> job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "d"}, "plugins": {"p": {"names": ["a", "b"]}}})
    >>> list(values_of(job, "plugins.p.names")), list(values_of(job, "model.id")), list(values_of(job, "train.no"))
    ([('plugins.p.names.0', 'a'), ('plugins.p.names.1', 'b')], [('model.id', 'm')], [])
    """
    found: list[tuple[str, Any]] = [("", job)]
    for part in [*key.split("."), ""]:
        spread: list[tuple[str, Any]] = []
        for path, value in found:
            if isinstance(value, list | tuple):
                spread += [(f"{path}.{index}", each) for index, each in enumerate(value)]
            else:
                spread.append((path, value))
        found = spread
        if part:
            inside = [
                (f"{path}.{part}", value.get(part) if isinstance(value, dict) else getattr(value, part, None))
                for path, value in found
            ]
            found = [(path, value) for path, value in inside if value is not None]
    yield from ((path.removeprefix("."), value) for path, value in found)


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
