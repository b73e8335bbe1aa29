"""A key that another key's value leaves without effect is a mistake, unless nothing is asked by it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
import tomli_w
from pydantic import ValidationError

from forge.discovery.keys import PluginKeys
from forge.disk.joblock import lock_text
from forge.errors import JobError
from forge.job.decisions import settle
from forge.job.job import dump_job, load_job
from forge.job.read import JobFile, change_of, parse
from forge_huggingface.arguments.effects import EFFECTS
from forge_huggingface.arguments.fields import committed
from forge_huggingface.arguments.options import default_of, train_options
from forge_huggingface.arguments.tables import DEFAULTS, DEFAULTS_IN
from forge_huggingface.methods import METHODS
from support.planning import BASE, HELD_OUT, planner

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue

IDLE: list[tuple[str, dict[str, Any], str]] = [
    ("sft", {"adam_beta1": 0.5, "optim": "sgd"}, 'adam_beta1 has no effect: optim = "sgd" does not read it'),
    ("sft", {"adam_beta2": 0.5, "optim": "galore_adamw", "optim_target_modules": "all-linear"}, "does not read it"),
    ("sft", {"adam_epsilon": 1e-6, "optim": "lion_32bit"}, 'optim = "lion_32bit" does not read it'),
    ("sft", {"optim_args": "momentum=0.9"}, "optim_args has no effect"),
    (
        "sft",
        {"learning_rates": {"embed": 1e-5}, "optim": "apollo_adamw", "optim_target_modules": "all-linear"},
        "parts the parameters itself",
    ),
    ("sft", {"loraplus_lr_ratio": 16.0, "optim": "lomo"}, "parts the parameters itself"),
    ("sft", {"optim_target_modules": "all-linear"}, "is none of the galore and apollo optimizers"),
    ("sft", {"warmup_steps": 5, "lr_scheduler_type": "constant"}, 'write lr_scheduler_type = "constant_with_warmup"'),
    ("sft", {"warmup_steps": 5, "lr_scheduler_type": "greedy", "eval_strategy": "epoch"}, "has no warmup"),
    ("sft", {"lr_scheduler_kwargs": {"num_cycles": 2}}, 'lr_scheduler_type = "linear" takes no arguments'),
    ("sft", {"num_train_epochs": 5, "max_steps": 4}, "max_steps = 4 says when training ends; remove one of the two"),
    (
        "sft",
        {"gradient_checkpointing_kwargs": {"use_reentrant": True}, "gradient_checkpointing": False},
        "gradient_checkpointing = false",
    ),
    ("sft", {"liger_kernel_config": {"rope": True}}, "write use_liger_kernel = true"),
    ("sft", {"save_steps": 5, "save_strategy": "epoch"}, 'write save_strategy = "steps"'),
    ("sft", {"eval_steps": 5, "eval_strategy": "epoch"}, 'write eval_strategy = "steps"'),
    ("sft", {"eval_steps": 5, "eval_strategy": "no"}, 'write eval_strategy = "steps"'),
    ("sft", {"eval_delay": 5, "eval_strategy": "no"}, 'write eval_strategy = "steps" or "epoch"'),
    ("dpo", {"ref_model_sync_steps": 5}, "write sync_ref_model = true"),
    ("grpo", {"ref_model_mixup_alpha": 0.5}, "write sync_ref_model = true"),
    ("sft", {"logging_steps": 5, "logging_strategy": "epoch"}, 'logging_strategy = "epoch"'),
    ("sft", {"save_total_limit": 5, "save_strategy": "no"}, 'save_strategy = "no"'),
    ("sft", {"bf16_full_eval": True}, "in the precision of the training"),
    ("sft", {"fp16_full_eval": True}, "in the precision of the training"),
    ("sft", {"max_grad_norm": 2.0, "optim": "lomo"}, 'optim = "lomo" has used the gradients up'),
    (
        "sft",
        {"max_grad_norm": 2.0, "optim": "apollo_adamw_layerwise", "optim_target_modules": "all-linear"},
        "has used the gradients up",
    ),
    ("sft", {"weight_decay": 0.1, "optim": "galore_adamw", "optim_target_modules": "all-linear"}, "does not read it"),
    ("sft", {"label_smoothing_factor": 0.1, "loss_type": "dft"}, 'write loss_type = "nll"'),
    ("dpo", {"label_smoothing_factor": 0.1}, "only supervised fine-tuning reads it"),
    ("reward", {"label_smoothing_factor": 0.1}, "only supervised fine-tuning reads it"),
    ("sft", {"data_seed": 3, "train_sampling_strategy": "sequential"}, "draws no order"),
    ("sft", {"trackio_static_space_id": "a/b"}, "does not name trackio"),
    ("grpo", {"cache_implementation": "static", "use_vllm": True}, "use_vllm = true does not read it"),
    ("grpo", {"use_bias_correction_kl": False}, "nothing is compared with the reference"),
    ("grpo", {"vllm_model_impl": "auto", "use_vllm": True, "vllm_mode": "server"}, "started with its own"),
    ("grpo", {"vllm_server_timeout": 9.0, "use_vllm": True}, 'write vllm_mode = "server"'),
    (
        "grpo",
        {"vllm_importance_sampling_mode": "token_mask", "use_vllm": True, "vllm_importance_sampling_correction": False},
        "remove one of the two",
    ),
    ("dpo", {"beta": 0.3, "loss_type": ["sft"]}, 'loss_type = ["sft"] does not read it'),
    ("sft", {"weight_decay": 0.1, "optim": "adalomo"}, 'optim = "adalomo" does not read it'),
    ("sft", {"project": "mine"}, "names no tracker"),
    ("sft", {"run_name": "mine"}, "a run is called by the job's own name"),
    ("sft", {"trackio_bucket_id": "a/b", "report_to": "wandb"}, "does not name trackio"),
    ("sft", {"trackio_space_id": "a/b"}, "does not name trackio"),
    ("sft", {"torch_compile_backend": "eager"}, "write torch_compile = true"),
    ("sft", {"torch_compile_mode": "max-autotune"}, "write torch_compile = true"),
    ("dpo", {"precompute_ref_batch_size": 4}, "write precompute_ref_log_probs = true"),
    ("grpo", {"max_tool_calling_iterations": 3}, "write tools or environment, or remove it"),
    ("grpo", {"entropy_coef_delta": 0.5}, "write use_adaptive_entropy = true"),
    ("grpo", {"entropy_coef_max": 0.9}, "write use_adaptive_entropy = true"),
    ("grpo", {"entropy_coef_min": 0.1}, "write use_adaptive_entropy = true"),
    ("grpo", {"entropy_target": 0.7}, "write use_adaptive_entropy = true"),
    ("grpo", {"vllm_enable_sleep_mode": True}, "write use_vllm = true"),
    ("grpo", {"vllm_gpu_memory_utilization": 0.9}, "write use_vllm = true"),
    ("grpo", {"vllm_importance_sampling_clip_max": 9.0}, "write use_vllm = true"),
    ("grpo", {"vllm_importance_sampling_clip_min": 0.01}, "write use_vllm = true"),
    ("grpo", {"vllm_importance_sampling_correction": False}, "write use_vllm = true"),
    ("grpo", {"vllm_importance_sampling_mode": "token_mask"}, "write use_vllm = true"),
    ("rloo", {"vllm_max_model_length": 512}, "write use_vllm = true"),
    ("grpo", {"vllm_mode": "server"}, "write use_vllm = true"),
    ("grpo", {"vllm_model_impl": "transformers"}, "write use_vllm = true"),
    ("grpo", {"vllm_group_port": 1234}, "write use_vllm = true"),
    ("grpo", {"vllm_server_base_url": "http://x"}, "write use_vllm = true"),
    ("grpo", {"vllm_server_host": "x"}, "write use_vllm = true"),
    ("grpo", {"vllm_server_port": 1234}, "write use_vllm = true"),
    ("grpo", {"vllm_server_timeout": 9.0}, "write use_vllm = true"),
    ("grpo", {"vllm_structured_outputs_regex": "a"}, "write use_vllm = true"),
    ("distill", {"vllm_tensor_parallel_size": 2}, "write use_vllm = true"),
    ("distill", {"seq_kd": True}, "all steps are on the model's own answers"),
    *(
        ("distill", {key: value, "lmbda": 0.0}, "all answers are those of the rows")
        for key, value in {
            "cache_implementation": "static",
            "generation_kwargs": {"top_h": 1},
            "max_completion_length": 8,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "top_k": 4,
            "top_p": 0.9,
            "use_vllm": True,
        }.items()
    ),
    ("grpo", {"vllm_server_host": "x", "use_vllm": True, "vllm_mode": "colocate"}, 'write vllm_mode = "server"'),
    ("dpo", {"label_smoothing": 0.1}, "or take exo_pair or robust or aot"),
    ("dpo", {"discopop_tau": 0.5}, "or take discopop"),
    ("cpo", {"label_smoothing": 0.1, "loss_type": "hinge"}, 'loss_type = "hinge" does not read it'),
    ("cpo", {"simpo_gamma": 0.9}, "or take simpo"),
    ("dpo", {"f_alpha_divergence_coef": 0.25}, 'write f_divergence_type = "alpha_divergence"'),
    ("grpo", {"sapo_temperature_neg": 2.0}, "or take sapo"),
    ("grpo", {"sapo_temperature_pos": 2.0}, "or take sapo"),
    ("grpo", {"vespo_k_neg": 1.0}, "or take vespo"),
    ("grpo", {"vespo_k_pos": 1.0}, "or take vespo"),
    ("grpo", {"vespo_lambda_neg": 1.0}, "or take vespo"),
    ("grpo", {"vespo_lambda_pos": 1.0}, "or take vespo"),
    ("grpo", {"delta": 2.0, "loss_type": "cispo"}, 'loss_type = "cispo" does not read it'),
    ("grpo", {"epsilon": 0.3, "loss_type": "sapo"}, 'loss_type = "sapo" does not read it'),
    ("grpo", {"epsilon_high": 0.3, "loss_type": "sapo"}, 'loss_type = "sapo" does not read it'),
]

RIGHT: list[dict[str, Any]] = [
    {"adam_beta1": 0.5},
    {"adam_beta1": 0.9, "optim": "sgd"},  # the default asks for nothing
    {"adam_beta2": 0.5, "optim": "paged_lion_8bit"},
    {"optim_args": "momentum=0.9,nesterov=true", "optim": "sgd"},
    {"optim_target_modules": "all-linear", "optim": "apollo_adamw", "adam_beta1": 0.5},
    {"warmup_steps": 5, "lr_scheduler_type": "constant_with_warmup"},
    {"warmup_steps": 0, "lr_scheduler_type": "constant"},
    {"warmup_steps": 5, "lr_scheduler_type": "constant", "optim": "schedule_free_adamw"},
    {"lr_scheduler_kwargs": {}},
    {"num_train_epochs": 5, "max_steps": -1},
    {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
    {"gradient_checkpointing_kwargs": {"every_n_layers": 2}},
    {"liger_kernel_config": {"rope": True}, "use_liger_kernel": True},
    {"save_steps": 5},
    {"eval_steps": 5, "eval_strategy": "steps"},
    {"eval_steps": 5},
    {"eval_delay": 5},
]

JOB = """\
[model]
id = "m"

