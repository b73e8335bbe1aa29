"""Asking plugins what ``forge doctor`` is to say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api.offer import Finding
from forge.discovery.calls import records_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api.check import Check
    from forge.discovery.catalogue import Plugin
    from forge.machine.machine import Machine


def findings(plugin: Plugin, check: Check, machine: Machine) -> list[Finding]:
    """Return what a check of a plugin finds on a machine. Raises :class:`~forge.errors.PluginError` if it fails."""

    def ask(given: Machine) -> Iterable[Finding]:
        found: Iterable[Finding] = plugin.named(check.impl)(given)
        return found

    return records_of(plugin, f"its check {check.name}", Finding, ask, machine)
