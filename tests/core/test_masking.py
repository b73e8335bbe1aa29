"""No login gets into a message, a log, or a file that others see."""

from __future__ import annotations

import doctest
import io
import json
import time
from typing import TYPE_CHECKING

import pytest

from forge import errors, masking
from forge.api.event import Noted
from forge.disk.events import EventLog, read_events
from forge.errors import ForgeError, JobError, Problem, from_json
from forge.masking import HIDDEN, Masking, masked

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "hf_" + "aB3" * 12

LOGINS = [
    "could not reach http://me:WORD@host:99/x",
    "http://me:WO%52D@host",
    "http://me:w@WORD@host/x",
    "https://WORD@github.com/a",
    "s3://KEY:WORD@bucket",
    "URL('user:WORD@proxy.local:3128')",
    "at https%3A%2F%2Fme%3AWORD%40host%2Fx",
    "https://b.s3.amazonaws.com/k?X-Amz-Credential=WORD%2F2026&x=1",
    "https://b/k?a=1&X-Amz-Signature=WORD",
    "https://b/k?sv=1&sig=WORD%3D",
    "https://b/k?access_token=WORD#x",
    "https://b/k?page=1&amp;api-key=WORD",
    '{"url": "https://b/k?page=1\\u0026key=WORD"}',
    "Authorization: Bearer WORD-WORD",
    "{'Authorization': 'Basic WORDWORD'}",
]


def test_the_examples_hold() -> None:
    assert doctest.testmod(masking).failed == doctest.testmod(errors).failed == 0


@pytest.mark.parametrize("text", LOGINS)
def test_a_login_is_hidden_wherever_it_stands(text: str) -> None:
    hidden = masked(text)
    assert "WORD" not in hidden
    assert "WO%52D" not in hidden
    assert HIDDEN in hidden
    assert masked(hidden) == hidden


TOKENS = [
    TOKEN,
    *(f"{kind}_{'aB3' * 8}" for kind in ("hf_oauth", "hf_jwt", "api_org", "github_pat")),
    *(f"gh{kind}_{'x' * 36}" for kind in "oprsu"),
    "glpat-" + "a-b1" * 6,
    "sk-proj-" + "a1" * 20,
    *(f"xox{kind}-{'1' * 12}" for kind in "abp"),
    "AKIA" + "Z" * 16,
    "ASIA" + "Z" * 16,
]


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_hidden_by_its_form(token: str) -> None:
    assert masked(f"401 for {token}, sorry") == f"401 for {HIDDEN}, sorry"


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/a/b/resolve/main/x?download=true",
        "write to me@example.org about http://host:80/@scope/x",
        "hf_transfer and hf_hub_download",
        "the bearer of this",
        "16:9 @ 4 k",
        "[train] max_steps = 3; key=value",
    ],
)
def test_what_is_no_login_stays(text: str) -> None:
    assert masked(text) == text


def test_what_the_environment_calls_a_secret_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "correct horse")
    monkeypatch.setenv("OTHER", "battery staple")
    assert masked("wrong key correct horse, battery staple") == f"wrong key {HIDDEN}, battery staple"


def test_an_error_hides_what_a_library_quotes_and_so_does_its_copy() -> None:
    error = ForgeError("cannot fetch http://a:WORD@h", "503 for http://h/?token=WORD", "ask http://a:WORD@h")
    assert "WORD" not in f"{error} {error.args} {from_json(error.to_json())}"
    assert "WORD" not in str(JobError("job.toml", [Problem("data.path", 'not "http://a:WORD@h"')]))


def test_events_and_logs_hide_logins(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append(Noted('asked "http://a:WORD@h/?token=WORD"'))
    log.close()
    (event,) = read_events(tmp_path / "events.jsonl")
    assert event["message"] == f'asked "http://{HIDDEN}@h/?token={HIDDEN}"'
    printed = io.StringIO()
    stream = Masking(printed)
    stream.writelines(["GET http://a:WORD@h\n", "done\n"])
    assert printed.getvalue() == f"GET http://{HIDDEN}@h\ndone\n"


@pytest.mark.parametrize("piece", ["a:", "a@", "http://", "?token", "%3A%2F%2F", "bearer ", "?a;", "hf_", "x=y&"])
def test_hiding_takes_linear_time(piece: str) -> None:
    start = time.process_time()
    masked(json.dumps(piece * (200_000 // len(piece))))
    assert time.process_time() - start < 2
