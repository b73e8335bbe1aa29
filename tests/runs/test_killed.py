"""Kills within one operation on a file: what they leave half done is gone after the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from forge.disk.checkpoints import MARK, checkpoints
from support.resuming import resumed

if TYPE_CHECKING:
    from forge.disk.folder import RunFolder
    from support.projects import Project

KILLED = """
import os, pathlib, runpy, shutil, signal, sys

def die():
    os.kill(os.getpid(), signal.SIGKILL)

replace, remove = pathlib.Path.replace, shutil.rmtree

def before_rename(path, target):
    if pathlib.Path(target).name == "trained.json":
        die()
    return replace(path, target)

def within_deletion(path, *arguments, **options):
    if pathlib.Path(path).name == "checkpoint-4":
        next(each for each in pathlib.Path(path).iterdir() if each.is_file()).unlink()
        die()
    return remove(path, *arguments, **options)

where = sys.argv.pop(1)
if where == "before a rename":
    pathlib.Path.replace = before_rename
elif where == "within the last deletion":
    shutil.rmtree = within_deletion
else:
    import forge.disk.checkpoints
    forge.disk.checkpoints.rotate = lambda folder, *rest: die() if (folder / "checkpoint-8").exists() else []
runpy.run_module("forge.worker", run_name="__main__")
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize(
    "where",
    [
        "before a rename",
        pytest.param("within the last deletion", marks=pytest.mark.slow),
        pytest.param("before the last deletion", marks=pytest.mark.slow),
    ],
)
def test_what_a_kill_leaves_half_done_is_gone_after_the_next_start(project: Project, where: str) -> None:
    project.write(train={"max_steps": 8, "save_steps": 2})
    whole = project.perform()
    run, folder = project.prepare()
    command = [sys.executable, "-c", KILLED, where, str(run.folder), str(folder.plan_paths()[-1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as worker:
        assert worker.wait(120) == -signal.SIGKILL  # its input stays open: else it would take its parent for gone
    assert left(folder), "the kill came elsewhere"
    assert resumed(folder).code == 0
    assert left(folder) == []
    weights = [each.path / "adapter" / "adapter_model.safetensors" for each in (whole.folder, folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def left(folder: RunFolder) -> list[str]:
    """Return what no whole run has: half written files, checkpoints that are not whole, and more than two."""
    found = checkpoints(folder.checkpoints)
    half = [path for path in found if not (path / MARK).exists()]
    return [str(path) for path in [*folder.path.rglob(".*.part"), *half, *found[:-2]]]
