"""What reaches a terminal: text of others that does nothing there, in every encoding, and no end of a run by it."""

from __future__ import annotations

import contextlib
import doctest
import errno
import io
import json
import os
import subprocess
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import click
import pytest

from forge.api import AnswersShown, Noted, Warned
from forge.cli.common import print_json
from forge.cli.console import Console
from forge.cli.terminal import Unwritable, say, standard_streams
from forge.text import visible as module
from forge.text.visible import UNSEEN, visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.sites import Site

EVIL = "\x1b[2J\x1b]52;c;aGk=\x07\x9b8m\u202e\u200b\ud83d\x7f\U000e0041 gone\rover"
JOB = '[model]\nid = "org/name"\n[data]\npath = "d.jsonl"\n'


@contextlib.contextmanager
def screen(encoding: str = "utf-8", *, terminal: bool = False) -> Iterator[io.BytesIO]:
    """Take the place of both standard streams, as forge's command has them."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream), standard_streams():
        yield raw
        sys.stdout.flush()
        sys.stderr.flush()
    stream.detach()  # or it would close what was written


def test_the_example_holds() -> None:
    assert doctest.testmod(module).failed == 0


def test_what_would_not_be_seen_is_shown_by_its_number_and_all_else_stays() -> None:
    assert not UNSEEN.search(visible(EVIL))
    assert visible("\x1b[8m\u202e") == "\\u001b[8m\\u202e"
    assert visible("a\tb\r\nc\né 👩‍🔬 नमस्ते") == "a\tb\r\nc\né 👩‍🔬 नमस्ते"
    assert json.loads(f'"{visible(EVIL)}"') == EVIL


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252"])
@pytest.mark.parametrize("terminal", [False, True])
def test_whoever_prints_nothing_of_others_acts(encoding: str, terminal: bool) -> None:
    with screen(encoding, terminal=terminal) as raw:
        say(f"{EVIL} é漢😀")
        say(EVIL, err=True)
        click.echo(EVIL)
        click.UsageError(EVIL).show()
        print(EVIL, file=sys.stderr)  # noqa: T201
        sys.stderr.write(warnings.formatwarning(EVIL, UserWarning, EVIL, 1))
        try:
            raise ValueError(EVIL)
        except ValueError:
            traceback.print_exc()
        with Console() as console:
            console.show(Warned(EVIL, do=EVIL))
            console.show(AnswersShown(1, [{"prompt": EVIL, "completion": EVIL, "rewards": {EVIL: 1.0}}]))
    shown = raw.getvalue().decode(encoding)
    assert not UNSEEN.search(shown.replace("\x1b[2m", "").replace("\x1b[33m", "").replace("\x1b[0m", ""))
    assert shown.count("gone") > 7


def test_a_sequence_that_is_cut_between_two_tokens_does_nothing() -> None:
    with screen(terminal=True) as raw:
        for token in ("\x1b", "]0;", "title", "\x07", "\n"):
            say(token, nl=False)
    assert raw.getvalue() == b"\\u001b]0;title\\u0007\n"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_stays_json_in_every_encoding(encoding: str) -> None:
    with screen(encoding) as raw:
        print_json({EVIL: [EVIL, "é漢😀"]})
    assert json.loads(raw.getvalue().decode(encoding)) == {EVIL: [EVIL, "é漢😀"]}
    with screen(encoding) as raw, Console(as_json=True) as console:
        console.show(Noted(f"{EVIL} é漢😀"))
    assert json.loads(raw.getvalue().decode(encoding))["message"] == f"{EVIL} é漢😀"


def test_colours_are_forges_own() -> None:
    with screen(terminal=True) as raw:
        say("\x1b[31mred", fg="green")
    assert raw.getvalue() == b"\x1b[32m\\u001b[31mred\x1b[0m\n"


def test_no_login_is_shown_in_a_message_and_rows_are_as_they_are() -> None:
    with screen() as raw:
        say("http://a:WORD@h", err=True)
        with Console() as console:
            console.show(Noted("http://a:WORD@h"))
    assert b"WORD" not in raw.getvalue()
    with screen() as raw:
        say("http://a:WORD@h")
    assert raw.getvalue() == b"http://a:WORD@h\n"


class Full(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str, /) -> int:  # noqa: ARG002
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_run_goes_on_where_nothing_can_be_shown_and_its_log_says_so_once(tmp_path: Path, as_json: bool) -> None:
    log, told = tmp_path / "log.txt", io.StringIO()
    with contextlib.redirect_stdout(Full()), contextlib.redirect_stderr(told), standard_streams():
        with Console(as_json=as_json, log=log) as console:
            console.show(Noted("one"))
            console.show(Noted("two"))
        with Console() as console, pytest.raises(Unwritable):
            console.line("no run is there to go on")
    assert log.read_text() == "nothing can be written to standard output (No space left on device); the run goes on\n"
    assert told.getvalue().count("the run goes on") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="redirections of a POSIX shell")
@pytest.mark.parametrize(
    ("redirections", "code", "words"),
    [
        ("> /dev/full", 1, "error: nothing can be written to standard output: No space left on device\n"),
        (">&-", 1, "error: nothing can be written to standard output: it is closed\n"),
        (">&- 2>&- <&-", 1, ""),
        ("> /dev/full 2> /dev/full", 1, ""),
        ("2>&-", 0, ""),
    ],
)
@pytest.mark.parametrize("command", ["--version", "schema"])
def test_a_command_that_cannot_print_says_so(redirections: str, code: int, words: str, command: str) -> None:
    if "/dev/full" in redirections and not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("this system has no such device")
    line = f'"{sys.executable}" -P -m forge {command} {redirections}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (code, words)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names of text only")
def test_a_name_that_is_no_text_is_refused(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"job\xff")
    folder.mkdir()
    (folder / "job.toml").write_text(JOB)
    for arguments in (
        ["plan", "job.toml"],
        ["runs"],
        ["plan", str(folder / "job.toml")],
        ["plan", "x", "--set", folder],
    ):
        command = [sys.executable, "-P", "-m", "forge", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, env=site.environment())
        assert (done.returncode, "its byte 0xff is not UTF-8" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_a_plan_is_shown_in_every_locale(site: Site, tmp_path: Path, variables: dict[str, Any]) -> None:
    (tmp_path / "job.toml").write_text(f'{JOB}"\\u001b[2J\\u202e é漢😀" = 1\n', encoding="utf-8")
    done = site.forge("plan", str(tmp_path / "job.toml"), **variables)
    assert done.returncode == 2
    assert "unknown key" in done.stderr
    assert "\\u001b[2J\\u202e \\u00e9\\u6f22\\ud83d\\ude00" in done.stderr
    assert not UNSEEN.search(done.stderr)
