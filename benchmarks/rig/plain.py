"""The plain scripts: what a user of Unsloth or TRL would write. Run in processes of their own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rig.forge import PROJECTIONS
from rig.models import LENGTH, RATE, SEED


def plain(setting: Path) -> None:
    """Train as Unsloth's or TRL's documentation shows, and write what was measured.

    Args:
        setting: A JSON file with ``side`` (``unsloth`` or ``trl``), ``bits``, ``model``, ``rows``, ``out``,
            ``checkpointing`` (whether the layers are computed again, as each library does it) and ``arguments`` of the
            trainer. Each step logged becomes a line of ``out`` at once.
    """
    asked = json.loads(setting.read_text(encoding="utf-8"))
    bits, model, out, checkpointing = asked["bits"], asked["model"], asked["out"], asked["checkpointing"]
    unsloth = asked["side"] == "unsloth"
    if unsloth:
        from unsloth import FastLanguageModel
    import torch
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    lora: dict[str, Any] = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none"}
    if unsloth:
        network, tokenizer = FastLanguageModel.from_pretrained(
            model, max_seq_length=LENGTH, load_in_4bit=bits == 4, load_in_16bit=bits == 16, local_files_only=True
        )
        network = FastLanguageModel.get_peft_model(
            network,
            **lora,
            target_modules=PROJECTIONS,
            use_gradient_checkpointing="unsloth" if checkpointing else False,
            random_state=SEED,
        )
        config = None
    else:
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(model)
        network = AutoModelForCausalLM.from_pretrained(
            model,
            dtype=torch.bfloat16,
            device_map={"": 0},
            attn_implementation="sdpa",
            quantization_config=quantization if bits == 4 else None,
        )
        config = LoraConfig(**lora, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    arguments = {
        "gradient_accumulation_steps": 1,  # Unsloth makes 2 the default
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "logging_steps": 1,
        "bf16": True,
        "report_to": "none",
        "save_strategy": "no",
        "seed": SEED,
        "max_length": LENGTH,
        "gradient_checkpointing": checkpointing,
        **asked["arguments"],
    }

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if "loss" in logs:
                memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
                step = {"step": state.global_step, "time": time.time(), "loss": logs["loss"], "memory": memory}
                with Path(out).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(step) + "\n")

    trainer = SFTTrainer(
        model=network,
        args=SFTConfig(output_dir=f"{out}.checkpoints", **arguments),
        train_dataset=load_dataset("json", data_files=asked["rows"], split="train", cache_dir=f"{out}.cache"),
        processing_class=tokenizer,
        peft_config=config,
        callbacks=[Clock()],
    )
    trainer.train()
