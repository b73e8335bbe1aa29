"""What can be said about a job before anything is imported: what cannot work, and what forge takes where it is open.

All of it goes into the plan, so each rule gives its reason as a phrase.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from forge.api import Decision, Problem
from forge.hub import token
from forge_huggingface.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.api import Machine, ModelFacts
    from forge.job import Job

TRACKERS: Mapping[str, tuple[str, ...]] = {
    "azure_ml": ("azureml-mlflow",),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet-ml",),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "flyte": ("flytekit",),
    "kubeflow": (),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardx"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""Names that ``report_to`` takes, and the distributions of which one must be there."""


def device(machine: Machine, job: Job) -> str | None:
    """Return the kind of accelerator that the job will use, or None for the CPU."""
    if job.train.options.get("use_cpu"):
        return None
    return next((kind for kind in ("cuda", "rocm", "mps") if kind in machine.usable_kinds), None)


def cannot_load(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot load the model, or None."""
    if reason := no_such_positions(job, facts):
        return reason
    if facts.quantized and job.adapter.type == "none":
        return f"the model is stored in {facts.quantized}, and quantised weights cannot be trained; use an adapter"
    if job.model.bits is None:
        return None
    bits = job.model.bits.removesuffix("bit")
    if facts.quantized:
        return f"load_in_{bits}bit: the model is quantised already ({facts.quantized}); remove the key"
    if job.adapter.type == "none":
        return f'load_in_{bits}bit with [adapter] type = "none": quantised weights cannot be trained; use an adapter'
    if "bitsandbytes" not in machine.versions:
        return f"load_in_{bits}bit needs bitsandbytes, which is not installed (pip install bitsandbytes)"
    kind = device(machine, job)
    if kind == "mps" or (kind is None and machine.arch.lower() not in {"x86_64", "amd64"}):
        return f"load_in_{bits}bit: bitsandbytes has no kernels for {machine.platform} {machine.arch} without CUDA"
    if kind is None and bits == "8":
        return "load_in_8bit: bitsandbytes trains 8 bit on a GPU only; take load_in_4bit, or remove the key"
    return None


def cannot_collate(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot make the rows, or None."""
    if reason := no_such_positions(job, facts):
        return reason
    if facts.task != "vision":
        return None
    if job.data.packing:
        return "packing is for models that take text only; remove it"
    if "pillow" not in machine.versions:
        return "pillow is not installed, and vision models need it (pip install pillow)"
    return None


def cannot_adapt(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001 - the probe's signature
    """Return why this plugin cannot make the model trainable, or None."""
    if job.adapter.parts and facts.task in {"text", "seq2seq", "other"}:
        return f"{', '.join(job.adapter.parts)}: the model takes no images, so it has no such parts; remove the key"
    if "lm_head" in job.adapter.target_modules and job.adapter.type == "lora":
        return "LoRA on lm_head would not be trained: TRL's loss reads its weight directly; use modules_to_save"
    return None


def cannot_train(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot train, or None."""
    for name in _trackers(job.train.options.get("report_to")):
        needed = TRACKERS.get(name)
        if needed is None:
            return f'report_to = "{name}": no such tracker; there are {", ".join(TRACKERS)}'
        if needed and not any(dist in machine.versions for dist in needed):
            return f'report_to = "{name}": {needed[0]} is not installed (pip install {needed[0]})'
    if job.train.method in {"grpo", "rloo"}:
        from forge_huggingface.rewards.rules import cannot_reward  # brings pydantic

        if reason := cannot_reward(machine, job, facts):
            return reason
    if job.train.options.get("use_vllm") and "vllm" not in machine.versions:
        return "use_vllm: vllm is not installed (pip install vllm)"
    if job.train.options.get("use_vllm") and job.model.load_in_8bit:
        return "use_vllm: vLLM does not take 8-bit weights from the trainer; take load_in_4bit, or neither"
    if job.train.options.get("use_liger_kernel") and "liger-kernel" not in machine.versions:
        return "use_liger_kernel: liger-kernel is not installed (pip install liger-kernel)"
    if str(job.train.options.get("optim", "")).endswith("8bit") and "bitsandbytes" not in machine.versions:
        return "optim: 8-bit optimizers need bitsandbytes, which is not installed (pip install bitsandbytes)"
    if job.train.options.get("bf16") and (kind := device(machine, job)) and not _has_bf16(machine, kind):
        return "bf16: this GPU has no bfloat16; write fp16 = true, or leave both out"
    if job.train.options.get("fp16") and device(machine, job) is None:
        return "fp16: float16 training needs a GPU; leave it out"
    return None


def cannot_train_seq2seq(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot train an encoder-decoder model, or None."""
    if facts.task != "seq2seq":
        return "the model has no encoder and decoder"
    if job.model.bits:
        return f"load_in_{job.model.bits.removesuffix('bit')}bit: encoder-decoder models train in 16 or 32 bit only"
    return cannot_train(machine, job, facts)


def data_problems(job: Job) -> Iterable[Problem]:
    """Yield contradictions between the data's keys and the rest."""
    options = job.train.options
    method = METHODS.get(job.train.method)
    if method and method.layout != "tokens":
        yield from layout_problems(job, method.layout)
    if job.data.streaming and (options.get("max_steps") or -1) < 1:
        yield Problem(
            "data.streaming",
            "streamed rows have no known number, so the end of training must be said",
            "write [train] max_steps",
        )


def seq2seq_problems(job: Job) -> Iterable[Problem]:
    """Yield what an encoder-decoder model's trainer, which is transformers' own, would not follow."""
    from forge_huggingface.fields import table
    from forge_huggingface.options import default_of

    yield from layout_problems(job, "seq2seq", "an encoder-decoder model")
    if job.data.chat_template is not None:
        yield Problem("data.chat_template", "an encoder-decoder model reads the text as it is", "remove it")
    for name, value in job.train.options.items():
        foreign = name in table("SFTConfig") and name not in table("TrainingArguments")
        if foreign and value not in (None, default_of("SFTConfig", name)[0]):
            yield Problem(
                f"train.{name}", "TRL has it for models that only decode; this one has an encoder", "remove it"
            )
    yield from train_problems(job)


def layout_problems(job: Job, layout: str, name: str = "") -> Iterable[Problem]:
    """Yield keys of ``[data]`` that only mean something for a model that only decodes, and supervised fine-tuning."""
    name = name or f'method = "{job.train.method}"'
    if job.data.streaming:
        yield Problem("data.streaming", f"{name} needs all rows at hand", "remove it")
    if job.data.packing:
        yield Problem("data.packing", f"{name} cannot put several rows into one", "remove it")
    if job.data.train_on != "auto":
        what = "no token of a prompt is" if layout == "prompts" else "the answers are always and alone"
        yield Problem("data.train_on", f"under {name} {what} in the loss", "remove it")


def train_problems(job: Job) -> Iterable[Problem]:
    """Yield contradictions between the trainer's arguments and the rest of the job."""
    options = job.train.options
    if options.get("sync_ref_model") and job.adapter.type != "none":
        yield Problem(
            "train.sync_ref_model",
            "with an adapter the reference is the model without it, and cannot be changed",
            'remove it, or write [adapter] type = "none"',
        )
    if job.train.method == "distill" and not options.get("teacher_model_name_or_path"):
        yield Problem("train.method", "there is no teacher", "write teacher_model_name_or_path")
    if job.train.method in {"grpo", "rloo"}:
        from forge_huggingface.rewards.rules import reward_problems  # brings pydantic

        yield from reward_problems(job)
    evaluating = {
        "train.eval_strategy": options.get("eval_strategy") not in {None, "no"},
        "train.load_best_model_at_end": options.get("load_best_model_at_end"),
        "train.save_strategy": options.get("save_strategy") == "best",
        "train.lr_scheduler_type": options.get("lr_scheduler_type") in {"reduce_lr_on_plateau", "greedy"},
        "train.early_stopping_patience": job.train.early_stopping_patience,
    }
    for key, asked in evaluating.items():
        if asked and not held_out(job):
            yield Problem(key, "there are no held-out rows", "write [data] eval_path, eval_split or eval_size")
    if job.train.early_stopping_patience and options.get("eval_strategy") == "no":
        yield Problem("train.early_stopping_patience", "nothing is evaluated", 'remove eval_strategy = "no"')


def held_out(job: Job) -> bool:
    """Whether the job has held-out rows."""
    return any(value is not None for value in (job.data.eval_path, job.data.eval_split, job.data.eval_size))


def cannot_generate(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot make the model answer, or None."""
    if job.train.method == "reward":
        return 'method = "reward" trains a model that gives numbers and no answers; remove [eval]'
    return cannot_load(machine, job, facts)


def evaluation_problems(job: Job) -> Iterable[Problem]:
    """Yield what is wrong with ``[eval]``; its module is imported only where a job has that table."""
    if job.eval is None:
        return ()
    from forge_huggingface.evaluation.rules import problems

    return problems(job)


def cannot_merge(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001
    """Return why an adapter could not be merged after training, or None."""
    if facts.quantized:
        return f"the base is stored in {facts.quantized}, and merging would round the adapter away; export the adapter"
    return None


def export_problems(job: Job) -> Iterable[Problem]:
    """Yield exports that cannot be."""
    for index, export in enumerate(job.export):
        if export.push_to_hub and not token(os.environ):
            yield Problem(
                f"export.{index}.push_to_hub", "nobody is logged in to the hub", "`hf auth login`, or set HF_TOKEN"
            )
        if export.format == "adapter" and job.adapter.type == "none":
            yield Problem(
                f"export.{index}.format",
                'there is no adapter to export: [adapter] type = "none" trains the whole model',
                'write format = "merged"',
            )


def decide_rows(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:  # noqa: ARG001
    """Yield the longest row, where the job leaves it open and the model has fewer positions than forge's default."""
    if too_long(job, facts) and "max_seq_length" not in job.model.model_fields_set:
        yield Decision("model.max_seq_length", facts.context, f"the model has {facts.context} positions, and no more")


def positions(facts: ModelFacts) -> int | None:
    """Return the most tokens that a model can read at all, or None where it has no vector for each position."""
    return facts.context if facts.model_type in POSITIONED else None


def too_long(job: Job, facts: ModelFacts) -> bool:
    """Whether rows may be longer than the positions that a model has."""
    there = positions(facts)
    return there is not None and job.model.max_seq_length > there


def no_such_positions(job: Job, facts: ModelFacts) -> str | None:
    """Return why the longest row that the job names cannot be, or None."""
    if not too_long(job, facts) or "max_seq_length" not in job.model.model_fields_set:
        return None
    named, there = job.model.max_seq_length, facts.context
    return f"max_seq_length = {named} is beyond the model's {there} positions; write at most {there}"


POSITIONED = frozenset(
    {
        "bart", "bigbird_pegasus", "biogpt", "blenderbot", "blenderbot-small", "codegen", "gpt2", "gpt_bigcode",
        "gpt_neo", "gptj", "led", "marian", "mbart", "openai-gpt", "opt", "pegasus", "plbart", "prophetnet",
    }
)  # fmt: skip
"""Types of models that have a vector for each position and so cannot read further, by transformers' names."""


def decide_weights(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the type of the weights and the attention implementation, where the job leaves them open."""
    kind = device(machine, job)
    dtype: str = job.model.dtype
    if dtype == "auto":
        dtype, reason = weights_dtype(machine, job)
        yield Decision("model.dtype", dtype, reason)
    if job.model.attn_implementation == "auto":
        capable = kind == "cuda" and _capability(machine) >= 8.0 and dtype != "float32"
        if capable and "flash-attn" in machine.versions:
            yield Decision("model.attn_implementation", "flash_attention_2", "flash-attn is installed")
        else:
            yield Decision("model.attn_implementation", "sdpa", "torch's own, fast on every device")
    yield from decide_rows(machine, job, facts)


def decide_training(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield precision and the values whose default depends on machine or job."""
    from forge_huggingface.arguments import LORA_FACTORS
    from forge_huggingface.options import defaults, learning_rate  # pydantic, which listing plugins does not need

    options, kind = job.train.options, device(machine, job)
    asked = options.get("bf16") or options.get("fp16")
    half = None
    if kind in {"cuda", "rocm"}:
        half = "bf16" if _has_bf16(machine, kind) else "fp16"
    for name in ("bf16", "fp16"):
        if options.get(name) is None:
            why = "the job names the other" if asked else _why_half(name, half, kind)
            yield Decision(f"train.{name}", not asked and half == name, why)
    if options.get("learning_rate") is None:
        full = job.adapter.type == "none"
        why = "TRL's default for all weights" if full else "LoRA takes about ten times the rate of full fine-tuning"
        why = "TRL's default" if config_of(job) in LORA_FACTORS else why
        yield Decision("train.learning_rate", learning_rate(job.adapter.type, config_of(job)), why)
    if options.get("eval_strategy") is None:
        best = options.get("load_best_model_at_end") and options.get("save_strategy") in {"steps", "epoch"}
        value = "no" if not held_out(job) else options["save_strategy"] if best else "epoch"
        why = "there are held-out rows" if held_out(job) else "there are no held-out rows"
        yield Decision("train.eval_strategy", value, why)
    if options.get("loss_type") is None and job.train.method == "sft" and facts.task != "seq2seq":
        value = defaults(job.adapter.type)["loss_type"]
        yield Decision("train.loss_type", value, "negative log-likelihood without all logits in memory")


def config_of(job: Job) -> str:
    """Return the class of the arguments of the job's method; that of supervised fine-tuning for other plugins' own."""
    method = METHODS.get(job.train.method)
    return method.config if method else "SFTConfig"


def weights_dtype(machine: Machine, job: Job) -> tuple[str, str]:
    """Return the type of the weights in memory, and why."""
    kind = device(machine, job)
    if job.model.dtype != "auto":
        return job.model.dtype, "the job says so"
    half = "bfloat16" if kind is None or kind == "mps" or _has_bf16(machine, kind) else "float16"
    if job.model.load_in_16bit:
        return half, "the job says load_in_16bit"
    if kind is None:
        return "float32", "no GPU is used, and CPUs are fastest and exact in 32 bit"
    if kind == "mps":
        return "float32", "mixed precision is not reliable on Apple's GPUs"
    if job.adapter.type == "none":
        return "float32", f"all weights are trained, and small updates vanish in 16 bit; the arithmetic is {half}"
    if job.model.bits:
        return half, f"the {job.model.bits} base is unpacked to it for each computation"
    return half, "the frozen base needs no more, and the adapter is kept in 32 bit"


def _why_half(name: str, half: str | None, kind: str | None) -> str:
    if half is None:
        return "no GPU is used" if kind is None else "mixed precision is not reliable on Apple's GPUs"
    if half == name:
        return "the GPU computes in bfloat16" if name == "bf16" else "the GPU has no bfloat16"
    return f"{half} is better here"


def _has_bf16(machine: Machine, kind: str) -> bool:
    return kind == "rocm" or (kind == "cuda" and _capability(machine) >= 8.0)


def _capability(machine: Machine) -> float:
    found = next((card.capability for card in machine.accelerators if card.kind == "cuda" and card.capability), None)
    return float(found) if found else 0.0


def _trackers(value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else list(value or [])
    return [name for name in names if name not in {"none", "all"}]
