"""A job as one script: it says what it needs, holds what the job names, and runs it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from forge.disk.script import LIMIT, script_text
from forge.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project

FORGE = """
import os, signal, sys, time
from pathlib import Path

folder = Path(sys.argv[-1])
print(*sys.argv[1:2], Path("there").exists(), flush=True)
if sys.argv[1] == "run":
    (folder / "plan.json").write_text((folder / "submit" / "job.toml").read_text())
def stop(*_):
    print("saved", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
time.sleep(float(os.environ.get("WAIT", "0")))
"""
"""What stands in for forge here: the command is what the script has to get right."""


def header(text: str) -> dict[str, Any]:
    """Read a script's header as PEP 723 says."""
    (found,) = re.finditer(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$", text)
    assert found["type"] == "script"
    lines = found["content"].splitlines(keepends=True)
    return tomli.loads("".join(line[2:] if line.startswith("# ") else line[1:] for line in lines))


def script(folder: Path, job: str = 'name = "tale"\n', **files: bytes) -> Path:
    paths = {}
    for name, body in files.items():
        paths[f"files/{name}"] = folder / name
        paths[f"files/{name}"].write_bytes(body)
    path = folder / "job.py"
    path.write_text(script_text("tale/1", job, paths, ['forge-train[huggingface]==1; python_version < "4"'], ["MINE"]))
    (folder / "forge.py").write_text(FORGE)
    return path


def start(path: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(path.parent), **variables}
    command = [sys.executable, str(path)]
    return subprocess.Popen(command, cwd=path.parent, env=environment, stdout=subprocess.PIPE, text=True)


def test_the_header_says_what_it_needs_and_the_secrets_by_name(tmp_path: Path) -> None:
    text = script(tmp_path).read_text()
    assert header(text)["dependencies"] == ['forge-train[huggingface]==1; python_version < "4"']
    assert header(text)["requires-python"] == ">=3.11"
    assert "set MINE in the environment" in (ast.get_docstring(ast.parse(text)) or "")


@pytest.mark.parametrize(
    "job", ["a = 1\n", "a = '''x'''\n", 'path = "C:\\\\rows"\nb = "{braces}" # \\', '"ü" = "\\u0001"\n']
)
def test_the_job_and_its_files_come_out_as_they_went_in(tmp_path: Path, job: str) -> None:
    body = bytes(range(256)) * 50
    done = start(script(tmp_path, job, rows=body, empty=b""))
    assert done.communicate()[0] == "run False\n"
    run = tmp_path / "runs" / "tale" / "1"
    assert (run / "plan.json").read_text() == job
    assert (run / "submit" / "files" / "rows").read_bytes() == body
    assert (run / "submit" / "files" / "empty").read_bytes() == b""


def test_started_again_it_goes_on_with_the_run_that_is_there(tmp_path: Path) -> None:
    path = script(tmp_path)
    said = [start(path, FORGE_RUN=str(tmp_path / "mine")).communicate()[0] for _ in range(2)]
    assert said == ["run False\n", "resume False\n"]


@pytest.mark.skipif(os.name == "nt", reason="Windows ends processes without asking them")
@pytest.mark.parametrize("how", ["clock", "signal"])
def test_it_passes_on_the_wish_to_stop_and_ends_as_forge_does(tmp_path: Path, how: str) -> None:
    clock = {"FORGE_STOP_AFTER": "1.0"} if how == "clock" else {}
    process = start(script(tmp_path), WAIT="60", **clock)
    assert process.stdout is not None
    assert process.stdout.readline() == "run False\n"
    if how == "signal":
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == "saved\n"
    assert process.returncode == 130


def test_files_that_are_too_large_for_a_script_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"do not go into a script: it takes 1,048,576; the largest is .*rows"):
        script(tmp_path, rows=b"x" * (LIMIT + 1))


def test_a_model_beside_the_job_is_not_read_to_learn_that_it_is_too_large(project: Project) -> None:
    with (project.folder / "model" / "more.safetensors").open("wb") as file:
        file.truncate(2**40)  # takes no room, and an hour to read
    assert "the largest is" in project.forge("script", "job.toml", code=2)


def test_forge_script_prints_a_job_that_trains(project: Project) -> None:
    text = project.forge("script", "job.toml")
    needs = header(text)["dependencies"]
    assert needs[0].startswith("forge-train[huggingface]==")
    assert all("==" in each for each in needs)
    assert any(each.startswith("torch==") and "+" not in each for each in needs)
    assert project.forge("script", "job.toml") == text  # and so the same run
    assert text != project.forge("script", "job.toml", "--set", "train.max_steps=9")


@pytest.mark.slow
def test_uv_installs_what_a_script_needs_and_trains(project: Project, tmp_path: Path) -> None:
    """``FORGE_TEST_WHEELS`` names folders for ``UV_FIND_LINKS``, one with a wheel of this forge."""
    wheels = os.environ.get("FORGE_TEST_WHEELS")
    if shutil.which("uv") is None or wheels is None:
        pytest.skip("FORGE_TEST_WHEELS names no wheels, or there is no uv")
    project.forge("script", "job.toml", "--out", str(tmp_path / "job.py"))
    environment = {**os.environ, "UV_FIND_LINKS": wheels}
    done = subprocess.run(["uv", "run", "job.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "step 4/4" in done.stdout, done.stderr
