"""Damaged run folders: the file is named, and one does not hide the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from forge.cli import cli
from forge.errors import JobError, RunError
from support.projects import Finished, Project


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Finished:
    """A finished run, and one whose files are damaged beside it."""
    project = Project(tmp_path_factory.mktemp("damaged") / "project", tiny_model)
    project.write(train={"max_steps": 1}, export=[{"format": "adapter"}])
    return project.perform()


@pytest.fixture
def copy(done: Finished, tmp_path: Path) -> Path:
    """A copy of the run that may be damaged, with a whole one beside it."""
    for name in ("whole", "damaged"):
        shutil.copytree(done.folder.path, tmp_path / "runs" / name / "20260101-000000")
    return tmp_path / "runs" / "damaged" / "20260101-000000"


def forge(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


DAMAGES = [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 5000, b'{"files": 5}']


@pytest.mark.parametrize("damage", DAMAGES, ids=repr)
@pytest.mark.parametrize(
    "name", ["plan.json", "trained.json", "events.jsonl", "job.toml", "exports/1-merged/export.json"]
)
def test_one_damaged_run_does_not_hide_the_others_and_each_command_names_the_file(
    name: str, damage: bytes, copy: Path
) -> None:
    path = copy / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damage)
    listed = forge("runs", "--runs-dir", str(copy.parent.parent))
    assert listed.exit_code == 0, listed.output
    assert "whole/20260101-000000" in listed.output
    # Those that would start a worker, only where the file is one that they read first.
    later = ("export", "eval", "chat") if name in {"plan.json", "trained.json", "job.toml"} else ()
    for command in ("runs", "report", *later):
        said = forge(command, str(copy))
        if said.exit_code and isinstance(said.exception, RunError | JobError):
            assert path.name in str(said.exception), str(said.exception)
        else:
            assert said.exception is None or isinstance(said.exception, SystemExit), repr(said.exception)


@pytest.mark.parametrize("value", ['"x"', "5", "[]", "null", '{"what": []}'])
@pytest.mark.parametrize(
    ("kind", "key"), [("step", "loss"), ("step", "step"), ("failed", "error"), ("stage", "seconds")]
)
def test_values_of_another_kind_in_an_event_are_passed_over(kind: str, key: str, value: str, copy: Path) -> None:
    with (copy / "events.jsonl").open("a") as file:
        file.write(f'{{"kind": "{kind}", "state": "finished", "stage": [], "{key}": {value}}}\n')
    for arguments in (("runs", "--runs-dir", str(copy.parent.parent)), ("runs", str(copy)), ("report", str(copy))):
        said = forge(*arguments)
        assert said.exit_code == 0, repr(said.exception)
