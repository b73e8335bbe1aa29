"""Which quantised weights an adapter can be trained on, and which are loaded as 16 bit ones instead.

From the ``is_trainable`` of transformers' quantizers (``transformers/quantizers/quantizer_*.py`` of 5.17 and 5.23); its
trainer asks for it when the model is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Decision
from forge_huggingface.facts.grouped import MLX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.api import Job, Machine, ModelFacts

TRAINABLE = frozenset(
    {
        "aqlm",
        "awq",
        "bitsandbytes",
        "compressed-tensors",
        "eetq",
        "fp8",
        "gptq",
        "hqq",
        "quanto",
        "sinq",
        "torchao",
    }
)
"""The formats that adapters can be trained on as they are stored."""

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "aqlm": ("aqlm",),
    "awq": ("gptqmodel",),
    "compressed-tensors": ("compressed-tensors",),
    "gptq": ("gptqmodel", "optimum"),
    "hqq": ("hqq",),
    "quanto": ("optimum-quanto",),
}
"""What transformers needs to be installed to load a format, as its quantizers' ``validate_environment`` asks."""

WIDENED = frozenset({"fp8", "mxfp4"})
"""The formats that forge has transformers load as 16 bit weights."""

FP8 = "5.23"
"""The transformers from which on adapters are known to be trained on ``fp8``; 5.17 refuses it."""


def cannot_quantised(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why weights cannot be trained on in the format that they are stored in, or None."""
    found = facts.quantized
    if job.model.dequantize and found not in WIDENED:
        stored = f"stored in {found}" if found else "not stored in any such format"
        return f"dequantize: it is for weights stored in {' or '.join(sorted(WIDENED))}, and the model is {stored}"
    if found is None or widens(machine, job, facts):
        return None
    if found.startswith(MLX):
        return (
            f"the model is stored in {found}, which only MLX reads; take the model that it was made from, or, on a Mac "
            'or by [use] backend = "mlx", train on it with MLX (pip install "forge-train[mlx]")'
        )
    if job.adapter.leaves_model:
        do = "use an adapter" + (", or write [model] dequantize = true" if found in WIDENED else "")
        return f"the model is stored in {found}, and quantised weights cannot be trained; {do}"
    if must_widen(machine, facts):
        return f"dequantize = false: transformers trains no adapter on weights stored in {found}; leave it out"
    if found not in TRAINABLE:
        return (
            f"the model is stored in {found}, and transformers trains no adapter on that; "
            "take the model that it was made from, with [model] load_in_4bit = true where memory is short"
        )
    if lacking := [name for name in PACKAGES.get(found, ()) if name not in machine.versions]:
        line = " ".join(f'"{name}"' for name in lacking)
        return (
            f"the model is stored in {found}, which needs {' and '.join(lacking)}: not installed (pip install {line})"
        )
    return None


def widens(machine: Machine, job: Job, facts: ModelFacts) -> bool:
    """Whether quantised weights are loaded as 16 bit ones: as the job says, else where they could not be trained on."""
    if job.model.dequantize is not None:
        return job.model.dequantize
    return not job.adapter.leaves_model and must_widen(machine, facts)


def must_widen(machine: Machine, facts: ModelFacts) -> bool:
    """Whether weights in a format that can be loaded as 16 bit ones can be trained on in no other way."""
    if facts.quantized != "fp8":
        return facts.quantized in WIDENED
    from packaging.version import InvalidVersion, Version  # which listing plugins does not need

    try:
        return Version(machine.versions.get("transformers", "99")) < Version(FP8)
    except InvalidVersion:
        return False


def decide_quantised(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield that weights are loaded as 16 bit ones, where the job leaves it open."""
    if job.model.dequantize is None and widens(machine, job, facts):
        why = f"transformers trains no adapter on weights stored in {facts.quantized}"
        times = "four times" if facts.quantized == "mxfp4" else "twice"
        yield Decision("model.dequantize", True, f"{why}; in 16 bit they take {times} the memory")
