"""A run that goes on from any of its checkpoints is the run that was never interrupted: bits, logs and last figures.

Samplers, streaming, epochs, evaluation, logging and methods, several at a time. The quick part takes a few checkpoints
of what has gone wrong before; the slow one takes every checkpoint of everything.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge.disk.checkpoints import newest_marked, step_of
from forge.disk.events import read_events
from forge_huggingface.training.callbacks import ForgeCallback
from support.projects import perform_in
from support.resuming import differences, parted, resumed
from support.rows import ONLINE, pairs, prompts, ratings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.projects import Project

HELD = {"eval_size": 4}
EPOCHS = {"max_steps": None, "num_train_epochs": 2, "save_steps": 2, "logging_steps": 3}
WHOLE: dict[str, Any] = {"type": "none", "r": None, "lora_alpha": None}
TWO = [{"path": "rows.jsonl", "weight": 1.5}, {"path": "held.jsonl"}]
STREAM = {"streaming": True, "eval_path": "held.jsonl"}
STOPPING: dict[str, Any] = {
    "max_steps": 24,
    "save_steps": None,
    "learning_rate": 0.3,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_strategy": "epoch",
    "logging_steps": None,
    "load_best_model_at_end": True,
    "early_stopping_patience": 3,
    "lr_scheduler_type": "constant",
}

CASES: dict[str, dict[str, Any]] = {
    # Samplers
    "shuffled": {"train": {**EPOCHS, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}},
    "by length": {"train": {"max_steps": 14, "save_steps": 4, "train_sampling_strategy": "group_by_length"}},
    "balanced": {
        "train": {
            "max_steps": 10,
            "save_steps": 3,
            "gradient_accumulation_steps": 2,
            "train_sampling_strategy": "batch_rebalance",
        }
    },
    "in order, by a loader process": {
        "train": {
            "max_steps": 10,
            "save_steps": 4,
            "train_sampling_strategy": "sequential",
            "dataloader_num_workers": 1,
        }
    },
    # Streams
    "stream": {
        "data": STREAM,
        "train": {
            "max_steps": 14,
            "save_steps": 4,
            "eval_steps": 3,
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 2,
            "logging_steps": 5,
        },
    },
    "packed stream of two sources": {
        "data": {"path": None, "sources": TWO, "streaming": True, "packing": True},
        "train": {"max_steps": 12, "save_steps": 4},
    },
    # Evaluation and what it decides
    "evaluated epochs": {"data": HELD, "train": {**EPOCHS, "num_train_epochs": 3, "logging_steps": 5}},
    "early stop": {"data": HELD, "train": STOPPING},
    "best only": {
        "data": HELD,
        "train": {
            "max_steps": 12,
            "save_steps": None,
            "save_strategy": "best",
            "eval_strategy": "epoch",
            "metric_for_best_model": "loss",
            "logging_strategy": "epoch",
            "logging_steps": None,
        },
    },
    "plateau": {
        "data": HELD,
        "train": {
            "max_steps": 9,
            "save_steps": 2,
            "eval_steps": 2,
            "lr_scheduler_type": "reduce_lr_on_plateau",
            "lr_scheduler_kwargs": {"patience": 0, "factor": 0.5},
            "learning_rate": 0.1,
            "metric_for_best_model": "loss",
        },
    },
    "evaluated before the first step, with noise": {
        "data": HELD,
        "train": {"max_steps": 8, "save_steps": 3, "eval_on_start": True, "eval_steps": 4, "neftune_noise_alpha": 5.0},
    },
    "packed, with a short last step": {
        "model": {"max_seq_length": 64},
        "data": {**HELD, "packing": True},
        "train": {
            **EPOCHS,
            "save_steps": 1,
            "gradient_accumulation_steps": 3,
            "per_device_train_batch_size": 1,
            "logging_steps": 2,
        },
    },
    "layers and batches by memory": {
        "data": HELD,
        "train": {**EPOCHS, "gradient_checkpointing": "auto", "batch_size": 4, "per_device_train_batch_size": "auto"},
    },
    "every second layer": {
        "train": {
            **EPOCHS,
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"every_n_layers": 2},
        }
    },
    "every weight": {"adapter": WHOLE, "train": {"max_steps": 6}},
    # Methods
    "dpo": {"rows": pairs, "data": HELD, "train": {"method": "dpo", **EPOCHS}},
    "dpo by length": {
        "rows": pairs,
        "train": {"method": "dpo", "max_steps": 14, "save_steps": 4, "train_sampling_strategy": "group_by_length"},
    },
    "dpo with a reference that follows": {
        "rows": pairs,
        "adapter": WHOLE,
        "train": {
            "method": "dpo",
            "max_steps": 8,
            "save_steps": 3,
            "sync_ref_model": True,
            "ref_model_sync_steps": 2,
            "ref_model_mixup_alpha": 0.5,
        },
    },
    "dpo with a reference asked before": {
        "rows": pairs,
        "adapter": WHOLE,
        "data": HELD,
        "train": {"method": "dpo", "max_steps": 8, "save_steps": 3, "precompute_ref_log_probs": True},
    },
    "kto": {"rows": ratings, "data": HELD, "train": {"method": "kto", **EPOCHS}},
    "orpo": {"rows": pairs, "data": HELD, "train": {"method": "orpo", **EPOCHS}},
    "cpo": {"rows": pairs, "data": HELD, "train": {"method": "cpo", **EPOCHS}},
    "reward": {"rows": pairs, "data": HELD, "train": {"method": "reward", **EPOCHS}},
    "grpo": {"rows": prompts, "data": HELD, "train": {"method": "grpo", **ONLINE, **EPOCHS}},
    "grpo, three steps an answer": {
        "rows": prompts,
        "data": HELD,
        "train": {
            "method": "grpo",
            **ONLINE,
            "steps_per_generation": 3,
            "gradient_accumulation_steps": 2,
            "max_steps": 8,
            "save_steps": 1,
            "eval_steps": 3,
            "logging_steps": 2,
        },
    },
    "rloo": {"rows": prompts, "data": HELD, "train": {"method": "rloo", **ONLINE, **EPOCHS}},
    "sdpo": {"rows": prompts, "data": HELD, "train": {"method": "sdpo", **ONLINE, **EPOCHS}},
    "distill": {
        "rows": prompts,
        "data": HELD,
        "train": {
            "method": "distill",
            "teacher_model_name_or_path": "./model",
            "max_completion_length": 8,
            **EPOCHS,
        },
    },
}

QUICK = {
    "by length": {8, 14},
    "stream": {8, 12},
    "evaluated epochs": {4, 10, 12},
    "early stop": {12},
    "layers and batches by memory": {4},
    "dpo": {4},
    "grpo": {8},
}
"""Checkpoints of the quick part: an epoch's end, one in a later epoch, the last."""


