"""ADAPT: LoRA through ``FastLanguageModel.get_peft_model``, or every weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Adapted, Loaded, PluginError
from forge_huggingface.model.adapt import check_names, describe, target_modules
from forge_unsloth import session

if TYPE_CHECKING:
    from forge.api import Job, Run


def adapt(job: Job, run: Run, loaded: Loaded) -> Loaded:
    """Make the model trainable, as ``[adapter]`` says.

    Raises:
        ModelError: A name in ``target_modules`` or ``modules_to_save`` fits no module.
        PluginError: Unsloth adapted other modules than the job names.
    """
    model, table = loaded.model, job.adapter
    targets: list[str] = ["all weights"]
    if table.type == "none":
        # Loaded with full_finetuning: Unsloth has made its weights trainable, and the trainer's check counts them.
        model.requires_grad_(requires_grad=True)
    else:
        from unsloth import FastLanguageModel

        wanted = target_modules(model, table)
        check_names(model, table)
        model = FastLanguageModel.get_peft_model(
            model,
            target_modules=wanted,
            modules_to_save=list(table.modules_to_save) if table.modules_to_save else None,
            **session.lora(job),
        )
        found = {name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "lora_A")}
        asked = {name.rpartition(".")[2] for name in wanted} if isinstance(wanted, list) else found
        if found - asked or (asked - found and not table.exclude_modules):
            raise PluginError(
                f"Unsloth adapted {', '.join(sorted(found)) or 'nothing'}", f"[adapter] asks for {', '.join(wanted)}"
            )
        targets = sorted(found)
    run.emit(Adapted.from_values(describe(model, table.type, targets)))
    return Loaded(model=model, traits=loaded.traits, trainer=loaded.trainer)
