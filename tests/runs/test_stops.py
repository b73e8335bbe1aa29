"""A stop that all processes learn of a step later, in one process with a group that answers as several do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api.group import Group
from support.projects import Finished, Project, perform_in

if TYPE_CHECKING:
    from collections.abc import Callable


class Later(Group):
    """One process that is answered as several are in quick steps."""

    def __init__(self) -> None:
        self.before = False

    def agree_soon(self, what: str, wish: bool) -> bool:  # noqa: ARG002 - the only question
        before, self.before = self.before, wish
        return before


@pytest.fixture
def stopped(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """Return what trains eight steps, is asked to stop as step 3 begins, and calls something as it logs."""
    from forge_huggingface.training.callbacks import ForgeCallback

    def run(logged: Callable[[Any, Any], None] = lambda *_: None, **train: Any) -> Finished:
        project.write(train={"max_steps": 8, "save_steps": 8, "logging_steps": 1, **train})
        made, folder = project.prepare()
        made = replace(made, group=Later())
        begin = ForgeCallback.on_step_begin

        def on_step_begin(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
            begin(self, args, state, control, **more)
            if state.global_step == 2:
                made.stop.set()

        monkeypatch.setattr(ForgeCallback, "on_step_begin", on_step_begin)
        monkeypatch.setattr(
            ForgeCallback, "watch_collapse", lambda self, _, control: logged(self.trainer.state, control)
        )
        return perform_in(made, folder)

    return run


def kept(done: Finished) -> list[str]:
    return sorted(path.name for path in done.folder.checkpoints.glob("checkpoint-*"))


def test_a_quick_training_stops_a_step_later_and_saves(stopped: Callable[..., Finished]) -> None:
    done = stopped()
    assert (done.code, kept(done)) == (130, ["checkpoint-4"])


def test_what_takes_long_does_not_begin_before_the_stop(stopped: Callable[..., Finished]) -> None:
    done = stopped(save_steps=3, save_strategy="steps")
    assert (done.code, kept(done)) == (130, ["checkpoint-3"])


def test_a_training_that_ends_by_itself_meanwhile_is_saved_as_one(stopped: Callable[..., Finished]) -> None:
    def end(state: Any, control: Any) -> None:
        control.should_training_stop = control.should_training_stop or state.global_step == 3

    done = stopped(end)
    assert done.code == 0, done.printed
    assert done.folder.trained() is not None
