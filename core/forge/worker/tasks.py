"""What a worker can be asked to do; :func:`train` is a whole run, from rows to weights."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from forge.api.event import EvaluationDone, ExportDone, Noted, TrainingDone, Warned
from forge.api.plan import Answers, Export, Plan, Preview, Task, Training
from forge.api.stage import Stage
from forge.disk.events import plain
from forge.disk.files import broken_seal, seal, sha256, write_json
from forge.disk.inputs import Prints, imported, of_job
from forge.disk.spare import some
from forge.errors import ExportError, ForgeError, PluginError, RunError
from forge.job.job import load_job
from forge.masking import masked
from forge.worker.faults import export_fault
from forge.worker.imports import check_imports
from forge.worker.place import kept
from forge.worker.stages import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from forge.api.results import Data, Trained
    from forge.api.run import Run
    from forge.disk.folder import RunFolder
    from forge.job.job import Job
    from forge.job.tables import ExportTable
    from forge.worker.stages import Stages

P = TypeVar("P", bound=Plan)


def train(job: Job, run: Run, stages: Stages, folder: RunFolder) -> None:
    """Run a job: rows, model, adapter, training. Exports follow in workers of their own.

    Where several processes train together, all of them do it; what is decided, checked and written down once is rank
    0's.
    """
    data = stages.collate()
    run.group.same("rows", data.digest, lambda digest: f"some of the digest {digest[:12]}")
    if run.rank == 0:
        stages.fit(data)
        record(data, stages.job, run, folder)
        stages.preflight(data)
    stages.follow(run.group.first(run.plan))
    before = data.fingerprint(data.processor) if data.fingerprint else None

    begins = (
        run.rank == 0 and run.plan.task is Task.TRAIN and (folder.inputs() is None or not _plan(run, Training).resume)
    )
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
    if run.rank == 0:
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
    """Make one export under a temporary name, record its files, rename it, and upload it if the job says so.

    Of an export whose upload failed, only the upload is done again.
    """
    index, trained = _plan(run, Export).index, folder.weights_or_refuse()
    table, out = job.export[index], folder.export_folder(index, job)
    folder.check_trained()
    made_of = {"weights": sha256(folder.path / "trained.json"), "export": table.made_by()}
    report = waiting(out, made_of) if table.push_to_hub else None
    if report is None:
        report = make(run, stages, trained, table, out) | {"made_of": made_of}
    if table.push_to_hub:
        write_json(out / "export.json", report | {"waiting": table.push_to_hub})  # until it is there
        run.emit(Noted(f"uploading {out} to {table.push_to_hub}"))
        try:
            with harmless(run, trained, Stage.EXPORT, "uploaded"):
                report["url"] = stages.upload(table, out)
        except ForgeError as error:
            own = load_job(folder.plan().job).export
            mine = len(own) > index and own[index].push_to_hub == table.push_to_hub
            again = f"`forge resume {folder.path}`" if mine else "the same command"
            raise ExportError(
                f"the export is in place in {out}, and was not uploaded",
                str(error),
                f"{again} repeats the upload alone",
            ) from error
    write_json(out / "export.json", report)
    run.emit(ExportDone(**{key: report[key] for key in ("format", "report", "url", "files")}, folder=str(out)))


def waiting(out: Path, made_of: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what an export recorded that is whole, of the same weights and settings, and was not uploaded."""
    try:
        report: dict[str, Any] = json.loads((out / "export.json").read_text(encoding="utf-8"))
        if report.pop("waiting", None) is None or report["made_of"] != made_of or broken_seal(out, report["files"]):
            return None
    except (
        FileNotFoundError,
        ValueError,
        RecursionError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # none, or damaged: it is made anew
        return None
    return report


def make(run: Run, stages: Stages, trained: Trained, table: ExportTable, out: Path) -> dict[str, Any]:
    """Make an export and put it in its place; return what is recorded of it."""
    part = out.with_name(f"{out.name}.part")
    if not run.plan.step(Stage.EXPORT).resumes:
        shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, exist_ok=True)
    with harmless(run, trained, Stage.EXPORT, "exported", part):
        exported = stages.export(trained, table, part)
    if fault := export_fault(part, exported.files, exported.report):
        shutil.rmtree(part, ignore_errors=True)
        who = name_of(run.plan.step(Stage.EXPORT))
        raise ExportError(f"{who} made no usable export", fault, "update it; the trained weights are safe")
    report = {"format": table.format, "report": dict(exported.report), "url": None, "files": seal(part)}
    write_json(part / "export.json", report)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    return report


@contextmanager
def harmless(run: Run, trained: Trained, stage: Stage, did: str, out: Path | None = None) -> Iterator[None]:
    """Refuse what a plugin did if it harmed the run; what it deleted is put back, as far as that goes.

    Args:
        run: The run.
        trained: The trained weights.
        stage: The plugin's stage.
        did: What it did there.
        out: The folder that it may write; it is deleted with what came of it.

    Raises:
        PluginError: It deleted files of the run, or wrote over them.
    """
    who = name_of(run.plan.step(stage))
    try:
        with kept(run.folder, {trained.weights, trained.processor}, out) as harm:
            yield
    finally:
        if harm.added:
            run.emit(Warned(f"{who} wrote {some(harm.added)} while it {did}, which is among the run's own files"))
        if harm.done:
            if out is not None:
                shutil.rmtree(out, ignore_errors=True)
            raise PluginError(f"{who} harmed the run while it {did}", str(harm), "update it")


def evaluate(_job: Job, run: Run, stages: Stages, folder: RunFolder) -> None:
    """Ask the held-out rows, and write down what came of it; the weights are not touched."""
    trained = folder.weights_or_refuse()
    folder.check_trained()
    with harmless(run, trained, Stage.EVALUATE, "evaluated"):
        found = asdict(stages.evaluate(trained))
    path = folder.path / _plan(run, Answers).target
    path.parent.mkdir(exist_ok=True)
    write_json(path, without_logins(plain(found)))  # rows and answers may hold addresses
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
    summary = without_logins(dict(data.summary))  # reasons of dropped rows may quote addresses
    write_json(folder.path / "data.json", {"digest": data.digest, "layout": data.layout, "summary": summary})
    folder.write_lock(job, run.plan, data.digest)


def without_logins(data: Any) -> Any:
    """Return JSON data with the logins in its texts hidden."""
    return json.loads(masked(json.dumps(data)))


def check_processor(data: Data, before: Any, stage: str) -> None:
    """Refuse a stage that changed the tokenizer, which the rows were made with."""
    if data.fingerprint and data.fingerprint(data.processor) != before:
        raise PluginError(f"{stage} changed the tokenizer", "the rows were made with it and would mean something else")
