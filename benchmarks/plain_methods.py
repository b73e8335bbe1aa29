"""The scripts that a TRL user would write for other methods than SFT: the other side of ``method_parity.py``.

    python benchmarks/plain_methods.py CONFIG.json

CONFIG.json has ``method``, ``model`` (a folder), ``data`` (a JSONL file), ``args`` (for the method's config), ``lora``
(for ``LoraConfig``), ``dtype``, ``teacher`` (a folder, for distillation) and ``out`` (a folder). What the trainer
logged goes to ``out/result.json``, each step with its time and the GPU's peak memory, the weights to ``out/weights``.
Nothing of forge is in it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import trl
from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainerCallback, set_seed


def classes(method: str) -> tuple[Any, Any]:
    """Return TRL's config and trainer of a method."""
    if method in {"orpo", "cpo"}:
        from trl.experimental import cpo, orpo

        module: Any = {"orpo": orpo, "cpo": cpo}[method]
    else:
        module = trl
    name = {"reward": "Reward", "distill": "Distillation"}.get(method, method.upper())
    return getattr(module, f"{name}Config"), getattr(module, f"{name}Trainer")


def by_length(completions: list[Any], **_: Any) -> list[float]:
    """Reward long answers: what both sides use for online methods."""
    return [len(each[-1]["content"]) / 100 for each in completions]


class Clock(TrainerCallback):  # type: ignore[misc]  # Any to mypy: see pyproject
    """Notes the time and the peak memory whenever the trainer logs a loss."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Keep what was logged."""
        if logs and "loss" in logs:
            peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
            self.steps.append({**logs, "step": state.global_step, "time": time.time(), "memory": peak})


def main(path: str) -> None:
    """Train as the file says."""
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    out, method = Path(config["out"]), config["method"]
    config_class, trainer_class = classes(method)
    extra: dict[str, Any] = {}
    if method in {"grpo", "rloo"}:
        extra["reward_funcs"] = [by_length]
    if method == "distill":
        extra["teacher_model"] = config["teacher"]
    if method in {"orpo", "cpo"}:  # they take neither a path with a type nor a processor of their own
        from transformers import AutoModelForCausalLM, AutoTokenizer

        extra["processing_class"] = AutoTokenizer.from_pretrained(config["model"])
        model: Any = AutoModelForCausalLM.from_pretrained(config["model"], dtype=config["dtype"])
        values = {}
    else:
        model, values = config["model"], {"model_init_kwargs": {"dtype": config["dtype"]}}
    task = "SEQ_CLS" if method == "reward" else "CAUSAL_LM"
    # TRL 1.14 makes the adapter before anything has used the seed; 1.16 seeds by itself, and this changes nothing.
    set_seed(config["args"]["seed"])
    clock = Clock()
    trainer = trainer_class(
        callbacks=[clock],
        model=model,
        args=config_class(output_dir=str(out / "checkpoints"), **values, **config["args"]),
        train_dataset=load_dataset("json", data_files=config["data"], split="train", cache_dir=str(out / "cache")),
        peft_config=LoraConfig(task_type=task, **config["lora"]) if config["lora"] else None,
        **extra,
    )
    trainer.train()
    trainer.save_model(str(out / "weights"))
    (out / "result.json").write_text(json.dumps({"steps": clock.steps}, default=float), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
