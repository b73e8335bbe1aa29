"""What every trainer is given, whatever its method: an order of rows and numbers that a resume does not change.

And no trainer asks the device for a number in a step that is not logged, so that the processor is ahead of it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler

from forge.api import Noted
from forge_huggingface.arguments.tables import MUON
from forge_huggingface.kernels.rounded import ROUNDED
from forge_huggingface.training.save import check_written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge_huggingface.training.learning import Learning
    from forge_huggingface.training.rates import Rates

WHOLE = frozenset({DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU})
"""Ways to train in which each process has all of the model."""

_IDS = ("input_ids", "prompt_ids", "completion_ids", "chosen_ids", "rejected_ids")


class Steady:
    """Put before a trainer: what it does after a resume is what it would have done without one.

    Attributes:
        whether_to_save: With ``save_strategy = "best"``: whether to save after an evaluation, from whether it was the
            best one so far.
        seconds_before: How long the run had trained before it was resumed.
        learning: Watches whether anything is learned.
        muon: Whether the optimizer is Muon, which transformers does not have.
        stopped: Whether the training ended because the run was asked to stop, and not by itself.
        rates: The rates of some parameters, where they are others than ``learning_rate``.
        filled: Tokens of all batches so far, with what fills them up; counted by their shapes.
        sequences: Rows of these batches.
        evaluating: Seconds of evaluations so far.
        saving: Seconds of saving checkpoints so far, and of loading the best one.
    """

    whether_to_save: Callable[[bool], bool] | None = None
    seconds_before: float = 0.0
    learning: Learning | None = None
    muon: bool = False
    stopped: bool = False
    rates: Rates | None = None
    filled: int = 0
    sequences: int = 0
    evaluating: float = 0.0
    saving: float = 0.0
    _began: float = 0.0
    _leaves_out = False
    _counted: int | None = None
    _trained: list[torch.nn.Parameter] | None = None
    _parts: list[torch.nn.Module] | None = None

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train, and look at the clock."""
        self._began = time.time()
        args = self.args  # type: ignore[attr-defined]  # the trainer's, here and below
        self._leaves_out, args.logging_nan_inf_filter = args.logging_nan_inf_filter, False
        try:
            return super().train(*arguments, **options)  # type: ignore[misc]  # the trainer behind it, here and below
        finally:
            args.logging_nan_inf_filter = self._leaves_out
            for model in (self.model, self.model_wrapped):  # type: ignore[attr-defined]
                vars(model).pop("zero_grad", None)
            ROUNDED.forget()

    def create_optimizer(self, *arguments: Any, **options: Any) -> Any:
        """Make the optimizer, with a group for each rate."""
        new = self.optimizer is None  # the trainer's
        if new and self.muon:
            from forge_huggingface.training.muon import make  # torch has it since 2.9

            decayed = frozenset(self.get_decay_parameter_names(self.model))  # type: ignore[attr-defined]
            self.optimizer: Any = make(self.model, self.args, decayed)  # type: ignore[attr-defined]
        optimizer = super().create_optimizer(*arguments, **options)  # type: ignore[misc]
        if new and self.rates is not None:
            counts = self.rates.part(optimizer, self.model)  # type: ignore[attr-defined]
            said = ", ".join(f"{rate:g} for {count:,} values" for rate, count in sorted(counts.items()))
            self.run.emit(Noted(f"learning rates: {said}"))  # type: ignore[attr-defined]
        return optimizer

    def get_train_dataloader(self) -> Any:
        """Return the trainer's own, whose workers outlive the wish to stop."""
        return _patient(super().get_train_dataloader())  # type: ignore[misc]

    def get_eval_dataloader(self, *arguments: Any, **options: Any) -> Any:
        """Return the trainer's own, whose workers outlive the wish to stop."""
        return _patient(super().get_eval_dataloader(*arguments, **options))  # type: ignore[misc]

    @property
    def optimizer_name(self) -> str:
        """What ``[train] optim`` says."""
        return MUON if self.muon else str(getattr(self.args.optim, "value", self.args.optim))  # type: ignore[attr-defined]

    def end_averages(self) -> None:
        """Put the averaged weights of a schedule-free optimizer into the model, those that it is evaluated with.

        In a step the model has others, between the average and the newest (Defazio et al., arXiv 2405.15682). A best
        checkpoint has the average already: it is saved right after an evaluation.
        """
        args, state = self.args, self.state  # type: ignore[attr-defined]
        best = args.load_best_model_at_end and state.best_model_checkpoint
        if self.optimizer is not None and not best and callable(getattr(self.optimizer, "eval", None)):
            self.optimizer.eval()

    def training_step(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """Count the batch, and take it forward and backward.

        A loss that is not finite is left out of the logged mean, without a look at it: the trainer asks the device of
        each loss whether it is finite, and waits (transformers 5.17 and 5.23).
        """
        self._count(inputs)
        if "zero_grad" not in vars(model) and self.accelerator.distributed_type in WHOLE:  # type: ignore[attr-defined]
            model.zero_grad = partial(_forget, self._parameters(model))
        with self._told_to_train(model), ROUNDED.batch():
            loss = super().training_step(model, inputs, *arguments, **options)  # type: ignore[misc]
        if not self._leaves_out:
            return loss
        state, total = self.state, self._tr_loss  # type: ignore[attr-defined]
        mean = total / (1 + state.global_step - self._globalstep_last_logged)  # type: ignore[attr-defined]
        return torch.where(torch.isfinite(loss), loss, mean.to(loss.dtype))

    @contextmanager
    def _told_to_train(self, model: Any) -> Iterator[None]:
        """Have a model not walk through all of its parts when it is told to train, where all of them do already."""
        if "train" in vars(model):  # another's way of its own
            yield
            return
        if self._parts is None:
            self._parts = list(model.modules())
        parts = self._parts

        def train(mode: bool = True) -> Any:
            return model if all(part.training is mode for part in parts) else type(model).train(model, mode)

        model.train = train
        try:
            yield
        finally:
            del model.train

    def _count(self, inputs: Any) -> None:
        ids = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
        if isinstance(ids, torch.Tensor):
            self.filled += ids.numel()
            ends, lengths = inputs.get("cu_seq_lens_q"), inputs.get("packed_seq_lengths")
            rows = len(ids) if lengths is None else len(lengths)
            self.sequences += rows if ends is None else len(ends) - 1

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip the gradients, as the trainer does, who walks through all of the model for them at each step."""
        if self.accelerator.distributed_type not in WHOLE:  # type: ignore[attr-defined]
            return super()._clip_grad_norm(model)  # type: ignore[misc]
        return self.accelerator.clip_grad_norm_(self._parameters(model), self.args.max_grad_norm)  # type: ignore[attr-defined]

    def _parameters(self, model: Any) -> list[torch.nn.Parameter]:
        """Return what is trained of the model, looked for once."""
        if self._trained is None:
            self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return self._trained

    def floating_point_ops(self, inputs: Any) -> int:
        """Return the operations of a batch, as the trainer does, who counts the model's parameters for each anew."""
        name = getattr(self.model, "main_input_name", "input_ids")  # type: ignore[attr-defined]
        if name not in inputs or not hasattr(self.model, "num_parameters"):  # type: ignore[attr-defined]
            return 0
        if self._counted is None:
            self._counted = int(self.model.num_parameters(exclude_embeddings=True))  # type: ignore[attr-defined]
        return 6 * int(inputs[name].numel()) * self._counted

    def check_written(self, folder: Path) -> None:
        """Compare what was written with what was trained. Raises what :func:`.save.check_written` raises."""
        own = getattr(super(), "check_written", None)  # of a trainer whose models are others
        own(folder) if own is not None else check_written(self.model, folder)  # type: ignore[attr-defined]

    def seconds(self) -> float:
        """Return how long the run has been trained, before it was resumed and since."""
        return self.seconds_before + time.time() - self._began

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate, and look at the clock."""
        args = self.args  # type: ignore[attr-defined]
        before = args.logging_nan_inf_filter
        args.logging_nan_inf_filter = before or self._leaves_out  # the trainer heeds it of held-out losses too
        try:
            with self._timed("evaluating"):
                return super().evaluate(*arguments, **options)  # type: ignore[misc]
        finally:
            args.logging_nan_inf_filter = before

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        with self._timed("saving"):
            super()._save_checkpoint(*arguments, **options)  # type: ignore[misc]

    def _load_best_model(self, *arguments: Any, **options: Any) -> None:
        with self._timed("saving"):
            super()._load_best_model(*arguments, **options)  # type: ignore[misc]

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) + time.monotonic() - start)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Have the last numbers tell of the whole run; the trainer counts from the resume on (transformers 5.23)."""
        state = self.state  # type: ignore[attr-defined]
        if "train_loss" in logs and state.global_step:
            logs["train_loss"] = self._total_loss_scalar / state.global_step  # type: ignore[attr-defined]
            logs["train_runtime"] += self.seconds_before
        super().log(logs, start_time)  # type: ignore[misc]

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best: bool = super()._determine_best_metric(metrics, trial)  # type: ignore[misc]
        return best if self.whether_to_save is None else self.whether_to_save(best)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return the trainer's sampler; one that goes by length is told the lengths, and shuffles by seed and epoch.

        The trainer measures the column ``input_ids``, which not all rows have, and shuffles with the random numbers of
        the whole process, whose state at the beginning of an epoch is in no checkpoint.
        """
        args: Any = self.args  # type: ignore[attr-defined]
        rows = self.train_dataset if train_dataset is None else train_dataset  # type: ignore[attr-defined]
        by_length = args.train_sampling_strategy in {"group_by_length", "batch_rebalance"}
        if not by_length or not isinstance(rows, Dataset) or not _sequences(rows):
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        known = Dataset.from_dict({args.length_column_name: lengths(rows)})
        sampler = super()._get_train_sampler(known)  # type: ignore[misc]
        seed = args.seed if args.data_seed is None else args.data_seed
        if isinstance(sampler, BatchRebalanceSampler):
            sampler.seed = seed
        if isinstance(sampler, LengthGroupedSampler):  # it counts the batches of a step of one process
            sampler.batch_size *= args.world_size
        return ByLength(sampler, seed) if isinstance(sampler, LengthGroupedSampler) else sampler


def _forget(parameters: list[torch.nn.Parameter], set_to_none: bool = True) -> None:
    """Drop the gradients, as ``Module.zero_grad`` does, which walks through all of the model for them at each step."""
    for parameter in parameters:
        if set_to_none:
            parameter.grad = None
        elif parameter.grad is not None:
            if parameter.grad.grad_fn is not None:
                parameter.grad.detach_()
            else:
                parameter.grad.requires_grad_(requires_grad=False)  # it may be a view of what is summed up
            parameter.grad.zero_()


class ByLength(LengthGroupedSampler):  # type: ignore[misc]  # transformers is Any to mypy: see pyproject
    """transformers' sampler, with an order for each epoch that depends on the seed alone."""

    def __init__(self, other: LengthGroupedSampler, seed: int) -> None:
        super().__init__(other.batch_size, lengths=other.lengths)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle as epoch ``epoch`` does."""
        self.generator = torch.Generator().manual_seed(self.seed + epoch)


def lengths(rows: Dataset) -> list[int]:
    """Return how many tokens each row has, all of its sequences together."""
    columns = _sequences(rows)
    counts = rows.select_columns(columns).with_format("arrow")
    found: list[int] = []
    for part in counts.iter(batch_size=1000):
        each = [part.column(name).combine_chunks().value_lengths().to_pylist() for name in columns]
        found += [sum(row) for row in zip(*each, strict=True)]
    return found


def _sequences(rows: Dataset) -> list[str]:
    """Return the columns that hold the tokens of a row; prompts of online methods are texts."""
    return [name for name in rows.column_names if name in _IDS or name.endswith("_input_ids")]


def _patient(loader: Any) -> Any:
    """Have the workers of a loader go on when all processes of a job are asked to end, as a cluster does.

    This process saves and stops after its step, and a worker that was gone would make that a failure.
    """
    own = getattr(loader, "base_dataloader", loader)  # accelerate's hold another one
    if own.num_workers and getattr(own.worker_init_fn, "func", None) is not _begin:  # a loader may be kept
        own.worker_init_fn = partial(_begin, own.worker_init_fn)
    return loader


def _begin(begin: Callable[[int], None] | None, number: int) -> None:
    if begin is not None:
        begin(number)
    signal.signal(signal.SIGTERM, _once)


def _once(number: int, _frame: object) -> None:
    """Heed the next wish to end: torch sends one to a worker that does not end by itself, and waits for it."""
    signal.signal(number, signal.SIG_DFL)
