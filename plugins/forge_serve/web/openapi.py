"""The server's routes as OpenAPI 3.1: what each takes and answers, held to the routes and to real answers by tests."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import forge
from forge_serve.web.bodies import BODIES
from forge_serve.web.guide import Training
from forge_serve.web.problems import answer
from forge_serve.web.schemas import SCHEMAS, ref

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_STATIC = ("text/css", "text/javascript", "text/html", "image/svg+xml", "image/png")


def _query(name: str, kind: dict[str, Any], about: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": kind, "description": about}


def _number(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


_PLACE = _query("after", _number(0, 10**17), "The byte of events.jsonl to begin at.")
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    "description": "The same key gives the same entry: of a double click, and of a request that is sent again.",
}
_LAST = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Where a stream goes on, as browsers send it of themselves; it wins over `after`.",
}

_NAMES = {"id": "A run's id, or that of the entry that began it.", "name": "A name.", "path": "A file, or a folder."}


def _operation(
    about: str,
    ok: dict[str, Any],
    *,
    body: str | None = None,
    status: int = 200,
    parameters: tuple[dict[str, Any], ...] = (),
    free: bool = False,
) -> dict[str, Any]:
    """Return an operation: what it does, what it answers, what it takes."""
    problem = {
        "description": "Why it was refused.",
        "content": {"application/problem+json": {"schema": ref("Problem")}},
    }
    found: dict[str, Any] = {
        "summary": about,
        "parameters": list(parameters),
        "responses": {str(status): {"description": about, "content": ok}, "4XX": problem, "5XX": problem},
    }
    if body is not None:
        content = {"application/json": {"schema": ref(body)}}
        found["requestBody"] = {"required": True, "content": content}
    if free:
        found["security"] = []
    return found


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": ref(name)}}


def _media(*kinds: str) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string"}} for kind in kinds}


def _paths() -> dict[str, Any]:
    v1, run = "/api/v1", "/api/v1/runs/{id}"
    page = _operation("The page.", _media("text/html"))
    stream = "text/event-stream"
    paths: dict[str, Any] = {
        "/": {"get": page},
        "/login": {
            "get": {
                "summary": "Take the token of the printed link, and give the page its cookie.",
                "parameters": [_query("token", {"type": "string"}, "The token.")],
                "security": [],
                "responses": {
                    "303": {"description": "To the page."},
                    "4XX": {
                        "description": "The token is wrong.",
                        "content": {"application/problem+json": {"schema": ref("Problem")}},
                    },
                },
            }
        },
        "/healthz": {"get": _operation("Whether the server is there.", _json("Health"), free=True)},
        "/favicon.ico": {"get": _operation("The page's icon.", _media("image/svg+xml"))},
        "/static/{name}": {"get": _operation("A file of the page.", _media(*_STATIC))},
        "/openapi.json": {"get": _operation("This description.", _json("Object"))},
        v1: {"get": _operation("What this server is and may do.", _json("About"))},
        f"{v1}/schema/job": {"get": _operation("The JSON Schema of jobs.", _json("Object"))},
        f"{v1}/doctor": {"get": _operation("What works on this machine.", _json("Object"))},
        f"{v1}/plugins": {"get": _operation("The plugins.", _json("Plugins"))},
        f"{v1}/machine": {"get": _operation("What the machine has.", _json("Object"))},
        f"{v1}/example": {"get": _operation("A commented job to begin with.", _json("Example"))},
        f"{v1}/quickstart": {
            "get": _operation("How far the quick start's model and rows are, and its job.", _json("QuickStart")),
            "post": _operation(
                "Begin to make the quick start's model and rows.",
                _json("QuickStart"),
                body="QuickStartBody",
                status=202,
            ),
        },
        f"{v1}/rows": {"post": _operation("Take a piece of a file of rows.", _json("Upload"), body="UploadBody")},
        f"{v1}/plan": {"post": _operation("Plan a job.", _json("Plan"), body="JobBody")},
        f"{v1}/data": {
            "post": _operation("Begin to show rows as trained.", _json("Rows"), body="DataBody", status=202)
        },
        f"{v1}/data/{{id}}": {"get": _operation("Rows that were asked for.", _json("Rows"))},
        f"{v1}/runs": {
            "get": _operation(
                "Runs, and what waits to become one.",
                _json("Runs"),
                parameters=(
                    _query("state", {"type": "string"}, "Only those in this state."),
                    _query("limit", _number(1, 1000), "At most so many."),
                    _query("after", {"type": "string"}, "Those behind this id."),
                ),
            ),
            "post": _operation(
                "Put a job into the queue.", _json("Started"), body="StartBody", status=202, parameters=(_KEY,)
            ),
        },
        run: {
            "get": _operation("All about a run.", _json("Record")),
            "delete": _operation("Remove what waits, or throw away a run.", _json("Removed"), body="DeleteBody"),
        },
        f"{run}/stop": {"post": _operation("Stop.", _json("Stopping"), body="StopBody", status=202)},
        f"{run}/resume": {
            "post": _operation("Go on.", _json("Started"), body="ResumeBody", status=202, parameters=(_KEY,))
        },
        f"{run}/export": {
            "post": _operation("Export.", _json("Started"), body="ExportBody", status=202, parameters=(_KEY,))
        },
        f"{run}/eval": {
            "post": _operation("Evaluate.", _json("Started"), body="EvalBody", status=202, parameters=(_KEY,))
        },
        f"{run}/chat": {"post": _operation("Ask what was trained, or its base.", _json("Chat"), body="ChatBody")},
        f"{run}/events": {
            "get": _operation(
                "Events from a byte on: lines, with the place behind them in `Forge-Next`, or a stream.",
                _media("application/jsonl", stream),
                parameters=(
                    _PLACE,
                    _query("tail", _number(1, 10_000), "The last so many."),
                    _query("before", _number(0, 10**17), "Those that stand before this byte, as many as fit."),
                    _LAST,
                ),
            )
        },
        f"{run}/log": {
            "get": _operation(
                "A part of the log: its end, or from a byte on; `Forge-Next` and `Forge-Size` say where it is.",
                _media("text/plain"),
                parameters=(
                    _query("from", _number(0, 10**17), "The byte to begin at."),
                    _query("bytes", _number(1, 2**20), "At most so many bytes."),
                ),
            )
        },
        f"{run}/report": {"get": _operation("forge's page about the run.", _media("text/html"))},
        f"{run}/charts": {"get": _operation("Its figures.", _json("Figures"))},
        f"{run}/charts/{{name}}": {"get": _operation("One figure.", _media("text/html"))},
        f"{run}/series": {
            "get": _operation(
                "Its numbers.", _json("Series"), parameters=(_query("points", _number(2, 5000), "Points of a line."),)
            )
        },
        f"{run}/files/{{path}}": {"get": _operation("One of its files.", _media("application/octet-stream"))},
        f"{run}/archive/{{path}}": {"get": _operation("One of its folders, as a zip file.", _media("application/zip"))},
        f"{v1}/queue": {
            "get": _operation("The queue.", _json("Queue")),
            "patch": _operation("Begin nothing more, or go on.", _json("Queue"), body="QueueBody"),
        },
        f"{v1}/queue/{{id}}": {"patch": _operation("Move an entry.", _json("Entry"), body="EntryBody")},
        f"{v1}/stream": {
            "get": _operation(
                "All that changes: `hello`, `run`, `gone`, `queue`, and `line` of one run.",
                _media(stream),
                parameters=(_query("run", {"type": "string"}, "The run whose events come too."), _PLACE, _LAST),
            )
        },
        "/api/start_training": {
            "post": _operation(
                "Train, in the guide's words.",
                _json("TrainingStarted"),
                body="Training",
                status=202,
                parameters=(_KEY,),
            )
        },
        "/api/status": {"get": _operation("How far the newest training is.", _json("Status"))},
    }
    for path, operations in paths.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        named = [
            {"name": each, "in": "path", "required": True, "schema": {"type": "string"}, "description": _NAMES[each]}
            for each in names
        ]
        for operation in operations.values():
            operation["parameters"] = [*named, *operation.get("parameters", [])]
    return paths


@cache
def openapi() -> dict[str, Any]:
    """Return the description of the server."""
    template = "#/components/schemas/{model}"
    bodies = {each.__name__: each.model_json_schema(ref_template=template) for each in (*BODIES, Training)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "forge serve",
            "version": forge.__version__,
            "description": "Start trainings and watch them. Every mistake is a problem of RFC 9457.",
        },
        "security": [{"token": []}, {"page": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "page": {"type": "apiKey", "in": "cookie", "name": "forge-8000"},
            },
            "schemas": {**SCHEMAS, **bodies},
        },
    }


async def document(_request: Request) -> Response:
    """Return the description of the server."""
    return answer(openapi())
