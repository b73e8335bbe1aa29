"""How people begin who have no terminal: with the quick start, made for them, and with rows of their own."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forge_serve.rules import Rules
from forge_serve.web import quickstart

if TYPE_CHECKING:
    from support.projects import Project
    from support.serving import Served

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart"


def test_the_example_is_found_beside_the_plugin_or_in_the_checkout() -> None:
    assert quickstart.source() == EXAMPLE
    wheel = tomllib.loads((EXAMPLE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    packed = wheel["targets"]["wheel"]["force-include"]
    assert packed == {
        f"examples/quickstart/{name}": f"forge_serve/quickstart/{name}"
        for name in ("prepare.py", "job.toml", "metrics.py")
    }


@pytest.mark.parametrize("allow_code", [False, True])
def test_its_job_names_files_from_where_jobs_start_and_no_code_unless_allowed(tmp_path: Path, allow_code: bool) -> None:
    rules = Rules((tmp_path,), allow_code)
    text = quickstart.job_of(rules, EXAMPLE)
    job = tomllib.loads(text)
    assert job["model"]["id"] == "quickstart/model"
    assert job["data"]["path"] == "quickstart/data/train.jsonl"
    assert job["data"]["eval_path"] == "quickstart/data/eval.jsonl"
    assert job["eval"]["metrics"] == (["./quickstart/metrics.py:card"] if allow_code else ["json"])
    assert rules.problems(text) == []
    own = tomllib.loads((EXAMPLE / "job.toml").read_text(encoding="utf-8"))
    assert {**job, "model": 0, "data": 0, "eval": 0} == {**own, "model": 0, "data": 0, "eval": 0}


@pytest.mark.parametrize("below", ["examples/quickstart", "examples", "."])
def test_in_a_checkout_it_is_made_where_it_lies(tmp_path: Path, below: str) -> None:
    example = tmp_path / "examples" / "quickstart"
    shutil.copytree(EXAMPLE, example, ignore=shutil.ignore_patterns("model", "data"))
    rules = Rules((tmp_path / below,))
    assert quickstart.target(rules, example) == example
    found = tomllib.loads(quickstart.job_of(rules, example))["data"]["path"]
    assert rules.folder / found == example / "data" / "train.jsonl"


def test_it_is_absent_and_then_made(served: Served, place: Project) -> None:
    assert served.get("/api/v1/quickstart")["state"] == "absent"
    quick = place.folder / "quickstart"
    for name in ("model/model.safetensors", "data/eval.jsonl", "metrics.py"):
        (quick / name).parent.mkdir(parents=True, exist_ok=True)
        (quick / name).touch()
    found = served.get("/api/v1/quickstart")
    assert found["state"] == "made"
    assert served.post("/api/v1/quickstart", {}) == found  # and nothing is made again
    shutil.rmtree(quick)


@pytest.mark.slow
def test_its_script_makes_it(served: Served, place: Project) -> None:
    from support.projects import wait_for

    assert served.post("/api/v1/quickstart", {})["state"] == "making"
    wait_for(lambda: served.get("/api/v1/quickstart")["state"] != "making", seconds=300)
    found = served.get("/api/v1/quickstart")
    assert found["state"] == "made", found["said"]
    assert served.post("/api/v1/plan", {"job": found["job"]}, 200)["plan"]["facts"]["parameters"] == 134515008


def test_rows_come_in_pieces_and_are_there_once_whole(served: Served, place: Project) -> None:
    row = json.dumps({"text": "é\x00 and more"}, ensure_ascii=False) + "\n"
    first = served.post("/api/v1/rows", {"name": "my rows.jsonl", "text": row, "last": False}, 200)
    assert first == {
        "name": "my-rows.jsonl",
        "path": "uploads/my-rows.jsonl",
        "bytes": len(row.encode()),
        "whole": False,
    }
    file = place.folder / "uploads" / "my-rows.jsonl"
    assert not file.exists()
    wrong = served.call("POST", "/api/v1/rows", {"name": "my-rows.jsonl", "text": row, "after": 3})
    assert wrong.status == 409
    rest = served.post("/api/v1/rows", {"name": "my-rows.jsonl", "text": row, "after": first["bytes"]}, 200)
    assert rest["whole"]
    assert file.read_text(encoding="utf-8") == row * 2
    again = served.post("/api/v1/rows", {"name": "my rows.jsonl", "text": row}, 200)
    assert again["path"] == "uploads/my-rows-2.jsonl"  # what is there is never written over
    assert file.read_text(encoding="utf-8") == row * 2


@pytest.mark.parametrize("name", ["../x.jsonl", "x.py", ".x.jsonl", "a/b.jsonl", "x.jsonl\n", "x" * 200 + ".jsonl"])
def test_rows_have_the_name_of_a_file_of_rows(served: Served, name: str) -> None:
    assert served.call("POST", "/api/v1/rows", {"name": name, "text": "{}"}).status == 422


def test_rows_are_not_written_through_a_link(served: Served, place: Project, tmp_path: Path) -> None:
    shutil.rmtree(place.folder / "uploads", ignore_errors=True)
    (place.folder / "uploads").symlink_to(tmp_path)
    try:
        assert served.call("POST", "/api/v1/rows", {"name": "x.jsonl", "text": "{}"}).status == 409
        assert list(tmp_path.iterdir()) == []
    finally:
        (place.folder / "uploads").unlink()
