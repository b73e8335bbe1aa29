"""A project in a folder: a tiny model, rows and a job, and ways to run it in this process or in real ones."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tomli_w

from forge.api.plan import Task
from forge.api.run import Run
from forge.discovery.catalogue import Catalogue
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.disk.checkpoints import checkpoints
from forge.disk.events import EventLog, read_events
from forge.disk.folder import RunFolder
from forge.job.decisions import settle
from forge.job.read import read
from forge.machine.probe import probe
from forge.planning.planner import make_plan
from forge.worker.perform import perform
from forge.worker.sink import Sink
from forge_huggingface.facts.describe import describe
from support.tiny import make_rows

BASE: dict[str, Any] = {
    "model": {"id": "model", "max_seq_length": 128},
    "adapter": {"r": 4, "lora_alpha": 8},
    "data": {"path": "rows.jsonl"},
    "train": {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_steps": 2,
        "gradient_checkpointing": False,
    },
}


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return two nested dicts as one; the second wins, and None removes."""
    result = dict(first)
    for key, value in second.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


class Project:
    """A folder with ``model/``, ``rows.jsonl`` and ``job.toml``."""

    def __init__(self, folder: Path, model: Path, rows: int = 16) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.runs = folder / "runs"
        shutil.copytree(model, folder / "model")
        make_rows(folder / "rows.jsonl", rows)
        self.write()

    def write(self, **changes: Any) -> Path:
        """Write ``job.toml``: the base job with changes."""
        path = self.folder / "job.toml"
        path.write_text(tomli_w.dumps(merged(BASE, changes)), encoding="utf-8")
        return path

    # In this process: fast, and what a stage raises can be seen.

    def prepare(self, *, task: Task = Task.TRAIN, catalogue: Catalogue | None = None) -> tuple[Run, RunFolder]:
        """Plan the job and make its run folder, as the parent does."""
        catalogue = catalogue or discover({})
        file = read(self.folder / "job.toml", PluginKeys(catalogue))
        facts = describe(file.job.model.id, file.job.model.revision, file.job.folder)
        plan = make_plan(file, catalogue, probe(), facts, task=task)
        folder = RunFolder.create(self.runs, file)
        folder.add_plan(plan)
        folder.write_lock(settle(file.job, plan.decisions), plan)
        return Run(folder=folder.path, plan=plan), folder

    def perform(self, *, task: Task = Task.TRAIN) -> Finished:
        """Do a worker's work in this process."""
        run, folder = self.prepare(task=task)
        return perform_in(run, folder)

    # In real processes.

    def start(self, *arguments: str, cwd: Path | str | None = None, **environ: str) -> subprocess.Popen[str]:
        """Start ``forge`` with arguments in the project's folder, or another one."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "forge", *arguments],
            cwd=cwd or self.folder,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def begin(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start ``forge run job.toml`` and wait until its run folder is there."""
        known = len(list(self.runs.glob("*/*/plan.json")))
        process = self.start("run", "job.toml", *arguments, cwd=None, **environ)
        wait_for(lambda: len(list(self.runs.glob("*/*/plan.json"))) > known)
        return process

    def forge(self, *arguments: str, code: int | None = 0, **environ: str) -> str:
        """Run ``forge`` to its end and return what it printed."""
        process = subprocess.run(
            [sys.executable, "-P", "-m", "forge", *arguments],
            cwd=self.folder,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        output = process.stdout + process.stderr
        assert code is None or process.returncode == code, output
        return output

    def newest(self) -> RunFolder:
        """Return the newest run."""
        return RunFolder(max(path.parent for path in self.runs.glob("*/*/plan.json")))


class Finished:
    """What a worker's work in this process came to."""

    def __init__(self, code: int, folder: RunFolder, printed: str) -> None:
        self.code, self.folder, self.printed = code, folder, printed

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events of the run."""
        return list(read_events(self.folder.events))

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event for event in self.events if event["kind"] == kind]

    @property
    def error(self) -> dict[str, Any]:
        """The error that the worker reported."""
        failed = self.of_kind("failed")
        assert failed, self.printed
        error: dict[str, Any] = failed[-1]["error"]
        return error

    @property
    def losses(self) -> list[float]:
        """The losses of the logged steps."""
        return [event["loss"] for event in self.of_kind("step")]


def perform_in(run: Run, folder: RunFolder) -> Finished:
    """Perform a run's plan in this process, as its worker would."""
    printed = io.StringIO()
    log = EventLog(folder.events)
    sink = Sink(log)
    with (
        contextlib.closing(log),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        patch.dict(os.environ, run.plan.environment),
    ):
        code = perform(replace(run, sink=sink), folder, sink)
    return Finished(code, folder, printed.getvalue())


def wait_for(condition: Any, seconds: float = 120, pause: float = 0.002) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(pause)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def cut_after(folder: RunFolder, step: int, weights: str = "adapter") -> None:
    """Leave a finished run as a kill after a checkpoint would have left it."""
    for path in checkpoints(folder.checkpoints):
        if int(path.name[11:]) > step:
            shutil.rmtree(path)
    (folder.path / "trained.json").unlink()
    shutil.rmtree(folder.path / weights)


def worker_pid(folder: RunFolder) -> int:
    """Return the process that holds a run's lock."""
    return int((folder.path / ".lock").read_text())


def processes_of(folder: RunFolder) -> dict[int, int]:
    """Return the processes of the workers that train together in a folder, by their rank."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text(errors="replace").split("\0")
            if "forge.worker" in words and folder.path in {(place / "cwd").readlink() / word for word in words}:
                environment = (place / "environ").read_text(errors="replace").split("\0")
                found[int(next(each[5:] for each in environment if each.startswith("RANK=")))] = int(place.name)
        except (OSError, StopIteration):
            continue
    return found


def step_now(folder: RunFolder) -> int:
    """Return the last step that the events tell of."""
    return max((event["step"] for event in read_events(folder.events) if event["kind"] == "step"), default=0)


def json_of(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
