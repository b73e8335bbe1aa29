"""``forge chat``: talk to what a run trained."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from forge.cli.common import check_file, run_argument, runs_option, set_option, this_machine
from forge.cli.session import Session, opening, told
from forge.cli.terminal import say
from forge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api.generation import Sampling
    from forge.api.plan import Plan
    from forge.disk.folder import RunFolder
    from forge.job.read import Change
    from forge.parent.chat import Chat


@click.command(name="chat")
@run_argument
@click.option("--base", is_flag=True, help="Talk to the base model instead, to compare.")
@click.option("--gguf", type=click.Path(path_type=Path), help="Talk to this GGUF file of the run.")
@click.option("--system", metavar="TEXT", help="A system message to begin with, instead of the job's system_prompt.")
@click.option("--temperature", type=click.FloatRange(0), help="0 takes the most probable token each time.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Draw among tokens of this probability.")
@click.option("--top-k", type=click.IntRange(0), help="Draw among this many tokens; 0 is all.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="The longest answer.")
@click.option("--seed", type=int, help="Draw the same answers each time.")
@set_option
@runs_option
@click.option("--json", "as_json", is_flag=True, help="Questions from a pipe: one JSON object for each answer.")
def command(
    run: str,
    base: bool,
    gguf: Path | None,
    system: str | None,
    changes: list[Change],
    runs_dir: Path,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Talk to what RUN trained.

    Answers are generated as the job's [generation], the model or its family recommend; options win. From a pipe, each
    line is a question of its own, and the answers are printed: `forge chat RUN < questions.txt`.
    """
    from forge.api.plan import Task, Who
    from forge.discovery.discover import discover
    from forge.discovery.keys import PluginKeys
    from forge.disk.folder import RunFolder
    from forge.parent.after import changed_plugins, plan_answers

    if sys.stdin is None:
        raise UsageError("there is nobody to talk to", "standard input is closed", "ask at a terminal, or from a pipe")
    check_file(gguf)
    if base and gguf:
        raise UsageError("--base and --gguf name two models", None, "keep one")
    folder, machine = RunFolder.find(run, runs_dir), this_machine(pretend=False)
    catalogue = discover(code=folder.code())
    file = folder.job_file(PluginKeys(catalogue, machine), changes)
    model = Who.BASE if base else Who.GGUF if gguf else Who.TUNED
    plan = plan_answers(folder, file, Task.CHAT, [model], catalogue, machine, gguf=gguf)
    for note in changed_plugins(folder.plan(), plan, catalogue):
        say(f"warning: {note}", fg="yellow", err=True)
    told_by_job = system is None and file.job.data.system_prompt is not None
    if told_by_job:
        system = file.job.data.system_prompt
    given = {name: value for name, value in sampling.items() if value is not None}
    live = sys.stdin.isatty() and not as_json
    if live:
        say(f"loading {gguf or folder.path}{' (base model)' if base else ''} …", dim=True, err=True)
    with loaded(folder, plan) as chat:
        chosen = replace(chat.sampling, **given)
        if live:
            say(f"{told(chosen)} ({chat.advice}); /help", dim=True, err=True)
            if told_by_job:
                say(f"system message of the job: {system}", dim=True, err=True)
            Session(chat, chosen, system).run()
        else:
            if told_by_job:
                say(f"system message of the job: {system}", dim=True, err=True)
            answer_lines(chat, chosen, system, as_json=as_json)


@contextmanager
def loaded(folder: RunFolder, plan: Plan) -> Iterator[Chat]:
    """Start the process that holds the model, and end it.

    Its plan lies in a scratch folder, and its log too where the run may only be read; an error that names the log
    leaves it there.
    """
    from forge.disk.files import write_json
    from forge.disk.scratch import scratch
    from forge.parent.chat import Chat

    with scratch("chat", keep="log.txt") as temporary:
        log = folder.log if os.access(folder.path, os.W_OK) else temporary / "log.txt"
        write_json(temporary / "plan.json", plan.to_json())
        with Chat(folder, temporary / "plan.json", log) as chat:
            yield chat


def lines(text: TextIO) -> Iterator[str]:
    """Yield the lines of a text. Raises :class:`UsageError` if it is none."""
    try:
        for line in text:
            line.encode()  # in some locales Python lets bytes through that are no text
            yield line
    except UnicodeError as error:
        what, do = "what comes from standard input is no text", "write the questions as UTF-8"
        raise UsageError(what, str(error), do) from None


def answer_lines(chat: Chat, sampling: Sampling, system: str | None, *, as_json: bool) -> None:
    """Answer each line of standard input, as a conversation of its own."""
    for line in lines(sys.stdin):
        question = line.rstrip("\r\n")
        if not question.strip():
            continue
        messages = [*opening(system), {"role": "user", "content": question}]
        end = chat.ask(messages, sampling, lambda text: None if as_json else say(text, nl=False))
        if as_json:
            kept = {key: end[key] for key in ("tokens", "finished", "seconds")}
            say(json.dumps({"question": question, "answer": end["text"], **kept}, ensure_ascii=False))
        else:
            say()
