"""Layers that are trained whole: the losses of a plain script that freezes the rest, and a whole model at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli
import torch
from safetensors.torch import load_file

from support.projects import Finished, Project, json_of
from support.resuming import parted
from support.rows import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Rows = Callable[[Sequence[Any]], None]

LAST: dict[str, Any] = {"r": None, "lora_alpha": None, "type": "layers", "layers_to_transform": [-1]}


def plain(done: Finished, rows: Path, method: str) -> list[float]:
    """Return the losses of TRL's own trainer on a model whose first layers are frozen."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    config, trainer = {"sft": (SFTConfig, SFTTrainer), "dpo": (DPOConfig, DPOTrainer)}[method]
    lock = tomli.loads((done.folder.path / "job.lock.toml").read_text())
    assert lock["adapter"] == {"type": "layers", "layers_to_transform": [-1], "target_modules": "auto"}
    known = config.__dataclass_fields__.keys() - {"output_dir"}
    values = {key: value for key, value in lock["train"].items() if key in known}
    values |= {"max_length": lock["model"]["max_seq_length"], "report_to": "none", "use_cpu": True}
    model = AutoModelForCausalLM.from_pretrained(lock["model"]["id"], dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1." in name)
    made = trainer(
        model=model,
        args=config(output_dir=str(done.folder.path / "plain"), **values),
        train_dataset=load_dataset("json", data_files=str(rows), split="train"),
        processing_class=AutoTokenizer.from_pretrained(lock["model"]["id"]),
    )
    made.train()
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


def as_text(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value[-1]["content"] if isinstance(value, list) else value for key, value in row.items()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_losses_are_those_of_a_plain_script_that_freezes_the_rest(project: Project, rows: Rows, method: str) -> None:
    made = (
        METHODS["dpo"][0]() if method == "dpo" else [{"prompt": f"{n} and", "completion": f" {n}"} for n in range(16)]
    )
    rows([as_text(row) for row in made])
    project.write(adapter=LAST, train={"method": method})
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.losses == plain(done, project.folder / "rows.jsonl", method)
    before = load_file(project.folder / "model" / "model.safetensors")
    after = load_file(done.folder.path / "model" / "model.safetensors")
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == {name for name in before if "layers.1." in name}


@pytest.mark.slow
def test_a_run_of_chosen_layers_goes_on_exactly(project: Project) -> None:
    project.write(adapter=LAST)
    assert [*parted(project, only=frozenset({2}))] == [(2, [])]


@pytest.mark.slow
def test_what_is_left_is_a_whole_model_for_exports_and_evaluation(project: Project) -> None:
    exports = [{"format": "merged"}, {"format": "gguf", "types": ["f16"]}]
    evaluation = {"path": "rows.jsonl", "max_rows": 2, "max_new_tokens": 4}
    project.write(adapter=LAST, export=exports, eval=evaluation, train={"gradient_checkpointing": True})
    project.forge("run", "job.toml")
    folder = project.newest().path
    assert json_of(folder / "trained.json")["kind"] == "full"
    assert json_of(folder / "evaluation.json")["metrics"]
    merged = load_file(folder / "exports" / "1-merged" / "model.safetensors")
    trained = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(merged[name], value) for name, value in trained.items())
    assert (folder / "exports" / "2-gguf" / "verified.json").is_file()
