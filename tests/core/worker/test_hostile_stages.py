"""Stages and observers that do to the run, and to their worker, what nobody should: it is put back, or named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import ForgeError, Noted, Warned
from forge.disk.events import EventLog, read_events
from forge.errors import told_by
from forge.testing import run_job
from forge.worker import sink as sinks
from forge.worker.place import kept
from forge.worker.sink import Sink
from support.observing import run_of

if TYPE_CHECKING:
    from forge.testing import Ran

HEAD = """
import locale, os, shutil, signal, sys, threading, time
from forge.api import Done, Evaluated, Exported, Extension, Interrupted, Offer, Stage, hookimpl
from forge.testing import light
"""
STAGES = f"""{HEAD}
@hookimpl
def forge_offers():
    able = light.LAYOUTS | {{"text", "packing"}}
    yield Offer(stage=Stage.COLLATE, impl="evil:collate", supports=able)
    yield Offer(stage=Stage.EXPORT, impl="evil:export", serves=frozenset({{"evil/tar"}}))

def collate(job, run):
    DO
    return light.collate(job, run)
"""
EXPORT = (
    STAGES.replace("    DO\n", "")
    + """
def export(job, run, trained, export, out):
    (out / "weights.tar").write_text("w")
    DO
    return Exported()
"""
)


def evil(folder: Path, text: str, act: str, toml: str) -> Ran:
    """Run a job with a plugin that does something."""
    (folder / "evil.py").write_text(text.replace("DO", textwrap.indent(act, "    ").strip()))
    return run_job(f'[use]\nplugins = ["./evil.py"]\n{toml}', folder)


COLLATE = 'collate = "evil"\n[train]\nmax_steps = 2\n'


@pytest.mark.parametrize(
    "act",
    [
        "os.chdir('/'); os.environ.clear(); sys.stdout.close(); os.close(1); os.close(2); sys.stdout = None",
        "locale.setlocale(locale.LC_ALL, 'C'); sys.stdout.reconfigure(encoding='utf-16'); print('of no account')\n"
        "job.train.options['max_steps'] = 7; job.export.clear()",
    ],
)
def test_what_a_stage_does_to_its_process_and_to_its_copy_of_the_job_harms_no_later_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = evil(Path(), STAGES, act, COLLATE + '[[export]]\nformat = "merged"\n')
    assert ran.trained.metrics == {"train_loss": 1.0}
    assert [path.name for path in ran.exports] == ["1-merged"]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("os._exit(0)", "the worker, in collate of plugin evil, ended with code 0: it reported no reason"),
        ("os.kill(os.getpid(), 9)", "the worker, in collate of plugin evil, was killed (SIGKILL)"),
        ("run.emit(Done('train')); os._exit(0)", "said that it was done, and has left no trained weights"),
        ("raise KeyboardInterrupt", "collate failed in plugin evil (local code"),
        (
            "class Own(BaseException):\n    def __str__(self): raise RuntimeError\nraise Own",
            "collate failed in plugin evil (local code",
        ),
    ],
)
def test_a_stage_that_ends_its_worker_or_raises_what_cannot_be_told_is_named(
    tmp_path: Path, act: str, said: str
) -> None:
    with pytest.raises(ForgeError) as caught:
        evil(tmp_path, STAGES, act, COLLATE)
    assert said in str(caught.value)


ASKS = '[[export]]\nformat = "evil/tar"\n[[export]]\nformat = "merged"\n'


def test_an_export_that_deletes_the_run_is_refused_and_all_is_put_back(tmp_path: Path) -> None:
    with pytest.raises(ForgeError) as caught:
        evil(tmp_path, EXPORT, "shutil.rmtree(run.folder)", ASKS)
    told = str(caught.value)
    assert "the model is trained and safe in" in told
    assert "but not exported (evil/tar): plugin evil (local code" in told
    assert "harmed the run while it exported: deleted and put back: " in told
    (folder,) = (tmp_path / "runs" / "job").iterdir()
    assert [path.name for path in sorted((folder / "exports").iterdir()) if path.is_dir()] == ["2-merged"]
    assert [event["format"] for event in read_events(folder / "events.jsonl") if event["kind"] == "exported"] == [
        "merged"
    ]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_an_export_has_deleted_is_put_back_although_it_ends_its_worker(tmp_path: Path) -> None:
    act = "shutil.rmtree(run.folder / trained.weights); os._exit(0)"
    with pytest.raises(ForgeError, match=r"trained and safe in .*: the worker, in export of plugin evil, ended with"):
        evil(tmp_path, EXPORT, act, ASKS)
    (folder,) = (tmp_path / "runs" / "job").iterdir()
    assert sorted(path.name for path in (folder / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_an_export_that_writes_over_the_weights_is_named_and_they_are_not_called_safe(tmp_path: Path) -> None:
    act = "(run.folder / trained.weights / 'adapter_model.safetensors').write_bytes(b'x')"
    with pytest.raises(ForgeError) as caught:
        evil(tmp_path, EXPORT, act, ASKS)
    told = str(caught.value)
    assert "the model is trained, and harmed, in" in told
    assert "written over: adapter/adapter_model.safetensors" in told
    assert "adapter_model.safetensors has 1 bytes, not" in told


def test_a_file_that_an_export_puts_among_the_weights_is_told(tmp_path: Path) -> None:
    ran = evil(tmp_path, EXPORT, "(run.folder / trained.weights / 'more.txt').write_text('m')", ASKS)
    told = [event.message for event in ran.events if isinstance(event, Warned)]
    assert [text.partition(") ")[2] for text in told] == [
        "wrote adapter/more.txt while it exported, which is among the run's own files"
    ]


def test_what_is_kept_of_a_run_is_put_back_and_told(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "run" / "exports" / "1.part"
    out.mkdir(parents=True)
    for name in ("plan.json", "exports/a", "log.txt", ".lock"):
        (run / name).write_text(name)
    with suppress(KeyError), kept(run, out=out) as harm:
        (out / "mine").write_text("m")
        (run / "plan.json").rename(out / "plan.json")
        (run / "exports" / "a").write_text("other")
        with (run / "log.txt").open("a") as log:
            log.write("more")
        (run / "exports" / "stray").write_text("s")
        (run / "of-an-observer").write_text("o")
        raise KeyError
    assert (harm.restored, harm.lost, harm.changed, harm.added) == (["plan.json"], [], ["exports/a"], ["exports/stray"])
    assert (run / "plan.json").read_text() == "plan.json"
    assert str(harm) == "deleted and put back: plan.json; written over: exports/a"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_be_put_back_where_files_have_one_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "plan.json").write_text("p")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    with kept(run) as harm:
        (run / "plan.json").unlink()
    assert (str(harm), harm.done) == ("deleted and lost: plan.json", True)


def test_what_cannot_end_since_a_plugin_left_a_thread_is_told_and_ends_by_a_stop(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, threading, time, types\nimport forge.worker.__main__ as main\nfrom forge.api import Run\n"
        "main.PATIENCE = 0.1\nthreading.Thread(target=time.sleep, args=(600,), name='left').start()\n"
        "run = Run(folder=pathlib.Path(), plan=None)\n"
        "run.sink = lambda event: (print(event.message, flush=True), run.stop.set())\n"
        "main.tell_of_threads(run, 3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    said = "all is done, but a plugin or library has left threads running: left; Ctrl-C to stop at once\n"
    assert (done.returncode, done.stdout) == (3, said), done.stderr


class Own(BaseException):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.fixture
def observed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Show events to an observer that does something, and return what is written down."""

    def show(act: str, *events: Any) -> list[dict[str, Any]]:
        head = "import os, time\nfrom forge.api import Noted, hookimpl\n@hookimpl\n"
        text = f"{head}def forge_event(event, run):\n    {act}\n"
        (tmp_path / "acts.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "acts", raising=False)
        log = EventLog(tmp_path / "events.jsonl")
        sink = Sink(log)
        run = run_of(("x", "acts"))
        run.sink = sink
        sink.admit(run)
        for event in events:
            sink(event)
        log.close()
        return list(read_events(tmp_path / "events.jsonl"))

    return show


@pytest.mark.parametrize("act", ["raise KeyboardInterrupt", "raise SystemExit(3)", "1 / 0", "run.plan = None"])
def test_what_an_observer_raises_stops_nothing_and_is_told_once(observed: Any, act: str) -> None:
    found = observed(act, Noted("one"), Noted("two"))
    assert [event["kind"] for event in found] == ["note", "warning", "note"]
    assert found[1]["message"].startswith("observer x: acts failed at an event, which stops nothing: ")


def test_an_observer_is_not_shown_what_it_emits_itself(observed: Any) -> None:
    found = observed("run.emit(Noted('again'))", Noted("one"))
    assert [event["message"] for event in found] == ["one", "again"]


def test_an_observer_that_goes_elsewhere_takes_nobody_with_it(observed: Any) -> None:
    before = Path.cwd()
    observed("os.chdir('/')", Noted("one"))
    assert Path.cwd() == before


def test_an_observer_that_training_waits_for_is_named(observed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "NAMED_AFTER", 0.2)
    found = observed("time.sleep(0.15)", Noted("one"), Noted("two"), Noted("three"))
    (told,) = (event["message"] for event in found if event["kind"] == "warning")
    assert told.startswith("observer x: acts has taken 0 of the 0 seconds so far; training waits for it")
    found = observed("time.sleep(0.5)", Noted("four"))
    assert "waiting for observer x: acts, which is not done with an event" in [event["message"] for event in found]


def test_an_error_whose_text_cannot_be_had_is_told_by_its_class() -> None:
    assert (told_by(Own()), told_by(KeyError("a")), told_by(SystemExit())) == ("Own", "KeyError: 'a'", "SystemExit")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_run_can_be_stopped_though_a_stage_ignores_signals(tmp_path: Path) -> None:
    act = "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)"
    (tmp_path / "evil.py").write_text(STAGES.replace("DO", textwrap.indent(act, "    ").strip()))
    toml = '[use]\nplugins = ["./evil.py"]\ncollate = "evil"\n[train]\nmax_steps = 600\npause = 0.1\n'
    code = "import sys, pathlib, forge.testing as t; t.run_job(sys.argv[1], pathlib.Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, toml, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/*/checkpoints/*/state.json")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert "Interrupted: stopped" in said, said
    assert "go on with: forge resume" in said
