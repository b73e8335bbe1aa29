"""What a finished run took, for the table by which later plans tell what ends first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from forge.api.stage import Stage
from forge.disk import speeds
from forge.disk.events import read_events
from forge.disk.speeds import Timed
from forge.job.decisions import settle
from forge.job.job import load_job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.api.plan import Plan
    from forge.disk.folder import RunFolder

ENOUGH = 5
"""Steps after the first that a run must have had to tell how long one takes."""


def remember(folder: RunFolder, plan: Plan) -> str | None:
    """Put what a run took into the machine's table, if it tells enough; return why that cannot be, or None.

    Args:
        folder: The run, just trained from its beginning.
        plan: The plan of the attempt that trained it.
    """
    timed = timed_of(read_events(folder.events), plan)
    return speeds.add(plan.machine, timed) if timed is not None else None


def timed_of(events: Iterable[Mapping[str, Any]], plan: Plan) -> Timed | None:
    """Return what a run's events tell of its last training, or None if that is too little to go by."""
    preloaded = start = train = 0.0
    speed: Mapping[str, Any] = {}
    for event in events:
        kind, stage, seconds = event.get("kind"), event.get("stage"), event.get("seconds")
        if kind == "preloaded":
            preloaded, speed = float(seconds or 0.0), {}
        elif kind == "stage" and event.get("state") == "started" and stage == Stage.COLLATE:
            start = preloaded
        elif kind == "stage" and event.get("state") == "finished" and stage in {Stage.LOAD, Stage.ADAPT}:
            start += float(seconds or 0.0)
        elif kind == "stage" and event.get("state") == "started" and stage == Stage.TRAIN:
            train = float(event["time"])
        elif kind == "training":
            if event.get("from"):
                return None
            start += float(event["time"]) - train
        elif kind == "speed":
            speed = event
    parameters = plan.facts.parameters
    if parameters is None or speed.get("steps", 0) < ENOUGH or not speed.get("seconds"):
        return None
    job = settle(load_job(plan.job), plan.decisions)
    step = speed["seconds"] / speed["steps"]
    return Timed(
        backend=plan.step(Stage.LOAD).plugin,
        parameters=parameters,
        bits=job.model.bits,
        checkpointing=job.train.options.get("gradient_checkpointing") not in {None, False, "auto"},
        start=round(start + max(0.0, speed["first"] - step), 3),
        flops=speed.get("flops"),
        tokens_per_second=speed.get("tokens_per_second"),
        when=time.time(),
    )
