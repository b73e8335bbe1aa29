"""Which of forge's own kernels a training uses, ``[train] kernels``: decided by what can be known while planning.

A part that does not fit the model, once it is there, is left to the libraries by itself
(:mod:`forge_huggingface.kernels`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Decision, Problem
from forge_huggingface.arguments.tables import KERNELS
from forge_huggingface.methods import METHODS
from forge_huggingface.rules.models import ENCODERS
from forge_huggingface.rules.placement import device

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.api import AdapterTable, Job, Machine, ModelFacts

LIGERS = ("swiglu", "norm", "rope")
"""What ``use_liger_kernel`` brings too; before TRL 1.15 a loss as well."""

SCALED = frozenset({"falcon_h1", "granite", "granitemoe", "granitemoehybrid", "granitemoeshared", "minicpm3"})
"""Types of models that scale their logits by a name that TRL's ``chunked_nll`` does not know before 1.15."""

WEIGHING = ("loss", "lora")
"""Parts that read other layers' weights, and do not call them."""

LAST = "the output layer is trained"

PER_TOKEN = frozenset({"sft", "dpo", "kto", "grpo", "rloo"})
"""Methods whose log-probabilities TRL makes by one function since 1.15."""


PADDED = frozenset({"sft", "dpo", "kto", "reward", "classification"})
"""Methods whose rows forge pads at the right, and of whose padding nothing is measured."""


def decide_kernels(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the parts that are used, where the job leaves it open: on an NVIDIA GPU all that can serve it."""
    if job.train.options.get("kernels") != "auto":
        return
    if (kind := device(machine, job)) != "cuda":
        where = "no GPU is used" if kind is None else f"the GPU is of the kind {kind}"
        yield Decision("train.kernels", "none", f"they are for NVIDIA GPUs, and {where}")
        return
    reasons = unfit(machine, job, facts)
    parts = [part for part in KERNELS if part not in reasons]
    left: dict[str, list[str]] = {}
    for part in KERNELS:
        if part in reasons:
            left.setdefault(reasons[part], []).append(part)
    without = "; ".join(f"not {', '.join(names)}: {why}" for why, names in left.items())
    why = "fused kernels of the same arithmetic; each is left to the libraries where the model does not fit it"
    yield Decision("train.kernels", parts or "none", f"{why}; {without}" if parts and without else without or why)


def unfit(machine: Machine, job: Job, facts: ModelFacts) -> Mapping[str, str]:
    """Return the parts that cannot serve a job, each with the reason."""
    from forge_huggingface.arguments.options import lean_nll  # pydantic, which listing plugins does not need

    options, table = job.train.options, job.adapter
    if facts.task == "seq2seq" or facts.model_type in ENCODERS:
        return dict.fromkeys(KERNELS, "they are for models that only decode")
    if options.get("torch_compile"):
        return dict.fromkeys(KERNELS, "torch_compile makes kernels of its own")
    reasons: dict[str, str] = {}
    if job.launch.shard == "full":
        weighing = KERNELS if table.type == "lora" else WEIGHING
        reasons |= dict.fromkeys(weighing, "each process holds a part of the weights")
    if not {"triton", "triton-windows", "pytorch-triton"} & machine.versions.keys():
        reasons |= dict.fromkeys(("loss", "swiglu", "norm", "rope"), "triton is not installed")
    if job.data.packing:
        reasons["mask"] = "packed rows have none"
    elif job.train.method not in PADDED:
        reasons["mask"] = "this method needs it"
    if table.type != "lora":
        reasons = {"lora": "there is no adapter", "loss": LAST} | reasons
    elif why := beside(table):
        reasons["lora"] = why
    if any(name.rpartition(".")[2] in {"lm_head", "embed_tokens"} for name in table.modules_to_save or ()):
        reasons["loss"] = LAST
    if (method := METHODS.get(job.train.method)) and method.pooled:
        reasons["loss"] = "its model predicts no words"
    elif not lean_nll() and (job.train.method != "sft" or options.get("loss_type") not in {None, "chunked_nll"}):
        reasons["loss"] = "this version of TRL makes all logits for it"
    elif job.train.method not in PER_TOKEN:
        reasons["loss"] = "this method has a loss of its own"
    if not lean_nll() and options.get("label_smoothing_factor"):
        reasons["loss"] = "label smoothing needs all logits"
    if options.get("use_liger_kernel"):
        theirs = LIGERS if lean_nll() else ("loss", *LIGERS)
        reasons |= dict.fromkeys(theirs, "use_liger_kernel brings its own")
    return reasons


def beside(table: AdapterTable) -> str | None:
    """Return why peft would compute every adapted layer of a training itself, or None."""
    plain = not (table.use_dora or table.lora_dropout or table.bias != "none")
    return None if plain else "it is for LoRA without DoRA, dropout and biases"


def scales_wrongly(machine: Machine, job: Job, facts: ModelFacts) -> bool:
    """Whether TRL's ``chunked_nll`` would leave out what the model multiplies its logits by."""
    from forge_huggingface.arguments.options import lean_nll  # pydantic, which listing plugins does not need

    if lean_nll() or facts.model_type not in SCALED or job.train.method != "sft":
        return False
    parts = job.train.options.get("kernels")
    if parts == "auto":
        return device(machine, job) != "cuda" or "loss" in unfit(machine, job, facts)
    return parts == "none" or "loss" not in (parts or ())


def kernel_problems(job: Job) -> Iterable[Problem]:
    """Yield which named parts contradict the rest of the job."""
    options = job.train.options
    parts = options.get("kernels")
    if not isinstance(parts, list):
        return
    if options.get("torch_compile"):
        yield Problem(
            "train.kernels", "torch_compile makes kernels of its own", 'remove one, or write kernels = "none"'
        )
    if options.get("use_liger_kernel") and (both := [part for part in parts if part in LIGERS]):
        yield Problem("train.kernels", f"use_liger_kernel brings its own {', '.join(both)}", "keep one of the two")
    if "lora" in parts and job.adapter.type != "lora":
        yield Problem("train.kernels", "there is no adapter for lora to compute", "leave lora out")
