"""Files of a run: those that its own records name, and no others, whatever an address says."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response, StreamingResponse

from forge.api import ForgeError, masked
from forge_serve.queue.entry import read_json
from forge_serve.web.drawing import draw
from forge_serve.web.find import folder_of, number_of
from forge_serve.web.problems import Refused
from forge_serve.web.server import server_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from forge.disk.folder import RunFolder

PLAIN = (
    "job.toml",
    "job.lock.toml",
    "plan.json",
    "data.json",
    "evaluation.json",
    "trained.json",
    "README.md",
    "events.jsonl",
    "log.txt",
)
"""Files of every run that may be fetched."""

PIECE = 2**20
"""Bytes of a log or of events that one answer holds."""


def below(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """Return the files of a run that may be fetched, by name: ``bytes`` and, where it is known, ``sha256``."""
    found: dict[str, dict[str, Any]] = {}
    path = folder.path
    for name in (*PLAIN, *(each.name for each in folder.plan_paths())):
        if _is_file(path, name):
            found[name] = {"bytes": (path / name).stat().st_size}
    sealed: list[tuple[str, Any]] = []
    try:
        trained = read_json(path / "trained.json") or {}
        sealed += [(str(trained.get("weights")), trained.get("files"))]
        sealed += [(f"exports/{where.name}", about.get("files")) for where, about in folder.exports()]
    except (ForgeError, OSError):
        pass
    for where, files in sealed:
        for name, about in (files if isinstance(files, dict) else {}).items():
            if _is_file(path, f"{where}/{name}") and isinstance(about, dict):
                found[f"{where}/{name}"] = {key: about[key] for key in ("bytes", "sha256") if key in about}
    return found


def _is_file(folder: Path, name: str) -> bool:
    """Whether a name is a file that really lies in a folder: no link leads out of it."""
    try:
        real = (folder / name).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return False
    return real.is_file() and folder.resolve() in real.parents


async def fetch(request: Request) -> Response:
    """Send a file of a run to be saved."""
    _, folder = folder_of(request)
    name = request.path_params["path"]
    if name not in await run_in_threadpool(below, folder):
        raise Refused(404, "the run has no such file, or none that may be fetched")
    path = folder.path / name
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


async def archive(request: Request) -> Response:
    """Send a folder of a run, an adapter or an export, as one zip file."""
    _, folder = folder_of(request)
    name = request.path_params["path"]
    files = [each for each in await run_in_threadpool(below, folder) if each.startswith(f"{name}/")]
    if not name or not files:
        raise Refused(404, "the run has no such folder, or none that may be fetched")
    saved = f"{folder.path.parent.name}-{folder.path.name}-{Path(name).name}.zip".encode("ascii", "replace").decode()
    headers = {"content-disposition": f'attachment; filename="{saved.replace(chr(34), "_")}"'}
    return StreamingResponse(zipped(folder.path, name, files), media_type="application/zip", headers=headers)


class _Pieces:
    """A file that is written and read at the same time, and never sought in."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is written is taken at once."""

    def take(self) -> bytes:
        data = b"".join(self.parts)
        self.parts.clear()
        return data


def zipped(folder: Path, name: str, files: list[str]) -> Iterator[bytes]:
    """Yield a zip file of some files, in pieces; weights hardly shrink, so nothing is compressed."""
    pieces = _Pieces()
    with zipfile.ZipFile(cast("IO[bytes]", pieces), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for each in files:
            inner = f"{Path(name).name}/{each.removeprefix(f'{name}/')}"
            info = zipfile.ZipInfo.from_file(folder / each, inner, strict_timestamps=False)
            with (folder / each).open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while data := source.read(PIECE):
                    target.write(data)
                    yield pieces.take()
    yield pieces.take()


async def log(request: Request) -> Response:
    """Return a part of a run's log: its end, or from a byte on."""
    _, folder = folder_of(request)
    count = number_of(request, "bytes", 1, PIECE, 2**16)
    begin = number_of(request, "from", 0, 10**17, -1)
    text, at, size = await run_in_threadpool(part, folder.log, begin, count)
    headers = {"forge-from": str(at), "forge-next": str(at + len(text)), "forge-size": str(size)}
    shown = await run_in_threadpool(lambda: masked(text.decode("utf-8", "replace")))
    return Response(shown, media_type="text/plain; charset=utf-8", headers=headers)


def part(path: Path, begin: int, count: int) -> tuple[bytes, int, int]:
    """Return bytes of a file, where they begin and how large the file is; from its end where ``begin`` is negative."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            at = max(0, size - count) if begin < 0 else min(begin, size)
            file.seek(at)
            return file.read(count), at, size
    except OSError:
        return b"", 0, 0


async def report(request: Request) -> Response:
    """Return forge's page about a run, which loads nothing and runs nothing."""
    _, folder = folder_of(request)
    page = await server_of(request).asked(lambda: draw(folder.path, "page"))
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox"
    headers = {"content-security-policy": policy, "x-frame-options": "SAMEORIGIN"}
    return Response(page, media_type="text/html; charset=utf-8", headers=headers)
