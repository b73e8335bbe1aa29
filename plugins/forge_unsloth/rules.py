"""What can be said about Unsloth and a job before anything is imported: why not, and what is taken where it is open.

Unsloth is the faster choice but has more conditions than transformers, and it changes some settings without a word. So
whatever it would not do exactly as the job says is a reason against it here, and the job then runs on transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Decision
from forge_huggingface.facts.targets import is_pattern
from forge_huggingface.rules.attention import APART, VARLEN, has_varlen, lays_rows
from forge_huggingface.rules.precision import OVERFLOWING, precision
from forge_unsloth.families import COMPARED, KERNELS, METHODS, TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from forge.api import Job, Machine, ModelFacts

CAPABILITY = 7.0
"""The oldest CUDA compute capability whose GPUs Unsloth supports: V100, T4, RTX 20."""

LENGTHS = "512, 1024, 2048, 4096 or 8192"

MOVABLE = frozenset({"embed_tokens", "lm_head"})
"""What Unsloth trains whole beside LoRA."""

_REFUSED: Mapping[str, str] = {
    "gradient_checkpointing_kwargs": "Unsloth recomputes in its own way",
    "neftune_noise_alpha": "Unsloth puts no noise on its embeddings",
    "use_cpu": "Unsloth trains on a GPU",
    "use_liger_kernel": "Unsloth brings its own kernels",
    "torch_compile": "Unsloth compiles what it changes by itself",
}
"""Arguments of the trainer that are reasons against Unsloth if they are set."""


def cannot_text(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why Unsloth cannot load, adapt and train a text model as the job says, or None."""
    return (
        cannot_machine(machine)
        or cannot_spread(job)
        or _cannot_family(machine, job, facts)
        or cannot_method(job, "unsloth-text")
        or cannot_arguments(job)
        or cannot_model(machine, job, facts)
        or _cannot_adapt(job)
        or _cannot_options(machine, job)
    )


def cannot_method(job: Job, plugin: str) -> str | None:
    """Return why Unsloth is not taken for a method, or not by itself, or None."""
    for key in ("tools", "environment"):
        if job.train.options.get(key):
            return f"[train] {key}: what a model may call has not been tried with Unsloth; take huggingface"
    if plugin == "unsloth-vision" and job.train.options.get("reward"):
        return "rewards have not been tried with Unsloth on models that take images; take huggingface"
    if job.train.method in METHODS or named(job, plugin):
        return None
    return (
        f'forge has not compared method = "{job.train.method}" on Unsloth and on transformers yet; '
        'name Unsloth in [use] backend = "unsloth" to take it'
    )


def cannot_machine(machine: Machine) -> str | None:
    """Return why Unsloth cannot run on a machine that has a GPU and the right versions, or None."""
    capability = _capability(machine)
    if capability is not None and capability < CAPABILITY:
        return f"the GPU has compute capability {capability}; Unsloth needs {CAPABILITY} or more"
    return None


def cannot_spread(job: Job) -> str | None:
    """Return why Unsloth cannot train in as many processes as the job says, or None."""
    if job.launch.world_size == 1:
        return None
    if job.launch.shard == "full":
        return '[launch] shard = "full": Unsloth shards no model, and each GPU holds the whole; write shard = "none"'
    if job.launch.nodes > 1:
        return f"[launch] nodes = {job.launch.nodes}: forge runs Unsloth on the GPUs of one node"
    return None


