"""The queue as files: what is added, ordered, taken, removed, and what became of it, without any process."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from forge.api import RunError, UsageError
from forge.disk.files import write_json
from forge.disk.owner import hold
from forge_serve.queue.dispatcher import Dispatcher, slots_of
from forge_serve.queue.entry import STARTING, Place
from forge_serve.queue.shelf import MOST, Shelf, listing
from forge_serve.queue.supervisor import clean


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty queue."""
    return Shelf(tmp_path / "runs")


def added(shelf: Shelf, name: str = "a") -> Place:
    """Return an entry that waits."""
    return shelf.add("run", name, job="[model]\n", folder=shelf.runs)


def names(shelf: Shelf) -> list[str]:
    """Return the names of what waits, the next first."""
    return [place.entry.name for place in shelf.waiting()]


def begun(place: Place, shelf: Shelf, ago: float = STARTING + 1) -> Place:
    """Return an entry that was started a while ago, by a supervisor that is gone."""
    assert shelf.claim(place)
    write_json(place.path / "begun.json", {"time": time.time() - ago, "devices": None})
    return place


def run_of(place: Place, shelf: Shelf, *events: dict[str, object]) -> Path:
    """Write the run folder of an entry, with its events."""
    run = shelf.runs / "a" / "20260101-000000"
    run.mkdir(parents=True)
    (run / "plan.json").write_text("{}")
    (run / "events.jsonl").write_text("".join(json.dumps({"time": 1.0, **event}) + "\n" for event in events))
    write_json(place.path / "run.json", {"run": str(run)})
    return run


def test_entries_wait_in_the_order_of_their_making_and_can_be_moved(shelf: Shelf) -> None:
    for name in "abcd":
        added(shelf, name)
    assert names(shelf) == list("abcd")
    by_name = {place.entry.name: place for place in shelf.waiting()}
    shelf.move(by_name["d"], 0)
    assert names(shelf) == list("dabc")
    shelf.move(by_name["a"], 99)
    assert names(shelf) == list("dbca")
    shelf.move(by_name["d"], 2)
    assert names(shelf) == list("bcda")
    shelf.move(by_name["d"], 2)
    assert names(shelf) == list("bcda")


def test_an_entry_is_taken_once_whoever_asks(shelf: Shelf) -> None:
    place = added(shelf)
    assert shelf.claim(place)
    assert not shelf.claim(Place(place.path))
    assert names(shelf) == []
    with pytest.raises(RunError, match="has been started"):
        shelf.remove(place)
    with pytest.raises(RunError, match="waits no longer"):
        shelf.move(place, 0)


def test_what_a_killed_dispatcher_took_and_did_not_start_waits_again(shelf: Shelf) -> None:
    place = added(shelf)
    shelf.claim(place)
    dispatcher = Dispatcher(shelf)
    assert dispatcher.take()
    assert names(shelf) == ["a"]
    dispatcher.close()


def test_one_dispatcher_starts_and_others_look_on(shelf: Shelf) -> None:
    first, second = Dispatcher(shelf), Dispatcher(shelf)
    assert first.take()
    assert not second.take()
    added(shelf)
    assert second.step() == []
    first.close()
    assert second.take()
    second.close()


def test_an_entry_that_waits_can_be_removed(shelf: Shelf) -> None:
    place = added(shelf)
    shelf.remove(shelf.find(place.entry.id[:-2]))
    assert names(shelf) == []
    with pytest.raises(RunError, match="there is no entry"):
        shelf.find(place.entry.id)


def test_more_than_a_hundred_do_not_wait(shelf: Shelf) -> None:
    for _ in range(MOST):
        added(shelf)
    with pytest.raises(UsageError, match="the queue is full"):
        added(shelf)


def test_the_end_that_a_supervisor_wrote_counts(shelf: Shelf) -> None:
    place = begun(added(shelf), shelf)
    write_json(place.path / "ended.json", {"state": "stopped", "time": 1.0, "code": 130, "error": None})
    assert place.state() == "stopped"
    assert listing(shelf)[0]["state"] == "stopped"


