"""What 4 bit rounds of a vision model: its language model, and nothing else; and of a classifier: not its head."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file

from support.looking import Collated
from support.rows import labelled
from support.tiny_encoders import FAMILIES, make_encoder
from support.tiny_vlm import ARCHS

if TYPE_CHECKING:
    from support.looking import Projects
    from support.projects import Project

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


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", *FAMILIES])
def test_a_new_head_is_never_rounded_and_is_trained(project: Project, family: str) -> None:
    pytest.importorskip("bitsandbytes")
    if family != "llama":
        shutil.rmtree(project.folder / "model")
        make_encoder(project.folder / "model", family)
    (project.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled(12)))
    project.write(model={"load_in_4bit": True, "max_seq_length": None}, train={"method": "classification"})
    done = project.perform()
    assert done.code == 0, done.printed
    kept = done.of_kind("loaded")[-1]["unquantised"]
    assert any(name.endswith(("score", "classifier")) for name in kept)
    saved = load_file(done.folder.path / "adapter" / "adapter_model.safetensors")
    heads = [value for name, value in saved.items() if name.endswith(("score.weight", "classifier.weight"))]
    assert heads
    assert all(value.is_floating_point() for value in heads)
