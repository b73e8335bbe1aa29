"""A real `forge serve` in a folder, on a free port, and requests to it over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "a-token-of-the-tests-own"


@dataclass
class Reply:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass
class Served:
    """A server that runs."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    output: Path
    token: str = TOKEN

    @property
    def said(self) -> list[str]:
        """The lines that it has printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace").splitlines()

    @property
    def host(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.port}"

    def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str | None] | None = None
    ) -> Reply:
        """Ask it, with the token and the right headers unless others are given; None leaves one out."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Host": self.host, "Authorization": f"Bearer {self.token}", "Connection": "close"}
        sent |= {"Content-Type": "application/json"} if method not in {"GET", "HEAD"} else {}
        sent |= {"Content-Length": str(len(data))} if data is not None else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {**sent, **(headers or {})}.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(data)
        response = connection.getresponse()
        found = Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        connection.close()
        return found

    def get(self, path: str, **headers: str) -> Any:
        """Return the JSON that it answers."""
        found = self.call("GET", path, headers=headers)
        assert found.status == 200, found.text
        return found.json

    def post(self, path: str, body: Any, status: int = 202, **headers: str) -> Any:
        """Return the JSON that it answers to a body."""
        found = self.call("POST", path, body, headers=headers)
        assert found.status == status, found.text
        return found.json

    @contextmanager
    def stream(self, path: str, **headers: str) -> Iterator[Iterator[dict[str, str]]]:
        """Read a stream: yields its messages, each as ``event``, ``id`` and ``data``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {"Accept": "text/event-stream", "Authorization": f"Bearer {self.token}", **headers}
        with closing(connection):
            connection.request("GET", path, headers=sent)
            with closing(connection.getresponse()) as response:
                assert response.status == 200, response.read()
                yield _messages(response)

    def settled(self, name: str, seconds: float = 90) -> dict[str, Any]:
        """Wait until a run, or an entry, neither waits nor runs, and return it."""
        return self.until(name, lambda run: run["state"] not in {"queued", "running"}, seconds)

    def until(self, name: str, condition: Any, seconds: float = 90) -> dict[str, Any]:
        """Wait until something holds for a run, and return it."""
        end = time.monotonic() + seconds
        while True:
            found = self.call("GET", f"/api/v1/runs/{name}")
            run: dict[str, Any] = found.json
            if found.status == 200 and condition(run):
                return run
            assert time.monotonic() < end, (
                f"waited too long: {[run.get(name) for name in ('id', 'state', 'step', 'error')]}"
            )
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as Ctrl-C does, and return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)


def _messages(response: http.client.HTTPResponse) -> Iterator[dict[str, str]]:
    message: dict[str, str] = {}
    end = time.monotonic() + 20
    while line := response.readline().decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        message[name] = value
        while (following := response.readline().decode()) not in {"\n", ""}:
            name, _, value = following.rstrip("\n").partition(": ")
            message[name] = value
        if "data" in message:
            yield message
            end = time.monotonic() + 20
        assert time.monotonic() < end, "the stream says nothing"
        message = {}


def serve(folder: Path, *options: str, port: int = 0, **environ: str) -> Served:
    """Start a server in a folder and wait until it has said where it is."""
    state = folder.parent / "state"
    handle, name = tempfile.mkstemp(".txt", "served-", folder.parent)  # a pipe that nobody reads holds it up once full
    with os.fdopen(handle) as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "forge", "serve", f"--port={port}", *options],
            cwd=folder,
            env={
                **os.environ,
                "FORGE_SERVE_TOKEN": TOKEN,
                "XDG_STATE_HOME": str(state),
                "HF_HUB_OFFLINE": "1",
                **environ,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    served = Served(folder, port, process, Path(name), environ.get("FORGE_SERVE_TOKEN", TOKEN))
    while not (served.said and "/login?token=" in served.said[0]):
        assert process.poll() is None, served.said
        time.sleep(0.02)
    served.port = int(served.said[0].split(":")[2].partition("/")[0])
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            served.call("GET", "/healthz")
        except OSError:
            time.sleep(0.02)
        else:
            return served
    raise AssertionError("the server does not answer")


@contextmanager
def serving(folder: Path, *options: str, **environ: str) -> Iterator[Served]:
    """Run a server for a while; trainings that it began are left to their own end."""
    served = serve(folder, *options, port=0, **environ)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            try:
                served.stop()  # so that it tells what it ran, where that is measured
            except subprocess.TimeoutExpired:
                served.kill()
