"""Held-out numbers that do not depend on ``per_device_eval_batch_size``.

transformers and TRL take the mean over batches of what each batch has as its mean over tokens, rows or answers, so that
a short row, or the last batch, counts for more the smaller it is (transformers 5.17 and 5.23, trl 1.14 and 1.16). These
numbers choose the best checkpoint and stop early, and another batch size would choose another one. Here each number is
the mean of all that it is a mean of.

Of several processes each takes every n-th batch, the same batches that one process would take, and measures it by
itself; what they found is put together in the end. accelerate would fill the last batches up with rows that were seen
before, and TRL 1.14 would then count a part of the tokens only. In training too each measures its own batches, and what
all have measured is put together when it is logged: they are the batches that one process would take one after another,
and a number that is measured of a batch, as KTO's estimate of how far the model has moved, is the same.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from forge_huggingface.training.together import joined


@dataclass(frozen=True, slots=True)
class Batch:
    """What an evaluation found in a batch.

    Attributes:
        loss: The loss.
        measured: What the trainer measured beside it.
        counts: How much of each unit is in the batch: rows, tokens and the like.
        told: What the model said of the rows, and what they say themselves, where numbers are made of all of that.
    """

    loss: float
    measured: Mapping[str, float]
    counts: Mapping[str, float]
    told: Any = None


class Weighed:
    """Put before a trainer: an evaluation weighs each batch by what its numbers are means of.

    Attributes:
        units: What each number is a mean of; of rows where it is not said.
    """

    units: ClassVar[Mapping[str, str]] = {}
    apart: ClassVar[bool] = True
    """Whether each process can evaluate by itself; not so where it compares its rows with the others'."""

    _batches: list[Batch] | None = None  # of the evaluation under way; the probe takes a step without one
    _prepared: Any = None
    _mine = 0  # batches of this process that are its own

    def counts(self, inputs: Any) -> Mapping[str, float]:
        """Return how much of each unit is in a batch."""
        raise NotImplementedError

    def names(self, batches: list[Batch]) -> list[str]:
        """Return what is measured beside the loss."""
        return list(dict.fromkeys(name for each in batches for name in each.measured))

    def told(self, logits: Any, labels: Any) -> Any:  # noqa: ARG002 - for those that keep some of it
        """Return what is kept of a batch, for :meth:`of_all`."""
        return None

    def of_all(self, batches: list[Batch]) -> Mapping[str, float]:  # noqa: ARG002 - as above
        """Return the numbers that are made of all rows together, not of means of batches."""
        return {}

    def held_out_loss(self, batches: list[Batch]) -> float:
        """Return the loss of all batches."""
        unit = self.units.get("loss", "rows")
        return mean([(each.loss, each.counts[unit]) for each in batches])

    def held_out(self, name: str, batches: list[Batch]) -> float:
        """Return a number of all batches."""
        values = [
            (each.measured[name], each)
            for each in batches
            if name in each.measured and not math.isnan(each.measured[name])  # a reward may have nothing to say
        ]
        if not values:
            return math.nan
        words = name.rpartition("/")[2].split("_")
        if words[0] == "min" or words[-1] == "min":
            return min(value for value, _ in values)
        if words[0] == "max" or words[-1] == "max":
            return max(value for value, _ in values)
        unit = self.units.get(name, "rows")
        return mean([(value, each.counts[unit]) for value, each in values])

    def _prepare_inputs(self, inputs: Any) -> Any:
        prepared = super()._prepare_inputs(inputs)  # type: ignore[misc]  # the trainer behind it, here and below
        if self._batches is not None:
            self._prepared = copy.copy(prepared)  # the loss may take things out of it
        return prepared

    def prediction_step(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        """Note what a batch's numbers are, and what they are means of."""
        before = {name: len(values) for name, values in self._measured().items()}
        self._prepared = copy.copy(inputs)
        loss, logits, labels = super().prediction_step(model, inputs, *rest, **options)  # type: ignore[misc]
        if self._batches is not None:
            kept = self._measured().items()
            measured = {name: float(values[-1]) for name, values in kept if len(values) > before.get(name, 0)}
            counts = self.counts(self._prepared)
            if self._spread and len(self._batches) >= self._mine:  # another process has one more
                counts = dict.fromkeys(counts, 0)
            self._batches.append(Batch(float(loss), measured, counts, self.told(logits, labels)))
        return loss, logits, labels

    def evaluation_loop(self, *arguments: Any, metric_key_prefix: str = "eval", **options: Any) -> Any:
        """Put the numbers of all batches in place of the means over batches."""
        batches: list[Batch] = []
        self._batches = batches
        try:
            with by_itself(self) if self._spread else contextlib.nullcontext():
                output = super().evaluation_loop(  # type: ignore[misc]
                    *arguments, metric_key_prefix=metric_key_prefix, **options
                )
        finally:
            self._batches = None
        if self.args.world_size > 1:  # type: ignore[attr-defined]
            batches = [each for found in self.run.group.gather(batches) for each in found if each.counts["rows"]]  # type: ignore[attr-defined]
        if not math.isnan(loss := self.held_out_loss(batches)):  # it is where there is nothing to be the mean of
            output.metrics[f"{metric_key_prefix}_loss"] = loss
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in self.of_all(batches).items()})
        measured = self._measured()
        for name in self.names(batches):
            measured[name] = [self.held_out(name, batches)]  # the trainer averages what is in it when it logs
        if self._spread and "num_tokens" in measured:
            measured["num_tokens"] = [sum(self.run.group.gather(self._total_train_tokens))]  # type: ignore[attr-defined]
        return output

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        """Compute the loss of a batch from this batch alone, and measure it alone."""
        if not self._spread or self._batches is not None:  # of an evaluation, it is so already
            return super().compute_loss(*arguments, **options)  # type: ignore[misc]
        with to_itself(self.accelerator):  # type: ignore[attr-defined]
            return super().compute_loss(*arguments, **options)  # type: ignore[misc]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Put together what all processes have measured in training since the last log, and log."""
        if self._spread and self.model.training:  # type: ignore[attr-defined]
            measured = self._measured("train")
            found = joined(self.run.group.gather(floats(measured)))  # type: ignore[attr-defined]
            measured.clear()
            measured.update(found)
        super().log(logs, start_time)  # type: ignore[misc]

    @property
    def _spread(self) -> bool:
        return self.apart and self.args.world_size > 1  # type: ignore[attr-defined]

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the trainer's batches of held-out rows, or this process's share of the same batches."""
        if not self._spread:
            return super().get_eval_dataloader(eval_dataset)  # type: ignore[misc]
        rows = self.eval_dataset if eval_dataset is None else eval_dataset  # type: ignore[attr-defined]
        rows = self.eval_dataset[rows] if isinstance(rows, str) else rows  # type: ignore[attr-defined]
        return share_of(self, rows)

    def _measured(self, when: str = "eval") -> Any:
        """Return what the trainer has measured since the last log: a list for each name, a value for each batch."""
        if (kept := getattr(self, "_metrics", None)) is not None:
            return kept[when]
        return kept[when] if (kept := getattr(self, "_stored_metrics", None)) is not None else {}


class Tokenwise(Weighed):
    """Put before a trainer whose numbers are means over the labels of a batch."""

    units: ClassVar[Mapping[str, str]] = dict.fromkeys(("loss", "entropy", "mean_token_accuracy"), "tokens")

    ahead = 1
    """How many labels of a row nothing predicts: the first one, where each token predicts the next."""

    def counts(self, inputs: Any) -> Mapping[str, float]:
        """Count rows and labels."""
        labels = inputs["labels"]
        return {"rows": len(labels), "tokens": int((labels[..., self.ahead :] != -100).sum())}


class Answerwise(Weighed):
    """Put before a trainer whose model answers prompts: its numbers are means over answers, or over their tokens."""

    apart = False  # the answers to a prompt are compared with each other, and may be several processes'
    _weights: Sequence[float] = ()  # of the batches of an evaluation, where several processes share them

    units: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("entropy", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"), "tokens"
        ),
        "completions/mean_terminated_length": "ended",
        "tools/failure_frequency": "calls",
    }

    def counts(self, inputs: Any) -> Mapping[str, float]:
        """Count answers, their tokens, and the answers that came to an end."""
        mask = inputs["completion_mask"]
        written = mask * inputs["tool_mask"] if "tool_mask" in inputs else mask  # by the model, not by a tool
        cut = self._measured()["completions/clipped_ratio"]
        calls = self._measured().get("tools/call_frequency")
        weight = self._weights[len(self._batches)] if self._weights and self._batches is not None else 1
        found = {
            "rows": len(mask),
            "tokens": int(written.sum()),
            "ended": len(mask) * (1 - cut[-1] if cut else 1),
            "calls": len(mask) * calls[-1] if calls else 0,
        }
        return {name: count * weight for name, count in found.items()}

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the trainer's batches of held-out prompts, of which several processes share each as evenly."""
        args = self.args  # type: ignore[attr-defined]  # the trainer's, here and below
        if args.world_size == 1:
            return super().get_eval_dataloader(eval_dataset)
        rows = self.eval_dataset if eval_dataset is None else eval_dataset  # type: ignore[attr-defined]
        rows = self.eval_dataset[rows] if isinstance(rows, str) else rows  # type: ignore[attr-defined]
        asked = list(self._get_eval_sampler(rows))  # type: ignore[attr-defined]
        every, self._weights = even(
            asked, getattr(self, "num_generations_eval", 1), args.eval_batch_size * args.world_size
        )
        first = args.process_index * args.eval_batch_size
        return loader_of(self, rows, [batch[first : first + args.eval_batch_size] for batch in every])

    def held_out(self, name: str, batches: list[Batch]) -> float:
        """Leave out the batches in which no answer came to an end, where it is about such answers."""
        if "terminated" in name:
            batches = [each for each in batches if each.counts["ended"] > 0] or batches
        return super().held_out(name, batches)


