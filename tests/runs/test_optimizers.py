"""Optimizers that are more than one step: what is saved, and what goes on, is what was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli
import torch
from safetensors.torch import load_file

from support.projects import Finished, Project, cut_after
from support.resuming import parted, resumed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Rows = Callable[[Sequence[Any]], None]

FULL: dict[str, Any] = {"type": "none", "r": None, "lora_alpha": None}
ADAPTERS = {"lora": dict[str, Any](), "none": FULL}


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_muon_learns_and_goes_on_exactly(project: Project, adapter: str) -> None:
    project.write(adapter=ADAPTERS[adapter], train={"optim": "muon", "weight_decay": 0.1, "max_steps": 24})
    done = project.perform()
    assert done.code == 0, done.printed
    assert sum(done.losses[-8:]) < sum(done.losses[:8])
    project.write(adapter=ADAPTERS[adapter], train={"optim": "muon", "weight_decay": 0.1})
    assert [*parted(project, only=frozenset({2}))] == [(2, [])]


def averaged(done: Finished, rows: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a plain script has after a schedule-free training, once its optimizer is told to eval."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    lock = tomli.loads((done.folder.path / "job.lock.toml").read_text())
    known = SFTConfig.__dataclass_fields__.keys() - {"output_dir"}
    values = {key: value for key, value in lock["train"].items() if key in known}
    values |= {"max_length": lock["model"]["max_seq_length"], "report_to": "none", "use_cpu": True}
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(lock["model"]["id"], dtype=torch.float32),
        args=SFTConfig(output_dir=str(done.folder.path / "plain"), **values),
        train_dataset=load_dataset("json", data_files=str(rows), split="train"),
        processing_class=AutoTokenizer.from_pretrained(lock["model"]["id"]),
    )
    trainer.train()
    trainer.optimizer.eval()
    found: dict[str, torch.Tensor] = trainer.model.state_dict()
    return found


@pytest.mark.slow
def test_schedule_free_weights_are_saved_as_they_are_evaluated(project: Project, rows: Rows) -> None:
    pytest.importorskip("schedulefree")
    rows([{"prompt": f"{number} and one is", "completion": f" {number + 1}."} for number in range(16)])
    project.write(adapter=FULL, train={"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"})
    done = project.perform()
    assert done.code == 0, done.printed
    saved = load_file(done.folder.path / "model" / "model.safetensors")
    expected = averaged(done, project.folder / "rows.jsonl")
    in_steps = load_file(done.folder.path / "checkpoints" / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(expected[name], value) for name, value in saved.items())
    assert not all(torch.equal(in_steps[name], value) for name, value in saved.items())
    assert [*parted(project, only=frozenset({2}))] == [(2, [])]
    cut_after(done.folder, 4, "model")  # only the last files are lacking
    again = resumed(done.folder)
    assert again.code == 0, again.printed
    twice = load_file(done.folder.path / "model" / "model.safetensors")
    assert all(torch.equal(twice[name], value) for name, value in saved.items())
