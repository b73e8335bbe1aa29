"""What a stage sees of the run that it is part of."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
    """

    folder: Path
    plan: Plan
    sink: Callable[[Event], None] = field(default=lambda _event: None, repr=False)
    resume: Path | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    graceful: threading.Event = field(default_factory=threading.Event)

    def emit(self, event: Event) -> None:
        """Record an event in ``events.jsonl`` and show it to observers."""
        self.sink(event)

    def learn(self, facts: ModelFacts) -> None:
        """Take over what a stage found out about the model, such as the commit that a download told."""
        self.plan = replace(self.plan, facts=facts)

    def decide(self, decision: Decision) -> None:
        """Settle a value that the job left open and no plan could: later stages, resumed runs and the lock have it."""
        self.plan = replace(self.plan, decisions=(*self.plan.decisions, decision))
