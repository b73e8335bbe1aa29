"""What a job puts into memory, part by part: what a method adds to the model, and the sum of it all.

What methods differ in is one row of a table; what backends differ in is one
:class:`~forge_huggingface.memory.kernels.Kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from forge.api import Estimate, Part
from forge.text.units import amount, counted
from forge_huggingface.facts.judge import size
from forge_huggingface.memory import footprint
from forge_huggingface.memory.footprint import Setting
from forge_huggingface.memory.kernels import Kernels, activations, own
from forge_huggingface.methods import by_rows
from forge_huggingface.rules.placement import device, through_main_memory

if TYPE_CHECKING:
    from forge.api import Job, Machine, ModelFacts


CONTEXT = 600 * 2**20
"""What a process takes on a GPU before the first tensor: the CUDA context and the kernels that get loaded."""

WORKSPACE = 32 * 2**20
"""cuBLAS's workspaces and what the allocator rounds up."""

LIBRARIES = 650 * 2**20
"""What Python with torch, transformers and TRL takes of main memory."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a method puts on the device, beside the model that is trained.

    Attributes:
        rows: Rows in one forward pass, for each row of ``per_device_train_batch_size``.
        answers: The option that says how long the answers are which the model itself writes; None if it writes none.
        reference: Whether it is held against a frozen copy, where every weight is trained; an adapter is switched off.
        teacher: Whether another model teaches, of which nothing is known here.
        head: Whether tokens are predicted; a reward model or a classifier gives numbers.
        whole: Whether the loss holds all logits; None if that depends on the backend and on TRL's version.
        logits: Bytes that each of them takes, where it does. Under autocast a forward pass gives 16 bit, and accelerate
            turns them to 32: 6 bytes for a moment, 4 afterwards, and 4 for their gradient.
    """

    rows: int = 1
    answers: str | None = None
    reference: Callable[[Mapping[str, Any]], bool] | None = None
    teacher: bool = False
    head: bool = True
    whole: bool | None = None
    logits: int = 12


BEFORE = "precompute_ref_log_probs"
"""The key that asks the reference before training, so that it need not stay."""

LOADS: Mapping[str, Load] = {
    "sft": Load(),
    "dpo": Load(rows=2, reference=lambda options: not options.get(BEFORE), logits=10),
    "kto": Load(reference=lambda options: not options.get(BEFORE), logits=14),
    "orpo": Load(rows=2, whole=True, logits=10),
    "cpo": Load(rows=2, whole=True, logits=10),
    "reward": Load(rows=2, head=False),
    "classification": Load(head=False),
    "grpo": Load(answers="max_completion_length", reference=lambda options: bool(options.get("beta", 0.0)), logits=8),
    "rloo": Load(answers="max_completion_length", reference=lambda options: bool(options.get("beta", 0.05)), logits=8),
    "distill": Load(answers="max_completion_length", teacher=True),
    "sdpo": Load(answers="max_completion_length", whole=False),
}
"""By method. dpo, orpo, cpo and reward put both sides of a pair into one batch. Of dpo the model's logits are there as
the reference's come, of kto those of its KL term too (trl/trainer/dpo_trainer.py, kto_trainer.py of TRL 1.14). What a
logit takes was measured on an H200 (docs/benchmarks.md), but for distill."""


def setting_of(
    machine: Machine, job: Job, facts: ModelFacts, kernels: Kernels, longest: int | None
) -> tuple[Setting, Load] | None:
    """Return what decides the memory, or None if model, method or length are unknown."""
    load, shape = LOADS.get(job.train.method.rpartition("/")[2]), facts.shape
    if load is None or shape is None or facts.task == "seq2seq":
        return None
    options, kind = job.train.options, device(machine, job)
    limit = facts.context if job.model.max_seq_length == -1 else job.model.max_seq_length
    written = int(options.get(load.answers) or 0) if load.answers else 0
    if by_rows(options) and not options["lmbda"]:  # the rows hold the answers
        written = 0
    length = longest or (max(limit - written, 1) if limit else None)  # the limit is for prompt and answer together
    if length is None:
        return None
    # Packed rows are filled up to the limit whatever the longest one is.
    length = limit if job.data.packing and limit else length
    since = _since(machine, "1.15")
    card = next((card for card in machine.accelerators if card.kind == kind), None)
    setting = Setting(
        job=job,
        facts=facts,
        shape=shape,
        kind=kind,
        room=(card.memory if card else None) if kind else machine.memory or None,
        rows=load.rows * int(options.get("per_device_train_batch_size") or 8),
        length=length + written,
        scored=written or length,
        fused=kernels.fused(job, since) if load.whole is None else not load.whole,
        logits=load.logits,
        tiled=since,
        head=load.head,
        adapter=4,  # float32, on any base: model.adapt
        processes=job.launch.world_size,
        shards=job.launch.world_size if job.launch.shard == "full" else 1,
    )
    return setting, load


