"""Trains: a loop in plain torch."""

from __future__ import annotations

import math
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from forge.api import (
    Data,
    DryRunDone,
    EvalLogged,
    Interrupted,
    Loaded,
    ModelError,
    OutOfMemory,
    Probed,
    Progress,
    SpeedMeasured,
    StepLogged,
    Trained,
    TrainingStarted,
)
from torch.nn.functional import cross_entropy

from forge_plain import TRAINED
from forge_plain.batches import IGNORED, Schedule, batch_of, counted
from forge_plain.options import Options
from forge_plain.state import State, restore, save, trained

if TYPE_CHECKING:
    from forge.api import Job, Run


def train(job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
    """Train, from the checkpoint that the run goes on from if there is one, and leave the weights in the run folder.

    Raises:
        OutOfMemory: The longest batch does not fit.
        ModelError: The loss is no number any more.
        Interrupted: The user asked to stop; a checkpoint has been saved.
    """
    loop = Loop(job, run, loaded.model, data)
    if run.dry_run:
        loop.try_longest()
    else:
        loop.run_all()
        write(loop.model, data.processor, run.folder / folder_of(job), job, run)
    facts = run.plan.facts
    return Trained(
        weights=folder_of(job),
        kind="full" if job.adapter.type == "none" else "adapter",
        task=facts.task,
        base={"id": job.model.id, "revision": facts.revision, "digest": facts.digest, "path": facts.path},
        processor=folder_of(job),
        traits=TRAINED,
        metrics={"train_loss": loop.state.total / max(1, loop.state.step), **(loop.state.evaluated or {})},
    )


class Loop:
    """One training.

    Args:
        job: The job.
        run: The run, which hears of each step.
        model: The model; what is to be trained of it asks for gradients.
        data: The rows.
    """

    def __init__(self, job: Job, run: Run, model: Any, data: Data) -> None:
        self.job, self.run, self.model, self.data = job, run, model, data
        self.options = Options.model_construct(**job.train.options)  # they were checked when the job was read
        self.schedule = Schedule(len(data.train), self.options)
        self.weights = list(trained(model).values())
        self.optimizer = adamw(self.weights, self.options)
        self.state = State()
        self.seconds: dict[str, float] = {"first": 0.0, "steps": 0.0, "evaluating": 0.0, "saving": 0.0}
        self.begins = self.tokens = 0
        self.told = time.monotonic()
        if self.options.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()  # else nothing before the adapters asks for gradients

    def run_all(self) -> None:
        """Train all steps that are left."""
        steps, run = self.schedule.steps, self.run
        if run.resume:
            self.state = restore(run.resume, self.model, self.optimizer)
        else:
            if self.job.train.probe:
                self.try_longest()
            torch.manual_seed(self.options.seed)
        begins = self.begins = self.state.step
        run.graceful.set()  # from here on a wish to stop is heeded
        run.emit(TrainingStarted(steps, begins, steps / self.schedule.steps_of_an_epoch))
        while self.state.step < steps:
            norm = self.timed("first" if self.state.step == begins else "steps", self.step)
            step = self.state.step
            self.tell(norm, step == steps)
            if self.evaluates(step == steps):
                self.timed("evaluating", self.evaluate)
            stops = run.stop.is_set() and step < steps
            if stops or step == steps or step % self.options.save_steps == 0:
                self.timed("saving", self.save)
            if stops:
                raise Interrupted(f"stopped at step {step} of {steps}, checkpoint-{step} is whole")
        if steps - begins > 1:
            self.tell_speed(steps - begins - 1)

    def step(self) -> float:
        """Train one step, and return the length that its gradient had."""
        self.state.step += 1
        batches = [batch_of(self.rows(indices)) for indices in self.schedule.batches(self.state.step)]
        # A token counts the same in whatever batch it is: the sum over all of them, by their number.
        count = max(1, sum(counted(batch["labels"]) for batch in batches))
        loss = sum(self.backward(batch, count) for batch in batches)
        if not math.isfinite(loss):
            why = f"the loss of step {self.state.step} is {loss}"
            raise ModelError("the training has failed", why, "lower learning_rate, and look at the rows")
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.options.max_grad_norm or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = self.job.train.options["learning_rate"] * self.schedule.rate(self.state.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.total += loss
        self.state.recent += loss
        self.state.unlogged += 1
        self.tokens += sum(int(batch["attention_mask"].sum()) for batch in batches)
        return float(norm)

    def backward(self, batch: Mapping[str, torch.Tensor], count: int) -> float:
        """Add the gradients of a batch, and return its share of the step's loss."""
        self.model.train()
        loss = loss_of(self.model, batch) / count
        loss.backward()
        return float(loss.detach())

    def evaluate(self) -> None:
        """Take the mean loss of a token of the held-out rows."""
        self.model.eval()
        found: dict[str, float] = {}
        for name, rows in self.data.eval.items():
            total, count, size = 0.0, 0, self.options.per_device_eval_batch_size
            for start in range(0, len(rows), size):
                batch = batch_of([rows[index] for index in range(start, min(start + size, len(rows)))])
                with torch.no_grad():
                    total += float(loss_of(self.model, batch))
                count += counted(batch["labels"])
            # A single set has the plain name, as transformers' trainer gives it.
            found["eval_loss" if len(self.data.eval) == 1 else f"eval_{name}_loss"] = total / max(1, count)
        self.state.evaluated = found
        self.run.emit(EvalLogged(self.state.step, self.schedule.steps, more={"epoch": self.epoch, **found}))

    def evaluates(self, last: bool) -> bool:
        """Whether held-out rows are looked at after the step that has ended."""
        step = self.state.step
        if self.options.eval_strategy == "epoch":
            return last or step % self.schedule.steps_of_an_epoch == 0
        every = self.options.eval_steps or self.options.logging_steps
        return self.options.eval_strategy == "steps" and step % every == 0

    def save(self) -> None:
        """Save a checkpoint."""
        step = self.state.step
        with self.run.checkpoint(
            step, keep=self.options.save_total_limit, finished=step == self.schedule.steps
        ) as folder:
            save(folder, self.state, self.model, self.optimizer)

    def try_longest(self) -> None:
        """Take the longest batch forward and backward, so that a lack of memory is told now and not after hours."""
        rows = self.rows(self.data.longest[: self.options.per_device_train_batch_size] or [0])
        batch, start = batch_of(rows), time.monotonic()
        try:
            loss = self.backward(batch, max(1, counted(batch["labels"])))
        except RuntimeError as error:
            if "allocate memory" not in str(error):
                raise
            what = f"{len(rows)} rows of {batch['labels'].shape[1]} tokens do not fit into memory"
            raise OutOfMemory(what, None, "lower per_device_train_batch_size, or max_seq_length") from error
        self.optimizer.zero_grad()
        seconds = round(time.monotonic() - start, 3)
        longest, memory = batch["labels"].shape[1], 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.run.emit(Probed(rows=len(rows), tokens=longest, seconds=seconds, memory=memory, loss=loss))
        if self.run.dry_run:
            of_a_step = round(seconds * self.options.gradient_accumulation_steps, 3)
            self.run.emit(DryRunDone(self.schedule.steps, of_a_step, memory=memory, longest=longest))

    def rows(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        """Return training rows."""
        return [self.data.train[index] for index in indices]

    @property
    def epoch(self) -> float:
        """The passes over the rows so far."""
        return round(self.state.step / self.schedule.steps_of_an_epoch, 4)

    def timed(self, what: str, function: Any) -> Any:
        """Call a function, and add what it takes to the seconds of its kind."""
        start = time.monotonic()
        try:
            return function()
        finally:
            self.seconds[what] += time.monotonic() - start

    def tell(self, norm: float, last: bool) -> None:
        """Log a step where it is due, and else say now and then that there was one."""
        state, steps = self.state, self.schedule.steps
        took = self.seconds["first"] + self.seconds["steps"]
        left = round((steps - state.step) * took / (state.step - self.begins), 1)
        if state.step % self.options.logging_steps == 0 or last:
            numbers = {"learning_rate": self.optimizer.param_groups[0]["lr"], "grad_norm": norm, "epoch": self.epoch}
            loss = state.recent / state.unlogged
            state.recent, state.unlogged = 0.0, 0
            self.run.emit(StepLogged(state.step, steps, loss, round(self.tokens / took, 1), left, more=numbers))
        elif time.monotonic() - self.told >= 1:
            self.run.emit(Progress(state.step, steps, left))
        else:
            return
        self.told = time.monotonic()

    def tell_speed(self, steps: int) -> None:
        """Say how fast the training was, by what forge knows later how long others will take."""
        took = {name: round(seconds, 3) for name, seconds in self.seconds.items()}
        rate = round(self.tokens / (self.seconds["first"] + self.seconds["steps"]), 1)
        self.run.emit(
            SpeedMeasured(
                took["first"], steps, took["steps"], took["evaluating"], took["saving"], tokens_per_second=rate
            )
        )


def loss_of(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the sum of the losses of a batch's tokens, in nats."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    return cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


def adamw(weights: Sequence[torch.nn.Parameter], options: Options) -> torch.optim.AdamW:
    """Return the optimizer; biases and the weights of norms, which are vectors, do not decay."""
    return torch.optim.AdamW(
        [
            {"params": [each for each in weights if each.ndim > 1], "weight_decay": options.weight_decay},
            {"params": [each for each in weights if each.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(options.adam_beta1, options.adam_beta2),
        eps=options.adam_epsilon,
        fused=True,
    )


def folder_of(job: Job) -> str:
    """Return the folder of the weights in a run's."""
    return "model" if job.adapter.type == "none" else "adapter"


def write(model: Any, processor: Any, folder: Path, job: Job, run: Run) -> None:
    """Write weights and tokenizer under another name, and rename them once they are whole."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if job.adapter.type != "none":
        config, facts = model.peft_config["default"], run.plan.facts
        # The id of a model of the hub means the same on every machine.
        config.base_model_name_or_path = facts.path if facts.source == "folder" else job.model.id
        config.revision = facts.revision
    model.save_pretrained(part)
    processor.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
