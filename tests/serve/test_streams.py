"""Streams and what is read in parts: from a byte on, without loss, and bounded."""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forge.api.event import StepLogged
from forge.disk.events import EventLog
from forge.disk.folder import RunFolder
from forge_serve.watch import View
from forge_serve.web.drawing import curves, thinned
from forge_serve.web.server import STREAMS
from support.projects import wait_for

if TYPE_CHECKING:
    from support.projects import Project
    from support.serving import Served

OLD = "/api/v1/runs/old~20260101-000000"


@pytest.fixture
def events(place: Project) -> Path:
    """The events of the run that is there."""
    return place.runs / "old" / "20260101-000000" / "events.jsonl"


def test_events_are_read_from_any_byte_on(served: Served, events: Path) -> None:
    whole = served.call("GET", f"{OLD}/events")
    assert whole.body == events.read_bytes()
    place = int(whole.headers["forge-next"])
    assert place == events.stat().st_size
    assert served.call("GET", f"{OLD}/events?after={place}").body == b""
    tail = served.call("GET", f"{OLD}/events?tail=2")
    assert tail.body == b"".join(events.read_bytes().splitlines(keepends=True)[-2:])
    for wrong in ("after=x", "after=-1", "tail=0", "tail=1e3"):
        assert served.call("GET", f"{OLD}/events?{wrong}").status == 422


def test_a_stream_goes_on_behind_the_last_id_without_loss(served: Served, events: Path) -> None:
    lines = events.read_text().splitlines()
    with served.stream(f"{OLD}/events") as messages:
        first = [next(messages) for _ in range(5)]
    with served.stream(f"{OLD}/events", **{"Last-Event-ID": first[-1]["id"]}) as messages:
        rest = [next(messages) for _ in range(len(lines) - 5)]
    assert [message["data"] for message in (*first, *rest)] == lines
    assert int(rest[-1]["id"]) == events.stat().st_size


def test_an_event_is_in_a_stream_at_once_and_a_half_written_line_is_not(served: Served, events: Path) -> None:
    took = []
    with served.stream(f"{OLD}/events?after={events.stat().st_size}") as messages, events.open("ab") as file:
        for _ in range(5):  # the quickest counts: the machine may be busy
            file.write(b'{"time": 1, "kind": "note", ')
            file.flush()
            time.sleep(0.3)
            file.write(b'"message": "<script>\\u0000\\u001b[2J"}\n')
            file.flush()
            begun = time.monotonic()
            message = next(messages)
            took.append(time.monotonic() - begun)
            assert json.loads(message["data"])["message"] == "<script>\0\x1b[2J"
            assert "\x1b" not in message["data"]
    assert min(took) < 0.5, took


def test_broken_bytes_and_a_line_of_a_megabyte_come_whole(served: Served, events: Path) -> None:
    after = events.stat().st_size
    with events.open("ab") as file:
        file.write(b'{"kind": "note", "message": "\xff\xfe"}\n')
        file.write(b'{"kind": "note", "message": "' + b"x" * 2**20 + b'"}\n{"kind": "note", "message": "end"}\n')
    with served.stream(f"{OLD}/events?after={after}") as messages:
        found = [json.loads(next(messages)["data"])["message"] for _ in range(3)]
    assert (found[0], len(found[1]), found[2]) == ("\ufffd\ufffd", 2**20, "end")


def test_one_stream_tells_of_runs_the_queue_and_the_events_of_one(served: Served, place: Project, events: Path) -> None:
    with served.stream("/api/v1/stream?run=old~20260101-000000") as messages:
        hello = next(messages)
        assert hello["event"] == "hello"
        assert {run["id"] for run in json.loads(hello["data"])["runs"]} >= {"old~20260101-000000"}
        log = EventLog(events)
        log.append(StepLogged(9, 9, 1.25))
        log.close()
        kinds: dict[str, dict[str, object]] = {}
        while kinds.keys() < {"line", "run"}:
            message = next(messages)
            kinds[message["event"]] = json.loads(message["data"])
        assert kinds["line"]["loss"] == 1.25
        assert kinds["run"]["loss"] == 1.25
        served.call("PATCH", "/api/v1/queue", {"paused": True})
        while message["event"] != "queue":
            message = next(messages)
            if message["event"] == "queue":
                assert json.loads(message["data"])["paused"]["why"]
            assert message["event"] in {"queue", "run", "line"}
        served.call("PATCH", "/api/v1/queue", {"paused": False})