def bare(machine: Machine, job: Job, facts: ModelFacts, kernels: Kernels, longest: int | None) -> Estimate | None:
    """Return the estimate without levers."""
    found = setting_of(machine, job, facts, kernels, longest)
    if found is None:
        return None
    s, load = found
    exact = facts.parameters is not None or bool(s.stored and facts.weight_bytes)
    loaded = kernels.weights(s)
    base = loaded // s.shards
    values, whole = footprint.trained(s)
    small = ((values * s.adapter + whole * s.stream) if s.lora else 0) // s.shards
    compared = bool(load.reference and load.reference(s.options))
    if s.job.adapter.from_ and compared:
        small *= 2  # the adapter as it was stays beside it
    gradients = (values * (s.adapter if s.lora else s.stream) + whole * s.stream) // s.shards
    states, name = footprint.optimizer(s)
    states //= s.shards
    beside = through_main_memory(machine, job, facts)
    about = _about_weights(s, exact=exact)
    if beside:
        about += "; each process reads all of them into main memory first"
    parts = [
        Part("weights", base, "measured" if exact else "estimated", about),
        _adapter(s, small, values + whole) if s.lora else None,
        Part("gradients", gradients, "estimated", "of what is trained"),
        Part("optimizer", states, "estimated", name),
    ]
    fixed = base + small + states
    if s.lora and "lora" in own(s) and s.size < s.adapter:
        rounded = values * s.size
        parts.append(Part("rounded", rounded, "estimated", "the adapter in 16 bit, once for a batch"))
        fixed += rounded
    if s.lora and footprint.added_rows(s):
        # peft puts trained rows into a copy of the whole table, whose gradient is as large.
        table = 2 * s.shape.vocab * s.shape.hidden * s.stream * (1 if s.shape.tied else 2)
        parts.append(Part("rows", table, "estimated", "a copy of the embedding with the rows of new tokens in it"))
        fixed += table
    if compared and not s.lora:
        parts.append(Part("reference", base, "estimated", "a frozen copy of the model"))
        fixed += base
    if s.processes > 1 and not s.in_buckets:
        parts.append(shared := together(s, gradients))
        fixed += shared.bytes or 0
    for table in s.options.get("reward") or ():
        if table.get("model"):
            held = size(table["model"], table.get("revision"), s.job.folder)
            parts.append(Part("reward model", held, "unknown" if held is None else "measured", table["model"]))
            fixed += held or 0
    if load.teacher:
        parts.append(Part("teacher", None, "unknown", "another model, which is not looked at here"))
    moving = activations(s, kernels, gradients)
    how = "gradient checkpointing" if s.checkpointing else "no gradient checkpointing"
    how += f", {s.recomputed} of {s.shape.layers} layers" if s.checkpointing and s.every > 1 else ""
    parts += [
        Part("activations", moving.layers, "estimated", how),
        Part("logits", moving.loss, "estimated", "never all at once" if s.fused else "all of them at once"),
    ]
    peak = fixed + moving.peak
    if load.answers and s.options.get("use_vllm"):
        share, where = vllm(s)
        parts.append(Part("vllm", share, "estimated", where))
        peak = max(peak, fixed + share) if s.options.get("vllm_enable_sleep_mode") else peak + share
    elif load.answers:
        sets = int(s.options.get("steps_per_generation") or 0) // s.processes
        rows = s.rows * (sets or s.steps)
        cache = rows * s.length * s.shape.layers * 2 * s.shape.key * s.size
        parts.append(Part("cache", cache, "estimated", f"keys and values of {rows} answers while they are written"))
        peak = max(peak, fixed + gradients + cache)
    if facts.task == "vision":
        parts.append(Part("pictures", None, "unknown", "activations of the part that sees; their size is in the rows"))
    if s.shards == 1:
        peak = max(peak, loaded)
    elif not beside:  # the whole model is there until its part is taken out, and so is a reference
        peak = max(peak, loaded + base + (loaded if load.reference and not s.lora else 0))
    outside = CONTEXT if s.kind in {"cuda", "rocm"} else LIBRARIES
    peak += WORKSPACE if s.kind in {"cuda", "rocm"} else 0
    note = "the CUDA context, outside torch's allocator" if s.kind in {"cuda", "rocm"} else "Python and its libraries"
    parts.append(Part("overhead", outside, "estimated", note))
    batch = counted(s.rows, "row")
    card = next((card.name for card in machine.accelerators if card.kind == s.kind), None)
    return Estimate(
        parts=tuple(part for part in parts if part is not None),
        peak=peak,
        process=peak + outside,
        device=card or f"{machine.cores} cores",
        room=s.room,
        batch=f"{batch} of {'up to ' if longest is None else ''}{s.length:,} tokens",
    )


