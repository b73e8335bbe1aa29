"""What is trained, and in which type."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from forge_huggingface.model.adapt import keep_in_float32


@pytest.mark.parametrize(("every", "head"), [(False, torch.float16), (True, torch.float32)])
def test_the_adapter_is_kept_in_float32_and_under_fp16_all_that_is_trained(every: bool, head: torch.dtype) -> None:
    layers = torch.nn.ModuleDict({"inner": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 2)}).half()
    model = get_peft_model(layers, LoraConfig(target_modules=["inner"], modules_to_save=["head"]))
    for parameter in model.parameters():  # as TRL does with a quantised base
        if parameter.requires_grad:
            parameter.data = parameter.data.half()
    keep_in_float32(model, every=every)
    types = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert {kind for name, kind in types.items() if "lora_" in name} == {torch.float32}
    assert {kind for name, kind in types.items() if "modules_to_save" in name} == {head}
    assert {kind for name, kind in types.items() if "base_layer" in name} == {torch.float16}
