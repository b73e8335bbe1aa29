"""``forge init``: a commented job for the machine at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forge.cli.common import this_machine
from forge.cli.terminal import say
from forge.disk.files import write_text
from forge.errors import UsageError
from forge.text.units import size

if TYPE_CHECKING:
    from forge.machine.machine import Machine


@click.command(name="init")
@click.argument("path", type=click.Path(path_type=Path), default=Path("job.toml"))
@click.option("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", show_default=True, help="Hub id or folder.")
@click.option("--data", default="train.jsonl", show_default=True, help="File, folder or hub id of the rows.")
@click.option("--force", is_flag=True, help="Overwrite PATH.")
def command(path: Path, model: str, data: str, force: bool) -> None:
    """Write a commented job file to PATH (job.toml) that suits this machine: see it, change it, run it."""
    if path.exists() and not force:
        raise UsageError(f"{path} exists", do="choose another name, or --force to overwrite it")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", do="make it first")
    write_text(path, job_text(this_machine(pretend=True), model, data))
    say(f"{path}: change model and data, then forge plan {path}, forge data {path}, forge run {path}")


def job_text(machine: Machine, model: str, data: str) -> str:
    """Return the text of a job that suits a machine."""
    card = next((card for card in machine.accelerators if card.kind in machine.usable_kinds), None)
    memory = card.memory if card else None
    small = card is not None and memory is not None and memory < 20 * 2**30
    quantise = bool(small and card and card.kind == "cuda" and "bitsandbytes" in machine.versions)
    where = f"{card.name} with {size(memory)}" if card else f"{machine.cores} CPU cores and no GPU"
    return f"""# A forge job, written for this machine: {where}.
# Every key is described in docs/job.md, and by `forge schema`. Relative paths start at this file's folder.

[model]
id = {_string(model)}  # hub id or local folder
max_seq_length = {1024 if card is None else 2048}  # longest row in tokens; longer ones are cut, and counted
{"" if quantise else "# "}load_in_4bit = true  # QLoRA: the base in 4 bit, a quarter of the memory; needs bitsandbytes

[adapter]
type = "lora"  # "none" trains every weight
r = 16
lora_alpha = 32
# target_modules = "auto"  # attention and MLP projections; or names such as ["q_proj", "v_proj"]

[data]
path = {_string(data)}  # JSON, JSONL, CSV, Parquet, Arrow; folder, glob or hub id
eval_size = 0.05  # hold out 5 % of the rows; or eval_path = "eval.jsonl"
# train_on = "assistant"  # which tokens are in the loss; `forge data` shows them

[train]
method = "sft"
num_train_epochs = 1
batch_size = 16  # rows of a step; forge parts them into batches by the free memory
# gradient_checkpointing = true  # less memory, up to 40 % longer; left out, forge decides by the free memory
# learning_rate = 2e-4  # the default for LoRA
logging_steps = 5
save_steps = 100  # a killed run loses at most the steps since the last checkpoint

[[export]]
format = "merged"  # one whole model; "adapter" keeps the adapter apart
# push_to_hub = "user/name"  # private unless private = false
"""


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
