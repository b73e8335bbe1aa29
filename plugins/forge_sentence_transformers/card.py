"""The model card of an embedding model or a reranker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_huggingface.hub.card import model_card
from forge_sentence_transformers.shapes import RERANKER

if TYPE_CHECKING:
    from forge.api import Job, Run, Trained


def card_of(job: Job, run: Run, trained: Trained, format_: str, evaluation: Any = None, speed: Any = None) -> str:
    """Return the card as Markdown with the hub's metadata.

    Args:
        job: The job.
        run: The run.
        trained: What training left.
        format_: ``"adapter"``, ``"model"`` or ``"merged"``.
        evaluation: The content of ``evaluation.json``, if there is one.
        speed: How fast the training was.
    """
    if job.train.method == RERANKER:
        kind, call = "CrossEncoder", 'model.predict([("a query", "a document")])'
    else:
        kind, call = "SentenceTransformer", 'model.encode(["a text", "another"])'
    lines = ["```python", f"from sentence_transformers import {kind}", "", f'model = {kind}("PATH")', f"print({call})"]
    usage = [*lines, "```"]
    card = model_card(job, run.plan, trained, format_, None, usage=usage, speed=speed)
    pipeline = "text-ranking" if job.train.method == RERANKER else "sentence-similarity"
    card = card.replace("pipeline_tag: text-generation", f"pipeline_tag: {pipeline}", 1)
    for library in ("peft", "transformers"):
        card = card.replace(f"library_name: {library}", "library_name: sentence-transformers", 1)
    if evaluation is not None:
        card += "\n".join(["", "## Evaluation", "", *measured_lines(evaluation), ""])
    return card


def measured_lines(found: Any) -> list[str]:
    """Return what was measured on held-out rows as a table of Markdown."""
    from forge.text.evaluation import measured

    head, *rows = measured(found["metrics"])
    return [
        f"On {found['rows']} held-out rows; in brackets 95 % intervals over these rows.",
        "",
        f"| {' | '.join(head)} |",
        f"| {' | '.join('---' for _ in head)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
