"""Answers while training: made by the decoder, and those that TRL's own trainer draws with the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.decoding import Fixed
from support.tiny import make_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["GRPO", "RLOO"])
def test_a_trainer_draws_what_trls_own_draws(tmp_path: Path, name: str) -> None:
    import trl
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from forge_huggingface.training.recipes import online

    folder = make_model(tmp_path / "model")

    def drawn(trainer: type, **more: Any) -> list[list[int]]:
        found: list[list[int]] = []

        def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
            found.extend(completion_ids)
            return [float(len(ids)) for ids in completion_ids]

        model = AutoModelForCausalLM.from_pretrained(folder)
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"]))
        config = getattr(trl, f"{name}Config")(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=24,
            max_steps=2,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            seed=5,
        )
        rows = Dataset.from_list([{"prompt": "the sea"}, {"prompt": "a colour and five"}])
        tokenizer = AutoTokenizer.from_pretrained(folder)
        trainer(
            model=model, args=config, reward_funcs=[reward], train_dataset=rows, processing_class=tokenizer, **more
        ).train()
        return found

    decoder = Fixed()
    ours = drawn(getattr(online, f"Resumable{name}"), decoder=decoder)
    assert ours == drawn(getattr(trl, f"{name}Trainer"))
    assert len(ours) == 8
    assert decoder.steps > 23, "the decoder made them"
