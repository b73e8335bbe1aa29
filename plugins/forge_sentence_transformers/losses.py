"""The losses of sentence-transformers, made as a job says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import ModelError
from forge_sentence_transformers.shapes import LOSSES, RERANKER

if TYPE_CHECKING:
    from forge.api import Job


def loss_of(job: Job, model: Any) -> Any:
    """Return the loss that the job names, with its options.

    Raises:
        ModelError: The model's embeddings are shorter than a length in ``matryoshka_dims``.
    """
    from sentence_transformers.cross_encoder import losses as of_rerankers
    from sentence_transformers.sentence_transformer import losses as of_embeddings

    options, method = job.train.options, job.train.method
    known = LOSSES[method][options["loss"]]
    given = {theirs: options[key] for key, theirs in known.takes.items() if options.get(key) is not None}
    kind = getattr(of_rerankers if method == RERANKER else of_embeddings, known.name)
    made = kind(model, **given)
    dims = options.get("matryoshka_dims")
    if not dims:
        return made
    width = model.get_embedding_dimension()
    if max(dims) > width:
        what = f"[train] matryoshka_dims: {max(dims)} is more than the {width} numbers of an embedding"
        raise ModelError(what, None, f"name lengths up to {width}")
    weights = options["matryoshka_weights"] or None
    if width not in dims:  # else the whole embedding would not be trained
        dims, weights = [width, *dims], weights and [1.0, *weights]
    return of_embeddings.MatryoshkaLoss(model, made, dims, weights)
