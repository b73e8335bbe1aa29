"""A conversation in a terminal, with its commands."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.cli.terminal import say
from forge.errors import ForgeError, ModelDied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api.generation import Sampling
    from forge.parent.chat import Chat


HELP = """\
/reset         begin a new conversation
/system TEXT   begin a new one with this system message; without text, with none
/image FILE    show a picture with the next message (vision models)
/save FILE     append the conversation to a file, as a row of training data
/exit          end (also Ctrl-D); Ctrl-C ends an answer
"""


class Session:
    """A conversation in a terminal.

    Args:
        chat: Who answers.
        sampling: How.
        system: The system message, if any.
    """

    def __init__(self, chat: Chat, sampling: Sampling, system: str | None) -> None:
        self.chat, self.sampling, self.system = chat, sampling, system
        self.messages: list[dict[str, Any]] = opening(system)
        self.pictures: list[str] = []

    def run(self) -> None:
        """Ask and answer until the user leaves."""
        with contextlib.suppress(ImportError):  # not on Windows; input() then has no history
            import readline  # noqa: F401
        while True:
            try:
                line = input("> ").strip()
                line.encode()  # in some locales Python lets bytes through that are no text
            except EOFError:
                say()
                return
            except UnicodeError as error:
                say(f"that is no text: {error}", fg="red", err=True)
                continue
            except KeyboardInterrupt:
                say("\n/exit ends the chat")
                continue
            if line in {"/exit", "/quit"}:
                return
            if line.startswith("/"):
                self.obey(*line[1:].partition(" ")[::2])
            elif line:
                self.say(line)

    def say(self, text: str) -> None:
        """Say something, and show the answer; one that fails is taken back."""
        content: Any = text
        if self.pictures:
            shown = [{"type": "image", "image": path} for path in self.pictures]
            content = [*shown, {"type": "text", "text": text}]
        asked = [*self.messages, {"role": "user", "content": content}]
        try:
            end = self.chat.ask(asked, self.sampling, lambda part: say(part, nl=False))
        except ForgeError as error:
            say(f"error: {error}", fg="red", err=True)
            if isinstance(error, ModelDied):
                raise
            return
        say()
        if not end["finished"]:
            why = "stopped" if end["stopped"] else f"cut at max_new_tokens = {self.sampling.max_new_tokens}"
            say(f"({why})", dim=True, err=True)
        self.messages = [*asked, {"role": "assistant", "content": end["text"]}]
        self.pictures = []

    def obey(self, name: str, rest: str) -> None:
        """Do what a command says."""
        rest = rest.strip()
        if name == "reset":
            self.messages, self.pictures = opening(self.system), []
            say("a new conversation", dim=True)
        elif name == "system":
            self.system = rest or None
            self.messages = opening(self.system)
            say("a new conversation" + (" with this system message" if rest else ""), dim=True)
        elif name == "image":
            path = Path(os.path.expanduser(rest))  # noqa: PTH111 - a home that is not there is a file that is not
            if not rest or not path.is_file():
                say(f"there is no file {rest or '(name one: /image FILE)'}", fg="red", err=True)
                return
            self.pictures.append(str(path.resolve()))
            say("it goes with your next message", dim=True)
        elif name == "save":
            self.save(rest)
        elif name in {"help", "?"}:
            say(HELP, nl=False)
        else:
            say(f"there is no command /{name}; /help lists them", fg="red", err=True)

    def save(self, name: str) -> None:
        """Append the conversation to a file, as one row of training data."""
        if not name or not any(message["role"] == "assistant" for message in self.messages):
            why = "nothing has been said" if name else "name a file: /save FILE"
            say(why, fg="red", err=True)
            return
        try:
            with Path(os.path.expanduser(name)).open("a", encoding="utf-8") as file:  # noqa: PTH111
                file.write(json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        except OSError as error:
            say(f"{name} cannot be written: {error.strerror}", fg="red", err=True)
        else:
            say(f"appended to {name}", dim=True)


def opening(system: str | None) -> list[dict[str, Any]]:
    """Return the messages that a conversation begins with."""
    return [{"role": "system", "content": system}] if system else []


def told(sampling: Sampling) -> str:
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
