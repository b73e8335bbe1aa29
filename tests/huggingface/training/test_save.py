"""What is written is what was trained: names, shapes and number of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge.api import PluginError
from forge_huggingface.training.save import check_written

if TYPE_CHECKING:
    from pathlib import Path


def loaded(folder: Path) -> Any:
    """Return the tiny model."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def lora() -> Any:
    """Return settings of a small adapter."""
    from peft import LoraConfig

    return LoraConfig(r=2, target_modules=["q_proj", "v_proj"])


def test_a_whole_model_and_an_adapter_are_found_whole(tiny_model: Path, tmp_path: Path) -> None:
    from peft import get_peft_model

    model = loaded(tiny_model)
    model.save_pretrained(tmp_path / "model")
    check_written(model, tmp_path / "model")
    model.tie_weights()
    model.lm_head.weight = model.get_input_embeddings().weight  # tied: written once
    model.config.tie_word_embeddings = True
    model.save_pretrained(tmp_path / "tied")
    check_written(model, tmp_path / "tied")
    wrapped = get_peft_model(loaded(tiny_model), lora())
    wrapped.save_pretrained(tmp_path / "adapter")
    check_written(wrapped, tmp_path / "adapter")


def test_an_adapter_in_place_of_the_model_that_was_trained_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    model = loaded(tiny_model)
    model.add_adapter(lora())
    model.requires_grad_(requires_grad=True)
    model.save_pretrained(tmp_path)  # writes the adapter alone
    del model.peft_config
    with pytest.raises(PluginError, match="not what was trained"):
        check_written(model, tmp_path)


@pytest.mark.parametrize("change", ["lacks", "shape"])
@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_weights_that_are_missing_or_of_another_shape_are_refused(
    kind: str, change: str, tiny_model: Path, tmp_path: Path
) -> None:
    from peft import get_peft_model
    from safetensors.torch import load_file, save_file

    model = loaded(tiny_model) if kind == "model" else get_peft_model(loaded(tiny_model), lora())
    model.save_pretrained(tmp_path)
    file = tmp_path / ("model.safetensors" if kind == "model" else "adapter_model.safetensors")
    tensors = load_file(file)
    name = max(tensors)
    tensors[name] = tensors[name][:1].clone()
    if change == "lacks":
        del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(PluginError, match=name):
        check_written(model, tmp_path)
