"""What methods share whose model answers prompts while it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_huggingface.training.probe import longest

if TYPE_CHECKING:
    from forge.api import Data


def largest(trainer: Any, data: Data) -> dict[str, Any]:
    """Return a batch of the longest prompts with the longest answers, as the trainer makes one from real answers."""
    import torch

    args, device = trainer.args, trainer.accelerator.device
    rows = longest(data, 1)
    length = int(data.summary.get("longest") or 1) if rows else 1
    count, answer = args.per_device_train_batch_size, args.max_completion_length
    tokenizer = getattr(data.processor, "tokenizer", data.processor)
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
    }
    if getattr(args, "beta", 0.0):
        batch["ref_per_token_logps"] = known
    if getattr(trainer, "use_vllm", False):
        batch["importance_sampling_ratio"] = torch.ones((count, 1), device=device)
    return batch
