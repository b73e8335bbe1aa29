"""``python -m forge_serve.web.drawing RUN``: the curves of a run, or its page, made in a process of its own.

A long run has a hundred thousand events, and what reads them all takes memory and holds the interpreter: neither is for
a server that others are waiting for.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.disk.folder import RunFolder
from forge_serve.queue.supervisor import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 5000
"""Points of a line that are kept and sent."""


async def draw(folder: Path, what: str) -> bytes:
    """Return what such a process prints: ``curves`` of a run as JSON, or its ``page`` as HTML.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-P", "-m", "forge_serve.web.drawing", what, str(folder)]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*command, env=clean(os.environ, None), **pipes)
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:  # nobody waits for it any more
            process.kill()
    if process.returncode:
        raise RuntimeError(f"{folder} could not be drawn: {err.decode('utf-8', 'replace').strip()[-500:]}")
    return out


def curves(folder: RunFolder) -> dict[str, Any]:
    """Return the figures of a run, those that everybody wants first, and the numbers behind them."""
    from forge_report.chart import draw as figure_of
    from forge_report.curves import charts
    from forge_report.record import read_record

    record = read_record(folder)
    online = any(name in record.steps for name in ("reward", "completions/mean_length"))
    figures = []
    for main, group in zip((True, False), charts(record, online=online), strict=True):
        for chart in group:
            if figure := figure_of(chart):
                name = re.sub(r"[^a-z0-9]+", "-", chart.title.lower()).strip("-")
                about = {"name": name, "title": chart.title, "main": main, "wide": chart.wide}
                figures.append({**about, "html": str(figure)})
    series = {
        kind: {name: thinned(each.x, each.y, MOST) for name, each in found.items()}
        for kind, found in (("steps", record.steps), ("evals", record.evals))
    }
    return {"figures": figures, "series": series}


def thinned(x: Sequence[int], y: Sequence[float | None], points: int) -> list[list[Any]]:
    """Return about so many points of a line: of each bucket the lowest and the highest, so that no spike is lost.

    >>> thinned([0, 1, 2, 3], [5.0, 1.0, 9.0, 2.0], 2)
    [[1, 2], [1.0, 9.0]]
    """
    shown = [value if value == value else None for value in y]
    if len(x) <= points:
        return [list(x), shown]
    width, chosen = 2 * len(x) / points, list[int]()
    for bucket in range(max(1, points // 2)):
        places = range(int(bucket * width), int((bucket + 1) * width))
        inside = [(value, at) for at in places if (value := shown[at]) is not None]
        if inside:
            chosen += sorted({min(inside)[1], max(inside)[1]})
    return [[x[at] for at in chosen], [shown[at] for at in chosen]]


def main() -> None:
    """Print what is asked for."""
    what, folder = sys.argv[1], RunFolder(Path(sys.argv[2]))
    if what == "curves":
        text = json.dumps(curves(folder))
    else:
        from forge_report.page import render
        from forge_report.record import read_record

        text = render(read_record(folder))
    sys.stdout.buffer.write(text.encode(errors="backslashreplace"))


if __name__ == "__main__":
    main()
