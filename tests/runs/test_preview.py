"""`forge data` shows exactly what the trainer gets."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from forge.api.plan import Task
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages
from forge_huggingface.methods import METHODS
from forge_huggingface.training.train import make_trainer
from support.projects import Project, json_of

CHAT = [{"role": "user", "content": "Count to two."}, {"role": "assistant", "content": "one, two"}]
FORMATS: dict[str, list[dict[str, Any]]] = {
    "messages": [{"messages": CHAT}, {"messages": [*CHAT, *CHAT]}],
    "sharegpt": [{"conversations": [{"from": "human", "value": "A colour?"}, {"from": "gpt", "value": "green"}]}],
    "prompt-completion": [{"prompt": "The sea is", "completion": " wide"}, {"prompt": "Name", "completion": " a"}],
    "instruction": [{"instruction": "Translate.", "input": "Good morning", "output": "Guten Morgen"}],
    "text": [{"text": "The wind over it is cold."}, {"text": "red, green, blue"}],
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_preview_is_the_trainers_batches(project: Project, name: str) -> None:
    """Ids and labels of every previewed row are those of a row in the trainer's own batches, and none is missing."""
    rows = FORMATS[name] * 2
    (project.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.write(train={"per_device_train_batch_size": 2})
    run, _folder = project.prepare()
    job = settle(load_job(run.plan.job), run.plan.decisions)
    stages = Stages(run, job)
    data = stages.collate()
    assert data.preview
    shown = data.preview(data, len(rows))
    assert data.summary["sources"][0]["format"] == name

    trainer = make_trainer(METHODS["sft"], job, run, stages.adapt(stages.load(data)), data)
    trained = []
    for batch in trainer.get_train_dataloader():
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            count = int(mask.sum())
            trained.append((ids[:count].tolist(), labels[:count].tolist()))
            assert set(labels[count:].tolist()) <= {-100}
    assert sorted((row["input_ids"], row["labels"]) for row in shown) == sorted(trained)
    for row in shown:
        kept = [segment for segment in row["segments"] if segment["supervised"]]
        assert kept, "every row teaches something"
        assert "".join(segment["text"] for segment in row["segments"]) == data.processor.decode(row["input_ids"])


@pytest.mark.slow
def test_the_command_shows_rows_and_counts_and_leaves_nothing_behind(project: Project) -> None:
    output = project.forge("data", "job.toml", "--rows", "2")
    assert "row 2 (rows.jsonl:2)" in output
    assert "«Paris is the sea" in output
    assert not project.runs.exists()
    shown = json.loads(project.forge("data", "job.toml", "--json"))
    assert len(shown["rows"]) == 3
    assert shown["summary"]["rows"] == 16


@pytest.mark.slow
def test_the_command_and_the_run_say_what_is_cut_split_and_packed(project: Project) -> None:
    long = {"messages": [CHAT[0], {"role": "assistant", "content": "one, two, " * 90}]}
    (project.folder / "rows.jsonl").write_text((json.dumps({"messages": CHAT}) + "\n") * 4 + json.dumps(long))
    project.write(data={"on_long_row": "truncate"})
    said = re.escape("cut: 1 row, ") + r"\d\d % of its tokens, \d\d % of all"
    assert re.search(said + "; longer than 128 tokens", project.forge("data", "job.toml"))
    assert re.search(said, project.forge("run", "job.toml", "--dry-run"))
    (project.folder / "rows.jsonl").write_text(json.dumps({"text": "one, two, " * 90}))
    project.write(data={"packing": True, "streaming": True})
    output = project.forge("data", "job.toml")
    assert "row 2" in output
    assert re.search(r"split: 1 long row into \d of at most 128 tokens", output)
    assert re.search(r"packed: the first into \d rows of 128, \d+% filled", output)


def test_the_summary_is_kept_with_the_run(project: Project) -> None:
    done = project.perform(task=Task.DRY_RUN)
    assert json_of(done.folder.path / "data.json")["summary"]["rows"] == 16
