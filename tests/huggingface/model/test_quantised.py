"""What 4 bit rounds of a vision model: its language model, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.looking import Collated
from support.tiny_vlm import ARCHS

if TYPE_CHECKING:
    from support.looking import Projects

KEPT = {
    "gemma3": ["lm_head", "model.vision_tower"],
    "idefics3": ["lm_head", "model.connector", "model.vision_model"],
    "llava": ["lm_head", "model.multi_modal_projector", "model.vision_tower"],
    "qwen2_5_vl": ["lm_head", "model.visual"],
    "qwen3_vl": ["lm_head", "model.visual"],
}


@pytest.mark.parametrize("arch", ARCHS)
def test_only_the_language_model_is_rounded(projects: Projects, arch: str) -> None:
    pytest.importorskip("bitsandbytes")
    project = projects(arch)
    project.write(model={"load_in_4bit": True}, adapter={"type": "lora"})
    made = Collated(project)
    model = made.stages.load(made.data).model
    rounded = [name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"]
    assert rounded
    assert all(".layers." in name and not any(name.startswith(kept) for kept in KEPT[arch]) for name in rounded)
    assert model.config.quantization_config.llm_int8_skip_modules == KEPT[arch]
    project.write(adapter={"type": "lora"})
    plain = Collated(project)
    linear = {
        name
        for name, module in plain.stages.load(plain.data).model.named_modules()
        if type(module).__name__ == "Linear"
    }
    assert all(any(name.startswith(kept) for kept in KEPT[arch]) for name in linear - set(rounded))
