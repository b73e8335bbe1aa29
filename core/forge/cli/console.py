"""What a run looks like to the person who watches it: a live line on a terminal, plain lines elsewhere, or JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Self, cast

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from forge.api.event import (
    Adapted,
    Answering,
    AnswersShown,
    CheckpointSaved,
    Collated,
    Custom,
    DryRunDone,
    EvalLogged,
    EvaluationDone,
    Event,
    ExportDone,
    Failed,
    ModelLoaded,
    Noted,
    Objected,
    Planned,
    Probed,
    Progress,
    Reading,
    StageChanged,
    StepLogged,
    Stopped,
    TrainingDone,
    TrainingStarted,
    Warned,
    Writing,
)
from forge.api.plan import Plan, Training
from forge.cli.terminal import Door, Unwritable, door, say, shown
from forge.job.literal import literal
from forge.text.evaluation import cut_answers, measured
from forge.text.measures import evaluated, is_number, measures
from forge.text.memory import measured as measured_beside
from forge.text.memory import verdict as memory_verdict
from forge.text.plan import turned_down
from forge.text.units import amount, clock, counted, cut, size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import TextIO

    from forge.disk.folder import RunFolder


class Console:
    """Shows the events of a run.

    A run does not end because nobody can see it: once standard output takes nothing more, that is written into the
    run's log, and the rest is not shown.

    Args:
        as_json: Print each event as one line of JSON on standard output, and nothing else there.
        log: The run's log, where it is known from the beginning.
    """

    def __init__(self, *, as_json: bool = False, log: Path | None = None) -> None:
        self.as_json, self.log = as_json, log
        self.out = Door(door(), self.lost)
        self.rich = RichConsole(file=cast("TextIO", self.out), highlight=False, soft_wrap=True)
        self.live = self.rich.is_terminal and not as_json
        self.progress: Bar | None = None
        self.bar: TaskID | None = None
        self.loss: float | None = None
        self.pace: float | None = None
        self.measures: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, folder: RunFolder, plan: Plan) -> None:
        """Say where the run lives and what was chosen."""
        self.log = folder.log
        if self.as_json:
            self.show(Planned(str(folder.path), plan.attempt))
            return
        chosen = ", ".join(f"{step.label}: {step.plugin}" for step in plan.steps)
        self.line(("run", "bold"), f"     {folder.path}")
        plugins = {step.plugin for step in plan.steps}
        self.line(f"plan    {f'{plugins.pop()} for every stage' if len(plugins) == 1 else chosen}")
        for name, reason in turned_down(plan).items():
            self.line(f"        not {name}: {reason}", style="dim")
        for decision in plan.decisions:
            self.line(f"        {decision.key} = {literal(decision.value)}: {decision.reason}", style="dim")
        for note in plan.notes:
            self.line(f"note    {note}", style="yellow")
        if isinstance(plan, Training) and plan.estimate and plan.estimate.fits is False:
            self.line(f"memory  {memory_verdict(plan.estimate)}; see forge plan", style="yellow")

    def finish(self, folder: RunFolder) -> None:
        """Say what there is now and what can be done with it."""
        trained = folder.trained()
        if self.as_json or trained is None:
            return
        self.line(("done", "bold green"), f"    {folder.path / trained.weights}")

    def show(self, event: Event) -> None:
        """Show one event; one whose values are not what they should be, as a plugin may emit it, is shown as it is."""
        if self.as_json:
            time = {} if event.time is None else {"time": event.time}
            line = json.dumps({**time, "kind": event.kind, **event.values}, ensure_ascii=False, default=str)
            self.out.write(shown(line) + "\n")
            self.out.flush()
            return
        method = getattr(self, f"on_{event.kind.replace('-', '_')}", None)
        if method is None:
            return
        try:
            if isinstance(event, Custom):  # a plugin's own is for its own; one of forge's kinds is not whole
                raise TypeError(f"a {event.kind} event has other values")
            method(event)
        except (Unwritable, BrokenPipeError):
            raise
        except Exception:  # noqa: BLE001 - nothing that a plugin emits ends the run that it is part of
            self.line(f"{event.kind:<8}{json.dumps(event.values, ensure_ascii=False, default=str)}", style="dim")

    def lost(self, error: OSError) -> None:
        """Say once that nothing is shown any more, where somebody may see it; where no run is, it is an error."""
        if self.log is None:
            raise Unwritable(*error.args)
        told = f"nothing can be written to standard output ({error.strerror}); the run goes on"
        say(f"warning: {told}", err=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{told}\n")

    def line(self, *parts: str | tuple[str, str], style: str = "") -> None:
        """Print one line above the progress bar; a part is text, or text and its style."""
        # Never as rich's markup: messages hold things like [train], [/INST] and forge-train[unsloth].
        texts = [shown(part) if isinstance(part, str) else (shown(part[0]), part[1]) for part in parts]
        (self.progress.console if self.progress else self.rich).print(Text.assemble(*texts, style=style))

    def table(self, table: Table) -> None:
        """Print a table as wide as it is: a pipe has no width, and a cut number would be a wrong one."""
        for column in table.columns:
            column.no_wrap = True
        RichConsole(file=cast("TextIO", self.out), width=10_000).print(table)

    def close(self) -> None:
        """Take the progress bar away."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def on_stage(self, event: StageChanged) -> None:
        """Tell which stage begins; training tells more itself."""
        if event.state == "started" and event.stage in {"load", "evaluate", "export"}:
            self.line(f"{event.stage:<8}…", style="dim")

    def on_reading(self, event: Reading) -> None:
        """Show that many rows are being read."""
        self.line(f"        {event.rows:,} rows read", style="dim")

    def on_data(self, event: Collated) -> None:
        """Tell what the rows came to."""
        held_out = sum(rows["rows"] for rows in (event.eval or {}).values())
        text = f"data    {'streamed' if event.rows is None else event.rows} rows" + (
            f", {held_out} held out" if held_out else ""
        )
        if event.tokens:
            share = f", {event.share:.0%} trained on" if event.supervised else ""  # of prompts none is
            text += f", {amount(event.tokens)} tokens{share}, longest {event.longest}"
        if event.split:
            text += f", {event.pieces} of them pieces of {event.split} long ones"
        self.line(text, *([(f", {event.dropped} dropped", "yellow")] if event.dropped else []))
        if event.truncated:
            said = cut(event.truncated, event.cut_share_of_rows, event.cut_share)
            self.line(f"        cut: {said}", style="yellow")
        for name, rows in (event.eval or {}).items():
            if rows.get("truncated"):
                said = cut(rows["truncated"], rows.get("cut_share_of_rows"), rows.get("cut_share"))
                self.line(f"        cut of {name}: {said}", style="yellow")
        for source in event.sources:
            columns = ", ".join(source["columns"])
            ignored = f"; not used: {', '.join(source['ignored'])}" if source["ignored"] else ""
            self.line(f"        {source['path']}: {source['format']} rows, by {columns}{ignored}", style="dim")

    def on_loaded(self, event: ModelLoaded) -> None:
        """Tell what was loaded, and where."""
        text = f"model   {amount(event.parameters)} parameters, {event.dtype}, {event.attention} attention"
        self.line(f"{text}, on {event.device}")

    def on_adapted(self, event: Adapted) -> None:
        """Tell how much of it is trained."""
        share = event.trainable / event.all
        targets = ", ".join(event.targets)
        self.line(f"adapter {amount(event.trainable)} parameters trained ({share:.2%}): {targets}")

    def on_probe(self, event: Probed) -> None:
        """Tell what the longest batch took."""
        batch = f"longest batch: {counted(event.rows, 'row')}, {counted(event.tokens, 'token')}"
        self.line(f"probe   {batch}, {event.seconds:.1f} s, {size(event.memory)} at the peak", style="dim")

    def on_dry_run(self, event: DryRunDone) -> None:
        """Tell what training would take."""
        seconds = event.steps * event.seconds_per_step
        text = f"dry run {event.steps} steps of about {event.seconds_per_step:.1f} s at most: {clock(seconds)}"
        memory = size(event.memory)
        self.line(f"{text}, {memory} measured for the longest batch; nothing was trained")
        for line in measured_beside(event.values):
            self.line(line)

    def on_training(self, event: TrainingStarted) -> None:
        """Begin the bar."""
        start = f" from step {event.from_}" if event.from_ else ""
        self.line(f"train   {event.steps} steps{start}")
        if self.live:
            self.progress = _Bar(
                TextColumn("        step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[words]}", markup=False),
                console=self.rich,
                transient=True,
                redirect_stdout=False,  # what is printed beside it goes by the screens of forge.cli.terminal
                redirect_stderr=False,
            )
            self.bar = self.progress.add_task("train", total=event.steps, completed=event.from_, words="", below="")
            self.progress.start()

    def on_progress(self, event: Progress | StepLogged) -> None:
        """Move the bar."""
        if self.progress is not None and self.bar is not None:
            words, below = self._words(event), "  ".join(self.measures)
            self.progress.update(self.bar, completed=event.step, words=words, below=below)

    def on_step(self, event: StepLogged) -> None:
        """Show a logged step."""
        self.loss = math.nan if event.loss is None else event.loss  # what is no number is null in the log of events
        self.pace = event.tokens_per_second or self.pace
        self.measures = list(measures(event.more))
        self.on_progress(event)
        if self.progress is None:
            self.line(f"        step {event.step}/{event.of}  {self._words(event)}")

    def on_answers(self, event: AnswersShown) -> None:
        """Show one of the answers that the model gave while it was trained, with its rewards."""
        first = event.answers[0]
        said = " ".join(str(first["completion"]).removeprefix("assistant: ").split())
        rewards = ", ".join(f"{name} {value:.3g}" for name, value in first["rewards"].items() if is_number(value))
        self.line(
            f"        “{said[:90]}{'…' if len(said) > 90 else ''}”{f' ({rewards})' if rewards else ''}", style="dim"
        )

    def on_eval(self, event: EvalLogged) -> None:
        """Show an evaluation."""
        self.line(f"eval    step {event.step}: {', '.join(evaluated(event.more))}")

    def on_checkpoint(self, event: CheckpointSaved) -> None:
        """Show that a checkpoint is whole."""
        self.line(f"        checkpoint-{event.step} is whole ({size(event.bytes)})", style="dim")

    def on_trained(self, event: TrainingDone) -> None:
        """Take the bar away and give the last numbers."""
        self.close()
        values = event.metrics
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if name in {"train_loss", "eval_loss"})
        self.line(f"trained {text}" if text else "trained")

    def on_answering(self, event: Answering) -> None:
        """Show how far an evaluation is."""
        self.line(f"        {event.model}: {event.rows}/{event.of} rows answered", style="dim")

    def on_evaluated(self, event: EvaluationDone) -> None:
        """Show what was measured, the models side by side."""
        head, *rows = measured(event.metrics)
        table = Table("result", *head, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.columns[0].min_width = 6
        for column in table.columns[2:]:
            column.justify = "right"
        for row in rows:
            table.add_row("", *(Text(shown(cell)) for cell in row))
        self.table(table)
        for name, text in cut_answers(event.models, event.report):
            self.line(("warning", "yellow"), f" {name}: {text}")
        for sample in event.samples[:1]:
            said = {"prompt": sample["prompt"], "reference": sample["reference"], **sample["answers"]}
            for name, text in said.items():
                if text is not None:
                    line = " ".join(text.split())
                    self.line(f"        {name:<10}{line if len(line) <= 100 else f'{line[:99]}…'}", style="dim")
        self.line(f"        {event.file}", style="dim")

    def on_writing(self, event: Writing) -> None:
        """Show how far a file of an export is."""
        share, left = event.done / event.total, clock(event.seconds_left)
        self.line(f"        {event.file}: {share:.0%} of {size(event.total)}, {left} left", style="dim")

    def on_exported(self, event: ExportDone) -> None:
        """Show where an export lies."""
        where = f" → {event.url}" if event.url else ""
        total = sum(file["bytes"] for file in event.files.values())
        self.line(f"export  {event.format}: {event.folder} ({size(total)}){where}")

    def on_warning(self, event: Warned) -> None:
        """Show a warning."""
        do = f"; {event.do}" if event.do else ""
        self.line(("warning", "yellow"), f" {event.message}{do}")

    def on_error(self, event: Objected) -> None:
        """Show what a preflight check objects to; the run fails once all have spoken."""
        do = f"; {event.do}" if event.do else ""
        self.line(("error", "red"), f"   {event.message}{do}")

    def on_note(self, event: Noted) -> None:
        """Show a note."""
        self.line(f"note    {event.message}", style="dim")

    def on_failed(self, event: Failed) -> None:  # noqa: ARG002 - the command prints the error itself
        """Take the bar away; the error follows."""
        self.close()

    def on_stopped(self, event: Stopped) -> None:  # noqa: ARG002
        """Take the bar away; the command says how to go on."""
        self.close()

    def _words(self, event: Progress | StepLogged) -> str:
        parts = []
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.progress is None:  # else they stand below the bar
            parts += self.measures
        if self.pace:
            parts.append(f"{self.pace:,.0f} tokens/s")
        if event.memory:
            parts.append(size(event.memory))
        if event.seconds_left is not None:
            parts.append(f"{clock(event.seconds_left)} left")
        return "  ".join(parts)


class _Bar(Bar):
    """A progress bar with a line below it, for what would push the bar off a narrow terminal."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the bar, and what is measured."""
        yield from super().get_renderables()
        for task in self.tasks:
            if task.fields["below"]:
                yield Text(f"        {shown(task.fields['below'])}", no_wrap=False, overflow="fold")
