"""Checkpoints: one counts only if every byte of it is there, and there are never fewer than two."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from forge.disk import checkpoints as module
from forge.disk.checkpoints import MARK, checkpoints, fault, mark, newest_whole, rotate, step_of

if TYPE_CHECKING:
    from pathlib import Path


def make(folder: Path, step: int, *, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "deep").mkdir(parents=True)
    (path / "weights.bin").write_bytes(bytes(range(256)) * 8)
    (path / "deep" / "state.json").write_text(f'{{"step": {step}}}')
    if whole:
        mark(path)
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder)]


def test_checkpoints_are_in_the_order_of_their_steps_and_nothing_else_is_one(tmp_path: Path) -> None:
    for step in (2, 100, 30):
        make(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-30", "checkpoint-100"]
    assert step_of(tmp_path / "checkpoint-100") == 100
    assert checkpoints(tmp_path / "nowhere") == []


def test_a_marked_checkpoint_is_whole_and_its_mark_says_what_is_in_it(tmp_path: Path) -> None:
    path = make(tmp_path, 5)
    assert fault(path) is None
    data = json.loads((path / MARK).read_text())
    assert data["step"] == 5
    assert {name: facts["bytes"] for name, facts in data["files"].items()} == {
        "deep/state.json": 11,
        "weights.bin": 2048,
    }


def test_what_is_not_marked_is_not_finished(tmp_path: Path) -> None:
    assert fault(make(tmp_path, 5, whole=False)) == "it was not finished"


def flip(path: Path) -> None:
    data = bytearray((path / "weights.bin").read_bytes())
    data[1000] ^= 1
    (path / "weights.bin").write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: (path / "weights.bin").write_bytes(b"x" * 100), "weights.bin has 100 bytes, not 2048"),
        (lambda path: (path / "weights.bin").unlink(), "weights.bin is missing"),
        (lambda path: shutil.rmtree(path / "deep"), "deep/state.json is missing"),
        (flip, "weights.bin is damaged: its sha256 is another"),
        (lambda path: (path / MARK).write_text('{"step": 5, "fi'), "complete.json is damaged"),
        (lambda path: (path / MARK).write_text(""), "complete.json is damaged"),
        (lambda path: (path / MARK).write_text("[]"), "complete.json is damaged"),
        (lambda path: (path / MARK).write_text('{"files": []}'), "complete.json is damaged"),
        (lambda path: (path / MARK).write_text('{"files": {"weights.bin": {}}}'), "complete.json is damaged"),
    ],
)
def test_any_damage_is_seen_and_named(tmp_path: Path, harm: Any, reason: str) -> None:
    path = make(tmp_path, 5)
    harm(path)
    assert fault(path) == reason


def test_a_file_that_came_later_does_no_harm(tmp_path: Path) -> None:
    path = make(tmp_path, 5)
    (path / "notes.txt").write_text("mine")
    assert fault(path) is None


def test_what_is_half_written_is_not_part_of_a_checkpoint(tmp_path: Path) -> None:
    path = make(tmp_path, 5, whole=False)
    (path / ".x.1.part").write_text("half")
    mark(path)
    (path / ".x.1.part").unlink()
    assert fault(path) is None


def test_the_mark_comes_after_every_file_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, 5, whole=False)
    order: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _handle: order.append("flushed"))
    monkeypatch.setattr(module, "write_json", lambda target, _data: order.append(target.name))
    mark(path)
    assert order == ["flushed", "flushed", "flushed", MARK]  # two files and the folder


def test_the_newest_whole_one_is_found_and_the_newer_ones_are_named_with_their_faults(tmp_path: Path) -> None:
    make(tmp_path, 1)
    make(tmp_path, 2)
    flip(make(tmp_path, 3))
    make(tmp_path, 4, whole=False)
    whole, rejected = newest_whole(tmp_path)
    assert whole == tmp_path / "checkpoint-2"
    assert [(path.name, reason) for path, reason in rejected] == [
        ("checkpoint-4", "it was not finished"),
        ("checkpoint-3", "weights.bin is damaged: its sha256 is another"),
    ]


def test_there_may_be_no_whole_checkpoint(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "nowhere") == (None, [])
    make(tmp_path, 4, whole=False)
    assert newest_whole(tmp_path)[0] is None


@pytest.mark.parametrize(
    ("keep", "left"), [(3, [3, 4, 5]), (2, [4, 5]), (1, [4, 5]), (0, [4, 5]), (9, [1, 2, 3, 4, 5])]
)
def test_the_oldest_go_first_and_two_always_stay(tmp_path: Path, keep: int, left: list[int]) -> None:
    for step in range(1, 6):
        make(tmp_path, step)
    gone = rotate(tmp_path, keep)
    assert [step_of(path) for path in checkpoints(tmp_path)] == left
    assert [step_of(path) for path in gone] == [step for step in range(1, 6) if step not in left]
    assert all(fault(path) is None for path in checkpoints(tmp_path))


def test_the_best_stays_beside_the_newest_two(tmp_path: Path) -> None:
    for step in range(1, 6):
        make(tmp_path, step)
    rotate(tmp_path, 2, [tmp_path / "x" / ".." / "checkpoint-2"])
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]


def test_what_was_never_finished_does_not_count_as_one_of_the_two(tmp_path: Path) -> None:
    make(tmp_path, 1)
    make(tmp_path, 2)
    make(tmp_path, 3, whole=False)
    assert rotate(tmp_path, 2) == []
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def test_what_a_kill_left_half_written_goes_once_newer_ones_are_whole(tmp_path: Path) -> None:
    make(tmp_path, 1, whole=False)
    make(tmp_path, 2)
    make(tmp_path, 3)
    make(tmp_path, 4, whole=False)
    assert [path.name for path in rotate(tmp_path, 5)] == ["checkpoint-1"]
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]


def test_a_kill_while_an_old_one_is_deleted_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 4):
        make(tmp_path, step)

    def killed(_path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        rotate(tmp_path, 2)
    assert fault(tmp_path / "checkpoint-1") == "it was not finished"
    assert newest_whole(tmp_path)[0] == tmp_path / "checkpoint-3"
