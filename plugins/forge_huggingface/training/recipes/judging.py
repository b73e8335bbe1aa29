"""Reward models among the rewards: loaded once, frozen, beside the model that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ModelError, Noted, Warned
from forge.text.units import amount
from forge_huggingface.facts.folder import MODEL, TOKENIZER, read_object, reading
from forge_huggingface.facts.judge import numbers
from forge_huggingface.hub.snapshot import download
from forge_huggingface.model.device import planned_device
from forge_huggingface.rewards.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Run
    from forge_huggingface.facts.judge import JudgeFacts
    from forge_huggingface.rewards.reward import Reward

FILES = ("*.json", "*.jinja", "*.model", "*.txt", "tokenizer*", "*.safetensors")


def seat_judges(rewards: Iterable[Reward], job: Job, run: Run, *, converses: bool) -> None:
    """Load the reward models.

    Args:
        rewards: The rewards; those that are functions stay as they are.
        job: The job.
        run: The run.
        converses: Whether the prompts are messages.

    Raises:
        ModelError: One cannot be loaded, or has no chat template for the messages.
    """
    for reward in rewards:
        if isinstance(scorer := reward.function, Scorer):
            _seat(scorer, job, run)
            if converses and not scorer.tokenizer.chat_template:
                what = f"{scorer.facts.about} cannot judge conversations: its tokenizer has no chat template"
                raise ModelError(what, None, "take one that has, or write the prompts as plain texts")
            most = job.model.max_seq_length
            if scorer.positions is not None and most > scorer.positions:
                what = f"{scorer.facts.about} reads {scorer.positions} tokens, and prompt and answer may have {most}"
                run.emit(Warned(what, "lower [model] max_seq_length: what it cannot read whole ends the run"))
            scorer.rows = int(job.train.options["per_device_train_batch_size"])
            scorer.variables = job.data.variables


def _seat(scorer: Scorer, job: Job, run: Run) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    judge = scorer.facts
    base = _here(judge, judge.facts.path or judge.facts.id, judge.facts.revision)
    what = f"{judge.about} cannot be loaded"
    if judge.adapter is None and (count := numbers(read_object(base / "config.json"))) != 1:
        raise ModelError(f"{judge.about} gives {count} numbers for a text", "a reward is one", "name another")
    device = planned_device(job, run)
    kind = judge.facts.dtype or "float32"
    if kind == "bfloat16" and device == "mps":
        kind = "float16"
    with reading(what, base, MODEL, do=None):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            base,
            num_labels=1,
            dtype=getattr(torch, kind, torch.float32),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if judge.adapter is not None:
        from peft import PeftModel

        missing = [name for name in missing if not name.startswith(("score.", "classifier."))]
        with reading(what, judge.adapter, ("adapter_config.json", "adapter_model.safetensors"), do=None):
            model = PeftModel.from_pretrained(model, str(judge.adapter))
    if missing:
        raise ModelError(what, f"its files lack {len(missing)} weights, as {missing[0]}", "get the whole model")
    folder = judge.folder or base
    with reading(what, folder, TOKENIZER, do=None):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    text: Any = model.config.get_text_config()
    text.pad_token_id = tokenizer.pad_token_id  # the number is that of the last token that is no padding
    scorer.positions = getattr(text, "max_position_embeddings", None)
    scorer.model = model.to(device).requires_grad_(requires_grad=False).eval()
    scorer.tokenizer = tokenizer
    held = amount(sum(parameter.numel() for parameter in model.parameters()))
    run.emit(Noted(f"{judge.about} judges answers: {held} parameters in {kind} on {device}, frozen"))


def _here(judge: JudgeFacts, name: str, revision: str | None) -> Path:
    """Return the local folder of a model's weights, downloaded if they are not here yet."""
    if judge.facts.path:
        return Path(judge.facts.path)
    return download(name, revision, list(FILES), judge.about, "train.reward")
