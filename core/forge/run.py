"""What a stage sees of the run that it is part of."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge.api import Event
    from forge.plan import Plan


@dataclass(kw_only=True)
class RunHandle:
    """The run, as an implementation of a stage sees it.

    Attributes:
        folder: The run folder.
        plan: The plan that the run follows: choices, machine, model facts, decisions.
        resume: The checkpoint folder to go on from, or None.
        rank: This process among ``world_size``; 0 writes.
        world_size: The number of processes that train together.
        stop: Set when the user or the system asked the run to stop; training then saves a checkpoint and returns.
        graceful: Set by a stage while it honours ``stop``; before that, the worker ends at once.
    """

    folder: Path
    plan: Plan
    resume: Path | None = None
    rank: int = 0
    world_size: int = 1
    stop: threading.Event = field(default_factory=threading.Event)
    graceful: threading.Event = field(default_factory=threading.Event)
    sink: Callable[[Event], None] = field(default=lambda _event: None, repr=False)

    def emit(self, event: Event) -> None:
        """Record an event in ``events.jsonl`` and show it to observers."""
        self.sink(event)
