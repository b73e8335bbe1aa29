"""Which of the trainer's arguments a job may set, and what the trainer gets."""

from __future__ import annotations

import re
import warnings
from enum import Enum

import pytest
from pydantic import ValidationError

from forge_huggingface.arguments import fields, options, owned
from forge_huggingface.methods import METHODS

needs_trl = pytest.mark.skipif(fields.read() is None, reason="trl is not installed")

USABLE = """
    activation_offloading adam_beta1 adam_beta2 adam_epsilon bf16 bf16_full_eval data_seed dataloader_drop_last
    dataloader_in_order dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers
    dataloader_pin_memory dataloader_prefetch_factor debug eval_delay eval_on_start eval_steps eval_strategy fp16
    fp16_full_eval full_determinism gradient_accumulation_steps gradient_checkpointing gradient_checkpointing_kwargs
    greater_is_better include_num_input_tokens_seen label_smoothing_factor learning_rate liger_kernel_config
    load_best_model_at_end log_level logging_first_step logging_nan_inf_filter logging_steps logging_strategy loss_type
    lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_steps metric_for_best_model neftune_noise_alpha
    num_train_epochs optim optim_args optim_target_modules pad_to_multiple_of per_device_eval_batch_size
    per_device_train_batch_size project report_to router_aux_loss_coef run_name save_steps save_strategy
    save_total_limit seed tf32 torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps
    trackio_bucket_id trackio_space_id trackio_static_space_id train_sampling_strategy use_cpu use_liger_kernel
    warmup_steps weight_decay
"""

ADDED = {
    "sft": "",
    "classification": "",
    "dpo": """
        beta disable_dropout discopop_tau f_alpha_divergence_coef f_divergence_type label_smoothing ld_alpha
        loss_weights precompute_ref_batch_size precompute_ref_log_probs ref_model_mixup_alpha ref_model_sync_steps
        sync_ref_model use_weighting
    """,
    "kto": """
        beta desirable_weight disable_dropout precompute_ref_batch_size precompute_ref_log_probs ref_model_mixup_alpha
        ref_model_sync_steps sync_ref_model undesirable_weight
    """,
    "orpo": "beta disable_dropout",
    "cpo": "alpha beta cpo_alpha disable_dropout label_smoothing simpo_gamma",
    "reward": "center_rewards_coefficient disable_dropout",
    "grpo": """
        beta cache_implementation cast_lm_head_to_fp32 chat_template_kwargs delta disable_dropout entropy_coef
        entropy_coef_delta entropy_coef_max entropy_coef_min entropy_target epsilon epsilon_high generation_batch_size
        generation_kwargs importance_sampling_level mask_truncated_completions max_completion_length min_p
        max_tool_calling_iterations multi_objective_aggregation num_completions_to_print num_generations
        num_generations_eval num_iterations
        off_policy_mask_threshold ref_model_mixup_alpha ref_model_sync_steps repetition_penalty sapo_temperature_neg
        sapo_temperature_pos scale_rewards shuffle_dataset steps_per_generation sync_ref_model temperature
        top_entropy_quantile top_k top_p use_adaptive_entropy use_bias_correction_kl
        use_transformers_continuous_batching use_vllm vespo_k_neg vespo_k_pos vespo_lambda_neg vespo_lambda_pos
        vllm_enable_sleep_mode vllm_gpu_memory_utilization vllm_group_port vllm_importance_sampling_clip_max
        vllm_importance_sampling_clip_min vllm_importance_sampling_correction vllm_importance_sampling_mode
        vllm_max_model_length vllm_mode vllm_model_impl vllm_server_base_url vllm_server_host vllm_server_port
        vllm_server_timeout vllm_structured_outputs_regex vllm_tensor_parallel_size
    """,
    "rloo": """
        beta cache_implementation chat_template_kwargs disable_dropout epsilon epsilon_high generation_batch_size
        generation_kwargs mask_truncated_completions max_completion_length min_p normalize_advantages
        num_completions_to_print num_generations num_generations_eval num_iterations ref_model_mixup_alpha
        ref_model_sync_steps repetition_penalty reward_clip_range shuffle_dataset steps_per_generation sync_ref_model
        temperature top_k top_p use_transformers_continuous_batching use_vllm vllm_enable_sleep_mode
        vllm_gpu_memory_utilization vllm_group_port vllm_max_model_length vllm_mode vllm_model_impl vllm_server_base_url
        vllm_server_host vllm_server_port vllm_server_timeout vllm_structured_outputs_regex vllm_tensor_parallel_size
    """,
    "distill": """
        beta cache_implementation chat_template_kwargs disable_dropout generation_kwargs max_completion_length min_p
        num_completions_to_print repetition_penalty shuffle_dataset teacher_model_name_or_path teacher_model_revision
        temperature top_k top_p use_vllm vllm_enable_sleep_mode vllm_gpu_memory_utilization vllm_group_port
        vllm_max_model_length vllm_mode vllm_model_impl vllm_server_base_url vllm_server_host vllm_server_port
        vllm_server_timeout vllm_structured_outputs_regex vllm_tensor_parallel_size
    """,
}
LACKING = {
    "orpo": "activation_offloading loss_type pad_to_multiple_of router_aux_loss_coef",
    "cpo": "activation_offloading pad_to_multiple_of router_aux_loss_coef",
    "reward": "loss_type router_aux_loss_coef",
    "classification": "activation_offloading loss_type pad_to_multiple_of router_aux_loss_coef",
    "grpo": "activation_offloading",
    "rloo": "activation_offloading loss_type",
    "distill": "activation_offloading loss_type router_aux_loss_coef",
}


