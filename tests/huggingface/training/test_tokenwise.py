"""The trainer's held-out loss is the mean over all tokens, however the rows are batched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages
from forge_huggingface.methods import METHODS
from forge_huggingface.training.recipes.seq2seq import SEQ2SEQ
from forge_huggingface.training.recipes.tokenwise import mean
from forge_huggingface.training.train import make_trainer
from support.projects import Project
from support.tiny_seq2seq import make_bart, make_t5

if TYPE_CHECKING:
    from pathlib import Path

    from forge_huggingface.methods import Method

UNEQUAL = [
    {"prompt": "Count.", "completion": " ".join(["one", "two", "three"] * length)} for length in (1, 7, 2, 12, 1, 5, 3)
]


def evaluated(project: Project, method: Method, **tables: Any) -> list[dict[str, float]]:
    """Return what the trainer measures of the same held-out rows, in batches of one, three and seven."""
    for name in ("rows", "held-out"):
        (project.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in UNEQUAL))
    project.write(**{**tables, "data": {"eval_path": "held-out.jsonl", **tables.get("data", {})}})
    run, _ = project.prepare()
    job = settle(load_job(run.plan.job), run.plan.decisions)
    stages = Stages(run, job)
    data = stages.collate()
    trainer = make_trainer(method, job, run, stages.adapt(stages.load(data)), data)
    found = []
    for size in (1, 3, 7):
        trainer.args.per_device_eval_batch_size = size
        found.append(trainer.evaluate())
    return found


def agree(found: list[dict[str, float]], *names: str) -> None:
    for name in names:
        assert [each[name] for each in found] == pytest.approx([found[0][name]] * 3, abs=1e-6, rel=1e-6), name


@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"train": {"loss_type": "dft"}},
        {"train": {"label_smoothing_factor": 0.1}},
        {"data": {"train_on": "all"}},
    ],
)
def test_a_language_models_loss_accuracy_and_entropy_are_those_of_all_tokens(
    project: Project, tables: dict[str, Any]
) -> None:
    found = evaluated(project, METHODS["sft"], **tables)
    agree(found, "eval_loss", "eval_mean_token_accuracy", "eval_entropy")


@pytest.mark.parametrize("make", [make_t5, make_bart])
def test_an_encoder_decoders_loss_is_that_of_all_tokens(tmp_path: Path, make: Any) -> None:
    project = Project(tmp_path / "project", make(tmp_path / "model"))
    agree(evaluated(project, SEQ2SEQ, model={"max_seq_length": 64}, adapter={"r": 4}), "eval_loss")


def test_a_batch_without_tokens_has_no_mean_and_no_weight() -> None:
    assert mean([2.0, float("nan"), 1.0], [1, 0, 3]) == 1.25
