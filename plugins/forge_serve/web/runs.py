"""Runs: listed, shown, stopped, gone on with, exported, measured and thrown away."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from forge.api import ForgeError, Problem, RunError
from forge.disk.checkpoints import newest_marked
from forge.disk.events import read_events
from forge.disk.folder import RunFolder
from forge.disk.owner import is_held
from forge.text.plan import describe
from forge.text.speed import Times
from forge_serve.calls import job_error
from forge_serve.queue.entry import Place
from forge_serve.web.bodies import DeleteBody, EvalBody, ExportBody, ResumeBody, StopBody, taken
from forge_serve.web.files import below
from forge_serve.web.find import folder_of, line_of, number_of
from forge_serve.web.jobs import where
from forge_serve.web.problems import Refused, answer, refused
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from forge_serve.web.server import Server

TRASH = ".trash"


async def index(request: Request) -> Response:
    """List runs and what waits, what runs first and then the newest."""
    server = server_of(request)
    limit = number_of(request, "limit", 1, 1000, 100)
    state, after = request.query_params.get("state"), request.query_params.get("after")
    lines = [line for line in server.watch.lines.values() if state is None or line["state"] == state]
    if after is not None:
        place = next((at for at, line in enumerate(lines) if line["id"] == after), None)
        if place is None:
            raise Refused(404, f"there is no run {after} to list from")
        lines = lines[place + 1 :]
    more = lines[limit - 1]["id"] if len(lines) > limit else None
    return answer({"runs": lines[:limit], "after": more, "version": server.watch.version})


async def record(request: Request) -> Response:
    """Return all about a run: its job, lock, plan, state, numbers, result, files, and what can be done with it."""
    server, line = server_of(request), line_of(request)
    view = server.watch.views.get(line["id"])
    if view is None:
        return answer(await run_in_threadpool(record_of_entry, server, line))
    return answer(await run_in_threadpool(record_of_run, line, view.folder))


def record_of_entry(server: Server, line: dict[str, Any]) -> dict[str, Any]:
    """Return all about an entry that has no run yet."""
    place = server.shelf.find(line["id"])
    job = None if place.entry.job is None else _text(place.path / place.entry.job)
    waits = line["state"] == "queued"
    return {
        **line,
        "folder": None,
        "job": job,
        "set": [option.removeprefix("--set=") for option in place.entry.options if option.startswith("--set=")],
        "printed": _tail(place.path / "printed.txt"),
        "can": {"stop": line["state"] == "running", "remove": waits or line["state"] != "running"},
    }


def record_of_run(line: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Return all about a run; what cannot be read is told in ``unread``."""
    unread: dict[str, str] = {}

    def read(name: str, ask: Any) -> Any:
        try:
            return ask()
        except (ForgeError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            unread[name] = str(error)
            return None

    plan = read("plan", folder.plan)
    trained = read("trained", folder.trained)
    kept = newest_marked(folder.checkpoints)
    state = line["state"]
    over = state not in {"running", "queued"}
    exports = read("exports", lambda: [{"folder": path.name, **about} for path, about in folder.exports()]) or []
    return {
        **line,
        "folder": str(folder.path),
        "job": _text(folder.path / "job.toml"),
        "lock": _text(folder.path / "job.lock.toml"),
        "plan": read("plan", lambda: plan.to_json() if plan else None),
        "text": read("plan", lambda: describe(plan) if plan else None),
        "data": read("data", folder.data),
        "trained": {"weights": trained.weights, "metrics": dict(trained.metrics)} if trained else None,
        "result": read("evaluation", folder.evaluation),
        "exports": exports,
        "checkpoint": kept.name if kept else None,
        "speed": read("events", lambda: Times(read_events(folder.events)).lines) if over else [],
        "files": [{"name": name, **about} for name, about in sorted(below(folder).items())],
        "log": _size(folder.log),
        "unread": unread,
        "can": {
            "stop": state == "running",
            "resume": over and state != "dry run" and (trained is not None or kept is not None),
            "export": over and trained is not None,
            "eval": over and trained is not None,
            "chat": over and trained is not None,
            "remove": over,
        },
    }


async def stop(request: Request) -> Response:
    """Ask a training to save and stop, or to end at once."""
    server, line, body = server_of(request), line_of(request), await taken(request, StopBody)

    def ask() -> None:
        if line["entry"] is not None:
            place = server.shelf.find(line["entry"])
            if place.state() == "running":
                server.shelf.ask_to_stop(place, now=body.now)
                return
        view = server.watch.views.get(line["id"])
        if view is None or not view.folder.busy():
            raise Refused(409, f"{line['id']} does not run: it is {line['state']}")
        stop_by_hand(view.folder, now=body.now)

    await run_in_threadpool(ask)
    await server.look_now()
    return answer({"id": line["id"], "state": "running", "stopping": True, "url": line["url"]}, 202)


def stop_by_hand(folder: RunFolder, *, now: bool) -> None:
    """Stop a training that was started in a terminal, by its worker. Raises :class:`Refused` where that is not sure."""
    text = (folder.path / ".lock").read_text(encoding="utf-8", errors="replace").strip()
    command = Path(f"/proc/{text}/cmdline")
    try:
        ours = b"forge.worker" in command.read_bytes() if text.isdecimal() else False
    except OSError:
        ours = False
    if not ours or not is_held(folder.path / ".lock"):
        raise Refused(
            409, "it was started by hand, and its process is not on this machine; stop it where it was started"
        )
    with suppress(ProcessLookupError):
        os.kill(int(text), signal.SIGKILL if now else signal.SIGTERM)


async def resume(request: Request) -> Response:
    """Put a run that was stopped or killed into the queue, to go on from its newest checkpoint."""
    await taken(request, ResumeBody)
    return await again(request, "resume", [])


async def export(request: Request) -> Response:
    """Put exports of a trained run into the queue."""
    body = await taken(request, ExportBody)
    if body.types and body.format is None:
        problem = {"where": "types", "line": None, "message": "needs format", "hint": "name a format"}
        raise Refused(422, "types needs format", [problem])
    options = [] if body.format is None else [f"--format={body.format}"]
    options += [f"--type={each}" for each in body.types] + [f"--set={change}" for change in body.set]
    given = {"format": body.format or "", **{f"types.{at}": each for at, each in enumerate(body.types)}}
    return await again(request, "export", options, given, body.set)


async def evaluate(request: Request) -> Response:
    """Put an evaluation of a trained run into the queue."""
    body = await taken(request, EvalBody)
    data = body.data
    if data is not None and (server_of(request).rules.folder / data).exists():
        data = str(server_of(request).rules.folder / data)
    options = [] if data is None else [f"--data={data}"]
    options += [f"--metric={each}" for each in body.metrics] + [f"--set={change}" for change in body.set]
    options += [] if body.max_rows is None else [f"--max-rows={body.max_rows}"]
    options += [] if body.base is None else ["--base" if body.base else "--no-base"]
    given = {"data": body.data or "", **{f"metrics.{at}": each for at, each in enumerate(body.metrics)}}
    return await again(request, "eval", options, given, body.set)


async def again(
    request: Request,
    kind: str,
    options: Sequence[str],
    given: dict[str, str] | None = None,
    changes: Sequence[str] = (),
) -> Response:
    """Put something that is done to a run into the queue. Raises :class:`Refused`."""
    server = server_of(request)
    line, folder = folder_of(request)
    key = request.headers.get("idempotency-key")

    def add() -> Place:
        if key is not None and (there := server.shelf.by_key(key)) is not None:
            return there
        rules = server.rules
        problems = [
            Problem(name, *fault)
            for name, value in (given or {}).items()
            if (fault := rules.fault(tuple(name.split(".")), value))
        ]
        problems += rules.problems("", changes) + rules.code_problems(_text(folder.path / "job.toml") or "")
        if problems:
            raise refused(job_error(line["name"], problems))
        if line["state"] == "running":
            raise Refused(409, f"{line['id']} runs; stop it first, or wait for its end")
        if line["waiting"]:
            raise Refused(409, f"{line['id']} waits in the queue already, as {line['waiting'][0]}")
        if kind == "resume":
            if folder.trained() is None and newest_marked(folder.checkpoints) is None:
                raise Refused(409, f"{line['id']} has no checkpoint to go on from; start it again")
        else:
            folder.weights_or_refuse()
        return server.shelf.add(kind, line["name"], run=folder.path, options=options, source="http", key=key)

    async with server.adding:
        place = await run_in_threadpool(add)
    return await where(server, place)


async def remove(request: Request) -> Response:
    """Remove an entry that waits, or move a run that is over into the trash."""
    server, line, body = server_of(request), line_of(request), await taken(request, DeleteBody)
    view = server.watch.views.get(line["id"])

    def throw_away() -> dict[str, Any]:
        if view is None:
            server.shelf.remove(server.shelf.find(line["id"]))
            return {"id": line["id"], "trash": None}
        if body.confirm != line["id"]:
            problem = {"where": "confirm", "line": None, "message": f"must be {line['id']}", "hint": None}
            raise Refused(422, "a run is thrown away only where its id is given once more, as confirm", [problem])
        if line["state"] == "running" or line["waiting"]:
            raise Refused(409, f"{line['id']} runs or waits; stop it first")
        path = view.folder.path
        trash = server.runs / TRASH / f"{path.parent.name}~{path.name}-{time.time_ns()}"
        with view.folder.own():  # nobody begins to go on with it meanwhile
            trash.parent.mkdir(parents=True, exist_ok=True)
            path.rename(trash)
        with suppress(OSError):  # other runs of the same name lie there
            path.parent.rmdir()
        for place in server.shelf.by_run(path):
            shutil.rmtree(place.path, ignore_errors=True)
        return {"id": line["id"], "trash": str(trash)}

    try:
        told = await run_in_threadpool(throw_away)
    except RunError as error:
        raise Refused(409, str(error), error=error.to_json()) from None
    await server.look_now()
    return answer(told)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, _size(path) - 2**14))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
