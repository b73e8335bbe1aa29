"""Several processes that train together: beginning them, having something befall one, seeing what is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forge.disk.events import read_events
from forge.disk.folder import RunFolder
from support.projects import Project, processes_of, step_now, wait_for

TWO = ("--set", "launch.processes=2")
SHARED: dict[str, Any] = {"gradient_accumulation_steps": 2}
"""``[train]`` of a job whose steps two processes can share."""

Reached = Callable[[RunFolder], bool]


def numbers(folder: RunFolder, *names: str) -> list[list[float]]:
    """Return what the trainer logged."""
    lines = [event for event in read_events(folder.events) if event["kind"] in {"step", "eval"}]
    return [[event[name] for name in names if name in event] for event in lines]


def run(project: Project, *arguments: str) -> RunFolder:
    """Run the project's job to its end."""
    project.forge("run", "job.toml", *arguments)
    return project.newest()


def in_stage(name: str) -> Reached:
    """Return whether a run has begun with a stage."""
    return lambda folder: any(event.get("stage") == name for event in read_events(folder.events))


def trained(step: int) -> Reached:
    """Return whether a run has made a step."""
    return lambda folder: step_now(folder) >= step


def begin(project: Project, reached: Reached) -> tuple[subprocess.Popen[str], RunFolder, dict[int, int]]:
    """Begin a long training in two processes; return when it has come somewhere, with its workers by their rank."""
    process = project.begin(*TWO, "--set", "train.max_steps=5000")
    try:
        folder = project.newest()
        wait_for(lambda: len(processes_of(folder)) == 2 and reached(folder))
    except BaseException:
        process.kill()
        raise
    return process, folder, processes_of(folder)


def end(process: subprocess.Popen[str], folder: RunFolder, pids: dict[int, int], within: float) -> str:
    """Wait for a command that something befell, and see that nothing of it is left; return what it said."""
    began = time.monotonic()
    said = process.communicate(timeout=within)[0]
    told(time.monotonic() - began, said)
    wait_for(lambda: is_free(folder, pids), within - (time.monotonic() - began))
    return said


def told(seconds: float, said: str) -> None:
    """Print when a command ended and what it said, for who wants a table (``pytest -rP``)."""
    lines = [line for line in said.splitlines() if line.startswith(("error", "stopped", "   "))]
    sys.stdout.write("\n  ".join([f"ended after {seconds:.1f} s:", *lines[-6:]]) + "\n")


def is_free(folder: RunFolder, pids: dict[int, int]) -> bool:
    """Tell whether no worker is left, and nothing holds the folder."""
    return not folder.busy() and not any(_alive(pid) for pid in pids.values())


def _alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SITE = """\
import importlib.util, os, sys, time

class Befall:
    def find_spec(self, full, path=None, target=None):
        if full != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(full)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            *names, last = {name!r}.split(".")
            owner = module
            for name in names:
                owner = getattr(owner, name)
            real, calls = getattr(owner, last), []
            def function(*arguments, **settings):
                calls.append(time.time())
                if len(calls) == {call}:
                    with open({file!r}, "w") as file:
                        file.write(str(time.time()))
                    {what}
                return real(*arguments, **settings)
            setattr(owner, last, function)
        spec.loader.exec_module = exec_module
        return spec

if os.environ.get("RANK") == "{rank}":
    sys.meta_path.insert(0, Befall())
"""


class Befallen:
    """Something that befalls one process of a training, where it calls a function for the nth time.

    Args:
        project: The project.
        where: The function, as ``module:name``.
        what: A line of Python, called before it.
        call: At which call.
        rank: Of which process.
    """

    def __init__(self, project: Project, where: str, what: str, call: int = 1, rank: int = 1) -> None:
        module, _, name = where.partition(":")
        site = project.folder / "site"
        site.mkdir(exist_ok=True)
        self._when = project.folder / "befallen"
        values = {"module": module, "name": name, "call": call, "file": str(self._when), "what": what, "rank": rank}
        (site / "sitecustomize.py").write_text(SITE.format(**values), encoding="utf-8")
        self.environ = {"PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        self.project = project

    def run(self, *arguments: str, code: int = 1, **environ: str) -> tuple[str, float]:
        """Run the job in two processes; return what was said, and how many seconds after it had befallen one."""
        said = self.project.forge("run", "job.toml", *TWO, *arguments, code=code, **self.environ, **environ)
        seconds = time.time() - float(self._when.read_text())
        told(seconds, said)
        folder = self.project.newest()
        assert not folder.busy()
        assert not processes_of(folder)
        return said, seconds


def weights(folder: RunFolder) -> bytes:
    """Return the trained adapter."""
    return (folder.path / "adapter" / "adapter_model.safetensors").read_bytes()
