"""The curves of a run: the figures of forge's report, drawn again when there is more to see, and their numbers."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from forge_serve.web.drawing import MOST, draw, thinned
from forge_serve.web.find import folder_of, number_of
from forge_serve.web.problems import Refused, answer
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from starlette.requests import Request


KEPT = 4
"""Runs whose curves are kept: those that were looked at last."""


@dataclass(slots=True)
class Drawn:
    """The curves of a run as they were drawn last."""

    size: int = -1
    at: float = 0.0
    cost: float = 0.0
    figures: list[dict[str, Any]] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


async def drawn(request: Request) -> Drawn:
    """Return the curves of a run: drawn again once there are more events, and for a tenth of the time at most."""
    server, (line, folder) = server_of(request), folder_of(request)
    kept: dict[str, Drawn] = request.app.state.drawn
    found = kept.pop(line["id"], None) or Drawn()
    kept[line["id"]] = found  # the newest stands last
    for name in list(kept)[:-KEPT]:
        del kept[name]
    async with found.lock:
        view = server.watch.views.get(line["id"])
        size = view.position if view is not None else 0
        if size != found.size and time.monotonic() - found.at >= min(10 * found.cost, 60):
            begun = time.monotonic()
            told = json.loads(await draw(folder.path, "curves"))
            found.figures, found.series = told["figures"], told["series"]
            found.size, found.at = size, time.monotonic()
            found.cost = found.at - begun
    return found


async def figures(request: Request) -> Response:
    """Return the figures of a run as HTML, which was made of nothing but its numbers, escaped."""
    found = await drawn(request)
    return answer({"events": found.size, "figures": found.figures})


async def figure(request: Request) -> Response:
    """Return one figure of a run as HTML."""
    name = request.path_params["name"]
    found = next((each for each in (await drawn(request)).figures if each["name"] == name), None)
    if found is None:
        raise Refused(404, f"the run has no figure {name}")
    policy = "default-src 'none'; frame-ancestors 'self'; sandbox"
    headers = {"content-security-policy": policy}
    return Response(found["html"].encode(errors="backslashreplace"), media_type="text/html", headers=headers)


async def series(request: Request) -> Response:
    """Return the numbers that a run logged, each as steps and values, thinned to so many points."""
    points = number_of(request, "points", 2, MOST, 600)
    found = (await drawn(request)).series
    shown = {kind: {name: thinned(x, y, points) for name, (x, y) in group.items()} for kind, group in found.items()}
    return answer(shown)
