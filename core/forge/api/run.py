"""What a stage sees of the run that it is part of."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api.group import Group
from forge.api.plan import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.api.event import Event
    from forge.api.plan import Plan
    from forge.job.decisions import Decision
    from forge.model.facts import ModelFacts


@dataclass(kw_only=True)
class Run:
    """The run, as an implementation of a stage sees it.

    Attributes:
        folder: The run folder.
        plan: The plan that the run follows: choices, machine, model facts, decisions.
        resume: The checkpoint folder to go on from, or None.
        sink: Takes each event.
        stop: Set when the user or the system asked the run to stop; training then saves a checkpoint and returns.
        graceful: Set by a stage while it honours ``stop``; before that, the worker ends at once.
        plugin: The plugin that sees the run so.
        group: The processes that train together; of most runs it is one.
        keeper: What makes checkpoints, where a worker trains.
    """

    folder: Path
    plan: Plan
    sink: Callable[[Event], None] = field(default=lambda _event: None, repr=False)
    resume: Path | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    graceful: threading.Event = field(default_factory=threading.Event)
    plugin: str = ""
    group: Group = field(default_factory=Group, repr=False)
    keeper: Callable[[int, int, bool], AbstractContextManager[Path]] | None = field(default=None, repr=False)

    @property
    def config(self) -> dict[str, Any]:
        """The plugin's own table ``[plugins.<name>]``: checked, with defaults, and with what was decided."""
        prefix = f"plugins.{self.plugin}."
        decided = (each for each in self.plan.decisions if each.key.startswith(prefix))
        own = {each.key.removeprefix(prefix): each.value for each in decided}
        return {**self.plan.configs.get(self.plugin, {}), **own}

    @property
    def rank(self) -> int:
        """The number of this process among those that train together; the one with 0 writes what all of them made."""
        return self.group.rank

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self.group.size

    @property
    def dry_run(self) -> bool:
        """Whether this is a dry run: a training is to try its longest batch, tell what it took, and return."""
        return self.plan.task is Task.DRY_RUN

    def checkpoint(self, step: int, *, keep: int = 2, finished: bool = False) -> AbstractContextManager[Path]:
        """Make a checkpoint: ``with run.checkpoint(100) as folder``, an empty folder to write into.

        When the block ends, its files are flushed to the disk and sealed, and older checkpoints go. A block that raises
        leaves nothing. What ``resume`` names is such a folder. Where several processes train together, all of them
        make it: each may write into it, and none goes on before it is sealed.

        Args:
            step: The step that has ended.
            keep: How many checkpoints to keep, this one among them; never fewer than two.
            finished: Whether training ends here.
        """
        if self.keeper is None:
            raise RuntimeError("only a worker that trains makes checkpoints")
        return self.keeper(step, keep, finished)

    def of(self, plugin: str) -> Run:
        """Return the run as a plugin sees it: the same one, whose ``config`` is that plugin's."""
        view: _View = object.__new__(_View)
        object.__setattr__(view, "__dict__", self.__dict__)  # what one of them learns, all know
        object.__setattr__(view, "plugin", plugin)
        return view

    def emit(self, event: Event) -> None:
        """Record an event in ``events.jsonl`` and show it to observers."""
        self.sink(event)

    def learn(self, facts: ModelFacts) -> None:
        """Take over what a stage found out about the model, such as the commit that a download told."""
        self.__dict__["plan"] = replace(self.plan, facts=facts)

    def decide(self, decision: Decision) -> None:
        """Settle a value that the job left open and no plan could: later stages, resumed runs and the lock have it."""
        self.__dict__["plan"] = replace(self.plan, decisions=(*self.plan.decisions, decision))


class _View(Run):
    """A run as one plugin sees it: all but ``plugin`` is the run's own."""

    __slots__ = ("plugin",)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse to let a plugin change what all the others see. Raises :class:`AttributeError`."""
        if name in Run.__dataclass_fields__:
            raise AttributeError(f"run.{name} is not for a plugin to set")
        super().__setattr__(name, value)
