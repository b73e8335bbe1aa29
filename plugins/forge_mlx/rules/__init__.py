"""What can be said about a job before anything is imported: why this plugin cannot serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import ForgeError, literal
from forge_huggingface.facts.grouped import MLX as STORED
from forge_huggingface.methods import METHODS
from forge_huggingface.rules.loading import cannot_adapt as cannot_adapt_at_all
from forge_huggingface.rules.placement import no_such_positions
from forge_mlx.families import COUNTING, FAMILIES
from forge_mlx.rules.keys import ADAPTER, HONOURED, LOSSES, MODEL, NOT_SO, OPTIMIZERS, SCHEDULES

if TYPE_CHECKING:
    from forge.api import AdapterTable, Job, Machine, ModelFacts, ModelTable


_ARM = frozenset({"arm64", "aarch64"})


def not_here(machine: Machine, job: Job) -> str | None:
    """Return why MLX is not to compute on a machine, or None. Where the job names it, only what cannot be counts."""
    named = job.use.backend == "mlx" or "mlx" in (*job.use.prefer, job.use.load, job.use.generate)
    if machine.platform == "darwin":
        return (
            None
            if machine.arch.lower() in _ARM
            else "MLX is for Macs with Apple's own processors, and this one has Intel's"
        )
    if named:
        return None
    return "it is made for Macs; here it computes on the processor, and only where the job names it"


def cannot_know(facts: ModelFacts) -> str | None:
    """Return why MLX's form of a model is not to be trusted, or None."""
    if facts.quantized not in {None, STORED}:
        return f"the model is stored in {facts.quantized}"
    if facts.shape is not None and facts.shape.mixture:
        return "the model is a mixture of experts"
    known = facts.model_type is None or facts.model_type in FAMILIES
    return None if known else f"forge has not compared MLX's {facts.model_type} with transformers'"


def unfollowed(table: AdapterTable | ModelTable, known: frozenset[str]) -> str | None:
    """Return a key of a table that says something and that this plugin does not follow, as a reason, or None."""
    for name, field in type(table).model_fields.items():
        if name not in known and getattr(table, name) != field.get_default(call_default_factory=True):
            return f"{field.alias or name}: MLX's side of forge does not have it"
    return None


