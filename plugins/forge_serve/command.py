"""``forge serve``: the options, and what is said before the server begins. `--help` needs no server to be installed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from pathlib import Path

import click

from forge_serve.queue.command import runs_option

SHORTEST = 16
"""Characters of a token of the user's own."""

TOKEN = "FORGE_SERVE_TOKEN"  # noqa: S105 - the name of a variable


@click.command(name="serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 takes any.")
@runs_option
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder below which jobs may name files; relative paths start at the first. Default: here.",
)
@click.option("--allow-code", is_flag=True, help="Let jobs name Python of their own, and code that comes with a model.")
@click.option("--allow-remote", is_flag=True, help="Let --host be an address that other machines can reach.")
@click.option("--origin", "origins", multiple=True, metavar="URL", help="An address of a proxy in front of the server.")
@click.option("--slots", default="", metavar="GPUS", help='Sets of GPUs, one job each: "0;1" or "0,1;2,3".')
@click.option("--pause-on-failure", is_flag=True, help="Begin nothing more once an entry of the queue has failed.")
@click.option("--wait", is_flag=True, help="Begin nothing while a training that is not of the queue runs here.")
def command(
    host: str,
    port: int,
    runs_dir: Path,
    roots: tuple[Path, ...],
    allow_code: bool,
    allow_remote: bool,
    origins: tuple[str, ...],
    slots: str,
    pause_on_failure: bool,
    wait: bool,
) -> None:
    """Start trainings and watch them: a page, and a REST API, on this machine.

    It prints a link with a token; whoever has it can do what this command may. Trainings do not belong to the server:
    they go on when it ends, and it finds them again. FORGE_SERVE_TOKEN sets a token that outlives a restart.
    """
    from forge.api import UsageError
    from forge_serve.queue.dispatcher import Dispatcher, slots_of
    from forge_serve.queue.shelf import Shelf
    from forge_serve.rules import Rules
    from forge_serve.state import noted

    try:
        import uvicorn

        from forge_serve.web.app import application
        from forge_serve.web.guard import Door, is_loopback
        from forge_serve.web.server import Server
    except ModuleNotFoundError as error:
        if error.name not in {"starlette", "uvicorn", "anyio", "h11"}:
            raise
        what, why = "forge serve cannot start", f"{error.name} is not installed"
        raise UsageError(what, why, 'pip install "forge-train[serve]"') from None

    if not is_loopback(host) and not allow_remote:
        why = "whoever reaches it and has the token runs trainings as this user"
        tunnel = "reach it by `ssh -L 8000:localhost:8000 THIS-MACHINE` instead, or add --allow-remote"
        raise UsageError(f"--host {host} lets other machines in", why, tunnel)
    token = os.environ.get(TOKEN) or secrets.token_urlsafe(32)
    if len(token) < SHORTEST or not token.isascii() or any(sign.isspace() for sign in token):
        what = f"{TOKEN} cannot be used"
        raise UsageError(
            what, f"a token has at least {SHORTEST} characters of ASCII and no spaces", "choose a longer one"
        )
    for origin in origins:
        if not origin.startswith(("http://", "https://")) or origin.rstrip("/").count("/") != 2:
            raise UsageError(f"--origin {origin} is no origin", None, "write it as https://forge.example")
    listening = listen(host, port)
    port = listening.getsockname()[1]
    os.environ[TOKEN] = token  # so that it is masked in all that is written; no training gets it
    shelf = Shelf(runs_dir)
    server = Server(
        door=Door(token, port, host, frozenset(origin.rstrip("/").lower() for origin in origins)),
        rules=Rules(tuple(root.resolve() for root in roots or (Path(),)), allow_code),
        runs=shelf.runs,
        dispatcher=Dispatcher(shelf, slots_of(slots), pause_on_failure=pause_on_failure, wait=wait),
    )
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{'127.0.0.1' if host in {'0.0.0.0', '::'} else shown}:{port}"  # noqa: S104 - it is compared with
    about = {"url": address, "token": token, "process": os.getpid(), "runs": str(shelf.runs)}
    with noted(port, about):
        # What forge prints hides tokens; this one is to be seen, once, by who started the server.
        link = sys.__stdout__ or sys.stdout
        link.write(f"forge serve  {address}/login?token={token}\n")
        link.flush()
        click.echo(f"runs         {shelf.runs}")
        if allow_remote and not is_loopback(host):
            click.echo(
                "warning: other machines can reach this server, without encryption; whoever has the token trains, "
                "reads and deletes as this user" + (", and runs Python of their own" if allow_code else ""),
                err=True,
            )
        sys.stdout.flush()
        config = uvicorn.Config(
            application(server),
            access_log=False,
            server_header=False,
            log_level="warning",
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=2**16,
        )
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises what it heard once more
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            if server.shelf.going():
                click.echo("what runs goes on; `forge serve` finds it again", err=True)
        finally:
            signal.signal(signal.SIGTERM, before)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises :class:`forge.api.UsageError` if the port is taken."""
    from forge.api import UsageError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # a port of a server that has just ended can be used again
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        made.close()
        do = "choose another: --port 0 takes a free one"
        raise UsageError(f"cannot listen on {host}:{port}", error.strerror or str(error), do) from None
    return made
