"""Events: one JSON object a line, readable while it is written and after any kill."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Custom, Event
from forge.disk import events as module
from forge.disk.events import EventLog, Follower, last_event, read_events

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, *events: Event) -> list[dict[str, Any]]:
    log = EventLog(path)
    for event in events:
        log.append(event)
    log.close()
    return list(read_events(path))


def test_an_event_is_a_line_with_time_and_kind(tmp_path: Path) -> None:
    before = time.time()
    found = write(tmp_path / "e", Custom("step", more={"step": 1, "loss": 0.5}), Custom("done"))
    assert [{k: v for k, v in event.items() if k != "time"} for event in found] == [
        {"kind": "step", "step": 1, "loss": 0.5},
        {"kind": "done"},
    ]
    assert before - 1 < found[0]["time"] < time.time() + 1
    assert (tmp_path / "e").read_bytes().count(b"\n") == 2


def test_a_value_cannot_take_the_place_of_time_or_kind(tmp_path: Path) -> None:
    found = write(tmp_path / "e", Custom("step", more={"kind": "done", "time": 0, "step": 1}))[0]
    assert list(found) == ["time", "kind", "step"]
    assert (found["kind"], found["time"] > 0) == ("step", True)


def test_an_event_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "e")
    log.append(Custom("step"))
    assert [event["kind"] for event in read_events(tmp_path / "e")] == ["step"]
    log.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_becomes_null(tmp_path: Path, value: float) -> None:
    found = write(tmp_path / "e", Custom("step", more={"loss": value, "all": [value, {"x": value}]}))
    assert (found[0]["loss"], found[0]["all"]) == (None, [None, {"x": None}])
    json.loads((tmp_path / "e").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_numbers_of_numpy_and_torch_become_numbers_and_lists(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    values = {
        "half": numpy.float32(0.5),
        "whole": numpy.int64(3),
        "yes": numpy.bool_(True),
        "nan": numpy.float64("nan"),
        "many": numpy.array([1.0, float("nan")]),
    }
    found = write(tmp_path / "e", Custom("step", more=values))[0]
    assert {key: found[key] for key in values} == {"half": 0.5, "whole": 3, "yes": True, "nan": None, "many": [1, None]}


def test_whatever_else_is_in_an_event_becomes_text(tmp_path: Path) -> None:
    found = write(tmp_path / "e", Custom("note", more={"path": tmp_path, 3: ("a", {"b"}), "none": None}))[0]
    assert (found["path"], found["3"], found["none"]) == (str(tmp_path), ["a", ["b"]], None)


def test_a_name_that_is_no_text_can_be_written_down(tmp_path: Path) -> None:
    name = b"caf\xe9.jsonl".decode(errors="surrogateescape")
    assert write(tmp_path / "e", Custom("note", more={"file": name, "more": "é"}))[0]["file"] == name


def test_half_a_line_of_a_killed_worker_is_skipped_and_the_next_worker_begins_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "e"
    write(path, Custom("step", more={"step": 1}), Custom("step", more={"step": 2}))
    path.write_bytes(path.read_bytes()[:-9])
    found = write(path, Custom("step", more={"step": 3}))
    assert [event["step"] for event in found] == [1, 3]


def test_a_log_that_ends_well_gets_no_empty_line(tmp_path: Path) -> None:
    write(tmp_path / "e", Custom("a"))
    write(tmp_path / "e", Custom("b"))
    assert (tmp_path / "e").read_bytes().count(b"\n") == 2


def test_no_file_has_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "nowhere")) == []
    assert list(Follower(tmp_path / "nowhere").poll()) == []


def test_a_follower_sees_each_event_once_and_only_when_its_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "e"
    write(path, Custom("old"))
    follower = Follower(path)
    assert list(follower.poll()) == []
    text = '{"kind": "näher"}\n'.encode()
    with path.open("ab") as file:
        for cut in (0, 12):  # in the middle of a letter's two bytes
            file.write(text[cut : cut + 12])
            file.flush()
            seen = [event.kind for event in follower.poll()]
            assert seen == ([] if cut == 0 else ["näher"])
        file.write(text * 2)
    assert len(list(follower.poll())) == 2
    assert list(follower.poll()) == []


def test_a_follower_may_come_before_the_file(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "e")
    write(tmp_path / "e", Custom("a"))
    assert [event.kind for event in follower.poll()] == ["a"]


def test_lines_that_are_no_events_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('[1]\n"x"\n3\n{"no": "kind"}\n{"kind": "step", "step": 1}\n{"ki', encoding="utf-8")
    assert [event["kind"] for event in read_events(path)] == ["step"]


@pytest.mark.parametrize("piece", [1, 7, 64, 2**16])
@pytest.mark.parametrize("end", [b"", b"\n\n", b'{"kind": "half', b"[1]\nnull\n"])
def test_the_last_event_is_read_from_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, end: bytes
) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    path = tmp_path / "e"
    assert last_event(path) is None
    path.write_bytes(end)
    assert last_event(path) is None
    for count in (1, 5):
        lines = [json.dumps({"kind": f"k{number}", "text": "x" * number * 9}) for number in range(count)]
        path.write_bytes("\n".join(lines).encode() + b"\n" + end)
        assert last_event(path) == json.loads(lines[-1])
