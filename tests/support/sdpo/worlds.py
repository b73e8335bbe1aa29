"""A tiny model and a trainer on it, for facts about SDPO's trainer that need no job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from forge_huggingface.model.decoding import Decoder
from forge_sdpo.options import Sdpo
from forge_sdpo.trainer import SDPOTrainer
from support.tiny import make_model

PROMPTS = ["the sea", "Paris", "a colour", "morning", "the wind", "Tokyo", "five", "green"]


def load(folder: Path, *, lora: bool = False, dtype: torch.dtype = torch.float32, fresh: bool = True) -> Any:
    """A tiny Llama, with an adapter if asked for; one that is not fresh has been trained before."""
    if not (folder / "model").exists():
        make_model(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    if lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
        if not fresh:
            torch.manual_seed(5)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.data.normal_(std=0.3)
    return model


def trainer(
    folder: Path,
    model: Any,
    *,
    score: Any = None,
    feedback: Any = None,
    settings: dict[str, Any] | None = None,
    rollouts: Any = None,
    teacher_feedback: bool = False,
    **arguments: Any,
) -> SDPOTrainer:
    """A trainer of 4 questions with 8 rollouts each, whose reward is 1 for completions of an even number of tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = [{"prompt": [{"role": "user", "content": f"Say {word}."}], "row": i} for i, word in enumerate(PROMPTS)]
    values: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 32,
        "gradient_accumulation_steps": 1,
        "num_generations": 8,
        "max_completion_length": 12,
        "max_steps": 1,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "max_grad_norm": 1e6,
        "temperature": 1.0,
        "seed": 7,
        "gradient_checkpointing": False,
        **arguments,
    }

    def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(len(ids) % 2 == 0) for ids in completion_ids]

    return SDPOTrainer(
        decoder=Decoder(print),
        settings=Sdpo.model_validate(settings or {}).resolved(feedback=teacher_feedback),
        feedback=feedback,
        model=model,
        args=GRPOConfig(**values),
        reward_funcs=[score or even],
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        rollout_func=rollouts,
    )


def fixed_rollouts(prompts: list[Any], trainer: Any) -> dict[str, list[Any]]:
    """Rollouts that depend on question and place in the group only, whatever process asks."""
    tokenizer = trainer.processing_class
    tokenized = tokenizer.apply_chat_template(prompts, add_generation_prompt=True, tokenize=True, return_dict=True)
    texts = [prompt[-1]["content"] for prompt in prompts]
    answers: list[list[int]] = []
    for index, text in enumerate(texts):
        place = texts[:index].count(text)
        if texts.count(text) < trainer.num_generations:  # the group is divided among the processes
            place += trainer.accelerator.process_index * texts.count(text)
        random = torch.Generator().manual_seed(sum(map(ord, text)) * 100 + place)
        length = int(torch.randint(3, 12, (1,), generator=random))
        answers.append([*torch.randint(5, 400, (length,), generator=random).tolist(), 2])
    logps = [[0.0] * len(answer) for answer in answers]
    return {"prompt_ids": tokenized["input_ids"], "completion_ids": answers, "logprobs": logps}
