"""What training leaves: weights, tokenizer and model card, under their names only when they are whole."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import DiskFull, Loaded, Trained
from forge.disk.checkpoints import MARK, checkpoints, newest_whole
from forge.disk.files import is_disk_full
from forge_huggingface.hub.card import model_card
from forge_huggingface.methods import Method

if TYPE_CHECKING:
    from forge.api import Job, Run


def result(
    method: Method,
    job: Job,
    run: Run,
    loaded: Loaded,
    *,
    best: int | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Trained:
    """Describe what training leaves."""
    facts = run.plan.facts
    folder = "model" if job.adapter.type == "none" else "adapter"
    base = {"id": job.model.id, "revision": facts.revision, "digest": facts.digest, "path": facts.path}
    return Trained(
        weights=folder,
        kind="full" if job.adapter.type == "none" else "adapter",
        task="reward" if method.head == "reward" else facts.task,
        base=base,
        processor=folder,
        traits=loaded.traits,
        best_step=best,
        metrics=metrics or {},
    )


def save(model: Any, processor: Any, folder: Path, job: Job, run: Run, trained: Trained) -> None:
    """Write weights, tokenizer and model card under a temporary name, then rename it."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        if trained.kind == "adapter":
            for config in model.peft_config.values():
                # A hub id means the same on every machine; a folder in this machine's cache does not.
                config.base_model_name_or_path = run.plan.facts.path if is_folder(run) else job.model.id
                config.revision = run.plan.facts.revision
        model.save_pretrained(part, safe_serialization=True)
        processor.save_pretrained(part)
        card = model_card(job, run.plan, trained, folder.name)
        (part / "README.md").write_text(card, encoding="utf-8")
        (run.folder / "README.md").write_text(card, encoding="utf-8")
    except Exception as error:
        if not is_disk_full(error):
            raise
        shutil.rmtree(part, ignore_errors=True)
        why = "the disk is full"
        raise DiskFull(f"cannot write {folder}", why, f"free some space, then forge resume {run.folder}") from error
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def is_folder(run: Run) -> bool:
    """Whether the base model is a local folder, not one of the hub."""
    return run.plan.facts.source == "folder"


def best_step(trainer: Any) -> int | None:
    """Return the step of the best evaluation, if the job asked for it."""
    return trainer.state.best_global_step if trainer.args.load_best_model_at_end else None


def final_metrics(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return the last values that the trainer logged, as far as they are numbers."""
    measured = ("loss", "mean_token_accuracy", "rewards/accuracies", "rewards/margins", "accuracy", "margin", "reward")
    wanted = ("train_loss", "train_runtime", *measured, *(f"eval_{name}" for name in measured))
    found: dict[str, float] = {}
    for line in history:
        found |= {name: line[name] for name in wanted if name in line and math.isfinite(line[name] or 0.0)}
    return found


def no_room_for_checkpoint(folder: Path, error: BaseException) -> DiskFull:
    """Drop the half-written checkpoint, which frees its space, and say what is left."""
    for path in checkpoints(folder):
        if not (path / MARK).exists():
            shutil.rmtree(path, ignore_errors=True)
    whole, _ = newest_whole(folder)
    kept = f"{whole.name} is whole" if whole else "no checkpoint had been saved yet"
    free = shutil.disk_usage(folder).free / 2**20
    return DiskFull(
        "a checkpoint could not be written",
        f"the disk is full ({free:.0f} MiB free, {type(error).__name__}); {kept}",
        f"free some space, then forge resume {folder.parent}",
    )
