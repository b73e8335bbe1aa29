"""A model that two processes hold a half of each trains as in one process, and leaves the same weights."""

from __future__ import annotations

from typing import Any

import pytest
from runs.test_methods_together import FULL, hold_alike, together

from support.projects import Project

SHARD = ("--set", "launch.processes=2", "--set", "launch.shard=full")


@pytest.mark.parametrize("adapter", [{}, FULL], ids=["lora", "full"])
def test_sft(project: Project, adapter: dict[str, Any]) -> None:
    project.write(adapter=adapter, train={"gradient_accumulation_steps": 2})
    one = together(project)
    hold_alike(one, together(project, *SHARD, FORGE_TESTS_SHARD="1"))
