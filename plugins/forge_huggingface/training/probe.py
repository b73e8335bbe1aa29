"""Finding out-of-memory in the first minute instead of the fifth hour, and saying what to change.

The probe runs the longest batch forward and backward, and the longest evaluation batch forward, before the first step.
It works on copies and puts everything back: the order of the rows, the random numbers, the gradients, the optimizer and
the trainer's counters are as if it had not been.
"""

from __future__ import annotations

import contextlib
import copy
import heapq
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from forge.api import Data, Estimate, OutOfMemory, first_line, load_object, setting
from forge.text.units import counted
from forge_huggingface.arguments.tables import MUON
from forge_huggingface.batches.tokens import COUNT
from forge_huggingface.model.device import is_out_of_memory, peak
from forge_huggingface.training.outlook import estimate_again

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Decision, Job, Run

PROBING = "in the probe of the longest batch, before the first step"
EVALUATING = "in the probe of the longest held-out batch, before the first step"

COUNTERS = (
    "_metrics",
    "_stored_metrics",
    "_total_train_tokens",
    "_step",
    "_current_train_step_time",
    "filled",
    "sequences",
)
"""What TRL's trainers count while they compute a loss (trl 1.14.2 and 1.16), and what forge counts of batches."""


def probe(
    trainer: Any,
    data: Data,
    job: Job,
    make_batch: Callable[[Any, Data], dict[str, Any]] | None = None,
    run: Run | None = None,
) -> dict[str, Any]:
    """Run the longest training and evaluation batches once.

    Args:
        trainer: The trainer.
        data: The rows.
        job: The job.
        make_batch: Makes the batch, for trainers that would answer prompts to get one; those then evaluate nothing.
        run: The run, whose plan says what would take less, if it does not fit.

    Returns:
        ``seconds`` for the training batch, ``memory`` in bytes at the peak, ``tokens`` in it, ``loss``.

    Raises:
        OutOfMemory: It does not fit; ``probing`` is set.
    """
    import torch

    args = trainer.args
    data = as_trained_on(trainer, data)
    rows = longest(data, args.per_device_train_batch_size)
    if not rows:
        return {}
    kept = {name: copy.deepcopy(getattr(trainer, name)) for name in COUNTERS if hasattr(trainer, name)}
    model, was_training = trainer.model_wrapped, trainer.model.training
    on_gpu = args.device.type == "cuda"
    ballast: list[Any] = []
    evaluating = False
    try:
        with same_random_numbers():
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
                ballast = optimizer_ballast(trainer)
            trainer.current_gradient_accumulation_steps = 1  # the loop sets it; a loss is divided by it
            start = time.perf_counter()
            batch = make_batch(trainer, data) if make_batch else trainer.data_collator(rows)
            tokens = batch.get(COUNT) or sum(
                int(value.numel()) for name, value in batch.items() if name.endswith("_ids")
            )
            with prepared(trainer) if make_batch else contextlib.nullcontext():
                loss = trainer.training_step(model, batch, None)
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
            model.zero_grad(set_to_none=True)
            if evaluating := bool(data.eval and make_batch is None):
                count = args.per_device_eval_batch_size
                evaluation = max((_longest_of(rows, count) for rows in data.eval.values()), key=_padded)
                if evaluation:
                    trainer.model.eval()
                    trainer.prediction_step(model, trainer.data_collator(evaluation), prediction_loss_only=True)
            return {"seconds": seconds, "memory": peak(), "tokens": tokens, "rows": len(rows), "loss": float(loss)}
    except Exception as error:
        if is_out_of_memory(error):
            raise explain_out_of_memory(
                error, trainer, data, job, run, when=EVALUATING if evaluating else PROBING
            ) from error
        raise
    finally:
        ballast.clear()
        model.zero_grad(set_to_none=True)
        trainer.model.train(was_training)
        for name, value in kept.items():
            setattr(trainer, name, value)
        if on_gpu:
            torch.cuda.empty_cache()


def as_trained_on(trainer: Any, data: Data) -> Data:
    """Return the rows with what the trainer has added: what the reference says of them, or other rows' answers."""
    held_out = trainer.eval_dataset if trainer.eval_dataset is not None else {}
    held_out = held_out if isinstance(held_out, dict) else {"eval": held_out}
    return replace(data, train=trainer.train_dataset, eval=held_out)


def longest(data: Data, count: int) -> list[dict[str, Any]]:
    """Return copies of the longest training rows; of a stream, its first ones."""
    if data.longest:
        rows = [dict(data.train[index]) for index in data.longest[:count]]
        if "KL_completion_ids" in rows[0]:  # kto's other answers, which may be as long as the longest
            for row, other in zip(rows, [rows[-1], *rows[:-1]], strict=True):
                row["KL_completion_ids"] = other["completion_ids"]
        return rows
    found = []
    for row in data.train:
        found.append(dict(row))
        if len(found) == count:
            break
    return found


def _longest_of(rows: Any, count: int) -> list[dict[str, Any]]:
    """Return copies of the longest rows; of a stream, and of rows without tokens, its first ones."""
    from datasets import Dataset

    from forge_huggingface.training.steady import lengths  # imports torch and transformers

    if not isinstance(rows, Dataset) or not (known := lengths(rows)):
        return [dict(row) for row, _ in zip(rows, range(count), strict=False)]
    order = heapq.nlargest(count, range(len(known)), key=known.__getitem__)
    return [dict(rows[index]) for index in order]


def _padded(rows: list[dict[str, Any]]) -> int:
    """Return the number of tokens of a batch, padding included."""
    return len(rows) * max((_length(row) for row in rows), default=0)


