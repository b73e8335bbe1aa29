"""On a GPU: both backends are measured, and a second run begins warm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from forge.disk.events import read_events
from forge.machine.probe import probe
from forge_huggingface.speed.trial import write

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project

pytestmark = pytest.mark.gpu


def test_doctor_measures_both_backends_and_a_plan_goes_by_it(project: Project, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    output = project.forge("doctor", "--measure", "--json", FORGE_CACHE=cache)
    told = json.loads(output[output.index("{") :])
    assert told["why"] == {}
    for backend in ("huggingface", "unsloth-text"):
        assert told["runs"][backend]["flops"] > 1e12
        assert 0 < told["runs"][backend]["start"] < 300
    write(tmp_path / "job", probe())
    plan = project.forge("plan", str(tmp_path / "job" / "job.toml"), FORGE_CACHE=cache)
    assert "(measured here)" in plan


@pytest.mark.parametrize("backend", ["huggingface", "unsloth"])
def test_a_second_run_begins_warm_and_tells_its_share_of_the_limit(
    project: Project, tmp_path: Path, backend: str
) -> None:
    write(tmp_path / "job", probe())
    cache, seconds = tmp_path / "cache", []
    for _ in range(2):
        job = str(tmp_path / "job" / "job.toml")
        project.forge("run", job, "--set", f"use.backend={backend}", FORGE_CACHE=str(cache))
        events = {line["kind"]: line for line in read_events(project.newest().events)}
        seconds.append(events["probe"]["seconds"] + events["speed"]["first"])
        assert 0 < events["speed"]["share"] < 1
    if backend == "unsloth":
        assert list(cache.glob("compiled/*/inductor/*"))
        assert list(cache.glob("unsloth/*/*"))
        assert seconds[1] < seconds[0]