@pytest.fixture
def prepared(project: Project, rows: Callable[[Sequence[Any]], None]) -> Callable[[str], Project]:
    """Give the project of a case."""

    def prepare(name: str) -> Project:
        case = {**CASES[name]}
        lines = (project.folder / "rows.jsonl").read_text().splitlines(keepends=True)
        (project.folder / "held.jsonl").write_text("".join(lines[:5]))
        make = case.pop("rows", None)
        if make:
            rows(make(12))
        else:
            (project.folder / "rows.jsonl").write_text("".join(lines[:12]))
        train = {"save_total_limit": 100, **case.pop("train")}
        project.write(**{"adapter": {"lora_dropout": 0.1}, **case, "train": train})
        return project

    return prepare


@pytest.mark.parametrize("name", QUICK)
def test_a_resumed_run_is_the_undisturbed_one(prepared: Callable[[str], Project], name: str) -> None:
    found = dict(parted(prepared(name), only=frozenset(QUICK[name])))
    assert found.keys() == QUICK[name]
    assert found == {step: [] for step in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_run_resumed_from_any_checkpoint_is_the_undisturbed_one(
    prepared: Callable[[str], Project], name: str
) -> None:
    found = dict(parted(prepared(name)))
    assert found == {step: [] for step in found}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("evaluated epochs", 5),  # in the middle of an epoch
        ("evaluated epochs", 8),  # at the end of one
        pytest.param("best only", 6, marks=pytest.mark.slow),
        pytest.param("early stop", 8, marks=pytest.mark.slow),
        pytest.param("grpo, three steps an answer", 4, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_asked_to_stop_goes_on_as_the_undisturbed_one(
    prepared: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch, name: str, step: int
) -> None:
    project = prepared(name)
    whole = project.perform()
    assert whole.code == 0, whole.printed
    run, folder = project.prepare()

    def stop(callback: ForgeCallback, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == step - 1:
            callback.run.stop.set()
        began(callback, args, state, control, **rest)

    began = ForgeCallback.on_step_begin
    monkeypatch.setattr(ForgeCallback, "on_step_begin", stop)
    assert perform_in(run, folder).code == 130
    monkeypatch.undo()
    told = len(list(read_events(folder.events)))
    newest = newest_marked(folder.checkpoints)
    assert newest
    again = resumed(folder)
    assert again.code == 0, again.printed
    folder.events.write_text("".join(json.dumps(event) + "\n" for event in list(read_events(folder.events))[told:]))
    assert [*differences(whole, again, step_of(newest))] == []
