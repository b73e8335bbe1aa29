"""The worker: one clean process that trains, or makes one export. ``python -m forge.worker RUN PLAN``.

Everything that touches a model happens here, so that a crash of any kind ends this process and never the one that the
user talks to. The worker reads its plan and chooses nothing; :func:`train` is a whole run, from rows to weights.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from forge.api import Data, Event, Stage
from forge.checkpoints import MARK, newest_whole
from forge.errors import BackendImportError, DiskFull, ForgeError, Interrupted, PluginError, RunError
from forge.events import EventLog, plain
from forge.files import disk_full, is_disk_full, seal, write_json
from forge.folder import EVALUATION, RunFolder, settle
from forge.job import Job
from forge.jobfile import load_job
from forge.plan import Plan
from forge.run import RunHandle
from forge.stages import Stages


def train(job: Job, run: RunHandle, stages: Stages, folder: RunFolder) -> None:
    """Run a job: rows, model, adapter, training. Exports follow in workers of their own."""
    data = stages.collate()
    record(data, job, run, folder)
    stages.preflight(data)
    before = fingerprint(data.processor)

    loaded = stages.load(data)
    trainer = dict(loaded.trainer)
    loaded = stages.adapt(loaded)
    loaded = replace(loaded, trainer={**trainer, **loaded.trainer})
    check_imports(run.plan)
    check_processor(data, before, "loading")

    trained = stages.train(loaded, data)
    if run.plan.task == "dry-run":
        return
    folder.write_trained(trained)
    run.emit(Event("trained", {"weights": trained.weights, "metrics": trained.metrics}))
    check_processor(data, before, "training")  # last of all: what was trained is on record, whatever this finds


def preview(_job: Job, run: RunHandle, stages: Stages, folder: RunFolder) -> None:
    """Collate only, and write the first rows as the trainer would get them to ``preview.json``."""
    data = stages.collate()
    if data.preview is None:
        raise PluginError("the rows cannot be shown", f"plugin {run.plan.step(Stage.COLLATE).plugin} has no preview")
    rows = data.preview(data, run.plan.rows)
    write_json(folder.path / "preview.json", {"rows": rows, "summary": dict(data.summary)})


def export(job: Job, run: RunHandle, stages: Stages, folder: RunFolder) -> None:
    """Make one export under a temporary name, record its files, and rename it."""
    index, trained = run.plan.export or 0, folder.trained()
    if trained is None:
        raise RunError(f"{folder.path} has nothing to export", "its training has not finished", "`forge resume` it")
    table, out = job.export[index], folder.export_folder(index, job)
    folder.check_trained()
    part = out.with_name(f"{out.name}.part")
    if not run.plan.step(Stage.EXPORT).resumes:
        shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, exist_ok=True)
    exported = stages.export(trained, table, part)
    report = {"format": table.format, "report": dict(exported.report), "url": None, "files": seal(part)}
    write_json(part / "export.json", report)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    if exported.upload is not None:  # the export is whole and in its place, whatever becomes of the upload
        report["url"] = exported.upload(out)
        write_json(out / "export.json", report)
    run.emit(Event("exported", {"format": table.format, "folder": str(out), **report}))


def evaluate(_job: Job, run: RunHandle, stages: Stages, folder: RunFolder) -> None:
    """Ask the held-out rows, and write down what came of it; the weights are not touched."""
    trained = folder.trained()
    if trained is None:
        raise RunError(f"{folder.path} has nothing to evaluate", "its training has not finished", "`forge resume` it")
    folder.check_trained()
    found = asdict(stages.evaluate(trained))
    path = folder.path / (run.plan.target or EVALUATION)
    path.parent.mkdir(exist_ok=True)
    write_json(path, plain(found))
    run.emit(Event("evaluated", {**found, "file": str(path)}))


UNDONE = {
    "train": "stopped where there was nothing new to save",
    "dry-run": "stopped before the dry run ended",
    "data": "stopped before the rows were read",
    "eval": "stopped before the evaluation was whole; the trained weights are safe",
    "export": "stopped before the export was whole; the trained weights are safe",
}
"""What a stop means where a task does not save anything by itself."""

TASKS = {"train": train, "dry-run": train, "data": preview, "eval": evaluate, "export": export}


def record(data: Data, job: Job, run: RunHandle, folder: RunFolder) -> None:
    """Write down which rows are trained on, and refuse a resumed run that would see others."""
    old = folder.data()
    if run.plan.resume and old and old["digest"] != data.digest:
        changed = [
            f"{key}: {old['summary'].get(key)} → {data.summary.get(key)}"
            for key in ("rows", "tokens", "eval_rows")
            if old["summary"].get(key) != data.summary.get(key)
        ]
        raise RunError(
            "the rows are not those that this run began with",
            ", ".join(changed) or f"same counts, other content (digest {old['digest'][:12]} → {data.digest[:12]})",
            "restore the data, or start a new run",
        )
    if run.plan.facts.revision and folder.plan().facts.revision is None:  # the download has told the commit
        write_json(folder.plan_paths()[-1], run.plan.to_json())
    write_json(folder.path / "data.json", {"digest": data.digest, "layout": data.layout, "summary": dict(data.summary)})
    folder.write_lock(job, run.plan, data.digest)


def fingerprint(processor: Any) -> tuple[Any, ...]:
    """Return what must stay the same about a tokenizer or processor."""
    tokenizer = getattr(processor, "tokenizer", processor)
    ids = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    return (len(tokenizer), *ids, tokenizer.chat_template)


def check_processor(data: Data, before: tuple[Any, ...], stage: str) -> None:
    """Refuse a stage that changed the tokenizer, which the rows were made with."""
    if fingerprint(data.processor) != before:
        raise PluginError(f"{stage} changed the tokenizer", "the rows were made with it and would mean something else")


def check_imports(plan: Plan) -> None:
    """Refuse a process in which Unsloth's patches are active though nobody planned them."""
    if "unsloth" in sys.modules and "unsloth" not in plan.preload:
        raise PluginError("unsloth was imported though the plan does not have it", "it changes every other library")


