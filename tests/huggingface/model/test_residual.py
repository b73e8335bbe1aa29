"""Adapters that begin as a part of the base end as plain ones, for the base as it is stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from forge.errors import JobError
from forge_huggingface.model.residual import KEPT
from support.projects import cut_after
from support.resuming import resumed

if TYPE_CHECKING:
    from support.projects import Project


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        ("pissa", {}),
        ("olora", {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 4}}),
    ],
)
def test_what_is_saved_gives_the_trained_models_logits(project: Project, begin: str, more: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import forge_huggingface.training.train as training

    found: dict[str, torch.Tensor] = {}
    ids = torch.arange(4, 28).reshape(2, 12)
    save = training.save

    def saved(model: Any, *rest: Any) -> None:
        with torch.no_grad():
            found["trained"] = model.eval()(input_ids=ids).logits.clone()
        save(model, *rest)

    project.write(
        adapter={"init_lora_weights": begin, **more}, train={"max_steps": 4, "save_steps": 2, "learning_rate": 0.01}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "save", saved)
        done = project.perform()
    assert done.code == 0, done.printed
    folder = done.folder.path / "adapter"
    base = AutoModelForCausalLM.from_pretrained(done.folder.plan().facts.path, dtype=torch.float32)
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        tuned = PeftModel.from_pretrained(base, folder).eval()(input_ids=ids).logits
    assert (plain - found["trained"]).abs().max() > 1e-3
    torch.testing.assert_close(tuned, found["trained"], rtol=1e-4, atol=1e-5)
    said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert said["init_lora_weights"] is True
    assert (done.folder.path / KEPT).is_file()

    whole = (folder / "adapter_model.safetensors").read_bytes()
    cut_after(done.folder, 2)
    assert resumed(done.folder).code == 0
    assert (folder / "adapter_model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": {"init_lora_weights": "orthogonal", "r": 3}}, "needs even ranks"),
        ({"adapter": {"init_lora_weights": "pissa", "use_dora": True}}, "use_dora cannot be with"),
        (
            {"adapter": {"init_lora_weights": "pissa"}, "train": {"method": "dpo"}},
            "dpo compares with the model without",
        ),
        (
            {"adapter": {"init_lora_weights": "olora"}, "model": {"load_in_4bit": True}},
            "would have to be rounded again",
        ),
    ],
)
def test_beginnings_that_cannot_be_are_refused_when_planned(
    project: Project, changes: dict[str, Any], said: str
) -> None:
    project.write(**changes)
    assert said in project.forge("plan", "job.toml", code=None, FORGE_MACHINE="linux-cuda")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (
            "loftq",
            "would count the rest twice in the 16 bit one that forge merges into; write true beside load_in_4bit",
        ),
        ("eva", "it begins from the activations of a pass over the rows"),
        ("corda", "forge has no CorDA"),
        ("lora-ga", "it begins from gradients"),
    ],
)
def test_beginnings_that_forge_does_not_have_are_refused_by_name(project: Project, word: str, says: str) -> None:
    project.write(adapter={"init_lora_weights": word})
    with pytest.raises(JobError) as caught:
        project.prepare()
    assert says in str(caught.value)
