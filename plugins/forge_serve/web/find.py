"""What a request names: a run, its folder, and numbers in its query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_serve.web.problems import Refused
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from forge.disk.folder import RunFolder


def number_of(request: Request, name: str, least: int, most: int, otherwise: int) -> int:
    """Return a number of a request's query. Raises :class:`Refused` if it is none, or out of bounds."""
    text = request.query_params.get(name)
    if text is None:
        return otherwise
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or not least <= int(text) <= most:
        problem = {"where": name, "line": None, "message": f"must be a number from {least} to {most}", "hint": None}
        raise Refused(422, f"{name} must be a number from {least} to {most}", [problem])
    return int(text)


def line_of(request: Request) -> dict[str, Any]:
    """Return the run that a request names, as lists show it. Raises :class:`Refused`."""
    name = request.path_params["id"]
    line = server_of(request).watch.find_line(name)
    if line is None:
        raise Refused(404, f"there is no run {name}; GET /api/v1/runs lists them")
    return line


def folder_of(request: Request) -> tuple[dict[str, Any], RunFolder]:
    """Return the run that a request names, and its folder. Raises :class:`Refused`."""
    line = line_of(request)
    view = server_of(request).watch.views.get(line["id"])
    if view is None:
        raise Refused(409, f"{line['id']} has no run yet: it is {line['state']}")
    return line, view.folder
