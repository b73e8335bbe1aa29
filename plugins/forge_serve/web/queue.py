"""The queue: what waits, in which order, and whether it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from forge_serve.queue.shelf import told
from forge_serve.web.bodies import EntryBody, QueueBody, taken
from forge_serve.web.problems import answer
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from forge_serve.web.server import Server


async def show(request: Request) -> Response:
    """List the queue: what runs, what waits in its order, what is over."""
    return answer(whole(server_of(request)))


def whole(server: Server) -> dict[str, object]:
    """Return the queue, as it was seen last."""
    return {**server.watch.queue, "dispatches": server.dispatcher.holds, "slots": server.dispatcher.slots}


async def change(request: Request) -> Response:
    """Begin nothing more, or go on."""
    server, body = server_of(request), await taken(request, QueueBody)
    if body.paused:
        await run_in_threadpool(server.shelf.pause, "paused from the page")
    else:
        await run_in_threadpool(server.shelf.go_on)
    await server.look_now()
    return answer(whole(server))


async def move(request: Request) -> Response:
    """Put an entry that waits at another place."""
    server, body = server_of(request), await taken(request, EntryBody)

    def moved() -> dict[str, object]:
        place = server.shelf.find(request.path_params["id"])
        server.shelf.move(place, body.position)
        waiting = [other.entry.id for other in server.shelf.waiting()]
        return told(place, waiting.index(place.entry.id) if place.entry.id in waiting else None)

    line = await run_in_threadpool(moved)
    await server.look_now()
    return answer(line)
