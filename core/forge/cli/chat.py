"""``forge chat``: talk to what a run trained."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forge.cli.common import check_file, run_argument, runs_option, set_option, this_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api import Sampling
    from forge.chat import Chat

HELP = """\
/reset         begin a new conversation
/system TEXT   begin a new one with this system message; without text, with none
/image FILE    show a picture with the next message (vision models)
/save FILE     append the conversation to a file, as a row of training data
/exit          end (also Ctrl-D); Ctrl-C ends an answer
"""


@click.command(name="chat")
@run_argument
@click.option("--base", is_flag=True, help="Talk to the base model instead, to compare.")
@click.option("--gguf", type=click.Path(path_type=Path), help="Talk to this GGUF file of the run.")
@click.option("--system", metavar="TEXT", help="A system message to begin with.")
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
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    max_new_tokens: int | None,
    seed: int | None,
    overrides: tuple[str, ...],
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Talk to what RUN trained.

    Answers are generated as the job's [generation], the model or its family recommend; options win. From a pipe, each
    line is a question of its own, and the answers are printed: `forge chat RUN < questions.txt`.
    """
    from forge.chat import Chat
    from forge.discovery import discover
    from forge.errors import UsageError
    from forge.files import write_json
    from forge.folder import RunFolder
    from forge.jobfile import load_job, parse
    from forge.parent import plan_answers

    check_file(gguf)
    if base and gguf:
        raise UsageError("--base and --gguf name two models", None, "keep one")
    folder = RunFolder.find(run, runs_dir)
    before = folder.plan()
    catalogue, machine = discover(), this_machine(pretend=False)
    stored = load_job(before.job)
    text = (folder.path / "job.toml").read_text(encoding="utf-8")
    changes = [*before.overrides, *overrides]
    file = parse(text, str(folder.path / "job.toml"), stored.folder, catalogue, changes)
    model = "base" if base else "gguf" if gguf else "tuned"
    plan = plan_answers(folder, file, "chat", [model], catalogue, machine, gguf=gguf)
    scratch = Path(tempfile.mkdtemp(prefix="forge-chat-"))
    log = folder.log if os.access(folder.path, os.W_OK) else scratch / "log.txt"  # an archive may only be read
    given: dict[str, Any] = {
        "temperature": temperature, "top_p": top_p, "top_k": top_k, "max_new_tokens": max_new_tokens, "seed": seed,
    }  # fmt: skip
    try:
        write_json(scratch / "plan.json", plan.to_json())
        live = sys.stdin.isatty() and not as_json
        if live:
            click.secho(f"loading {gguf or folder.path}{' (base model)' if base else ''} …", dim=True, err=True)
        with Chat(folder, scratch / "plan.json", log) as chat:
            sampling = replace(chat.sampling, **{key: value for key, value in given.items() if value is not None})
            if live:
                click.secho(f"{_told(sampling)} ({chat.advice}); /help", dim=True, err=True)
                Session(chat, sampling, system).run()
            else:
                answer_lines(chat, sampling, system, as_json=as_json)
    except Exception:
        (scratch / "plan.json").unlink(missing_ok=True)
        if log == folder.log:  # the error may name the log
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)


def answer_lines(chat: Chat, sampling: Sampling, system: str | None, *, as_json: bool) -> None:
    """Answer each line of standard input, as a conversation of its own."""
    for line in sys.stdin:
        question = line.rstrip("\r\n")
        if not question.strip():
            continue
        messages = [*_opening(system), {"role": "user", "content": question}]
        end = chat.ask(messages, sampling, lambda text: None if as_json else click.echo(text, nl=False))
        if as_json:
            kept = {key: end[key] for key in ("tokens", "finished", "seconds")}
            click.echo(json.dumps({"question": question, "answer": end["text"], **kept}, ensure_ascii=False))
        else:
            click.echo()


