"""The loop: steps, evaluations, logs and checkpoints, with the meanings that transformers' trainer gives their keys."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from forge.api import (
    Data,
    DryRunDone,
    EvalLogged,
    Interrupted,
    ModelError,
    Noted,
    OutOfMemory,
    Probed,
    Progress,
    SpeedMeasured,
    StepLogged,
    TrainingStarted,
    first_line,
)
from forge_huggingface.training.outlook import estimate_again
from forge_huggingface.training.probe import relief
from forge_mlx.training.batches import Schedule, rates, split
from forge_mlx.training.checkpointing import recompute
from forge_mlx.training.objectives import Prepared, objective_of
from forge_mlx.training.optimizers import Arrays, clipped, optimizer_of
from forge_mlx.training.state import State, restore, save, take, trained
from forge_mlx.training.when import When

if TYPE_CHECKING:
    from forge.api import Job, Run

_SHORT = re.compile(r"memory|alloc", re.IGNORECASE)
_HIGHER = ("accuracies", "accuracy", "margins", "chosen")
"""Ends of what is better the higher it is."""


class Loop:
    """One training.

    Args:
        job: The job.
        run: The run, which hears of each step.
        module: The model; what is to be trained of it is not frozen.
        data: The rows.
    """

    def __init__(self, job: Job, run: Run, module: Any, data: Data) -> None:
        self.job, self.run, self.module, self.data = job, run, module, data
        self.options: Mapping[str, Any] = job.train.options
        self.schedule = Schedule(lengths(data.train), self.options)
        self.steps = self.schedule.steps
        self.when = When(self.options, self.steps, self.schedule.steps_of_an_epoch)
        self.rate = rates(self.options, self.steps)
        self.objective = objective_of(job, module)
        self.optimizer = optimizer_of(self.options)
        self.gradients = nn.value_and_grad(module, self.objective.sums)
        self.state = State()
        self.best: Arrays | None = None
        self.seconds: dict[str, float] = {"first": 0.0, "steps": 0.0, "evaluating": 0.0, "saving": 0.0}
        self.begins = self.tokens_before = self.padded = 0
        self.told = time.monotonic()
        if self.options["gradient_checkpointing"]:
            recompute(module, (self.options.get("gradient_checkpointing_kwargs") or {}).get("every_n_layers") or 1)

    def run_all(self) -> None:
        """Train all steps that are left."""
        run = self.run
        if run.resume:
            self.state, self.best = restore(run.resume, self.module, self.optimizer)
        elif self.job.train.probe:
            self.try_longest()
        begins = self.begins = self.state.step
        self.tokens_before = self.state.tokens
        run.graceful.set()  # from here on a wish to stop is heeded
        run.emit(TrainingStarted(self.steps, begins, self.steps / self.schedule.steps_of_an_epoch))
        if begins == 0 and self.options["eval_on_start"]:
            self.timed("evaluating", self.evaluate)
        while not self.over:
            norm = self.timed("first" if self.state.step == begins else "steps", self.step)
            self.after(norm)
        if self.state.step - begins > 1:
            self.tell_speed(self.state.step - begins - 1)
        if self.options["load_best_model_at_end"] and self.best is not None:
            take(self.module, self.best)

    @property
    def over(self) -> bool:
        """Whether the training has come to its end."""
        return self.state.ended or self.state.step >= self.steps

    def after(self, norm: float) -> None:
        """Do what is due after a step: log, evaluate, save, stop."""
        step, run = self.state.step, self.run
        self.tell(norm)
        if self.data.eval and self.when.evaluates(step):
            self.timed("evaluating", self.evaluate)
            self.state.ended = self.stale()
        stops = run.stop.is_set() and not self.over
        if stops or self.when.saves(step) or (self.over and self.when.saves(self.steps)):
            self.timed("saving", self.save)
        if stops:
            raise Interrupted(f"stopped at step {step} of {self.steps}, checkpoint-{step} is whole")

    def step(self) -> float:
        """Train one step, and return the length that its gradient had."""
        state = self.state
        state.step += 1
        self.module.train()
        mx.random.seed(self.options["seed"] + state.step)  # dropout draws the same after a resume
        batches = [self.prepared(self.rows(indices)) for indices in self.schedule.batches(state.step)]
        count = max(1, sum(each.count for each in batches))
        total: Arrays = {}
        measured: dict[str, float] = {}
        for each in batches:
            sums, gradients = self.backward(each)
            total = {name: total[name] + value for name, value in gradients.items()} if total else gradients
            mx.eval(total)
            measured = {name: measured.get(name, 0.0) + value for name, value in sums.items()}
        found = {name: value / count for name, value in measured.items()}
        if not math.isfinite(found["loss"]):
            why = f"the loss of step {state.step} is {found['loss']}"
            raise ModelError("the training has failed", why, "lower learning_rate, and look at the rows")
        gradients, length = clipped(
            {name: value / count for name, value in total.items()}, self.options["max_grad_norm"]
        )
        rate = self.options["learning_rate"] * self.rate(state.step - 1)
        take(self.module, self.optimizer.step(trained(self.module), gradients, rate, state.step))
        mx.eval(self.module.parameters(), self.optimizer.state, length)
        self.note(found, sum(each.batch.tokens for each in batches))
        self.padded += sum(each.batch.ids.size for each in batches)
        return float(length)

    def note(self, found: Mapping[str, float], tokens: int) -> None:
        """Add up what a step found."""
        state = self.state
        state.total += found["loss"]
        state.recent = {name: state.recent.get(name, 0.0) + value for name, value in found.items()}
        state.unlogged += 1
        state.tokens += tokens

    def prepared(self, rows: Sequence[Mapping[str, Any]]) -> Prepared:
        """Return rows as the method takes them."""
        return self.objective.prepare(self.module, rows)

    def backward(self, batch: Prepared) -> tuple[dict[str, float], Arrays]:
        """Return the sums of a batch, the loss among them, and its gradients by name."""
        try:
            (loss, measured), gradients = self.gradients(self.module, batch)
            flat = dict(tree_flatten(gradients))
            mx.eval(loss, measured, flat)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not _SHORT.search(str(error)):
                raise
            raise self.too_large(batch, error) from error
        return {"loss": float(loss), **{name: float(value) for name, value in measured.items()}}, flat

    def too_large(self, batch: Prepared, error: BaseException) -> OutOfMemory:
        """Return what is told of a batch that does not fit, with what takes less if it is the probe's."""
        probing = self.state.step == 0
        rows, width = batch.batch.ids.shape
        return OutOfMemory(
            f"{rows} rows of up to {width} tokens do not fit into memory",
            first_line(error),
            "lower per_device_train_batch_size or [model] max_seq_length, or write gradient_checkpointing = true",
            probing=probing,
            relief=relief(None, self.job, self.run, self.data, evaluating=False) if probing else [],
        )

    def evaluate(self) -> None:
        """Take the means of the held-out rows: over tokens, or over pairs."""
        self.module.eval()
        found: dict[str, float] = {}
        for name, rows in self.data.eval.items():
            sums: dict[str, float] = {}
            count, indices = 0, list(range(len(rows)))
            for chosen in split(indices, self.options["per_device_eval_batch_size"]):
                batch = self.prepared([rows[index] for index in chosen])
                loss, measured = self.objective.sums(self.module, batch)
                mx.eval(loss, measured)
                for key, value in {"loss": loss, **measured}.items():
                    sums[key] = sums.get(key, 0.0) + float(value)
                count += batch.count
            # A single set has the plain name, as transformers' trainer gives it.
            prefix = "eval" if len(self.data.eval) == 1 else f"eval_{name}"
            found |= {f"{prefix}_{key}": value / max(1, count) for key, value in sums.items()}
        self.state.evaluated = found
        self.run.emit(EvalLogged(self.state.step, self.steps, more={"epoch": self.epoch, **found}))
        self.compare(found)

    def compare(self, found: Mapping[str, float]) -> None:
        """See whether an evaluation is the best so far, and keep its weights if the job wants them."""
        patience = self.job.train.early_stopping_patience
        if not patience and not self.options["load_best_model_at_end"]:
            return
        name = (self.options["metric_for_best_model"] or "loss").removeprefix("eval_")
        key = f"eval_{name}" if f"eval_{name}" in found else next(each for each in found if each.endswith(f"_{name}"))
        higher = self.options["greater_is_better"]
        higher = name.endswith(_HIGHER) if higher is None else higher
        state, value = self.state, found[key]
        gain = math.inf if state.best is None else (value - state.best if higher else state.best - value)
        state.without = 0 if gain > 0 and gain > self.job.train.early_stopping_threshold else state.without + 1
        if gain > 0:
            state.best, state.best_step = value, state.step
            if self.options["load_best_model_at_end"]:
                self.best = dict(trained(self.module))

    def stale(self) -> bool:
        """Whether so many evaluations in a row were no better that the job wants to stop."""
        patience = self.job.train.early_stopping_patience
        if not patience or self.state.without < patience:
            return False
        message = f"stopping early at step {self.state.step}: {self.state.without} evaluations were no better"
        self.run.emit(Noted(f"{message} than that of step {self.state.best_step}"))
        return True

    def save(self) -> None:
        """Save a checkpoint."""
        keep = self.options["save_total_limit"] or 2
        with self.run.checkpoint(self.state.step, keep=keep, finished=self.over) as folder:
            save(folder, self.state, self.module, self.optimizer, self.best)

    def try_longest(self) -> None:
        """Take the longest batch forward and backward, so that a lack of memory is told now and not after hours."""
        rows = self.rows(self.data.longest[: self.schedule.size] or [0])
        start = time.monotonic()
        self.module.train()
        mx.random.seed(self.options["seed"])
        batch = self.prepared(rows)
        sums, _ = self.backward(batch)
        seconds, memory = round(time.monotonic() - start, 3), mx.get_peak_memory()
        loss, tokens = sums["loss"] / max(1, batch.count), batch.batch.ids.size
        self.run.emit(Probed(rows=len(rows), tokens=tokens, seconds=seconds, memory=memory, loss=loss))
        if self.run.dry_run:
            of_a_step = round(seconds * self.options["gradient_accumulation_steps"], 3)
            longest, estimate = self.data.summary.get("longest"), estimate_again(self.job, self.run, self.data)
            told = estimate.to_json() if estimate else None
            self.run.emit(DryRunDone(self.steps, of_a_step, memory=memory, longest=longest, estimate=told))

    def rows(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        """Return training rows."""
        return [self.data.train[index] for index in indices]

    @property
    def epoch(self) -> float:
        """The passes over the rows so far."""
        return round(self.state.step / self.schedule.steps_of_an_epoch, 4)

    def timed(self, what: str, function: Callable[[], Any]) -> Any:
        """Call a function, and add what it takes to the seconds of its kind."""
        start = time.monotonic()
        try:
            return function()
        finally:
            self.seconds[what] += time.monotonic() - start

    def tell(self, norm: float) -> None:
        """Log a step where it is due, and else say now and then that there was one."""
        state = self.state
        took = self.seconds["first"] + self.seconds["steps"]
        left = round((self.steps - state.step) * took / (state.step - self.begins), 1)
        if self.when.logs(state.step):
            rate = self.options["learning_rate"] * self.rate(state.step - 1)
            found = {name: value / state.unlogged for name, value in state.recent.items()}
            loss = found.pop("loss")
            numbers = {
                **found,
                "learning_rate": rate,
                "grad_norm": norm,
                "epoch": self.epoch,
                "num_tokens": state.tokens,
            }
            state.recent, state.unlogged, state.logs = {}, 0, state.logs + 1
            state.idle = state.idle + 1 if norm == 0 else 0
            speed = round((state.tokens - self.tokens_before) / took, 1) if took else None
            memory = mx.get_peak_memory()
            self.run.emit(StepLogged(state.step, self.steps, loss, speed, left, memory=memory, more=numbers))
        elif time.monotonic() - self.told >= 1:
            self.run.emit(Progress(state.step, self.steps, left, mx.get_peak_memory()))
        else:
            return
        self.told = time.monotonic()

    def tell_speed(self, steps: int) -> None:
        """Say how fast the training was, by what forge knows later how long others will take."""
        took = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
        tokens, seconds = self.state.tokens - self.tokens_before, self.seconds["first"] + self.seconds["steps"]
        self.run.emit(
            SpeedMeasured(
                took["first"],
                steps,
                took["steps"],
                took["evaluating"],
                took["saving"],
                tokens=tokens,
                padded=self.padded,
                padding=round(1 - tokens / self.padded, 4),
                tokens_per_second=round(tokens / seconds, 1),
            )
        )


def lengths(rows: Any) -> list[int]:
    """Return how many tokens each row has, all of its sequences together."""
    return [sum(len(value) for name, value in row.items() if name.endswith("_ids")) for row in rows]
