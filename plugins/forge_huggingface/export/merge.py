"""A whole model in the type of its base, an adapter merged into it, and reading back what was written."""

from __future__ import annotations

import gc
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ExportError, Noted, Trained
from forge.text.units import size
from forge_huggingface.export.compare import LIMITS, compare, compare_numbers, image_probes, logits, probes
from forge_huggingface.export.original import original_of
from forge_huggingface.facts import safetensors
from forge_huggingface.facts.folder import MODEL, reading
from forge_huggingface.heads.heads import POOLED, settings, summary_of
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.model.load import model_class, widening
from forge_huggingface.rendering import tokenizers
from forge_huggingface.vision import processors

if TYPE_CHECKING:
    from forge.api import Job, Run


def merge(
    job: Job, run: Run, trained: Trained, out: Path, wish: str = "auto", original: str | None = None
) -> dict[str, Any]:
    """Write the whole trained model, an adapter merged into its base, read it back, and compare the logits.

    The base is read in 16 or 32 bit even if training saw it in 4 or 8: merging into rounded weights would round the
    adapter away. It is merged in 32 bit and rounded once.

    Args:
        job: The job.
        run: The run.
        trained: What training left.
        out: The folder to write into.
        wish: The type to write; ``"auto"`` for the base's own, whatever training computed in.
        original: The model to merge into, where the base is stored quantised.

    Returns:
        The comparison: relative error of the logits and its limit, mean and largest KL divergence in nats, share of
        equal top tokens, positions compared. Of a reward model or a classifier, the error of its numbers.
    """
    weights, vision = run.folder / trained.weights, trained.task == "vision"
    adapter = weights if trained.kind == "adapter" else None
    folder = snapshot(job, run, weights=True) if adapter else weights
    own = run.plan.facts.dtype
    if adapter is not None and original is not None:
        folder, own = original_of(job, run, original, folder), None
    there = own if adapter and own else safetensors.dtype(safetensors.read_folder(folder)) or "float32"
    name = wish if wish != "auto" else own or there
    name = name if name in LIMITS else "float32"
    if adapter is None and name == there:
        shutil.copytree(weights, out, dirs_exist_ok=True)
        tell(run, name, out)
        return {"dtype": name, "note": "the whole model was trained; there was nothing to merge"}
    kind = model_class(trained.task)
    processor = processors.load(job, weights) if vision else tokenizers.load(job, weights)
    prompts = image_probes(processor) if vision else probes(processor, job.data.variables)
    computed = "float32" if name == "float32" or there not in LIMITS else there
    given = settings(trained.task, summary_of(run)) if adapter is not None else {}
    if given:
        given["ignore_mismatched_sizes"] = True  # a head for other labels, in whose place the trained one is
    if adapter is not None and (wide := widening(job, run)) is not None:
        given["quantization_config"] = wide
    model = read(kind, folder, computed, job, **given)
    if trained.task in POOLED:  # a decoder reads them at the last token that is no padding
        model.config.get_text_config().pad_token_id = processor.pad_token_id
    before = rounded(model, adapter, name, prompts)
    if adapter is None:  # its other files are those of the trained model
        shutil.copytree(weights, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors*"))
    model.save_pretrained(out, safe_serialization=True)
    processor.save_pretrained(out)
    del model
    gc.collect()
    again = read(kind, out, name, job)
    again.eval()
    report = (compare_numbers if trained.task in POOLED else compare)(before, logits(again, prompts))
    report |= {"dtype": name, "limit": max(LIMITS[name], LIMITS[computed])}
    if original is not None:
        report["note"] = f"trained on the base stored in {run.plan.facts.quantized}, merged into {original}"
        report["original"] = {"model": original, "folder": folder.name}
    if job.model.bits:
        report["note"] = f"trained on the {job.model.bits} base, merged into its {there} weights"
    found = f"logits {report['error']:.1e} from the {'adapter' if adapter else 'trained'} model's"
    if "top1" in report:
        found += f", {report['top1']:.1%} equal top tokens"
    within = report["error"] <= report["limit"]  # not so if it is NaN
    if within and name != "float32":
        found += f"; within what {name} rounds off"
    run.emit(Noted(f"merged model read back from disk: {found}"))
    tell(run, name, out)
    if not within:
        raise ExportError(
            "the merged model is not the trained one",
            f"its logits are {report['error']:.1e} from it (relative), more than {report['limit']:.0e}",
            "the trained weights are safe and can be used; please report this with the run's log",
        )
    return report


def rounded(model: Any, adapter: Path | None, name: str, prompts: list[dict[str, Any]]) -> list[Any]:
    """Bring a model into the type that is written, an adapter merged into it, and return its logits before that.

    Args:
        model: The base, or the trained model; it is changed.
        adapter: The folder with the adapter, if there is one.
        name: The type.
        prompts: What to try.

    Raises:
        ExportError: Values do not fit into the type.
    """
    import torch

    exact = {each for each, value in model.named_parameters() if value.dtype == torch.float32 != model.dtype}
    if adapter is None:
        before = logits(model.eval(), prompts)
    else:
        from peft import PeftModel

        wrapped = PeftModel.from_pretrained(model, adapter).eval()
        before = logits(wrapped, prompts)
        fold(wrapped)
    model.config.get_text_config().use_cache = True
    dtype = getattr(torch, name)
    for each, value in model.named_parameters():
        if value.is_floating_point() and each not in exact:
            value.data = value.data.to(dtype)
            if name == "float16" and value.isinf().any():
                why = f"{each} has values above 65504, which it cannot hold"
                raise ExportError("the model does not fit into float16", why, 'write [[export]] dtype = "bfloat16"')
    return before


def fold(wrapped: Any) -> None:
    """Merge an adapter into its base: module by module in 32 bit, so that no more than one takes that room."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in wrapped.modules():
        if isinstance(module, BaseTunerLayer):
            module.get_base_layer().to(torch.float32)
            module.merge(safe_merge=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A(ll|lready) .*merged")
        wrapped.merge_and_unload(safe_merge=True)


def tell(run: Run, name: str, out: Path) -> None:
    """Say what type and size a model has, beside its base."""
    facts, count = run.plan.facts, sum(path.stat().st_size for path in out.glob("*.safetensors"))
    base = f"{facts.dtype or 'of unknown type'}, {size(facts.weight_bytes)}"
    run.emit(Noted(f"the merged model is {name}, {size(count)}; the base is {base}"))


def read(kind: Any, folder: Path, dtype: str, job: Job, **settings: Any) -> Any:
    """Read a model on the CPU, where memory is, in a plain type."""
    import torch

    do = "the export needs the base model's weights"
    with reading(f"cannot read the model in {folder}", folder, MODEL, do=do):
        return kind.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            trust_remote_code=job.model.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
            **settings,
        )
