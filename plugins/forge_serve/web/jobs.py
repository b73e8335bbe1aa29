"""Jobs: planned, looked at, and put into the queue."""

from __future__ import annotations

import copy
import secrets
from typing import TYPE_CHECKING, Any

import tomli
import tomli_w
from starlette.concurrency import run_in_threadpool

from forge.api import Plan, Problem, locate
from forge.text.plan import describe
from forge_serve.calls import ask_of_job, job_error, stem
from forge_serve.rules import values_of
from forge_serve.web.bodies import DataBody, JobBody, StartBody, taken
from forge_serve.web.problems import Refused, answer, refused
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from forge_serve.queue.entry import Place
    from forge_serve.web.server import Server

SHOWN = 32
"""Previews of rows that are kept to be fetched."""


def text_of(body: JobBody) -> str:
    """Return a job as TOML. Raises :class:`Refused` if its tables hold what TOML has not."""
    if isinstance(body.job, str):
        return body.job
    missing = [".".join(map(str, key)) for key, value in values_of(body.job) if value is None]
    if missing:
        problems = [{"where": key, "line": None, "message": "is null", "hint": "leave it out"} for key in missing]
        raise Refused(422, f"job.{missing[0]} is null, which TOML has not", problems)
    try:
        return tomli_w.dumps(body.job)
    except (TypeError, ValueError) as error:
        raise Refused(422, f"the job cannot be written as TOML: {error}") from None


async def planned(server: Server, body: JobBody) -> dict[str, Any]:
    """Return the plan of a job as JSON data. Raises :class:`Refused` with all of its mistakes."""
    text, options = text_of(body), [f"--set={change}" for change in body.set]
    not_ours = await run_in_threadpool(server.rules.problems, text, body.set)
    name = f"{stem(body.name)}.toml"
    if not_ours:
        more = await others(server, body, text, not_ours)
        raise refused(job_error(stem(body.name), [*not_ours, *more]))
    found = await server.asked(lambda: ask_of_job("plan", text, body.name, server.rules.folder, options))
    if found.error is not None:
        raise refused(found.error)
    plan: dict[str, Any] = found.value
    plan["source"] = name
    return plan


async def others(server: Server, body: JobBody, text: str, not_ours: list[Problem]) -> list[Problem]:
    """Return the other mistakes of a job that asks for what it may not: of the job without those values.

    forge never sees those values, so its answers tell nothing about what lies outside of the roots.
    """
    keys = [tuple(int(part) if part.isdecimal() else part for part in each.where.split(".")) for each in not_ours]
    raw = copy.deepcopy(tomli.loads(text))
    for key in sorted(keys, key=str, reverse=True):
        inside: Any = raw
        for part in key[:-1]:
            try:
                inside = inside[part]
            except (KeyError, IndexError, TypeError):  # it stands in a change
                inside = None
        if isinstance(inside, dict):
            inside.pop(key[-1], None)
        elif isinstance(inside, list) and isinstance(key[-1], int) and key[-1] < len(inside):
            inside[key[-1]] = "x"
    names = {each.where for each in not_ours}
    options = [f"--set={change}" for change in body.set if change.partition("=")[0].strip() not in names]
    rest = tomli_w.dumps(raw)
    found = await server.asked(lambda: ask_of_job("plan", rest, body.name, server.rules.folder, options))
    told = [Problem(**each) for each in (found.error or {}).get("problems") or ()]
    kept = []
    for each in told:
        key = tuple(int(part) if part.isdecimal() else part for part in each.where.split("."))
        if not any(key[: len(other)] == other or other[: len(key)] == key for other in keys):
            kept.append(Problem(each.where, each.message, each.do, locate(text, key)))
    return kept


async def plan(request: Request) -> Response:
    """Plan a job: choices with their reasons, what was decided, what it would take."""
    found = await planned(server_of(request), await taken(request, JobBody))
    return answer({"plan": found, "text": describe(Plan.from_json(found))})


