"""What methods share whose model answers prompts while it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Noted
from forge_huggingface.model.decoding import Decoder
from forge_huggingface.training.probe import longest
from forge_huggingface.training.recipes.seeing import seen
from forge_huggingface.vision.prompts import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.api import Data, Job, Run


def decoder(job: Job, run: Run) -> Decoder:
    """Return what has the model answer fast, and tells the run how."""
    return Decoder(lambda message: run.emit(Noted(message)), enabled=job.generation.cuda_graph)


class Decoding:
    """Put before a trainer of an online method: its model answers by a CUDA graph, where there can be one.

    Args:
        decoder: Makes ``generate`` fast for as long as the model answers.
        arguments: The trainer's.
    """

    def __init__(self, *, decoder: Decoder, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.decoder = decoder

    def _generate_single_turn(self, *arguments: Any, **named: Any) -> Any:
        trainer: Any = self
        if trainer.use_vllm or getattr(trainer, "use_transformers_continuous_batching", False):
            return super()._generate_single_turn(*arguments, **named)  # type: ignore[misc]  # the trainer behind it
        with self.decoder.around(trainer.accelerator.unwrap_model(trainer.model_wrapped)):
            return super()._generate_single_turn(*arguments, **named)  # type: ignore[misc]


def largest(trainer: Any, data: Data) -> dict[str, Any]:
    """Return a batch of the longest prompts with the longest answers, as the trainer makes one from real answers."""
    return _batch(trainer, data, _longest(data), trainer.args.max_completion_length, longest(data, 1))


def given(trainer: Any, data: Data) -> dict[str, Any]:
    """Return a batch of the longest rows where these hold the answers, nearly all of a row being one."""
    return _batch(trainer, data, 1, max(_longest(data) - 1, 1))


def _longest(data: Data) -> int:
    return int(data.summary.get("longest") or 1) if longest(data, 1) else 1


def _batch(trainer: Any, data: Data, length: int, answer: int, rows: Sequence[Any] = ()) -> dict[str, Any]:
    import torch

    args, device = trainer.args, trainer.accelerator.device
    count = args.per_device_train_batch_size
    tokenizer = getattr(data.processor, "tokenizer", data.processor)
    shown: dict[str, Any] = {}
    if tokenizer is not data.processor and rows and not isinstance(rows[0]["prompt"], str):
        made = seen(trainer, opened(rows[0]["prompt"]), count, answer)
        shown = {name: value.to(device) if hasattr(value, "to") else value for name, value in made.items()}
        length = shown["prompt_ids"].shape[1]
    ids = torch.full((count, length + answer), int(tokenizer.eos_token_id), dtype=torch.long, device=device)
    ones = torch.ones_like(ids)
    known = torch.zeros((count, answer), dtype=torch.float32, device=device)
    batch = {
        "prompt_ids": ids[:, :length],
        "prompt_mask": ones[:, :length],
        "completion_ids": ids[:, length:],
        "completion_mask": ones[:, length:],
        "advantages": torch.linspace(-1, 1, count, device=device),
        "num_items_in_batch": torch.tensor(float(count * answer), device=device),
        "old_logps": known.sum(1),
        **shown,
    }
    if getattr(args, "beta", 0.0):
        batch["ref_per_token_logps"] = known
    if getattr(trainer, "use_vllm", False):
        batch["importance_sampling_ratio"] = torch.ones((count, 1), device=device)
    return batch
