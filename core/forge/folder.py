"""The run folder: everything about one run, enough to resume, export again, and repeat it elsewhere."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Trained
from forge.checkpoints import MARK, checkpoints
from forge.errors import RunError
from forge.files import broken_seal, disk_errors, seal, sync_folder, write_json, write_text
from forge.plan import Plan

if TYPE_CHECKING:
    from forge.job import Job
    from forge.jobfile import JobFile


EVALUATION = "evaluation.json"
"""What the job's ``[eval]`` found; later evaluations of other rows, or by other metrics, lie in ``evaluations/``."""


class RunFolder:
    """A run on disk.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, runs: Path, file: JobFile) -> RunFolder:
        """Make a fresh folder ``runs/<name>/<time>`` for a job."""
        name = file.job.name or re.sub(r"[^\w.-]+", "-", Path(file.source).name.removesuffix(".toml")) or "job"
        stamp = time.strftime("%Y%m%d-%H%M%S")
        with disk_errors(runs):
            for attempt in range(100):
                path = runs / name / (stamp if attempt == 0 else f"{stamp}-{attempt + 1}")
                try:
                    path.mkdir(parents=True)
                except FileExistsError:
                    continue
                except PermissionError as error:
                    raise RunError(f"cannot make {path}", str(error), "choose another --runs-dir") from error
                write_text(path / "job.toml", file.text)
                return cls(path)
        raise RunError(f"cannot find a free name in {runs / name}")

    @classmethod
    def find(cls, text: str, runs: Path) -> RunFolder:
        """Find a run by its path, by ``name/id``, by its id, or by its name (the newest run of it)."""
        for candidate in (Path(text), runs / text):
            if (candidate / "plan.json").is_file():
                return cls(candidate)
            inside = sorted(path.parent for path in candidate.glob("*/plan.json"))
            if inside:
                return cls(inside[-1])
        by_id = sorted(path.parent for path in runs.glob(f"*/{glob.escape(text)}*/plan.json")) if text else []
        by_id = [path for path in by_id if path.name == text] or by_id
        if len(by_id) == 1:
            return cls(by_id[0])
        if by_id:
            raise RunError(f"{text} fits several runs", ", ".join(str(path) for path in by_id), "name one of them")
        raise RunError(f"there is no run {text}", f"looked for a folder with plan.json there and in {runs}",
                       "`forge runs` lists them")  # fmt: skip

    @property
    def events(self) -> Path:
        """The file of events."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """Everything that the workers printed."""
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def plan_paths(self) -> list[Path]:
        """Return the plans of all attempts, the first first."""
        later = [path for path in self.path.glob("plan.*.json") if path.name.split(".")[1].isdigit()]
        return [self.path / "plan.json", *sorted(later, key=lambda path: int(path.name.split(".")[1]))]

    def plan(self) -> Plan:
        """Return the plan of the last attempt."""
        return Plan.read(self.plan_paths()[-1])

    def add_plan(self, plan: Plan) -> Path:
        """Write the plan of a further attempt and return its path."""
        count = len(self.plan_paths()) if (self.path / "plan.json").exists() else 0
        path = self.path / ("plan.json" if count == 0 else f"plan.{count + 1}.json")
        write_json(path, plan.to_json())
        return path

    def write_lock(self, job: Job, plan: Plan, data_digest: str | None = None) -> None:
        """Write ``job.lock.toml``: a job that can be run, with every value written out and every revision pinned."""
        import tomli_w

        tables = job.to_toml()
        tables["name"] = tables.get("name") or self.path.parent.name
        if plan.facts.source == "folder" and plan.facts.path:
            tables["model"]["id"] = plan.facts.path
        elif plan.facts.revision:
            tables["model"]["revision"] = plan.facts.revision
        data = tables["data"]
        for table in [data, *data.get("sources", [])]:
            for key in ("path", "eval_path"):
                if key in table:
                    table[key] = _absolute(job, table[key])
        if "chat_template" in data:
            data["chat_template"] = _absolute(job, data["chat_template"])
        if "path" in (asked := tables.get("eval", {})):
            asked["path"] = _absolute(job, asked["path"])
        for reward in tables["train"].get("reward", ()):
            reward["use"] = _absolute_function(job, reward["use"])
        if "metrics" in asked:
            asked["metrics"] = [_absolute_function(job, name) for name in asked["metrics"]]
        if data_digest:
            data["digest"] = data_digest
        head = f"# Written by forge {plan.forge}: the job of this run with every value. `forge run` takes it.\n\n"
        write_text(self.path / "job.lock.toml", head + tomli_w.dumps(tables))

    def data(self) -> dict[str, Any] | None:
        """Return what collating recorded: digest and counts; None before that."""
        path = self.path / "data.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def trained(self) -> Trained | None:
        """Return what training left, or None if it has not finished."""
        path = self.path / "trained.json"
        if not path.exists():
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        del data["files"]
        data["traits"] = frozenset(data["traits"])
        return Trained(**data)

    def write_trained(self, trained: Trained) -> None:
        """Record that training has finished, and what it left; its files are flushed to the disk before."""
        files = seal(self.path / trained.weights)
        sync_folder(self.path)
        values = {**asdict(trained), "traits": sorted(trained.traits), "files": files}
        write_json(self.path / "trained.json", values)

    def check_trained(self) -> None:
        """Raise :class:`RunError` if the trained weights are not as training left them."""
        data = json.loads((self.path / "trained.json").read_text(encoding="utf-8"))
        if fault := broken_seal(self.path / data["weights"], data["files"]):
            where = self.path / data["weights"]
            raise RunError(f"the weights in {where} are not as training left them", fault, "restore the folder")

    def evaluation(self) -> dict[str, Any] | None:
        """Return what the job's evaluation found, or None if there was none."""
        path = self.path / EVALUATION
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def export_folder(self, index: int, job: Job) -> Path:
        """Return the folder of an export: ``exports/<number>-<format>``."""
        return self.path / "exports" / f"{index + 1}-{job.export[index].format.replace('/', '-')}"

    def state(self) -> str:
        """Say in one word what became of the run."""
        if self.busy():
            return "running"
        if self.trained():
            return "trained"
        if self.plan().task == "dry-run":
            return "dry run"
        return "stopped" if newest_marked(self.checkpoints) else "failed" if self.events.exists() else "planned"

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Hold the folder's lock, so that two processes never write one run. Raises :class:`RunError` if it is held."""
        path = self.path / ".lock"
        with disk_errors(path), path.open("a+") as file:
            if not _lock_soon(file.fileno()):
                raise RunError(
                    f"{self.path} is in use",
                    f"process {_owner(path)} holds it",
                    "wait for it, or stop it, then try again",
                )
            file.seek(0)
            file.truncate()
            file.write(str(os.getpid()))
            file.flush()
            yield

    def busy(self) -> bool:
        """Whether a process holds the folder's lock."""
        path = self.path / ".lock"
        if not path.exists():
            return False
        try:
            with path.open("a+") as file:
                return not _lock(file.fileno())
        except PermissionError:  # an archive that may only be read
            return False


