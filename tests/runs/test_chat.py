"""Chats: in a terminal, from a pipe, and through the protocol between the two processes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Sampling
from forge.cli.commands.chat import lines
from forge.errors import UsageError
from support.evaluating import ASKED, generator_of, heard
from support.projects import Project, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from forge.disk.folder import RunFolder


def chat(folder: RunFolder, *arguments: str, given: str = "", code: int = 0) -> tuple[str, str]:
    """Run ``forge chat`` with questions from a pipe, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "forge", "chat", str(folder.path), *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


# From a pipe


def test_each_line_of_a_pipe_is_a_question_of_its_own(trained: tuple[Project, RunFolder]) -> None:
    asked = "Name a colour.\n\nName a colour.\n"
    out, _ = chat(trained[1], "--json", "--temperature", "0", "--max-new-tokens", "6", given=asked)
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["answer"] == second["answer"]
    assert (first["question"], first["tokens"], first["finished"]) == ("Name a colour.", 6, False)
    generator = generator_of(trained[1])
    assert first["answer"] == "".join(heard(generator.chat(ASKED, Sampling(max_new_tokens=6)))[0])


@pytest.mark.slow
def test_the_base_model_can_be_asked_too(trained: tuple[Project, RunFolder]) -> None:
    out, _ = chat(trained[1], "--base", "--json", "--max-new-tokens", "6", given="Name a colour.\n")
    base = generator_of(trained[1], "base")
    expected = "".join(heard(base.chat(ASKED, Sampling(max_new_tokens=6)))[0])
    assert json.loads(out)["answer"] == expected
    tuned = "".join(heard(generator_of(trained[1]).chat(ASKED, Sampling(max_new_tokens=6)))[0])
    assert expected != tuned


def test_a_run_that_holds_checkpoints_only_is_told_so(project: Project) -> None:
    project.write()
    done = project.perform()
    (done.folder.path / "trained.json").unlink()
    _, said = chat(done.folder, code=2)
    assert "has no trained weights: it holds checkpoints only; `forge resume" in said
    assert "there is no run nowhere" in project.forge("chat", "nowhere", code=2)


def test_two_models_at_once_are_refused(trained: tuple[Project, RunFolder]) -> None:
    file = trained[0].folder / "rows.jsonl"
    assert "keep one" in chat(trained[1], "--base", "--gguf", str(file), code=2)[1]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_chat_and_its_folder_goes(
    trained: tuple[Project, RunFolder], tmp_path: Path, name: str
) -> None:
    command = [sys.executable, "-P", "-m", "forge", "chat", str(trained[1].path)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        wait_for(lambda: any(tmp_path.glob("forge-chat-*/plan.json")))
        process.send_signal(getattr(signal, name))
        assert process.stderr is not None
        assert process.stderr.read().decode().endswith(f"stopped by {name}\n")
    assert process.returncode == 130
    assert not list(tmp_path.glob("forge-chat-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="redirections of a POSIX shell")
def test_a_chat_with_nobody_ends_with_a_message(trained: tuple[Project, RunFolder]) -> None:
    line = f'"{sys.executable}" -P -m forge chat "{trained[1].path}" <&-'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, "standard input is closed" in done.stderr) == (2, True)


def test_a_question_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="is no text"):
        list(lines(io.TextIOWrapper(io.BytesIO(b"one\n\xff\n"), encoding="utf-8")))
    with pytest.raises(UsageError, match="is no text"):
        list(lines(io.StringIO("one\n\udcff\n")))  # as Python reads it in the locale C


# In a terminal


class Terminal:
    """``forge chat`` at a pseudo-terminal."""

    def __init__(self, folder: RunFolder, *arguments: str) -> None:
        import pty

        self.screen = ""
        pid, self.handle = pty.fork()
        if pid == 0:
            command = [sys.executable, "-P", "-m", "forge", "chat", str(folder.path), *arguments]
            os.execvpe(command[0], command, {**os.environ, "TERM": "dumb"})
        self.pid = pid

    def wait_for(self, text: str, seconds: float = 120) -> str:
        """Read until a text is on the screen, and return what came before it."""
        end = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < end, f"no {text!r} in {self.screen!r}"
            self._read()
        before, _, self.screen = self.screen.partition(text)
        return before

    def wait_for_more(self, seconds: float = 120) -> None:
        """Read until anything further is on the screen."""
        end = time.monotonic() + seconds
        while not self.screen:
            assert time.monotonic() < end, "nothing more"
            self._read()

    def _read(self) -> None:
        if select.select([self.handle], [], [], 0.2)[0]:
            try:
                self.screen += os.read(self.handle, 4096).decode(errors="replace")
            except OSError as error:  # Linux tells a closed terminal so
                raise AssertionError(self.screen) from error

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self.handle, f"{text}\n".encode())

    def press(self, key: str) -> None:
        """Press a key together with Ctrl."""
        os.write(self.handle, bytes([ord(key) - ord("a") + 1]))

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([self.handle], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    os.read(self.handle, 4096)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError("it does not end")


@pytest.mark.slow  # it types while the model answers, which a busy machine cannot keep up with
@pytest.mark.skipif(sys.platform == "win32", reason="there is no pseudo-terminal")
def test_a_conversation_in_a_terminal(trained: tuple[Project, RunFolder], tmp_path: Any) -> None:
    saved = tmp_path / "talk.jsonl"
    terminal = Terminal(trained[1], "--max-new-tokens", "400", "--temperature", "100", "--seed", "5")
    terminal.wait_for("at most 400 tokens")
    terminal.wait_for("> ")
    terminal.type("/nothing")
    terminal.wait_for("there is no command /nothing")
    terminal.wait_for("> ")
    terminal.type("/system You answer briefly.")
    terminal.wait_for("a new conversation with this system message")
    terminal.wait_for("> ")
    terminal.type("Name a colour.")
    terminal.wait_for("Name a colour.\r\n")
    terminal.wait_for_more()
    terminal.press("c")  # ends the answer, which would else take 400 tokens at this temperature, and not the program
    terminal.wait_for("(")
    terminal.wait_for("> ")
    terminal.type(f"/save {saved}")
    terminal.wait_for("appended to")
    terminal.wait_for("> ")
    terminal.press("c")
    terminal.wait_for("/exit ends the chat")
    terminal.wait_for("> ")
    terminal.type("/exit")
    assert terminal.end() == 0
    roles = [message["role"] for message in json.loads(saved.read_text())["messages"]]
    assert roles == ["system", "user", "assistant"]
