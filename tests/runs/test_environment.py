"""What the user's environment may be without a run failing."""

from __future__ import annotations

from forge.parent.process import unsupported
from support.projects import Project


def test_settings_of_python_that_the_libraries_do_not_work_with_stay_with_the_parent(project: Project) -> None:
    """Without docstrings, and with warnings as errors, transformers and trl cannot be imported or used."""
    project.write(train={"max_steps": 1})
    output = project.forge("run", "job.toml", PYTHONOPTIMIZE="2", PYTHONWARNINGS="error")
    assert "not passed on to the worker, whose libraries do not work with it: PYTHONOPTIMIZE, PYTHONWARNINGS" in output
    assert project.newest().trained() is not None


def test_settings_that_do_no_harm_are_passed_on() -> None:
    assert unsupported({"PYTHONOPTIMIZE": "", "PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "1"}) == []
    assert unsupported({"PYTHONWARNINGS": "ignore,error::UserWarning"}) == ["PYTHONWARNINGS"]


def test_no_home_and_no_folder_for_temporary_files_are_needed(project: Project) -> None:
    """A container's user has often neither."""
    project.write(train={"max_steps": 1})
    output = project.forge("data", "job.toml", HOME="/nonexistent", TMPDIR="/nonexistent")
    assert "row 1" in output