def newest_marked(folder: Path) -> Path | None:
    """Return the newest checkpoint that was finished, without reading its files."""
    marked = [path for path in checkpoints(folder) if (path / MARK).exists()]
    return marked[-1] if marked else None


def settle(job: Job, plan: Plan) -> Job:
    """Return the job with the plan's decisions in place of what it left open."""
    for decision in plan.decisions:
        table_name, _, key = decision.key.partition(".")
        if table_name == "plugins":
            name, _, key = key.partition(".")
            own = {**job.plugins.get(name, {}), key: decision.value}
            job = job.model_copy(update={"plugins": {**job.plugins, name: own}})
            continue
        table = getattr(job, table_name)
        if key in type(table).model_fields:
            table = table.model_copy(update={key: decision.value})
        else:
            table = table.model_copy(update={"options": {**table.options, key: decision.value}})
        job = job.model_copy(update={table_name: table})
    return job


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name what differs between two jobs' tables, as ``train.max_steps: 10 → 20``."""
    found = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} → {new}")
    return found


def _absolute(job: Job, value: str | list[str]) -> str | list[str]:
    """Make the local paths among a job's values independent of where the job file lies."""
    if isinstance(value, list):
        return [str(_absolute(job, item)) for item in value]
    path = job.path(value)
    return str(path.resolve()) if path.exists() or any(sign in value for sign in "*?[") else value


def _absolute_function(job: Job, name: str) -> str:
    """Make the file of a function ``./metrics.py:function`` independent of where the job file lies."""
    file, colon, function = name.rpartition(":")
    return f"{_absolute(job, file)}:{function}" if colon and file.endswith(".py") else name


def _lock_soon(handle: int) -> bool:
    """Take the lock; a process that only asks whether it is held has it for a moment."""
    for _ in range(20):
        if _lock(handle):
            return True
        time.sleep(0.02)
    return False


def _owner(path: Path) -> str:
    return path.read_text(errors="replace") or "unknown"


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # it locks from the position on: always the same byte, beyond the text
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks (some NFS and Lustre mounts): better unguarded than not at all
            return True
        return True
