"""What can be said about training before anything is imported: what cannot work, and what forge takes where it is open.

All of it goes into the plan, so each rule gives its reason as a phrase.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from forge.api import Decision, Problem, did_you_mean
from forge_huggingface.acting.rules import acting_problems, cannot_act, scores_itself
from forge_huggingface.arguments.tables import LORA_FACTORS
from forge_huggingface.methods import METHODS, Method
from forge_huggingface.rewards.rules import cannot_reward, decide_rewards, reward_problems
from forge_huggingface.rules.data import held_out, layout_problems
from forge_huggingface.rules.experts import cannot_balance, decide_balance
from forge_huggingface.rules.kernels import WEIGHING, decide_kernels, kernel_problems, scales_wrongly
from forge_huggingface.rules.packages import TRACKERS
from forge_huggingface.rules.precision import cannot_attend, cannot_compute, decide_precision, precision_problems

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts


SHARDING = "1.15"
"""The first version of accelerate that saves the whole of a sharded adapter (accelerate, pull request 4206)."""

ROUTED = "5.23"
"""A version of transformers whose ``granitemoe`` records what its router says; 5.17 does not, and fails for it."""

SHARDED = frozenset({None, "adamw_torch", "adamw_torch_fused", "sgd"})
"""Optimizers that take each weight's numbers one by one, so that a part of them is trained as within the whole."""

ATTENTIONS = (
    "auto",
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
    "varlen",
)
"""Names that ``attn_implementation`` takes; a model's own code may bring others."""


def cannot_train(machine: Machine, job: Job, facts: ModelFacts, method: Method | None = None) -> str | None:
    """Return why this plugin cannot train, or None; ``method`` is the job's, where it is another plugin's."""
    method = method or METHODS.get(job.train.method)
    if method and method.rewards and (reason := cannot_reward(machine, job, facts)):
        return reason
    if method and method.acts and (reason := cannot_act(machine, job, facts)):
        return reason
    if job.train.options.get("use_vllm") and job.model.load_in_8bit:
        return "use_vllm: vLLM does not take 8-bit weights from the trainer; take load_in_4bit, or neither"
    if reason := cannot_balance(job, facts):
        return reason
    if (facts.model_type or "").startswith("granitemoe") and job.train.options.get("router_aux_loss_coef") != 0:
        from packaging.version import Version  # which listing plugins does not need

        if Version(machine.versions.get("transformers", ROUTED)) < Version(ROUTED):
            what = f"transformers before {ROUTED} makes no loss of the router of {facts.model_type}"
            return f"router_aux_loss_coef: {what}; write 0, or update it"
    if job.train.options.get("loss_type") == "chunked_nll" and scales_wrongly(machine, job, facts):
        what = f"TRL does not scale the logits of {facts.model_type} in it before 1.15"
        return f'loss_type = "chunked_nll": {what}; leave it out'
    return (
        cannot_spread(machine, job, facts) or cannot_compute(machine, job, facts) or cannot_attend(machine, job, facts)
    )


