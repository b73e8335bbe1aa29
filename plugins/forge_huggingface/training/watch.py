"""How fast a training is: seconds by what they went into, tokens, and the share of the device's limit.

Nothing here waits for the device: times are the host's, which the trainer's own logs bring into step with the device
often enough, and batches are counted by their shapes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from forge.api import SpeedMeasured
from forge_huggingface.speed.flops import flops
from forge_huggingface.speed.pace import limit_of

if TYPE_CHECKING:
    from forge.api import Data, Job, Run
    from forge_huggingface.training.steady import Steady


class Watch:
    """Follows one training, from where its first step begins.

    Args:
        trainer: The trainer, which counts its batches and the time of its evaluations and checkpoints.
        job: The job.
        run: The run.
        data: The rows.
    """

    def __init__(self, trainer: Steady, job: Job, run: Run, data: Data) -> None:
        self.trainer, self.job, self.run, self.data = trainer, job, run, data
        self.began = time.monotonic()
        self.counted = [(trainer.filled, 0)] if run.resume is None else list[tuple[int, int]]()
        self.before = (trainer.evaluating, trainer.saving)
        self.after_first: tuple[float, int, float, float] | None = None
        self.first = 0.0
        self.steps = 0

    def step(self) -> None:
        """Take note of the end of a step."""
        trainer, now = self.trainer, time.monotonic()
        if self.after_first is not None:
            self.steps += 1
            return
        self.after_first = (now, trainer.filled, trainer.evaluating, trainer.saving)
        self.first = now - self.began - sum(self.after_first[2:]) + sum(self.before)

    def tokens(self, seen: float) -> None:
        """Take note of the tokens of rows that the trainer has counted so far, padding left out."""
        self.counted = [*self.counted[:1], (self.trainer.filled, round(seen))]

    def result(self) -> SpeedMeasured | None:
        """Return what was measured; None if no step came after the first."""
        if self.after_first is None or not self.steps:
            return None
        began, filled, evaluating, saving = self.after_first
        trainer = self.trainer
        evaluated, saved = trainer.evaluating - evaluating, trainer.saving - saving
        seconds = time.monotonic() - began - evaluated - saved
        found = SpeedMeasured(
            first=round(self.first, 3),
            steps=self.steps,
            seconds=round(seconds, 3),
            evaluating=round(trainer.evaluating, 3),
            saving=round(trainer.saving, 3),
        )
        padded = trainer.filled - filled
        if not padded or seconds <= 0:
            return found
        return SpeedMeasured(**{**found.values, "padded": padded, **self._of_tokens(padded, seconds)})

    def _of_tokens(self, padded: int, seconds: float) -> dict[str, Any]:
        """Return what tokens tell, of which ``padded`` went through the model in so many seconds."""
        (start, none), (end, seen) = (self.counted or [(0, 0)])[0], (self.counted or [(0, 0)])[-1]
        real = min(1.0, (seen - none) / (end - start)) if end > start else None
        tokens = None if real is None else round(padded * real)
        length = padded_length = self.trainer.filled / max(1, self.trainer.sequences)
        rows, all_tokens = self.data.summary.get("rows"), self.data.summary.get("tokens")
        if self.data.layout == "tokens" and rows and all_tokens:
            length = all_tokens / rows
        padded_length = length if self.job.data.packing else padded_length
        work, limit = flops(self.job, self.run.plan.facts), limit_of(self.run.plan.machine, self.job)
        half = self.job.model.dtype != "float32" or any(self.job.train.options.get(name) for name in ("bf16", "fp16"))
        done = work and work.of(padded, padded_length) / seconds
        useful = work.of(tokens, length) / seconds if work and tokens is not None else None
        return {
            "tokens": tokens,
            "padding": None if real is None else round(1 - real, 4),
            "tokens_per_second": None if tokens is None else round(tokens / seconds, 1),
            "flops": done,
            "peak": limit if half else None,
            "share": round(useful / limit, 4) if useful is not None and limit and half else None,
        }
