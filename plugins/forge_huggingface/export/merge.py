"""Merging an adapter into its base model, and reading back what was written."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ExportError, Noted, Trained
from forge_huggingface.export.compare import LIMITS, compare, compare_numbers, image_probes, logits, probes
from forge_huggingface.facts.folder import MODEL, reading
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.model.load import model_class
from forge_huggingface.rendering import tokenizers
from forge_huggingface.vision import processors

if TYPE_CHECKING:
    from forge.api import Job, Run


def merge(job: Job, run: Run, trained: Trained, out: Path) -> dict[str, Any]:
    """Merge an adapter into its base, write the model, read it back, and compare the logits.

    The base is read in 16 or 32 bit even if training saw it in 4 or 8: merging into rounded weights would round the
    adapter away.

    Returns:
        The comparison: relative error of the logits and its limit, mean and largest KL divergence in nats, share of
        equal top tokens, positions compared. Of a reward model, the error of its numbers.
    """
    import torch
    from peft import PeftModel

    adapter, vision = run.folder / trained.weights, trained.task == "vision"
    kind = model_class(trained.task)
    base_folder = snapshot(job, run, weights=True)
    processor = processors.load(job, adapter) if vision else tokenizers.load(job, adapter)
    dtype = torch.float32 if job.model.dtype == "float32" else stored_dtype(base_folder, job)
    prompts = image_probes(processor) if vision else probes(processor, job.data.variables)
    base = read(kind, base_folder, dtype, job, **({"num_labels": 1} if trained.task == "reward" else {}))
    if trained.task == "reward":  # it reads its number at the last token that is no padding
        base.config.get_text_config().pad_token_id = processor.pad_token_id
    model = PeftModel.from_pretrained(base, adapter)
    model.eval()
    before = logits(model, prompts)
    merged = model.merge_and_unload(safe_merge=True)
    merged.config.get_text_config().use_cache = True
    merged.save_pretrained(out, safe_serialization=True)
    processor.save_pretrained(out)
    del model, merged, base
    gc.collect()
    again = read(kind, out, dtype, job)
    again.eval()
    report = (compare_numbers if trained.task == "reward" else compare)(before, logits(again, prompts))
    name = str(dtype).removeprefix("torch.")
    report |= {"dtype": name, "limit": LIMITS[name]}
    if job.model.bits:
        report["note"] = f"trained on the {job.model.bits} base, merged into its {name} weights"
    found = f"logits {report['error']:.1e} from the adapter model's"
    if "top1" in report:
        found += f", {report['top1']:.1%} equal top tokens"
    run.emit(Noted(f"merged model read back from disk: {found}"))
    if not report["error"] <= LIMITS[name]:  # so that NaN fails too
        raise ExportError(
            "the merged model is not the trained one",
            f"its logits are {report['error']:.1e} from the adapter model's (relative), more than {LIMITS[name]:.0e}",
            "the adapter is safe and can be used; please report this with the run's log",
        )
    return report


def read(kind: Any, folder: Path, dtype: Any, job: Job, **settings: Any) -> Any:
    """Read a model on the CPU, where memory is, in a plain type."""
    do = "the export needs the base model's weights"
    with reading(f"cannot read the model in {folder}", folder, MODEL, do=do):
        return kind.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=job.model.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
            **settings,
        )


def stored_dtype(folder: Path, job: Job) -> Any:
    """Return the type that a model's config declares for its weights, float32 if it says nothing."""
    import torch
    from transformers import AutoConfig

    trust = job.model.trust_remote_code
    with reading(f"cannot read the model in {folder}", folder, ["config.json"]):
        declared = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust).dtype
    return declared if declared in {torch.float16, torch.bfloat16, torch.float32} else torch.float32
