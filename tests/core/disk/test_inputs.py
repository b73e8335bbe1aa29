"""The files that a training depends on: which they are, and whether they have changed."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from forge.disk import inputs
from forge.disk.inputs import Prints, altered, imported, look, of_job
from forge.job.job import Job

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("rewards.py", "chat.jinja", "rows.jsonl", "parts/a.jsonl", "parts/b.jsonl", "base/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / "base" / name).write_text(name)
    return tmp_path


def job(folder: Path, **data: Any) -> Job:
    tables = {
        "model": {"id": "./base"},
        "data": {"path": "rows.jsonl", "chat_template": "chat.jinja", **data},
        "train": {"reward": [{"use": "./rewards.py:good"}], "system": "no\nfile", "at": "https://host/rows.jsonl"},
        "eval": {"metrics": ["rows.jsonl"]},
    }
    return Job.model_validate({**tables, "folder": folder}, context={"checked": True})


def test_what_a_job_names_is_found_and_of_a_model_what_is_read(folder: Path) -> None:
    found = of_job(job(folder))
    assert sorted(found) == ["./base/config.json", "./base/model.safetensors", "./rewards.py", "chat.jinja"]
    assert all(folder / name == path for name, path in found.items())


@pytest.mark.parametrize(
    ("path", "rows"),
    [
        ("rows.jsonl", ["rows.jsonl"]),
        ("parts", ["parts/a.jsonl", "parts/b.jsonl"]),
        ("parts/b*", ["parts/b.jsonl"]),
        ("org/rows", []),
    ],
)
def test_of_rows_only_streamed_ones_are_found(folder: Path, path: str, rows: list[str]) -> None:
    found = {*of_job(job(folder, path=path, streaming=True))} - {*of_job(job(folder, path=path))}
    assert sorted(found) == rows


def test_a_file_that_was_only_touched_or_copied_is_the_same(folder: Path) -> None:
    path = folder / "rewards.py"
    before = look(path)
    assert before
    os.utime(path, ns=(1, 1))
    assert altered(path, before) is None


def test_a_file_that_was_not_touched_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = look(folder / "rewards.py")
    assert before
    monkeypatch.setattr(inputs, "sha256", lambda _: pytest.fail("it was read"))
    assert altered(folder / "rewards.py", before) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [("rewards.pz", "has another content"), ("longer than before", "had 10 bytes and has 18"), (None, "is gone")],
)
def test_a_file_that_has_changed_is_told_how(folder: Path, content: str | None, said: str) -> None:
    path = folder / "rewards.py"
    with Prints({"it": path, "nothing": folder / "nothing"}) as prints:
        found = prints.result()
    assert found.keys() == {"it"}
    before = found["it"]
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    os.utime(path.parent, ns=(1, 1))
    assert altered(path, before) == said


def test_a_file_too_large_to_be_read_is_judged_by_its_size_and_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_ROWS", 4)
    path = folder / "rows.jsonl"
    before = look(path)
    assert before
    assert "sha256" not in before
    assert altered(path, before) is None
    os.utime(path, ns=(1, 1))
    assert altered(path, before) == "was written to since"


def test_modules_beside_the_job_and_those_that_it_names_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "judges_of_mine.py").write_text("def good(): ...\n")
    (folder / "helper_of_mine.py").write_text("")
    (folder / "site-packages").mkdir()
    (folder / "site-packages" / "library_of_theirs.py").write_text("")
    for place in (elsewhere, folder, folder / "site-packages"):
        monkeypatch.syspath_prepend(str(place))
    names = ["judges_of_mine", "helper_of_mine", "library_of_theirs"]
    for name in names:
        importlib.import_module(name)
    try:
        tables = {"model": {"id": "m"}, "data": {"path": "r"}, "train": {"reward": [{"use": "judges_of_mine:good"}]}}
        found = imported(Job.model_validate({**tables, "folder": folder}), folder / "runs")
        assert found == {
            str(elsewhere / "judges_of_mine.py"): elsewhere / "judges_of_mine.py",
            "helper_of_mine.py": folder / "helper_of_mine.py",
        }
    finally:
        for name in names:
            del sys.modules[name]
