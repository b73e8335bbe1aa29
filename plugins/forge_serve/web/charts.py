"""The curves of a run: the figures of forge's report, drawn again when there is more to see, and their numbers."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from forge_serve.web.find import folder_of, number_of
from forge_serve.web.problems import Refused, answer
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from forge.disk.folder import RunFolder

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
            found.figures, found.series = await run_in_threadpool(draw_all, folder)
            found.size, found.at = size, time.monotonic()
            found.cost = found.at - begun
    return found


def draw_all(folder: RunFolder) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the figures of a run, those that everybody wants first, and the numbers behind them."""
    from forge_report.chart import draw
    from forge_report.curves import charts
    from forge_report.record import read_record

    record = read_record(folder)
    online = any(name in record.steps for name in ("reward", "completions/mean_length"))
    figures = []
    for main, group in zip((True, False), charts(record, online=online), strict=True):
        for chart in group:
            if figure := draw(chart):
                name = re.sub(r"[^a-z0-9]+", "-", chart.title.lower()).strip("-")
                figures.append(
                    {"name": name, "title": chart.title, "main": main, "wide": chart.wide, "html": str(figure)}
                )
    series = {
        kind: {name: (each.x, each.y) for name, each in found.items()}
        for kind, found in (("steps", record.steps), ("evals", record.evals))
    }
    return figures, series


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
    points = number_of(request, "points", 2, 5000, 600)
    found = (await drawn(request)).series
    shown = {kind: {name: thinned(x, y, points) for name, (x, y) in group.items()} for kind, group in found.items()}
    return answer(shown)


def thinned(x: list[int], y: list[float], points: int) -> list[list[Any]]:
    """Return about so many points of a line: of each bucket the lowest and the highest, so that no spike is lost.

    >>> thinned([0, 1, 2, 3], [5.0, 1.0, 9.0, 2.0], 2)
    [[1, 2], [1.0, 9.0]]
    """
    if len(x) > points:
        width = 2 * len(x) / points
        chosen: list[int] = []
        for bucket in range(max(1, points // 2)):
            inside = [at for at in range(int(bucket * width), int((bucket + 1) * width)) if y[at] == y[at]]
            if inside:
                chosen += sorted({min(inside, key=y.__getitem__), max(inside, key=y.__getitem__)})
        x, y = [x[at] for at in chosen], [y[at] for at in chosen]
    return [list(x), [value if value == value else None for value in y]]
