"""Distillation on the answers of the rows, of the teacher, and of the model itself."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from forge.errors import DataError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages
from forge_huggingface.data.layouts import ANSWER_IDS, PROMPT_IDS
from forge_huggingface.methods import METHODS
from forge_huggingface.training.train import make_trainer
from support.projects import Project

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"prompt": f"Count to {count}.", "completion": " ".join(["one"] * count)} for count in (3, 9, 1, 6)]
TEACHER = {"method": "distill", "teacher_model_name_or_path": "model"}
SHORT = {"max_completion_length": 8}


def collated(project: Project, rows: list[dict[str, Any]], **train: Any) -> tuple[Any, Any, Any]:
    (project.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    project.write(train={**TEACHER, **train})
    run, _ = project.prepare()
    job = settle(load_job(run.plan.job), run.plan.decisions)
    stages = Stages(run, job)
    return run, job, stages


def test_the_rows_answers_are_stored_beside_their_prompts(project: Project) -> None:
    _, _, stages = collated(project, ROWS, lmbda=0.5, **SHORT)
    data = stages.collate()
    texts = [[data.processor.decode(row[name]) for name in (PROMPT_IDS, ANSWER_IDS)] for row in data.train]
    assert texts == [[row["prompt"], row["completion"] + data.processor.eos_token] for row in ROWS]
    assert [row["prompt"] for row in data.train] == [row["prompt"] for row in ROWS]
    assert data.layout == "answered"


@pytest.mark.parametrize(
    ("train", "taken"), [({"lmbda": 0.5}, False), ({"lmbda": 0.5, "seq_kd": True}, True), ({}, True)]
)
def test_rows_without_answers_are_refused_where_these_are_learned(
    project: Project, train: dict[str, Any], taken: bool
) -> None:
    _, _, stages = collated(project, [{"prompt": "Count."}] * 2, **SHORT, **train)
    if taken:
        assert stages.collate().layout == "prompts"
        return
    with pytest.raises(DataError, match=r"with lmbda = 0\.5 cannot train on|format of rows\.jsonl is not known"):
        stages.collate()


@pytest.mark.parametrize(("lmbda", "seq_kd", "whose"), [(0.0, False, {"rows"}), (0.5, False, {"own", "rows"})])
def test_each_step_is_on_the_answers_that_the_job_says(
    project: Project, lmbda: float, seq_kd: bool, whose: set[str]
) -> None:
    run, job, stages = collated(project, ROWS, lmbda=lmbda, seq_kd=seq_kd, **(SHORT if lmbda else {}))
    data = stages.collate()
    trainer = make_trainer(METHODS["distill"], job, run, stages.adapt(stages.load(data)), data)
    found = []
    trainer.model.train()
    for trainer.state.global_step in range(12):
        found.append(trainer._answering())
    assert set(found) == whose
    inputs = [data.train[index] for index in range(4)]
    while trainer._answering() != "rows":
        trainer.state.global_step += 1
    made = trainer._generate_and_score_completions(inputs)
    answers = [
        ids[mask.bool()].tolist() for ids, mask in zip(made["completion_ids"], made["completion_mask"], strict=True)
    ]
    assert answers == [row[ANSWER_IDS] for row in inputs]
    assert int(made["num_items_in_batch"]) == sum(map(len, answers))
    trainer.model.eval()
    assert trainer._answering() == "rows"


def test_the_teacher_answers_under_seq_kd(project: Project, tmp_path: Path) -> None:
    run, job, stages = collated(project, ROWS, lmbda=0.0, seq_kd=True, top_k=1, **SHORT)
    data = stages.collate()
    trainer = make_trainer(METHODS["distill"], job, run, stages.adapt(stages.load(data)), data)
    trainer.model.train()
    with torch.no_grad():  # the student, which is another model now, says something else
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    inputs = [data.train[index] for index in range(2)]
    made = trainer._generate_and_score_completions(inputs)
    asked = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
    mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
    length = made["completion_ids"].shape[1]
    said = trainer.teacher_model(asked, attention_mask=mask).logits[:, -length - 1 : -1].argmax(-1)
    kept = made["completion_mask"].bool()
    assert (said[kept] == made["completion_ids"][kept]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are importing from .trl.experimental:UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_rows_answers_are_learned_as_trls_gkd_learns_them(project: Project, tmp_path: Path, beta: float) -> None:
    from transformers import AutoModelForCausalLM
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    teacher = AutoModelForCausalLM.from_pretrained(project.folder / "model", dtype=torch.float32)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    shutil.copytree(project.folder / "model", project.folder / "teacher")
    teacher.save_pretrained(project.folder / "teacher")
    (project.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    steps = {
        "max_steps": 3, "learning_rate": 0.01, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "constant", "logging_steps": 1, "bf16": False,
        "optim": "adamw_torch", "gradient_checkpointing": False,
    }  # fmt: skip
    project.write(
        train={
            **TEACHER,
            "lmbda": 0.0,
            "beta": beta,
            **steps,
            "kernels": "none",
            "teacher_model_name_or_path": "teacher",
        }
        | {"disable_dropout": True, "save_steps": 100},
        adapter={"type": "none", "r": None, "lora_alpha": None},
        model={"id": "model", "dtype": "float32"},
    )
    run, _ = project.prepare()
    job = settle(load_job(run.plan.job), run.plan.decisions)
    stages = Stages(run, job)
    data = stages.collate()
    loaded = stages.adapt(stages.load(data))
    trainer = make_trainer(METHODS["distill"], job, run, loaded, data)
    trainer.train()

    rows = [{"input_ids": row[PROMPT_IDS] + row[ANSWER_IDS], "labels": [-100] * len(row[PROMPT_IDS]) + row[ANSWER_IDS]}
            for row in (data.train[index] for index in range(4))]  # fmt: skip

    def batch(rows: list[Any]) -> dict[str, torch.Tensor]:
        from torch.nn.utils.rnn import pad_sequence

        ids, labels = ([torch.tensor(row[name]) for row in rows] for name in ("input_ids", "labels"))
        mask = [torch.ones_like(each) for each in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
            "attention_mask": pad_sequence(mask, batch_first=True),
        }

    from datasets import Dataset

    arguments = GKDConfig(
        str(tmp_path / "plain"),
        lmbda=0.0,
        beta=beta,
        temperature=1.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        **steps,
    )
    plain = GKDTrainer(
        AutoModelForCausalLM.from_pretrained(project.folder / "model", dtype=torch.float32),
        teacher,
        arguments,
        data_collator=batch,
        train_dataset=Dataset.from_list(rows),
        processing_class=data.processor,
    )
    plain.train()
    losses = [[each["loss"] for each in one.state.log_history if "loss" in each] for one in (trainer, plain)]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, weight in plain.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