def _adapter(s: Setting, held: int, values: int) -> Part:
    """Return the part of what is trained beside a frozen base, with what could not be counted of it."""
    unknown = [name for name in s.job.adapter.modules_to_save or () if footprint.saved(s, name) is None]
    if not values and not unknown:
        return Part("adapter", None, "unknown", "config.json alone names no such layer; the files, or loading, tell")
    without = f", without {', '.join(unknown)}, of unknown size" if unknown else ""
    return Part("adapter", held, "estimated", f"{values:,} values{without}")


def together(s: Setting, gradients: int) -> Part:
    """Return what a process holds because others train with it.

    With the whole model in each, DDP has room for all gradients where it sums them up, beside those of earlier batches
    of a step. Of a sharded one the layer that is computed and the next one are whole, and the embeddings and the output
    layer, in the type of the arithmetic; a layer's gradients are whole until they are summed up, in 32 bit (FSDP2).
    """
    if s.shards == 1:
        return Part("buckets", gradients, "estimated", f"gradients on their way between {s.processes} processes")
    words = s.shape.vocab * s.shape.hidden * (1 if s.shape.tied else 2)
    layer = max(footprint.total(s) - words, 0) // max(s.shape.layers, 1)
    held = (2 * layer + words) * s.size + (0 if s.lora else 4 * layer)
    return Part("gathered", held, "estimated", "two layers and the embeddings as a whole, while they are computed")


def vllm(s: Setting) -> tuple[int, str]:
    """Return the bytes that vLLM takes beside the training, and where: weights and cache fill the share it is given."""
    if s.options.get("vllm_mode", "colocate") != "colocate":
        return 0, "in a server of its own"
    share = float(s.options.get("vllm_gpu_memory_utilization", 0.3))
    return round(share * (s.room or 0)), f"{share:.0%} of the device: vllm_gpu_memory_utilization"


def _about_weights(s: Setting, *, exact: bool) -> str:
    count, bits = amount(footprint.total(s)), s.job.model.bits
    kind: str = bits or s.job.model.dtype
    if s.stored:
        each = f"about {s.facts.stored_bits:.2g} bits each" if s.facts.stored_bits else f"counted as {kind}"
        kind = f"{s.stored}, as they are stored" + ("" if s.facts.weight_bytes else f": {each}")
    wide = footprint.experts(s.shape) if bits else 0
    kind += f", but {amount(wide)} of experts in {s.job.model.dtype}: bitsandbytes rounds layers alone" if wide else ""
    held = f", one of {s.shards} parts" if s.shards > 1 else f", in each of {s.processes}" if s.processes > 1 else ""
    return f"{count} parameters, {kind}{held}" + ("" if exact else ", from config.json alone")


def _since(machine: Machine, version: str) -> bool:
    """Whether TRL is at least of a version; the newest is taken where there is none."""
    try:
        return Version(machine.versions.get("trl", "99")) >= Version(version)
    except InvalidVersion:
        return True
