"""A migrated job trains what the other tool's own trainer does with the same configuration: TRL's, digit for digit."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from support.sites import Site

CONFIG = {
    "dataset_name": "rows",
    "use_peft": True,
    "lora_r": 4,
    "lora_dropout": 0.0,
    "max_length": 64,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.1,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 8,
    "logging_steps": 1,
    "bf16": False,
    "save_strategy": "no",
    "completion_only_loss": True,
}

PLAIN = """\
import json, sys
import yaml
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

given = yaml.safe_load(open(sys.argv[1]))
model, rows = given.pop("model_name_or_path"), given.pop("dataset_name")
given.pop("use_peft")
lora = LoraConfig(r=given.pop("lora_r"), lora_alpha=32, lora_dropout=given.pop("lora_dropout"), task_type="CAUSAL_LM")
args = SFTConfig(output_dir="out", report_to="none", use_cpu=True, **given)
set_seed(args.seed)
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(model),
    args=args,
    train_dataset=load_dataset("json", data_files=rows + ".jsonl", split="train"),
    processing_class=AutoTokenizer.from_pretrained(model),
    peft_config=lora,
)
trainer.train()
print("losses", json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
"""


@pytest.mark.slow
def test_trls_losses_are_those_of_the_migrated_job(site: Site, tiny_model: Path) -> None:
    rows = [{"prompt": f"{number} and one is", "completion": f" {number + 1}."} for number in range(40)]
    (site.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (site.folder / "config.yaml").write_text(yaml.safe_dump({"model_name_or_path": str(tiny_model), **CONFIG}))
    (site.folder / "plain.py").write_text(textwrap.dedent(PLAIN))
    done = subprocess.run(
        [sys.executable, "plain.py", "config.yaml"], cwd=site.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.partition("losses ")[2])
    migrated = site.forge("migrate", "config.yaml", "--method", "sft", "-o", "job.toml")
    assert migrated.returncode == 0, migrated.stderr
    run = site.forge("run", "job.toml", "--set", "data.path=rows.jsonl")
    assert run.returncode == 0, run.stderr
    (path,) = site.folder.glob("runs/*/*/events.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    ours = [event["loss"] for event in events if event["kind"] == "step"]
    assert ours == pytest.approx(theirs, abs=1e-6)