class Pairwise(Weighed):
    """Put before a trainer whose batches are pairs, the better answers first, told apart from prompts by a mask."""

    units: ClassVar[Mapping[str, str]] = {
        "entropy": "tokens",
        "logits/chosen": "chosen",
        "logits/rejected": "rejected",
        "mean_token_accuracy": "chosen",
    }

    def counts(self, inputs: Any) -> Mapping[str, float]:
        """Count pairs, and the tokens of the answers."""
        chosen, rejected = (int(each[:, 1:].sum()) for each in inputs["completion_mask"].chunk(2))
        return {
            "rows": len(inputs["completion_mask"]) // 2,
            "chosen": chosen,
            "rejected": rejected,
            "tokens": chosen + rejected,
        }


def even(asked: Sequence[int], group: int, size: int) -> tuple[list[list[int]], list[float]]:
    """Return rows in batches that are all full, and what each batch weighs.

    What does not fill a batch fills one several times over, groups whole: so its rows count alike, and the batch weighs
    as much less. accelerate would fill up with rows of other batches, which would count twice.

    Args:
        asked: The rows, each as often as it is answered.
        group: How many answers are compared with each other.
        size: The rows of a batch, a multiple of ``group``.

    >>> even([0, 0, 1, 1, 2, 2], 2, 4)
    ([[0, 0, 1, 1], [2, 2, 2, 2]], [1.0, 0.5])
    """
    batches, weights, start = [], [], 0
    while start < len(asked):
        most = min(size, len(asked) - start) // group * group
        count = next(count for count in range(most, 0, -group) if size % count == 0)
        batches.append([*asked[start : start + count]] * (size // count))
        weights.append(count / size)
        start += count
    return batches, weights


def share_of(trainer: Any, rows: Any) -> Any:
    """Return every n-th batch of held-out rows; one that is a process's too many is the first one again."""
    args, size = trainer.args, trainer.args.eval_batch_size
    every = [list(range(start, min(start + size, len(rows)))) for start in range(0, len(rows), size)]
    mine = every[args.process_index :: args.world_size]
    trainer._mine = len(mine)  # noqa: SLF001 - its own, told to it
    mine += every[:1] * (-(-len(every) // args.world_size) - len(mine))  # a sharded model takes all to each batch
    return loader_of(trainer, rows, mine)


def loader_of(trainer: Any, rows: Any, batches: list[list[int]]) -> Any:
    """Return what loads these batches of held-out rows for this process, as a trainer's own loader does."""
    from accelerate.data_loader import prepare_data_loader
    from torch.utils.data import DataLoader

    args = trainer.args
    loader = DataLoader(
        rows,
        batch_sampler=batches,
        collate_fn=trainer.data_collator,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
    )
    return prepare_data_loader(loader, device=args.device, num_processes=1, process_index=0, put_on_device=True)


@contextlib.contextmanager
def by_itself(trainer: Any) -> Iterator[None]:
    """Have a trainer measure what this process sees, and nothing of what the others see."""
    args, gather = trainer.args, trainer.gather_function
    averages = args.average_tokens_across_devices
    args.average_tokens_across_devices, trainer.gather_function = False, alone
    try:
        with to_itself(trainer.accelerator):
            yield
    finally:
        args.average_tokens_across_devices, trainer.gather_function = averages, gather


@contextlib.contextmanager
def to_itself(accelerator: Any) -> Iterator[None]:
    """Have what is asked of all processes answered by this one."""
    accelerator.gather = accelerator.gather_for_metrics = alone
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics  # the class's own are there again


def floats(measured: Mapping[str, list[Any]]) -> dict[str, list[float]]:
    """Return what was measured as numbers."""
    return {name: [*map(float, values)] for name, values in measured.items()}


def alone(value: Any, *_: Any, **__: Any) -> Any:
    """Return what one process has, as what all have: a number as a row of one."""
    return value[None] if getattr(value, "ndim", 1) == 0 else value


def mean(values: list[tuple[float, float]]) -> float:
    """Return the mean of means, each with how many it is the mean of; one of none has no say."""
    total = sum(count for _, count in values)
    return sum(value * count for value, count in values if count) / total if total else math.nan
