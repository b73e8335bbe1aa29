"""Arguments of a trainer that contradict each other: what the trainer would only say once the model is loaded.

Each check takes the values of one table ``[train]``, whatever its method, and yields mistakes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from forge.api import Mistake
from forge_huggingface.arguments.named import named

STEPS = ("eval_steps", "logging_steps", "save_steps", "warmup_steps")
"""Whole numbers, or below 1 a share of all steps; int stays int in the lock."""


def batches(values: Mapping[str, Any], written: frozenset[str]) -> Iterator[Mistake]:
    """Yield what the rows of a step and those of its batches contradict each other in.

    Args:
        values: The table.
        written: The keys that stand in it.
    """
    rows, steps, whole = values[ROWS], values[STEPS_OF_STEP], values["batch_size"]
    if whole is None:
        if rows == "auto" and STEPS_OF_STEP in written:
            what = f'{ROWS} = "auto" and {STEPS_OF_STEP} = {steps} do not say how many rows a step has'
            yield Mistake(f"{what}; write batch_size in place of {STEPS_OF_STEP}", (ROWS, STEPS_OF_STEP))
        return
    named = {name: values[name] for name in (ROWS, STEPS_OF_STEP) if name in written and values[name] != "auto"}
    if len(named) == 2:
        if rows * steps != whole:
            what = f"batch_size ({whole}) is not {ROWS} ({rows}) x {STEPS_OF_STEP} ({steps}) = {rows * steps}"
            yield Mistake(f"{what}; keep two of the three", ("batch_size", *named))
    elif named:
        (name, parts), least = *named.items(), whole // next(iter(named.values()))
        if whole % parts:
            near = [max((each for each in divisors(whole) if each < parts), default=None)]
            near.append(next((each for each in divisors(whole) if each > parts), None))
            sizes = " or ".join(str(each * parts) for each in (least, least + 1) if each)
            say = f"write batch_size = {sizes}, or {name} = {' or '.join(str(each) for each in near if each)}"
            yield Mistake(f"{name} ({parts}) does not divide batch_size ({whole}); {say}", ("batch_size", name))


ROWS, STEPS_OF_STEP = "per_device_train_batch_size", "gradient_accumulation_steps"


def divisors(whole: int) -> list[int]:
    """Return what divides a number, in order.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [each for each in range(1, math.isqrt(whole) + 1) if not whole % each]
    return sorted({*small, *(whole // each for each in small)})


def rows_of_batch(values: Mapping[str, Any]) -> int | None:
    """Return the rows of a batch; None where ``batch_size`` leaves them open."""
    rows, whole = values[ROWS], values.get("batch_size")
    if whole is None:
        return USUAL if rows == "auto" else int(rows)
    return int(rows) if rows != "auto" and rows * values[STEPS_OF_STEP] == whole else None


USUAL = 8
"""Rows of a batch where nothing says how many: TRL's default."""


def steps(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield numbers of steps that are neither whole nor a share."""
    for name in STEPS:
        if values[name] is not None and values[name] >= 1 and values[name] != int(values[name]):
            what = f"{name} = {values[name]} must be a whole number, or below 1 for a share of all steps"
            yield Mistake(what, (name,))
    if values["max_steps"] == 0:
        what = "max_steps = 0 would train nothing; remove it, or write -1 to go by num_train_epochs"
        yield Mistake(what, ("max_steps",))


def evaluation(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what evaluations, checkpoints and the choice of the best one contradict each other in."""
    best, save = values["load_best_model_at_end"], values["save_strategy"]
    evaluate = values["eval_strategy"] or ("steps" if values["eval_steps"] is not None else None)
    scheduler = values["lr_scheduler_type"]
    needing = {
        "load_best_model_at_end": (best, "load_best_model_at_end"),
        "save_strategy": (save == "best", 'save_strategy = "best"'),
        "lr_scheduler_type": (scheduler in {"reduce_lr_on_plateau", "greedy"}, f'lr_scheduler_type = "{scheduler}"'),
    }
    if evaluate == "no":
        for name, (asked, said) in needing.items():
            if asked:
                yield Mistake(f'{said} needs evaluations; write eval_strategy = "steps" or "epoch"', (name,))
    elif evaluate is not None and best and save != "best":  # None: forge makes it fit, unless eval_steps decides
        steps, every = values["save_steps"], values["eval_steps"] or values["logging_steps"]
        if save != evaluate:
            yield Mistake(
                f'load_best_model_at_end needs a checkpoint of every evaluation: save_strategy is "{save}" and '
                f'eval_strategy "{evaluate}"; make them the same, or write save_strategy = "best"',
                (
                    "load_best_model_at_end",
                    "save_strategy",
                    "eval_strategy",
                ),
            )
        elif save == "steps" and ((steps < 1) != (every < 1) or not _multiple(steps, every)):
            yield Mistake(
                f"load_best_model_at_end needs save_steps ({steps}) to be a multiple of eval_steps ({every})",
                (
                    "load_best_model_at_end",
                    "save_steps",
                    "eval_steps",
                ),
            )
    if save == "best" and values["metric_for_best_model"] is None and not best:
        yield Mistake(
            'save_strategy = "best" needs metric_for_best_model; write "loss"',
            (
                "save_strategy",
                "metric_for_best_model",
            ),
        )
    metric = values["metric_for_best_model"]
    if values["greater_is_better"] and (metric or "loss").endswith("loss") and (metric or best):
        yield Mistake(
            "greater_is_better = true would keep the checkpoint with the highest loss; remove it",
            ("greater_is_better",),
        )


def _multiple(steps: float, every: float) -> bool:
    # As the trainer does it: shares are floats, and 0.3 % 0.1 is not 0.
    return (steps * 1_000_000) % (every * 1_000_000) == 0


def others(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what precision, kernels, optimizers and loaders contradict each other in."""
    if values["bf16"] and values["fp16"]:
        yield Mistake(
            "bf16 and fp16 contradict each other; keep one",
            (
                "bf16",
                "fp16",
            ),
        )
    if values["fp16"] and values["use_cpu"]:
        yield Mistake(
            "fp16 needs a GPU, and use_cpu is true; keep one",
            (
                "fp16",
                "use_cpu",
            ),
        )
    if values["use_liger_kernel"] and values.get("loss_type") == "chunked_nll":
        yield Mistake(
            'loss_type = "chunked_nll" and use_liger_kernel both replace the loss; keep one',
            (
                "loss_type",
                "use_liger_kernel",
            ),
        )
    if values["optim"].endswith("layerwise") and values["gradient_accumulation_steps"] > 1:
        what = f'optim = "{values["optim"]}" cannot be with gradient_accumulation_steps above 1; write 1'
        yield Mistake(what, ("optim", "gradient_accumulation_steps"))
    if values["optim"].startswith(("galore_", "apollo_")) and not values["optim_target_modules"]:
        yield Mistake(
            f'optim = "{values["optim"]}" needs optim_target_modules; write "all-linear" or names of modules',
            (
                "optim",
                "optim_target_modules",
            ),
        )
    if values["dataloader_num_workers"] == 0:
        for name in (
            "dataloader_prefetch_factor",
            "dataloader_persistent_workers",
            "dataloader_multiprocessing_context",
        ):
            if values[name]:
                yield Mistake(f"{name} is about worker processes; write dataloader_num_workers = 1 or more", (name,))


def preferences(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what the losses of dpo, cpo and kto do not take together."""
    losses = values.get("loss_type")
    if "f_divergence_type" in values:  # dpo alone takes several losses
        losses = [losses] if isinstance(losses, str) else losses or []
        weights = values.get("loss_weights")
        if not losses:
            yield Mistake('loss_type is empty; write loss_type = ["sigmoid"]', ("loss_type",))
        if weights is not None and len(weights) != len(losses):
            yield Mistake(
                f"loss_weights has {len(weights)} values for {len(losses)} losses; give each loss one",
                ("loss_weights",),
            )
        if "exo_pair" in losses and not values["label_smoothing"]:
            yield Mistake(
                'loss_type "exo_pair" needs label_smoothing above 0; its paper takes 0.001',
                (
                    "loss_type",
                    "label_smoothing",
                ),
            )
        plain = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
        if values["f_divergence_type"] != "reverse_kl" and (other := sorted(set(losses) - plain)):
            yield Mistake(
                f"f_divergence_type is for other losses than {', '.join(other)}; remove it", ("f_divergence_type",)
            )
        if values["use_weighting"] and {"aot", "aot_unpaired"} & set(losses):
            yield Mistake(
                'use_weighting cannot be with loss_type "aot": it sorts the rows; remove one',
                (
                    "use_weighting",
                    "loss_type",
                ),
            )
    if values.get("sync_ref_model") and values.get("precompute_ref_log_probs"):
        yield Mistake(
            "precompute_ref_log_probs keeps the first reference, and sync_ref_model changes it; keep one",
            (
                "precompute_ref_log_probs",
                "sync_ref_model",
            ),
        )
    if losses == "kto":
        if (rows_of_batch(values) or values["batch_size"]) < 2:
            yield Mistake(
                'loss_type = "kto" compares the rows of a batch with each other; write per_device_train_batch_size = 2 '
                'or more, or loss_type = "apo_zero_unpaired"',
                (
                    "loss_type",
                    "per_device_train_batch_size",
                ),
            )
        if values["train_sampling_strategy"] != "sequential":
            yield Mistake(
                'loss_type = "kto" needs train_sampling_strategy = "sequential"; remove the key',
                (
                    "loss_type",
                    "train_sampling_strategy",
                ),
            )


def groups(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield numbers that do not make whole groups of answers, and losses of grpo that need another level."""
    if "num_generations" not in values:
        return
    size, per_step, asked = (values[n] for n in ("generation_batch_size", "steps_per_generation", "num_generations"))
    batch, whole = rows_of_batch(values), values.get("batch_size")
    if size is not None and per_step is not None:
        yield Mistake(
            "generation_batch_size and steps_per_generation say the same; keep one",
            (
                "generation_batch_size",
                "steps_per_generation",
            ),
        )
    elif size is not None and batch and size % batch:
        yield Mistake(
            f"generation_batch_size ({size}) must be a multiple of per_device_train_batch_size ({batch})",
            (
                "generation_batch_size",
                "per_device_train_batch_size",
            ),
        )
    else:
        steps_per = per_step or values["gradient_accumulation_steps"]
        answers = size or (batch * steps_per if batch else values["batch_size"] * (per_step or 1))
        if answers % asked:
            name = "steps_per_generation" if per_step else "gradient_accumulation_steps"
            parts = f"per_device_train_batch_size {batch} x {name} {steps_per}" if batch else f"batch_size {whole}"
            made = f"{answers} answers that are made at a time ({parts})"
            told = f"generation_batch_size ({size})" if size is not None else f"the {made}"
            yield Mistake(f"num_generations ({asked}) does not divide {told}", ("num_generations",))
    held = values["num_generations_eval"] or asked
    if values["eval_strategy"] not in {None, "no"} and values["per_device_eval_batch_size"] % held:
        yield Mistake(
            f"per_device_eval_batch_size ({values['per_device_eval_batch_size']}) must be a multiple of "
            f"{'num_generations_eval' if values['num_generations_eval'] else 'num_generations'} ({held})",
            (
                "per_device_eval_batch_size",
                "num_generations_eval",
                "num_generations",
            ),
        )
    level, loss = values.get("importance_sampling_level"), values.get("loss_type")
    if loss == "luspo" and level != "sequence":
        yield Mistake(
            'loss_type = "luspo" needs importance_sampling_level = "sequence"',
            (
                "loss_type",
                "importance_sampling_level",
            ),
        )
    if loss == "vespo" and level != "token":
        yield Mistake(
            'loss_type = "vespo" needs importance_sampling_level = "token"',
            (
                "loss_type",
                "importance_sampling_level",
            ),
        )
    mode = values.get("vllm_importance_sampling_mode", "")
    corrected = values["use_vllm"] and values.get("vllm_importance_sampling_correction")
    if loss == "vespo" and corrected and mode.startswith("sequence"):
        yield Mistake(
            f'loss_type = "vespo" cannot be with vllm_importance_sampling_mode = "{mode}"; write "token_truncate"',
            ("loss_type", "vllm_importance_sampling_mode"),
        )
    if values.get("sync_ref_model") and values["beta"] == 0:
        yield Mistake("sync_ref_model needs a beta above 0: without, there is no reference", ("sync_ref_model", "beta"))
    clip = values.get("reward_clip_range")
    if clip is not None and (len(clip) != 2 or clip[0] >= clip[1]):
        yield Mistake("reward_clip_range must be two numbers, the smaller first: [-10.0, 10.0]", ("reward_clip_range",))
    if values["use_vllm"] and values.get("use_transformers_continuous_batching"):
        yield Mistake(
            "use_vllm and use_transformers_continuous_batching both make the answers; keep one",
            (
                "use_vllm",
                "use_transformers_continuous_batching",
            ),
        )


def teachers(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what the answers of a teacher cannot be with."""
    if values.get("seq_kd") and values["use_vllm"]:
        what = "with seq_kd the teacher answers, and vLLM holds the model that is trained; remove one of the two"
        yield Mistake(what, ("seq_kd", "use_vllm"))


CHECKS: tuple[Callable[[Mapping[str, Any]], Iterator[Mistake]], ...] = (
    steps,
    evaluation,
    others,
    named,
    preferences,
    groups,
    teachers,
)
"""All of them."""
