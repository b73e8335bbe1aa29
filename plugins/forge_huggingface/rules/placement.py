"""What machine and model decide together: the device, what it can do, the positions there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge.api import Job, Machine, ModelFacts


def device(machine: Machine, job: Job) -> str | None:
    """Return the kind of accelerator that the job will use, or None for the CPU."""
    if job.train.options.get("use_cpu"):
        return None
    return next((kind for kind in ("cuda", "rocm", "mps") if kind in machine.usable_kinds), None)


ROOM = 0.9
"""The share of a GPU's memory that weights alone may take while they are read."""

ROOM_MAIN = 0.8
"""The same of main memory."""


def through_main_memory(machine: Machine, job: Job, facts: ModelFacts) -> bool:
    """Whether each process reads the whole model into main memory, of which its GPU is to hold a part.

    Straight onto the GPU is faster, where all weights have room there beside the part that is taken out of them. Else
    they may lie in main memory, from which torch's ``fully_shard`` moves one layer after the other. So may those of
    supervised fine-tuning alone: DPO asks a reference before the model is parted. And attention that is for GPUs alone
    could not be tried where they lie (:mod:`forge_huggingface.training.apart`).

    Args:
        machine: The machine, each node of which is one like it.
        job: The job, all else decided.
        facts: What is known of the model.
    """
    launch, whole = job.launch, _read(job, facts)
    if launch.shard != "full" or launch.world_size == 1 or whole is None:
        return False
    if job.train.method != "sft" or job.model.attn_implementation == "flash_attention_2":
        return False
    if _fits(machine, job, whole + whole // launch.world_size):
        return False
    there = machine.memory or 0
    free = there if machine.available is None else machine.available
    return launch.world_size // launch.nodes * whole <= min(ROOM_MAIN * there, free)


def beyond(machine: Machine, job: Job, facts: ModelFacts) -> bool:
    """Whether weights in 32 bit are more than a GPU has room for."""
    whole = _read(job, facts)
    return job.model.dtype == "float32" and whole is not None and not _fits(machine, job, whole)


def _read(job: Job, facts: ModelFacts) -> int | None:
    """Return the bytes of all weights as they are read; None if that is not known, as of weights in few bits."""
    count = facts.parameters or (facts.shape.parameters if facts.shape else None)
    if count is None or job.model.bits or facts.quantized:
        return None
    return count * (4 if job.model.dtype == "float32" else 2)


def _fits(machine: Machine, job: Job, size: int) -> bool:
    """Whether a GPU has room for weights, as far as that is known; main memory is not looked at."""
    kind = device(machine, job)
    card = next((card.memory for card in machine.accelerators if card.kind == kind), None)
    return kind not in {"cuda", "rocm"} or not card or size <= ROOM * card


def positions(facts: ModelFacts) -> int | None:
    """Return the most tokens that a model can read at all, or None where it has no vector for each position."""
    if facts.context is not None and facts.model_type in FROM_TWO:
        return facts.context - 2
    return facts.context if facts.model_type in POSITIONED else None


def too_long(job: Job, facts: ModelFacts) -> bool:
    """Whether rows may be longer than the positions that a model has."""
    there = positions(facts)
    return there is not None and job.model.max_seq_length > there


def no_such_positions(job: Job, facts: ModelFacts) -> str | None:
    """Return why the longest row that the job names cannot be, or None."""
    if "max_seq_length" not in job.model.model_fields_set:
        return None
    named = job.model.max_seq_length
    if not too_long(job, facts):
        return _beyond(job, facts)
    return (
        f"max_seq_length = {named} is beyond the model's {(last := positions(facts))} positions; write at most {last}"
    )


def _beyond(job: Job, facts: ModelFacts) -> str | None:
    """Return why rows longer than a model was made for need a word on how its positions are to be scaled, or None."""
    named, there = job.model.max_seq_length, facts.context
    said = {**job.model.config, **(job.model.config.get("text_config") or {})}.keys()
    usual = type(job.model).model_fields["max_seq_length"].default  # a lock writes it too
    scales = {"rope_scaling", "rope_parameters", "max_position_embeddings"}
    if facts.task == "seq2seq":  # what such a config names counts where positions are learned: see POSITIONED
        return None
    if there is None or named in (usual, -1) or named <= there or said & scales:
        return None
    scaled = f'config = {{ rope_scaling = {{ rope_type = "yarn", factor = {-(-named // there)}.0 }} }}'
    return (
        f"max_seq_length = {named} is beyond the {there} tokens that the model was made for; write at most {there}, or "
        f"say how its positions are scaled: [model] {scaled}, or as they are: config = {{ max_position_embeddings = "
        f"{named} }}"
    )


POSITIONED = frozenset(
    {
        "albert",
        "bart",
        "bert",
        "big_bird",
        "bigbird_pegasus",
        "biogpt",
        "blenderbot",
        "blenderbot-small",
        "codegen",
        "convbert",
        "deberta",
        "distilbert",
        "electra",
        "ernie",
        "flaubert",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gptj",
        "layoutlm",
        "led",
        "marian",
        "mbart",
        "megatron-bert",
        "mobilebert",
        "mra",
        "nystromformer",
        "openai-gpt",
        "opt",
        "pegasus",
        "plbart",
        "prophetnet",
        "rembert",
        "roc_bert",
        "squeezebert",
        "yoso",
    }
)
"""Types of models that have a vector for each position and so cannot read further, by transformers' names."""

FROM_TWO = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Those that number positions from 2 on, as RoBERTa does: two of their vectors stand for no token."""


def capability(machine: Machine) -> float:
    """Return the CUDA compute capability of the first card; 0 if there is none."""
    found = next((card.capability for card in machine.accelerators if card.kind == "cuda" and card.capability), None)
    return float(found) if found else 0.0
