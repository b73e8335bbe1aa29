"""Every method goes on from a checkpoint to the same bits, online ones between two sets of answers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from support.projects import Project, cut_after, step_now, wait_for, worker_pid
from support.resuming import resumed
from support.rows import ONLINE, labelled, pairs, prompts, ratings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forge.disk.folder import RunFolder

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpo": (pairs, {}),
    "kto": (ratings, {}),
    "reward": (pairs, {}),
    "classification": (labelled, {}),
    "grpo": (prompts, ONLINE),
    "rloo": (prompts, {**ONLINE, "gradient_accumulation_steps": 2}),
}


def weights(folder: RunFolder) -> bytes:
    """Return the trained adapter."""
    return (folder.path / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=pytest.mark.slow if name in {"classification", "kto", "rloo"} else ()) for name in CASES],
)
def test_a_run_that_goes_on_ends_in_the_same_bits(
    project: Project, rows: Callable[[Sequence[Any]], None], method: str
) -> None:
    make, options = CASES[method]
    rows(make(24))
    project.write(train={"method": method, **options}, adapter={"lora_dropout": 0.1})
    done = project.perform()
    assert done.code == 0, done.printed
    whole = weights(done.folder)
    cut_after(done.folder, 2)
    again = resumed(done.folder)
    assert again.code == 0, again.printed
    assert any("going on from checkpoint-2" in note["message"] for note in again.of_kind("note"))
    assert weights(done.folder) == whole


def test_prompts_come_in_their_order_after_the_first_pass_over_them(
    project: Project, rows: Callable[[Sequence[Any]], None]
) -> None:
    rows(prompts(5))
    project.write(train={"method": "grpo", **ONLINE, "max_steps": 10, "save_steps": 2})
    done = project.perform()
    assert done.code == 0, done.printed
    told = {event["step"]: event["answers"] for event in done.of_kind("answers")}
    cut_after(done.folder, 6)
    again = resumed(done.folder)
    assert again.code == 0, again.printed
    after = {event["step"]: event["answers"] for event in again.of_kind("answers")}
    assert [after[step] for step in (7, 8, 9, 10)] == [told[step] for step in (7, 8, 9, 10)]


def test_checkpoints_of_online_methods_stand_between_two_sets_of_answers(
    project: Project, rows: Callable[[Sequence[Any]], None]
) -> None:
    rows(prompts())
    options = {**ONLINE, "steps_per_generation": 3, "max_steps": 6, "save_steps": 2}
    project.write(train={"method": "grpo", **options})
    done = project.perform()
    assert done.code == 0, done.printed
    assert [event["step"] for event in done.of_kind("checkpoint")] == [3, 6]
    assert any("save_steps is rounded up to 3" in note["message"] for note in done.of_kind("note"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_a_killed_run_ends_in_the_same_bits(
    project: Project, rows: Callable[[Sequence[Any]], None], method: str
) -> None:
    make, options = CASES[method]
    rows(make(24))
    project.write(train={"method": method, **options, "max_steps": 24, "save_steps": 4})
    project.forge("run", "job.toml")
    whole = weights(project.newest())
    process = project.begin()
    folder = project.newest()
    wait_for(lambda: step_now(folder) >= 9)
    os.kill(worker_pid(folder), signal.SIGKILL)
    process.communicate(timeout=60)
    assert folder.trained() is None, "killed too late"
    output = project.forge("resume", str(folder.path))
    assert "going on from checkpoint-" in output
    assert weights(folder) == whole
