"""Keys of TRL's methods that matter only beside another key's value: of losses, references, tools and vLLM."""

from __future__ import annotations

from forge_huggingface.arguments.effect import NOT_READ, Effect, by_loss, losses_of, switched

OF_METHODS: tuple[Effect, ...] = (
    Effect(
        "max_tool_calling_iterations",
        "tools",
        lambda values: not values.get("tools") and not values.get("environment"),
        "the model may call nothing",
        "write tools or environment, or remove it",
    ),
    *switched("precompute_ref_log_probs", ("precompute_ref_batch_size",)),
    *switched("use_adaptive_entropy", ("entropy_coef_delta", "entropy_coef_max", "entropy_coef_min", "entropy_target")),
    *switched(
        "use_vllm",
        (
            "vllm_enable_sleep_mode",
            "vllm_gpu_memory_utilization",
            "vllm_group_port",
            "vllm_importance_sampling_clip_max",
            "vllm_importance_sampling_clip_min",
            "vllm_importance_sampling_correction",
            "vllm_importance_sampling_mode",
            "vllm_max_model_length",
            "vllm_mode",
            "vllm_model_impl",
            "vllm_server_base_url",
            "vllm_server_host",
            "vllm_server_port",
            "vllm_server_timeout",
            "vllm_structured_outputs_regex",
            "vllm_tensor_parallel_size",
        ),
    ),
    *(
        Effect(
            key,
            "vllm_mode",
            lambda values: bool(values.get("use_vllm")) and values.get("vllm_mode") != "server",
            "{by}",
            'write vllm_mode = "server", or remove it',
        )
        for key in (
            "vllm_group_port",
            "vllm_server_base_url",
            "vllm_server_host",
            "vllm_server_port",
            "vllm_server_timeout",
        )
    ),
    *(
        Effect(
            key,
            "vllm_mode",
            lambda values: bool(values.get("use_vllm")) and values.get("vllm_mode") == "server",
            "{by}, and the server was started with its own",
            'write vllm_mode = "colocate", or remove it',
        )
        for key in (
            "vllm_enable_sleep_mode",
            "vllm_gpu_memory_utilization",
            "vllm_max_model_length",
            "vllm_model_impl",
            "vllm_tensor_parallel_size",
        )
    ),
    *(
        Effect(
            key,
            "vllm_importance_sampling_correction",
            lambda values: bool(values.get("use_vllm")) and not values.get("vllm_importance_sampling_correction"),
            "{by}",
            "remove one of the two",
        )
        for key in (
            "vllm_importance_sampling_clip_max",
            "vllm_importance_sampling_clip_min",
            "vllm_importance_sampling_mode",
        )
    ),
    Effect("cache_implementation", "use_vllm", lambda values: bool(values.get("use_vllm")), NOT_READ, "remove it"),
    Effect(
        "use_bias_correction_kl",
        "beta",
        lambda values: values.get("beta") == 0,
        "{by}, so nothing is compared with the reference",
        "write a beta above 0, or remove it",
    ),
    Effect(
        "beta",
        "loss_type",
        lambda values: "f_divergence_type" in values and losses_of(values) == {"sft"},
        NOT_READ,
        "remove it, or add another loss",
    ),
    Effect(
        "seq_kd",
        "lmbda",
        lambda values: values.get("lmbda") == 1,
        "with {by} all steps are on the model's own answers",
        "write lmbda = 0.0 or more",
    ),
    *(
        Effect(
            key,
            "lmbda",
            lambda values: values.get("lmbda") == 0 and not values.get("seq_kd"),
            "with {by} all answers are those of the rows",
            "remove it",
        )
        for key in (
            "cache_implementation",
            "generation_kwargs",
            "max_completion_length",
            "min_p",
            "repetition_penalty",
            "top_k",
            "top_p",
            "use_vllm",
        )
    ),
    *by_loss({"label_smoothing": ("exo_pair", "robust", "aot", "aot_unpaired")}, "f_divergence_type"),
    *by_loss({"discopop_tau": ("discopop",)}),
    *by_loss({"label_smoothing": ("sigmoid", "simpo")}, "cpo_alpha"),
    *by_loss({"simpo_gamma": ("simpo",)}),
    *by_loss(
        {
            "sapo_temperature_neg": ("sapo",),
            "sapo_temperature_pos": ("sapo",),
            "vespo_k_neg": ("vespo",),
            "vespo_k_pos": ("vespo",),
            "vespo_lambda_neg": ("vespo",),
            "vespo_lambda_pos": ("vespo",),
            "delta": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo"),
            "epsilon": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo"),
            "epsilon_high": ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo"),
        },
        "importance_sampling_level",
    ),
    Effect(
        "f_alpha_divergence_coef",
        "f_divergence_type",
        lambda values: values.get("f_divergence_type") != "alpha_divergence",
        NOT_READ,
        'write f_divergence_type = "alpha_divergence", or remove it',
    ),
    *(
        Effect(
            key,
            "sync_ref_model",
            lambda values: not values.get("sync_ref_model"),
            "{by}, so the reference stays what it was",
            "write sync_ref_model = true, or remove it",
        )
        for key in ("ref_model_mixup_alpha", "ref_model_sync_steps")
    ),
)
"""All such keys of the methods' arguments."""
