"""Images from the web: what is sent, what is followed, and how much is taken."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import DataError
from forge_huggingface.rows import BadRow, UnfetchedRow
from forge_huggingface.vision import download
from forge_huggingface.vision.download import Downloads
from support.looking import Collated, rewrite, row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.looking import VisionProject


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
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path.startswith("/busy") and len(self.asked) <= self.failing:
            self.send_response(503)
            self.end_headers()
            return
        if self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
        if self.path == "/chunks":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nxxx")
            return
        if self.path == "/nonsense":
            self.wfile.write(b"HTTP/one hundred OK\r\n\r\n")
            return
        if self.path == "/head":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n")
            return
        if self.path == "/packed":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nno gzip at all")
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
    others = Downloads(tmp_path / "others")
    for _ in range(3):  # and not again for what it has refused
        with pytest.raises(BadRow, match="the server says 503"):
            others.get(f"http://{web}/busy")
    assert len(Server.asked) == 2


LINKS = (
    "http://{}/round",
    "http://{}/chunks",
    "http://{}/nonsense",
    "http://{}/head",
    "http://{}/packed",
    "http://127.0.0.1:1/a.png",
    "http://127.0.0.1:port/a.png",
    "http://127.0.0.1:123456/a.png",
    "http://[/a.png",
    "http://[::1/a.png",
    "http://a b/a.png",
    "http:///a.png",
    "http://\ud83d/a.png",
    "http://" + "a" * 70 + ".example/a.png",
    "http://xn--/a.png",
    "http://..example/a.png",
)


@pytest.mark.parametrize("link", LINKS)
def test_what_leads_nowhere_is_a_bad_row(web: str, tmp_path: Path, link: str) -> None:
    with pytest.raises(BadRow, match="cannot be fetched"):
        Downloads(tmp_path).get(link.format(web))


def test_a_link_with_a_space_is_asked_for(web: str, tmp_path: Path) -> None:
    assert Downloads(tmp_path).get(f"http://{web}/a picture.png").read_bytes() == b"xxx"


def test_a_server_that_never_ends_is_left_after_a_while(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "DEADLINE", 0.3)
    monkeypatch.setattr(download, "_TRIES", 1)
    with pytest.raises(BadRow, match=r"cannot be fetched: it was not whole after 0\.3 seconds"):
        Downloads(tmp_path).get(f"http://{web}/slow")


def test_a_host_that_fails_again_and_again_is_asked_no_more(web: str, tmp_path: Path) -> None:
    downloads, host = Downloads(tmp_path), web
    downloads.get(f"http://{host}/a.png")
    Server.asked, Server.failing = [], 10**9
    for number in range(30):  # as much as 20 would end the run where nothing had ever come
        with pytest.raises(UnfetchedRow, match="cannot be fetched"):
            downloads.get(f"http://{host}/busy?{number}")
    assert len(Server.asked) == download.HOST_FAILURES + 1, "the first of them twice"
    with pytest.raises(UnfetchedRow, match=rf"{host} has failed for 5 images, and is asked no more"):
        downloads.get(f"http://{host}/b.png")


def test_a_machine_without_a_network_is_told_instead_of_its_rows(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    downloads = Downloads(tmp_path)
    for number in range(1, download.FAILURES):
        with pytest.raises(UnfetchedRow):
            downloads.get(f"http://127.0.0.{number}:1/a.png")
    with pytest.raises(DataError, match=r"no image can be fetched: 20 were tried, the last from 127\.0\.0\.1:2: "):
        downloads.get("http://127.0.0.1:2/a.png")


def test_an_image_that_cannot_be_fetched_ends_a_run_before_others_are_tried(web: str, project: VisionProject) -> None:
    good = row("pictures/0.png")
    rewrite(project, [good, row(f"http://{web}/missing"), *[row(f"http://{web}/busy?{n}") for n in range(50)]])
    Server.failing = 10**9
    with pytest.raises(DataError, match=r"rows\.jsonl:2 .* 404 .* 1 of the first 2 rows are bad"):
        Collated(project)
    assert [path for path, _ in Server.asked] == ["/missing"]


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_nothing_is_fetched_offline(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(BadRow, match="forge is offline"):
        Downloads(tmp_path).get(f"http://{web}/a.png")
    assert Server.asked == []