class Session:
    """A conversation in a terminal.

    Args:
        chat: Who answers.
        sampling: How.
        system: The system message, if any.
    """

    def __init__(self, chat: Chat, sampling: Sampling, system: str | None) -> None:
        self.chat, self.sampling, self.system = chat, sampling, system
        self.messages: list[dict[str, Any]] = _opening(system)
        self.pictures: list[str] = []

    def run(self) -> None:
        """Ask and answer until the user leaves."""
        import contextlib

        with contextlib.suppress(ImportError):  # not on Windows; input() then has no history
            import readline  # noqa: F401
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo("\n/exit ends the chat")
                continue
            if line in {"/exit", "/quit"}:
                return
            if line.startswith("/"):
                self.obey(*line[1:].partition(" ")[::2])
            elif line:
                self.say(line)

    def say(self, text: str) -> None:
        """Say something, and show the answer; one that fails is taken back."""
        from forge.errors import ForgeError

        content: Any = text
        if self.pictures:
            shown = [{"type": "image", "image": path} for path in self.pictures]
            content = [*shown, {"type": "text", "text": text}]
        asked = [*self.messages, {"role": "user", "content": content}]
        try:
            end = self.chat.ask(asked, self.sampling, lambda part: click.echo(part, nl=False))
        except ForgeError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            if "process ended" in error.what:
                raise
            return
        click.echo()
        if not end["finished"]:
            why = "stopped" if end["stopped"] else f"cut at max_new_tokens = {self.sampling.max_new_tokens}"
            click.secho(f"({why})", dim=True, err=True)
        self.messages = [*asked, {"role": "assistant", "content": end["text"]}]
        self.pictures = []

    def obey(self, name: str, rest: str) -> None:
        """Do what a command says."""
        rest = rest.strip()
        if name == "reset":
            self.messages, self.pictures = _opening(self.system), []
            click.secho("a new conversation", dim=True)
        elif name == "system":
            self.system = rest or None
            self.messages = _opening(self.system)
            click.secho("a new conversation" + (" with this system message" if rest else ""), dim=True)
        elif name == "image":
            path = Path(rest).expanduser()
            if not rest or not path.is_file():
                click.secho(f"there is no file {rest or '(name one: /image FILE)'}", fg="red", err=True)
                return
            self.pictures.append(str(path.resolve()))
            click.secho("it goes with your next message", dim=True)
        elif name == "save":
            self.save(rest)
        elif name in {"help", "?"}:
            click.echo(HELP, nl=False)
        else:
            click.secho(f"there is no command /{name}; /help lists them", fg="red", err=True)

    def save(self, name: str) -> None:
        """Append the conversation to a file, as one row of training data."""
        if not name or not any(message["role"] == "assistant" for message in self.messages):
            why = "nothing has been said" if name else "name a file: /save FILE"
            click.secho(why, fg="red", err=True)
            return
        try:
            with Path(name).expanduser().open("a", encoding="utf-8") as file:
                file.write(json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        except OSError as error:
            click.secho(f"{name} cannot be written: {error.strerror}", fg="red", err=True)
        else:
            click.secho(f"appended to {name}", dim=True)


def _opening(system: str | None) -> list[dict[str, Any]]:
    return [{"role": "system", "content": system}] if system else []


def _told(sampling: Sampling) -> str:
    """Return how answers are generated, without what does nothing."""
    return ", ".join(_said(sampling))


def _said(sampling: Sampling) -> Iterator[str]:
    if sampling.temperature == 0:
        yield "greedy"
    else:
        yield f"temperature {sampling.temperature:g}"
        if sampling.top_p < 1:
            yield f"top_p {sampling.top_p:g}"
        if sampling.top_k:
            yield f"top_k {sampling.top_k}"
        if sampling.min_p:
            yield f"min_p {sampling.min_p:g}"
    if sampling.repetition_penalty != 1:
        yield f"repetition_penalty {sampling.repetition_penalty:g}"
    if sampling.presence_penalty:
        yield f"presence_penalty {sampling.presence_penalty:g}"
    yield f"at most {sampling.max_new_tokens} tokens"
