"""A double of SkyPilot's command ``sky``, and of ``aws s3 sync`` for the bucket that it mounts.

It reads the task file that forge wrote, and does on this computer what a machine in a cloud would do: it copies the
work folder, and runs the task's ``run`` in a process of its own. This is a double: it knows the commands and answers
that forge uses, written after the help and the source of SkyPilot 0.14.1. ``setup`` is not run, for it would install
packages: this Python stands in ``~/forge`` instead. The bucket is a folder, whose place is put where the task mounts
it. ``sky preempt`` is its own: it does what a cloud does that takes a spot machine back.

    python sky.py FOLDER jobs launch --yes --detach-run task.yaml
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

FIELDS = {"name", "resources", "num_nodes", "workdir", "file_mounts", "envs", "secrets", "setup", "run"}


def install(folder: Path) -> Path:
    """Write the two commands, and return the folder in which they lie."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    for name in ("sky", "aws"):
        path = commands / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "{folder}" {name} "$@"\n')
        path.chmod(0o755)
    return commands


class Cloud:
    """Machines and buckets in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / "jobs" / name / "record.json").read_text())

    def keep(self, record: dict[str, Any]) -> None:
        place = self.folder / "jobs" / record["job_name"]
        place.mkdir(parents=True, exist_ok=True)
        part = place / f"part.{os.getpid()}"
        part.write_text(json.dumps(record))
        part.replace(place / "record.json")

    def launch(self, file: Path, secrets: list[str]) -> None:
        task = yaml.safe_load(file.read_text())
        assert set(task) <= FIELDS
        assert set(task.get("secrets", {})) == set(secrets)
        assert all(value is None for value in task.get("secrets", {}).values())
        place = self.folder / "jobs" / task["name"]
        place.mkdir(parents=True)
        shutil.copytree(task["workdir"], place / "uploaded")
        values = {name: os.environ[name] for name in secrets}
        (place / "task.json").write_text(json.dumps({**task, "secrets": values}))
        self.keep({"job_id": 1, "job_name": task["name"], "status": "PENDING", "failure_reason": None})
        controller = [sys.executable, __file__, str(self.folder), "controller", task["name"]]
        with (place / "log").open("ab") as log:
            subprocess.Popen(controller, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        print(f"Job submitted, ID: 1, name: {task['name']}")  # noqa: T201 - it is a command

    def control(self, name: str) -> None:
        """Keep a job running, on another machine where one is taken away."""
        place = self.folder / "jobs" / name
        task = json.loads((place / "task.json").read_text())
        ((mounted, bucket),) = task["file_mounts"].items()
        kept = self.folder / "buckets" / bucket["source"].replace("://", "/")
        kept.mkdir(parents=True, exist_ok=True)
        for machine in range(1, 10):
            home = place / f"machine{machine}"
            shutil.copytree(place / "uploaded", home / "sky_workdir")
            (home / "forge" / "bin").mkdir(parents=True)
            python = home / "forge" / "bin" / "python"
            python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            python.chmod(0o755)
            variables = {**task["envs"], **task["secrets"], "HOME": str(home)}
            placed = {key: value.replace(mounted, str(kept), 1) for key, value in variables.items()}
            process = subprocess.Popen(
                ["bash", "-c", task["run"]],
                cwd=home / "sky_workdir",
                env={**os.environ, **placed},
                start_new_session=True,
            )
            self.keep({**self.record(name), "status": "RUNNING", "pid": process.pid})
            code = process.wait()
            record = self.record(name)
            if record["status"] != "RECOVERING":
                break
            time.sleep(0.5)
        if record["status"] != "CANCELLED":
            self.keep({**record, "status": "SUCCEEDED" if code == 0 else "FAILED", "failure_reason": None})

    def end(self, name: str, status: str) -> None:
        record = self.record(name)
        self.keep({**record, "status": status})
        os.killpg(record["pid"], signal.SIGKILL)

    def logs(self, name: str, *, follow: bool) -> None:
        log, sent = self.folder / "jobs" / name / "log", 0
        while True:
            over = self.record(name)["status"] in {"SUCCEEDED", "FAILED", "CANCELLED"}
            text = log.read_text(errors="replace")
            sys.stdout.write(text[sent:])
            sys.stdout.flush()
            sent = len(text)
            if over or not follow:
                return
            time.sleep(0.2)


def main(folder: str, command: str, *words: str) -> None:
    cloud = Cloud(Path(folder))
    match [command, *words]:
        case ["sky", "jobs", "launch", "--yes", "--detach-run", *more, file]:
            cloud.launch(Path(file), more[1::2])
        case ["sky", "jobs", "queue", "--all", "--output", "json"]:
            found = [cloud.record(path.parent.name) for path in cloud.folder.glob("jobs/*/record.json")]
            print(f"Checking managed jobs\n{json.dumps(found, indent=2)}")  # noqa: T201
        case ["sky", "jobs", "logs", "--name", name, how]:
            cloud.logs(name, follow=how == "--follow")
        case ["sky", "jobs", "cancel", "--yes", "--name", name]:
            cloud.end(name, "CANCELLED")
        case ["sky", "preempt", name]:
            cloud.end(name, "RECOVERING")
        case ["aws", "s3", "sync", "--no-progress", "--exclude", one, "--exclude", other, source, target]:
            kept = cloud.folder / "buckets" / source.replace("://", "/")

            def left(folder: str, names: list[str]) -> list[str]:
                inside = [(Path(folder) / name).relative_to(kept).as_posix() for name in names]
                return [Path(name).name for name in inside if fnmatch(name, one) or fnmatch(name, other)]

            if kept.exists():
                shutil.copytree(kept, target, dirs_exist_ok=True, ignore=left)
        case ["controller", name]:
            cloud.control(name)
        case _:
            sys.exit(f"this double does not know {command} {' '.join(words)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
