"""What can be said about a job before anything is imported: why not, what contradicts itself, what is taken."""

from __future__ import annotations

from collections.abc import Iterator

from forge.api import Decision, Job, Machine, ModelFacts, Problem


def cannot(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot train a job here, or None: then another one is taken, and the plan says why."""
    if machine.accelerators:
        card = machine.accelerators[0].name
        return f"it trains on the processor, and here is another one: {card}"
    one_by_one = [key for key in ("rank_pattern", "alpha_pattern", "layers_to_transform") if getattr(job.adapter, key)]
    refused = {
        f"the model is of the kind {facts.task}": facts.task not in ("text", "unknown"),
        f"the model is stored in {facts.quantized}": facts.quantized,
        "the model is a mixture of experts": facts.shape is not None and facts.shape.mixture,
        f"dtype = {job.model.dtype}: it computes in float32": job.model.dtype not in ("auto", "float32"),
        "load_in_16bit: it computes in float32": job.model.load_in_16bit,
        f"attn_implementation = {job.model.attn_implementation}: it knows sdpa and eager": (
            job.model.attn_implementation not in ("auto", "sdpa", "eager")
        ),
        "packing: it pads": job.data.packing,
        "padding_free: it pads": job.data.padding_free,
        "streaming: it takes rows in an order of its own": job.data.streaming,
        "early_stopping_patience: it trains to the end": job.train.early_stopping_patience,
        f"{', '.join(one_by_one)}: it adapts all layers alike": one_by_one,
        f"{', '.join(job.adapter.parts)}: the model takes no images": job.adapter.parts,
    }
    return next((reason for reason, holds in refused.items() if holds), None)


def problems(job: Job) -> Iterator[Problem]:
    """Yield what contradicts itself in a job."""
    asked = job.train.options
    evaluates = asked["eval_strategy"] not in (None, "no") or asked["eval_steps"]
    if evaluates and not _held_out(job):
        key = "train.eval_strategy" if asked["eval_strategy"] else "train.eval_steps"
        yield Problem(key, "there are no held-out rows", "write [data] eval_path, eval_split or eval_size")


def decide_weights(machine: Machine, job: Job, facts: ModelFacts) -> Iterator[Decision]:
    """Yield how the model is loaded, where the job leaves it open."""
    if job.model.dtype == "auto":
        yield Decision("model.dtype", "float32", "what a processor is fast in")
    if job.model.attn_implementation == "auto":
        yield Decision("model.attn_implementation", "sdpa", "torch's own attention")


def decide(machine: Machine, job: Job, facts: ModelFacts) -> Iterator[Decision]:
    """Yield how it is trained, where the job leaves it open."""
    asked = job.train.options
    if asked["learning_rate"] is None:
        full = job.adapter.type == "none"
        why = "usual for all weights" if full else "LoRA takes about ten times the rate of all weights"
        yield Decision("train.learning_rate", 2e-5 if full else 2e-4, why)
    if asked["eval_strategy"] is None:
        value = "no" if not _held_out(job) else "steps" if asked["eval_steps"] else "epoch"
        why = "there are held-out rows" if _held_out(job) else "there are no held-out rows"
        yield Decision("train.eval_strategy", value, why)


def _held_out(job: Job) -> bool:
    return any(value is not None for value in (job.data.eval_path, job.data.eval_split, job.data.eval_size))
