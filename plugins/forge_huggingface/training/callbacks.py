"""forge's one callback in the trainer: events, the probe, whole checkpoints, and stopping when asked."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from forge.api import (
    AnswersShown,
    CheckpointSaved,
    Data,
    DryRunDone,
    EvalLogged,
    Noted,
    Probed,
    Progress,
    StepLogged,
    Task,
    TrainingStarted,
    Warned,
)
from forge.disk.checkpoints import mark
from forge_huggingface.model.device import peak
from forge_huggingface.rows import text_of
from forge_huggingface.training.outlook import outlook
from forge_huggingface.training.probe import probe
from forge_huggingface.training.resume import drop_old, own, recall, remember, restore_best
from forge_huggingface.training.together import check_wrapped, slowest
from forge_huggingface.training.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.api import Job, Run


PROGRESS_SECONDS = 0.5


class DryRunEnded(Exception):  # noqa: N818 - the end of a dry run is no error
    """Ends a dry run where the first step would begin."""

    def __init__(self, metrics: Mapping[str, float]) -> None:
        super().__init__("dry run")
        self.metrics = metrics


class ForgeCallback(TrainerCallback):  # type: ignore[misc]  # transformers is Any to mypy: see pyproject
    """Connects the trainer with the run.

    Args:
        trainer: The trainer; the probe needs its loss.
        job: The job.
        run: The run.
        data: The rows.
        batch: Makes the batch of the probe, where the collator does not.
        every: The number of steps that one set of answers lasts; a checkpoint between two is not exact.
    """

    def __init__(
        self,
        trainer: Any,
        job: Job,
        run: Run,
        data: Data,
        *,
        batch: Callable[[Any, Data], dict[str, Any]] | None = None,
        every: int = 1,
    ) -> None:
        self.trainer, self.job, self.run, self.data = trainer, job, run, data
        self.batch, self.every, self.alike = batch, every, 0
        self.began = self.shown = time.monotonic()
        self.first_step = 0
        self.in_step = self.wanted = self.asked = self.agreed = False
        self.tokens: tuple[float, float] | None = None
        self.watch: Watch | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Try the longest batch before anything is trained; a dry run ends here."""
        found: dict[str, Any] = {}
        if self.job.train.probe and self.run.resume is None:
            found = probe(self.trainer, self.data, self.job, self.batch, self.run)
            if found:  # a stream may have no row
                found |= slowest(self.run.group.gather(found))
                self.run.emit(Probed.from_values(found))
        if self.run.plan.task is Task.DRY_RUN:
            seconds = found.get("seconds", 0.0) * args.gradient_accumulation_steps
            more = outlook(self.trainer, self.job, self.run, self.data, found)
            self.run.emit(
                DryRunDone.from_values({**found, "steps": state.max_steps, "seconds_per_step": seconds, **more})
            )
            raise DryRunEnded({key: value for key, value in found.items() if isinstance(value, int | float)})
        check_wrapped(self.trainer, self.run)
        self.trainer.whether_to_save = self.whether_to_save
        if self.run.resume:
            restore_best(args, state)
            drop_old(args, state, self.job.train.options.get("save_total_limit"))
            self.alike = recall(self.trainer, self.run.resume).get("alike", 0)
            args.eval_on_start = False  # it was evaluated when it began
        self.run.graceful.set()
        self.watch = Watch(self.trainer, self.job, self.run, self.data)
        self.began, self.first_step = time.monotonic(), state.global_step
        values = {"steps": state.max_steps, "from": state.global_step, "epochs": state.num_train_epochs}
        self.run.emit(TrainingStarted.from_values(values))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Note that a step is under way."""
        self.in_step = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop if the run was asked to; show progress now and then."""
        if self.watch is not None:
            self.watch.step()
        # All stop at the same step, or some would wait for the others; and before what may take long.
        wish, group = self.run.stop.is_set(), self.run.group
        long = control.should_evaluate or control.should_save
        self.agreed = (group.agree(wish) if long else group.agree_soon("stop", wish)) or self.agreed
        if self.agreed and self.exact(args):
            self.asked = self.trainer.stopped = self.asked or not control.should_training_stop
            self.wanted = control.should_save = control.should_training_stop = True
        self.hold_back(state, control)
        now = time.monotonic()
        if now - self.shown >= PROGRESS_SECONDS:
            self.shown = now
            self.run.emit(Progress(state.global_step, state.max_steps, **self.pace(state)))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Save what was held back. A run that was asked to stop in the middle of an epoch has not come to its end."""
        if self.asked and not whole_epoch(state):
            control.should_log = control.should_evaluate = control.should_save = False
        self.in_step = False
        control.should_save = control.should_save or self.wanted

    def hold_back(self, state: Any, control: Any) -> None:
        """Put off saving until all that belongs to an epoch's or the training's last step is done.

        The trainer logs and evaluates at the end of an epoch once more, after it has saved at the last step. A run that
        went on from such a checkpoint would miss this evaluation, and go on with other random numbers.
        """
        if self.in_step and control.should_save and self.ends(state, control):
            self.wanted, control.should_save = True, False

    def ends(self, state: Any, control: Any) -> bool:
        """Whether the end of an epoch comes next."""
        return whole_epoch(state) or (control.should_training_stop and not self.asked)

    def whether_to_save(self, best: bool) -> bool:
        """With ``save_strategy = "best"``: save the best, and what was asked for; both where it is time."""
        self.wanted = self.wanted or best
        return self.wanted and not (self.in_step and self.ends(self.trainer.state, self.trainer.control))

    def exact(self, args: Any) -> bool:
        """Whether a run goes on exactly from here: where the next step begins a set of answers, if it has any."""
        if self.every == 1:
            return True
        return not self.trainer._step % (args.steps_per_generation * getattr(args, "num_iterations", 1))  # noqa: SLF001

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Begin to count the time anew after an evaluation before the first step: no later step has one."""
        self.hold_back(state, control)
        if state.global_step == self.first_step:
            self.began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Pass on the trainer's numbers."""
        values = dict(logs or {})
        if "loss" in values:
            values |= {"step": state.global_step, "of": state.max_steps, **self.pace(state)}
            if "num_tokens" in values:
                if self.watch is not None:
                    self.watch.tokens(values["num_tokens"])
                now = time.monotonic()
                if self.tokens and now > self.tokens[0] and values["num_tokens"] > self.tokens[1]:
                    values["tokens_per_second"] = (values["num_tokens"] - self.tokens[1]) / (now - self.tokens[0])
                self.tokens = (now, values["num_tokens"])
            self.run.emit(StepLogged.from_values(values))
            self.show_answers(state)
            if (found := self.trainer.learning.see(values, self.trainer.model)) is not None:
                self.run.emit(found)
            self.watch_collapse(values, control)
            self.hold_back(state, control)
        elif any(name.startswith("eval_") for name in values):
            self.run.emit(EvalLogged(state.global_step, state.max_steps, more=values))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Tell how fast it was."""
        if self.watch is not None and (speed := self.watch.result()) is not None:
            self.run.emit(speed)

    def show_answers(self, state: Any) -> None:
        """Pass on some of the answers that the model gave since the last log, with their rewards."""
        count = self.job.train.options.get("num_completions_to_print")
        logs = getattr(self.trainer, "_logs", None)
        if not count or not logs or not logs["prompt"]:
            return
        shown = []
        for index in range(-min(count, len(logs["prompt"])), 0):
            rewards = {name: values[index] for name, values in logs.get("rewards", {}).items() if values}
            prompt, completion = (plain(logs[name][index]) for name in ("prompt", "completion"))
            shown.append({"prompt": prompt, "completion": completion, "rewards": rewards})
        self.run.emit(AnswersShown(state.global_step, shown))

    def watch_collapse(self, values: Mapping[str, Any], control: Any) -> None:
        """Stop, if the job wants it, once groups of answers no longer differ in reward: nothing is learned then."""
        patience, share = self.job.train.options.get("collapse_patience"), values.get("frac_reward_zero_std")
        if patience is None or share is None:
            return
        self.alike = self.alike + 1 if share >= 1 else 0
        if self.alike >= patience:
            control.should_training_stop = True
            message = f"stopping: in {self.alike} logs in a row all answers to a prompt had the same reward"
            self.run.emit(Warned(message, "see the answers in events.jsonl"))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint as whole, once all processes have written their part, and only then delete old ones."""
        folder = Path(args.output_dir)
        checkpoint = folder / f"checkpoint-{state.global_step}"
        start = time.monotonic()
        self.wanted = False
        owned = self.run.group.gather(own(self.trainer))  # each has seen other rows
        if self.run.rank == 0:
            self.trainer.check_written(checkpoint)
            remember(self.trainer, checkpoint, owned, {"alike": self.alike})
            self.seal(args, state, control, checkpoint, start)
        self.run.group.first(None)  # none trains on, and none deletes, before it is sealed
        self.trainer.saving += round(time.monotonic() - start, 3)  # beside what the trainer itself took to write it

    def seal(self, args: Any, state: Any, control: Any, checkpoint: Path, start: float) -> None:
        """Declare a checkpoint whole, and tell of it."""
        folder = checkpoint.parent
        ended = control.should_training_stop and not self.asked
        mark(checkpoint, finished=ended or state.global_step >= state.max_steps)
        drop_old(args, state, self.job.train.options.get("save_total_limit"))
        size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
        seconds = round(time.monotonic() - start, 3)
        self.run.emit(CheckpointSaved(state.global_step, size, str(checkpoint), seconds))
        if not self.exact(args):
            message = f"{checkpoint.name} stands within a set of answers: going on from it, the model answers anew"
            self.run.emit(Noted(message))
        free = shutil.disk_usage(folder).free
        if free < 2 * size:
            have = f"{free / 2**20:.0f} MiB are free, a checkpoint takes {size / 2**20:.0f} MiB"
            self.run.emit(Warned(f"the disk is nearly full: {have}"))

    def pace(self, state: Any) -> dict[str, Any]:
        """Return seconds left and peak memory in bytes."""
        done = state.global_step - self.first_step
        left = (state.max_steps - state.global_step) * (time.monotonic() - self.began) / done if done else None
        return {"seconds_left": left, "memory": peak()}


def whole_epoch(state: Any) -> bool:
    """Whether the last step was the last of an epoch."""
    return bool(state.epoch == int(state.epoch))


def plain(said: Any) -> str:
    """Return a prompt or an answer as text: its own, or that of its messages with the calls in them."""
    return said if isinstance(said, str) else "\n".join(map(_line, said))


def _line(message: Mapping[str, Any]) -> str:
    named = f" {message['name']}" if message["role"] == "tool" and message.get("name") else ""
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    told = [f"{call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in calls]
    thought = f"<think>{message['reasoning_content']}</think>" if message.get("reasoning_content") else ""
    parts = [part for part in (thought, text_of(message["content"]), *told) if part]
    return f"{message['role']}{named}: {' → '.join(parts)}"
