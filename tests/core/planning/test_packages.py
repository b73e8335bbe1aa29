"""What a plan needs to be installed elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from forge.discovery.keys import PluginKeys
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.packages import packages_of
from forge.planning.planner import make_plan

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue

JOB = '[model]\nid = "org/name"\n[data]\npath = "rows.jsonl"\n'
FACTS = ModelFacts(id="org/name", source="unknown", task="text")


def packages(catalogue: Catalogue, folder: Path, more: str = "", distribution: str | None = None) -> list[str]:
    file = parse(JOB + more, "job.toml", folder, PluginKeys(catalogue))
    plan = make_plan(file, catalogue, PRESETS["linux-cuda"], FACTS)
    if distribution:
        plan = replace(plan, steps=(*plan.steps[1:], replace(plan.steps[0], plugin="x", distribution=distribution)))
    return packages_of(plan, file.job, catalogue)


def test_each_package_is_of_the_version_that_was_planned_for(catalogue: Catalogue, tmp_path: Path) -> None:
    first, *others = packages(catalogue, tmp_path)
    assert first.startswith("forge-train[huggingface]==")
    assert "torch==2.13.0" in others  # without +cu130: which build it is, the index there decides
    assert "transformers==5.23.0" in others
    assert not any("bitsandbytes" in each for each in others)


def test_what_a_value_of_the_job_needs_is_among_them(catalogue: Catalogue, tmp_path: Path) -> None:
    assert "bitsandbytes==0.50.2" in packages(catalogue, tmp_path, "[train]\noptim = 'adamw_8bit'\n")


def test_a_plugin_of_somebody_else_is_pinned_and_one_that_is_no_package_is_not_looked_for(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    assert any(each.startswith("pytest==") for each in packages(catalogue, tmp_path, distribution="pytest"))
    assert not any("local code" in each for each in packages(catalogue, tmp_path, distribution="local code"))
