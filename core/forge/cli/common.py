"""What several commands share: options, and the way from a job file to a plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from forge.discovery import Catalogue
    from forge.jobfile import JobFile
    from forge.machine import Machine

F = TypeVar("F", bound=Callable[..., Any])

job_argument = click.argument("job", type=click.Path(path_type=Path))
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Change a key for this time: --set train.max_steps=10. May be given often.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
runs_option = click.option(
    "--runs-dir", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), envvar="FORGE_RUNS",
    show_envvar=True,
    show_default=True, help="Folder of all runs.",
)  # fmt: skip
run_argument = click.argument("run", metavar="RUN")


@dataclass(frozen=True, slots=True)
class Situation:
    """A job and what there is to run it with."""

    file: JobFile
    catalogue: Catalogue
    machine: Machine


def situation(job: Path, overrides: tuple[str, ...], *, pretend: bool) -> Situation:
    """Read a job file, find the plugins and look at the machine.

    Args:
        job: The job file.
        overrides: ``--set`` changes.
        pretend: Whether another machine, given by ``FORGE_MACHINE``, will do.
    """
    from forge.discovery import discover
    from forge.jobfile import read

    catalogue = discover()
    return Situation(read(job, catalogue, overrides), catalogue, this_machine(pretend=pretend))


def this_machine(*, pretend: bool) -> Machine:
    """Return the machine; a pretended one is refused where something really runs."""
    import os

    from forge.errors import UsageError
    from forge.machine import current

    if os.environ.get("FORGE_MACHINE") and not pretend:
        raise UsageError("FORGE_MACHINE is set", "it describes another machine, for plans only", "unset it")
    return current()


def check_file(path: Path | None) -> None:
    """Refuse a file that is not there, or is none. Raises :class:`forge.errors.UsageError`."""
    from forge.errors import UsageError

    if path is not None and not path.is_file():
        raise UsageError(f"there is no file {path}", do="exports of the run lie in its folder, below exports/")


def print_json(data: Any) -> None:
    """Print JSON to standard output."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def size(count: float | None) -> str:
    """Return a number of bytes for people."""
    if count is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def amount(count: float | None) -> str:
    """Return a count for people: 135 M, 1.2 B."""
    if count is None:
        return "unknown"
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:g}"
