"""ADAPT: LoRA through ``FastVisionModel.get_peft_model``, or every weight.

The layers are chosen by forge, as for the other backend, and handed over as one pattern: Unsloth's own pattern leaves
out the language model of families whose layers have no *language* or *text* in their names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from forge.api import Adapted, Loaded, PluginError
from forge_huggingface.model import parts
from forge_huggingface.model.adapt import describe, target_modules
from forge_unsloth import session

if TYPE_CHECKING:
    from forge.api import Job, Run


def adapt(job: Job, run: Run, loaded: Loaded) -> Loaded:
    """Make the model trainable, as ``[adapter]`` says, and put it into Unsloth's training mode.

    Raises:
        ModelError: The job's keys fit no layer.
        PluginError: Unsloth adapted other layers than the job names.
    """
    from unsloth import FastVisionModel

    model, table = loaded.model, job.adapter
    targets: list[str] = ["all weights"]
    layers = {}
    if table.type == "none":
        model.requires_grad_(requires_grad=True)
    else:
        wanted = target_modules(model, table)
        names = [wanted] if isinstance(wanted, str) else [re.escape(name) for name in wanted]
        asked = {name for name, _ in model.named_modules() if any(re.fullmatch(each, name) for each in names)}
        model = FastVisionModel.get_peft_model(model, target_modules=wanted, **session.lora(job))
        found = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
        if {name.removeprefix("base_model.model.") for name in found} != asked:
            raise PluginError(f"Unsloth adapted {len(found)} layers", f"[adapter] asks for {len(asked)}")
        targets = sorted({name.rpartition(".")[2] for name in found})
        layers = {"layers": parts.count(model)}
    FastVisionModel.for_training(model, use_gradient_checkpointing=session.checkpointing(job))
    run.emit(Adapted.from_values({**describe(model, table.type, targets), **layers}))
    return Loaded(model=model, traits=loaded.traits, trainer=loaded.trainer)
