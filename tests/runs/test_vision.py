"""Runs of vision models: what is adapted, trained, resumed and exported."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api.run import Run
from forge.discovery.discover import discover
from forge.job.job import load_job
from forge.machine.probe import probe
from forge.planning.planner import export_plan
from support.looking import Collated
from support.projects import Finished, json_of, perform_in, step_now, wait_for
from support.tiny_vlm import ARCHS

if TYPE_CHECKING:
    from pathlib import Path

    from support.looking import Projects, VisionProject
    from support.projects import Project

EVERY = {"type": "none", "r": None, "lora_alpha": None}


@pytest.fixture
def project(seeing: VisionProject) -> VisionProject:
    """A project whose model sees."""
    return seeing


def adapted(project: VisionProject, **keys: Any) -> list[str]:
    project.write(adapter=keys)
    model = Collated(project).model().model
    return [name for name, module in model.named_modules() if hasattr(module, "lora_A")]


def tower(name: str) -> bool:
    return "vision" in name or "visual" in name


@pytest.mark.parametrize("arch", ARCHS)
def test_the_keys_choose_the_parts(projects: Projects, arch: str) -> None:
    project = projects(arch)
    every = adapted(project)
    assert any(map(tower, every))
    assert not all(map(tower, every))
    assert not [name for name in every if "lm_head" in name or "projector" in name or "merger" in name]
    assert adapted(project, finetune_vision_layers=False) == [name for name in every if not tower(name)]
    assert adapted(project, finetune_language_layers=False) == [name for name in every if tower(name)]
    assert adapted(project, finetune_mlp_modules=False) == [name for name in every if "attn" in name]
    assert adapted(project, finetune_attention_modules=False) == [name for name in every if "mlp" in name]
    only = adapted(project, finetune_vision_layers=False, target_modules=["q_proj"])
    assert only
    assert all(name.endswith("q_proj") and not tower(name) for name in only)


def test_the_parts_are_a_mistake_on_a_model_of_text(project: VisionProject, tiny_model: Path) -> None:
    project.write(model={"id": str(tiny_model)}, adapter={"finetune_vision_layers": False})
    output = project.forge("plan", "job.toml", code=2)
    assert "finetune_vision_layers" in output
    assert "takes no images" in output


def test_leaving_out_both_parts_is_a_mistake(project: VisionProject) -> None:
    project.write(adapter={"finetune_vision_layers": False, "finetune_language_layers": False})
    assert "both false" in project.forge("plan", "job.toml", code=2)


@pytest.mark.parametrize(
    "arch", ["idefics3", *(pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHS if arch != "idefics3")]
)
def test_training_learns_and_the_merged_model_is_the_trained_one(projects: Projects, arch: str) -> None:
    project = projects(arch)
    project.write(train={"max_steps": 12, "learning_rate": 2e-2}, export=[{"format": "merged"}, {"format": "adapter"}])
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.losses[-1] < done.losses[0] - 0.3
    files = {path.name for path in (done.folder.path / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "processor_config.json", "tokenizer.json", "chat_template.jinja"} <= files
    assert "pipeline_tag: image-text-to-text" in (done.folder.path / "README.md").read_text()
    trained = done.folder.trained()
    assert trained is not None
    assert trained.task == "vision"
    made = exported(done)
    assert made.code == 0, made.printed
    out = done.folder.path / "exports" / "1-merged"
    report = json_of(out / "export.json")
    assert report["report"]["error"] < 1e-4
    assert {"processor_config.json", "model.safetensors", "chat_template.jinja"} <= set(report["files"])
    check_logits(project, done.folder.path / "adapter", out)


def exported(done: Finished, index: int = 0) -> Finished:
    plan, trained = done.folder.plan(), done.folder.trained()
    assert trained is not None
    made = export_plan(load_job(plan.job), index, discover({}), probe(), plan.facts, trained.traits, plan.source)
    made = replace(made, decisions=(*plan.decisions, *made.decisions))
    return perform_in(Run(folder=done.folder.path, plan=made), done.folder)


def check_logits(project: Project, adapter: Path, merged: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    batch = Collated(project).batch(2)
    del batch["labels"]
    base = AutoModelForImageTextToText.from_pretrained(project.folder / "model")
    with torch.inference_mode():
        plain = base.eval()(**batch).logits
        tuned = PeftModel.from_pretrained(base, adapter).eval()(**batch).logits
        again = AutoModelForImageTextToText.from_pretrained(merged).eval()(**batch).logits
    torch.testing.assert_close(tuned, again, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(tuned, plain, atol=1e-2)
    assert AutoProcessor.from_pretrained(merged).image_processor is not None


def test_full_fine_tuning_trains_every_weight_or_all_but_the_tower(project: VisionProject) -> None:
    project.write(adapter=EVERY, train={"learning_rate": 1e-3})
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.of_kind("adapted")[0]["trainable"] == done.of_kind("adapted")[0]["all"]
    project.write(adapter={**EVERY, "finetune_vision_layers": False}, train={"learning_rate": 1e-3})
    done = project.perform()
    assert done.code == 0, done.printed
    assert 0 < done.of_kind("adapted")[0]["trainable"] < done.of_kind("adapted")[0]["all"]
    from safetensors.torch import load_file

    before = load_file(project.folder / "model" / "model.safetensors")
    after = load_file(done.folder.path / "model" / "model.safetensors")
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert not [name for name in changed if "vision_model" in name]
    assert any("connector" in name for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["idefics3", "qwen3_vl"])
def test_a_killed_run_goes_on_to_the_same_bits(projects: Projects, arch: str) -> None:
    project = projects(arch)
    steps = {"max_steps": 30, "save_steps": 4, "lr_scheduler_type": "cosine"}
    project.write(adapter={"lora_dropout": 0.1}, train=steps)
    whole = project.perform()
    process = project.begin()
    folder = project.newest()
    wait_for(lambda: step_now(folder) >= 9)
    process.kill()
    process.communicate()
    wait_for(lambda: not _running(folder))
    project.forge("resume", str(folder.path))
    name = "adapter/adapter_model.safetensors"
    assert (folder.path / name).read_bytes() == (whole.folder.path / name).read_bytes()


def _running(folder: Any) -> bool:
    try:
        with folder.own():
            return False
    except Exception:  # noqa: BLE001 - whoever holds it
        return True


def test_the_same_seed_trains_the_same_bits(project: VisionProject) -> None:
    first, second = project.perform(), project.perform()
    assert first.losses == second.losses


def test_loader_processes_give_the_same_losses(project: VisionProject) -> None:
    first = project.perform()
    project.write(train={"dataloader_num_workers": 1})
    assert project.perform().losses == first.losses


def test_gradient_checkpointing_changes_no_loss(project: VisionProject) -> None:
    first = project.perform()
    project.write(train={"gradient_checkpointing": True})
    assert project.perform().losses == pytest.approx(first.losses, abs=1e-5)


def test_packing_is_for_text_only(project: VisionProject) -> None:
    project.write(data={"packing": True})
    assert "packing is for models that take text only" in project.forge("plan", "job.toml", code=None)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "tower"), [("qwen2_5_vl", "visual"), ("llava", "vision_tower")])
def test_a_tower_is_trained_whole_at_its_own_rate_beside_lora_on_the_language_model(
    projects: Projects, arch: str, tower: str
) -> None:
    from safetensors.torch import load_file

    project = projects(arch)
    project.write(
        adapter={"finetune_vision_layers": False, "modules_to_save": [tower]},
        train={"max_steps": 8, "learning_rates": {f"{tower}\\.": 1e-3}},
    )
    done = project.perform()
    saved = load_file(done.folder.path / "adapter" / "adapter_model.safetensors")
    assert not [name for name in saved if "lora_" in name and tower in name]
    assert [name for name in saved if "lora_" in name]
    stored = load_file(project.folder / "model" / "model.safetensors")
    base = {name.rpartition(f"{tower}.")[2]: value for name, value in stored.items() if tower in name}
    whole = {name.rpartition(f"{tower}.")[2]: value for name, value in saved.items() if tower in name}
    assert whole.keys() == base.keys()
    assert [name for name, value in whole.items() if not value.equal(base[name])]
