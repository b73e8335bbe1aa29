"""SFT's numbers without waiting for the device: they stay on it until they are logged.

TRL reads entropy, accuracy and the number of tokens of every batch, and each time the processor waits until the device
has done all that it was given (trl 1.14 and 1.16). Here the sums are the same, and they are read when they are needed.
"""

from __future__ import annotations

from typing import Any

import torch
import trl
from packaging.version import Version
from trl import SFTTrainer
from trl.trainer import sft_trainer

from forge_huggingface.batches.tokens import COUNT

TRLS_OWN = SFTTrainer.__module__ == sft_trainer.__name__
"""Whether the trainer is TRL's, and not one that a backend has put in its place."""

FUSED = Version(trl.__version__) >= Version("1.15")
"""Whether the model's own forward gives the loss of each token, and the trainer makes the loss of them."""


class Unhurried:
    """Put before TRL's trainer for supervised fine-tuning: it computes the same, and asks the device for nothing."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss, and note what is measured beside it."""
        count = inputs.pop(COUNT, None)
        training = self.model.training  # type: ignore[attr-defined]  # the trainer's, here and below
        before = self._total_train_tokens if training else 0  # type: ignore[has-type]
        if training and count is not None and not return_outputs and self._simple(inputs):
            measure = self._fused if FUSED else self._whole
            loss, *sums = measure(model, inputs, num_items_in_batch)
            self._note(*sums)
            found = loss
        else:
            found = super().compute_loss(  # type: ignore[misc]
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        if training and count is not None:  # of rows end to end, TRL would count what fills up the batch too
            self._total_train_tokens = before + count
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]  # type: ignore[attr-defined]
        return found

    def _simple(self, inputs: Any) -> bool:
        """Whether the loss is one that is known here; TRL computes the others as it does."""
        args = self.args  # type: ignore[attr-defined]
        special = (
            self.aux_loss_enabled  # type: ignore[attr-defined]
            or (self.compute_loss_func is not None and FUSED)  # type: ignore[attr-defined]
            or self.label_smoother is not None  # type: ignore[attr-defined]
            or args.use_liger_kernel
            or args.loss_type not in {"nll", "chunked_nll"}
            or "shift_labels" in inputs
        )
        return TRLS_OWN and not special

    def _fused(self, model: Any, inputs: Any, count: Any) -> tuple[Any, ...]:
        """Return loss, sum of entropies, right predictions and predictions, as trl 1.16 computes them."""
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        number = outputs.label_mask.sum()
        loss = -outputs.log_probs.sum() / torch.as_tensor(number if count is None else count).clamp(min=1)
        if count is not None:  # it is that of all processes, of whose gradients the mean is taken
            loss = loss * self.args.world_size  # type: ignore[attr-defined]
        return loss, outputs.entropy.detach().sum(), outputs.is_top1.sum(), number

    def _whole(self, model: Any, inputs: Any, count: Any) -> tuple[Any, ...]:
        """Return loss, sum of entropies, right predictions and predictions, as trl 1.14 computes them."""
        labels = inputs["labels"]
        inputs["use_cache"] = False
        loss, outputs = super(SFTTrainer, self).compute_loss(  # type: ignore[misc]
            model, inputs, return_outputs=True, num_items_in_batch=count
        )
        if self.args.loss_type == "chunked_nll":  # type: ignore[attr-defined]
            return loss, outputs.entropy_sum, outputs.num_correct_tokens, outputs.num_valid_tokens
        with torch.no_grad():
            logits, targets = outputs.logits[..., :-1, :], labels[..., 1:]
            mask = targets != -100
            entropy = (sft_trainer.entropy_from_logits(logits) * mask).sum()
            right = ((logits.argmax(dim=-1) == targets) & mask).sum()
        return loss, entropy, right, mask.sum()

    def _note(self, entropy: Any, right: Any, number: Any) -> None:
        metrics = self._metrics["train"]  # type: ignore[attr-defined]
        zero = torch.zeros((), device=number.device)
        for name, total in (("entropy", entropy), ("mean_token_accuracy", right)):
            metrics[name].append(torch.where(number > 0, total.detach() / number, zero))

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Count tokens by what the batch says of itself."""
        args = self.args  # type: ignore[attr-defined]
        if args.include_num_input_tokens_seen == "non_padding" and COUNT in inputs:
            self.state.num_input_tokens_seen += inputs[COUNT]  # type: ignore[attr-defined]
        else:
            super()._track_num_input_tokens(inputs)  # type: ignore[misc]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Read what waits on the device, all at once, and log."""
        for values in self._metrics.values():  # type: ignore[attr-defined]
            read(values)
        super().log(logs, start_time)  # type: ignore[misc]


def read(lists: dict[str, list[Any]]) -> None:
    """Put numbers in place of tensors that hold one each."""
    waiting = [(name, index) for name, each in lists.items() for index, one in enumerate(each) if torch.is_tensor(one)]
    if waiting:
        numbers = torch.stack([lists[name][index].double() for name, index in waiting]).tolist()
        for (name, index), number in zip(waiting, numbers, strict=True):
            lists[name][index] = number