def check(**keys):
    return options.train_options("sft")(**keys)


def refused(**keys) -> str:
    with pytest.raises(ValidationError) as error:
        check(**keys)
    return str(error.value)


@pytest.mark.parametrize("versions", fields.committed())
def test_every_field_is_usable_or_owned(versions):
    # A field that a new trl brings fails here until someone decides.
    assert set(fields.committed()[versions]) - set(owned.OWNED) == set(USABLE.split())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("versions", fields.committed())
def test_every_field_of_a_method_is_usable_or_owned(versions, method):
    # What a method adds to the common arguments; a field that a new trl brings fails here until someone decides.
    config = METHODS[method].config
    usable = {name for name in fields.committed(config)[versions] if not owned.is_owned(name, config)}
    assert usable - set(USABLE.split()) == set(ADDED[method].split())
    assert set(USABLE.split()) - usable == set(LACKING.get(method, "").split())


def test_every_owned_field_exists_and_has_a_sentence():
    for config, names in {**owned.OWNED_IN, **owned.FREE_IN}.items():
        assert set(names) <= set().union(*fields.committed(config).values()), config
    known = {name for method in METHODS.values() for each in fields.committed(method.config).values() for name in each}
    assert set(owned.OWNED) <= known
    assert set(owned.NEUTRAL) <= set(owned.OWNED)
    for said in (*owned.OWNED.values(), *(said for each in owned.OWNED_IN.values() for said in each.values())):
        assert len(said.do) > 20
        assert not said.do.endswith(".")
        assert said.table is None or f"[{said.table}]" in said.do
        assert said.key is None or said.key in said.do


@pytest.mark.parametrize("method", METHODS)
def test_what_owned_fields_and_hints_point_at_exists(method):
    from forge.job.tables import TABLES

    config = METHODS[method].config
    owned_here = [name for name in (*owned.OWNED, *owned.OWNED_IN.get(config, ())) if owned.is_owned(name, config)]
    for name in (*owned_here, *owned.FOREIGN):
        text = owned.hint(name, config).do
        for table, key in re.findall(r"\[(\w+)\]+ (\w+)", text):
            assert key in TABLES[table].model_fields or key in {"so", "or"}, (name, text)
        if written := re.match(r"write (\w+)", text):
            assert written[1] in {*options.usable(config), *TABLES["train"].model_fields, *owned.OWN[method]}, (
                name,
                text,
            )


def test_an_empty_table_is_a_valid_one():
    values = check().model_dump()
    assert values["save_total_limit"] == 2
    assert values["learning_rate"] is None


