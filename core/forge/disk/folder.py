"""The run folder: everything about one run, enough to resume, export again, and repeat it elsewhere."""

from __future__ import annotations

import errno
import glob
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge import records
from forge.api.code import Code
from forge.api.plan import Plan, Task, Training
from forge.api.results import Trained
from forge.api.stage import Stage
from forge.api.submitter import Ticket
from forge.disk.checkpoints import MARK, checkpoints, newest_marked
from forge.disk.events import last_event
from forge.disk.faults import disk_errors
from forge.disk.files import broken_seal, seal, sync_folder, write_json, write_text
from forge.disk.joblock import lock_text
from forge.disk.owner import hold, is_held
from forge.errors import RunError
from forge.job.job import load_job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from forge.job.job import Job
    from forge.job.keys import Keys
    from forge.job.read import Change, JobFile


EVALUATION = "evaluation.json"
"""What the job's ``[eval]`` found; later evaluations of other rows, or by other metrics, lie in ``evaluations/``."""


def owners(plan: Plan) -> dict[str, str]:
    """Return which plugins serve the tables of a run's job that plugins add keys to, as ``export.0``."""
    found = {name: step.plugin for step in plan.steps for name in _TABLES.get(step.stage, ())}
    exports = [step for step in plan.steps if step.stage is Stage.EXPORT]
    return found | {f"export.{index}": step.plugin for index, step in enumerate(exports)}


_TABLES = {Stage.ADAPT: ("adapter",), Stage.TRAIN: ("train",)}


_MARKS = ("plan.json", "ticket.json")
"""What the folder of a run has, one of them at least."""


def _with_a_run(folder: Path, pattern: str) -> list[Path]:
    """Return the folders of runs among those of a pattern."""
    return sorted({path.parent for name in _MARKS for path in folder.glob(f"{pattern}/{name}")})


