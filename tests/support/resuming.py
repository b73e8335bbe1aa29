"""A run that keeps every checkpoint, and what becomes of it when it goes on from each of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.api.run import Run
from forge.disk.checkpoints import checkpoints, step_of
from forge.disk.folder import RunFolder
from support.projects import Finished, Project, cut_after, json_of, perform_in

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOCK = ("seconds", "second", "time", "memory", "runtime", "bytes")
"""Parts of the names of what a clock or a machine says, which no two runs have in common."""


def parted(project: Project, *, only: frozenset[int] = frozenset()) -> Iterator[tuple[int, list[str]]]:
    """Run a project's job, go on from each of its checkpoints, and yield the step and in what the two differ."""
    whole = project.perform()
    assert whole.code == 0, whole.printed[-3000:]
    steps = [step_of(path) for path in checkpoints(whole.folder.checkpoints)]
    assert steps, "there is no checkpoint"
    for step in steps:
        if only and step not in only:
            continue
        folder = RunFolder(whole.folder.path.with_name(f"from-{step}"))
        shutil.copytree(whole.folder.path, folder.path)
        cut_after(folder, step, str(whole.folder.trained().weights))
        folder.events.unlink()
        again = resumed(folder)
        assert again.code == 0, again.printed[-3000:]
        yield step, [*differences(whole, again, step)]
        shutil.rmtree(folder.path)


def resumed(folder: RunFolder) -> Finished:
    """Go on with a run in this process, from its newest whole checkpoint."""
    return perform_in(Run(folder=folder.path, plan=replace(folder.plan(), resume=True)), folder)


def differences(whole: Finished, again: Finished, step: int) -> Iterator[str]:
    """Yield in what a resumed run differs from the undisturbed one."""
    name = whole.folder.trained().weights
    for path in sorted((whole.folder.path / name).glob("*.safetensors")):
        if path.read_bytes() != (again.folder.path / name / path.name).read_bytes():
            yield f"the weights {path.name}"
    for kind in ("step", "eval"):
        told = {number: found for number, found in numbers(whole, kind).items() if number > step}
        after = {number: found for number, found in numbers(again, kind).items() if number > step or kind == "eval"}
        if told.keys() != after.keys():
            yield f"{kind}: at {sorted(told)}, and after the resume at {sorted(after)}"
        for number in told.keys() & after.keys():
            for key in told[number].keys() | after[number].keys():
                if told[number].get(key) != after[number].get(key):
                    yield f"{kind} {number}: {key} {told[number].get(key)} → {after[number].get(key)}"
    for key in ("best_step", "metrics"):
        first, second = (untimed(json_of(each.folder.path / "trained.json")[key]) for each in (whole, again))
        if first != second:
            yield f"trained.json: {key} {first} → {second}"


def untimed(found: Any) -> Any:
    """Return what was found without what a clock says."""
    return {key: value for key, value in found.items() if not timed(key)} if isinstance(found, dict) else found


def numbers(done: Finished, kind: str) -> dict[int, dict[str, Any]]:
    """Return what the events of a kind say, by their step, without what a clock says."""
    return {event["step"]: {key: repr(value) for key, value in untimed(event).items()} for event in done.of_kind(kind)}


def timed(key: str) -> bool:
    """Whether a clock or the machine says it."""
    return key in {"at", "ts", "time"} or any(part in key for part in CLOCK)
