"""The contract of a forge plugin, and what this one does in a run."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forge.api import Accelerator, Job
from forge.testing import check_plugin, run_job

from forge_plain.batches import Schedule, batch_of, counted
from forge_plain.options import Options
from forge_plain.rules import cannot

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the backend is for Linux")


def test_the_plugin_keeps_its_contract() -> None:
    check_plugin("plain")


def test_a_run_trains_and_leaves_what_everybody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # forge would take another backend where there is a GPU
    job = "[train]\nmax_steps = 4\nlogging_steps = 1\nsave_steps = 2\nlearning_rate = 1e-2\n"
    ran = run_job(job, tmp_path, whole=True)
    assert [step.plugin for step in ran.plan.steps] == ["huggingface", "plain", "plain", "plain"]
    losses = [float(str(event.values["loss"])) for event in ran.of_kind("step")]
    assert losses[0] == pytest.approx(math.log(262), abs=0.5)  # a random model is as good as dice of its vocabulary
    assert losses == sorted(losses, reverse=True)
    assert [event.values["step"] for event in ran.of_kind("checkpoint")] == [2, 4]
    assert {path.name for path in (ran.folder / ran.trained.weights).iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
    }
    assert ran.trained.metrics["train_loss"] == pytest.approx(sum(losses) / 4)

    machine, facts = ran.plan.machine, ran.plan.facts
    asked = Job.model_validate({"model": {"id": "model"}, "data": {"path": "rows.jsonl"}, "folder": tmp_path})
    assert cannot(machine, asked, facts) is None
    with_card = replace(machine, accelerators=(Accelerator("cuda", "some card", 8 * 2**30),))
    assert cannot(with_card, asked, facts) == "it trains on the processor, and here is another one: some card"
    assert cannot(machine, asked, replace(facts, quantized="gptq")) == "the model is stored in gptq"


def test_an_epoch_has_each_row_once_and_another_order_than_the_next() -> None:
    schedule = Schedule(10, Options(per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=2))
    assert (schedule.steps_of_an_epoch, schedule.steps) == (3, 6)
    epochs = [[row for step in steps for batch in schedule.batches(step) for row in batch] for steps in (_1, _2)]
    assert [sorted(rows) for rows in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    assert [len(list(schedule.batches(step))) for step in _1] == [2, 2, 1]


_1, _2 = (1, 2, 3), (4, 5, 6)


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("constant_with_warmup", [0, 0.5, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0, 0.5, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
    ],
)
def test_the_learning_rate_rises_and_falls_as_it_is_called(kind: str, rates: list[float]) -> None:
    warm = 0 if kind == "constant" else 2
    schedule = Schedule(10, Options.model_validate({"max_steps": 6, "lr_scheduler_type": kind, "warmup_steps": warm}))
    assert [schedule.rate(step) for step in range(1, 7)] == pytest.approx(rates)


def test_short_rows_are_filled_up_and_what_fills_them_is_not_learned() -> None:
    batch = batch_of(
        [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}],
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
    assert counted(batch["labels"]) == 2
    assert batch["labels"].dtype == torch.long