def cannot_model(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why Unsloth cannot load the model in the way that ``[model]`` says, or None."""
    table = job.model
    if table.max_seq_length == -1:
        return f"max_seq_length = -1: Unsloth needs a fixed length; write {LENGTHS}"
    if facts.context and table.max_seq_length > facts.context:
        return (
            f"max_seq_length = {table.max_seq_length} is beyond the model's {facts.context}, and Unsloth would stretch "
            f"its positions; write at most {facts.context}"
        )
    if table.attn_implementation != "auto":
        return (
            f'attn_implementation = "{table.attn_implementation}": Unsloth chooses the attention itself; leave it out'
        )
    if facts.quantized and facts.quantized != "bitsandbytes":
        return f"the model is stored in {facts.quantized}, which forge has not tried with Unsloth"
    if facts.quantized and (table.bits or job.adapter.type == "none"):
        return "the model is quantised already (bitsandbytes); remove load_in_…bit, and use an adapter"
    if table.bits and job.adapter.type == "none":
        return f'load_in_{table.bits} with [adapter] type = "none": quantised weights cannot be trained; use an adapter'
    if job.adapter.ensure_weight_tying:
        return "ensure_weight_tying: Unsloth trains embedding and output layer apart; leave it out"
    dtype = precision(machine, job, facts).weights
    whole = job.adapter.type == "none"
    if whole and dtype != "float32":
        return f"all weights are to be trained in {dtype}: Unsloth would then compute without float32 weights"
    if not whole and dtype == "float32":
        return 'dtype = "float32": Unsloth\'s kernels compute in 16 bit; leave it out'
    capability = _capability(machine)
    if capability is not None and capability < 8.0 and "bfloat16" in {table.dtype, dtype}:
        return f"the GPU (compute capability {capability}) has no bfloat16, and Unsloth would change it to float16"
    return None


def cannot_arguments(job: Job) -> str | None:
    """Return which of the trainer's arguments Unsloth would not follow, or None."""
    options = job.train.options
    for name, why in _REFUSED.items():
        if options.get(name):
            return f"{name}: {why}; leave it out"
    if isinstance(job.train.options.get("kernels"), list):
        return "kernels: Unsloth brings its own; leave it out"
    if job.train.method == "sft" and (loss := options.get("loss_type")) not in {None, "nll"}:
        return f'loss_type = "{loss}": Unsloth computes its own fused loss; write "nll", or leave it out'
    return None


def decide(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the type of the weights and the loss, where the job leaves them open."""
    if job.model.dtype == "auto":
        found = precision(machine, job, facts)
        yield Decision("model.dtype", found.weights, found.why)
    if job.train.options.get("kernels") == "auto":
        yield Decision("train.kernels", "none", "Unsloth brings its own")
    if job.train.method == "sft" and job.train.options.get("loss_type") is None:
        yield Decision("train.loss_type", "nll", "Unsloth computes it in one kernel, without all logits in memory")
    if job.data.padding_free is None and lays_rows(job, facts) and not job.data.packing:
        if facts.model_type not in KERNELS & APART:
            yield Decision("data.padding_free", False, "Unsloth has no attention of its own for the architecture")
        elif not (has_varlen(machine) or "flash-attn" in machine.versions):
            yield Decision("data.padding_free", False, f"torch is older than {VARLEN}, and flash-attn is not installed")
        else:
            yield Decision("data.padding_free", True, "Unsloth's attention keeps rows apart, so none need be filled up")


def options_of(job: Job, plugin: str) -> Mapping[str, Any]:
    """Return the table ``[plugins.<plugin>]`` of a job."""
    return job.plugins.get(plugin, {})


def _cannot_family(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    if facts.task == "seq2seq":
        return f"{facts.model_type} is a sequence-to-sequence model; Unsloth trains models that only decode"
    if facts.task not in {"text", "unknown"}:
        return f"the model's task is {facts.task}; this plugin is for text"
    if facts.model_type is not None and facts.model_type not in TEXT:
        return f"Unsloth does not list the architecture {facts.model_type}"
    if facts.model_type is not None and facts.model_type not in COMPARED and not named(job, "unsloth-text"):
        return (
            f"forge has not compared {facts.model_type} on Unsloth and on transformers yet; "
            'name Unsloth in [use] backend = "unsloth" to take it'
        )
    capability = _capability(machine)
    if facts.model_type in OVERFLOWING and capability is not None and capability < 8.0:
        return f"{facts.model_type} needs bfloat16, which a GPU of compute capability {capability} does not have"
    return None


def named(job: Job, plugin: str) -> bool:
    """Whether the job asks for Unsloth by name."""
    return job.use.backend == "unsloth" or plugin in {job.use.load, job.use.adapt}


def _cannot_adapt(job: Job) -> str | None:
    table = job.adapter
    if table.type != "lora":
        return None
    strange = [name for name in table.modules_to_save or [] if name.rpartition(".")[2] not in MOVABLE]
    if strange:
        return f"modules_to_save: Unsloth trains only lm_head and embed_tokens whole, not {strange[0]}"
    targets = table.target_modules if isinstance(table.target_modules, list) else [table.target_modules]
    if moved := [name for name in targets if name.rpartition(".")[2] in MOVABLE]:
        return f'target_modules: Unsloth would train {moved[0]} whole; write modules_to_save = ["{moved[0]}"]'
    if table.init_lora_weights not in (True, False, "gaussian"):
        return f'init_lora_weights = "{table.init_lora_weights}": forge has it for transformers alone'
    if isinstance(table.target_modules, str) and is_pattern(table.target_modules):
        return "target_modules: forge gives Unsloth names of modules, no regular expression; write names"
    if table.bias != "none":
        return f'bias = "{table.bias}": Unsloth has no kernels for it'
    return None


def _cannot_options(machine: Machine, job: Job) -> str | None:
    if options_of(job, "unsloth-text").get("fast_inference") and "vllm" not in machine.versions:
        return "[plugins.unsloth-text] fast_inference: vllm is not installed (pip install vllm)"
    return None


def _capability(machine: Machine) -> float | None:
    card = next((card for card in machine.accelerators if card.kind == "cuda"), None)
    return float(card.capability) if card and card.capability else None
