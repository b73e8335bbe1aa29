"""What an offer needs to be installed, checked against a machine without importing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.machine.machine import Machine


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
        line = " ".join(f'"{text}"' for text in self.install)
        return f"{self.reason} (pip install {line})" if line else self.reason


def missing_requirement(requirements: Sequence[str], machine: Machine) -> Missing | None:
    """Return what a machine lacks of some PEP 508 requirements, or None."""
    unmet = []
    for text in requirements:
        try:
            requirement = Requirement(text)
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
