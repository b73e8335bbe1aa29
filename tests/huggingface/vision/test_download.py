"""Images from the web: what is sent, what is followed, and how much is taken."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.rows import BadRow
from forge_huggingface.vision import download
from forge_huggingface.vision.download import Downloads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Server(http.server.BaseHTTPRequestHandler):
    """Answers by path, and keeps what it was asked."""

    asked: list[tuple[str, dict[str, str]]]
    failing = 0

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/here")
            self.end_headers()
            return
        if self.path == "/round":
            self.send_response(302)
            self.send_header("Location", "/round")
            self.end_headers()
            return
        if self.path == "/busy" and len(self.asked) <= self.failing:
            self.send_response(503)
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()  # without a length, as some servers do
        self.wfile.write(b"x" * (3000 if self.path == "/large" else 3))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "LARGEST", 1000)
    Server.asked, Server.failing = [], 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_link_is_followed_and_no_login_is_sent(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    path = Downloads(tmp_path / "kept").get(f"http://user:word@{web}/moved")
    assert path.read_bytes() == b"xxx"
    assert [place for place, _ in Server.asked] == ["/moved", "/here"]
    assert not [name for _, headers in Server.asked for name in headers if name.lower() in {"authorization", "cookie"}]


def test_a_file_without_end_is_not_taken(web: str, tmp_path: Path) -> None:
    with pytest.raises(BadRow, match="is too large"):
        Downloads(tmp_path / "kept").get(f"http://{web}/large")
    assert not (tmp_path / "kept").exists()


def test_a_server_that_is_busy_is_asked_twice(web: str, tmp_path: Path) -> None:
    Server.failing = 1
    assert Downloads(tmp_path).get(f"http://{web}/busy").read_bytes() == b"xxx"
    Server.asked, Server.failing = [], 5
    with pytest.raises(BadRow, match="the server says 503"):
        Downloads(tmp_path / "others").get(f"http://{web}/busy")
    assert len(Server.asked) == 2


@pytest.mark.parametrize("link", ["http://{}/round", "http://127.0.0.1:1/a.png", "http://[/a.png", "http://a b/a.png"])
def test_what_leads_nowhere_is_a_bad_row(web: str, tmp_path: Path, link: str) -> None:
    with pytest.raises(BadRow, match="cannot be fetched"):
        Downloads(tmp_path).get(link.format(web))


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_nothing_is_fetched_offline(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(BadRow, match="forge is offline"):
        Downloads(tmp_path).get(f"http://{web}/a.png")
    assert Server.asked == []
