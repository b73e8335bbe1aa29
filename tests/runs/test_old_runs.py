"""Runs of forge 0.1 can be gone on with: resumed, exported, talked to, shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forge.disk.folder import RunFolder

OLD = Path(__file__).parent / "forge-0.1"
TRAINED, CUT_OFF = "job/20260101-000001", "job/20260101-000002"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the old project, as if it had been made where it lies now."""
    folder = tmp_path / "project"
    shutil.copytree(OLD, folder)
    for path in folder.rglob("*"):
        if path.suffix in {".json", ".toml"} and "@PROJECT@" in (text := path.read_text(encoding="utf-8")):
            path.write_text(text.replace("@PROJECT@", folder.as_posix()), encoding="utf-8")
    return folder


def forge(project: Path, *arguments: str, told: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "forge", *arguments],
        cwd=project,
        env={**os.environ},
        input=told,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_old_run_is_resumed_from_its_checkpoint(project: Path) -> None:
    said = forge(project, "resume", CUT_OFF)
    assert "going on from checkpoint-2" in said
    folder = RunFolder(project / "runs" / CUT_OFF)
    assert folder.trained() is not None
    assert folder.evaluation() is not None
    assert (folder.path / "exports" / "1-adapter" / "export.json").exists()
    first, second = (json.loads((folder.path / name).read_text())["schema"] for name in ("plan.json", "plan.2.json"))
    assert (first, second) == (1, 2), "the old plan stays as it was, and the new one is of today"


@pytest.mark.slow
def test_an_old_run_is_exported_in_another_format(project: Path) -> None:
    said = forge(project, "export", TRAINED, "--format", "merged")
    assert "merged model read back from disk" in said
    assert (project / "runs" / TRAINED / "exports" / "2-merged" / "model.safetensors").exists()


@pytest.mark.slow
def test_an_old_run_is_talked_to(project: Path) -> None:
    said = forge(project, "chat", TRAINED, "--json", "--max-new-tokens", "4", told="Write one sentence.\n")
    assert json.loads(said)["tokens"] <= 4


@pytest.mark.slow
def test_an_old_run_is_evaluated_again(project: Path) -> None:
    forge(project, "eval", TRAINED, "--max-rows", "1", "--no-base")
    assert json.loads((project / "runs" / TRAINED / "evaluations" / "1.json").read_text())["rows"] == 1


def test_an_old_run_is_shown_and_reported(project: Path) -> None:
    assert "collate   huggingface" in forge(project, "runs", TRAINED)
    page = Path(forge(project, "report", TRAINED).strip())
    assert "max_grad_norm" in (project / page).read_text(encoding="utf-8")
