"""``forge data``: rows as the trainer gets them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from forge.cli.common import job_argument, job_dir_option, json_option, print_json, set_option, situation
from forge.cli.terminal import say
from forge.masking import masked
from forge.text.units import counted, cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from forge.api.event import Event
    from forge.job.read import Change


@click.command(name="data")
@job_argument
@click.option("--rows", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many rows to show.")
@click.option("--ids", is_flag=True, help="Show the token ids too.")
@set_option
@job_dir_option
@json_option
def command(job: Path, rows: int, ids: bool, changes: list[Change], job_dir: Path | None, as_json: bool) -> None:
    """Show the first rows of JOB as the trainer gets them, with the tokens that are trained on marked.

    The model's weights are not loaded. What is counted is what would be trained: rows, tokens, rows dropped and why.
    """
    from forge.api.plan import Task
    from forge.disk.scratch import scratch
    from forge.parent.run import run

    here = situation(job, changes, pretend=False, folder=job_dir)
    with scratch("data", keep="log.txt") as temporary:
        made = run(here.file, here.catalogue, here.machine, temporary, _warn, task=Task.DATA, rows=rows)
        shown: dict[str, Any] = json.loads((made.path / "preview.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(shown)
        return
    for number, row in enumerate(shown["rows"], 1):
        origin = f" ({row['origin']})" if row.get("origin") else ""
        trained = f", {row['supervised']} trained on" if row.get("supervised") else ""  # of prompts and labels none
        say(f"row {number}{origin}: {row['length']} tokens{trained}", bold=True)
        for sequence in row.get("parts") or [row]:
            if name := sequence.get("name"):
                say(f"{name}: {sequence['length']} tokens", bold=True)
            _show(sequence["segments"])
            if ids:
                say(f"ids {sequence['input_ids']}")
        if columns := row.get("columns"):
            say(f"with {', '.join(columns)} for the reward functions")
        say()
    for line in _summary(shown["summary"]):
        say(masked(line))  # reasons of dropped rows may quote addresses


def _show(segments: Iterable[Mapping[str, Any]]) -> None:
    """Print a sequence's text, in colours or in marks, so that what is trained on is seen."""
    live = sys.stdout.isatty()
    for part in segments:
        if live:
            say(part["text"], nl=False, **({"fg": "green"} if part["supervised"] else {"dim": True}))
        else:
            say(f"«{part['text']}»" if part["supervised"] else part["text"], nl=False)
    say()


def _summary(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the counts as lines for people; JSON has them all."""
    for source in summary.get("sources", []):
        columns = ", ".join(f"{name} from {column}" for name, column in source["columns"].items() if name != column)
        ignored = f"; not used: {', '.join(source['ignored'])}" if source["ignored"] else ""
        yield f"{source['path']}: {source['format']} rows{f' ({columns})' if columns else ''}{ignored}"
    counts = {"training": summary, **(summary.get("eval") or {})}
    for name, part in counts.items():
        if part.get("rows") is not None:
            share = f", {part['supervised']} ({part['share']:.0%}) trained on" if part["supervised"] else ""
            first = "the first " if name == "training" and summary.get("streaming") else ""
            yield f"{name}: {first}{part['rows']} rows, {part['tokens']} tokens{share}, longest {part['longest']}"
        of = "" if name == "training" else f" of {name}"
        if part.get("images"):
            tokens = part["image_tokens"]
            yield f"images{of}: {part['images']}, {tokens} tokens, about {round(tokens / part['images'])} an image"
        if part.get("split"):
            count = counted(part["split"], "long row")
            yield f"split{of}: {count} into {part['pieces']} of at most {summary['max_seq_length']} tokens"
        if part.get("truncated"):
            share = cut(part["truncated"], part.get("cut_share_of_rows"), part.get("cut_share"))
            yield f"cut{of}: {share}; longer than {summary['max_seq_length']} tokens"
    if summary.get("packed"):
        first = " the first into" if summary.get("streaming") else ""
        yield f"packed:{first} {summary['packed']} rows of {summary['max_seq_length']}, {summary['filled']:.0%} filled"
    if summary.get("told"):
        yield str(summary["told"])
    for reason in summary.get("dropped_first", []):
        yield f"dropped: {reason}"
    if summary.get("dropped"):
        yield f"dropped: {summary['dropped']} rows in all"
    template = summary.get("template")
    name = template["name"] if template else "none: plain text"
    if template and template.get("tool_use"):
        name += " (the one that it calls tool_use for rows with tools)"
    if template and template.get("date"):
        name += f" at {template['date']}"
    yield f"template {name}, loss on {summary.get('train_on')}"
    yield f"end {summary.get('eos_token')}, padding {summary.get('pad')}"


def _warn(event: Event) -> None:
    from forge.api.event import Warned

    if isinstance(event, Warned):
        do = f"; {event.do}" if event.do else ""
        say(f"warning: {event.message}{do}", fg="yellow", err=True)
