"""``forge serve`` and ``forge queue`` as they are typed: where they listen, what they say, and what they cost."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from support.serving import TOKEN, serve

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project
    from support.sites import Site


def forge(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-P", "-m", "forge", *arguments]
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), **environ}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plan", "job.toml"], ["queue", "--help"], ["queue", "list"], ["serve", "--help"]]
)
def test_nothing_but_the_server_loads_what_it_needs(site: Site, arguments: list[str]) -> None:
    (site.folder / "job.toml").write_text('[model]\nid = "org/name"\n[data]\npath = "d.jsonl"\n')
    found = site.modules(*arguments)
    assert "forge.cli" in found
    assert not {name for name in found if name.startswith(("starlette", "uvicorn", "anyio", "forge_serve.web"))}


def test_without_its_extra_the_server_says_what_to_install(site: Site) -> None:
    (site.folder / "starlette").mkdir()
    (site.folder / "starlette" / "__init__.py").write_text("raise ModuleNotFoundError(name='starlette')")
    done = site.forge("serve", "--port", "0")
    assert done.returncode == 2
    assert 'pip install "forge-train[serve]"' in done.stderr


def test_it_listens_on_the_loopback_alone_prints_one_link_and_notes_its_token_for_its_user(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    served = serve(folder, FORGE_SERVE_TOKEN="")
    try:
        token = served.said[0].partition("token=")[2].strip()
        assert len(token) > 40
        served.token = token
        assert served.get("/api/v1")["roots"] == [str(folder)]
        for address in {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
            if not address.startswith("127."):
                with socket.socket() as asking:
                    assert asking.connect_ex((address, served.port))
        note = tmp_path / "state" / "forge" / f"serve-{served.port}.json"
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
        assert json.loads(note.read_text())["token"] == token
        taken = forge(folder, "serve", "--port", str(served.port))
        assert taken.returncode == 2
        assert "cannot listen on" in taken.stderr
        assert "--port 0" in taken.stderr
    finally:
        code = served.stop()
    assert code == 0
    assert not note.exists()
    assert token not in "".join(served.said[1:])


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["--host", "0.0.0.0"], {}, "--allow-remote"),
        (["--host", "10.0.0.1"], {}, "ssh -L"),
        ([], {"FORGE_SERVE_TOKEN": "short"}, "at least 16 characters"),
        (["--origin", "forge.example"], {}, "is no origin"),
        (["--slots", "0;0"], {}, "in it twice"),
    ],
)
def test_what_would_open_the_server_by_mistake_is_refused(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    done = forge(tmp_path, "serve", "--port", "0", *arguments, **environ)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_remote_server_warns_and_a_proxys_origin_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    served = serve(folder, "--host=0.0.0.0", "--allow-remote", "--origin=https://forge.example")
    try:
        proxied = {"Host": "forge.example", "Origin": "https://forge.example"}
        assert served.call("GET", "/api/v1", headers=proxied).status == 200
        assert served.call("GET", "/api/v1", headers={"Host": "evil.example"}).status == 421
    finally:
        served.stop()
    assert "warning: other machines can reach this server" in "\n".join(served.said)


def test_a_connection_that_is_kept_is_answered_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    served = serve(folder)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    took = []
    for _ in range(30):
        begun = time.perf_counter()
        connection.request("GET", "/healthz", headers={"Host": served.host})
        assert connection.getresponse().read() == b'{"ok": true}'
        took.append(time.perf_counter() - begun)
    connection.close()
    served.stop()
    # TCP lets a second small packet wait for 0.04 s; a busy machine may hold up some.
    assert sorted(took)[len(took) // 4] < 0.03


def test_a_second_server_looks_on(place: Project) -> None:
    first = serve(place.folder)
    second = serve(place.folder)
    try:
        assert first.get("/api/v1")["dispatches"] is True
        assert second.get("/api/v1")["dispatches"] is False
        assert second.get("/api/v1/runs")["runs"][0]["id"] == "old~20260101-000000"
    finally:
        first.stop()
        second.stop()


def test_a_cookie_outlives_a_restart_with_the_same_token(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    first = serve(folder)
    cookie = first.call("GET", f"/login?token={TOKEN}").headers["set-cookie"].partition(";")[0]
    first.kill()
    again = serve(folder, port=first.port)
    assert again.call("GET", "/api/v1", headers={"Authorization": None, "Cookie": cookie}).status == 200
    again.stop()


def test_a_job_with_mistakes_is_not_queued(place: Project) -> None:
    (place.folder / "bad.toml").write_text('[model]\nid = "model"\nidd = 3\n[data]\npath = "rows.jsonl"\n')
    done = forge(place.folder, "queue", "add", "bad.toml")
    assert done.returncode == 2
    assert "bad.toml:3: model.idd: unknown key" in done.stderr
    said = json.loads(forge(place.folder, "queue", "add", "bad.toml", "--json").stdout)
    assert said["error"]["problems"][0]["line"] == 3
    assert forge(place.folder, "queue", "list").stdout.startswith("nothing is in the queue")
    assert "there is no entry 7" in forge(place.folder, "queue", "rm", "7").stderr


def test_where_relative_paths_start_can_be_said(place: Project, tmp_path: Path) -> None:
    (tmp_path / "away.toml").write_text((place.folder / "job.toml").read_text())
    told = json.loads(forge(tmp_path, "plan", "away.toml", f"--job-dir={place.folder}", "--json").stdout)
    assert told["facts"]["source"] == "folder"
    assert told["job"]["folder"] == str(place.folder.resolve())
    assert (
        forge(tmp_path, "plan", "away.toml").returncode == 0 or "model" in forge(tmp_path, "plan", "away.toml").stderr
    )
