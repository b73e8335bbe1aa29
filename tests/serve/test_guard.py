"""Who may ask the server: over real sockets, as a browser, another site and another process would."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from forge_serve.web.app import ROUTES
from forge_serve.web.guard import OPEN, Door
from support.serving import TOKEN

if TYPE_CHECKING:
    from support.serving import Served

OLD = "old~20260101-000000"
CALLS = [
    (method, re.sub(r"\{[^}]*\}", lambda found: OLD if found[0] == "{id}" else "x", route.path))
    for route in ROUTES
    for method in sorted((route.methods or set()) - {"HEAD"})
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_route_but_two_asks_for_the_token(served: Served, method: str, path: str) -> None:
    body = {} if method != "GET" else None
    for wrong in (None, "Bearer wrong", f"Basic {TOKEN}", "Bearer ", f"Bearer {TOKEN}x"):
        found = served.call(method, path, body, headers={"Authorization": wrong, "Accept": "text/event-stream"})
        assert found.status == (401 if path not in OPEN or path == "/login" else 200), path
        assert TOKEN not in found.text


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.nip.io:{port}", "localhost:1", "127.0.0.1", "0.0.0.0:{port}", "", "a@{host}"]
)
def test_another_host_is_refused_with_the_right_token_too(served: Served, host: str) -> None:
    named = host.format(port=served.port, host=served.host)
    found = served.call("GET", "/api/v1", headers={"Host": named})
    assert found.status == 421
    assert served.call("GET", "/api/v1", headers={"Host": None}).status in {400, 421}


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "LOCALHOST:{port}"])
def test_the_names_of_this_machine_are_known(served: Served, host: str) -> None:
    assert served.call("GET", "/api/v1", headers={"Host": host.format(port=served.port)}).status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "https://{host}", "http://{host}.x"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/api/v1/runs"), ("POST", "/api/v1/plan")])
def test_a_page_of_another_origin_is_refused(served: Served, origin: str, method: str, path: str) -> None:
    body = {"job": ""} if method == "POST" else None
    found = served.call(method, path, body, headers={"Origin": origin.format(host=served.host)})
    assert found.status == 403
    assert not [name for name in found.headers if name.startswith("access-control")]


def test_a_browser_that_asks_before_it_posts_is_allowed_nothing(served: Served) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST", "Authorization": None}
    found = served.call("OPTIONS", "/api/v1/runs", headers=headers)
    assert found.status == 403
    assert not [name for name in found.headers if name.startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_changes_something_comes_from_our_own_page(served: Served, site: str) -> None:
    assert served.call("POST", "/api/v1/plan", {}, headers={"Sec-Fetch-Site": site}).status == 403
    assert served.call("POST", "/api/v1/plan", {}, headers={"Sec-Fetch-Site": "same-origin"}).status == 422


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", None, "text/json"]
)
def test_a_form_cannot_change_anything(served: Served, kind: str | None) -> None:
    found = served.call("POST", "/api/v1/runs", b'{"job": ""}', headers={"Content-Type": kind})
    assert found.status == 415


def test_the_link_gives_a_cookie_and_takes_the_token_out_of_the_address(served: Served) -> None:
    found = served.call("GET", f"/login?token={TOKEN}", headers={"Authorization": None})
    assert (found.status, found.headers["location"]) == (303, "/")
    cookie = found.headers["set-cookie"]
    assert cookie.startswith(f"forge-{served.port}=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    value = cookie.partition(";")[0]
    page = served.call("GET", "/", headers={"Authorization": None, "Cookie": f"other=1; {value}"})
    assert page.status == 200
    assert b"<!doctype html>" in page.body
    other = value.replace(f"forge-{served.port}=", "forge-1=")
    assert served.call("GET", "/", headers={"Authorization": None, "Cookie": other}).status == 401
    assert served.call("GET", "/login?token=wrong", headers={"Authorization": None}).status == 401


def test_every_answer_forbids_what_no_page_of_ours_does(served: Served) -> None:
    for path in ("/", "/healthz", "/static/page.js", "/api/v1", "/nothing", f"/api/v1/runs/{OLD}/report"):
        headers = served.call("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-inline'; script" not in headers["content-security-policy"]
        assert "server" not in headers


def test_a_body_is_bounded_whatever_length_it_is_said_to_have(served: Served) -> None:
    large = b'{"job": "' + b"x" * 2**20 + b'"}'
    assert served.call("POST", "/api/v1/plan", large).status == 413
    chunks = b"".join(b"%x\r\n%s\r\n" % (2**16, b"x" * 2**16) for _ in range(20)) + b"0\r\n\r\n"
    headers = {"Transfer-Encoding": "chunked", "Content-Length": None}
    assert served.call("POST", "/api/v1/plan", chunks, headers=headers).status == 413


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b'{"job": NaN}', b'{"job": "\\ud800"}', b"[" * 100_000, b'{"a": ' * 70 + b"1" + b"}" * 70]
)
def test_what_is_no_json_is_told(served: Served, body: bytes) -> None:
    found = served.call("POST", "/api/v1/plan", body)
    assert found.status == 400
    assert found.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2f__init__.py",
        "/static/../__init__.py",
        "/static/%2e%2e/%2e%2e/state.py",
        f"/api/v1/runs/{OLD}/files/../../../job.toml",
        f"/api/v1/runs/{OLD}/files/..%2f..%2f..%2fjob.toml",
        f"/api/v1/runs/{OLD}/files//etc/passwd",
        f"/api/v1/runs/{OLD}/files/.lock",
        f"/api/v1/runs/{OLD}/files/adapter/../job.toml",
        f"/api/v1/runs/{OLD}/archive/..",
        f"/api/v1/runs/{OLD}/archive/",
        "/api/v1/runs/..~..",
        "/api/v1/runs/%2e%2e",
        "/api/v1/runs/old%2f20260101-000000",
        f"/api/v1/runs/{OLD}/files/adapter%00",
    ],
)
def test_no_address_leads_out_of_a_run(served: Served, path: str) -> None:
    assert served.call("GET", path).status in {404, 409}


def test_a_remote_server_knows_addresses_and_named_origins_and_no_other_names() -> None:
    door = Door("x" * 16, 8000, "0.0.0.0", frozenset({"https://forge.example"}))
    assert all(map(door.knows_host, ("10.0.0.1:8000", "[fe80::1]:8000", "forge.example", "localhost:8000")))
    assert not any(map(door.knows_host, ("evil.example:8000", "10.0.0.1:1", "10.0.0.1", "forge.example:8000")))
    assert door.knows_origin("https://forge.example")
    assert not door.knows_origin("http://forge.example:8000")
    assert "x" * 16 not in repr(door)
