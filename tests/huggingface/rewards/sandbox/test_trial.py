"""What is said of the sandbox before training, on machines that lack some of what holds programs."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from forge.api import UsageError
from forge_huggingface.rewards.sandbox import trial
from forge_huggingface.rewards.sandbox.run import MIB, Limits
from support.jails import WALLS, break_down

LIMITS = Limits(seconds=30, memory=256 * MIB)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")


@linux
def test_this_machine_can_hold_programs() -> None:
    assert [note for note in trial.check(LIMITS) if "Landlock" not in note] == []


@linux
def test_where_nothing_holds_programs_they_are_refused_unless_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_down(monkeypatch, tmp_path, *WALLS)
    with pytest.raises(UsageError) as caught:
        trial.check(LIMITS, processes=True)
    assert re.fullmatch(
        r"what the model writes cannot be cut off from the network here: it could connect \(ipv4, (ipv6, )?unix\): "
        r"this needs Linux on x86_64 or aarch64 with seccomp; run it where that is, or accept it with "
        r"args = \{ allow_network = true \}",
        str(caught.value),
    )
    open_ = replace(LIMITS, network=True)
    with pytest.raises(UsageError) as caught:
        trial.check(open_)
    assert str(caught.value).startswith(
        "what the model writes cannot be kept from your other processes here, this training among them: it could reach "
        "their signals, limits"
    )
    assert "accept it with args = { allow_processes = true }" in str(caught.value)
    processes, files, calls = trial.check(open_, processes=True)
    assert processes.startswith("it can reach your other processes (signals, limits")
    assert files.startswith("files outside its folder cannot be protected here")
    assert calls.startswith("it may start further processes")


@linux
@pytest.mark.parametrize(
    ("missing", "notes"),
    [
        (("namespaces",), []),
        (("Landlock",), ["files outside its folder"]),
        (("seccomp", "namespaces"), None),
    ],
)
def test_one_wall_missing_is_refused_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], notes: list[str] | None
) -> None:
    break_down(monkeypatch, tmp_path, *missing)
    if notes is None:
        with pytest.raises(UsageError, match="cannot be cut off from the network here"):
            trial.check(LIMITS)
    else:
        found = trial.check(LIMITS)
        assert len(found) == len(notes)
        assert all(note.startswith(start) for note, start in zip(found, notes, strict=True))


def test_too_little_memory_to_start_is_told_before_training() -> None:
    with pytest.raises(UsageError, match="programs cannot be run here"):
        trial.check(replace(LIMITS, memory=8 * MIB))
