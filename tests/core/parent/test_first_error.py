"""Which error of several processes the others follow from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forge.disk.folder import RunFolder
from forge.disk.meeting import Meeting
from forge.errors import ForgeError, PeerLost
from forge.parent.ranks import Ranks


def said(folder: RunFolder, rank: int, error: ForgeError, at: float) -> None:
    """Write down that a process has failed, and when."""
    line = {"time": at, "kind": "failed", "error": error.to_json()}
    folder.events_of(rank).write_text(json.dumps(line) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("first", "at", "told"),
    [
        (ForgeError("no such folder"), 12.0, "out of memory (in process 1 of 3)"),
        (ForgeError("no such folder"), 9.0, "no such folder"),
        (PeerLost("another process is gone"), 9.0, "out of memory (in process 1 of 3)"),
        (None, None, "out of memory (in process 1 of 3)"),
    ],
)
def test_it_is_the_one_that_was_said_first_and_is_no_loss_of_another(
    tmp_path: Path, first: ForgeError | None, at: float | None, told: str
) -> None:
    folder = RunFolder(tmp_path)
    ranks = Ranks(folder, Meeting.call(tmp_path, tmp_path / "plan.json", 1, {}), 3)
    said(folder, 2, PeerLost("another process is gone"), 8.0)
    said(folder, 1, ForgeError("out of memory"), 10.0)
    nobody: Any = None
    found = ranks.primary(first, nobody, stopped=False, at=at)
    assert found is not None
    assert found.what == told
