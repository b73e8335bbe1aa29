"""Heads that read a text as a whole: a reward model's one number, and a classifier's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.disk.folder import RunFolder
from forge_huggingface.heads.labels import Labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.api import Run


REWARD, CLASSIFICATION = "reward", "classification"
"""Tasks of models with such a head, as :attr:`forge.api.Trained.task` has them."""

POOLED = frozenset({REWARD, CLASSIFICATION})


def task_of(words: Iterable[str]) -> str:
    """Return the task of a model whose loading was asked for with these words; none for a language model's own head."""
    return next((task for task in sorted(POOLED) if f"{task}-head" in words), "")


def settings(task: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the config of a model with such a head says of it; ``summary`` is that of the rows."""
    if task == REWARD:
        return {"num_labels": 1}
    return Labels.of(summary).config if task == CLASSIFICATION else {}


def summary_of(run: Run) -> Mapping[str, Any]:
    """Return what was recorded of the rows of a run."""
    return (RunFolder(run.folder).data() or {}).get("summary") or {}


def head_modules(model: Any) -> list[str]:
    """Return the names of the modules of a classifier that stand behind its layers: its head, and the pooler before it.

    The pooler is a dense layer that BERT and its like have; a checkpoint of the language model alone lacks it, so that
    it starts at random, as the head does.
    """
    base = model.base_model_prefix
    names = [name for name, child in model.named_children() if name != base and _weighs(child)]
    body = getattr(model, base, None)
    pooler = getattr(body, "pooler", None)
    return [*names, *(["pooler"] if pooler is not None and _weighs(pooler) else [])]


def is_head(name: str, prefix: str) -> bool:
    """Whether a weight is one of the head, or of the pooler; ``prefix`` is what the names of the layers begin with."""
    if not prefix:  # a model of its own code: only what heads are called is known to be one
        return name.startswith(("score.", "classifier."))
    return not name.startswith(f"{prefix}.") or name.startswith(f"{prefix}.pooler.")


def _weighs(module: Any) -> bool:
    return next(module.parameters(), None) is not None
