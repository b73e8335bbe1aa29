"""``forge worker-node``: take part in a training that another node has begun."""

from __future__ import annotations

from pathlib import Path

import click

from forge.cli.common import json_option


@click.command(name="worker-node")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--node", type=click.IntRange(min=1), default=1, show_default=True, help="The number of this node.")
@click.option("--wait", type=float, default=600.0, show_default=True, help="Seconds to wait for the first node.")
@json_option
def command(run: Path, node: int, wait: float, as_json: bool) -> None:
    """Take part in the training of RUN, a run folder on a disk that all nodes share.

    The first node has begun it with `forge run` and `[launch] nodes`. This one starts its processes as that plan says,
    and ends with it.
    """
    from forge.cli.console import Console
    from forge.disk.folder import RunFolder
    from forge.parent.node import serve

    with Console(as_json=as_json) as console:
        serve(RunFolder(run), node, console.show, wait=wait)
