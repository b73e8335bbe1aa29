"""Where events go, and what a worker may have imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from forge.api import Data, Noted
from forge.api.plan import Plan
from forge.disk.events import EventLog, read_events
from forge.errors import PluginError
from forge.worker.imports import check_imports, preload
from forge.worker.sink import Sink
from forge.worker.tasks import check_processor
from support.observing import run_of

ROOMS = ("planning", "discovery", "text", "parent", "cli")


def test_a_worker_imports_no_room_that_chooses() -> None:
    code = (
        "import json, sys, forge.worker.__main__; print(json.dumps([n for n in sys.modules if n.startswith('forge')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert [name for name in loaded if name.startswith(tuple(f"forge.{room}" for room in ROOMS))] == []
    assert "forge.job.check" not in loaded, "the job was checked by the parent"
    assert not [name for name in loaded if name.startswith("forge_")]


def test_an_observer_sees_what_comes_after_it_was_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sees_all.py").write_text(
        "from forge.api import hookimpl\nseen = []\n@hookimpl\ndef forge_event(event): seen.append(event.kind); 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    log = EventLog(tmp_path / "events.jsonl")
    sink = Sink(log)
    sink(Noted("before"))
    sink.admit(run_of(("x", "sees_all")))
    sink(Noted("after"))
    log.close()
    assert sys.modules["sees_all"].seen == ["note"]
    assert [event["message"] for event in read_events(tmp_path / "events.jsonl")][:2] == ["before", "after"]


def test_an_observer_sees_the_run_with_its_own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sees_run.py").write_text(
        "from forge.api import hookimpl\nseen = []\n"
        "@hookimpl\ndef forge_event(run, event): seen.append((event.kind, run.plugin, run.config))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    log = EventLog(tmp_path / "events.jsonl")
    sink = Sink(log)
    sink.admit(run_of(("x", "sees_run")))
    sink(Noted("now"))
    log.close()
    assert sys.modules["sees_run"].seen == [("note", "x", {"colour": "blue"})]


def test_an_observer_that_exits_stops_nobody_and_a_plugin_may_have_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "from forge.api import hookimpl\nseen = []\n"
        "@hookimpl\ndef forge_event(event):\n    seen.append(event.kind)\n    raise SystemExit(3)\n"
    )
    for name in ("first_of_two", "second_of_two"):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    log = EventLog(tmp_path / "events.jsonl")
    sink = Sink(log)
    sink.admit(run_of(("x", "first_of_two"), ("x", "second_of_two")))
    sink(Noted("after"))
    log.close()
    assert sys.modules["first_of_two"].seen == sys.modules["second_of_two"].seen == ["note"]


@pytest.mark.parametrize("name", ["forge_evnt", "forge_train"])
def test_an_observer_with_a_typo_in_its_hook_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / f"typo_{name}.py").write_text(f"from forge.api import hookimpl\n@hookimpl\ndef {name}(event): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(PluginError, match=f"plugin x cannot act on this run: unknown hook '{name}'"):
        Sink(log).admit(run_of(("x", f"typo_{name}")))
    log.close()


def test_an_observer_with_another_hook_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wraps.py").write_text(
        "from forge.api import hookimpl\n@hookimpl(wrapper=True)\ndef forge_train(): return (yield)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(PluginError, match="plugin x cannot act on this run: unknown hook 'forge_train'"):
        Sink(log).admit(run_of(("x", "wraps")))
    log.close()


def test_an_observer_that_raises_anything_at_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd.py").write_text("class Odd(BaseException): pass\nraise Odd('own kind')\n")
    monkeypatch.syspath_prepend(tmp_path)
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(PluginError, match="plugin x cannot act on this run: Odd: own kind"):
        Sink(log).admit(run_of(("x", "odd")))
    log.close()


def test_modules_that_offers_say_change_others_are_refused_where_they_are_not_planned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "patches_all", SimpleNamespace())  # type: ignore[arg-type]
    check_imports(cast(Plan, SimpleNamespace(refused=("other",))))
    with pytest.raises(PluginError, match="patches_all was imported though the plan does not have it"):
        check_imports(cast(Plan, SimpleNamespace(refused=("patches_all",))))


def test_what_must_come_first_is_refused_once_the_others_are_there() -> None:
    with pytest.raises(PluginError, match="json came before patches_all"):
        preload(cast(Plan, SimpleNamespace(preload=("patches_all",), before=("json", "nowhere"))))


def test_what_must_not_change_about_a_processor_is_for_its_plugin_to_say() -> None:
    processor = {"size": 3, "name": "a"}
    data = Data(
        processor=processor, train=[], eval={}, layout="tokens", digest="d", fingerprint=lambda found: found["size"]
    )
    check_processor(data, 3, "loading")
    processor["name"] = "b"
    check_processor(data, 3, "loading")
    processor["size"] = 4
    with pytest.raises(PluginError, match="loading changed the tokenizer"):
        check_processor(data, 3, "loading")
    check_processor(replace(data, fingerprint=None), None, "loading")
