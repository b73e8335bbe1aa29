"""Jobs over HTTP: planned, with the mistakes that the command tells, and shown as they are trained."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from support.serving import TOKEN

if TYPE_CHECKING:
    from support.projects import Project
    from support.serving import Served

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
WRONG = re.search(r"```toml wrong\n(.*?)```", README, re.DOTALL)
assert WRONG


def plan_by_command(place: Project, text: str) -> dict[str, Any]:
    """Return what `forge plan --json` says of a job."""
    (place.folder / "wrong.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-P", "-m", "forge", "plan", "wrong.toml", "--json"]
    done = subprocess.run(command, cwd=place.folder, capture_output=True, text=True, check=False)
    return json.loads(done.stdout)


def test_the_mistakes_of_a_job_are_those_of_the_command(served: Served, place: Project) -> None:
    text = WRONG[1]
    said = plan_by_command(place, text)["error"]
    found = served.post("/api/v1/plan", {"job": text, "name": "wrong"}, 422)
    assert len(found["problems"]) == 8
    assert found["detail"] == "wrong.toml has 8 mistakes"
    expected = [
        {"where": p["where"], "line": p["line"], "message": p["message"], "hint": p["do"]} for p in said["problems"]
    ]
    assert found["problems"] == expected
    for each in found["problems"]:
        assert f"wrong.toml:{each['line']}: {each['where']}: {each['message']}" in README


def test_a_job_is_planned_as_a_text_and_as_tables(served: Served, job: str) -> None:
    by_text = served.post("/api/v1/plan", {"job": job, "set": ["train.max_steps=2"]}, 200)
    tables = tomli.loads(job)
    tables["train"]["max_steps"] = 2
    by_tables = served.post("/api/v1/plan", {"job": tables}, 200)
    assert by_text["plan"]["job"]["train"] == by_tables["plan"]["job"]["train"]
    assert by_text["text"].startswith("machine ")
    assert by_text["plan"]["source"] == "job.toml"


def test_what_a_job_may_not_is_told_beside_its_other_mistakes_and_nothing_of_what_lies_there(
    served: Served, job: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    wrong = job.replace("rows.jsonl", str(tmp_path / "secret.jsonl")).replace("learning_rate", "learning_rat")
    found = served.post("/api/v1/plan", {"job": wrong}, 422)
    there = {each["where"]: each for each in found["problems"]}
    assert there.keys() == {"data.path", "train.learning_rat"}
    lines = wrong.splitlines()
    for where, each in there.items():
        assert where.split(".")[1] in lines[each["line"] - 1]
    gone = served.post("/api/v1/plan", {"job": wrong.replace("secret.jsonl", "nothing.jsonl")}, 422)
    assert [each["message"].replace("nothing", "secret") for each in gone["problems"]] == [
        each["message"] for each in found["problems"]
    ]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "job"),
        ({"job": 3}, "job"),
        ({"job": "", "jop": 1}, "jop"),
        ({"job": "", "set": "a=1"}, "set"),
        ({"job": "", "name": "../x"}, "name"),
        ({"job": {"a": None}}, "a"),
    ],
)
def test_a_body_that_is_wrong_is_told_by_its_keys(served: Served, body: dict[str, Any], where: str) -> None:
    found = served.post("/api/v1/plan", body, 422)
    assert where in {each["where"] for each in found["problems"]}


@pytest.mark.parametrize("change", ["nothing", "=1", "a..b=1", "model.id.x=1", "--json", "\ud800"])
def test_a_change_that_is_none_is_told(served: Served, job: str, change: str) -> None:
    assert served.call("POST", "/api/v1/plan", {"job": job, "set": [change]}).status in {400, 422}


@pytest.mark.slow
def test_rows_are_shown_as_they_are_trained(served: Served, job: str) -> None:
    begun = served.post("/api/v1/data", {"job": job, "rows": 2})
    end = time.monotonic() + 60
    while (found := served.get(begun["url"]))["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert found["state"] == "done", found
    row = found["result"]["rows"][0]
    assert any(part["supervised"] for part in row["segments"])
    assert len(found["result"]["rows"]) == 2


def test_a_job_that_cannot_be_planned_is_not_queued(served: Served, job: str) -> None:
    before = served.get("/api/v1/queue")["entries"]
    assert served.post("/api/v1/runs", {"job": job.replace("= 4", "= -4")}, 422)["problems"]
    assert served.get("/api/v1/queue")["entries"] == before


def test_what_the_machine_has_is_what_the_commands_say(served: Served, place: Project) -> None:
    assert served.get("/api/v1/machine")["cores"] >= 1
    assert {"huggingface", "serve"} <= {each["name"] for each in served.get("/api/v1/plugins")}
    assert served.get("/api/v1/doctor")["plugins"]
    assert "model" in served.get("/api/v1/schema/job")["properties"]
    about = served.get("/api/v1")
    assert about["roots"] == [str(place.folder.resolve())]
    assert about["dispatches"] is True
    assert "[model]" in served.get("/api/v1/example")["job"]


def test_secrets_of_the_server_are_in_no_answer(place: Project, job: str) -> None:
    from support.serving import serving

    secret = "hf_" + "abcdefgh" * 4
    (place.folder / "leaky.jsonl").write_text(json.dumps({"text": f"see {secret} there"}) + "\n")
    with serving(place.folder, HF_TOKEN=secret) as served:
        for path in ("/api/v1", "/api/v1/doctor", "/api/v1/machine", "/api/v1/plugins", "/openapi.json"):
            assert secret not in served.call("GET", path).text
        assert secret not in served.call("POST", "/api/v1/plan", {"job": f'[model]\nid = "{secret}"\n'}).text
        assert TOKEN not in served.call("GET", "/api/v1/doctor").text