def test_an_owned_or_unknown_key_is_refused():
    assert "extra_forbidden" in refused(max_length=512)
    assert "extra_forbidden" in refused(learning_rat=1e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", -1e-4),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("per_device_train_batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("num_train_epochs", 0),
        ("max_steps", -2),
        ("max_steps", 0),
        ("warmup_steps", -1),
        ("warmup_steps", 1.5),
        ("weight_decay", -0.1),
        ("adam_beta1", 1.0),
        ("adam_beta2", -0.1),
        ("max_grad_norm", -1),
        ("seed", -1),
        ("seed", 2**32),
        ("logging_steps", 0),
        ("eval_steps", 0),
        ("save_steps", 0),
        ("save_steps", 2.5),
        ("save_total_limit", 1),
        ("dataloader_num_workers", -1),
        ("torch_empty_cache_steps", 0),
        ("label_smoothing_factor", 1.0),
        ("optim", "adam"),
        ("lr_scheduler_type", "cosin"),
        ("eval_strategy", "always"),
        ("log_level", "loud"),
    ],
)
def test_a_value_out_of_bounds_is_refused(key, value):
    assert key in refused(**{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", "2e-4"),
        ("learning_rate", True),
        ("max_steps", 10.0),
        ("max_steps", True),
        ("max_steps", "10"),
        ("gradient_checkpointing", 1),
        ("gradient_checkpointing", "true"),
        ("seed", "42"),
        ("run_name", 7),
        ("report_to", [1]),
        ("lr_scheduler_kwargs", "{}"),
        ("logging_steps", True),
        ("optim", None),
    ],
)
def test_a_value_of_another_type_is_refused(key, value):
    assert key in refused(**{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 1),
        ("num_train_epochs", 2),
        ("max_steps", -1),
        ("warmup_steps", 0.03),
        ("warmup_steps", 10),
        ("logging_steps", 1),
        ("save_steps", 0.25),
        ("report_to", ["wandb"]),
        ("report_to", "wandb"),
        ("bf16", False),
        ("optim", "adamw_8bit"),
        ("debug", "underflow_overflow"),
        ("pad_to_multiple_of", 8),
    ],
)
def test_a_good_value_is_kept(key, value):
    assert getattr(check(**{key: value}), key) == value


def test_whole_steps_stay_whole():
    assert type(check(save_steps=20).save_steps) is int


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"load_best_model_at_end": True, "eval_strategy": "no"}, "needs evaluations"),
        ({"load_best_model_at_end": True, "eval_strategy": "epoch"}, "make them the same"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 30, "save_steps": 100},
            "multiple of eval_steps",
        ),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 100},
            "multiple of eval_steps",
        ),
        ({"load_best_model_at_end": True, "eval_steps": 30, "save_steps": 100}, "multiple of eval_steps"),
        ({"load_best_model_at_end": True, "eval_steps": 30, "save_strategy": "epoch"}, "make them the same"),
        ({"save_strategy": "best", "eval_strategy": "no"}, "needs evaluations"),
        ({"save_strategy": "best", "eval_strategy": "epoch"}, "metric_for_best_model"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "no"}, "needs evaluations"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr_rate"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps"),
        ({"optim": "galore_adamw"}, "optim_target_modules"),
        ({"bf16": True, "fp16": True}, "keep one"),
        ({"bf16_full_eval": True}, "no effect"),
        ({"fp16": True, "use_cpu": True}, "keep one"),
        ({"dataloader_prefetch_factor": 2}, "dataloader_num_workers"),
        ({"use_liger_kernel": True, "loss_type": "chunked_nll"}, "keep one"),
        ({"metric_for_best_model": "eval_loss", "greater_is_better": True}, "highest loss"),
    ],
)
def test_what_the_trainer_would_refuse_later_is_refused_now(keys, words):
    assert words in refused(**keys)


def test_all_disagreements_are_told_at_once():
    text = refused(bf16=True, fp16=True, load_best_model_at_end=True, eval_strategy="no")
    assert "bf16 and fp16" in text
    assert "needs evaluations" in text


