"""Trainings that are started over HTTP: they run, wait, stop, go on, and outlive whatever started them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
import tomli_w

from forge.disk.events import read_events
from forge.disk.folder import RunFolder
from support.projects import wait_for, worker_pid
from support.serving import Served, serve, serving

if TYPE_CHECKING:
    from support.projects import Project


def longer(job: str, **train: Any) -> str:
    """Return the job with other settings of its training."""
    tables = tomli.loads(job)
    tables["train"] |= train
    return tomli_w.dumps(tables)


def steps(folder: Path) -> list[int]:
    """Return the steps that a run logged."""
    return [event["step"] for event in read_events(RunFolder(folder).events) if event["kind"] == "step"]


def losses(folder: Path) -> dict[int, float]:
    """Return the losses of a run by their steps, the last word of each."""
    found = (event for event in read_events(RunFolder(folder).events) if event["kind"] == "step")
    return {event["step"]: event["loss"] for event in found}


@pytest.mark.slow
def test_the_guides_call_trains_and_its_status_tells_how_far(served: Served, place: Project) -> None:
    body = {
        "provider": "huggingface",
        "model_name": "model",
        "max_seq_length": 128,
        "task": "text-generation",
        "strategy": "sft",
        "dataset": "rows.jsonl",
        "num_train_epochs": 1,
        "lora_r": 4,
        "per_device_train_batch_size": 4,
    }
    found = served.post("/api/start_training", body)
    assert found["success"] is True
    assert served.get("/api/status")["status"] in {"running", "completed"}
    run = served.settled(found["run"])
    assert run["state"] == "trained", run
    assert run["entry"] == found["run"]
    assert served.get("/api/status") == {
        "status": "completed",
        "progress": 100,
        "message": "model is trained",
        "run": run["id"],
    }
    assert {each["name"] for each in run["files"]} >= {"job.toml", "adapter/adapter_model.safetensors"}
    folder = place.runs / run["run"]
    weights = served.call("GET", f"/api/v1/runs/{run['id']}/files/adapter/adapter_model.safetensors")
    assert weights.body == (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    assert weights.headers["content-disposition"].startswith("attachment")
    text = (
        (folder / "log.txt").read_text()
        + (folder / "events.jsonl").read_text()
        + (folder / "job.lock.toml").read_text()
    )
    assert served.token not in text


@pytest.mark.slow
def test_one_trains_and_others_wait_in_an_order_that_can_be_changed(served: Served, job: str) -> None:
    text = longer(job, max_steps=40, save_steps=40)
    first = served.post("/api/v1/runs", {"job": text, "name": "first"}, **{"Idempotency-Key": "one"})
    again = served.post("/api/v1/runs", {"job": text, "name": "first"}, **{"Idempotency-Key": "one"})
    assert again["id"] == first["id"]
    second, third, fourth = (served.post("/api/v1/runs", {"job": job, "name": name}) for name in ("b", "c", "d"))
    assert [each["position"] for each in (second, third, fourth)] == [0, 1, 2]
    moved = served.call("PATCH", f"/api/v1/queue/{fourth['id']}", {"position": 0})
    assert moved.json["position"] == 0
    assert served.call("DELETE", f"/api/v1/runs/{third['id']}", {}).status == 200
    assert served.call("DELETE", f"/api/v1/runs/{first['id']}", {}).status in {409, 422}
    ends = {name["id"]: served.settled(name["id"]) for name in (first, fourth, second)}
    assert {run["state"] for run in ends.values()} == {"trained"}
    entries = {each["id"]: each for each in served.get("/api/v1/queue")["entries"]}
    assert third["id"] not in entries
    begun = [entries[each["id"]]["begun"] for each in (first, fourth, second)]
    ended = [entries[each["id"]]["ended"] for each in (first, fourth, second)]
    assert begun == sorted(begun)
    assert all(end <= begin for end, begin in zip(ended, begun[1:], strict=False)), "one at a time"


@pytest.mark.slow
def test_a_killed_server_is_not_missed_and_a_stream_goes_on_where_it_was(place: Project, job: str) -> None:
    served = serve(place.folder, "--runs-dir=killed")
    entry = served.post("/api/v1/runs", {"job": longer(job, max_steps=400, save_steps=400), "name": "lives"})
    run = served.until(entry["id"], lambda found: (found["step"] or 0) >= 3)
    seen: list[dict[str, Any]] = []
    last = "0"
    with served.stream(f"/api/v1/runs/{run['id']}/events") as messages:
        for message in messages:
            seen.append(json.loads(message["data"]))
            last = message["id"]
            if seen[-1].get("step", 0) >= 5:
                break
    waiting = served.post("/api/v1/runs", {"job": job, "name": "waits"})
    served.kill()
    folder = place.folder / "killed" / run["run"]
    before = max(steps(folder))
    wait_for(lambda: max(steps(folder)) > before + 5)
    served = serve(place.folder, "--runs-dir=killed", port=served.port)
    try:
        found = served.get(f"/api/v1/runs/{run['id']}")
        assert (found["state"], found["entry"]) == ("running", entry["id"])
        with served.stream(f"/api/v1/runs/{run['id']}/events", **{"Last-Event-ID": last}) as messages:
            for message in messages:
                seen.append(json.loads(message["data"]))
                if seen[-1]["kind"] == "done":
                    break
        logged = [event["step"] for event in seen if event["kind"] == "step"]
        assert logged == steps(folder) == list(range(1, 401)), "no step is lost, and none comes twice"
        assert served.settled(run["id"])["state"] == "trained"
        assert served.settled(waiting["id"])["state"] == "trained", "what waited began by itself"
    finally:
        served.kill()


@pytest.mark.slow
def test_a_killed_worker_is_told_as_in_a_terminal_and_the_queue_goes_on(place: Project, job: str) -> None:
    with serving(place.folder, "--runs-dir=worker") as served:
        text = longer(job, max_steps=4000, save_steps=20)
        entry = served.post("/api/v1/runs", {"job": text, "name": "dies"})
        after = served.post("/api/v1/runs", {"job": job, "name": "after"})
        run = served.until(entry["id"], lambda found: (found["step"] or 0) >= 45)
        folder = place.folder / "worker" / run["run"]
        os.kill(worker_pid(RunFolder(folder)), signal.SIGKILL)
        run = served.until(run["id"], lambda found: found["state"] != "running", seconds=3)
        assert run["state"] == "failed"
        assert run["error"]["what"] == "the worker, in train of plugin huggingface, was killed (SIGKILL)"
        assert "the last whole checkpoint is checkpoint-" in run["error"]["why"]
        assert run["error"]["do"].endswith(f"go on with: forge resume {folder}")
        assert run["can"]["resume"] is True
        assert served.settled(after["id"])["state"] == "trained"
        assert served.get("/api/v1/queue")["paused"] is None


@pytest.mark.slow
def test_a_stopped_training_goes_on_with_the_losses_of_one_that_was_not(place: Project, job: str) -> None:
    with serving(place.folder, "--runs-dir=stopped") as served:
        text = longer(job, max_steps=300, save_steps=300)
        entry = served.post("/api/v1/runs", {"job": text, "name": "stops"})
        run = served.until(entry["id"], lambda found: (found["step"] or 0) >= 3)
        assert served.post(f"/api/v1/runs/{run['id']}/stop", {})["stopping"] is True
        run = served.settled(run["id"])
        assert (run["state"], run["error"]) == ("stopped", None), run
        assert run["checkpoint"]
        assert served.call("POST", f"/api/v1/runs/{run['id']}/stop", {}).status == 409
        assert served.call("POST", f"/api/v1/runs/{run['id']}/export", {}).status == 409
        whole = served.post("/api/v1/runs", {"job": text, "name": "whole"})
        served.post(f"/api/v1/runs/{run['id']}/resume", {})
        assert served.call("POST", f"/api/v1/runs/{run['id']}/resume", {}).status == 409
        end = served.settled(whole["id"])
        run = served.until(run["id"], lambda found: found["state"] == "trained")
        root = place.folder / "stopped"
        assert losses(root / run["run"]) == losses(root / end["run"])


@pytest.mark.slow
def test_what_is_stopped_at_once_saves_nothing_and_is_no_failure(place: Project, job: str) -> None:
    with serving(place.folder, "--runs-dir=now") as served:
        entry = served.post("/api/v1/runs", {"job": longer(job, max_steps=4000, save_steps=4000), "name": "now"})
        run = served.until(entry["id"], lambda found: (found["step"] or 0) >= 3)
        served.post(f"/api/v1/runs/{run['id']}/stop", {"now": True})
        run = served.settled(run["id"])
        assert (run["state"], run["checkpoint"]) == ("stopped", None)


@pytest.mark.slow
def test_a_training_that_was_started_by_hand_is_seen_and_can_be_stopped(place: Project, job: str) -> None:
    (place.folder / "hand.toml").write_text(longer(job, max_steps=4000, save_steps=4000), encoding="utf-8")
    with serving(place.folder, "--runs-dir=hand") as served:
        process = place.start("run", "hand.toml", "--runs-dir=hand")
        wait_for(
            lambda: any(run["state"] == "running" and run["step"] for run in served.get("/api/v1/runs")["runs"]),
            pause=0.1,
        )
        run = served.get("/api/v1/runs")["runs"][0]
        assert served.get("/api/v1/queue")["by_hand"] == [run["run"]]
        served.post(f"/api/v1/runs/{run['id']}/stop", {})
        assert served.settled(run["id"])["state"] == "stopped"
        process.communicate(timeout=60)
        assert process.returncode == 130


@pytest.mark.slow
def test_a_trained_run_is_exported_measured_asked_and_thrown_away(place: Project, served: Served) -> None:
    run = "/api/v1/runs/old~20260101-000000"
    answer = served.post(f"{run}/chat", {"question": "Who?", "max_new_tokens": 4, "temperature": 0}, 200)
    base = served.post(f"{run}/chat", {"question": "Who?", "max_new_tokens": 4, "temperature": 0, "model": "base"}, 200)
    assert answer["tokens"] <= 4
    assert base["question"] == "Who?"
    asked = chats(place)
    assert len(asked) >= 2  # each with its worker
    entry = served.post(f"{run}/export", {"format": "merged"})
    served.until(entry["id"], lambda found: found["state"] == "trained" and found["exports"])
    wait_for(lambda: not asked & chats(place))  # the models have left memory to what began to run
    found = served.get(run)
    assert found["exports"][0]["format"] == "merged", found["error"]
    names = {each["name"] for each in found["files"]}
    assert "exports/1-merged/model.safetensors" in names
    zipped = served.call("GET", f"{run}/archive/exports/1-merged")
    assert zipped.body[:2] == b"PK"
    entry = served.post(f"{run}/eval", {"max_rows": 2})
    served.until("old~20260101-000000", lambda found: not found["waiting"] and found["state"] != "running")
    assert (place.runs / "old" / "20260101-000000" / "evaluations" / "1.json").exists()
    assert served.call("DELETE", run, {}).status == 422
    assert served.call("DELETE", run, {"confirm": "old~20260101-000000"}).status == 200
    assert served.call("GET", run).status == 404
    assert list((place.runs / ".trash").glob("old~20260101-000000-*/trained.json"))


@pytest.mark.slow
def test_a_model_that_answers_leaves_memory_with_its_server(place: Project, trained: Any) -> None:
    copied = place.runs / "asked" / "20260101-000000"
    shutil.copytree(trained[1].path, copied)
    for end in (Served.kill, Served.stop):
        served = serve(place.folder)
        body = {"question": "Who?", "max_new_tokens": 2}
        served.post("/api/v1/runs/asked~20260101-000000/chat", body, 200)
        asked = chats(place)
        assert asked
        end(served)
        wait_for(lambda asked=asked: not asked & chats(place))


def chats(place: Project) -> set[int]:
    """Return the processes that answer for runs of a project: `forge chat`, and its worker."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            said = path.read_bytes()
            if b"\0chat\0" + str(place.runs).encode() in said:
                found.add(int(path.parent.name))
    return found | {
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if (said := _read(path)) and int(said.rpartition(") ")[2].split()[1]) in found
    }


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


@pytest.mark.slow
def test_a_queue_is_worked_on_without_a_server(place: Project) -> None:
    def forge(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "forge", "queue", *arguments, "--runs-dir=alone"]
        done = subprocess.run(command, cwd=place.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = json.loads(forge("add", "job.toml", "--set", "train.max_steps=2", "--json"))
    second = json.loads(forge("add", "job.toml", "--dry-run", "--json"))
    third = json.loads(forge("add", "job.toml", "--json"))
    forge("rm", third["id"])
    assert [line["id"] for line in json.loads(forge("list", "--json"))] == [first["id"], second["id"]]
    said = forge("run", "--until-empty")
    assert f"{first['id']}  done" in said
    assert f"{second['id']}  done" in said
    states = {line["id"]: line["state"] for line in json.loads(forge("list", "--json"))}
    assert set(states.values()) == {"done"}
