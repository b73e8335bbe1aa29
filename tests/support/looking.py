"""Projects whose model sees, and how their rows and batches are looked at."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages
from support.projects import Project
from support.tiny_vlm import make_image_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from forge.api import Data, Event, Loaded
    from forge.job.job import Job

    Projects = Callable[[str], "VisionProject"]


def loads(model: Path) -> bool:
    """Whether transformers can make the model's processor here."""
    from transformers import AutoProcessor

    try:
        AutoProcessor.from_pretrained(model)
    except (ImportError, ValueError) as error:
        if "torchvision" not in str(error):
            raise
        return False
    return True


class VisionProject(Project):
    """A project whose model sees, with pictures in ``pictures/``."""

    def __init__(self, folder: Path, model: Path, rows: int = 8) -> None:
        folder.mkdir(parents=True)
        self.folder, self.runs = folder, folder / "runs"
        shutil.copytree(model, folder / "model")
        make_image_rows(folder / "rows.jsonl", rows)
        self.write()


class Collated:
    """A job's rows, made in this process."""

    def __init__(self, project: Project) -> None:
        run, self.folder = project.prepare()
        self.events: list[Event] = []
        self.run = replace(run, sink=self.events.append)
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


def make_pairs(project: VisionProject) -> None:
    """Turn the project's conversations into pairs: the answer, and a worse one."""
    path = project.folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    made: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        worse = {"role": "assistant", "content": f"No, {index}."}
        messages = row.pop("messages")
        made.append({**row, "prompt": messages[:-1], "chosen": messages[-1:], "rejected": [worse]})
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
