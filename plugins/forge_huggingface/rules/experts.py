"""What becomes of a mixture of experts: which of its parts LoRA adapts, and whether its router's loss is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Decision
from forge.text.units import amount
from forge_huggingface.facts.targets import fits, is_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts

LIKE_MIXTRAL = frozenset({"minimax", "minimax_m2", "mixtral"})
LIKE_QWEN2 = frozenset(
    {
        "afmoe",
        "beam",
        "cohere2_moe",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "dots1",
        "ernie4_5_moe",
        "exaone_moe",
        "flex_olmo",
        "glm4_moe",
        "glm4_moe_lite",
        "glm4v_moe",
        "glm_moe_dsa",
        "hunyuan_v1_moe",
        "longcat_flash",
        "mellum",
        "olmoe",
        "qwen2_moe",
        "qwen3_moe",
        "qwen3_next",
        "qwen3_omni_moe",
        "qwen3_omni_moe_text",
        "qwen3_omni_moe_thinker",
        "solar_open",
    }
)
"""Families whose experts were layers before transformers 5. peft takes the names of those for the experts' parameters,
also where shared experts and dense blocks still have them (peft, ``utils/transformers_weight_conversion.py``)."""

UNBALANCED = frozenset(
    {
        "afmoe",
        "axk1",
        "axk2",
        "bailing_hybrid",
        "beam",
        "cohere2_moe",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "dots1",
        "dots3_note",
        "exaone_moe",
        "glm4_moe",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "hunyuan_v1_moe",
        "hy_v4",
        "kimi_linear",
        "kolibri1",
        "lfm2_moe",
        "llama4",
        "longcat_flash",
        "mimo_v2_flash",
        "mistral4",
        "nemotron_h",
        "solar_open",
        "zaya",
    }
)
"""Families whose classes in transformers make no loss of their router, though their configs speak of what it says."""

WORD = 'target_parameters = ["experts"]'


EXPERTS = frozenset({"gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
"""What these families called the layers of an expert."""


def taken(family: str | None) -> frozenset[str]:
    """Return the names of layers that peft takes for the experts of a family."""
    if family in LIKE_MIXTRAL:
        return frozenset({"gate", "w1", "w2", "w3"})
    return frozenset({"gate", "gate_proj", "up_proj", "down_proj"}) if family in LIKE_QWEN2 else frozenset()


def cannot_adapt_experts(job: Job, facts: ModelFacts) -> str | None:
    """Return why what ``[adapter]`` says of experts cannot be, or None."""
    table = job.adapter
    if "experts" in (table.target_parameters or ()) and facts.shape is not None and facts.shape.mixture is False:
        return f"{WORD}: the model is no mixture of experts; remove it"
    names = [table.target_modules] if isinstance(table.target_modules, str) else table.target_modules
    meant = sorted(taken(facts.model_type).intersection(name.rpartition(".")[2] for name in names))
    if "gate" in meant:
        return "target_modules: gate: it is the router of the mixture, which LoRA is not to move; take it out"
    if not meant and facts.model_type in LIKE_MIXTRAL | LIKE_QWEN2 and only_experts(names):
        meant = sorted(EXPERTS & taken(facts.model_type))
    if meant:
        why = f"peft takes {', '.join(meant)} of {facts.model_type} for its experts, with other ranks than are written"
        return f"target_modules: {why}; take them out, and write {WORD} to adapt the experts"
    return None


def only_experts(targets: Iterable[str]) -> bool:
    """Whether some target reaches experts, as files name them, and nothing else."""
    every = [f"model.layers.0.{block}.experts" for block in ("mlp", "block_sparse_moe")]
    every += [f"{name}.0.{leaf}" for name in every for leaf in EXPERTS]
    others = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "self_attn.q_a_proj"]
    return any(
        any(fits(key, name) for name in every) and not any(fits(key, f"model.layers.0.{name}") for name in others)
        for key in (target if is_pattern(target) else [target] for target in targets)
    )


def decide_experts(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:  # noqa: ARG001 - the signature
    """Yield that the experts of a mixture stay as they are, where the job leaves it open."""
    table, shape = job.adapter, facts.shape
    if table.type != "lora" or table.from_ or table.target_parameters is not None or shape is None or not shape.mixture:
        return
    if table.target_modules not in ("auto", "all-linear"):
        return
    experts = [linear for linear in shape.linears if linear.part == "experts"]
    held = sum(linear.parameters for linear in experts)
    values = sum(table.r * (linear.inputs + linear.outputs) * linear.count for linear in experts)
    of = f" ({amount(held)} of {amount(facts.parameters or shape.parameters)} parameters)" if held else ""
    what = f"LoRA leaves the experts{of} and the router as they are, as peft, TRL and Axolotl do"
    beside = [x for x in shape.linears if x.part == "language" and x.name in taken(facts.model_type) - {"gate"}]
    what += ", and shared experts and dense blocks, whose names peft takes for the experts'" if beside else ""
    more = f" with {amount(values)} more values" if values else ""
    yield Decision("adapter.target_parameters", [], f"{what}; {WORD} adapts the experts{more}")


def cannot_balance(job: Job, facts: ModelFacts) -> str | None:
    """Return why there is no loss of a router to train on, or None."""
    if not job.train.options.get("router_aux_loss_coef"):
        return None
    if facts.shape is not None and facts.shape.mixture is False:
        return "router_aux_loss_coef: the model is no mixture of experts, so there is no loss of a router; remove it"
    if facts.model_type in UNBALANCED:
        return f"router_aux_loss_coef: transformers makes no loss of the router of {facts.model_type}; write 0"
    return None


def decide_balance(job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the weight of the router's loss, where the job leaves it open: the model's own, as TRL takes it."""
    options, shape = job.train.options, facts.shape
    if "router_aux_loss_coef" not in options or options["router_aux_loss_coef"] is not None or shape is None:
        return
    if facts.model_type in UNBALANCED:
        yield Decision("train.router_aux_loss_coef", 0.0, f"transformers makes no such loss for {facts.model_type}")
    elif shape.mixture and (value := shape.router_aux_loss_coef) is not None:
        why = "the loss that keeps the experts evenly used is added" if value else "no loss for even use of the experts"
        yield Decision("train.router_aux_loss_coef", value, f"{why}, as the model's config.json says")
