"""The model card: what was trained, from what, on what, and how it went. It goes with every copy of the weights."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import tomli_w

from forge.api import Answers, masked
from forge.disk.events import read_events
from forge.disk.folder import EVALUATION, RunFolder
from forge.text.evaluation import measured
from forge.text.speed import Times
from forge_huggingface.heads.heads import CLASSIFICATION, POOLED
from forge_huggingface.heads.labels import FILE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from forge.api import Evaluated, Job, Plan, Run, Trained


def model_card(
    job: Job,
    plan: Plan,
    trained: Trained,
    format_: str,
    evaluation: Mapping[str, Any] | None = None,
    usage: Sequence[str] | None = None,
    speed: Mapping[str, str] | None = None,
) -> str:
    """Return the card as Markdown with the hub's metadata.

    Args:
        job: The job; its data paths are named as the job names them, and it holds no secret.
        plan: The plan.
        trained: What training left.
        format_: ``"adapter"``, ``"model"``, ``"merged"`` or ``"gguf"``.
        evaluation: The content of ``evaluation.json``, if there is one.
        usage: How a format of another plugin is used, as lines of Markdown.
        speed: How fast the training was, from :func:`speed_of`.
    """
    on_hub = plan.facts.source != "folder"
    base = job.model.id if on_hub else job.model.id.rstrip("/").rpartition("/")[2]
    head = ["---"]
    if on_hub:
        head.append(f"base_model: {base}")
    adapter = format_ == "adapter"
    pipelines = {
        "vision": "image-text-to-text",
        "seq2seq": "text2text-generation",
        **dict.fromkeys(POOLED, "text-classification"),
    }
    pipeline = pipelines.get(trained.task, "text-generation")
    library = "gguf" if format_ == "gguf" else "peft" if adapter else "transformers"
    head += [f"library_name: {library}", f"pipeline_tag: {pipeline}", "tags:"]
    head += ["- forge", f"- {job.train.method}", *(["- lora"] if trained.kind == "adapter" else []), "---"]
    options = job.train.options
    given = {key: options[key] for key in _TOLD if options.get(key) is not None}
    adapter_keys = {"type": job.adapter.type}
    if not job.adapter.leaves_model:
        adapter_keys |= {"r": job.adapter.r, "lora_alpha": job.adapter.lora_alpha}  # type: ignore[dict-item]
        if job.adapter.from_ and job.adapter.revision:  # a folder of this machine says nothing elsewhere
            adapter_keys["from"] = job.adapter.from_
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
        *(line for text in trained.warnings for line in ("", f"> **Warning:** {text}.")),
        "",
        *(usage or ["```python", *_usage(trained.task, adapter=adapter), "```"]),
        "",
        "## Training",
        "",
        "```toml",
        tomli_w.dumps(tables).rstrip(),
        "```",
        "",
        f"Backend: {', '.join(dict.fromkeys(step.plugin for step in plan.steps))}; {', '.join(versions)}.",
    ]
    if speed:
        lines += ["", f"Speed: {'; '.join(f'{name} {said}' for name, said in speed.items())}."]
    if metrics:
        lines += ["", "| metric | value |", "| --- | --- |", *metrics]
    if evaluation is not None:
        lines += ["", "## Evaluation", "", *_evaluation(evaluation)]
        if format_ == "gguf":
            lines += ["", "Measured before the conversion; what each file loses by rounding stands in export.json."]
    return masked("\n".join(lines) + "\n")  # rows and answers may hold addresses with logins


def speed_of(folder: Path) -> dict[str, str]:
    """Return how fast a run's last training was, in figures for people; empty if it does not tell."""
    return Times(read_events(RunFolder(folder).events)).facts


def _evaluation(found: Mapping[str, Any]) -> list[str]:
    """Return what was measured on held-out rows, and a few of them with their answers."""
    head, *rows = measured(found["metrics"])
    constant = found["models"].get("base", {}).get("constant")
    how = f", base: always {constant}" if constant else ""
    if sampling := found["report"].get("sampling"):  # none of a classifier, nor where no held-out rows were asked
        drawn = ", ".join(f"{key} {sampling[key]}" for key in sampling)
        how = f", {drawn if sampling['temperature'] else 'greedy answers'}"
    on = f"On {found['rows']} held-out rows{how}; in" if found["rows"] else "In"
    lines = [
        f"{on} brackets 95 % intervals over {'these' if found['rows'] else 'the'} rows.",
        "",
        f"| {' | '.join(head)} |",
        f"| {' | '.join('---' for _ in head)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    for sample in found.get("samples", ()):
        said = {"prompt": sample["prompt"], "reference": sample["reference"], **sample["answers"]}
        lines += ["", *(f"- **{name}**: {_inline(text)}" for name, text in said.items() if text is not None)]
    return lines


def _inline(text: str) -> str:
    """Return a text as one line of code, which no mark-up in it can leave."""
    line = " ".join(text.split())
    line = line if len(line) <= 300 else f"{line[:299]}…"
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    space = " " if "`" in line else ""
    return f"{fence}{space}{line or ' '}{space}{fence}"


_LIBRARIES = ("torch", "transformers", "trl", "peft")
_TOLD = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "optim",
    "weight_decay",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
)


def renew(job: Job, run: Run, trained: Trained, found: Evaluated) -> None:
    """Write what an evaluation found into the run's model card, if it is the job's own."""
    assert isinstance(run.plan, Answers)
    if run.plan.target == EVALUATION:
        folder = RunFolder(run.folder)
        card = model_card(job, folder.plan(), trained, trained.weights, asdict(found), speed=speed_of(run.folder))
        (run.folder / "README.md").write_text(card, encoding="utf-8")


def _usage(task: str, *, adapter: bool) -> list[str]:
    if task == "vision":
        return _usage_vision(adapter=adapter)
    if task == CLASSIFICATION:
        return _usage_classifier(adapter=adapter)
    kind = {"seq2seq": "Seq2SeqLM", "reward": "SequenceClassification"}.get(task, "CausalLM")
    if adapter:
        return [
            f"from peft import AutoPeftModelFor{kind}",
            "from transformers import AutoTokenizer",
            "",
            f'model = AutoPeftModelFor{kind}.from_pretrained("path/to/this"{", num_labels=1" * (task == "reward")})',
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this")',
        ]
    return [
        f"from transformers import AutoModelFor{kind}, AutoTokenizer",
        "",
        f'model = AutoModelFor{kind}.from_pretrained("path/to/this")',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this")',
    ]


def _usage_classifier(*, adapter: bool) -> list[str]:
    if not adapter:
        return [
            "from transformers import pipeline",
            "",
            'classify = pipeline("text-classification", model="path/to/this")',
            'print(classify("A text.", top_k=None))',
        ]
    return [
        "import json",
        "from pathlib import Path",
        "",
        "from peft import AutoPeftModelForSequenceClassification",
        "from transformers import AutoTokenizer, pipeline",
        "",
        f'known = json.loads(Path("path/to/this/{FILE}").read_text())',
        'names = dict(enumerate(known["labels"] or ["number"]))',
        "model = AutoPeftModelForSequenceClassification.from_pretrained(",
        '    "path/to/this",',
        "    id2label=names,",
        "    label2id={name: number for number, name in names.items()},",
        '    problem_type=known["problem_type"],',
        "    ignore_mismatched_sizes=True,",
        ").merge_and_unload()",
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this")',
        "model.config.get_text_config().pad_token_id = tokenizer.pad_token_id",
        'classify = pipeline("text-classification", model=model, tokenizer=tokenizer)',
        'print(classify("A text.", top_k=None))',
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
