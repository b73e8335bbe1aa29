"""EXPORT: a folder that sentence-transformers loads, with the adapter beside its base, or merged into it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from forge.api import Exported, ExportError, Trained
from forge.disk.files import files_below
from forge.disk.folder import RunFolder
from forge_huggingface.hub.card import speed_of
from forge_sentence_transformers.card import card_of
from forge_sentence_transformers.model import read
from forge_sentence_transformers.shapes import RERANKER

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api import ExportTable, Job, Run

TRIED = ("The cat sits on the mat.", "Prices rose by 3.5 % in 2026.", "wie spät ist es?")
"""Texts by which an export is compared with what was trained."""

APART = 1e-3
"""By how much an embedding, or a score, may differ once weights have been merged and read back."""


def export(job: Job, run: Run, trained: Trained, export: ExportTable, out: Path) -> Exported:
    """Write one export into ``out``.

    Raises:
        ExportError: What was written is not what was trained.
    """
    weights = run.folder / trained.weights
    report: dict[str, Any] = {}
    if export.format == "adapter":
        if trained.kind != "adapter":
            raise ExportError("there is no adapter to export", "the whole model was trained", "take format merged")
        shutil.copytree(weights, out, dirs_exist_ok=True)
    elif trained.kind == "full":
        shutil.copytree(weights, out, dirs_exist_ok=True)
    else:
        report["apart"] = merge(job, run, weights, out)
    evaluated = RunFolder(run.folder).evaluation()
    card = card_of(job, run, trained, export.format, evaluated, speed=speed_of(run.folder))
    (out / "README.md").write_text(card, encoding="utf-8")
    return Exported(files=tuple(path.as_posix() for path in files_below(out)), report=report)


def merge(job: Job, run: Run, weights: Path, out: Path) -> float:
    """Write the model with its adapter merged in, read it back, and return by how much it is apart from it.

    Raises:
        ExportError: It is another model.
    """
    from sentence_transformers import CrossEncoder, SentenceTransformer

    model = read(job, run, weights)
    before = said(job, model)
    settings = SentenceTransformer if job.train.method != RERANKER else CrossEncoder
    model.prompts = dict(_prompts(weights, model))
    model.save_pretrained(str(out), create_model_card=False)
    given: dict[str, Any] = {"device": str(model.device), "local_files_only": True}
    again = settings(str(out), trust_remote_code=job.model.trust_remote_code, **given).eval()
    apart = float(abs(said(job, again) - before).max())
    if not apart <= APART:
        raise ExportError(
            "the merged model is not the trained one", f"its numbers differ by {apart:.3g}", "please report this"
        )
    return apart


def _prompts(weights: Path, model: Any) -> dict[str, str]:
    """Return the prompts that were saved with the adapter, over those of the base."""
    file = weights / "config_sentence_transformers.json"
    own = json.loads(file.read_text(encoding="utf-8")).get("prompts") if file.is_file() else None
    return {**model.prompts, **(own or {})}


def said(job: Job, model: Any) -> Any:
    """Return what a model makes of a few texts."""
    if job.train.method == RERANKER:
        return model.predict([(TRIED[0], other) for other in TRIED], show_progress_bar=False)
    return model.encode(list(TRIED), normalize_embeddings=True, show_progress_bar=False)
