"""What comes after training: the evaluation and the exports, each in a worker of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api.event import Warned
from forge.api.plan import Answers, Plan, Task, Who
from forge.discovery.describe import describe_model
from forge.discovery.keys import PluginKeys
from forge.disk.faults import disk_errors
from forge.disk.files import write_json
from forge.disk.folder import EVALUATION, RunFolder
from forge.disk.inputs import altered
from forge.errors import ForgeError, Interrupted, PluginError, RunError
from forge.job.job import Job, load_job
from forge.parent.process import work
from forge.planning.needs import asked_models
from forge.planning.planner import answer_plan, export_plan
from forge.planning.renewing import renewed_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forge.api.results import Trained
    from forge.discovery.catalogue import Catalogue
    from forge.job.read import JobFile
    from forge.machine.machine import Machine
    from forge.model.facts import ModelFacts
    from forge.parent.process import Outcome, Show


def heed(outcome: Outcome, folder: RunFolder) -> None:
    """Stop after a worker that came to its end, and was asked to before, or has left nothing.

    Raises:
        Interrupted: The user asked it to stop.
        PluginError: It said that it was done, and it was not: only a plugin can do that.
    """
    if folder.trained() is None:
        what = "the worker said that it was done, and has left no trained weights"
        raise PluginError(what, "a plugin ended it in its name", f"see {folder.log}")
    job = load_job(folder.plan().job)
    if outcome.asked and (job.export or job.eval):
        left = " and ".join(name for name, asked in (("evaluation", job.eval), ("exports", job.export)) if asked)
        why = f"training had just ended and its weights are saved; {left} were not made"
        raise Interrupted("stopped", why, f"go on with: forge resume {folder.path}")


def finish(folder: RunFolder, catalogue: Catalogue, machine: Machine, show: Show) -> None:
    """Do what comes after training and is not there yet: the evaluation, then the exports.

    The evaluation comes first, since the exports' model cards tell of it; if it fails, they are made all the same.
    """
    job, failure = load_job(folder.plan().job), None
    if job.eval is not None and folder.evaluation() is None:
        file = folder.job_file(PluginKeys(catalogue, machine))
        try:
            evaluate(folder, file, asked_models(job), catalogue, machine, show)
        except Interrupted:
            raise
        except ForgeError as error:
            failure = error
            show(Warned(f"the evaluation failed: {error}"))
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
    models: Sequence[Who],
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
        models: Who answers.
        catalogue: The plugins.
        machine: This machine.
        show: Called with each event.
        target: The file for the result, relative to the run folder.
        gguf: The GGUF file, if it is among the models.

    Raises:
        ForgeError: Of whatever kind; the trained weights are not touched.
    """
    plan = plan_answers(folder, file, Task.EVAL, models, catalogue, machine, gguf=gguf)
    for note in changed_plugins(folder.plan(), plan, catalogue):
        show(Warned(note))
    path = folder.path / "evaluations" / "plans" / f"{Path(target).stem}.json"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, replace(plan, target=target).to_json())
    outcome = work(folder, path, show)
    if outcome.error is not None:
        raise outcome.error


def plan_answers(
    folder: RunFolder,
    file: JobFile,
    task: Task,
    models: Sequence[Who],
    catalogue: Catalogue,
    machine: Machine,
    *,
    gguf: Path | None = None,
) -> Answers:
    """Plan what makes a finished run answer, for an evaluation or a chat. Raises :class:`ForgeError`."""
    trained, before = folder.weights_or_refuse(), folder.plan()
    # A GGUF file answers alone: where the base model is now does not matter.
    facts = before.facts if tuple(models) == (Who.GGUF,) else base_facts(folder, file.job, before, trained, catalogue)
    plan = answer_plan(file, task, models, catalogue, machine, facts, trained.traits)
    return replace(plan.after(before.decisions), gguf=str(gguf.resolve()) if gguf is not None else None)


def changed_plugins(before: Plan, plan: Plan, catalogue: Catalogue) -> Iterator[str]:
    """Yield which of the plugins that a run began with are others by now, of those that a plan needs and its observers.

    Args:
        before: The run's plan.
        plan: What is to be done with it.
        catalogue: The plugins of today.
    """
    needed = {*plan.versions(), *(name for name, _ in before.observers)}
    yield from renewed_plugins({name: was for name, was in before.versions().items() if name in needed}, catalogue)


def export_all(folder: RunFolder, catalogue: Catalogue, machine: Machine, show: Show) -> None:
    """Make the exports of the job that are not there yet; all are tried before the first failure is raised."""
    job = load_job(folder.plan().job)
    failures: list[tuple[str, ForgeError]] = []
    for index in range(len(job.export)):
        if not folder.is_exported(index, job):
            try:
                export(folder, job, index, catalogue, machine, show)
            except Interrupted:
                raise
            except ForgeError as error:
                failures.append((job.export[index].format, error))
                show(Warned(f"export {job.export[index].format} failed: {error}"))
    if failures:
        names = ", ".join(name for name, _ in failures)
        state, do = "trained and safe", f"then `forge export {folder.path}`"
        try:
            folder.check_trained()
        except ForgeError as error:  # what failed may have harmed them
            state, do = "trained, and harmed,", str(error)
        raise ForgeError(f"the model is {state} in {folder.path}, but not exported ({names})", str(failures[0][1]), do)


def export(folder: RunFolder, job: Job, index: int, catalogue: Catalogue, machine: Machine, show: Show) -> None:
    """Plan one export of a finished run for this machine and make it in a worker of its own. Raises ForgeError."""
    trained, before = folder.weights_or_refuse(), folder.plan()
    facts = base_facts(folder, job, before, trained, catalogue)
    plan = export_plan(job, index, catalogue, machine, facts, trained.traits, before.source, before.named)
    for note in changed_plugins(before, plan, catalogue):
        show(Warned(note))
    out = folder.export_folder(index, job)
    path = out.with_name(f"{out.name}.plan.json")
    with disk_errors(path):
        out.parent.mkdir(exist_ok=True)
        write_json(path, plan.after(before.decisions).to_json())
    outcome = work(folder, path, show)
    if outcome.error is not None:
        raise outcome.error


def base_facts(folder: RunFolder, job: Job, before: Plan, trained: Trained, catalogue: Catalogue) -> ModelFacts:
    """Return the facts about the base model of a finished run. Raises :class:`RunError` if it is another one now."""
    facts = before.facts
    if facts.source == "folder":  # it may have been moved, or overwritten, since
        facts = describe_model(catalogue, job.model.id, facts.revision, job.folder)
        if facts.digest and trained.base.get("digest") and facts.digest != trained.base["digest"]:
            raise RunError(
                f"{job.model.id} is not the base model that the run was trained on",
                "config or weights are others",
                "name the right folder: --set model.id=FOLDER",
            )
        here = job.path(job.model.id)
        seen = ((name, altered(here / name, known)) for name, known in _weights(folder, before).items())
        if changed := [f"{name} {how}" for name, how in seen if how]:
            raise RunError(
                f"{job.model.id} is not the base model that the run was trained on",
                "; ".join(changed),
                "name the right folder: --set model.id=FOLDER",
            )
    return facts


def _weights(folder: RunFolder, before: Plan) -> dict[str, Any]:
    """Return what was known of the weights of the base model when the run began, by their names in its folder."""
    start, known = f"{before.job['model']['id']}/", folder.inputs() or {}
    return {
        name.removeprefix(start): seen
        for name, seen in known.items()
        if name.startswith(start) and name.endswith(".safetensors")
    }
