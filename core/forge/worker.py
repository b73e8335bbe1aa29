"""The worker: one clean process that trains, or makes one export. ``python -m forge.worker RUN PLAN``.

Everything that touches a model happens here, so that a crash of any kind ends this process and never the one that the
user talks to. The worker reads its plan and chooses nothing; :func:`train` is a whole run, from rows to weights.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from forge.api import Data, Event, Stage
from forge.checkpoints import newest_whole
from forge.errors import BackendImportError, DiskFull, ForgeError, Interrupted, PluginError, RunError
from forge.events import EventLog
from forge.files import disk_full, files_below, is_disk_full, sha256, write_json
from forge.folder import RunFolder, settle
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
    if fingerprint(data.processor) != before:
        raise PluginError("loading changed the tokenizer", "rows were made with it, and must not mean something else")

    trained = stages.train(loaded, data)
    if run.plan.task == "dry-run":
        return
    folder.write_trained(trained)
    run.emit(Event("trained", {"weights": trained.weights, "metrics": trained.metrics}))


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
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    exported = stages.export(trained, table, part)
    files = {
        name.as_posix(): {"bytes": (part / name).stat().st_size, "sha256": sha256(part / name)}
        for name in files_below(part)
    }
    report = {"format": table.format, "report": dict(exported.report), "url": exported.url, "files": files}
    write_json(part / "export.json", report)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    run.emit(Event("exported", {"format": table.format, "folder": str(out), **report}))


TASKS = {"train": train, "dry-run": train, "data": preview, "export": export}


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
    write_json(folder.path / "data.json", {"digest": data.digest, "layout": data.layout, "summary": dict(data.summary)})
    folder.write_lock(job, run.plan, data.digest)


def fingerprint(processor: Any) -> tuple[Any, ...]:
    """Return what must stay the same about a tokenizer or processor."""
    tokenizer = getattr(processor, "tokenizer", processor)
    return (len(tokenizer), tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.chat_template)


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
            raise BackendImportError(f"cannot import {name}", f"{type(error).__name__}: {error}") from error


def resume_point(run: RunHandle, folder: RunFolder) -> Path | None:
    """Return the newest whole checkpoint, set damaged ones aside, and say both."""
    whole, rejected = newest_whole(folder.checkpoints)
    for path, reason in rejected:
        run.emit(Event("warning", {"message": f"{path.name} cannot be used: {reason}; it is deleted"}))
        shutil.rmtree(path)
    where = f"going on from {whole.name}" if whole else "no whole checkpoint: starting at step 0"
    run.emit(Event("note", {"message": where}))
    return whole


def listen(run: RunHandle) -> None:
    """Stop when the parent says so or is gone: both arrive on standard input."""

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin: a thread inside its lock would abort the interpreter's shutdown
        halt(run)

    threading.Thread(target=wait, name="parent", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent passes it on once
    signal.signal(signal.SIGTERM, lambda *_: halt(run))


def halt(run: RunHandle) -> None:
    """Ask a training to save and stop; end at once where there is nothing to save yet."""
    run.stop.set()
    if not run.graceful.is_set():
        run.emit(Event("stopped", {"message": "stopped before training began; nothing was lost"}))
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
    except Exception as error:  # noqa: BLE001 - the last line of defence: nothing may end without a word
        traceback.print_exc()
        known = explain(error, folder)
        failed = {"error": known.to_json(), "probing": getattr(known, "probing", False)}
        run.emit(Event("failed", {**failed, "relief": getattr(known, "relief", [])}))
        return known.exit_code
    run.emit(Event("done", {"task": plan.task}))
    return 0


def explain(error: Exception, folder: RunFolder) -> ForgeError:
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