@pytest.mark.parametrize(
    "keys",
    [
        {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 0.3},
        {"load_best_model_at_end": True, "eval_strategy": "steps"},  # every logging_steps
        {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"},
        {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "best"},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
        {"optim": "galore_adamw", "optim_target_modules": ["q_proj"]},
        {"load_best_model_at_end": True, "save_steps": 20, "eval_steps": 10},
    ],
)
def test_what_agrees_is_accepted(keys):
    check(**keys)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("max_length", "[model] max_seq_length"),
        ("hub_token", "HF_TOKEN"),
        ("activation_checkpointing", "write gradient_checkpointing"),
        ("lr", "learning_rate"),
        ("epochs", "num_train_epochs"),
        ("micro_batch_size", "per_device_train_batch_size"),
        ("lora_r", "[adapter] r"),
        ("use_4bit", "[model] load_in_4bit"),
        ("val_set_size", "[data] eval_size"),
        ("evaluation_strategy", "eval_strategy"),
        ("warmup_ratio", "warmup_steps = 0.03"),
        ("fsdp_transformer_layer_cls_to_wrap", "[launch]"),
        ("push_to_hub_token", "[[export]]"),
    ],
)
def test_a_foreign_name_gets_the_right_one(name, words):
    assert words in owned.hint(name).do


@pytest.mark.parametrize(
    ("name", "method", "said"),
    [
        ("num_generations", "sft", "num_generations is an argument of grpo, rloo"),
        ("beta", "sft", "beta is an argument of dpo, kto, orpo, cpo, grpo, rloo, distill"),
        ("reward", "dpo", "reward is an argument of grpo, rloo"),
        ("desirable_weight", "dpo", "desirable_weight is an argument of kto"),
        ("packing", "dpo", "it is about sft, and there it belongs to [data] packing"),
        ("assistant_only_loss", "grpo", 'it is about sft, and there it belongs to [data] train_on = "assistant"'),
        ("padding_free", "dpo", "forge makes the batches, and those of pairs are padded"),
        ("max_length", "grpo", "belongs to [model] max_seq_length, the one length key"),
        ("max_completion_length", "cpo", "belongs to [model] max_seq_length, the one length key"),
        ("max_completion_length", "kto", "max_completion_length is an argument of grpo, rloo, distill"),
        ("log_completions", "grpo", "write num_completions_to_print: forge shows the model's answers as events"),
        ("log_completions", "sft", "num_completions_to_print is an argument of grpo, rloo, distill"),
        ("alpha", "sft", "belongs to [adapter] lora_alpha"),
        ("kl_coef", "dpo", "write beta"),
        ("kl_coef", "sft", "beta is an argument of dpo, kto, orpo, cpo, grpo, rloo, distill"),
        ("teacher_model", "grpo", "teacher_model_name_or_path is an argument of distill"),
    ],
)
def test_a_key_of_another_method_says_whose_it_is(name, method, said):
    assert owned.hint(name, METHODS[method].config).do == said


def test_forges_own_keys_of_methods_are_in_their_models():
    for method in METHODS:
        added = set(options.train_options(method).model_fields) - set(options.usable(METHODS[method].config))
        assert added == owned.OWN.get(method, set())


def test_a_name_that_nobody_knows_gets_no_hint():
    assert owned.hint("colour") is None


def test_no_hint_shadows_a_usable_key():
    for method in METHODS.values():
        # A user who writes alpha means LoRA's; CPO has one that means something else, and takes it.
        foreign = set(owned.FOREIGN) - ({"alpha"} if method.name == "cpo" else set())
        assert not foreign & (set(options.usable(method.config)) | set(owned.OWNED)), method.name


def test_a_field_of_another_version_names_that_version(monkeypatch):
    table = {name: field for name, field in fields.table().items() if name != "dataloader_in_order"}
    monkeypatch.setattr(owned, "table", lambda _: table)
    assert "has it" in owned.hint("dataloader_in_order").do


def test_lora_learns_ten_times_as_fast_as_all_weights():
    assert options.defaults("lora")["learning_rate"] == 2e-4
    assert options.defaults("none")["learning_rate"] == 2e-5
    assert options.filled_in({"learning_rate": 1e-3}, "lora", None)["learning_rate"] == 1e-3


