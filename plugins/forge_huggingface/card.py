"""The model card: what was trained, from what, on what, and how it went. It goes with every copy of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tomli_w

if TYPE_CHECKING:
    from forge.api import Trained
    from forge.job import Job
    from forge.plan import Plan


def model_card(job: Job, plan: Plan, trained: Trained, format_: str) -> str:
    """Return the card as Markdown with the hub's metadata.

    Args:
        job: The job; its data paths are named as the job names them, and it holds no secret.
        plan: The plan.
        trained: What training left.
        format_: ``"adapter"``, ``"model"`` or ``"merged"``.
    """
    on_hub = plan.facts.source != "folder"
    base = job.model.id if on_hub else job.model.id.rstrip("/").rpartition("/")[2]
    head = ["---"]
    if on_hub:
        head.append(f"base_model: {base}")
    adapter = format_ == "adapter"
    vision = trained.task == "vision"
    pipeline = "image-text-to-text" if vision else "text-generation"
    head += [f"library_name: {'peft' if adapter else 'transformers'}", f"pipeline_tag: {pipeline}", "tags:"]
    head += ["- forge", f"- {job.train.method}", *(["- lora"] if trained.kind == "adapter" else []), "---"]
    options = job.train.options
    given = {key: options[key] for key in _TOLD if options.get(key) is not None}
    adapter_keys = {"type": job.adapter.type}
    if job.adapter.type != "none":
        adapter_keys |= {"r": job.adapter.r, "lora_alpha": job.adapter.lora_alpha}  # type: ignore[dict-item]
    tables = {
        "model": {"id": base, "max_seq_length": job.model.max_seq_length, "dtype": job.model.dtype},
        "adapter": adapter_keys,
        "train": {"method": job.train.method, **given},
    }
    versions = [f"{name} {plan.machine.versions[name]}" for name in _LIBRARIES if name in plan.machine.versions]
    metrics = [f"| {name} | {value:.4g} |" for name, value in trained.metrics.items() if name != "train_runtime"]
    lines = [
        *head,
        "",
        f"# {base}, fine-tuned ({job.train.method})",
        "",
        f"{'A LoRA adapter for' if adapter else 'A fine-tuned copy of'} `{base}`"
        + (f", revision `{plan.facts.revision}`" if plan.facts.revision else "")
        + f", trained with [forge](https://pypi.org/project/forge-train/) {plan.forge} from one job file.",
        "",
        "```python",
        *(_usage_vision(adapter=adapter) if vision else _usage(adapter=adapter)),
        "```",
        "",
        "## Training",
        "",
        "```toml",
        tomli_w.dumps(tables).rstrip(),
        "```",
        "",
        f"Backend: {', '.join(dict.fromkeys(step.plugin for step in plan.steps))}; {', '.join(versions)}.",
    ]
    if metrics:
        lines += ["", "| metric | value |", "| --- | --- |", *metrics]
    return "\n".join(lines) + "\n"


_LIBRARIES = ("torch", "transformers", "trl", "peft")
_TOLD = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps", "optim", "weight_decay",
    "per_device_train_batch_size", "gradient_accumulation_steps", "seed",
)  # fmt: skip


def _usage(*, adapter: bool) -> list[str]:
    if adapter:
        return [
            "from peft import AutoPeftModelForCausalLM",
            "from transformers import AutoTokenizer",
            "",
            'model = AutoPeftModelForCausalLM.from_pretrained("path/to/this")',
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this")',
        ]
    return [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("path/to/this")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this")',
    ]


def _usage_vision(*, adapter: bool) -> list[str]:
    if adapter:
        return [
            "from peft import PeftConfig, PeftModel",
            "from transformers import AutoModelForImageTextToText, AutoProcessor",
            "",
            'base = PeftConfig.from_pretrained("path/to/this").base_model_name_or_path',
            'model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), "path/to/this")',
            'processor = AutoProcessor.from_pretrained("path/to/this")',
        ]
    return [
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        'model = AutoModelForImageTextToText.from_pretrained("path/to/this")',
        'processor = AutoProcessor.from_pretrained("path/to/this")',
    ]