class RunFolder:
    """A run on disk.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, runs: Path, file: JobFile, into: Path | None = None) -> RunFolder:
        """Make a fresh folder ``runs/<name>/<time>`` for a job, or take ``into``: empty, or with what was sent.

        Raises:
            RunError: It cannot be made there: the disk is read-only or full, a file is in the way, a name is too long.
        """
        if into is not None:
            with disk_errors(into):
                into.mkdir(parents=True, exist_ok=True)
                there = {path.name for path in into.iterdir()}
            if "plan.json" in there:
                raise RunError(f"{into} holds a run already", do=f"go on with it: forge resume {into}")
            if there and not {"submit"} <= there <= {"submit", "ticket.json", "job.toml"}:
                what = f"{into} cannot be a run's own folder"
                raise RunError(what, f"it holds {min(there)}", "name a folder that is not there yet")
            write_text(into / "job.toml", file.text)
            return cls(into)
        name, stamp = cls.name_of(file), time.strftime("%Y%m%d-%H%M%S")
        for attempt in range(100):
            path = runs / name / (stamp if attempt == 0 else f"{stamp}-{attempt + 1}")
            try:
                path.mkdir(parents=True)
            except OSError as error:
                if isinstance(error, FileExistsError) and path.is_dir():
                    continue
                other = "choose a shorter name, or" if error.errno == errno.ENAMETOOLONG else "choose"
                raise RunError(f"cannot make {path}", error.strerror, f"{other} another --runs-dir") from error
            write_text(path / "job.toml", file.text)
            return cls(path)
        raise RunError(f"cannot find a free name in {runs / name}")

    @staticmethod
    def name_of(file: JobFile) -> str:
        """Return the name of a job's runs."""
        stem = Path(file.source).name.removesuffix(".toml")
        # A name of dots is another folder, and one that begins with a dash an option of the commands.
        return file.job.name or re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "job"

    @classmethod
    def find(cls, text: str, runs: Path, *, sent: bool = False) -> RunFolder:
        """Find a run by its path, by ``name/id``, by its id, or by its name (the newest run of it).

        Args:
            text: What the user calls it.
            runs: The folder of all runs.
            sent: Whether a run that was sent elsewhere, and has left nothing here yet, will do.

        Raises:
            RunError: There is none, there are several, or the folders cannot be read.
        """
        try:
            found = cls._found(text, runs)
        except OSError as error:  # a name too long, a folder of another user
            raise RunError(f"cannot look for the run {text}", str(error), "`forge runs` lists them") from error
        if not sent and not (found.path / "plan.json").is_file():
            what = f"{found.path} was sent elsewhere"
            do = f"`forge runs` says how it is doing; once it has begun, `forge fetch {found.path}` brings what it made"
            raise RunError(what, "what it made is not here yet", do)
        return found

    @classmethod
    def below(cls, runs: Path) -> list[RunFolder]:
        """Return all runs below a folder, also those that were sent elsewhere."""
        return [cls(path) for path in _with_a_run(runs, "*/*")]

    @classmethod
    def _found(cls, text: str, runs: Path) -> RunFolder:
        for candidate in (Path(text), runs / text):
            if any((candidate / name).is_file() for name in _MARKS):
                return cls(candidate)
            inside = _with_a_run(candidate, "*")
            if inside:
                return cls(inside[-1])
        by_id = _with_a_run(runs, f"*/{glob.escape(text)}*") if text else []
        by_id = [path for path in by_id if path.name == text] or by_id
        if len(by_id) == 1:
            return cls(by_id[0])
        if by_id:
            raise RunError(f"{text} fits several runs", ", ".join(str(path) for path in by_id), "name one of them")
        why = f"looked for a folder with plan.json there and in {runs}"
        raise RunError(f"there is no run {text}", why, "`forge runs` lists them")

    @property
    def events(self) -> Path:
        """The file of events."""
        return self.path / "events.jsonl"

    def events_of(self, rank: int) -> Path:
        """Return the file of a process's events, of those that train together: rank 0 writes those of the run."""
        return self.events if rank == 0 else self.path / f"events.rank{rank}.jsonl"

    @property
    def log(self) -> Path:
        """Everything that the workers printed."""
        return self.path / "log.txt"

    def log_of(self, node: int) -> Path:
        """Return the file into which the workers of a node print: of the first one, the run's log."""
        return self.log if node == 0 else self.path / f"log.node{node}.txt"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def unfinished(self) -> Path:
        """Return the folder that is being written: a checkpoint, weights or an export; the run's if there is none."""
        writing = [path for path in checkpoints(self.checkpoints) if not (path / MARK).exists()]
        writing += [path for name in ("*.part", "exports/*.part") for path in self.path.glob(name) if path.is_dir()]
        return writing[-1] if writing else self.path

    def plan_paths(self) -> list[Path]:
        """Return the plans of all attempts, the first first."""
        later = [path for path in self.path.glob("plan.*.json") if path.name.split(".")[1].isdigit()]
        return [self.path / "plan.json", *sorted(later, key=lambda path: int(path.name.split(".")[1]))]

    def plan(self) -> Training:
        """Return the plan of the last attempt."""
        return Training.read(self.plan_paths()[-1])

    def job_file(self, keys: Keys, changes: Sequence[Change] = (), *, path: Path | None = None) -> JobFile:
        """Read the run's job again, as it was given, with the changes that it was begun with and more.

        Args:
            keys: The keys that the plugins of today add.
            changes: Further changes for this time.
            path: The file; the run's copy if it is not said.

        Raises:
            JobError: The file has mistakes, by the plugins of today.
        """
        from forge.job.read import change_of, parse  # the checker of jobs, which no worker needs

        plan, path = self.plan(), path or self.path / "job.toml"
        before = [change_of(text) for text in plan.overrides]
        folder = load_job(plan.job).folder
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(path.name, error) from error
        return parse(text, str(path), folder, keys.of(owners(plan)), [*before, *changes])

    def keep_code(self, codes: Iterable[Code]) -> None:
        """Copy the plugins that are files beside the job into ``plugins/``: what was run is what is run again."""
        for code in codes:
            path = self._code(code.name)
            with disk_errors(path):
                path.parent.mkdir(exist_ok=True)
            write_text(path, code.content.decode("utf-8"))

    def code(self, plan: Plan | None = None) -> list[Code]:
        """Return the plugins that are files beside the job, from their copies.

        Args:
            plan: The plan that tells their digests; the last attempt's if it is not said.

        Raises:
            RunError: A copy is missing, or is not what the run began with.
        """
        found = []
        for name, digest in (plan or self.plan()).code.items():
            path = self._code(name)
            try:
                code = Code(name, path.absolute(), path.read_bytes())
            except OSError as error:
                raise RunError(f"{path} cannot be read", error.strerror, "restore it, or start a new run") from error
            if code.digest != digest:
                why = f"its digest was {digest[:12]} and is {code.version}"
                raise RunError(
                    f"{path} is not the code that this run began with", why, "restore it, or start a new run"
                )
            found.append(code)
        return found

    def _code(self, name: str) -> Path:
        return self.path / "plugins" / f"{name}.py"

    def add_plan(self, plan: Plan) -> Path:
        """Write the plan of a further attempt and return its path."""
        count = len(self.plan_paths()) if (self.path / "plan.json").exists() else 0
        path = self.path / ("plan.json" if count == 0 else f"plan.{count + 1}.json")
        write_json(path, plan.to_json())
        return path

    def write_lock(self, job: Job, plan: Plan, data_digest: str | None = None) -> None:
        """Write ``job.lock.toml``: a job that can be run, with every value written out and every revision pinned."""
        code = {name: self._code(name).resolve() for name in plan.code}
        text = lock_text(job, plan, self.path.parent.name, data_digest, code)
        write_text(self.path / "job.lock.toml", text)

    def ticket(self) -> Ticket | None:
        """Return where the run was sent, or None if it was not."""
        data = self._read("ticket.json")
        try:
            return None if data is None else records.from_json(Ticket, data)
        except ValueError as error:
            raise self._damaged("ticket.json", error) from error

    def write_ticket(self, ticket: Ticket) -> None:
        """Record where the run was sent, and how it was when that was asked last."""
        write_json(self.path / "ticket.json", records.to_json(ticket))

    def data(self) -> dict[str, Any] | None:
        """Return what collating recorded: digest and counts; None before that."""
        return self._read("data.json")

    def inputs(self) -> dict[str, Any] | None:
        """Return what was known of the files that the training depends on; None if it has not begun to train."""
        return self._read("inputs.json")

    def trained(self) -> Trained | None:
        """Return what training left, or None if it has not finished."""
        data = self._read("trained.json")
        try:
            return None if data is None else records.from_json(Trained, data)
        except ValueError as error:
            raise self._damaged("trained.json", error) from error

    def weights_or_refuse(self) -> Trained:
        """Return what training left. Raises :class:`RunError` if it has left nothing yet."""
        if (trained := self.trained()) is not None:
            return trained
        why, do = "its training has not finished", f"`forge resume {self.path}`"
        if self.busy():
            why, do = "it is training now", "wait for its end"
        elif newest_marked(self.checkpoints):
            why = "it holds checkpoints only"
        others = _with_a_run(self.path.parent, "*")
        done = [path for path in others if path != self.path and (path / "trained.json").is_file()]
        raise RunError(f"{self.path} has no trained weights", why, f"{do}, or name {done[-1]}" if done else do)

    def write_trained(self, trained: Trained) -> None:
        """Record that training has finished, and what it left; its files are flushed to the disk before."""
        files = seal(self.path / trained.weights)
        sync_folder(self.path)
        values = {**records.to_json(trained), "traits": sorted(trained.traits), "files": files}
        write_json(self.path / "trained.json", values)

    def check_trained(self) -> None:
        """Raise :class:`RunError` if the trained weights are not as training left them."""
        data = self._read("trained.json") or {}
        if not isinstance(data.get("weights"), str) or not isinstance(data.get("files"), dict):
            raise self._damaged("trained.json", "it does not say which weights there are")
        where = self.path / data["weights"]
        if fault := broken_seal(where, data["files"]):
            raise RunError(f"the weights in {where} are not as training left them", fault, "restore the folder")

    def evaluation(self) -> dict[str, Any] | None:
        """Return what the job's evaluation found, or None if there was none."""
        return self._read(EVALUATION)

    def exports(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the folders of the finished exports, and what each export recorded. Raises :class:`RunError`."""
        for path in sorted(self.path.glob("exports/*/export.json")):
            name = path.relative_to(self.path).as_posix()
            if (data := self._read(name)) is not None:
                try:
                    sizes = [int(file["bytes"]) for file in (data.get("files") or {}).values()]
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise self._damaged(name, "it does not say how large its files are") from error
                yield path.parent, {**data, "bytes": sum(sizes)}

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return what a file of the run holds, or None if there is none. Raises :class:`RunError` if it is damaged."""
        path = self.path / name
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise self._damaged(name, error) from error
        except OSError as error:
            raise RunError(f"{path} cannot be read", error.strerror, "give this user the right to") from error
        if not isinstance(data, dict):
            raise self._damaged(name, "it holds no JSON object")
        return data

    def _damaged(self, name: str, why: object) -> RunError:
        return RunError(f"{self.path / name} is damaged", str(why), "restore it from a copy of the run")

    def is_exported(self, index: int, job: Job) -> bool:
        """Whether an export is in its place, and uploaded if the job wants that."""
        data = self._read((self.export_folder(index, job) / "export.json").relative_to(self.path).as_posix())
        return data is not None and not (job.export[index].push_to_hub and data.get("waiting"))

    def export_folder(self, index: int, job: Job) -> Path:
        """Return the folder of an export: ``exports/<number>-<format>``."""
        return self.path / "exports" / f"{index + 1}-{job.export[index].format.replace('/', '-')}"

    def state(self) -> str:
        """Say in one word what became of the run."""
        if self.busy():
            return "running"
        if self.trained():
            return "trained"
        if self.plan().task is Task.DRY_RUN:
            return "dry run"
        if newest_marked(self.checkpoints):
            return "stopped"
        last = last_event(self.events)
        if last and last["kind"] == "stopped":  # an attempt after that, which was killed, has left others behind it
            return "stopped"
        return "failed" if self.events.exists() else "planned"

    def own(self) -> AbstractContextManager[None]:
        """Hold the folder's lock, so that two processes never write one run. Raises :class:`RunError` if it is held."""
        return hold(self.path / ".lock")

    def lead(self) -> AbstractContextManager[None]:
        """Hold a lock beside it for as long as several workers are started, and trained with, by this process.

        Their first one has the folder's own as soon as it is up, which may be when all nodes have come.
        """
        return hold(self.path / ".lock.parent")

    def busy(self) -> bool:
        """Whether a process holds the folder's lock."""
        return is_held(self.path / ".lock")
