"""How the tests of vision models look at rows and batches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.api import Data, Loaded
    from forge.api.run import Run
    from forge.job.job import Job
    from projects import Project


class Collated:
    """A job's rows, made in this process."""

    def __init__(self, project: Project) -> None:
        self.run: Run
        self.run, self.folder = project.prepare()
        self.job: Job = settle(load_job(self.run.plan.job), self.run.plan.decisions)
        self.stages = Stages(self.run, self.job)
        self.data: Data = self.stages.collate()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the processor."""
        return self.data.processor.tokenizer

    def model(self) -> Loaded:
        """The model, with its adapter."""
        return self.stages.adapt(self.stages.load(self.data))

    def learnt(self, row: Any) -> str:
        """The text that a row teaches."""
        return str(self.tokenizer.decode([label for label in row["labels"] if label != -100]))

    def batch(self, count: int | None = None) -> dict[str, Any]:
        """The first rows, as the trainer gets them."""
        assert self.data.collator is not None
        rows = [row for row, _ in zip(self.data.train, range(count or 10**9), strict=False)]
        return self.data.collator(None)(rows)  # type: ignore[arg-type]  # the model does not matter


def rewrite(project: Project, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows of a project."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (project.folder / "rows.jsonl").write_text(text, encoding="utf-8")


def row(image: Any, answer: str = "It is red.", **more: Any) -> dict[str, Any]:
    """Return a row of one question about one image."""
    question = [{"type": "image"}, {"type": "text", "text": "Which colour is this?"}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"images": [image], "messages": messages, **more}