@pytest.mark.skipif(sys.platform != "linux", reason="the server's memory is read in /proc")
def test_who_does_not_read_keeps_neither_the_training_nor_others_waiting(served: Served, events: Path) -> None:
    def memory() -> int:
        status = Path(f"/proc/{served.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10

    asked = f"GET {OLD}/events HTTP/1.1\r\nHost: {served.host}\r\nAuthorization: Bearer {served.token}\r\n"
    whole = events.read_bytes()
    with ExitStack() as stack:
        stack.callback(events.write_bytes, whole)  # others are not to read it all
        for _ in range(3):
            lazy = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            lazy.sendall(f"{asked}Accept: text/event-stream\r\n\r\n".encode())
        line = json.dumps({"time": 1, "kind": "note", "message": "x" * 500}).encode() + b"\n"
        before = memory()
        with events.open("ab") as file:
            for _ in range(100):
                file.write(line * 1000)
        with served.stream(f"{OLD}/events?after={events.stat().st_size}") as messages:
            with events.open("ab") as file:
                file.write(b'{"time": 2, "kind": "note", "message": "last"}\n')
            assert json.loads(next(messages)["data"])["message"] == "last"  # the stream gives up after 20 s
        assert memory() - before < 48 << 20, "what is not read is kept"


def test_so_many_streams_are_open_and_no_more(served: Served) -> None:
    for _ in range(2):  # again, since each gives back its place
        with ExitStack() as stack:
            for _ in range(STREAMS):  # those of a test before may have a moment to go
                wait_for(lambda: _opens(served, stack), seconds=20, pause=0.05)
            found = served.call("GET", "/api/v1/stream")
            assert found.status == 429
            assert found.headers["retry-after"]
            assert served.call("GET", "/api/v1/runs").status == 200


def _opens(served: Served, stack: ExitStack) -> bool:
    try:
        stack.enter_context(served.stream("/api/v1/stream"))
    except AssertionError:
        return False
    return True


def test_a_log_is_read_in_parts(served: Served, place: Project) -> None:
    log = place.runs / "old" / "20260101-000000" / "log.txt"
    log.write_bytes(b"one\ntwo\n\xff\x1b[31mred\x1b[0m\n")
    found = served.call("GET", f"{OLD}/log?bytes=4&from=4")
    assert (found.text, found.headers["forge-next"]) == ("two\n", "8")
    tail = served.call("GET", f"{OLD}/log?bytes=14")
    assert tail.headers["content-type"] == "text/plain; charset=utf-8"
    assert tail.headers["forge-size"] == str(log.stat().st_size)
    assert "\ufffd" in served.call("GET", f"{OLD}/log").text


def test_a_run_is_shown_with_its_curves_its_numbers_and_its_page(served: Served) -> None:
    figures = served.get(f"{OLD}/charts")["figures"]
    assert figures[0]["name"] == "loss"
    assert figures[0]["html"].startswith("<figure")
    one = served.call("GET", f"{OLD}/charts/loss")
    assert "sandbox" in one.headers["content-security-policy"]
    series = served.get(f"{OLD}/series?points=4")
    assert len(series["steps"]["loss"][0]) <= 4
    report = served.call("GET", f"{OLD}/report")
    assert report.body.startswith(b"<!DOCTYPE html>")
    assert "sandbox" in report.headers["content-security-policy"]
    assert served.call("GET", f"{OLD}/charts/nothing").status == 404


def test_a_run_that_went_on_from_a_checkpoint_shows_no_step_that_was_trained_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "name" / "20260101-000000")
    folder.path.mkdir(parents=True)
    (folder.path / "plan.json").write_text("{")
    view = View(folder, "name~20260101-000000")

    def happened(*events: dict[str, object]) -> dict[str, object]:
        with folder.events.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"time": 1.0, **event}) + "\n" for event in events)
        view.read()
        return view.line()

    def trained(steps: range, loss: float) -> list[dict[str, object]]:
        return [{"kind": "step", "step": step, "of": 8, "loss": loss} for step in steps]

    begun: list[dict[str, object]] = [{"kind": "training", "steps": 8, "from": 0}, *trained(range(1, 7), 2.0)]
    line = happened(*begun, {"kind": "eval", "step": 4, "eval_loss": 1.0})
    assert (line["step"], line["loss"], line["eval_loss"]) == (6, 2.0, 1.0)
    line = happened({"kind": "training", "steps": 8, "from": 4})
    assert (line["step"], line["loss"], line["eval_loss"]) == (4, None, 1.0)
    line = happened(*trained(range(5, 7), 3.0))
    assert (line["step"], line["loss"]) == (6, 3.0)
    assert curves(folder)["series"]["steps"]["loss"] == [[1, 2, 3, 4, 5, 6], [2.0] * 4 + [3.0] * 2]
    line = happened({"kind": "training", "steps": 8, "from": 2})
    assert (line["step"], line["eval_loss"]) == (2, None)


def test_a_damaged_run_is_shown_as_far_as_it_can_be(served: Served, place: Project) -> None:
    folder = place.runs / "broken" / "20260102-000000"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{")
    (folder / "events.jsonl").write_bytes(b'{"kind": "failed", "error": 3}\n[1]\nnull\n\x00\n')
    wait_for(lambda: served.call("GET", "/api/v1/runs/broken~20260102-000000").status == 200, pause=0.05)
    found = served.get("/api/v1/runs/broken~20260102-000000")
    assert "plan" in found["unread"]
    assert served.call("GET", "/api/v1/runs/broken~20260102-000000/report").status == 200
    assert served.call("POST", "/api/v1/runs/broken~20260102-000000/resume", {}).status == 409


def test_lists_are_read_page_by_page(served: Served) -> None:
    every = [run["id"] for run in served.get("/api/v1/runs")["runs"]]
    first = served.get("/api/v1/runs?limit=1")
    assert [run["id"] for run in first["runs"]] == every[:1]
    if len(every) > 1:
        assert first["after"] == every[0]
        assert [run["id"] for run in served.get(f"/api/v1/runs?after={every[0]}")["runs"]] == every[1:]
    assert served.get("/api/v1/runs?state=running")["runs"] == []
    assert served.call("GET", "/api/v1/runs?limit=0").status == 422
    assert served.call("GET", "/api/v1/runs?after=nothing").status == 404


def test_thinning_keeps_what_is_lowest_and_highest() -> None:
    y = [0.0] * 1000
    y[500], y[501] = 9.0, -9.0
    x, values = thinned(list(range(1000)), y, 20)
    assert len(x) <= 20
    assert {9.0, -9.0} <= set(values)
    assert thinned([1, 2], [1.0, float("nan")], 5) == [[1, 2], [1.0, None]]
