"""What arguments of a method contradict each other in is told before a model is loaded, in one sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli_w
from pydantic import ValidationError

from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.errors import JobError
from forge.job.read import parse
from forge_huggingface.arguments.options import train_options
from forge_huggingface.methods import METHODS

if TYPE_CHECKING:
    from pathlib import Path

GROUP = {"per_device_train_batch_size": 4, "num_generations": 4}


def refused(method: str, **keys: Any) -> str:
    with pytest.raises(ValidationError) as error:
        train_options(method)(**keys)
    return str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_in_the_defaults_contradicts_itself(method: str) -> None:
    assert train_options(method)()


@pytest.mark.parametrize(
    ("method", "keys", "words"),
    [
        ("dpo", {"loss_type": []}, 'loss_type is empty; write loss_type = ["sigmoid"]'),
        ("dpo", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, "loss_weights has 1 values for 2 losses"),
        ("dpo", {"loss_type": "exo_pair"}, "needs label_smoothing above 0"),
        ("dpo", {"loss_type": ["aot"], "f_divergence_type": "js_divergence"}, "f_divergence_type is for other losses"),
        ("dpo", {"loss_type": ["aot_unpaired"], "use_weighting": True}, "use_weighting cannot be with"),
        ("dpo", {"sync_ref_model": True, "precompute_ref_log_probs": True}, "sync_ref_model changes it; keep one"),
        ("cpo", {"loss_type": "ipo", "label_smoothing": 0.1}, 'label_smoothing has no effect: loss_type = "ipo"'),
        ("sft", {"use_liger_kernel": True, "liger_kernel_config": {"rms_nrom": True}}, "did you mean rms_norm"),
        (
            "sft",
            {"use_liger_kernel": True, "liger_kernel_config": {"fused_linear_cross_entropy": True}},
            "would replace the trainer's own loss",
        ),
        ("sft", {"torch_compile": True, "torch_compile_mode": "max-autotun"}, "did you mean max-autotune"),
        ("sft", {"torch_compile": True, "torch_compile_backend": "inducter"}, "did you mean inductor"),
        (
            "sft",
            {
                "optim": "galore_adamw_layerwise",
                "optim_target_modules": "all-linear",
                "gradient_accumulation_steps": 2,
            },
            "cannot be with gradient_accumulation_steps above 1",
        ),
        ("kto", {"per_device_train_batch_size": 1}, "compares the rows of a batch with each other"),
        ("kto", {"train_sampling_strategy": "random"}, 'needs train_sampling_strategy = "sequential"'),
        ("kto", {"sync_ref_model": True, "precompute_ref_log_probs": True}, "keep one"),
        ("grpo", {"generation_batch_size": 8, "steps_per_generation": 2}, "say the same; keep one"),
        ("grpo", {**GROUP, "generation_batch_size": 6}, "must be a multiple of per_device_train_batch_size (4)"),
        ("grpo", {**GROUP, "generation_batch_size": 12, "num_generations": 8}, "does not divide generation_batch_size"),
        ("rloo", {**GROUP, "num_generations": 3}, "num_generations (3) does not divide the 4 answers"),
        ("grpo", {**GROUP, "num_generations": 3, "steps_per_generation": 2}, "steps_per_generation 2"),
        (
            "grpo",
            {**GROUP, "eval_strategy": "epoch", "per_device_eval_batch_size": 6},
            "per_device_eval_batch_size (6) must be a multiple of num_generations (4)",
        ),
        (
            "rloo",
            {**GROUP, "eval_strategy": "epoch", "per_device_eval_batch_size": 4, "num_generations_eval": 3},
            "must be a multiple of num_generations_eval (3)",
        ),
        ("grpo", {**GROUP, "loss_type": "luspo"}, 'needs importance_sampling_level = "sequence"'),
        ("grpo", {**GROUP, "loss_type": "vespo", "importance_sampling_level": "sequence"}, 'level = "token"'),
        (
            "grpo",
            {**GROUP, "use_vllm": True, "use_transformers_continuous_batching": True},
            "both make the answers; keep one",
        ),
    ],
)
def test_a_contradiction_is_refused_with_a_sentence(method: str, keys: dict[str, Any], words: str) -> None:
    assert words in refused(method, **keys)


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("dpo", {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}),
        ("dpo", {"loss_type": "exo_pair", "label_smoothing": 0.001}),
        ("dpo", {"loss_type": "ipo", "f_divergence_type": "js_divergence"}),
        ("cpo", {"loss_type": "simpo", "cpo_alpha": 0.0}),
        (
            "kto",
            {"loss_type": "apo_zero_unpaired", "per_device_train_batch_size": 1, "train_sampling_strategy": "random"},
        ),
        ("grpo", {**GROUP, "importance_sampling_level": "sequence"}),
        ("grpo", {**GROUP, "generation_batch_size": 8}),
        ("rloo", {**GROUP, "steps_per_generation": 2, "num_generations": 8}),
        ("distill", {"teacher_model_name_or_path": "x", "beta": 1.0}),
    ],
)
def test_what_agrees_is_taken(method: str, keys: dict[str, Any]) -> None:
    train_options(method)(**keys)


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        ("dpo", "beta", -0.1),
        ("dpo", "loss_type", "sigmod"),
        ("dpo", "label_smoothing", 1.0),
        ("dpo", "ld_alpha", 2),
        ("kto", "loss_type", "bco"),
        ("cpo", "loss_type", ["simpo"]),
        ("grpo", "num_generations", 1),
        ("grpo", "temperature", 0),
        ("grpo", "top_p", 0),
        ("grpo", "loss_type", "ppo"),
        ("rloo", "epsilon", 0),
        ("grpo", "scale_rewards", "std"),
        ("distill", "beta", 1.5),
        ("distill", "max_completion_length", 0),
        ("distill", "lmbda", 1.5),
        ("grpo", "collapse_patience", 0),
        ("reward", "center_rewards_coefficient", -1),
    ],
)
def test_a_value_that_no_trainer_takes_is_refused(method: str, key: str, value: Any) -> None:
    assert key in refused(method, **{key: value})


@pytest.mark.parametrize(
    ("train", "tables", "where", "words"),
    [
        ({"method": "dpo"}, {"data": {"packing": True}}, "data.packing", "cannot put several rows into one"),
        ({"method": "kto", "max_steps": 2}, {"data": {"streaming": True}}, "data.streaming", "needs all rows at hand"),
        ({"method": "dpo"}, {"data": {"train_on": "all"}}, "data.train_on", "always and alone in the loss"),
        (
            {"method": "distill", "teacher_model_name_or_path": "t"},
            {"data": {"train_on": "all"}},
            "data.train_on",
            "no token of a prompt is in the loss",
        ),
        ({"method": "distill"}, {}, "train.method", "there is no teacher; write teacher_model_name_or_path"),
        ({"method": "dpo", "sync_ref_model": True}, {}, "train.sync_ref_model", "reference is the model without it"),
    ],
)
def test_what_a_method_does_not_take_elsewhere_is_a_mistake_of_the_job(
    tmp_path: Path, train: dict[str, Any], tables: dict[str, Any], where: str, words: str
) -> None:
    from forge.machine.presets import PRESETS
    from forge.model.facts import ModelFacts
    from forge.planning.planner import make_plan

    job = {"model": {"id": "m"}, "data": {"path": "d", **tables.get("data", {})}, "train": train}
    catalogue = discover({})
    file = parse(tomli_w.dumps(job), "job.toml", tmp_path, PluginKeys(catalogue))
    with pytest.raises(JobError) as caught:
        make_plan(file, catalogue, PRESETS["linux-cpu"], ModelFacts(id="m", source="unknown", task="text"))
    assert where in str(caught.value)
    assert words in str(caught.value)
