"""Loads the model, and makes it trainable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from forge.api import Adapted, Loaded, ModelError, ModelLoaded, did_you_mean, first_line

from forge_plain import OWN

if TYPE_CHECKING:
    from forge.api import Job, Run


def load(job: Job, run: Run) -> Loaded:
    """Load the base model into memory, in float32.

    Raises:
        ModelError: The files are not there, or do not hold all of the model.
    """
    from transformers import AutoModelForCausalLM

    folder = run.plan.facts.path or _downloaded(job, run)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=job.model.attn_implementation,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{job.model.id} cannot be loaded", first_line(error)) from error
    # transformers starts what is missing at random and says so in a log: that would be another model.
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{job.model.id} lacks {len(missing)} weights", ", ".join(missing[:3]), "get the whole model")
    count = sum(parameter.numel() for parameter in model.parameters())
    run.emit(ModelLoaded(parameters=count, dtype="float32", attention=job.model.attn_implementation, device="cpu"))
    return Loaded(model=model, traits=OWN)


def _downloaded(job: Job, run: Run) -> str:
    """Return the folder of a model of the hub, brought to this machine."""
    from huggingface_hub import snapshot_download

    facts = run.plan.facts
    try:
        folder: str = snapshot_download(
            job.model.id,
            revision=facts.revision or job.model.revision,
            allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"],
            ignore_patterns=["*/*"],
        )
    except (OSError, ValueError) as error:  # what the hub refuses is an OSError, too
        raise ModelError(f"{job.model.id} cannot be had", first_line(error), "see `forge doctor`") from error
    run.learn(replace(facts, path=folder, revision=Path(folder).name))
    return folder


def adapt(job: Job, run: Run, loaded: Loaded) -> Loaded:
    """Add peft's LoRA as `[adapter]` says, or train every weight.

    Raises:
        ModelError: A name in `[adapter]` fits no module.
    """
    model, targets = loaded.model, ["all weights"]
    if job.adapter.type == "none":
        model.requires_grad_(True)
    else:
        from peft import LoraConfig, get_peft_model

        keys = job.adapter.model_dump(include=set(_KEYS))
        if keys["target_modules"] == "auto":
            keys["target_modules"] = "all-linear"
        elif keys["target_modules"] != "all-linear" and isinstance(keys["target_modules"], str):
            keys["target_modules"] = [keys["target_modules"]]  # peft would take it for a pattern of the whole name
        _check_names(model, keys)
        torch.manual_seed(job.train.options["seed"])  # the first weights are drawn
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **keys))
        targets = sorted({name.rpartition(".")[2] for name, each in model.named_modules() if hasattr(each, "lora_A")})
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    count = sum(parameter.numel() for parameter in model.parameters())
    run.emit(Adapted(trainable=trainable, all=count, targets=targets, type=job.adapter.type))
    return Loaded(model=model, traits=loaded.traits)


_KEYS = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "bias",
    "use_rslora",
    "init_lora_weights",
)
"""The keys of `[adapter]` that peft knows by the same names. The probe refuses a job with another one."""


def _check_names(model: Any, keys: dict[str, Any]) -> None:
    """Refuse names that fit no module, of which peft is content if one does, and layers that LoRA cannot be merged into."""
    full = {name: each for name, each in model.named_modules() if name}
    leaves = sorted({last for name in full if not (last := name.rpartition(".")[2]).isdigit()})
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        for name in keys[key] if isinstance(keys[key], list) else []:
            found = [each for path, each in full.items() if path == name or path.endswith(f".{name}")]
            if not found:
                do = did_you_mean(name, leaves, f"there are {', '.join(leaves)}")
                raise ModelError(f"[adapter] {key}: {name} fits no module of the model", do=do)
            linear = all(type(each).__name__ in ("Linear", "Conv1D") for each in found)
            if key == "target_modules" and (not linear or model.get_output_embeddings() in found):
                what = f"[adapter] target_modules: {name} is no linear layer inside the model"
                raise ModelError(what, do=f'train it whole: modules_to_save = ["{name}"]')
