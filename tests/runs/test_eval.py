"""``forge eval`` as a user calls it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.projects import Project, json_of

if TYPE_CHECKING:
    from pathlib import Path

    from forge.disk.folder import RunFolder


@pytest.mark.slow
def test_other_rows_go_to_a_file_of_their_own(trained: tuple[Project, RunFolder], tmp_path: Path) -> None:
    project, folder = trained
    rows = tmp_path / "others.jsonl"
    rows.write_text('{"question": "Name a colour.", "answer": "Red"}\n')
    arguments = ["--data", str(rows), "--metric", "exact-match", "--metric", "./metrics.py:lengths", "--no-base"]
    output = project.forge("eval", str(folder.path), *arguments)
    assert "exact-match" in output
    assert "evaluations/1.json" in output.replace("\\", "/")
    found = json_of(folder.path / "evaluations" / "1.json")
    assert list(found["metrics"]) == ["loss", "perplexity", "exact-match", "short", "characters"]
    assert list(found["models"]) == ["tuned"]
    assert not (folder.path / "evaluation.json").exists(), "the job's own evaluation is another one"
    assert "did you mean" in project.forge("eval", str(folder.path), "--metric", "exact_match", code=2)


@pytest.mark.slow
def test_a_job_without_the_table_is_measured_on_its_held_out_rows(project: Project) -> None:
    project.write(data={"eval_size": 4})
    done = project.perform()
    lines = project.forge("eval", str(done.folder.path), "--json").splitlines()
    event = next(one for line in lines if (one := json.loads(line))["kind"] == "evaluated")
    assert set(event["metrics"]) == {"loss", "perplexity"}
    assert json_of(done.folder.path / "evaluation.json")["metrics"] == event["metrics"]