async def data(request: Request) -> Response:
    """Begin to show the first rows of a job as they are trained; the answer is fetched by its id."""
    server, body = server_of(request), await taken(request, DataBody)
    await planned(server, body)
    name = secrets.token_hex(8)
    server.shown[name] = {"id": name, "state": "running", "result": None, "error": None}
    while len(server.shown) > SHOWN:
        server.shown.popitem(last=False)
    server.later(show(server, name, body))
    url = f"/api/v1/data/{name}"
    return answer({**server.shown[name], "url": url}, 202, headers={"location": url})


async def show(server: Server, name: str, body: DataBody) -> None:
    """Read the first rows of a job and keep them under a name."""
    options = [f"--rows={body.rows}", *(f"--set={change}" for change in body.set)]
    try:
        found = await server.asked(
            lambda: ask_of_job("data", text_of(body), body.name, server.rules.folder, options, limit=600)
        )
    except Refused as error:
        told: dict[str, Any] = {"state": "failed", "error": {"what": error.detail, "why": None, "do": "try it again"}}
    else:
        told = {"state": "failed" if found.error else "done", "result": found.value, "error": found.error}
    if name in server.shown:
        server.shown[name] |= told


async def shown(request: Request) -> Response:
    """Return rows that were asked for, or that they are being read."""
    name = request.path_params["id"]
    found = server_of(request).shown.get(name)
    if found is None:
        raise Refused(404, f"there are no rows {name}; only the newest {SHOWN} are kept")
    return answer({**found, "url": f"/api/v1/data/{name}"})


async def start(request: Request) -> Response:
    """Put a job into the queue, once its plan is whole; it begins when a slot is free."""
    server, body = server_of(request), await taken(request, StartBody)
    key = key_of(request)
    return await queued(server, body, key)


def key_of(request: Request) -> str | None:
    """Return the Idempotency-Key of a request. Raises :class:`Refused` if it is none."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= 200:
        raise Refused(400, "an Idempotency-Key has 1 to 200 characters")
    return key


async def queued(server: Server, body: StartBody, key: str | None) -> Response:
    """Put a job into the queue and answer where it is."""
    async with server.adding:  # a double click comes twice at once
        if key is not None and (there := await run_in_threadpool(server.shelf.by_key, key)) is not None:
            return await where(server, there)
        place = await add(server, body, key)
    return await where(server, place)


async def add(server: Server, body: StartBody, key: str | None, *, task: str | None = None) -> Place:
    """Plan a job and put it into the queue. Raises :class:`Refused`.

    Args:
        server: The server.
        body: The job.
        key: Its Idempotency-Key.
        task: What the model is to be for, where the request says it: it must suit the model's own kind.
    """
    found = await planned(server, body)
    if task == "text-generation" and (kind := found["facts"].get("task")) == "seq2seq":
        what = f"is text-generation, and the model is of the kind {kind}, which answers a text by another"
        problem = {"where": "task", "line": None, "message": what, "hint": "write summarization"}
        raise Refused(422, f"task {what}", [problem])
    name = stem(found["job"].get("name") or body.name)
    options = [f"--set={change}" for change in body.set]
    kind = "dry-run" if body.dry_run else "run"
    return await run_in_threadpool(
        lambda: server.shelf.add(
            kind, name, job=text_of(body), folder=server.rules.folder, options=options, source="http", key=key
        )
    )


async def where(server: Server, place: Place) -> Response:
    """Answer where an entry of the queue is."""
    await server.look_now()
    line = server.watch.find_line(place.entry.id)
    told = line or {"id": place.entry.id, "state": place.state(), "position": None}
    url = f"/api/v1/runs/{place.entry.id}"
    body = {"id": place.entry.id, "state": told["state"], "position": told["position"], "url": url}
    return answer(body, 202, headers={"location": url})
