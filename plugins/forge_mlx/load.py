"""LOAD: the base model, as mlx-lm has it, from a local folder of safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Loaded, ModelError, ModelLoaded, literal
from forge_huggingface.facts.folder import MODEL, reading
from forge_huggingface.facts.safetensors import read_folder
from forge_huggingface.hub.snapshot import snapshot
from forge_mlx import OWN
from forge_mlx.settings import settings_of

if TYPE_CHECKING:
    from forge.api import Job, Run

_NO_WEIGHTS = ("rotary_emb.inv_freq",)
"""Ends of names that stand in old files, and are computed."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model of MLX, and where it came from.

    Attributes:
        module: mlx-lm's model.
        folder: The folder of its files.
        adapter: peft's model of what is adapted, without weights; None if nothing is.
    """

    module: Any
    folder: Path
    adapter: Any = None


def load(job: Job, run: Run) -> Loaded:
    """Load the base model.

    Raises:
        ModelError: Weights are missing, damaged or too many, or MLX computes something else than the settings say.
    """
    import mlx.core as mx
    from mlx_lm.utils import get_total_parameters

    folder = Path(snapshot(job, run, weights=True))
    if job.train.options.get("use_cpu"):
        mx.set_default_device(mx.cpu)
    module = read_model(job, folder)
    device = "gpu" if mx.default_device().type == mx.DeviceType.gpu else "cpu"
    values = {
        "parameters": get_total_parameters(module),
        "dtype": job.model.dtype,
        "attention": "sdpa",
        "device": device,
        "class": f"{type(module).__module__}.{type(module).__qualname__}",
    }
    kinds = [(each.bits, each.group_size) for each in module.modules() if hasattr(each, "group_size")]
    if kinds:
        bits, groups = (" and ".join(map(str, sorted(set(each)))) for each in zip(*kinds, strict=True))
        values["quantised"] = f"MLX's {bits} bit, in groups of {groups}"
    run.emit(ModelLoaded.from_values(values))
    return Loaded(model=Model(module, folder), traits=OWN)


def read_model(job: Job, folder: Path) -> Any:
    """Return mlx-lm's model of a folder, in the type and the bits that the job names, frozen."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    module, _ = read_weights(job, folder, job.model.dtype)
    if job.model.bits:
        left = quantise(module, int(job.model.bits.removesuffix("bit")))
        if left:
            what = f"{len(left)} layers cannot be rounded to {job.model.bits}, as {left[0]}"
            why = "MLX rounds in groups of 32 weights at least, and their inputs are no multiple of that"
            raise ModelError(what, why, f"remove load_in_{job.model.bits}")
    module.freeze()
    for _, value in tree_flatten(module.parameters()):
        mx.eval(value)  # one after the other: what one is made of goes before the next one is read
    return module


def read_weights(job: Job, folder: Path, dtype: str) -> tuple[Any, dict[str, Any]]:
    """Return mlx-lm's model of a folder, every weight in its place and none read yet, and its settings.

    Raises:
        ModelError: Weights are missing or too many, or MLX computes something else than the settings say.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    settings = settings_of(folder, job.model.max_seq_length)
    with reading(f"cannot load {job.model.id}", folder, MODEL):
        module, _ = load_model(folder, lazy=True, strict=False, model_config=settings)
    there = {name: value.shape for name, value in tree_flatten(module.parameters())}
    stored = {name: shape for header in read_folder(folder) for name, shape in header.shapes.items()}
    if settings.get("tie_word_embeddings"):
        stored.pop("lm_head.weight", None)
    stored = {name: shape for name, shape in stored.items() if not name.endswith(_NO_WEIGHTS)}
    if missing := sorted(there.keys() - stored.keys()):
        what = f"{job.model.id} lacks {len(missing)} weights"
        raise ModelError(what, f"{_some(missing)} would start at random", "get the whole model")
    if foreign := sorted(stored.keys() - there.keys()):
        what = (
            f"{job.model.id} has {len(foreign)} weights for which MLX's {literal(settings['model_type'])} has no place"
        )
        raise ModelError(what, _some(foreign), 'write [use] backend = "huggingface"')
    if other := sorted(name for name, shape in there.items() if tuple(shape) != tuple(stored[name])):
        what = f"{job.model.id} has weights of another shape than its config.json says"
        raise ModelError(what, _some(other), "get a config.json that fits its weights")
    module.set_dtype(getattr(mx, dtype))
    if settings["model_type"] == "gemma3_text":
        rescale(module, settings["hidden_size"] ** 0.5, dtype)
    return module, settings


def quantise(module: Any, bits: int, group: int | None = None, *, everywhere: bool = False) -> list[str]:
    """Round a model's linear layers to few bits, in MLX's groups of weights that have a scale in common.

    Args:
        module: The model.
        bits: The bits of a weight.
        group: The weights of a group; None for 64, or 32 where a layer's inputs are no multiple of it.
        everywhere: Whether the embeddings and the output layer are rounded too, which bitsandbytes leaves alone.

    Returns:
        The layers that have no such groups, and stay.
    """
    from mlx import nn

    left = []

    def wanted(name: str, layer: Any) -> bool | dict[str, Any]:
        if not hasattr(layer, "to_quantized") or not (everywhere or ".layers." in f".{name}"):
            return False
        inputs = layer.weight.shape[-1]
        size = next((size for size in ((group,) if group else (64, 32)) if inputs % size == 0), None)
        if size is None:
            left.append(name)
            return False
        return {"group_size": size, "bits": bits}

    nn.quantize(module, class_predicate=wanted)
    return left


def rescale(module: Any, scale: float, dtype: str) -> None:
    """Have a model's embeddings multiplied by their scale as the type of the weights has it.

    mlx-lm's Gemma 3 rounds it to bfloat16 whatever the type is, by up to 0.4 %; transformers to the weights' own type.
    """
    import mlx.core as mx

    rounded = mx.array(scale, mx.bfloat16).astype(mx.float32)
    share = float(mx.array(scale, getattr(mx, dtype)).astype(mx.float32) / rounded)
    kind = type(module.model.embed_tokens)

    def embed(layer: Any, ids: Any) -> Any:
        found = kind.__call__(layer, ids)
        return found if share == 1 else found * share

    module.model.embed_tokens.__class__ = type(kind.__name__, (kind,), {"__call__": embed})


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
