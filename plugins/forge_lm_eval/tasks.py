"""The harness's tasks: found by name, their questions brought, and nothing run that comes from elsewhere.

Building a task reads its data set. So this is done once before the training, where what is missing costs nothing yet.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import DataError, ForgeError, UsageError, did_you_mean, first_line
from forge_lm_eval.rules import asked, folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forge.api import Job


@dataclass(frozen=True, slots=True)
class Exam:
    """What is asked.

    Attributes:
        manager: The harness's own index of tasks.
        objects: The groups and tasks as the job names them, for the harness.
        groups: The groups among them by name, those inside them too.
        tasks: The tasks of all by name.
        shown: The names whose numbers are told: tasks and groups that the job names, and the tasks of its tags.
    """

    manager: Any
    objects: list[Any]
    groups: Mapping[str, Any]
    tasks: Mapping[str, Any]
    shown: list[str]


@dataclass(slots=True)
class _Watched:
    """What building tasks has asked for: the data set that is being read, and code that was not fetched."""

    data: tuple[str, ...] = ()
    code: list[str] = field(default_factory=list)


def build(job: Job) -> Exam:
    """Find the tasks of a job and read their questions.

    Raises:
        UsageError: There is no such task, or it needs something that is not done here.
        DataError: Its data set is not there and cannot be fetched.
    """
    from lm_eval.tasks import TaskManager

    names = asked(job)
    manager = TaskManager(include_path=[str(folder) for folder in folders(job)] or None)
    for name in names:
        if name not in manager.task_index:
            otherwise = "`lm-eval ls tasks` shows all; tasks of your own are found in [plugins.lm-eval] include_path"
            raise UsageError(
                f'the lm-evaluation-harness has no task "{name}"',
                None,
                did_you_mean(name, manager.all_tasks, otherwise),
            )
    with _watched() as watched:
        loaded = _load(manager, names, watched)
    groups, tasks = loaded["groups"], loaded["tasks"]
    _refuse_unfit(tasks)
    inside = {task.task_name for name in names if name in groups for task in groups[name].get_all_tasks()}
    alone = [task for name, task in tasks.items() if name not in inside]
    top = [groups[name] for name in names if name in groups]
    shown = [group.name for group in top if group.aggregate_metric_list]
    shown += [task.task_name for group in top if not group.aggregate_metric_list for task in group.get_all_tasks()]
    return Exam(manager, [*top, *alone], groups, tasks, [*shown, *(task.task_name for task in alone)])


def _load(manager: Any, names: list[str], watched: _Watched) -> Mapping[str, Any]:
    try:
        loaded: Mapping[str, Any] = manager.load(names)
    except ForgeError:
        raise
    except Exception as error:
        _refuse_code(watched)
        if not watched.data:
            raise UsageError(f"the tasks {', '.join(names)} cannot be made", first_line(error)) from error
        path = watched.data[0]
        what, why = (
            f"the data set {' '.join(watched.data)} of the lm-evaluation-harness cannot be read",
            first_line(error),
        )
        arguments = ", ".join(f'"{part}"' for part in watched.data)
        where = f"python -c 'import datasets; datasets.load_dataset({arguments})'"
        if path in {"json", "csv", "parquet", "arrow", "text"}:
            raise DataError(
                what, why, "write full paths in its data_files: others start where the command is"
            ) from error
        say = f"fetch it where there is a network, with HF_HOME on a disk that this machine sees: {where}"
        raise DataError(what, why, f"{say}; a gated one also needs `hf auth login`") from error
    _refuse_code(watched)
    return loaded


def _refuse_code(watched: _Watched) -> None:
    if watched.code:
        what = f"a task measures by {watched.code[0]}, which is Python code of the hub"
        raise UsageError(what, "forge runs none", "take a task that measures by the harness's own metrics")


def _refuse_unfit(tasks: Mapping[str, Any]) -> None:
    """Refuse tasks that run what a model writes, or show it pictures. Raises :class:`UsageError`."""
    for name, task in tasks.items():
        if getattr(task, "UNSAFE_CODE", False):
            what = f'the task "{name}" runs programs that the model writes, without a sandbox'
            raise UsageError(what, None, "measure by pass@k and the reward code-tests, which has one")
        if getattr(task, "MULTIMODAL", False):
            raise UsageError(f'the task "{name}" shows pictures', "the harness asks texts here", "take another")


@contextlib.contextmanager
def _watched() -> Iterator[_Watched]:
    """Note which data set is read, and fetch no code: ``evaluate.load`` would run a metric's file of the hub."""
    import datasets
    import evaluate

    watched, read, fetch = _Watched(), datasets.load_dataset, evaluate.load

    def noted(path: str, name: str | None = None, *arguments: Any, **named: Any) -> Any:
        watched.data = (path, name) if name else (path,)
        found = read(path, name, *arguments, **named)
        watched.data = ()
        return found

    def refused(path: str, *_: Any, **__: Any) -> Any:
        watched.code.append(path)
        raise UsageError(f"{path} is code of the hub", "forge runs none")

    datasets.load_dataset, evaluate.load = noted, refused
    try:
        yield watched
    finally:
        datasets.load_dataset, evaluate.load = read, fetch
