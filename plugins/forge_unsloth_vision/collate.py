"""COLLATE: forge's rows, in batches of Unsloth's ``UnslothVisionDataCollator``.

Rows are read, checked and counted as always. The batches are then Unsloth's: it may scale images down, and it finds the
answers by the turns' heads. So the digest and the preview tell of the rows, not of the batches, and a warning says so.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.api import Data, DataError, Loaded, Warned
from forge_huggingface.data import collate as rows_of
from forge_huggingface.vision.images import reopen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forge.api import Job, Run

_QUESTION, _ANSWER = "QUESTIONQZX", "ANSWERQZX"


def collate(job: Job, run: Run) -> Data:
    """Return the job's rows with Unsloth's collator.

    Raises:
        DataError: The rows cannot be used as the job says.
        ModelError: The processor cannot be had.
    """
    data = rows_of.collate(job, run)
    what = "the batches are made by Unsloth's collator: digest and `forge data` tell of forge's own tokens"
    run.emit(Warned(what, "remove [use] collate, unless you need it"))
    return replace(data, collator=lambda loaded: Batches(collator(loaded, data.processor, job.model.max_seq_length)))


class Batches:
    """Gives rows to Unsloth's collator in the form that it takes."""

    def __init__(self, inner: Callable[[list[dict[str, Any]]], Mapping[str, Any]]) -> None:
        self.inner = inner

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch."""
        return dict(self.inner([{"messages": _messages(row)} for row in rows]))


def collator(loaded: Loaded, processor: Any, length: int) -> Any:
    """Return Unsloth's collator, which trains on answers only."""
    from unsloth.trainer import UnslothVisionDataCollator

    instruction, response = heads(processor)
    return UnslothVisionDataCollator(
        loaded.model,
        processor,
        max_seq_length=length,
        train_on_responses_only=True,
        instruction_part=instruction,
        response_part=response,
    )


def heads(processor: Any) -> tuple[str, str]:
    """Return what the chat template writes before a question and before an answer."""
    turns = [("user", _QUESTION), ("assistant", _ANSWER), ("user", _QUESTION)]
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    text = processor.apply_chat_template(messages, tokenize=False)
    first, answer, second = (
        text.find(mark, at) for mark, at in ((_QUESTION, 0), (_ANSWER, 0), (_QUESTION, text.find(_ANSWER)))
    )
    if min(first, answer, second) < 0:
        raise DataError(
            "Unsloth's collator cannot be used",
            "the chat template does not write a conversation plainly",
            "remove [use] collate",
        )
    # Both heads follow the end of a turn; what they share with it is none of theirs.
    before_answer, before_question = text[first + len(_QUESTION) : answer], text[answer + len(_ANSWER) : second]
    shared = 0
    while shared < min(len(before_answer), len(before_question)) and before_answer[shared] == before_question[shared]:
        shared += 1
    cut = before_answer[:shared].rfind("\n") + 1
    return before_question[cut:], before_answer[cut:]


def _messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    pictures = iter(row["pictures"])
    messages: list[dict[str, Any]] = json.loads(row["turns"])
    for message in messages:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = reopen(next(pictures))
    return messages