def test_forge_has_trls_defaults_but_where_the_table_says_why():
    model = options.train_options("sft")()
    for name, field in options.usable().items():
        if name not in options.DEFAULTS:
            assert getattr(model, name) == field.default, name
            assert options.defaults("none")[name] == field.default, name
    assert all(len(reason) > 20 for _, reason in options.DEFAULTS.values())


@pytest.mark.parametrize(
    ("given", "half", "bf16", "fp16"),
    [
        ({}, None, False, False),
        ({}, "bf16", True, False),
        ({}, "fp16", False, True),
        ({"bf16": False}, "bf16", False, False),
        ({"fp16": True}, "bf16", False, True),
        ({"bf16": True}, "fp16", True, False),
        ({"bf16": False, "fp16": False}, "bf16", False, False),
    ],
)
def test_mixed_precision_goes_by_the_machine_unless_the_job_says(given, half, bf16, fp16):
    values = options.filled_in(given, "lora", half)
    assert (values["bf16"], values["fp16"]) == (bf16, fp16)


def test_the_loss_never_holds_all_logits_by_default():
    lean = "nll" if options.lean_nll() else "chunked_nll"
    assert options.filled_in({}, "lora", None)["loss_type"] == lean
    assert options.filled_in({"loss_type": "chunked_nll"}, "lora", None)["loss_type"] == lean
    assert options.filled_in({"loss_type": "dft"}, "lora", None)["loss_type"] == "dft"
    assert options.filled_in({"use_liger_kernel": True}, "lora", None)["loss_type"] == "nll"


def test_forge_rotates_the_checkpoints_itself():
    assert options.filled_in({"save_total_limit": 5}, "lora", None)["save_total_limit"] is None


def test_a_name_that_the_installed_version_lacks_is_an_error():
    with pytest.raises(ValueError, match="colour"):
        options.filled_in({"colour": 1}, "lora", None)


def test_an_owned_name_cannot_come_in_through_the_job():
    assert options.filled_in({"max_length": 7}, "lora", None)["max_length"] is None


def plain(value):
    if isinstance(value, Enum):
        return value.value
    return [plain(item) for item in value] if isinstance(value, list) else value


@needs_trl
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {
            "learning_rate": 1e-3,
            "max_steps": 3,
            "gradient_checkpointing": True,
            "optim": "adafactor",
            "seed": 7,
            "eval_strategy": "steps",
            "eval_steps": 5,
            "save_steps": 10,
            "load_best_model_at_end": True,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
            "debug": "underflow_overflow",
            "report_to": ["tensorboard"],
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "pad_to_multiple_of": 8,
            "loss_type": "dft",
        },
    ],
)
def test_the_real_config_takes_every_value_and_keeps_it(keys, tmp_path):
    import trl

    job = check(use_cpu=True, **keys).model_dump(exclude=owned.OWN["sft"])
    values = options.filled_in(job, "lora", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # no deprecated name or value
        config = trl.SFTConfig(output_dir=str(tmp_path), **values)

    # What the config works out for itself from what it was told.
    derived = {"accelerator_config", "greater_is_better", "metric_for_best_model", "do_eval", "dataloader_pin_memory"}
    expected = values | {"debug": values["debug"].split(), "report_to": keys.get("report_to", [])}
    if expected["torch_compile_backend"] is None:
        del expected["torch_compile_backend"]
    for name in expected.keys() - derived:
        assert plain(getattr(config, name)) == expected[name], name
    assert config.gradient_checkpointing == job["gradient_checkpointing"]
    assert {"output_dir"} == {f for f in fields.read() if f not in values and "checkpointing" not in f}


def test_the_model_makes_a_json_schema_with_help_for_every_key():
    schema = options.train_options("sft").model_json_schema()
    assert schema["additionalProperties"] is False
    assert all(entry["description"] for entry in schema["properties"].values())
    assert "cosine" in str(schema["properties"]["lr_scheduler_type"])


def test_a_reward_model_takes_trls_rate_with_lora_too() -> None:
    rate = options.learning_rate
    assert rate("lora", "RewardConfig") == rate("none", "RewardConfig") == 1e-4
    assert rate("lora", "DPOConfig") == pytest.approx(10 * rate("none", "DPOConfig"))
