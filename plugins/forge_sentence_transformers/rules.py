"""What can be said of a job for embedding models and rerankers before anything is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import Decision, Problem
from forge_huggingface.rules.data import held_out, layout_problems
from forge_huggingface.rules.models import DIFFUSION, SPEECH
from forge_huggingface.rules.precision import cannot_compute
from forge_huggingface.rules.training import decide_training, train_problems
from forge_sentence_transformers.shapes import EMBEDDING, RERANKER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts

METHODS = frozenset({EMBEDDING, RERANKER})

RATES = {"lora": 2e-4, "none": 2e-5}
"""Peak learning rates by adapter: sentence-transformers' examples take 2e-5 for all weights, LoRA ten times that."""


def another(job: Job) -> str | None:
    """Return that a job is not for this plugin, or None."""
    return (
        None
        if job.train.method in METHODS
        else "it is for " + " and ".join(f'method = "{name}"' for name in sorted(METHODS))
    )


def cannot_load(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001 - the probe's signature
    """Return why this plugin cannot load the model, or None."""
    if reason := another(job):
        return reason
    name, family = (*facts.architectures, "the model")[0], facts.model_type or ""
    if SPEECH.search(family) or DIFFUSION.search(family) or facts.task in {"vision", "seq2seq"}:
        return f"{name} is none of the encoders and decoders of text that forge makes such models of"
    if job.model.bits or facts.quantized:
        return "quantised weights: embedding models and rerankers are small, and train in 16 or 32 bit here"
    if facts.path is not None and (file := Path(facts.path) / "modules.json").is_file():
        modules = file.read_text(encoding="utf-8")
        if "sparse_encoder" in modules or "Router" in modules or "StaticEmbedding" in modules:
            return f"{file} names modules (sparse, routed or static) that forge does not train"
    return None


def cannot_train(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot train, or None."""
    return cannot_compute(machine, job, facts)


def not_mine(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001 - the probe's signature
    """Return that a job is not for this plugin, or None."""
    return another(job)


def problems(job: Job) -> Iterable[Problem]:
    """Yield mistakes of the job that its keys alone show."""
    method = job.train.method
    name = f'method = "{method}"'
    yield from layout_problems(job, "texts", name)
    yield from (problem for problem in train_problems(job, measures=()) if problem.where != "model.attn_implementation")
    for key in ("chat_template", "chat_template_kwargs", "system_prompt", "tools", "date"):
        if getattr(job.data, key):
            yield Problem(
                f"data.{key}", f"under {name} texts are taken as they are, without a chat template", "remove it"
            )
    for source in job.data.all_sources():
        for key in ("roles", "message_keys", "row_template", "prompt_prefix"):
            if getattr(source, key):
                do = "remove it" if key != "prompt_prefix" or method == RERANKER else "write [train] prompts"
                yield Problem(f"data.{key}", f"under {name} a row is two texts or more, and no conversation", do)
        if source.format != "auto":
            yield Problem("data.format", f"under {name} rows are told by their columns", "remove it")
    for key, value in job.generation.asked().items():
        yield Problem(
            f"generation.{key}", f"under {name} the model answers nothing, so {value} is for nothing", "remove it"
        )
    if job.adapter.takes_from_the_base:
        what = (
            f'init_lora_weights = "{job.adapter.init_lora_weights}" changes the base, which under {name} stays as it is'
        )
        yield Problem("adapter.init_lora_weights", what, "remove it")
    for number, export in enumerate(job.export):
        if export.format == "adapter" and job.adapter.type == "none":
            yield Problem(f"export.{number}.format", "there is no adapter to export", 'write format = "merged"')


def eval_problems(job: Job) -> Iterable[Problem]:
    """Yield keys of ``[eval]`` that mean nothing where a model gives numbers."""
    table = job.eval
    if table is None:
        return
    name = f'method = "{job.train.method}"'
    if table.metrics:
        yield Problem(
            "eval.metrics", f"under {name} what is measured goes by the rows, and needs no names", "remove it"
        )
    for key in table.asked():
        yield Problem(f"eval.{key}", f"under {name} the model answers nothing", "remove it")
    for key in ("num_generations", "pass_reward"):
        if getattr(table, key) is not None:
            yield Problem(f"eval.{key}", f"under {name} the model answers nothing", "remove it")
    if table.path is None and not held_out(job):
        yield Problem("eval", "there are no held-out rows", "write [data] eval_size = 0.1, or [eval] path")


def decide(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the rate, and what huggingface decides of a trainer's arguments."""
    if job.train.options.get("learning_rate") is None:
        kind = "none" if job.adapter.type == "none" else "lora"
        why = (
            "as sentence-transformers' examples"
            if kind == "none"
            else "LoRA takes about ten times the rate of all weights"
        )
        yield Decision("train.learning_rate", RATES[kind], why)
    yield from decide_training(machine, job, facts)
