"""What several commands share: options, and the way from a job file to a plan."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forge.cli.terminal import say
from forge.errors import UsageError, no_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.api.code import Code
    from forge.discovery.catalogue import Catalogue
    from forge.job.read import Change, JobFile
    from forge.machine.machine import Machine


job_argument = click.argument("job", type=click.Path(path_type=Path))


def _changes(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> list[Change]:
    from forge.job.read import change_of

    return [change_of(text) for text in given]


set_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_changes,
    help="Change a key for this time: --set train.max_steps=10. May be given often.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
job_dir_option = click.option(
    "--job-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where relative paths of JOB start; the folder that it lies in if unset.",
)


def _written(_context: click.Context, _parameter: click.Parameter, folder: Path) -> Path:
    if fault := no_text(folder.absolute()):
        raise UsageError(f"{folder.absolute()} cannot be used", fault, "rename the folder")
    return folder


FOLDER = click.Path(path_type=Path, file_okay=False)
"""The type of a folder, which need not be there yet."""

runs_option = click.option(
    "--runs-dir",
    type=FOLDER,
    default=Path("runs"),
    callback=_written,
    envvar="FORGE_RUNS",
    show_envvar=True,
    show_default=True,
    help="Folder of all runs.",
)
run_argument = click.argument("run", metavar="RUN")


@dataclass(frozen=True, slots=True)
class Situation:
    """A job and what there is to run it with."""

    file: JobFile
    catalogue: Catalogue
    machine: Machine


def situation(job: Path, changes: Sequence[Change], *, pretend: bool, folder: Path | None = None) -> Situation:
    """Read a job file, find the plugins and look at the machine.

    Args:
        job: The job file.
        changes: What ``--set`` changes.
        pretend: Whether another machine, given by ``FORGE_MACHINE``, will do.
        folder: Where relative paths start, if not at the file's folder.
    """
    from forge.cli.config import user_wishes
    from forge.job.read import Change
    from forge.planning.opening import open_job

    machine = this_machine(pretend=pretend)
    wishes = user_wishes()
    wish = [Change("use.prefer", list(wishes.prefer))] if wishes.prefer else []
    file, catalogue = open_job(job, machine, changes, wish, folder=folder)
    if wish and str(wish[0]) in file.overrides[len(changes) :]:
        file = replace(file, config=str(wishes.path))
    return Situation(file, catalogue, machine)


def with_files(words: Sequence[str]) -> tuple[list[str], Catalogue]:
    """Find the plugins, also those that are files, and return the names of those that are meant by some words.

    Args:
        words: Names of plugins, or files as ``[use] plugins`` names them, relative to the current folder.

    Raises:
        UsageError: A file cannot be a plugin.
    """
    from forge.discovery.discover import discover

    files = [word for word in words if word.endswith(".py")]
    code: list[Code] = []
    if files:
        from forge.discovery.installed import installed
        from forge.discovery.local import read_code

        taken = [found.point.name for found in installed()]
        for text in files:
            read, fault = read_code(text, Path(), [*taken, *(each.name for each in code)])
            if read is None:
                raise UsageError(f"{text} cannot be used as a plugin", fault, "see docs/plugins/one-file.md")
            code.append(read)
    names = [Path(word).stem if word in files else word for word in words]
    return names, discover(code=code)


def this_machine(*, pretend: bool) -> Machine:
    """Return the machine; a pretended one is refused where something really runs."""
    from forge.machine.presets import current

    if os.environ.get("FORGE_MACHINE") and not pretend:
        raise UsageError("FORGE_MACHINE is set", "it describes another machine, for plans only", "unset it")
    return current()


def check_file(path: Path | None) -> None:
    """Refuse a file that is not there, or is none. Raises :class:`forge.errors.UsageError`."""
    if path is not None and not path.is_file():
        raise UsageError(f"there is no file {path}", do="exports of the run lie in its folder, below exports/")


def print_json(data: Any) -> None:
    """Print JSON to standard output."""
    say(json.dumps(data, indent=2, ensure_ascii=False))