[data]
path = "rows.jsonl"

[train]
num_train_epochs = 1
warmup_steps = 5
gradient_checkpointing_kwargs = { use_reentrant = false }
"""


def read(text: str, catalogue: Catalogue, *changes: str) -> JobFile:
    return parse(text, "job.toml", Path("/jobs"), PluginKeys(catalogue), [change_of(each) for each in changes])


@pytest.mark.parametrize(("method", "keys", "words"), IDLE)
def test_a_key_without_effect_is_refused_with_the_reason(method: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        train_options(method)(**keys)
    assert words in str(error.value)
    assert str(error.value).count("no effect") == 1


def test_every_entry_of_the_table_is_tried_and_its_keys_are_arguments() -> None:
    assert {next(iter(keys)) for _, keys, _ in IDLE} == {effect.key for effect in EFFECTS}
    known = {name for method in METHODS for name in train_options(method).model_fields}
    assert {name for effect in EFFECTS for name in (effect.key, effect.by)} <= known


@pytest.mark.parametrize("keys", RIGHT)
def test_a_key_with_an_effect_is_taken(keys: dict[str, Any]) -> None:
    train_options("sft")(**keys)


def test_all_are_told_at_once_each_with_its_line(catalogue: Catalogue) -> None:
    text = f"{JOB}max_steps = 3\nlr_scheduler_type = 'constant'\ngradient_checkpointing = false\n"
    text = text.replace('"rows.jsonl"\n', '"rows.jsonl"\nmax_bad_rows = 4\n')
    with pytest.raises(JobError) as caught:
        read(f"{text}early_stopping_threshold = 0.1\n", catalogue)
    assert [(each.where, each.line) for each in caught.value.problems] == [
        ("data.max_bad_rows", 6),
        ("train.num_train_epochs", 9),
        ("train.warmup_steps", 10),
        ("train.gradient_checkpointing_kwargs", 11),
        ("train.early_stopping_threshold", 15),
    ]
    assert all("has no effect" in each.message and "remove" in each.message for each in caught.value.problems)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("train.max_steps=10", "num_train_epochs"),
        ("train.lr_scheduler_type=constant", "warmup_steps"),
        ("train.gradient_checkpointing=false", "gradient_checkpointing_kwargs"),
    ],
)
def test_a_change_for_one_time_takes_out_what_it_leaves_without_effect(
    catalogue: Catalogue, change: str, key: str
) -> None:
    file = read(JOB, catalogue, change)
    assert file.job.train.options[key] == default_of("SFTConfig", key)[0]
    assert load_job(dump_job(file.job)) == file.job
    kept = {"num_train_epochs", "warmup_steps", "gradient_checkpointing_kwargs"} - {key}
    assert all(file.job.train.options[name] == tomli.loads(JOB)["train"][name] for name in kept)


def test_a_change_that_has_no_effect_itself_is_a_mistake(catalogue: Catalogue) -> None:
    with pytest.raises(JobError, match="warmup_steps has no effect"):
        read(JOB, catalogue, "train.lr_scheduler_type=constant", "train.warmup_steps=9")


@pytest.mark.parametrize("changes", [(), ("train.max_steps=10", "train.lr_scheduler_type=constant")])
@pytest.mark.parametrize("held", ["", "eval_steps = 5\n"])
def test_the_lock_of_a_job_is_read_and_planned_without_findings(
    catalogue: Catalogue, changes: tuple[str, ...], held: str
) -> None:
    text = (JOB.replace('"rows.jsonl"\n', '"rows.jsonl"\neval_size = 2\n') if held else JOB) + held
    plan = planner(catalogue)
    job = read(text, catalogue, *changes).job
    first = plan(tomli_w.dumps(job.to_toml()))
    lock = lock_text(settle(load_job(first.job), first.decisions), first, "job")
    assert "num_train_epochs" in lock
    again = plan(lock)
    assert settle(load_job(again.job), again.decisions).train.options == settle(job, first.decisions).train.options


def test_what_a_lock_writes_out_is_the_default_under_every_tested_version() -> None:
    for method in METHODS.values():
        for versions in committed(method.config).values():
            for effect in EFFECTS:
                if effect.key in DEFAULTS or effect.key in DEFAULTS_IN.get(
                    method.config, ()
                ):  # forge's own, whatever the version
                    continue
                if effect.key in versions and effect.key in train_options(method.name).model_fields:
                    assert versions[effect.key].default == default_of(method.config, effect.key)[0], effect.key


def test_eval_steps_says_when_to_evaluate(catalogue: Catalogue) -> None:
    plan = planner(catalogue)
    found = plan(f"{HELD_OUT}[train]\neval_steps = 5\n")
    decided = next(each for each in found.decisions if each.key == "train.eval_strategy")
    assert (decided.value, decided.reason) == ("steps", "there are held-out rows, and the job names eval_steps")


@pytest.mark.parametrize(
    "key", ["eval_steps = 5", "eval_delay = 5", "eval_on_start = true", "per_device_eval_batch_size = 2"]
)
def test_what_is_about_evaluations_needs_held_out_rows(catalogue: Catalogue, key: str) -> None:
    with pytest.raises(JobError, match=f"train.{key.split()[0]}: there are no held-out rows"):
        planner(catalogue)(f"{BASE}[train]\n{key}\n")
