"""What the machine has and what works on it, as the commands of forge say it, and what a job may hold."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import forge
from forge_serve.calls import ask
from forge_serve.web.problems import answer, refused
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

DAY = 86400.0


async def about(request: Request) -> Response:
    """Say what this server is and may do."""
    server = server_of(request)
    links = ("plan", "data", "runs", "queue", "stream", "schema/job", "doctor", "plugins", "machine", "example")
    return answer(
        {
            "version": forge.__version__,
            "allow_code": server.rules.allow_code,
            "roots": [str(root) for root in server.rules.roots],
            "runs": str(server.runs),
            "dispatches": server.dispatcher.holds,
            "slots": server.dispatcher.slots,
            "links": {name: f"/api/v1/{name}" for name in links},
        }
    )


async def doctor(request: Request) -> Response:
    """Say what works on this machine and what would mend the rest."""
    return answer(await server_of(request).remembered(["doctor", "--json"], 60))


async def machine(request: Request) -> Response:
    """Say what the machine has: processors, memory, GPUs, versions."""
    found = await server_of(request).remembered(["doctor", "--json"], 10)
    return answer(found["machine"])


async def plugins(request: Request) -> Response:
    """List the plugins."""
    return answer(await server_of(request).remembered(["plugins", "--json"], 60))


async def schema(request: Request) -> Response:
    """Return the JSON Schema of jobs."""
    return answer(await server_of(request).remembered(["schema"], DAY))


async def example(request: Request) -> Response:
    """Return a commented job to begin with, made for this machine."""
    with tempfile.TemporaryDirectory(prefix="forge-serve-") as folder:
        file = Path(folder) / "job.toml"
        found = await server_of(request).asked(lambda: ask(["init", str(file)], cwd=Path(folder)))
        if not file.is_file():
            raise refused(found.error or {"what": "there is no example", "kinds": []})
        return answer({"job": file.read_text(encoding="utf-8")})
