"""What forge says of mixtures before anything is loaded agrees with peft and transformers as they are installed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forge_huggingface.facts import shape as shapes
from forge_huggingface.memory import footprint, kernels
from forge_huggingface.memory.kernels import TRANSFORMERS
from forge_huggingface.memory.parts import bare, setting_of
from forge_huggingface.model.adapt import add_lora
from forge_huggingface.model.experts import taken_for_experts
from forge_huggingface.rules import experts
from forge_huggingface.rules.experts import cannot_adapt_experts, cannot_balance
from support.measuring import CPU, facts_of, kept_by_autograd, make_job
from support.tiny_moe import FAMILIES, make_mixture


def family(name: str) -> Any:
    """Return what peft asks of a model."""
    return SimpleNamespace(config=SimpleNamespace(model_type=name))


@pytest.mark.slow
def test_families_of_which_peft_takes_layers_for_experts_are_known() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    for name in CONFIG_MAPPING_NAMES:
        found = taken_for_experts(family(name), ()) if "." not in name else set()
        known = experts.taken(name) - {"gate"}
        assert found in (known, set()), name  # an older version may not know the family yet
        assert not known or found or name not in {"mixtral", "qwen3_moe", "olmoe", "deepseek_v3"}, name


def test_families_without_a_loss_of_their_router_are_known() -> None:
    import transformers

    for folder in (Path(transformers.__file__).parent / "models").iterdir():
        code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("modeling_*.py"))
        settings = "".join(path.read_text(encoding="utf-8") for path in folder.glob("configuration_*.py"))
        if code and "output_router_logits" in settings and "ForCausalLM" in code:
            assert (folder.name in experts.UNBALANCED) == ("aux_loss" not in code), folder.name


@pytest.mark.parametrize("name", FAMILIES)
def test_every_expert_is_counted_from_the_files_and_from_the_config_alone(name: str, tmp_path: Path) -> None:
    model = make_mixture(tmp_path, name)
    real = sum(value.numel() for key, value in model.named_parameters() if ".experts." in key and value.dim() == 3)
    facts, told = facts_of(tmp_path), shapes.from_config(model.config.to_dict())
    assert facts.shape is not None
    assert told is not None
    wanted = [linear for linear in facts.shape.linears if linear.part == "experts"]
    assert sum(linear.parameters for linear in wanted) == real
    assert {linear.name for linear in wanted} == {"gate_up_proj", "down_proj"}
    assert sorted(map(repr, (x for x in told.linears if x.part == "experts"))) == sorted(map(repr, wanted))
    assert (facts.shape.experts, facts.shape.experts_per_token, facts.shape.mixture) == (4, 2, True)


@pytest.mark.parametrize("adapter", [{}, {"target_parameters": ["experts"]}], ids=["auto", "experts"])
@pytest.mark.parametrize("name", ["gpt_oss", "granitemoe", "olmoe", "qwen3_moe"])
def test_a_layer_of_experts_keeps_what_autograd_keeps(name: str, adapter: dict[str, Any], tmp_path: Path) -> None:
    attention = "eager" if name == "gpt_oss" else "sdpa"
    tables = {"adapter": {"r": 4, **adapter}, "model": {"attn_implementation": attention}}
    job, kept = make_job(tables, per_device_train_batch_size=1), []
    for layers in (2, 4):
        sizes = {"hidden_size": 64, "intermediate_size": 96}
        kinds: dict[str, Any] = {"layer_types": ["full_attention"] * layers} if name == "gpt_oss" else {}
        kinds |= {"moe_intermediate_size": 48, "head_dim": 16} if name == "qwen3_moe" else {}
        model = make_mixture(tmp_path / str(layers), name, num_hidden_layers=layers, **sizes, **kinds)
        model.set_attn_implementation(attention)
        model, _ = add_lora(model, job)
        kept.append(kept_by_autograd(model.train(), 1, 128, mixed=False))
    found = setting_of(CPU, job, facts_of(tmp_path / "4"), TRANSFORMERS, 128)
    assert found is not None
    assert kernels.kept(found[0]) * 128 == pytest.approx((kept[1] - kept[0]) / 2, rel=0.08)


def test_the_estimate_says_that_experts_are_not_rounded_to_4_bit(tmp_path: Path) -> None:
    make_mixture(tmp_path, "qwen3_moe")
    job = make_job({"model": {"load_in_4bit": True, "dtype": "bfloat16"}, "adapter": {"r": 4}})
    found = bare(CPU, job, facts_of(tmp_path), TRANSFORMERS, None)
    assert found is not None
    about = found.parts[0].note or ""
    assert "4bit, but 12.3 k of experts in bfloat16: bitsandbytes rounds layers alone" in about
    setting = setting_of(CPU, job, facts_of(tmp_path), TRANSFORMERS, None)
    assert setting is not None
    held = footprint.experts(setting[0].shape)
    assert footprint.weights(setting[0]) > 2 * held


@pytest.mark.parametrize(
    ("name", "adapter", "why"),
    [
        ("llama", {"target_parameters": ["experts"]}, None),
        ("qwen3_moe", {"target_modules": ["q_proj", "gate_proj", "up_proj"]}, "peft takes gate_proj, up_proj of qwen3"),
        ("mixtral", {"target_modules": ["gate"]}, "it is the router of the mixture"),
        (
            "mixtral",
            {"target_modules": ["w1", "w2", "w3"]},
            'target_parameters = ["experts"] to adapt the experts',
        ),
        ("granitemoe", {"target_modules": ["q_proj"]}, None),
    ],
)
def test_targets_that_would_become_others_are_refused(
    name: str, adapter: dict[str, Any], why: str | None, tmp_path: Path
) -> None:
    from forge.model.facts import ModelFacts

    job = make_job({"adapter": adapter})
    found = cannot_adapt_experts(job, ModelFacts(id="m", source="hub", model_type=name))
    assert found is None if why is None else why in (found or "")


def test_a_weight_for_a_loss_that_is_not_made_is_refused(tmp_path: Path) -> None:
    make_mixture(tmp_path, "deepseek_v3")
    facts = facts_of(tmp_path)
    assert cannot_balance(make_job(router_aux_loss_coef=0.0), facts) is None
    said = "router_aux_loss_coef: transformers makes no loss of the router of deepseek_v3; write 0"
    assert cannot_balance(make_job(router_aux_loss_coef=0.01), facts) == said
