"""Continued pretraining: texts of any length in, a lower loss on held-out texts out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import accumulate, islice
from typing import Any

import pytest

from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages
from forge_huggingface.batches.tokens import TokenCollator
from forge_huggingface.data.packing import packed
from forge_huggingface.methods import METHODS
from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rows import Rendered, Text
from forge_huggingface.training.train import make_trainer
from support.evaluating import Evaluation
from support.projects import Project

SENTENCES = [
    "The sea is wide. ",
    "The wind over it is cold. ",
    "In the morning it is green. ",
    "Paris is the capital. ",
]


def write_texts(project: Project, count: int = 12) -> None:
    """Write a folder of texts: short ones, and ones that are longer than a row."""
    (project.folder / "texts").mkdir()
    for part in ("a", "b"):
        texts = ["".join(SENTENCES[(at + each) % 4] for each in range(3 + 9 * (at % 3))) for at in range(count // 2)]
        lines = "".join(json.dumps({"text": f"{part} {at}. {text}"}) + "\n" for at, text in enumerate(texts))
        (project.folder / "texts" / f"{part}.jsonl").write_text(lines, encoding="utf-8")


@pytest.fixture
def texts(project: Project) -> Project:
    write_texts(project)
    return project


JOB: dict[str, Any] = {
    "model": {"max_seq_length": 64},
    "adapter": {"type": "none", "r": None, "lora_alpha": None},
    "data": {"path": "texts", "packing": True, "eval_size": 3},
    "train": {"max_steps": 12, "eval_strategy": "steps", "eval_steps": 4, "save_steps": 12, "learning_rate": 5e-3},
    "eval": {},
}


def test_a_folder_of_texts_is_learned(texts: Project) -> None:
    texts.write(**JOB)
    done = texts.perform()
    assert done.code == 0, done.printed
    (rows,) = done.of_kind("data")
    assert rows["split"] > 0
    assert rows["truncated"] == 0
    assert rows["packed"] < rows["rows"]
    losses = [event["eval_loss"] for event in done.of_kind("eval")]
    assert losses[-1] < losses[0] < math.log(400)
    found = Evaluation(texts, done.folder).found()
    loss = found["metrics"]["loss"]
    assert loss["base"]["n"] == found["rows"] == 3, "texts, and not their pieces"
    assert loss["difference"]["high"] < 0
    assert loss["tuned"]["value"] == pytest.approx(losses[-1], rel=0.05)
    assert found["metrics"]["perplexity"]["tuned"]["value"] == pytest.approx(math.exp(loss["tuned"]["value"]))


def test_the_loss_of_a_split_text_is_that_of_all_its_pieces(texts: Project) -> None:
    """Computed anew from the stored pieces, one by one, with transformers alone."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    texts.write(**JOB)
    done = texts.perform()
    found = Evaluation(texts, done.folder).found()
    model = AutoModelForCausalLM.from_pretrained(texts.folder / "model")
    total, count = 0.0, 0
    pieces = Dataset.from_file(str(done.folder.path / "data" / "eval.arrow"))
    assert len(pieces) > 3
    for row in pieces:
        ids = torch.tensor([row["input_ids"]])
        with torch.inference_mode():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert found["metrics"]["loss"]["base"]["value"] == pytest.approx(total / count, rel=1e-5)


def test_a_packed_stream_trains_as_its_rows_would_alone(texts: Project) -> None:
    """The loss of a step is that of the same rows one by one, in which none can see another."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    batch = {"per_device_train_batch_size": 1, "max_steps": 1, "save_steps": 1}
    texts.write(model={"max_seq_length": 64}, data={"path": "texts", "packing": True, "streaming": True}, train=batch)
    done = texts.perform()
    assert done.code == 0, done.printed
    first = done.of_kind("data")[0]
    assert (first["streaming"], first["packed"] < first["rows"]) == (True, True)

    tokenizer = AutoTokenizer.from_pretrained(texts.folder / "model")
    made = Renderer(tokenizer, None, max_seq_length=64, on_long_row="auto")
    lines = [
        json.loads(line) for part in "ab" for line in (texts.folder / f"texts/{part}.jsonl").read_text().splitlines()
    ]
    rows = [
        {"input_ids": piece.input_ids, "labels": piece.labels}
        for row in made.render([Text(line["text"]) for line in lines])
        if isinstance(row, Rendered)
        for piece in (row, *row.rest)
    ]
    pack = next(packed(rows, 64))
    model = AutoModelForCausalLM.from_pretrained(texts.folder / "model")
    total, count, start = 0.0, 0, 0
    for length in pack["seq_lengths"]:
        ids = torch.tensor([pack["input_ids"][start : start + length]])
        start += length
        with torch.inference_mode():
            total += float(model(input_ids=ids, labels=ids).loss) * (length - 1)
        count += length - 1
    assert done.losses[0] == pytest.approx(total / count, rel=1e-4)


def test_the_borders_of_a_streamed_pack_reach_the_model_whole(texts: Project) -> None:
    """What attention goes by where it takes borders, and not positions."""
    data = {"path": "texts", "packing": True, "streaming": True}
    texts.write(model={"max_seq_length": 64}, data=data, train={"per_device_train_batch_size": 2})
    run, _ = texts.prepare()
    job = settle(load_job(run.plan.job), run.plan.decisions)
    stages = Stages(run, job)
    made = replace(stages.collate(), collator=lambda _: TokenCollator(0, boundaries=True, lengths=True))
    trainer = make_trainer(METHODS["sft"], job, run, stages.adapt(stages.load(made)), made)
    packs = iter(made.train)
    for batch in islice(trainer.get_train_dataloader(), len(list(made.train)) // 2):  # the loader has no end
        lengths = [length for _, pack in zip(range(2), packs, strict=False) for length in pack["seq_lengths"]]
        assert batch["packed_seq_lengths"].tolist() == lengths
        assert batch["cu_seq_lens_q"].tolist() == [0, *accumulate(lengths)]
        assert batch["input_ids"].shape == (1, sum(lengths))
