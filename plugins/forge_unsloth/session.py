"""Calling Unsloth in a worker that has imported it first.

Unsloth's functions have many defaults of their own, the first of them 4 bit, so every argument that a job decides is
passed. What came of it is read back from the model and recorded.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import BackendImportError, ModelError, ModelLoaded, PluginError
from forge_huggingface.hub.snapshot import snapshot

if TYPE_CHECKING:
    from forge.api import Job, Run


def begin() -> Any:
    """Return the module ``unsloth``, which the worker has imported, once it is sure to drive the planned GPU.

    Raises:
        BackendImportError: Unsloth runs on another device than a CUDA GPU.
        PluginError: It was not imported first.
    """
    unsloth = sys.modules.get("unsloth")
    if unsloth is None:
        raise PluginError("unsloth was not imported first", "the plan's preload does not have it")
    device = getattr(unsloth, "DEVICE_TYPE", None)
    if device != "cuda":
        raise BackendImportError("Unsloth cannot use the GPU", f"it took the device {device}", "see `forge doctor`")
    lend_attention()
    return unsloth


def lend_attention() -> None:
    """Give Unsloth torch's kernel for rows of unequal length, which it takes from torch 2.12 on only.

    Without it, it calls the usual attention for each row of a batch end to end, and on new GPUs cuDNN builds a plan for
    each length that it has not seen: a run on ragged rows spends most of its time there. The name is private to Unsloth
    and fits the version that forge asks for; where it is missing, or taken, Unsloth stays as it is.
    """
    import inspect

    dispatch = sys.modules.get("unsloth.utils.attention_dispatch")
    if dispatch is None or getattr(dispatch, "_TORCH_VARLEN_ATTN", False) is not None:
        return
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return  # torch before 2.10
    known = inspect.signature(varlen_attn).parameters
    if "window_size" not in known or "enable_gqa" in known:
        return

    def attend(*tensors: Any, enable_gqa: bool = False, **options: Any) -> Any:  # noqa: ARG001 - torch 2.11 asks nothing
        return varlen_attn(*tensors, **options)

    dispatch._TORCH_VARLEN_ATTN = attend  # type: ignore[attr-defined]  # noqa: SLF001
    capabilities = dispatch._visible_capabilities()  # noqa: SLF001
    dispatch._NATIVE_BEATS_XFORMERS = dispatch._native_beats_xformers(capabilities, True)  # type: ignore[attr-defined]  # noqa: SLF001


def load(loader: Any, job: Job, run: Run, **extra: Any) -> Any:
    """Load a model and record what was really loaded.

    Args:
        loader: ``unsloth.FastLanguageModel`` or ``unsloth.FastVisionModel``.
        job: The job.
        run: The run.
        extra: Further arguments for ``from_pretrained``.

    Returns:
        The model, with the snapshot's folder in ``config._name_or_path``. Unsloth's copy of the tokenizer, which it may
        have changed, is dropped: the rows were made with the run's own.

    Raises:
        ModelError: The weights cannot be loaded, or others than the job asks for were loaded.
    """
    import torch

    folder = snapshot(job, run, weights=True)
    bits = mode(job, folder)
    whole = job.adapter.type == "none"
    arguments: dict[str, Any] = {
        "model_name": str(folder),
        "max_seq_length": job.model.max_seq_length,
        "dtype": getattr(torch, job.model.dtype),
        "load_in_4bit": bits == "4bit",
        "load_in_8bit": bits == "8bit",
        "load_in_16bit": bits is None and not whole,
        "full_finetuning": whole,
        "use_gradient_checkpointing": checkpointing(job),
        "random_state": seed(job),
        "use_exact_model_name": True,  # else a hub name would become one of Unsloth's own uploads
        "local_files_only": True,
        **extra,
    }
    if run.world_size > 1:  # each process sees its own GPU alone, and Unsloth would take the one of its number
        arguments["device_map"] = {"": 0}
    try:
        model, _ = loader.from_pretrained(**arguments)
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError, ValueError, ImportError, NotImplementedError) as error:
        traceback.print_exc()
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"Unsloth cannot load {job.model.id}", first, "the whole traceback is in log.txt") from error
    values = evidence(model)
    run.emit(ModelLoaded.from_values({**values, "path": str(folder), "from": str(model.config._name_or_path)}))  # noqa: SLF001
    wanted = "32bit" if whole else bits or "16bit"
    if values["bits"] != wanted:
        raise ModelError(f"Unsloth loaded {values['bits']} weights", f"the job asks for {wanted}")
    model.config._name_or_path = str(folder)  # noqa: SLF001 - trainers rebuild references from it
    return model


def mode(job: Job, folder: Path) -> str | None:
    """Return ``"4bit"`` or ``"8bit"``: as the job says, or as the model is stored; None for neither."""
    if job.model.bits:
        return job.model.bits
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if not config:
        return None
    return "8bit" if config.get("load_in_8bit") or config.get("_load_in_8bit") else "4bit"


def evidence(model: Any) -> dict[str, Any]:
    """Say what is in memory: device, types, bits, class, attention."""
    import torch

    kinds = {type(module).__name__ for module in model.modules()}
    bits = "4bit" if "Linear4bit" in kinds else "8bit" if "Linear8bitLt" in kinds else None
    weight = model.get_input_embeddings().weight
    size = 8 * weight.element_size()
    device = weight.device if weight.device.type == "cuda" else next(model.parameters()).device
    where = f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)
    return {
        "device": where,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "bits": bits or f"{size}bit",
        "attention": getattr(model.config, "_attn_implementation", None),
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def loss(job: Job) -> dict[str, str]:
    """Return the trainer arguments that Unsloth's kernels ask for: in SFT the loss that they compute."""
    return {"loss_type": "nll"} if job.train.method == "sft" else {}


def lora(job: Job) -> dict[str, Any]:
    """Return the arguments of ``get_peft_model`` that ``[adapter]`` and ``[train]`` decide, but for the modules."""
    table = job.adapter
    values: dict[str, Any] = {
        "r": table.r,
        "lora_alpha": table.lora_alpha,
        "lora_dropout": table.lora_dropout,
        "bias": table.bias,
        "layers_to_transform": list(table.layers_to_transform) if table.layers_to_transform else None,
        "use_rslora": table.use_rslora,
        "init_lora_weights": table.init_lora_weights,
        "random_state": seed(job),
        "use_gradient_checkpointing": checkpointing(job),
    }
    # These go straight to peft's LoraConfig.
    rest: dict[str, Any] = {
        "use_dora": table.use_dora,
        "exclude_modules": list(table.exclude_modules) if table.exclude_modules else None,
        "rank_pattern": dict(table.rank_pattern),
        "alpha_pattern": dict(table.alpha_pattern),
    }
    return values | {name: value for name, value in rest.items() if value}


def checkpointing(job: Job) -> str | bool:
    """Return Unsloth's gradient checkpointing, which moves activations to main memory, or False."""
    return "unsloth" if job.train.options.get("gradient_checkpointing") else False


def seed(job: Job) -> int:
    """Return the run's seed."""
    return int(job.train.options.get("seed", 42))
