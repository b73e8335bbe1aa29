"""A reward model as a reward: it reads prompt and answer as one conversation, and its number is the score.

The texts are those of TRL's trainers for a ``reward_funcs`` that is a model: prompt and answer by its chat template,
padded at the right, no special tokens beside (``_calculate_rewards`` of GRPOTrainer, 1.14.2 and 1.16). TRL reads all
answers at once; here it is some at a time, so that memory does not grow with their number. It computes in the type of
its weights, where TRL lets it follow ``bf16`` and ``fp16`` of the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import OutOfMemory
from forge_huggingface.rewards.score import WrongReturnError

if TYPE_CHECKING:
    from forge_huggingface.facts.judge import JudgeFacts


@dataclass
class Scorer:
    """Scores answers by a reward model, once :attr:`model` is there.

    Attributes:
        facts: Which model it is.
        model: The model, in evaluation mode; None before it is loaded.
        tokenizer: Its own.
        rows: How many answers it reads at a time.
        variables: What its chat template is given beside the messages.
        positions: How many tokens it can read; None where nothing limits them.
    """

    facts: JudgeFacts
    model: Any = None
    tokenizer: Any = None
    rows: int = 8
    variables: Mapping[str, Any] = field(default_factory=dict)
    positions: int | None = None

    def __call__(self, *, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        """Return the number of each answer."""
        import torch

        texts = [self._text(prompt, said) for prompt, said in zip(prompts, completions, strict=True)]
        scores: list[float] = []
        for start in range(0, len(texts), self.rows):
            inputs = self.tokenizer(
                text=texts[start : start + self.rows],
                return_tensors="pt",
                padding=True,
                padding_side="right",
                add_special_tokens=False,
            ).to(self.model.device)
            lengths = inputs["attention_mask"].sum(1).tolist()
            if self.positions and (longest := max(lengths)) > self.positions:
                why = f"prompt and answer are {longest} tokens to it, and it reads {self.positions}"
                raise WrongReturnError(why, start + lengths.index(longest), "lower [model] max_seq_length")
            try:
                with torch.inference_mode():
                    scores += self.model(**inputs).logits[:, 0].float().tolist()
            except torch.OutOfMemoryError as error:
                what = f"out of memory while {self.facts.about} judged {len(lengths)} answers"
                do = "a smaller [train] per_device_train_batch_size, of which it reads as many at a time"
                raise OutOfMemory(what, f"of up to {max(lengths)} tokens", do) from error
        return scores

    def _text(self, prompt: Any, said: Any) -> str:
        if isinstance(prompt, str):
            return f"{prompt}{said}"
        return str(self.tokenizer.apply_chat_template([*prompt, *said], tokenize=False, **self.variables))
