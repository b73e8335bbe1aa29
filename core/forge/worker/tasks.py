"""What a worker can be asked to do; :func:`train` is a whole run, from rows to weights."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from forge.api.event import EvaluationDone, ExportDone, TrainingDone
from forge.api.plan import Answers, Export, Plan, Preview, Task, Training
from forge.api.stage import Stage
from forge.disk.events import plain
from forge.disk.files import seal, write_json
from forge.disk.inputs import Prints, imported, of_job
from forge.errors import PluginError, RunError
from forge.worker.imports import check_imports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forge.api.results import Data
    from forge.api.run import Run
    from forge.disk.folder import RunFolder
    from forge.job.job import Job
    from forge.worker.stages import Stages

P = TypeVar("P", bound=Plan)


def train(job: Job, run: Run, stages: Stages, folder: RunFolder) -> None:
    """Run a job: rows, model, adapter, training. Exports follow in workers of their own."""
    data = stages.collate()
    record(data, stages.job, run, folder)
    stages.preflight(data)
    before = data.fingerprint(data.processor) if data.fingerprint else None

    begins = run.plan.task is Task.TRAIN and (folder.inputs() is None or not _plan(run, Training).resume)
    with Prints(of_job(job) if begins else {}) as prints:
        loaded = stages.load(data)
        trainer = dict(loaded.trainer)
        loaded = stages.adapt(loaded)
        loaded = replace(loaded, trainer={**trainer, **loaded.trainer})
        check_imports(run.plan)
        check_processor(data, before, "loading")
        if begins:
            prints.add(imported(job, folder.path))  # rewards were imported when they were tried
            write_json(folder.path / "inputs.json", prints.result())

    trained = stages.train(loaded, data)
    if run.plan.task is Task.DRY_RUN:
        return
    folder.write_trained(trained)
    run.emit(TrainingDone(trained.weights, trained.metrics))
    check_processor(data, before, "training")  # last of all: what was trained is on record, whatever this finds


def preview(_job: Job, run: Run, stages: Stages, folder: RunFolder) -> None:
    """Collate only, and write the first rows as the trainer would get them to ``preview.json``."""
    data = stages.collate()
    if data.preview is None:
        raise PluginError("the rows cannot be shown", f"plugin {run.plan.step(Stage.COLLATE).plugin} has no preview")
    rows = data.preview(data, _plan(run, Preview).rows)
    write_json(folder.path / "preview.json", {"rows": rows, "summary": dict(data.summary)})


def export(job: Job, run: Run, stages: Stages, folder: RunFolder) -> None:
    """Make one export under a temporary name, record its files, and rename it."""
    index, trained = _plan(run, Export).index, folder.weights_or_refuse()
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
    run.emit(ExportDone.from_values({**report, "folder": str(out)}))


def evaluate(_job: Job, run: Run, stages: Stages, folder: RunFolder) -> None:
    """Ask the held-out rows, and write down what came of it; the weights are not touched."""
    trained = folder.weights_or_refuse()
    folder.check_trained()
    found = asdict(stages.evaluate(trained))
    path = folder.path / _plan(run, Answers).target
    path.parent.mkdir(exist_ok=True)
    write_json(path, plain(found))
    run.emit(EvaluationDone(**found, file=str(path)))


TASKS: Mapping[Task, Callable[[Job, Run, Stages, RunFolder], None]] = {
    Task.TRAIN: train,
    Task.DRY_RUN: train,
    Task.DATA: preview,
    Task.EVAL: evaluate,
    Task.EXPORT: export,
}


def _plan(run: Run, kind: type[P]) -> P:
    """Return the run's plan as the record of the task at hand."""
    assert isinstance(run.plan, kind), f"a plan to {run.plan.task} is no {kind.__name__}"
    return run.plan


def record(data: Data, job: Job, run: Run, folder: RunFolder) -> None:
    """Write down which rows are trained on, and refuse a resumed run that would see others."""
    old = folder.data()
    if _plan(run, Training).resume and old and old["digest"] != data.digest:
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
    written = folder.plan()
    told = run.plan.facts.revision and written.facts.revision is None  # the download has told the commit
    if told or run.plan.decisions != written.decisions:
        write_json(folder.plan_paths()[-1], run.plan.to_json())
    write_json(folder.path / "data.json", {"digest": data.digest, "layout": data.layout, "summary": dict(data.summary)})
    folder.write_lock(job, run.plan, data.digest)


def check_processor(data: Data, before: Any, stage: str) -> None:
    """Refuse a stage that changed the tokenizer, which the rows were made with."""
    if data.fingerprint and data.fingerprint(data.processor) != before:
        raise PluginError(f"{stage} changed the tokenizer", "the rows were made with it and would mean something else")
