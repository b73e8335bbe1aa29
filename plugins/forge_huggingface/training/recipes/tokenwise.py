"""The held-out loss as the mean over all tokens, whatever ``per_device_eval_batch_size`` is.

transformers averages over batches what each batch has as its mean over tokens, so that a short row counts for more the
smaller the batches are (transformers 5.17 and 5.23). That number chooses the best checkpoint and stops early, and
another batch size would choose another one.
"""

from __future__ import annotations

from typing import Any

MEANS = ("entropy", "mean_token_accuracy")
"""What TRL's trainer measures beside the loss, for each batch as its mean over tokens too."""


class Tokenwise:
    """Put before a trainer whose loss is a batch's mean over tokens: an evaluation weighs each batch by its tokens."""

    ahead = 1
    """How many labels of a row nothing predicts: the first one, where each token predicts the next."""

    _batches: list[tuple[float, int]] | None = None  # of the evaluation under way; the probe takes a step without one

    def prediction_step(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        """Note a batch's loss and how many tokens it is the mean of."""
        count = int((inputs["labels"][..., self.ahead :] != -100).sum())
        loss, logits, labels = super().prediction_step(model, inputs, *rest, **options)  # type: ignore[misc]
        if self._batches is not None:
            self._batches.append((float(loss), count))
        return loss, logits, labels

    def evaluation_loop(self, *arguments: Any, metric_key_prefix: str = "eval", **options: Any) -> Any:
        """Put the means over all tokens in place of the means over batches."""
        batches = self._batches = []
        try:
            output = super().evaluation_loop(  # type: ignore[misc]  # the trainer behind it
                *arguments, metric_key_prefix=metric_key_prefix, **options
            )
        finally:
            self._batches = None
        losses, counts = [loss for loss, _ in batches], [count for _, count in batches]
        if any(counts):
            output.metrics[f"{metric_key_prefix}_loss"] = mean(losses, counts)
            measured = getattr(self, "_metrics", {}).get("eval", {})
            for name in MEANS:
                if len(measured.get(name, ())) == len(counts):  # the trainer averages what is in it when it logs
                    measured[name] = [mean(measured[name], counts)]
        return output


def mean(values: list[float], counts: list[int]) -> float:
    """Return the mean of all tokens, of batches' means and how many tokens each has; one without tokens has none."""
    return sum(value * count for value, count in zip(values, counts, strict=True) if count) / sum(counts)
