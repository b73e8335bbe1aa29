"""TRAIN: sentence-transformers' trainers, with huggingface's events, checkpoints and probe."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Data, Loaded, Trained
from forge.disk.faults import machine_error
from forge.disk.files import write_text
from forge_huggingface.hub.card import speed_of
from forge_huggingface.methods import Method
from forge_huggingface.training.save import is_folder
from forge_huggingface.training.train import train_by
from forge_sentence_transformers.card import card_of
from forge_sentence_transformers.shapes import EMBEDDING, RERANKER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api import Job, Run

_RECIPE = "forge_sentence_transformers.trainer:recipe"

METHODS: Mapping[str, Method] = {
    name: Method(name, "SFTConfig", _RECIPE, "sentence-transformers/texts", about)
    for name, about in ((EMBEDDING, "embedding models"), (RERANKER, "rerankers"))
}


def train(job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
    """Train, and save the weights. Raises what :func:`forge_huggingface.training.train.train_by` raises."""
    name = job.train.method
    return replace(train_by(METHODS[name], job, run, loaded, data, keep=save), task=name)


def save(
    model: Any,
    processor: Any,  # noqa: ARG001 - the model has a tokenizer of its own
    folder: Path,
    job: Job,
    run: Run,
    trained: Trained,
    weights: Mapping[str, Any] | None = None,  # noqa: ARG001 - of models in parts, which these are not
) -> None:
    """Write a folder of sentence-transformers under a temporary name, rename it, and add the model card."""
    from forge_sentence_transformers.trainer import check_written  # imports torch

    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    prompts = job.train.options.get("prompts") or {}
    for name, column in (("query", "anchor"), ("document", "positive")):
        if column in prompts:  # so that encode_query and encode_document write what training wrote
            model.prompts[name] = prompts[column]
    try:
        if trained.kind == "adapter":
            for config in model.transformers_model.peft_config.values():
                config.base_model_name_or_path = run.plan.facts.path if is_folder(run) else job.model.id
                config.revision = run.plan.facts.revision
        model.save_pretrained(str(part), create_model_card=False)
        check_written(model, part)
    except Exception as error:
        if (fault := machine_error(error, part)) is None:
            raise
        shutil.rmtree(part, ignore_errors=True)
        raise fault from error
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    card = card_of(job, run, replace(trained, task=job.train.method), folder.name, speed=speed_of(run.folder))
    for place in (folder, run.folder):
        write_text(place / "README.md", card)
