"""A trained classifier that is asked: for the label of a text, or the number that it gives."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING, Any

from forge.api import Answer, OutOfMemory, Sampling, UsageError, first_line
from forge_huggingface.batches.answers import LabelledBatches
from forge_huggingface.heads.labels import REGRESSION, SEVERAL
from forge_huggingface.model.device import is_out_of_memory
from forge_huggingface.rows import BadRow, Conversation, Text, parts_of, source_of

if TYPE_CHECKING:
    from collections.abc import Generator as Stream
    from collections.abc import Iterator, Mapping, Sequence

    from forge.api import Prompt
    from forge_huggingface.data.labelled import LabelledRows
    from forge_huggingface.rendering.render import Renderer

_TOKENS = 4096  # of a batch
_SHOWN = 5


class LabelGenerator:
    """A classifier of transformers. Each question is a text of its own, and the answer its labels with their scores.

    Args:
        model: The model, on its device.
        renderer: Makes texts of conversations, as training did.
        layout: Makes tokens of texts, as training did.
        converses: Whether it was trained on conversations.
    """

    sampling = Sampling()

    def __init__(self, model: Any, renderer: Renderer, layout: LabelledRows, *, converses: bool) -> None:
        assert layout.labels is not None
        self.model, self.renderer, self.layout, self.converses = model, renderer, layout, converses
        self.labels = layout.labels
        pad = renderer.tokenizer.pad_token_id
        self.collator = LabelledBatches(pad, None, getattr(renderer.tokenizer, "pad_token_type_id", 0))

    @property
    def advice(self) -> str:
        """What its answers are."""
        if self.labels.problem_type == REGRESSION:
            return "the number that it gives to each text by itself"
        scores = "the chance of each" if self.labels.problem_type == SEVERAL else "its chances, 1 in all"
        return f"the labels of each text by itself, and {scores}"

    def logits(self, rows: Sequence[Mapping[str, Any]], *, batch_size: int | None = None) -> Any:
        """Return what the model says of stored rows, float32, shape (rows, labels).

        Raises:
            OutOfMemory: One row alone does not fit.
        """
        import numpy
        import torch

        widths = [len(row["input_ids"]) for row in rows]
        order = sorted(range(len(rows)), key=lambda at: (-widths[at], at))
        found: list[Any] = [None] * len(rows)
        at, most = 0, batch_size or _TOKENS
        while at < len(order):
            chosen = order[at : at + min(most, max(1, _TOKENS // widths[order[at]]))]
            batch = self.collator([rows[index] for index in chosen])
            try:
                with torch.inference_mode():
                    given = {name: value.to(self.model.device) for name, value in batch.items()}
                    logits = self.model(**given).logits.float().cpu().numpy()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(chosen) == 1:
                    what = "the model does not fit into memory while it reads"
                    raise OutOfMemory(what, first_line(error), "lower [model] max_seq_length") from error
                most = max(1, len(chosen) // 2)
                _free()
                continue
            for index, said in zip(chosen, logits, strict=True):
                found[index] = said
            at += len(chosen)
        return numpy.stack(found)

    def chat(self, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Stream[str, None, Answer]:  # noqa: ARG002
        """Yield the labels of the last message, with a system message before it, and their scores.

        Raises:
            UsageError: It has an image, or is too long or empty.
        """
        asked = [dict(each) for each in (*[one for one in messages[:1] if one["role"] == "system"], messages[-1])]
        if any(part["type"] != "text" for message in asked for part in parts_of(message["content"])):
            raise UsageError("the message has an image", "this model takes text only", "leave it out")
        row = Conversation(tuple(asked), len(asked), turns=False) if self.converses else Text(source_of(asked))
        answer = self._answer(row)
        yield answer.text
        return answer

    def complete(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,  # noqa: ARG002 - nothing is drawn
        *,
        count: int = 1,
        batch_size: int | None = None,  # noqa: ARG002 - one text at a time
    ) -> Iterator[tuple[int, list[Answer]]]:
        """Yield the index of each text with the same answer ``count`` times: nothing is drawn."""
        for index, prompt in enumerate(prompts):
            yield index, [self._answer(Text(prompt.text))] * count

    def losses(self, rows: Sequence[Mapping[str, Any]], *, batch_size: int | None = None) -> None:  # noqa: ARG002
        """Return None: a label has no tokens."""
        return

    def base(self) -> None:
        """Return None: the base model has no head."""
        return

    def close(self) -> None:
        """Free the memory."""
        self.model = None
        _free()

    def _answer(self, row: Conversation | Text) -> Answer:
        try:
            record = self.layout.asked(row, self.renderer)
        except BadRow as bad:
            raise UsageError(f"the text {bad.what}", bad.why, bad.do) from bad
        (part,) = record.parts
        if part.truncated:
            why = f"its rows had {self.layout.limit} at most: max_seq_length"
            raise UsageError(f"the text has {part.length} tokens", why, "shorten it, or see --set model.max_seq_length")
        return Answer(described(self.logits([record.columns])[0], self.layout), 1, finished=True)


def described(logits: Any, layout: LabelledRows) -> str:
    """Return what a model says of a text: labels with their scores, the highest first, or a number."""
    labels = layout.labels
    assert labels is not None
    values = [float(value) for value in logits]
    if labels.problem_type == REGRESSION:
        return f"{values[0]:.6g}"
    if labels.problem_type == SEVERAL:
        chances = [1 / (1 + math.exp(-value)) if value > -700 else 0.0 for value in values]
    else:
        powers = [math.exp(value - max(values)) for value in values]
        chances = [power / sum(powers) for power in powers]
    best = sorted(zip(labels.names, chances, strict=True), key=lambda each: -each[1])[:_SHOWN]
    return ", ".join(f"{name} {chance:.4f}" for name, chance in best)


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
