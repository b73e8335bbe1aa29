"""Rows from the computer of who looks at the page: a file of text, in pieces, into the first root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from forge_serve.web.bodies import UploadBody, taken
from forge_serve.web.problems import Refused, answer
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from forge_serve.rules import Rules

FOLDER = "uploads"
LARGEST = 2**30
"""Bytes of a file."""


async def take(request: Request) -> Response:
    """Take a piece of a file of rows; the file is there once the last piece has come."""
    body, rules = await taken(request, UploadBody), server_of(request).rules
    return answer(await run_in_threadpool(written, rules, body))


def written(rules: Rules, body: UploadBody) -> dict[str, Any]:
    """Write a piece of a file. Raises :class:`Refused`.

    What has not come whole has another name, so that nobody trains on the half of it.
    """
    folder, data = rules.folder / FOLDER, body.text.encode()
    if not rules.inside(folder):
        raise Refused(409, f"{folder} leads out of the folders that this server may use")
    folder.mkdir(exist_ok=True)
    path = folder / body.name.replace(" ", "-")
    if body.after == 0:
        path = free(path)
    part = path.with_name(f".{path.name}.part")
    size = part.stat().st_size if part.is_file() and not part.is_symlink() else 0
    if size != body.after:
        raise Refused(409, f"{size} bytes of {path.name} have come, not {body.after}; send it again from its beginning")
    if size + len(data) > LARGEST:
        part.unlink(missing_ok=True)
        raise Refused(413, f"{path.name} is larger than {LARGEST:,} bytes; copy it to {rules.folder} instead")
    with part.open("ab") as file:
        file.write(data)
    if body.last:
        part.rename(path)
    told = f"{FOLDER}/{path.name}"
    return {"name": path.name, "path": told, "bytes": size + len(data), "whole": body.last}


def free(path: Path) -> Path:
    """Return a name that no file has: the one that was wished for, or that with a number. What was half sent goes."""
    number, wished = 1, path
    while path.exists() or path.is_symlink():
        number += 1
        path = wished.with_name(f"{wished.stem}-{number}{wished.suffix}")
    path.with_name(f".{path.name}.part").unlink(missing_ok=True)
    return path
