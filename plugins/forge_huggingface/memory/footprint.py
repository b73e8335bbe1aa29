"""What stays on the device while a model is trained, in bytes: weights, adapter, gradients, optimizer states.

These are counted, not guessed: tests hold them to what torch reports. What comes and goes in a step is in
:mod:`forge_huggingface.memory.kernels`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge_huggingface.facts.safetensors import parameters_below
from forge_huggingface.facts.shape import EMBEDDINGS, ROUTERS
from forge_huggingface.facts.stored import DOUBLE
from forge_huggingface.facts.targets import is_pattern, share
from forge_huggingface.rules.experts import taken

if TYPE_CHECKING:
    from forge.api import AdapterTable, Job, Linear, ModelFacts, Shape


MLP_INPUTS = ("gate", "up", "fc1", "fc_in", "c_fc", "w1", "w3", "h_to_4h", "wi")
STATES: Mapping[str, tuple[float, int]] = {
    # Values for each trained one, and bytes of each; 0 is the type of the parameter.
    "adafactor": (0.01, 4),  # a row and a column of each matrix (arXiv 1804.04235)
    "adagrad": (1, 0),
    "adalomo": (0, 0),
    "ademamix": (3, 4),
    "ademamix_8bit": (3, 1),
    "lion": (1, 4),
    "lion_32bit": (1, 4),
    "lion_8bit": (1, 1),
    "lomo": (0, 0),
    "muon": (1, 0),  # of matrices; what is beside them has two, as AdamW
    "rmsprop": (1, 0),
    "rmsprop_bnb": (1, 4),
    "rmsprop_bnb_8bit": (1, 1),
    "rmsprop_bnb_32bit": (1, 4),
    "sgd": (0, 0),
    "adamw_8bit": (2, 1),
    "adamw_bnb_8bit": (2, 1),
    "adamw_torch": (2, 0),
    "adamw_torch_fused": (2, 0),
    "adamw_apex_fused": (2, 0),
}
"""What optimizers keep, by transformers' names; ``paged_…`` lies in memory that the GPU can give away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What of a job, model and machine decides the memory.

    Attributes:
        job: The job, its open values decided.
        facts: What is known about the model.
        shape: Its shape.
        kind: The kind of accelerator; None for the CPU.
        room: The device's memory in bytes, if known.
        rows: Rows that one forward pass with gradients holds.
        length: Tokens of each.
        scored: Tokens of each whose logits are needed.
        fused: Whether the loss never holds all logits.
        logits: Bytes that each of them takes, where it does.
        tiled: Whether it is TRL's since 1.15, made in tiles.
        head: Whether the model has a vocabulary to predict; a reward model has one number.
        adapter: Bytes of a value of the adapter.
        processes: How many processes share a step.
        shards: In how many parts of as many processes the weights are.
    """

    job: Job
    facts: ModelFacts
    shape: Shape
    kind: str | None
    room: int | None
    rows: int
    length: int
    scored: int
    fused: bool
    logits: int
    tiled: bool
    head: bool
    adapter: int
    processes: int = 1
    shards: int = 1

    @property
    def steps(self) -> int:
        """Batches of a step that one process takes."""
        return max(int(self.options.get("gradient_accumulation_steps") or 1) // self.processes, 1)

    @property
    def in_buckets(self) -> bool:
        """Whether gradients lie where several processes sum them up: they do where a step has no earlier batches."""
        return self.processes > 1 and self.shards == 1 and self.steps == 1

    @property
    def options(self) -> Mapping[str, Any]:
        """The trainer's arguments."""
        return self.job.train.options

    @property
    def tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.rows * self.length

    @property
    def stream(self) -> int:
        """Bytes of a value of the weights."""
        return 4 if self.job.model.dtype == "float32" else 2

    @property
    def flow(self) -> int:
        """Bytes of a value of the stream between the layers, that of the weights as they are computed with."""
        return self.size if self.shards > 1 else self.stream

    @property
    def mixed(self) -> bool:
        """Whether autocast is on."""
        return bool(self.options.get("bf16") or self.options.get("fp16"))

    @property
    def size(self) -> int:
        """Bytes of a value that a matrix multiplication takes and gives."""
        return 2 if self.mixed else self.stream

    @property
    def lora(self) -> bool:
        """Whether an adapter is trained, not every weight."""
        return not self.job.adapter.leaves_model

    @property
    def stored(self) -> str | None:
        """The format in which the base stays quantised, if it is."""
        return None if self.job.model.dequantize else self.facts.quantized

    @property
    def casts(self) -> bool:
        """Whether each linear layer keeps a 16-bit copy of its own: peft casts to 32 bit, and autocast back."""
        rounded = self.job.model.bits or self.stored  # peft's layers on these leave the input as autocast has it
        return self.size == 2 and (not rounded if self.lora else self.flow == 4)

    @property
    def checkpointing(self) -> bool:
        """Whether activations are made again in the backward pass."""
        return bool(self.options.get("gradient_checkpointing"))

    @property
    def every(self) -> int:
        """Every how many layers, where they are, it is one whose activations are."""
        return int((self.options.get("gradient_checkpointing_kwargs") or {}).get("every_n_layers") or 1)

    @property
    def recomputed(self) -> int:
        """How many layers those are."""
        return -(-self.shape.layers // self.every) if self.checkpointing else 0


def adapted(shape: Shape, table: AdapterTable, left: frozenset[str] = frozenset()) -> list[tuple[Linear, float, int]]:
    """Return the linear layers that LoRA adapts, each with how many of them, and the rank; ``left`` are left out."""
    found = []
    asked = table.target_modules
    pattern = asked if isinstance(asked, str) and is_pattern(asked) else None
    names = [asked] if isinstance(asked, str) else asked
    wide = names in (["auto"], ["all-linear"])
    wanted = {name.rpartition(".")[2] for name in names}
    for linear in shape.linears:
        attention = not feeds(shape, linear) and linear.name not in ROUTERS
        if linear.name in (table.exclude_modules or ()):
            continue
        if linear.part == "experts":  # a parameter for all of them, with rank r for each
            if reaches_experts(table, linear.name):
                found.append((linear, float(linear.count), table.r))
            continue
        if linear.name in left or (linear.part == "joint" and names == ["auto"]):
            continue
        if wide and linear.name in ROUTERS:
            continue
        if pattern is None and not wide and linear.name not in wanted:
            continue
        if table.finetune_vision_layers is False and linear.part == "vision":
            continue
        if table.finetune_language_layers is False and linear.part == "language":
            continue
        if (table.finetune_attention_modules is False and attention) or (
            table.finetune_mlp_modules is False and not attention
        ):
            continue
        count = float(linear.count)
        if pattern is not None:
            count *= share(pattern, linear.name, shape.layers)
            if not count:
                continue
        if table.layers_to_transform is not None:
            count *= min(1.0, len(set(table.layers_to_transform)) / shape.layers)
        ranks = (rank for name, rank in table.rank_pattern.items() if re.match(rf"(.*\.)?({name})$", linear.name))
        found.append((linear, count, next(ranks, table.r)))
    return found


def reaches_experts(table: AdapterTable, name: str) -> bool:
    """Whether LoRA adapts the experts' parameter of a name, as ``[adapter] target_parameters`` says."""
    asked = table.target_parameters or ()
    return "experts" in asked or name in {each.rpartition(".")[2] for each in asked}


def experts(shape: Shape) -> int:
    """Return how many parameters the experts of a mixture have, all together."""
    return sum(linear.parameters for linear in shape.linears if linear.part == "experts")


def chosen(shape: Shape, table: AdapterTable) -> int:
    """Return how many values are trained whole in the layers that ``type = "layers"`` chooses."""
    layers = table.layers_to_transform
    part = 1.0 if layers is None else len({index % shape.layers for index in layers}) / shape.layers
    asked = [table.target_modules] if isinstance(table.target_modules, str) else table.target_modules
    inside = [linear for linear in shape.linears if linear.part in {"language", "experts"}]
    if asked == ["auto"]:
        norms = max(shape.rest - shape.hidden, 0)  # but for the last norm, which is in no layer
        return round(part * (sum(linear.parameters for linear in inside) + norms)) if layers else 0
    if is_pattern(asked[0]):
        return round(
            part * sum(linear.parameters * share(asked[0], f"{linear.name}.weight", shape.layers) for linear in inside)
        )
    names = {name.rpartition(".")[2] for name in asked}
    blocks = [linear for linear in inside if linear.name in names or names & (_MLP if feeds(shape, linear) else _ATTN)]
    return round(part * sum(linear.parameters for linear in blocks))


_MLP = frozenset({"mlp", "feed_forward", "block_sparse_moe"})
_ATTN = frozenset({"self_attn", "attn", "attention"})


def reached(shape: Shape, table: AdapterTable) -> float:
    """Return the share of the layers that the backward pass goes through, down to the lowest that is trained whole."""
    saved = {name.rpartition(".")[2] for name in table.modules_to_save or ()}
    if saved & EMBEDDINGS or (shape.tied and "lm_head" in saved):
        return 1.0
    if table.layers_to_transform is None:
        return 0.0 if table.target_modules == "auto" and saved == {"lm_head"} else 1.0
    return (shape.layers - min(index % shape.layers for index in table.layers_to_transform)) / shape.layers


def trained(setting: Setting) -> tuple[int, int]:
    """Return how many values are trained: those of the adapter (or of the model), and those of whole modules beside it.

    LoRA adds a row of r values for each input and each output of a layer (arXiv 2106.09685), DoRA one magnitude for
    each output (2402.09353).
    """
    shape, table = setting.shape, setting.job.adapter
    if table.type == "layers":
        values = float(chosen(shape, table))
    elif not setting.lora:
        tower = sum(linear.parameters for linear in shape.linears if linear.part == "vision")
        return total(setting) - (tower if table.finetune_vision_layers is False else 0), 0
    else:
        values = sum(
            count * (rank * (linear.inputs + linear.outputs) + table.use_dora * linear.outputs)
            for linear, count, rank in adapted(shape, table, taken(setting.facts.model_type))
        )
    whole = 0
    tables = {name.rpartition(".")[2] for name in table.modules_to_save or ()} & {"lm_head", "embed_tokens"}
    one = shape.tied and (table.type == "layers" or table.ensure_weight_tying)  # else each is a copy
    whole += shape.vocab * shape.hidden * (min(len(tables), 1) if one else len(tables))
    for name in table.modules_to_save or []:
        whole += saved(setting, name) or 0
    if setting.lora:
        values += added_rows(setting)
        asked = [table.target_modules] if isinstance(table.target_modules, str) else table.target_modules
        if any(name.rpartition(".")[2] in EMBEDDINGS for name in asked):
            values += table.r * (shape.vocab + shape.hidden)
    if not setting.head:
        whole += shape.hidden  # the reward model's own head
    return round(values), whole


def saved(setting: Setting, name: str) -> int | None:
    """Return the parameters of a module that is trained whole, but for the vocabulary's; None if its size is unknown.

    A block, such as a vision tower, is counted from the weights' headers, where they are here.
    """
    leaf, facts = name.rpartition(".")[2], setting.facts
    if leaf in {"lm_head", "embed_tokens"}:
        return 0
    if facts.path and not facts.quantized and (count := parameters_below(facts.path, facts.digest, name)):
        return count
    return sum(linear.parameters for linear in setting.shape.linears if linear.name == leaf) or None


def added_rows(setting: Setting, *, trained: bool = True) -> int:
    """Return how many values the rows of new tokens have; those that are trained beside an adapter, or all."""
    shape, whole = setting.shape, {name.rpartition(".")[2] for name in setting.job.adapter.modules_to_save or ()}
    tables = ["embed_tokens"] if shape.tied or not setting.head else ["embed_tokens", "lm_head"]
    count = sum(not trained or name not in whole for name in tables)
    return len(setting.job.model.new_tokens) * shape.hidden * count


def total(setting: Setting) -> int:
    """Return how many parameters the model has, as it is trained."""
    shape = setting.shape
    count = (setting.facts.parameters or shape.parameters) + added_rows(setting, trained=False)
    return count if setting.head or shape.tied else count - shape.vocab * shape.hidden


def weights(setting: Setting) -> int:
    """Return the bytes of the base model as it is loaded."""
    if setting.stored and setting.facts.weight_bytes:
        return setting.facts.weight_bytes
    bits, count = setting.job.model.bits, total(setting)
    whole = bits is not None or setting.stored == "bitsandbytes"  # which rounds layers, and experts are none
    packed = [x for x in setting.shape.linears if not (whole and x.part == "experts") and x.name not in ROUTERS]
    small = sum(linear.parameters for linear in packed)
    if setting.stored and setting.facts.stored_bits:
        return round(small * setting.facts.stored_bits / 8) + (count - small) * setting.stream
    if bits is None:
        return count * setting.stream
    if bits == "8bit":
        stored = float(small + sum(4 * linear.outputs * linear.count for linear in packed))
    else:
        stored = small * (4 + DOUBLE) / 8
    return round(stored) + (count - small) * setting.stream


def optimizer(setting: Setting) -> tuple[int, str]:
    """Return the bytes of the optimizer's states, and its name; one that forge does not know counts as Adam."""
    name = str(setting.options.get("optim", "adamw_torch_fused"))
    values, whole = trained(setting)
    own = setting.adapter if setting.lora else setting.stream
    if name.startswith("paged_"):
        return 0, f"{name}: paged, so that the GPU can give it away"
    states, size = STATES.get(name, (2, 0))
    if name == "muon":
        beside = setting.shape.embedding if setting.job.adapter.type == "none" else whole
        return round(values * own + (whole + beside) * setting.stream), "muon, and AdamW beside the matrices"
    note = name if name in STATES else f"{name}: counted as Adam"
    return round(states * (values * (size or own) + whole * (size or setting.stream))), note


def feeds(shape: Shape, linear: Linear) -> bool:
    """Whether a linear layer belongs to the feed-forward part."""
    return down(shape, linear) or any(linear.name.startswith(start) or start in linear.name for start in MLP_INPUTS)


def down(shape: Shape, linear: Linear) -> bool:
    """Whether a linear layer is the last one of the feed-forward part."""
    return linear.outputs == shape.hidden and linear.inputs not in {shape.hidden, shape.query}
