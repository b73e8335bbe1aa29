"""The page and its files, the way in, and whether the server is there."""

from __future__ import annotations

import html
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response

from forge_serve.web.guard import same
from forge_serve.web.problems import Refused, answer
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from starlette.requests import Request

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


def static() -> dict[str, tuple[bytes, str]]:
    """Return the files of the page by name, each with its type: they are few, and read once."""
    found = {}
    for path in (files("forge_serve") / "static").iterdir():
        ending = f".{path.name.rpartition('.')[2]}"
        if path.is_file() and ending in TYPES:
            found[path.name] = (path.read_bytes(), TYPES[ending])
    return found


async def healthz(_request: Request) -> Response:
    """Say that the server is there."""
    return answer({"ok": True})


async def login(request: Request) -> Response:
    """Take the token of the link that was printed, and give the page a cookie for it."""
    door = server_of(request).door
    if not same(request.query_params.get("token", ""), door.token):
        raise Refused(401, "the token is wrong; open the link that `forge serve` printed last")
    response = RedirectResponse("/", 303)
    secure = request.headers.get("origin", "").startswith("https:") or request.url.scheme == "https"
    response.set_cookie(door.cookie, door.session, httponly=True, samesite="strict", path="/", secure=secure)
    return response


async def page(request: Request) -> Response:
    """Return the page."""
    body, kind = request.app.state.static["index.html"]
    return Response(body, media_type=kind)


async def asset(request: Request) -> Response:
    """Return a file of the page."""
    found = request.app.state.static.get(request.path_params["name"])
    if found is None:
        raise Refused(404, f"there is no file {html.escape(request.path_params['name'])}")
    return Response(found[0], media_type=found[1])


async def icon(request: Request) -> Response:
    """Return the page's icon."""
    body, kind = request.app.state.static["icon.svg"]
    return Response(body, media_type=kind)
