"""`forge logs` of a run of this machine."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from forge.api import CheckpointSaved, Failed, RunError, StepLogged, Stopped, Warned
from forge.cli.commands.logs import _events
from forge.disk.events import EventLog
from forge.disk.folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    log = EventLog(tmp_path / "events.jsonl")
    log.append(StepLogged(step=1, of=2, loss=3.5))
    log.append(Warned("mind the step"))
    log.close()
    return RunFolder(tmp_path)


def test_what_a_run_has_told_is_shown_as_it_was_when_it_ran(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    _events(folder, follow=True, as_json=False)  # nobody holds the folder, so it ends
    shown = capsys.readouterr().out
    assert "step 1/2  loss 3.5000" in shown
    assert "warning mind the step" in shown


def test_why_a_run_ended_is_shown_too(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    log = EventLog(folder.events)
    log.append(Stopped("stopped at step 1 of 2"))
    log.append(Failed(RunError("it broke", "of old age", "buy another").to_json()))
    log.close()
    _events(folder, follow=False, as_json=False)
    shown = capsys.readouterr().out
    assert "stopped at step 1 of 2" in shown
    assert "error   it broke: of old age" in shown


def test_as_json_each_event_is_a_line(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    _events(folder, follow=False, as_json=True)
    assert [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()] == ["step", "warning"]


def test_a_run_is_followed_to_its_last_event(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with folder.own():
        following = threading.Thread(target=_events, args=(folder,), kwargs={"follow": True, "as_json": True})
        following.start()
        time.sleep(0.3)
        log = EventLog(folder.events)
        log.append(CheckpointSaved(step=2, bytes=1))
        log.close()
    following.join(timeout=10)
    assert not following.is_alive()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kind"] == "checkpoint"
