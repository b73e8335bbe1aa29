"""EXPORT: a whole model, or an adapter, as mlx-lm reads it; read back as mlx-lm does, and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Exported, ExportError, Noted, Trained
from forge.disk.files import files_below, write_text
from forge.disk.folder import RunFolder
from forge_huggingface.export.compare import LIMITS, compare, probes
from forge_huggingface.export.export import generation_defaults
from forge_huggingface.facts import safetensors
from forge_huggingface.hub.card import model_card, speed_of
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.rendering import tokenizers
from forge_mlx.adapt import put, take_adapter
from forge_mlx.load import quantise, read_weights
from forge_mlx.saving import write_model

if TYPE_CHECKING:
    from forge.api import ExportTable, Job, Run


def export(job: Job, run: Run, trained: Trained, export: ExportTable, out: Path) -> Exported:
    """Write one export into ``out``.

    Raises:
        ExportError: What mlx-lm reads is not the trained model.
        ModelError: The base model is not there any more, or MLX computes something else than its settings say.
    """
    weights, adapter = run.folder / trained.weights, trained.kind == "adapter"
    base = Path(snapshot(job, run, weights=True)) if adapter else weights
    there = safetensors.dtype(safetensors.read_folder(base)) or "float32"
    own = run.plan.facts.dtype if run.plan.facts.dtype in LIMITS else there
    wish = export.options["dtype"]
    name = str(own if wish == "auto" else wish)
    name = name if name in LIMITS else "float32"
    processor = tokenizers.load(job, weights)
    prompts = probes(processor, job.data.variables)
    module, settings = read_weights(job, base, "float32")
    if adapter:
        take_adapter(module, weights)
    before = logits(module, prompts)
    report: dict[str, Any] = {"parts": export.options["parts"]}
    if export.options["parts"] == "adapter":
        if not adapter:
            raise ExportError("there is no adapter to export", "the whole model was trained", 'write parts = "fused"')
        write_adapter(module, out)
        exact, limit = True, LIMITS["float32"]
    else:
        bits = export.options["bits"]
        write_fused(module, base, settings, out, name, bits, export.options["group_size"])
        # mlx-lm rounds what Gemma 3 multiplies its embeddings by to bfloat16, whatever the type is.
        rounded = "bfloat16" if settings["model_type"] == "gemma3_text" else name
        exact, limit = bits is None, max(LIMITS[name], LIMITS[rounded])
        report |= {"dtype": name, "bits": bits}
    processor.save_pretrained(out)
    del module
    report |= compare(before, logits(read_back(base, out, export.options["parts"]), prompts)) | {
        "limit": limit if exact else None
    }
    found = f"logits {report['error']:.1e} from the trained model's, {report['top1']:.1%} equal top tokens"
    run.emit(Noted(f"read back as mlx-lm does: {found}{'' if exact else '; rounding is meant to change them'}"))
    if exact and export.options["parts"] == "adapter" and not report["error"] <= limit:
        raise ExportError(
            "mlx-lm reads the base model otherwise than transformers does",
            f"its logits are {report['error']:.1e} from the trained model's: for what the base's config.json lacks "
            "it takes defaults of its own",
            'write parts = "fused", whose config.json says all',
        )
    if not report["error"] <= (limit if exact else 1.0):  # also if it is NaN
        raise ExportError(
            "what mlx-lm reads is not the trained model",
            f"its logits are {report['error']:.1e} from it (relative), more than {limit if exact else 1.0:.0e}",
            "the trained weights are safe and can be used; please report this with the run's log",
        )
    report["generation_config"] = generation_defaults(job, run, trained, out)
    evaluated = RunFolder(run.folder).evaluation()
    card = model_card(job, run.plan, trained, export.format, evaluated, speed=speed_of(run.folder))
    write_text(out / "README.md", card)
    return Exported(files=tuple(path.as_posix() for path in files_below(out)), report=report)


def logits(module: Any, prompts: list[dict[str, Any]]) -> list[Any]:
    """Return the logits of every position of every prompt, as torch's tensors of shape (tokens, vocabulary)."""
    import mlx.core as mx
    import numpy as np
    import torch

    module.eval()
    found = (module(mx.array(each["input_ids"].numpy()))[0].astype(mx.float32) for each in prompts)
    return [torch.from_numpy(np.array(each)) for each in found]


def write_fused(
    module: Any, base: Path, settings: dict[str, Any], out: Path, dtype: str, bits: int | None, group: int
) -> None:
    """Fold the adapter into the weights, in 32 bit, round them once, and write them with settings for mlx-lm."""
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model

    from forge_mlx.lora import adapted, folded

    module = dequantize_model(module)  # a base that is stored in few bits
    for name, layer in adapted(module).items():
        put(module, name, folded(layer))
    module.set_dtype(getattr(mx, dtype))
    if bits:
        quantise(module, bits, group, everywhere=True)
    write_model(module, base, out, dtype)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    # mlx-lm takes defaults of its own for what transformers leaves out.
    config |= {name: value for name, value in settings.items() if value is not None and name not in config}
    for name in ("quantization", "quantization_config"):  # the base's
        config.pop(name, None)
    if bits:
        config["quantization"] = config["quantization_config"] = {"group_size": group, "bits": bits, "mode": "affine"}
    write_text(out / "config.json", json.dumps(config, indent=2, default=str))


def write_adapter(module: Any, out: Path) -> None:
    """Write the adapter in mlx-lm's names, its scale in the second matrix, filled up to one rank."""
    import mlx.core as mx

    from forge_mlx.lora import adapted

    layers = adapted(module)
    rank = max(layer.lora_A.shape[0] for layer in layers.values())
    weights: dict[str, Any] = {}
    for name, layer in layers.items():
        missing = rank - layer.lora_A.shape[0]
        weights[f"{name}.lora_a"] = mx.contiguous(mx.pad(layer.lora_A, ((0, missing), (0, 0))).T)
        weights[f"{name}.lora_b"] = mx.contiguous((layer._scale * mx.pad(layer.lora_B, ((0, 0), (0, missing)))).T)  # noqa: SLF001
        if "lora_magnitude_vector" in layer:
            weights[f"{name}.m"] = layer.lora_magnitude_vector
    mx.save_safetensors(str(out / "adapters.safetensors"), weights, metadata={"format": "mlx"})
    dora = any(name.endswith(".m") for name in weights)
    settings = {
        "fine_tune_type": "dora" if dora else "lora",
        "num_layers": len(module.layers),
        "lora_parameters": {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": sorted(layers)},
    }
    write_text(out / "adapter_config.json", json.dumps(settings, indent=2))


def read_back(base: Path, out: Path, parts: str) -> Any:
    """Return what mlx-lm itself makes of an export."""
    import mlx.core as mx
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import load_model

    if parts == "fused":
        return load_model(out)[0]
    module, _ = load_model(base)
    module.set_dtype(mx.float32)
    return load_adapters(module, str(out))
