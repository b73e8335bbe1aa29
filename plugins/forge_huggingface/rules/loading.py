"""What can be said about loading and adapting before anything is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Decision
from forge_huggingface.methods import METHODS
from forge_huggingface.rules.attention import decide_attention
from forge_huggingface.rules.data import decide_rows
from forge_huggingface.rules.experts import cannot_adapt_experts
from forge_huggingface.rules.models import no_language_model
from forge_huggingface.rules.placement import device, no_such_positions
from forge_huggingface.rules.precision import precision
from forge_huggingface.rules.quantised import cannot_quantised, decide_quantised
from forge_huggingface.rules.start import cannot_start
from forge_huggingface.rules.targets import cannot_target
from forge_huggingface.rules.tokens import cannot_name_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts


def cannot_load(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot load the model, or None."""
    if reason := no_language_model(job, facts) or no_such_positions(job, facts):
        return reason
    if reason := cannot_quantised(machine, job, facts):
        return reason
    if reason := cannot_name_tokens(job, facts):
        return reason
    if job.model.bits is None:
        return None
    bits = job.model.bits.removesuffix("bit")
    if facts.quantized:
        return f"load_in_{bits}bit: the model is quantised already ({facts.quantized}); remove the key"
    if job.adapter.leaves_model:
        what = f'load_in_{bits}bit with [adapter] type = "{job.adapter.type}"'
        return f"{what}: quantised weights cannot be trained; use an adapter"
    kind = device(machine, job)
    if kind == "mps" or (kind is None and machine.arch.lower() not in {"x86_64", "amd64"}):
        return f"load_in_{bits}bit: bitsandbytes has no kernels for {machine.platform} {machine.arch} without CUDA"
    if kind is None and bits == "8":
        return "load_in_8bit: bitsandbytes trains 8 bit on a GPU only; take load_in_4bit, or remove the key"
    return None


def cannot_adapt(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001 - the probe's signature
    """Return why this plugin cannot make the model trainable, or None."""
    if job.adapter.parts and facts.task in {"text", "seq2seq", "other"}:
        return f"{', '.join(job.adapter.parts)}: the model takes no images, so it has no such parts; remove the key"
    if job.adapter.type == "layers":
        return _no_such_layer(job, facts)
    if job.adapter.type != "lora":
        return None
    if job.adapter.from_:
        return cannot_start(job, facts)
    return cannot_adapt_experts(job, facts) or cannot_target(job, facts)


def _no_such_layer(job: Job, facts: ModelFacts) -> str | None:
    """Return which chosen layer a model does not have, or None."""
    if facts.task == "seq2seq":
        return 'type = "layers": a model with an encoder and a decoder has two layers of each number'
    count = facts.shape.layers if facts.shape else None
    for index in job.adapter.layers_to_transform or ():
        if count and not -count <= index < count:
            return f"layers_to_transform: there is no layer {index}; the layers are 0 to {count - 1}"
    return None


def cannot_generate(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot make the model answer, or None."""
    if (method := METHODS.get(job.train.method)) and method.head == "reward":
        return f'method = "{method.name}" trains a model that gives numbers and no answers; remove [eval]'
    return cannot_load(machine, job, facts)


def decide_weights(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the type of the weights and how attention is computed, where the job leaves them open."""
    found = precision(machine, job, facts)
    if job.model.dtype == "auto":
        yield Decision("model.dtype", found.weights, found.why)
    yield from decide_quantised(machine, job, facts)
    yield from decide_attention(machine, job, facts)
    yield from decide_rows(machine, job, facts)