def preload(plan: Plan) -> None:
    """Import what must come before everything else."""
    early = [name for name in ("trl", "transformers", "peft") if name in sys.modules]
    if early and plan.preload:
        raise PluginError(f"{', '.join(early)} came before {plan.preload[0]}", "a plugin imported it too early")
    for name in plan.preload:
        try:
            importlib.import_module(name)
        except Exception as error:  # Unsloth raises NotImplementedError where there is no GPU
            traceback.print_exc()
            why, loader = f"{type(error).__name__}: {error}", plan.step(Stage.LOAD).plugin
            raise BackendImportError(f"cannot import {name}", why, plugin=loader) from error


def resume_point(run: RunHandle, folder: RunFolder) -> Path | None:
    """Return the newest whole checkpoint, set damaged ones aside, and say both."""
    whole, rejected = newest_whole(folder.checkpoints)
    damaged = []
    for path, reason in rejected:
        if (path / MARK).exists():  # it was whole once, so somebody may want it
            aside = next(
                other
                for count in range(1, 1000)
                if not (other := path.with_name(f"damaged-{path.name}" + (f".{count}" if count > 1 else ""))).exists()
            )
            path.rename(aside)
            damaged.append(reason)
            run.emit(Event("warning", {"message": f"{path.name} cannot be used: {reason}; it is now {aside.name}"}))
        else:
            run.emit(Event("warning", {"message": f"{path.name} cannot be used: {reason}; it is deleted"}))
            shutil.rmtree(path)
    if damaged and whole is None:
        raise RunError(
            f"no checkpoint in {folder.checkpoints} is whole any more",
            damaged[0],
            "restore one of those called damaged-…, or start a new run",
        )
    where = f"going on from {whole.name}" if whole else "no whole checkpoint: starting at step 0"
    run.emit(Event("note", {"message": where}))
    return whole


def listen(run: RunHandle) -> None:
    """Stop when the parent says so or is gone: both arrive on standard input."""
    control = os.dup(0)  # not inherited, and nothing else that this process starts reads from it
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        await_word(control)
        halt(run)

    threading.Thread(target=wait, name="parent", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent passes it on once
    signal.signal(signal.SIGTERM, lambda *_: halt(run))


def await_word(control: int) -> None:
    """Return when a word arrives on a pipe, or its other end is closed."""
    if sys.platform == "win32":
        # A pending read on standard input would block libraries that look at it while they load (numpy#24290).
        import ctypes
        import msvcrt

        handle, count = ctypes.c_void_p(msvcrt.get_osfhandle(control)), ctypes.c_ulong()
        peek = ctypes.windll.kernel32.PeekNamedPipe
        while peek(handle, None, 0, None, ctypes.byref(count), None) and not count.value:
            time.sleep(0.2)
    else:
        os.read(control, 1)  # not sys.stdin: a thread inside its lock would abort the interpreter's shutdown


def halt(run: RunHandle) -> None:
    """Ask a training to save and stop; end at once where there is nothing to save yet."""
    run.stop.set()
    if not run.graceful.is_set():
        run.emit(Event("stopped", {"message": UNDONE[run.plan.task]}))
        os._exit(Interrupted.exit_code)


def main(arguments: list[str]) -> int:
    """Do what a plan says, heed the parent, and return the exit code."""
    folder, plan = RunFolder(Path(arguments[0])), Plan.read(Path(arguments[1]))
    run = RunHandle(folder=folder.path, plan=plan)
    log = EventLog(folder.events)
    run.sink = log.append
    listen(run)
    return perform(run, folder, log)


def perform(run: RunHandle, folder: RunFolder, log: EventLog) -> int:
    """Do what the run's plan says and return the exit code; an error becomes an event, and a traceback in the log."""
    plan = run.plan
    run.sink = log.append
    try:
        with folder.own():
            job = settle(load_job(plan.job), plan)
            preload(plan)
            stages = Stages(run, job)

            def tell(event: Event) -> None:
                log.append(event)
                stages.observe(event)

            run.sink = tell
            if plan.resume:
                run.resume = resume_point(run, folder)
            TASKS[plan.task](job, run, stages, folder)
    except Interrupted as error:
        run.emit(Event("stopped", {"message": error.what}))
        return error.exit_code
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the last line of defence: nothing may end without a word
        traceback.print_exc()
        known = explain(error, folder)
        more = {name: getattr(known, name) for name in ("probing", "relief", "plugin") if hasattr(known, name)}
        with contextlib.suppress(OSError):  # on a full disk even this may fail; the exit code remains
            run.emit(Event("failed", {"error": known.to_json(), **more}))
        return known.exit_code
    run.emit(Event("done", {"task": plan.task}))
    return 0


def explain(error: BaseException, folder: RunFolder) -> ForgeError:
    """Return an error that a user can read."""
    if isinstance(error, DiskFull):
        return error
    if isinstance(error, ForgeError):
        if error.__cause__ is not None and is_disk_full(error.__cause__):
            return disk_full(folder.path / "checkpoints")
        return error
    if is_disk_full(error):
        return disk_full(folder.path / "log.txt")
    return ForgeError("forge itself failed", f"{type(error).__name__}: {error}", f"please report it with {folder.log}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