def _length(row: Mapping[str, Any]) -> int:
    """Return the number of tokens of a row of any layout."""
    return sum(len(value) for name, value in row.items() if name.endswith("_ids"))


@contextlib.contextmanager
def prepared(trainer: Any) -> Iterator[None]:
    """Let the trainer take the batch that it is given, instead of answering prompts to make one."""
    trainer._prepare_inputs = lambda batch: batch  # noqa: SLF001 - the same method in trl 1.14.2 and 1.16
    try:
        yield
    finally:
        del trainer._prepare_inputs  # noqa: SLF001 - the class's own is there again


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    """Leave the random numbers of Python, numpy and torch (on the CPU and on CUDA) as they were."""
    import numpy as np
    import torch

    plain, array = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(array)


def optimizer_ballast(trainer: Any) -> list[Any]:
    """Take the memory that the optimizer will take at its first step: two values for each trained one, for Adam."""
    import torch

    name = trainer.optimizer_name
    if "adam" not in name.lower() and name != MUON:
        return []
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    here = [each.to_local() if hasattr(each, "to_local") else each for each in trained]  # of a sharded one its part
    count = sum(each.numel() * (1 if "8bit" in name else each.element_size()) for each in here)
    return [torch.empty((1 if name == MUON else 2) * count, dtype=torch.uint8, device=trainer.args.device)]


def explain_out_of_memory(
    error: BaseException, trainer: Any, data: Data, job: Job, run: Run | None = None, *, when: str | None = None
) -> OutOfMemory:
    """Say what ran out, and name the keys that help, in the order of their effect: the estimate's, with numbers.

    Args:
        error: What was raised.
        trainer: The trainer.
        data: The rows.
        job: The job, nothing left open.
        run: The run, whose plan knows an estimate.
        when: :data:`PROBING` or :data:`EVALUATING`; None in the training.
    """
    args = trainer.args
    longest_row = data.summary.get("longest") or "?"
    used = peak()
    size = args.per_device_eval_batch_size if when == EVALUATING else args.per_device_train_batch_size
    rows = f"{counted(size, 'row')} of up to {longest_row} tokens"
    why = counted(size, "held-out row") if when == EVALUATING else rows
    if used:
        why += f", {used / 2**30:.1f} GiB in use at the peak"
    changes = relief(args, job, run, data, evaluating=when == EVALUATING) if run and when else []
    names = [setting(change["key"], change["value"]) for change in changes if change["value"] is not None]
    if not quantised(trainer) and any("lora_" in name for name, _ in trainer.model.named_parameters()):
        names.append("[model] load_in_4bit = true")
    names.append("a smaller [model] max_seq_length")
    estimate = estimate_again(job, run, data) if run else None
    if estimate and estimate.levers and when != EVALUATING:
        names = _levers(estimate)
    return OutOfMemory(
        f"out of memory {when or f'at step {trainer.state.global_step}'}",
        f"{why} ({first_line(error)[:160]})",
        f"in order of effect: {'; '.join(names)}",
        probing=when is not None,
        relief=changes,
    )


def explain_preparing(error: BaseException, job: Job, estimate: Estimate | None) -> OutOfMemory:
    """Say what ran out before there is a trainer: while the reference is asked about all rows, or a copy is loaded."""
    options = job.train.options
    asked = bool(options.get("precompute_ref_log_probs"))
    when = "while the reference was asked" if asked else "while the trainer was made"
    names = _levers(estimate) if estimate else []
    size = int(options.get("precompute_ref_batch_size") or options.get("per_device_train_batch_size") or 8)
    if asked and size > 1:
        names.insert(0, f"[train] precompute_ref_batch_size = {size // 2}")
    return OutOfMemory(
        f"out of memory {when}, before the first step",
        first_line(error)[:160],
        f"in order of effect: {'; '.join(names or ['a smaller [model] max_seq_length'])}",
        probing=True,
        relief=[],
    )


def _levers(estimate: Estimate) -> list[str]:
    return [f"{lever} (about {lever.saves / 2**30:.1f} GiB less)" for lever in estimate.levers]


def quantised(trainer: Any) -> bool:
    """Whether the model is in 4 or 8 bit already."""
    return any(getattr(trainer.model, f"is_loaded_in_{bits}bit", False) for bits in (4, 8))


def relief(args: Any, job: Job, run: Run, data: Data, *, evaluating: bool) -> list[Mapping[str, Any]]:
    """Return changes that belong together, keep the training the same and take less memory; none if there are none.

    They hold what memory has decided so far too: the next attempt begins where this one ended.
    """
    plan = run.plan
    step = next((step for step in plan.steps if step.fit), None)
    if step is None or step.fit is None:
        return []
    function = cast("Callable[..., Iterable[Decision]]", load_object(step.fit))
    found = function(
        plan.machine,
        job,
        plan.facts,
        asked=plan.asked(),
        named=frozenset(plan.named),
        rows=data.summary,
        failed=not evaluating,
    )
    changes: list[Mapping[str, Any]] = [{"key": each.key, "value": each.value, "reason": each.reason} for each in found]
    if not evaluating:
        return changes
    size = args.per_device_eval_batch_size
    if size == 1:
        return []
    changes = [{**change, "value": _value(job, change["key"]), "reason": "as before"} for change in changes]
    reason = f"the longest held-out batch of {counted(size, 'row')} did not fit"
    return [*changes, {"key": "train.per_device_eval_batch_size", "value": size // 2, "reason": reason}]


def _value(job: Job, key: str) -> Any:
    return job.train.options.get(key.removeprefix("train."))
