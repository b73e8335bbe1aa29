"""Plans of a short job for a machine that is only pretended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api.plan import Plan
from forge.discovery.keys import PluginKeys
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.discovery.catalogue import Catalogue
    from forge.machine.machine import Machine

BASE = '[model]\nid = "m"\n[data]\npath = "org/rows"\n'
HELD_OUT = f"{BASE}eval_size = 0.1\n"
FACTS = ModelFacts(id="m", source="unknown", task="text", dtype="bfloat16")
CUDA = PRESETS["linux-cuda"]


def planner(catalogue: Catalogue) -> Callable[..., Plan]:
    """Return what plans a job's text with these plugins."""

    def make(text: str = BASE, machine: str | Machine = "linux-cuda", facts: ModelFacts = FACTS, **more: Any) -> Plan:
        plugins = more.pop("catalogue", catalogue)
        folder = more.pop("folder", Path("/jobs"))
        found = PRESETS[machine] if isinstance(machine, str) else machine
        return make_plan(parse(text, "job.toml", folder, PluginKeys(plugins)), plugins, found, facts, **more)

    return make


def reasons(plan: Plan) -> dict[str, str]:
    """Return the reason of each decision."""
    return {decision.key: decision.reason for decision in plan.decisions}
