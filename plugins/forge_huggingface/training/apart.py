"""Whether a model keeps rows apart that lie end to end: asked of the model itself, before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.api import ModelError, Warned
from forge_huggingface.batches.tokens import COUNT, TokenCollator

if TYPE_CHECKING:
    from forge.api import Job, Run

FIRST, SECOND = 24, 9
"""The lengths of the rows that are tried."""

SHARE = 0.02
"""By how much of their spread the logits of a row may change with another row, by rounding."""


def hold_apart(trainer: Any, job: Job, run: Run) -> None:
    """See whether the model keeps rows apart, where they are to lie end to end; pad them where it does not.

    Raises:
        ModelError: It does not, and the job names what needs it.
    """
    collator = trainer.data_collator
    if not isinstance(collator, TokenCollator) or not (collator.flat or job.data.packing):
        return
    if (why := meets(trainer, collator)) is None:
        return
    key = "packing" if job.data.packing else "padding_free"
    if job.data.packing or "data.padding_free" in run.plan.named:
        raise ModelError("the model does not keep rows apart that lie end to end", why, f"remove [data] {key}")
    run.emit(Warned(f"rows are padded, since the model does not keep them apart end to end: {why}"))
    trainer.data_collator = replace(collator, flat=False)


def meets(trainer: Any, collator: TokenCollator) -> str | None:
    """Return how a row learns of the row before it, or None: change the first of two, and look at the second."""
    import torch

    from forge_huggingface.kernels.attention import BoundariesLost  # imports transformers

    model = trainer.model
    if collator.mask and (share := getattr(model.config, "attention_dropout", 0)):
        return f"it drops {share:g} of attention's weights, which attention by boundaries cannot"
    size = model.get_input_embeddings().weight.shape[0]
    ids = [token % size for token in range(7, 7 + 2 * FIRST + SECOND)]
    second = ids[-SECOND:]
    answers, was_training = [], model.training
    model.eval()
    try:
        with torch.no_grad(), trainer.accelerator.autocast():
            for first in (ids[:FIRST], ids[FIRST : 2 * FIRST]):
                rows = [{"input_ids": row, "labels": row} for row in (first, second)]
                batch = replace(collator, flat=True, rounded=False)(rows)
                inputs = {name: _on(model.device, value) for name, value in batch.items()}
                del inputs["labels"]
                inputs.pop(COUNT, None)
                answers.append(model(**inputs, use_cache=False).logits[0, FIRST : FIRST + SECOND].float())
    except BoundariesLost as error:
        return str(error)
    finally:
        model.train(was_training)
    change = float((answers[0] - answers[1]).abs().max())
    if change <= SHARE * float(answers[0].std()):
        return None
    return f"a row's logits change by up to {change:.3g} with the row before it"


def _on(device: Any, value: Any) -> Any:
    return value.to(device) if hasattr(value, "to") else value