def cannot_spread(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why several processes cannot train together as the job says, or None."""
    if job.launch.world_size == 1:
        return None
    if facts.task == "vision":
        return "models that take pictures train in one process so far"
    if job.train.options.get("train_sampling_strategy") == "batch_rebalance":
        return 'train_sampling_strategy = "batch_rebalance": it gives each number of processes other batches'
    if (sets := job.train.options.get("steps_per_generation")) and sets % job.launch.world_size:
        return f"steps_per_generation: {job.launch.world_size} processes cannot share {sets} batches of answers evenly"
    if job.train.options.get("loss_type") == "bnpo":
        return 'loss_type = "bnpo": it is a mean over the tokens of a batch, into which answers are mixed by chance'
    if job.train.options.get("use_vllm"):
        return "use_vllm: vLLM in several processes has not been tried"
    return (
        f'[launch] shard = "full": {why}'
        if job.launch.shard == "full" and (why := _whole(machine, job, facts))
        else None
    )


def _whole(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why each process needs the whole model, or None."""
    from packaging.version import Version  # which listing plugins does not need

    options, full = job.train.options, job.adapter.leaves_model
    there, optim = machine.versions.get("accelerate", "0"), options.get("optim")
    if Version(there) < Version(SHARDING):
        return f"accelerate {there} saves a part of an adapter only; {SHARDING} saves all of it"
    if job.model.bits or facts.quantized:
        return "weights in 4 or 8 bit stay whole on each GPU, so nothing is gained by it"
    if facts.task == "seq2seq":
        return "models with an encoder and a decoder have not been tried"
    if job.adapter.type == "layers":
        return 'type = "layers": frozen layers beside trained ones have not been tried in parts'
    if options.get("fp16"):
        return "fp16 scales the loss by what it finds in all gradients, and each process has a part of them; take bf16"
    if full and options.get("bf16") is not False and (job.model.dtype == "bfloat16" or job.model.load_in_16bit):
        return "accelerate trains 16-bit weights in 32 bit under bf16; leave [model] dtype out, or write bf16 = false"
    if job.adapter.use_dora:
        return "use_dora measures whole weights, and each process has a part of them"
    if not full and job.model.new_tokens:
        return "add_tokens: rows of tokens beside an adapter have not been tried in parts"
    if job.adapter.modules_to_save:
        return "modules_to_save: whole modules beside an adapter get other gradients than in one process"
    if not full and options.get("use_liger_kernel"):
        return "use_liger_kernel: its loss takes whole weights of the output layer, and a part is there; leave it out"
    if options.get("sync_ref_model"):
        return "sync_ref_model copies whole weights"
    if optim not in SHARDED:
        return f'optim = "{optim}" is not known to train a part of a weight as it trains the whole; leave it out'
    named = options.get("kernels")
    if isinstance(named, list) and (taking := [part for part in named if not full or part in WEIGHING]):
        return f"kernels: {', '.join(taking)} would take whole weights; leave kernels out"
    return None


def cannot_train_seq2seq(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot train an encoder-decoder model, or None."""
    if facts.task != "seq2seq":
        return "the model has no encoder and decoder"
    if job.model.bits:
        return f"load_in_{job.model.bits.removesuffix('bit')}bit: encoder-decoder models train in 16 or 32 bit only"
    return cannot_train(machine, job, facts)


def seq2seq_problems(job: Job) -> Iterable[Problem]:
    """Yield what an encoder-decoder model's trainer, which is transformers' own, would not follow."""
    from forge_huggingface.arguments.fields import table  # reads trl's sources, which listing plugins does not need
    from forge_huggingface.arguments.options import default_of  # pydantic, which listing plugins does not need

    yield from layout_problems(job, "seq2seq", "an encoder-decoder model")
    for name in ("chat_template", "chat_template_kwargs", "tools", "date"):
        if getattr(job.data, name):
            yield Problem(f"data.{name}", "an encoder-decoder model reads the text as it is", "remove it")
    for name, value in job.train.options.items():
        foreign = name in table("SFTConfig") and name not in table("TrainingArguments")
        if foreign and value not in (None, default_of("SFTConfig", name)[0]):
            yield Problem(
                f"train.{name}", "TRL has it for models that only decode; this one has an encoder", "remove it"
            )
    yield from train_problems(job, measures=("loss",))


def train_problems(
    job: Job, measures: tuple[str, ...] | None = None, method: Method | None = None
) -> Iterable[Problem]:
    """Yield contradictions between the trainer's arguments and the rest of the job.

    Args:
        job: The job.
        measures: What the trainer's evaluation measures, where that is not what its method says.
        method: The job's method, where it is another plugin's.
    """
    options = job.train.options
    yield from precision_problems(job)
    yield from kernel_problems(job)
    for name in _trackers(options.get("report_to")):
        if name not in TRACKERS:
            say = did_you_mean(name, TRACKERS, f"there are {', '.join(TRACKERS)}")
            yield Problem("train.report_to", f'there is no tracker "{name}"', say)
    attention = job.model.attn_implementation
    if attention not in ATTENTIONS and not {"/", "|"} & set(attention) and not job.model.trust_remote_code:
        say = did_you_mean(attention, ATTENTIONS, f"there are {', '.join(ATTENTIONS)}, and the hub's org/kernel")
        yield Problem("model.attn_implementation", f'transformers knows no attention "{attention}"', say)
    if options.get("sync_ref_model") and not job.adapter.leaves_model:
        yield Problem(
            "train.sync_ref_model",
            "with an adapter the reference is the model without it, and cannot be changed",
            'remove it, or write [adapter] type = "none"',
        )
    yield from layer_problems(job)
    yield from rate_problems(job)
    yield from beginning_problems(job, method or METHODS.get(job.train.method))
    mine, theirs = job.data.variables, options.get("chat_template_kwargs")
    if mine and theirs is not None and theirs != mine:
        what = "[data] chat_template_kwargs says otherwise, and prompts are rendered by both"
        yield Problem("train.chat_template_kwargs", what, "keep the one in [data]")
    method = method or METHODS.get(job.train.method)
    if method and method.teacher and not options.get("teacher_model_name_or_path"):
        yield Problem("train.method", "there is no teacher", "write teacher_model_name_or_path")
    if method and method.acts:
        yield from acting_problems(job)
    if method and method.rewards:
        yield from reward_problems(job, judged=method.acts and scores_itself(job))
    evaluating = {
        "train.eval_strategy": options.get("eval_strategy") not in {None, "no"},
        "train.load_best_model_at_end": options.get("load_best_model_at_end"),
        "train.save_strategy": options.get("save_strategy") == "best",
        "train.lr_scheduler_type": options.get("lr_scheduler_type") in {"reduce_lr_on_plateau", "greedy"},
        "train.early_stopping_patience": job.train.early_stopping_patience,
        "train.eval_on_start": options.get("eval_on_start"),
        "train.eval_steps": options.get("eval_steps") and options.get("eval_strategy") is None,
        "train.eval_delay": options.get("eval_delay") and options.get("eval_strategy") is None,
        "train.per_device_eval_batch_size": options.get("per_device_eval_batch_size") not in {None, 8},
    }
    for key, asked in evaluating.items():
        if asked and not held_out(job):
            yield Problem(key, "there are no held-out rows", "write [data] eval_path, eval_split or eval_size")
    if measures is None and method and method.measures:
        measures = ("loss", *method.measures)
    if (metric := options.get("metric_for_best_model")) and measures:
        yield from metric_problems(metric, measures)
    if job.train.early_stopping_patience and options.get("eval_strategy") == "no":
        yield Problem("train.early_stopping_patience", "nothing is evaluated", 'remove eval_strategy = "no"')


def layer_problems(job: Job) -> Iterable[Problem]:
    """Yield what cannot be with layers that are trained whole above frozen ones."""
    reentrant = (job.train.options.get("gradient_checkpointing_kwargs") or {}).get("use_reentrant")
    if job.adapter.type == "layers" and reentrant:
        what = "the trained layers would get no gradient: what frozen ones hand on to them needs none"
        yield Problem("train.gradient_checkpointing_kwargs", what, "remove use_reentrant")


def rate_problems(job: Job) -> Iterable[Problem]:
    """Yield what is wrong with rates by group, as far as the job alone tells it."""
    if job.train.options.get("loraplus_lr_ratio") and job.adapter.leaves_model:
        yield Problem("train.loraplus_lr_ratio", "there is no LoRA whose matrices it tells apart", "remove it")
    for pattern in job.train.options.get("learning_rates") or ():
        try:
            re.compile(pattern)
        except re.error as error:
            yield Problem("train.learning_rates", f'"{pattern}" is no regular expression: {error}', "mend it")


def beginning_problems(job: Job, method: Method | None) -> Iterable[Problem]:
    """Yield what cannot be with an adapter that begins as a part of the base, and so changes the base."""
    if not job.adapter.takes_from_the_base:
        return
    key, do = "adapter.init_lora_weights", "write true"
    if job.model.bits:
        yield Problem(key, f"the base in {job.model.bits} would have to be rounded again without that part", do)
    if method and (method.reference or method.rewards):
        what = f"{method.name} compares with the model without the adapter, which would lack that part"
        yield Problem(key, what, do)


SPEED = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
"""What every evaluation says beside what it measures."""


def metric_problems(metric: str, measures: tuple[str, ...]) -> Iterable[Problem]:
    """Yield what is wrong with ``metric_for_best_model``, which would be missed after the first evaluation only."""
    name = metric.removeprefix("eval_")
    if any(fnmatchcase(name, known) for known in measures):
        return
    known = f"it measures {', '.join(sorted(measures))}"
    if name in SPEED:
        what, say = f"{name} is how fast the machine is, not how good the model", known
    else:
        what, say = f"the trainer's evaluation does not measure {name}", did_you_mean(name, measures, known)
    yield Problem("train.metric_for_best_model", what, say)


def decide_training(machine: Machine, job: Job, facts: ModelFacts, method: Method | None = None) -> Iterable[Decision]:
    """Yield precision and the values whose default depends on machine or job; ``method`` as in ``cannot_train``."""
    from forge_huggingface.arguments.options import (  # pydantic, which listing plugins does not need
        defaults,
        learning_rate,
    )

    options = job.train.options
    config = method.config if method else config_of(job)
    yield from decide_rewards(job)
    yield from decide_precision(machine, job, facts)
    yield from decide_kernels(machine, job, facts)
    yield from decide_balance(job, facts)
    if options.get("learning_rate") is None:
        full = job.adapter.leaves_model
        why = "TRL's default for all weights" if full else "LoRA takes about ten times the rate of full fine-tuning"
        why = "TRL's default" if config in LORA_FACTORS else why
        why = why.replace("TRL", "transformers") if config == "TrainingArguments" else why
        yield Decision("train.learning_rate", learning_rate(job.adapter.type, config), why)
    if options.get("eval_strategy") is None:
        best = options.get("load_best_model_at_end") and options.get("save_strategy") in {"steps", "epoch"}
        every = "steps" if options.get("eval_steps") is not None else None
        usual = "steps" if job.data.streaming else "epoch"
        value = "no" if not held_out(job) else every or (options["save_strategy"] if best else usual)
        why = "there are held-out rows" if held_out(job) else "there are no held-out rows"
        why = f"{why}, and the job names eval_steps" if value == every else why
        yield Decision("train.eval_strategy", value, why)
        if value == "steps" and every is None and job.data.streaming and options["save_strategy"] == "steps":
            yield Decision("train.eval_steps", options["save_steps"], "as often as a checkpoint is saved")
    mine, theirs = job.data.variables, options.get("chat_template_kwargs")
    if mine and theirs is None and "chat_template_kwargs" in options:
        yield Decision("train.chat_template_kwargs", mine, "as [data] has it")
    if theirs and not mine:
        yield Decision("data.chat_template_kwargs", theirs, "as [train] has it")
    if options.get("loss_type") is None and job.train.method == "sft" and facts.task != "seq2seq":
        if options.get("label_smoothing_factor"):
            yield Decision("train.loss_type", "nll", "label smoothing needs all logits")
        elif options.get("use_liger_kernel"):
            yield Decision("train.loss_type", "nll", "Liger brings kernels of its own for it")
        elif scales_wrongly(machine, job, facts):
            why = f"TRL's chunked_nll does not scale the logits of {facts.model_type} before 1.15"
            yield Decision("train.loss_type", "nll", why)
        else:
            value = defaults(job.adapter.type)["loss_type"]
            yield Decision("train.loss_type", value, "negative log-likelihood without all logits in memory")


def config_of(job: Job) -> str:
    """Return the class of the arguments of the job's method; that of supervised fine-tuning for other plugins' own."""
    method = METHODS.get(job.train.method)
    return method.config if method else "SFTConfig"


def _trackers(value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else list(value or [])
    return [name for name in names if name not in {"none", "all"}]
