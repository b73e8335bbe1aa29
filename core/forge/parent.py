"""The parent: starts workers, passes on the user's wish to stop, and says what became of a run.

It holds no model and imports nothing heavy, so it is still there to explain when a worker dies of memory, of a driver,
or of ``kill -9``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from forge.api import Decision, ModelFacts, Stage, Trained
from forge.discovery import Catalogue
from forge.errors import BackendImportError, ForgeError, Interrupted, OutOfMemory, PlanError, RunError, from_json
from forge.events import Follower
from forge.facts import resolve as resolve_facts
from forge.files import write_json
from forge.folder import EVALUATION, RunFolder, differences, newest_marked, settle
from forge.job import Job
from forge.jobfile import JobFile, load_job, parse
from forge.machine import Machine
from forge.plan import Plan, answer_plan, export_plan, make_plan
from forge.selection import asked_models

Show = Callable[[Mapping[str, Any]], None]
"""Called with each event as it comes."""

Ready = Callable[[RunFolder, Plan], None]
"""Called when a plan has been written, before its worker starts."""

ATTEMPTS = 5


def _quiet(_folder: RunFolder, _plan: Plan) -> None:
    """Take no notice."""


@dataclass
class Outcome:
    """How a worker ended.

    Attributes:
        error: What it reported or died of, or None.
        event: The event that told it.
        asked: Whether the user asked it to stop, in time or not.
    """

    error: ForgeError | None
    event: Mapping[str, Any]
    asked: bool = False


def run(
    file: JobFile,
    catalogue: Catalogue,
    machine: Machine,
    runs: Path,
    show: Show,
    *,
    task: str = "train",
    rows: int = 0,
    ready: Ready = _quiet,
) -> RunFolder:
    """Plan a job, run it, evaluate what came of it, and make its exports.

    Args:
        file: The job.
        catalogue: The plugins.
        machine: This machine.
        runs: The folder of all runs.
        show: Called with each event.
        task: ``"train"``, ``"dry-run"`` or ``"data"``.
        rows: For ``"data"``, how many rows to show.
        ready: Called when a plan has been written, before its worker starts.

    Raises:
        ForgeError: Of whatever kind stopped the run; a trained model whose export failed is safe.
    """
    check_one_process(os.environ)
    facts = resolve_facts(file.job.model.id, file.job.model.revision, file.job.folder)
    plan = replace(make_plan(file, catalogue, machine, facts, task=task), rows=rows)
    folder = RunFolder.create(runs, file)
    excluded: dict[str, str] = {}
    relief: list[Decision] = []
    for attempt in range(1, ATTEMPTS + 1):
        path = folder.add_plan(plan)
        folder.write_lock(settle(file.job, plan), plan)
        ready(folder, plan)
        outcome = work(folder, path, show)
        if outcome.error is None:
            break
        if attempt == ATTEMPTS or not _another(outcome, plan, file, excluded, relief):
            raise outcome.error
        changes: dict[str, Any] = {"excluded": excluded, "relief": relief, "attempt": attempt + 1}
        try:
            again = make_plan(file, catalogue, machine, facts, task=task, **changes)
        except PlanError:  # nothing else can serve
            raise outcome.error from None
        show({"kind": "warning", "message": f"{outcome.error}; trying again with another plan"})
        plan = replace(again, rows=rows)
    if task == "train":
        heed(outcome, folder)
        finish(folder, catalogue, machine, show)
    return folder


def resume(folder: RunFolder, catalogue: Catalogue, machine: Machine, show: Show, *, ready: Ready = _quiet) -> None:
    """Go on with a run from its newest whole checkpoint, then make the evaluation and exports that are missing.

    Raises:
        RunError: The run is in use, or its job, base model, plugins or number of processes have changed.
        ForgeError: As :func:`run`.
    """
    if folder.busy():
        raise RunError(f"{folder.path} is in use", "its worker still runs", "wait for it, or stop it, then try again")
    if folder.trained() is None:
        check_one_process(os.environ)
        plan = folder.plan()
        check_unchanged(folder, plan, catalogue)
        for note in _moved(plan, machine):
            show({"kind": "warning", "message": note})
        plan = replace(plan, machine=machine, resume=True, task="train", attempt=plan.attempt + 1)
        path = folder.add_plan(plan)
        ready(folder, plan)
        outcome = work(folder, path, show)
        if outcome.error is not None:
            raise outcome.error
        heed(outcome, folder)
    finish(folder, catalogue, machine, show)


def heed(outcome: Outcome, folder: RunFolder) -> None:
    """Stop after a worker that was asked to and came to its end all the same. Raises :class:`Interrupted`."""
    job = load_job(folder.plan().job)
    if outcome.asked and (job.export or job.eval):
        left = " and ".join(name for name, asked in (("evaluation", job.eval), ("exports", job.export)) if asked)
        why = f"training had just ended and its weights are saved; {left} were not made"
        raise Interrupted("stopped", why, f"go on with: forge resume {folder.path}")


def finish(folder: RunFolder, catalogue: Catalogue, machine: Machine, show: Show) -> None:
    """Do what comes after training and is not there yet: the evaluation, then the exports.

    The evaluation comes first, since the exports' model cards tell of it; if it fails, they are made all the same.
    """
    before, failure = folder.plan(), None
    job = load_job(before.job)
    if job.eval is not None and folder.evaluation() is None:
        text = (folder.path / "job.toml").read_text(encoding="utf-8")
        file = parse(text, str(folder.path / "job.toml"), job.folder, catalogue, before.overrides)
        try:
            evaluate(folder, file, asked_models(job), catalogue, machine, show)
        except Interrupted:
            raise
        except ForgeError as error:
            failure = error
            show({"kind": "warning", "message": f"the evaluation failed: {error}"})
    export_all(folder, catalogue, machine, show)
    if failure is not None:
        raise ForgeError(
            f"the model is trained and safe in {folder.path}, but not evaluated",
            str(failure),
            f"then `forge eval {folder.path}`",
        )


def evaluate(
    folder: RunFolder,
    file: JobFile,
    models: Sequence[str],
    catalogue: Catalogue,
    machine: Machine,
    show: Show,
    *,
    target: str = EVALUATION,
    gguf: Path | None = None,
) -> None:
    """Plan an evaluation of a finished run for this machine and do it in a worker of its own.

    Args:
        folder: The run.
        file: Its job, ``[eval]`` as it is to be done.
        models: Who answers: ``"base"``, ``"tuned"``, ``"gguf"``.
        catalogue: The plugins.
        machine: This machine.
        show: Called with each event.
        target: The file for the result, relative to the run folder.
        gguf: The GGUF file, if it is among the models.

    Raises:
        ForgeError: Of whatever kind; the trained weights are not touched.
    """
    plan = plan_answers(folder, file, "eval", models, catalogue, machine, gguf=gguf)
    path = folder.path / "evaluations" / "plans" / f"{Path(target).stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, replace(plan, target=target).to_json())
    outcome = work(folder, path, show)
    if outcome.error is not None:
        raise outcome.error


def plan_answers(
    folder: RunFolder,
    file: JobFile,
    task: str,
    models: Sequence[str],
    catalogue: Catalogue,
    machine: Machine,
    *,
    gguf: Path | None = None,
) -> Plan:
    """Plan what makes a finished run answer, for an evaluation or a chat. Raises :class:`ForgeError`."""
    trained, before = folder.trained(), folder.plan()
    if trained is None:
        raise RunError(
            f"{folder.path} has no trained weights",
            "it holds checkpoints only" if newest_marked(folder.checkpoints) else "its training has not finished",
            f"`forge resume {folder.path}`",
        )
    # A GGUF file answers alone: where the base model is now does not matter.
    facts = before.facts if tuple(models) == ("gguf",) else base_facts(file.job, before, trained)
    plan = answer_plan(file, task, models, catalogue, machine, facts, trained.traits)
    return replace(
        plan, decisions=(*before.decisions, *plan.decisions), gguf=str(gguf.resolve()) if gguf is not None else None
    )


def export_all(folder: RunFolder, catalogue: Catalogue, machine: Machine, show: Show) -> None:
    """Make the exports of the job that are not there yet; all are tried before the first failure is raised."""
    job = load_job(folder.plan().job)
    failures: list[tuple[str, ForgeError]] = []
    for index in range(len(job.export)):
        if not (folder.export_folder(index, job) / "export.json").exists():
            try:
                export(folder, job, index, catalogue, machine, show)
            except Interrupted:
                raise
            except ForgeError as error:
                failures.append((job.export[index].format, error))
                show({"kind": "warning", "message": f"export {job.export[index].format} failed: {error}"})
    if failures:
        names = ", ".join(name for name, _ in failures)
        raise ForgeError(
            f"the model is trained and safe in {folder.path}, but not exported ({names})",
            str(failures[0][1]),
            f"then `forge export {folder.path}`",
        )


def export(folder: RunFolder, job: Job, index: int, catalogue: Catalogue, machine: Machine, show: Show) -> None:
    """Plan one export of a finished run for this machine and make it in a worker of its own. Raises ForgeError."""
    trained = folder.trained()
    if trained is None:
        raise RunError(f"{folder.path} has nothing to export", "its training has not finished", "`forge resume` it")
    before = folder.plan()
    facts = base_facts(job, before, trained)
    plan = export_plan(job, index, catalogue, machine, facts, trained.traits, before.source)
    plan = replace(plan, decisions=(*before.decisions, *plan.decisions))
    out = folder.export_folder(index, job)
    out.parent.mkdir(exist_ok=True)
    path = out.with_name(f"{out.name}.plan.json")
    write_json(path, plan.to_json())
    outcome = work(folder, path, show)
    if outcome.error is not None:
        raise outcome.error


def base_facts(job: Job, before: Plan, trained: Trained) -> ModelFacts:
    """Return the facts about the base model of a finished run. Raises :class:`RunError` if it is another one now."""
    facts = before.facts
    if facts.source == "folder":  # it may have been moved, or overwritten, since
        facts = resolve_facts(job.model.id, facts.revision, job.folder)
        if facts.digest and trained.base["digest"] and facts.digest != trained.base["digest"]:
            raise RunError(
                f"{job.model.id} is not the base model that the run was trained on",
                "config or weights are others",
                "name the right folder: --set model.id=FOLDER",
            )
    return facts


def work(folder: RunFolder, plan: Path, show: Show) -> Outcome:
    """Start a worker, show its events until it ends, and say how it ended."""
    events = Follower(folder.events)
    last: Mapping[str, Any] = {}
    environment = worker_environment(os.environ, Plan.read(plan))
    options: dict[str, Any] = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined,unused-ignore]
        if sys.platform == "win32"
        else {"start_new_session": True}  # the terminal's Ctrl-C is for the parent alone, which passes it on
    )
    # -P keeps the current folder off the path: a random.py beside the job is not Python's.
    command = [sys.executable, "-P", "-m", "forge.worker", str(folder.path), str(plan)]
    with folder.log.open("ab") as log:
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment, **options
        )
        with passing_on(worker, show) as wishes:
            while True:
                ended = worker.poll() is not None
                for event in events.poll():
                    if event["kind"] in {"failed", "stopped", "done"}:
                        last = event
                    show(event)
                if ended:
                    break
                time.sleep(0.05)
    return Outcome(_verdict(worker.returncode, last, folder, wishes), last, asked=bool(wishes))


@contextmanager
def passing_on(worker: subprocess.Popen[bytes], show: Show) -> Iterator[list[int]]:
    """Turn Ctrl-C and SIGTERM into a word on the worker's standard input; a second one kills it.

    Yields:
        The signals that came, in order.
    """
    wishes: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        wishes.append(number)
        if len(wishes) > 1:
            worker.kill()
            return
        with suppress(OSError):  # it may have just ended by itself
            if worker.stdin:
                worker.stdin.write(b"stop\n")
                worker.stdin.flush()
        show({"kind": "note", "message": "stopping after this step; once more to stop at once"})

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


LAUNCHERS = ("ACCELERATE_", "LOCAL_", "MASTER_", "OMPI_", "PMI_", "RANK", "TORCHELASTIC_", "UNSLOTH_", "WORLD_SIZE")
"""Variables of process launchers, at which accelerate would wait for processes that are not there, and of Unsloth."""


def worker_environment(environ: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """Return the environment of a worker: the user's, without another backend's traces, on one GPU, unobserved."""
    clean = {key: value for key, value in environ.items() if not key.startswith(LAUNCHERS)}
    # One process uses one GPU: with several in sight, transformers would silently wrap the model in nn.DataParallel.
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    cards = [card for card in plan.machine.accelerators if card.kind in {"cuda", "rocm"}]
    if visible:
        clean["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    elif visible is None and len(cards) > 1:
        clean["CUDA_VISIBLE_DEVICES"] = "0"
    clean |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    clean.setdefault("TOKENIZERS_PARALLELISM", "true")
    chosen = {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"} & clean.keys()
    if not chosen and any(card.kind == "cuda" for card in cards):
        clean["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"  # rows differ in length: less memory lost to gaps
    return clean | dict(plan.environment)


def _verdict(code: int, last: Mapping[str, Any], folder: RunFolder, wishes: Sequence[int] = ()) -> ForgeError | None:
    if code == 0 and last.get("kind") == "done":
        return None
    if last.get("kind") == "failed":
        return from_json(last["error"])
    where = newest_marked(folder.checkpoints)
    resume_line = f"go on with: forge resume {folder.path}" if where or folder.trained() else None
    if last.get("kind") == "stopped" or code == Interrupted.exit_code:
        return Interrupted(last.get("message") or "stopped", do=resume_line)
    if len(wishes) > 1:
        kept = f"the last whole checkpoint is {where.name}" if where else "no checkpoint had been saved"
        return Interrupted("stopped at once", kept, resume_line)
    do = f"see {folder.log}" + (f"; {resume_line}" if resume_line else "")
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        why = "most often the machine ran out of memory" if name == "SIGKILL" else "a library crashed"
        kept = f"; the last whole checkpoint is {where.name}" if where else "; it had saved no checkpoint yet"
        return ForgeError(f"the worker was killed ({name})", why + kept, do)
    free = shutil.disk_usage(folder.path).free
    why = "the disk is full" if free < 2**20 else "it reported no reason"
    return ForgeError(f"the worker ended with code {code}", why, do)


def _another(outcome: Outcome, plan: Plan, file: JobFile, excluded: dict[str, str], relief: list[Decision]) -> bool:
    """Decide whether to try once more, and with what: another backend, or a setting that takes less memory."""
    if outcome.asked:
        return False
    if isinstance(outcome.error, BackendImportError):
        plugin = outcome.event.get("plugin")
        named = {getattr(file.job.use, stage.value) for stage in Stage}
        if plugin not in {step.plugin for step in plan.steps} or file.job.use.backend != "auto" or plugin in named:
            return False
        excluded[str(plugin)] = f"failed in attempt {plan.attempt}: {outcome.error}"
        return True
    if isinstance(outcome.error, OutOfMemory) and outcome.event.get("probing"):
        changes = [Decision(**change) for change in outcome.event.get("relief", [])]
        if changes and not any(change.key in file.named for change in changes):
            relief[:] = [*relief, *changes]
            return True
    return False


def check_one_process(environ: Mapping[str, str]) -> None:
    """Refuse to start, or to go on, as one of several processes. Raises :class:`RunError`."""
    processes = environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise RunError(
            f"WORLD_SIZE says {processes} processes",
            "forge trains in 1 process, and a run goes on in as many as it began with, or its batches would be others",
            "start forge without torchrun, and unset WORLD_SIZE",
        )


def check_unchanged(folder: RunFolder, plan: Plan, catalogue: Catalogue) -> None:
    """Refuse to resume what is no longer the same run, and name the difference. Raises :class:`RunError`."""
    stored = load_job(plan.job)
    given = folder.path / "job.toml"
    now = parse(given.read_text(encoding="utf-8"), str(given), stored.folder, catalogue, plan.overrides).job
    if now.digest() != plan.job_digest:
        changed = differences(stored.to_toml(), now.to_toml())
        raise RunError(
            f"{given} is not the job that this run began with",
            "; ".join(changed) or "its meaning has changed",
            "undo the change, or start a new run",
        )
    facts = resolve_facts(stored.model.id, plan.facts.revision or stored.model.revision, stored.folder)
    if facts.digest and plan.facts.digest and facts.digest != plan.facts.digest:
        raise RunError(
            f"the base model {stored.model.id} has changed",
            f"its digest was {plan.facts.digest[:12]} and is {facts.digest[:12]}",
            "restore it, or start a new run",
        )
    for step in plan.steps:
        plugin = catalogue.find(step.plugin)
        if step.stage is not Stage.EXPORT and (plugin is None or plugin.status != "ok"):
            why = "is not installed" if plugin is None else f"is {plugin.status}: {plugin.reason}"
            raise RunError(f"the run's {step.stage} needs plugin {step.plugin}", f"it {why}", "install it here")


def _moved(plan: Plan, machine: Machine) -> Iterator[str]:
    """Tell what differs between the machine that the run began on and this one, where the numbers may part."""
    for name in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
        before, now = plan.machine.versions.get(name), machine.versions.get(name)
        if before != now:
            yield f"{name} was {before} and is {now}: the numbers may differ from an uninterrupted run"
    if plan.machine.usable_kinds != machine.usable_kinds:
        kinds = [", ".join(sorted(m.usable_kinds)) or "none" for m in (plan.machine, machine)]
        yield f"accelerators were {kinds[0]} and are {kinds[1]}: the numbers may differ from an uninterrupted run"
