"""An encoder-decoder model that answers: T5, BART."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Prompt, UsageError
from forge_huggingface.batches.answers import Seq2SeqBatches
from forge_huggingface.generation.generator import ModelGenerator
from forge_huggingface.generation.likelihood import sums
from forge_huggingface.model.decoding import FEW
from forge_huggingface.rows import parts_of, source_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge.api import Sampling


class Seq2SeqGenerator(ModelGenerator):
    """A model of transformers that reads one text and writes another. Each question stands alone.

    A text is read as in training: with the tokenizer's special tokens, without a chat template, and cut at
    ``max_seq_length``. In a chat a longer one is refused.
    """

    def _prompt(self, messages: Sequence[Mapping[str, Any]]) -> Prompt:
        system = [message for message in messages[:1] if message["role"] == "system"]
        asked = [*system, messages[-1]]
        if any(part["type"] != "text" for message in asked for part in parts_of(message["content"])):
            raise UsageError("the message has an image", "this model takes text only", "leave it out")
        text, limit = source_of(asked), self.renderer.max_seq_length
        length = len(self.tokenizer(text, verbose=False)["input_ids"])
        if length > limit:
            raise UsageError(
                f"the text has {length} tokens",
                f"its rows had {limit} at most: max_seq_length",
                "shorten it, or set model.max_seq_length by --set",
            )
        return Prompt(text=text)

    def _fits(self, inputs: Mapping[str, Any]) -> None:
        """Do nothing: :meth:`_prompt` has seen to it."""

    def _encode(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Return the texts as a batch, padded at the right, as training has them."""
        texts = [prompt.text for prompt in prompts]
        limit = self.renderer.max_seq_length
        batch = self.tokenizer(
            texts, padding=True, padding_side="right", truncation=True, max_length=limit, return_tensors="pt"
        )
        return {name: batch[name].to(self.model.device) for name in ("input_ids", "attention_mask")}

    def _begin(self, inputs: Mapping[str, Any]) -> int:  # noqa: ARG002 - the base's signature
        """Return 1: the output is the decoder's, which begins with its start token."""
        return 1

    def _crowded(self, inputs: Mapping[str, Any], sampling: Sampling) -> bool:  # noqa: ARG002 - the base's signature
        """Return False: the decoder has all its positions for the answer."""
        return False

    def _rows(self, prompt: Prompt, sampling: Sampling, count: int) -> int:  # noqa: ARG002 - the base's signature
        """Return 8: its cache has two parts."""
        return FEW

    def _collator(self) -> Any:
        return Seq2SeqBatches(self.pad, self.model)

    def _sums(self, logits: Any, labels: Any) -> tuple[list[float], list[int]]:
        """Return what :func:`.likelihood.sums` does; the decoder's input is shifted, and its output is not."""
        return sums(logits, labels)