def cannot_load(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot load the model, or None."""
    attention = job.model.attn_implementation
    refused: dict[str, Any] = {
        "trust_remote_code: a model's own code is for torch": job.model.trust_remote_code,
        f"attn_implementation = {literal(attention)}: MLX has an attention of its own": attention not in _ATTENTION,
        f'{job.model.bits} with [adapter] type = "none": rounded weights cannot be trained; use an adapter': (
            job.model.bits and job.adapter.type == "none"
        ),
        'the model is stored in few bits, and with [adapter] type = "none" it would be trained; use an adapter': (
            facts.quantized and job.adapter.type == "none"
        ),
        f"load_in_{job.model.bits}: the model is stored in MLX's few bits already; remove the key": (
            facts.quantized and job.model.bits
        ),
    }
    reasons = (reason for reason, holds in refused.items() if holds)
    return (
        not_here(machine, job)
        or cannot_know(facts)
        or unfollowed(job.model, MODEL)
        or next(reasons, None)
        or no_such_positions(job, facts)
    )


_ATTENTION = frozenset({"auto", "sdpa"})


def cannot_generate(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot make the model answer, or None."""
    if job.use.backend not in {"auto", "mlx"} and job.use.generate != "mlx":
        return f"the job asks for the backend {job.use.backend}"
    if (method := METHODS.get(job.train.method)) and not method.answers:
        return f'method = "{method.name}" trains a model that gives numbers and no answers; remove [eval]'
    if job.adapter.bias != "none" or job.adapter.modules_to_save:
        return "the adapter has more than LoRA's matrices"
    return cannot_load(machine, job, facts)


def cannot_export(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why the model could not be written for mlx-lm, or None."""
    if machine.platform == "darwin" and machine.arch.lower() not in _ARM:
        return not_here(machine, job)
    if facts.task not in {"text", "unknown"}:
        return f"the model is of the kind {facts.task}, and this writes models of text"
    if job.adapter.bias != "none" or job.adapter.modules_to_save:
        return "mlx-lm's adapters have LoRA's matrices alone; remove bias and modules_to_save"
    return cannot_know(facts) or unfollowed(job.model, MODEL)


def cannot_adapt(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot make the model trainable, or None."""
    if reason := not_here(machine, job) or cannot_adapt_at_all(machine, job, facts):
        return reason
    table = job.adapter
    if reason := unfollowed(table, ADAPTER) or cannot_go_on(job):
        return reason
    if table.init_lora_weights not in {True, False, "gaussian"}:
        return f"init_lora_weights = {literal(table.init_lora_weights)}: it begins with a part of torch's weights"
    if table.modules_to_save:
        return "modules_to_save: with MLX, LoRA's matrices alone are trained beside the frozen model"
    return (
        None if table.bias == "none" else f"bias = {literal(table.bias)}: with MLX biases are trained with all weights"
    )


def cannot_go_on(job: Job) -> str | None:
    """Return what the adapter that a job goes on from has beside LoRA's matrices, as a reason, or None."""
    if job.adapter.from_ is None:
        return None
    from forge_huggingface.facts.adapter import start_of  # only who goes on from an adapter needs it

    try:
        start = start_of(job)
    except ForgeError:
        return None  # a mistake of the job, which start_problems tells with its line
    config = start.config if start is not None else {}
    known = {"bias": ("none",), "init_lora_weights": (True, False, "gaussian")}
    for name in ("bias", "init_lora_weights", *BESIDE):
        if (value := config.get(name)) and value not in known.get(name, ()):
            return f"[adapter] from: {name} = {literal(value)} in its config, and MLX has LoRA's matrices alone"
    return None


BESIDE = ("fan_in_fan_out", "lora_bias", "modules_to_save", "target_parameters", "trainable_token_indices")
"""What peft's config has of more than LoRA's matrices."""


def cannot_train(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot train as the job says, or None."""
    if reason := not_here(machine, job):
        return reason
    if job.launch.world_size > 1:
        return "[launch]: with MLX one process trains"
    data = job.data
    refused = {
        "padding_free: batches are filled up at the right; packing lays rows end to end": (
            data.padding_free and not data.packing
        ),
        "streaming: the loop takes rows in an order of its own": data.streaming,
        f"packing: attention of {facts.model_type} goes by the positions, which run on in a pack": (
            data.packing and facts.model_type in COUNTING
        ),
    }
    return next((reason for reason, holds in refused.items() if holds), None) or next(_unserved(job), None)


def _unserved(job: Job) -> Any:
    """Yield the keys of ``[train]`` whose values the loop does not follow."""
    from forge_huggingface.arguments.options import train_options  # pydantic, which listing plugins does not need

    fields, options = train_options(job.train.method).model_fields, job.train.options
    for key, known in (
        ("optim", OPTIMIZERS),
        ("lr_scheduler_type", SCHEDULES),
        ("loss_type", LOSSES[job.train.method]),
    ):
        values = options.get(key)
        values = values if isinstance(values, list) else [values]
        value = next((each for each in values if each is not None and each not in known), None)
        if key == "optim" and str(value or "").endswith(("4bit", "8bit")):
            yield f"optim = {literal(value)}: its states are rounded by another library, and MLX's are in 32 bit"
        elif value is not None:
            yield f"{key} = {literal(value)}: with MLX there are {', '.join(sorted(known))}"
    for key, (value, why) in NOT_SO.items():
        if type(options.get(key)) is type(value) and options[key] == value:
            yield f"{key} = {literal(value)}: {why}"
    for key, value in options.items():
        if key not in HONOURED and value not in (None, fields[key].default):
            yield f"{key} = {literal(value)}: the loop of the plugin mlx does not have it"