def test_an_entry_whose_supervisor_lives_or_is_just_starting_runs(shelf: Shelf) -> None:
    place = begun(added(shelf), shelf)
    with hold(place.path / ".lock"):
        assert place.state() == "running"
        assert [found.entry.id for found in shelf.going()] == [place.entry.id]
    assert place.state() == "lost"
    assert begun(added(shelf, "b"), shelf, ago=0).state() == "running"


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([{"kind": "preloaded"}, {"kind": "failed", "error": {"what": "broke"}}], "failed"),
        ([{"kind": "preloaded"}, {"kind": "stopped", "message": "x"}], "stopped"),
        ([{"kind": "preloaded"}, {"kind": "step", "step": 3}], "lost"),
        ([{"kind": "failed", "error": {"what": "broke"}}, {"kind": "preloaded"}, {"kind": "step", "step": 4}], "lost"),
    ],
)
def test_where_a_supervisor_was_killed_the_runs_files_tell(
    shelf: Shelf, events: list[dict[str, object]], state: str
) -> None:
    place = begun(added(shelf), shelf)
    run = run_of(place, shelf, *events)
    found = place.outcome()
    assert found["state"] == state
    if state == "lost":
        assert f"forge resume {run}" in found["error"]["do"]
    with ExitStack() as stack:
        stack.enter_context(hold(run / ".lock"))
        assert place.state() == "running", "its worker lives"


def test_a_damaged_entry_is_left_out_and_told_where_it_is_asked_for(shelf: Shelf) -> None:
    place = added(shelf)
    added(shelf, "b")
    (place.path / "entry.json").write_text("{")
    assert names(Shelf(shelf.runs)) == ["b"]
    with pytest.raises(RunError, match="is damaged"):
        Place(place.path)


def test_a_stop_is_a_wish_and_now_is_a_stronger_one(shelf: Shelf) -> None:
    place = begun(added(shelf), shelf, ago=0)
    shelf.ask_to_stop(place, now=False)
    assert (place.path / "stop").read_text() == "stop"
    shelf.ask_to_stop(place, now=True)
    shelf.ask_to_stop(place, now=False)
    assert (place.path / "stop").read_text() == "now"
    with pytest.raises(RunError, match="does not run"):
        shelf.ask_to_stop(added(shelf, "b"), now=False)


def test_a_slot_is_a_set_of_gpus() -> None:
    assert slots_of("") == [None]
    assert slots_of("0; 1 ,2") == ["0", "1,2"]
    for wrong in ("0;;1", "0,", "0;0"):
        with pytest.raises(UsageError):
            slots_of(wrong)


def test_a_training_gets_the_gpus_of_its_slot_and_nothing_of_the_servers_own() -> None:
    environ = {"FORGE_SERVE_TOKEN": "x", "HF_TOKEN": "y", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert clean(environ, "1") == {"HF_TOKEN": "y", "CUDA_VISIBLE_DEVICES": "1"}
    assert clean(environ, None) == {"HF_TOKEN": "y", "CUDA_VISIBLE_DEVICES": "0,1"}


def test_a_paused_queue_begins_nothing(shelf: Shelf) -> None:
    dispatcher = Dispatcher(shelf)
    dispatcher.take()
    added(shelf)
    shelf.pause("of a test")
    assert dispatcher.step() == []
    assert shelf.paused() is not None
    shelf.go_on()
    assert shelf.paused() is None
    dispatcher.close()


def test_a_command_is_what_a_user_would_type(shelf: Shelf) -> None:
    place = shelf.add("dry-run", "a", job="", folder=shelf.runs, options=["--set=train.max_steps=3"])
    job = place.path / "a.toml"
    runs = f"--runs-dir={shelf.runs}"
    assert place.command() == [
        "run",
        str(job),
        f"--job-dir={shelf.runs}",
        "--dry-run",
        "--set=train.max_steps=3",
        runs,
        "--json",
    ]
    again = shelf.add("resume", "a", run=shelf.runs / "a" / "1")
    assert again.command() == ["resume", str(shelf.runs / "a" / "1"), runs, "--json"]
