"""How the launcher's agent counts the ends of its workers."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from forge.disk.meeting import Meeting
from forge.job.tables import LaunchTable
from forge.launcher import agent as module
from forge.launcher.agent import Agent

if TYPE_CHECKING:
    from pathlib import Path

WORKER = """
import os, signal, sys, time
if os.environ["RANK"] == "1":
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forge trains in one process on Windows")
@pytest.mark.parametrize("look", [0.02, 0.6])
def test_the_first_to_fail_is_the_one_that_was_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: float
) -> None:
    """Also where the agent has seen it, and taken its code, before forge looked."""
    monkeypatch.setattr(module, "_LOOK", look)
    monkeypatch.setattr(module, "GRACE", 0.5)
    meeting = Meeting.call(tmp_path, tmp_path / "plan.json", 1, {})
    agent = Agent([sys.executable, "-c", WORKER], LaunchTable(processes=2), meeting, 0)
    began = time.monotonic()
    agent.run()
    assert agent.error is None
    assert [(each.rank, each.code, each.helped) for each in agent.ended()] == [(1, 3, False), (0, -9, True)]
    assert time.monotonic() - began < 15
