"""The script that a TRL user would write: the other side of ``trl_parity.py``. Nothing of forge is in it.

    python benchmarks/plain_trl.py CONFIG.json

CONFIG.json has ``model`` (a folder), ``data`` (a JSONL file of conversational prompt/completion rows), ``dtype``,
``args`` (for ``SFTConfig``), ``lora`` (for ``LoraConfig``, or null to train every weight) and ``out`` (a folder). What
was measured goes to ``out/result.json``, the weights to ``out/weights``.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):  # type: ignore[misc]  # Any to mypy: see pyproject
    """Notes the time and the peak memory whenever the trainer logs a loss."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Keep what was logged."""
        if logs and "loss" in logs:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            self.steps.append({**logs, "step": state.global_step, "time": time.time(), "memory": peak})


def main(path: str) -> None:
    """Train as the file says."""
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    out = Path(config["out"])
    dataset = load_dataset("json", data_files=config["data"], split="train", cache_dir=str(out / "cache"))
    clock = Clock()
    # TRL 1.14 makes the adapter before anything has used the seed; 1.16 seeds by itself, and this changes nothing.
    set_seed(config["args"]["seed"])
    trainer = SFTTrainer(
        model=config["model"],
        args=SFTConfig(
            output_dir=str(out / "checkpoints"), model_init_kwargs={"dtype": config["dtype"]}, **config["args"]
        ),
        train_dataset=dataset,
        peft_config=LoraConfig(**config["lora"]) if config["lora"] else None,
        callbacks=[clock],
    )
    trainer.train()
    trainer.save_model(str(out / "weights"))
    (out / "result.json").write_text(json.dumps({"steps": clock.steps}, default=float), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
