"""Arguments of a trainer that contradict each other: what the trainer would only say once the model is loaded.

Each check takes the values of one table ``[train]``, whatever its method, and returns sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from forge_huggingface.arguments import SCHEDULERS

STEPS = ("eval_steps", "logging_steps", "save_steps", "warmup_steps")
"""Whole numbers, or below 1 a share of all steps; int stays int in the lock."""


def steps(values: Mapping[str, Any]) -> list[str]:
    """Yield numbers of steps that are neither whole nor a share."""
    problems = [
        f"{name} = {values[name]} must be a whole number, or below 1 for a share of all steps"
        for name in STEPS
        if values[name] is not None and values[name] >= 1 and values[name] != int(values[name])
    ]
    if values["max_steps"] == 0:
        problems.append("max_steps = 0 would train nothing; remove it, or write -1 to go by num_train_epochs")
    return problems


def evaluation(values: Mapping[str, Any]) -> list[str]:
    """Yield what evaluations, checkpoints and the choice of the best one contradict each other in."""
    problems = []
    best, save, evaluate = values["load_best_model_at_end"], values["save_strategy"], values["eval_strategy"]
    needing = {
        "load_best_model_at_end": best,
        'save_strategy = "best"': save == "best",
        f'lr_scheduler_type = "{values["lr_scheduler_type"]}"': values["lr_scheduler_type"]
        in {"reduce_lr_on_plateau", "greedy"},
    }
    if evaluate == "no":
        problems += [
            f'{name} needs evaluations; write eval_strategy = "steps" or "epoch"'
            for name, asked in needing.items()
            if asked
        ]
    elif evaluate is not None and best and save != "best":  # None: forge makes it fit
        steps, every = values["save_steps"], values["eval_steps"] or values["logging_steps"]
        if save != evaluate:
            problems.append(
                f'load_best_model_at_end needs a checkpoint of every evaluation: save_strategy is "{save}" and '
                f'eval_strategy "{evaluate}"; make them the same, or write save_strategy = "best"'
            )
        elif save == "steps" and ((steps < 1) != (every < 1) or not _multiple(steps, every)):
            problems.append(
                f"load_best_model_at_end needs save_steps ({steps}) to be a multiple of eval_steps ({every})"
            )
    if save == "best" and values["metric_for_best_model"] is None and not best:
        problems.append('save_strategy = "best" needs metric_for_best_model; write "loss"')
    metric = values["metric_for_best_model"]
    if values["greater_is_better"] and (metric or "loss").endswith("loss") and (metric or best):
        problems.append("greater_is_better = true would keep the checkpoint with the highest loss; remove it")
    return problems


def _multiple(steps: float, every: float) -> bool:
    # As the trainer does it: shares are floats, and 0.3 % 0.1 is not 0.
    return (steps * 1_000_000) % (every * 1_000_000) == 0


def others(values: Mapping[str, Any]) -> list[str]:
    """Yield what precision, kernels, schedules and loaders contradict each other in."""
    problems = []
    if values["bf16"] and values["fp16"]:
        problems.append("bf16 and fp16 contradict each other; keep one")
    if values["bf16_full_eval"] and values["fp16_full_eval"]:
        problems.append("bf16_full_eval and fp16_full_eval contradict each other; keep one")
    if values["fp16"] and values["use_cpu"]:
        problems.append("fp16 needs a GPU, and use_cpu is true; keep one")
    if values["use_liger_kernel"] and values.get("loss_type") == "chunked_nll":
        problems.append('loss_type = "chunked_nll" and use_liger_kernel both replace the loss; keep one')
    scheduler, arguments = values["lr_scheduler_type"], values["lr_scheduler_kwargs"] or {}
    if needed := SCHEDULERS.get(scheduler):
        given = [name for name in needed if name in arguments]
        if len(given) != 1:
            problems.append(
                f'lr_scheduler_type = "{scheduler}" needs {" or ".join(needed)}; '
                f"write lr_scheduler_kwargs = {{ {needed[-1]} = … }}"
            )
    if values["optim"].startswith(("galore_", "apollo_")) and not values["optim_target_modules"]:
        problems.append(
            f'optim = "{values["optim"]}" needs optim_target_modules; write "all-linear" or names of modules'
        )
    if values["dataloader_num_workers"] == 0:
        about = ("prefetch_factor", "persistent_workers", "multiprocessing_context")
        problems += [
            f"dataloader_{name} is about worker processes; write dataloader_num_workers = 1 or more"
            for name in about
            if values[f"dataloader_{name}"]
        ]
    return problems


def preferences(values: Mapping[str, Any]) -> list[str]:
    """Yield what the losses of dpo, cpo and kto do not take together."""
    problems: list[str] = []
    losses = values.get("loss_type")
    if "f_divergence_type" in values:  # dpo alone takes several losses
        losses = [losses] if isinstance(losses, str) else losses or []
        weights = values.get("loss_weights")
        if not losses:
            problems.append('loss_type is empty; write loss_type = ["sigmoid"]')
        if weights is not None and len(weights) != len(losses):
            problems.append(f"loss_weights has {len(weights)} values for {len(losses)} losses; give each loss one")
        if "exo_pair" in losses and not values["label_smoothing"]:
            problems.append('loss_type "exo_pair" needs label_smoothing above 0; its paper takes 0.001')
        plain = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
        if values["f_divergence_type"] != "reverse_kl" and (other := sorted(set(losses) - plain)):
            problems.append(f"f_divergence_type is for other losses than {', '.join(other)}; remove it")
        if values["use_weighting"] and {"aot", "aot_unpaired"} & set(losses):
            problems.append('use_weighting cannot be with loss_type "aot": it sorts the rows; remove one')
    if losses in ("hinge", "ipo") and values.get("label_smoothing"):
        problems.append(f'label_smoothing does nothing under loss_type = "{losses}"; remove it')
    if values.get("sync_ref_model") and values.get("precompute_ref_log_probs"):
        problems.append("precompute_ref_log_probs keeps the first reference, and sync_ref_model changes it; keep one")
    if losses == "kto":
        if values["per_device_train_batch_size"] < 2:
            problems.append(
                'loss_type = "kto" compares the rows of a batch with each other; write per_device_train_batch_size = 2 '
                'or more, or loss_type = "apo_zero_unpaired"'
            )
        if values["train_sampling_strategy"] != "sequential":
            problems.append('loss_type = "kto" needs train_sampling_strategy = "sequential"; remove the key')
    return problems


def groups(values: Mapping[str, Any]) -> list[str]:
    """Yield numbers that do not make whole groups of answers, and losses of grpo that need another level."""
    if "num_generations" not in values:
        return []
    problems: list[str] = []
    size, per_step, asked = (values[n] for n in ("generation_batch_size", "steps_per_generation", "num_generations"))
    batch = values["per_device_train_batch_size"]
    if size is not None and per_step is not None:
        problems.append("generation_batch_size and steps_per_generation say the same; keep one")
    elif size is not None and size % batch:
        problems.append(f"generation_batch_size ({size}) must be a multiple of per_device_train_batch_size ({batch})")
    else:
        steps_per = per_step or values["gradient_accumulation_steps"]
        answers = size or batch * steps_per
        if answers % asked:
            name = "steps_per_generation" if per_step else "gradient_accumulation_steps"
            made = (
                f"{answers} answers that are made at a time (per_device_train_batch_size {batch} x {name} {steps_per})"
            )
            whole = f"generation_batch_size ({size})" if size is not None else f"the {made}"
            problems.append(f"num_generations ({asked}) does not divide {whole}")
    held = values["num_generations_eval"] or asked
    if values["eval_strategy"] not in {None, "no"} and values["per_device_eval_batch_size"] % held:
        problems.append(
            f"per_device_eval_batch_size ({values['per_device_eval_batch_size']}) must be a multiple of "
            f"{'num_generations_eval' if values['num_generations_eval'] else 'num_generations'} ({held})"
        )
    level, loss = values.get("importance_sampling_level"), values.get("loss_type")
    if loss == "luspo" and level != "sequence":
        problems.append('loss_type = "luspo" needs importance_sampling_level = "sequence"')
    if loss == "vespo" and level != "token":
        problems.append('loss_type = "vespo" needs importance_sampling_level = "token"')
    if values["use_vllm"] and values.get("use_transformers_continuous_batching"):
        problems.append("use_vllm and use_transformers_continuous_batching both make the answers; keep one")
    return problems


CHECKS: tuple[Callable[[Mapping[str, Any]], list[str]], ...] = (steps, evaluation, others, preferences, groups)
"""All of them."""
