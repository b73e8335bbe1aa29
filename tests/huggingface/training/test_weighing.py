"""The trainer's held-out numbers are means over all tokens, rows or answers, however these are batched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch

from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages
from forge_huggingface.methods import METHODS
from forge_huggingface.training.recipes.seq2seq import SEQ2SEQ
from forge_huggingface.training.recipes.weighing import Answerwise, Batch, mean
from forge_huggingface.training.train import make_trainer
from forge_sdpo.train import METHOD
from support.projects import Project
from support.rows import ONLINE, REWARDS, prompts
from support.tiny_seq2seq import make_bart, make_t5

if TYPE_CHECKING:
    from pathlib import Path

    from forge_huggingface.methods import Method

UNEQUAL = [
    {"prompt": "Count.", "completion": " ".join(["one", "two", "three"] * length)} for length in (1, 7, 2, 12, 1, 5, 3)
]


def evaluated(
    project: Project,
    method: Method,
    rows: list[dict[str, Any]] = UNEQUAL,
    sizes: tuple[int, ...] = (1, 3, 7),
    **tables: Any,
) -> list[dict[str, float]]:
    """Return what the trainer measures of the same held-out rows, in batches of several sizes."""
    for name in ("rows", "held-out"):
        (project.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.write(**{**tables, "data": {"eval_path": "held-out.jsonl", **tables.get("data", {})}})
    run, _ = project.prepare()
    job = settle(load_job(run.plan.job), run.plan.decisions)
    stages = Stages(run, job)
    data = stages.collate()
    trainer = make_trainer(method, job, run, stages.adapt(stages.load(data)), data)
    torch.manual_seed(1)  # what is not trained yet is its own reference
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    found = []
    for size in sizes:
        trainer.args.per_device_eval_batch_size = size
        found.append(trainer.evaluate())
    return found


def agree(found: list[dict[str, float]], *names: str) -> None:
    for name in names:
        assert [each[name] for each in found] == pytest.approx([found[0][name]] * 3, abs=1e-5, rel=1e-5), name


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


BETTER = [
    {**row, "chosen": row["completion"], "rejected": " ".join(["four"] * (1 + index * 5 % 7))}
    for index, row in enumerate(UNEQUAL)
]
RATED = [{**row, "label": index % 3 > 0} for index, row in enumerate(UNEQUAL)]
PAIRED = (
    "eval_loss",
    *(f"eval_{what}/{side}" for what in ("rewards", "logps", "logits") for side in ("chosen", "rejected")),
    "eval_rewards/margins",
)


@pytest.mark.parametrize(
    ("method", "rows", "names", "train"),
    [
        ("dpo", BETTER, (*PAIRED, "eval_rewards/accuracies", "eval_entropy", "eval_mean_token_accuracy"), {}),
        ("dpo", BETTER, ("eval_loss",), {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}),
        ("kto", RATED, (*PAIRED, "eval_kl", "eval_entropy"), {}),
        ("kto", RATED, ("eval_loss",), {"precompute_ref_log_probs": True}),
        ("orpo", BETTER, (*PAIRED, "eval_nll_loss", "eval_log_odds_ratio"), {}),
        ("cpo", BETTER, (*PAIRED, "eval_nll_loss"), {}),
        ("cpo", BETTER, PAIRED, {"loss_type": "simpo", "cpo_alpha": 0.0}),
        ("reward", BETTER, ("eval_loss", "eval_accuracy", "eval_margin", "eval_min_reward", "eval_max_reward"), {}),
    ],
    ids=["dpo", "dpo+sft", "kto", "kto-precomputed", "orpo", "cpo", "simpo", "reward"],
)
def test_what_preferences_measure_does_not_depend_on_the_batch(
    project: Project, method: str, rows: list[dict[str, Any]], names: tuple[str, ...], train: dict[str, Any]
) -> None:
    found = evaluated(
        project, METHODS[method], [without(row, method) for row in rows], train={"method": method, **train}
    )
    agree(found, *names)


def without(row: dict[str, Any], method: str) -> dict[str, Any]:
    """Return a row without the column that its method has another for."""
    return row if method == "kto" else {key: value for key, value in row.items() if key != "completion"}


@pytest.mark.parametrize(
    ("method", "names", "train"),
    [
        (METHODS["grpo"], ("eval_reward", "eval_rewards/length/mean", "eval_entropy"), ONLINE),
        (METHODS["rloo"], ("eval_reward", "eval_entropy"), ONLINE),
        (METHOD, ("eval_reward", "eval_entropy", "eval_completions/min_length"), ONLINE),
        (METHODS["distill"], ("eval_loss", "eval_entropy"), {"teacher_model_name_or_path": "./model"}),
    ],
    ids=["grpo", "rloo", "sdpo", "distill"],
)
def test_what_answers_measure_does_not_depend_on_the_batch(
    project: Project, method: Method, names: tuple[str, ...], train: dict[str, Any]
) -> None:
    """The answers are the likeliest ones; those drawn at random are others for another batch size."""
    (project.folder / "rewards.py").write_text(REWARDS)
    train = {**train, "method": method.name, "max_completion_length": 12, "temperature": 1e-8}
    found = evaluated(project, method, prompts(7), sizes=(4, 8, 12), train=train)
    assert found[0][names[0]]
    agree(found, *names)


def test_answers_are_weighed_by_their_number_and_their_tokens() -> None:
    class Trainer(Answerwise):
        _metrics: ClassVar[Any] = {"eval": {}}

    batches = [
        Batch(
            1.0, {"reward": 1.0, "entropy": 2.0, "completions/min_length": 3.0}, {"rows": 3, "tokens": 1, "ended": 1}
        ),
        Batch(
            2.0, {"reward": 2.0, "entropy": 1.0, "completions/min_length": 2.0}, {"rows": 1, "tokens": 3, "ended": 0}
        ),
    ]
    trainer = Trainer()
    assert trainer.held_out_loss(batches) == trainer.held_out("reward", batches) == 1.25
    assert trainer.held_out("entropy", batches) == 1.25
    assert trainer.held_out("completions/min_length", batches) == 2.0


@pytest.mark.parametrize("make", [make_t5, make_bart])
def test_an_encoder_decoders_loss_is_that_of_all_tokens(tmp_path: Path, make: Any) -> None:
    project = Project(tmp_path / "project", make(tmp_path / "model"))
    agree(evaluated(project, SEQ2SEQ, model={"max_seq_length": 64}, adapter={"r": 4}), "eval_loss")


def test_a_batch_without_tokens_has_no_mean_and_no_weight() -> None:
    assert mean([(2.0, 1), (float("nan"), 0), (1.0, 3)]) == 1.25
