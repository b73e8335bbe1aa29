"""The application: its routes, and the guard around all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from forge.api import ForgeError
from forge_serve.web import (
    charts,
    chat,
    files,
    guide,
    jobs,
    machine,
    openapi,
    pages,
    queue,
    quickstart,
    runs,
    streams,
    upload,
)
from forge_serve.web.guard import Guard
from forge_serve.web.problems import Refused, on_fault, on_forge_error, on_http, on_refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from forge_serve.web.server import Server

V1 = "/api/v1"

ROUTES = [
    Route("/", pages.page),
    Route("/login", pages.login),
    Route("/healthz", pages.healthz),
    Route("/favicon.ico", pages.icon),
    Route("/static/{name}", pages.asset),
    Route("/openapi.json", openapi.document),
    Route(V1, machine.about),
    Route(f"{V1}/schema/job", machine.schema),
    Route(f"{V1}/doctor", machine.doctor),
    Route(f"{V1}/plugins", machine.plugins),
    Route(f"{V1}/machine", machine.machine),
    Route(f"{V1}/example", machine.example),
    Route(f"{V1}/quickstart", quickstart.show),
    Route(f"{V1}/quickstart", quickstart.make, methods=["POST"]),
    Route(f"{V1}/rows", upload.take, methods=["POST"]),
    Route(f"{V1}/plan", jobs.plan, methods=["POST"]),
    Route(f"{V1}/data", jobs.data, methods=["POST"]),
    Route(f"{V1}/data/{{id}}", jobs.shown),
    Route(f"{V1}/runs", runs.index),
    Route(f"{V1}/runs", jobs.start, methods=["POST"]),
    Route(f"{V1}/runs/{{id}}", runs.record),
    Route(f"{V1}/runs/{{id}}", runs.remove, methods=["DELETE"]),
    Route(f"{V1}/runs/{{id}}/stop", runs.stop, methods=["POST"]),
    Route(f"{V1}/runs/{{id}}/resume", runs.resume, methods=["POST"]),
    Route(f"{V1}/runs/{{id}}/export", runs.export, methods=["POST"]),
    Route(f"{V1}/runs/{{id}}/eval", runs.evaluate, methods=["POST"]),
    Route(f"{V1}/runs/{{id}}/chat", chat.ask, methods=["POST"]),
    Route(f"{V1}/runs/{{id}}/events", streams.events),
    Route(f"{V1}/runs/{{id}}/log", files.log),
    Route(f"{V1}/runs/{{id}}/report", files.report),
    Route(f"{V1}/runs/{{id}}/charts", charts.figures),
    Route(f"{V1}/runs/{{id}}/charts/{{name}}", charts.figure),
    Route(f"{V1}/runs/{{id}}/series", charts.series),
    Route(f"{V1}/runs/{{id}}/files/{{path:path}}", files.fetch),
    Route(f"{V1}/runs/{{id}}/archive/{{path:path}}", files.archive),
    Route(f"{V1}/queue", queue.show),
    Route(f"{V1}/queue", queue.change, methods=["PATCH"]),
    Route(f"{V1}/queue/{{id}}", queue.move, methods=["PATCH"]),
    Route(f"{V1}/stream", streams.changes),
    Route("/api/start_training", guide.start, methods=["POST"]),
    Route("/api/status", guide.status),
]


def application(server: Server) -> ASGIApp:
    """Return the application of a server."""
    app = Starlette(
        routes=ROUTES,
        lifespan=server.life,
        exception_handlers={
            Refused: on_refused,
            ForgeError: on_forge_error,
            HTTPException: on_http,
            Exception: on_fault,
        },
    )
    app.router.redirect_slashes = False
    app.state.server, app.state.static, app.state.drawn = server, pages.static(), {}
    app.state.making = quickstart.Making()
    return Guard(app, server.door)
