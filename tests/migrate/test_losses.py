"""A migrated job of 8 steps has the losses of a plain TRL script in which the other tool's values are set."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.sites import Site

PLAIN = """\
import json, sys
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

given = json.load(open(sys.argv[1]))
lora = given.pop("lora")
peft = {} if lora is None else {"peft_config": LoraConfig(**lora, task_type="CAUSAL_LM")}
config, trainer = (DPOConfig, DPOTrainer) if given.pop("method") == "dpo" else (SFTConfig, SFTTrainer)
model = given.pop("model")
rows = load_dataset("json", data_files=given.pop("rows"), split="train")
args = config(
    output_dir="out", report_to="none", use_cpu=True, bf16=False, logging_steps=1, save_strategy="no",
    gradient_checkpointing=False, **given,
)
set_seed(args.seed)
trainer = trainer(
    model=AutoModelForCausalLM.from_pretrained(model),
    args=args,
    train_dataset=rows,
    processing_class=AutoTokenizer.from_pretrained(model),
    **peft,
)
trainer.train()
print("losses", json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
"""

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STEPS = {"max_steps": 8, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_length": 64}

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "axolotl, LoRA": (
        "c.yml",
        """
base_model: {model}
datasets: [{{path: json, data_files: {rows}, type: chat_template}}]
adapter: lora
lora_r: 8
lora_alpha: 16
lora_target_linear: true
sequence_len: 64
micro_batch_size: 2
gradient_accumulation_steps: 2
max_steps: 8
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 2e-3
warmup_ratio: 0.25
weight_decay: 0.1
bf16: false
logging_steps: 1
""",
        {
            **STEPS,
            "lora": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": LINEAR},
            "optim": "adamw_torch",
            "lr_scheduler_type": "cosine",
            "learning_rate": 2e-3,
            "warmup_steps": 0.25,
            "weight_decay": 0.1,
        },
    ),
    "axolotl, DPO": (
        "c.yml",
        """
base_model: {model}
datasets: [{{path: json, data_files: {pairs}, type: chat_template.default}}]
adapter: lora
rl: dpo
rl_beta: 0.2
lora_r: 4
lora_alpha: 8
lora_target_modules: [q_proj, v_proj]
sequence_len: 64
micro_batch_size: 2
gradient_accumulation_steps: 2
max_steps: 8
learning_rate: 2e-3
warmup_steps: 2
bf16: false
logging_steps: 1
""",
        {
            **STEPS,
            "method": "dpo",
            "beta": 0.2,
            "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
            "lr_scheduler_type": "cosine",
            "learning_rate": 2e-3,
            "warmup_steps": 2,
        },
    ),
    "llama-factory, every weight": (
        "c.yaml",
        """
model_name_or_path: {model}
stage: sft
finetuning_type: full
dataset: talks
template: qwen
cutoff_len: 64
per_device_train_batch_size: 2
gradient_accumulation_steps: 2
max_steps: 8
learning_rate: 1.0e-3
lr_scheduler_type: cosine
warmup_ratio: 0.25
logging_steps: 1
""",
        {
            **STEPS,
            "lora": None,
            "lr_scheduler_type": "cosine",
            "learning_rate": 1e-3,
            "warmup_steps": 0.25,
        },
    ),
    "ms-swift, LoRA": (
        "c.sh",
        """
swift sft --model {model} --dataset {rows} --split_dataset_ratio 0 --torch_dtype float32 --lora_rank 4 \\
    --lora_alpha 16 --lora_dropout 0 --target_modules all-linear --max_length 64 --max_steps 8 \\
    --per_device_train_batch_size 2 --gradient_accumulation_steps 2 --learning_rate 3e-3 --warmup_ratio 0.25 \\
    --logging_steps 1
""",
        {
            **STEPS,
            "lora": {"r": 4, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": LINEAR},
            "lr_scheduler_type": "cosine",
            "learning_rate": 3e-3,
            "warmup_steps": 0.25,
            "weight_decay": 0.1,
            "adam_beta2": 0.95,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_losses_are_those_of_trl_with_the_other_tools_values(site: Site, tiny_model: Path, name: str) -> None:
    file, text, values = CASES[name]
    asked = [(f"{number} and one is", f" {number + 1}.") for number in range(40)]
    talks = [{"prompt": prompt, "completion": answer} for prompt, answer in asked]
    pairs = [{"prompt": prompt, "chosen": answer, "rejected": " No."} for prompt, answer in asked]
    for place, rows in (("talks.jsonl", talks), ("pairs.jsonl", pairs)):
        (site.folder / place).write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = {"rows": str(site.folder / "talks.jsonl"), "pairs": str(site.folder / "pairs.jsonl")}
    (site.folder / "data").mkdir()
    sets = {"talks": {"file_name": "../talks.jsonl", "formatting": "openai"}}
    (site.folder / "data" / "dataset_info.json").write_text(json.dumps(sets))
    (site.folder / file).write_text(text.format(model=tiny_model, **paths))
    method = values.get("method", "sft")
    rows = paths["pairs" if method == "dpo" else "rows"]
    (site.folder / "values.json").write_text(
        json.dumps({"model": str(tiny_model), "rows": rows, "method": method} | values)
    )
    (site.folder / "plain.py").write_text(PLAIN)
    command = [sys.executable, "plain.py", "values.json"]
    done = subprocess.run(command, cwd=site.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.partition("losses ")[2])
    migrated = site.forge("migrate", file, "-o", "job.toml")
    assert migrated.returncode == 0, migrated.stderr
    change = ["--set", "data.format=auto"] if "llama-factory" in name else []  # its list knows no such rows
    run = site.forge("run", "job.toml", *change)
    assert run.returncode == 0, run.stderr
    (path,) = site.folder.glob("runs/*/*/events.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    ours = [event["loss"] for event in events if event["kind"] == "step"]
    assert len(ours) == 8
    assert ours == pytest.approx(theirs, abs=1e-5)
