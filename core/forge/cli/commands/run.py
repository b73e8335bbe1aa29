"""``forge run``: plan a job, train it, export it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from forge.cli.common import FOLDER, job_argument, job_dir_option, json_option, runs_option, set_option, situation

if TYPE_CHECKING:
    from pathlib import Path

    from forge.job.read import Change


@click.command(name="run")
@job_argument
@set_option
@job_dir_option
@click.option("--dry-run", is_flag=True, help="Do everything but train: rows, checks, the model, one probing batch.")
@runs_option
@click.option("--folder", type=FOLDER, help="The run's own folder, instead of a fresh one below --runs-dir.")
@json_option
def command(
    job: Path,
    changes: list[Change],
    job_dir: Path | None,
    dry_run: bool,
    runs_dir: Path,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Train what JOB says, a TOML file, and make its exports.

    The run's folder, below --runs-dir, gets the plan with its reasons, the events, checkpoints, weights and exports.
    Ctrl-C saves a checkpoint and stops; `forge resume` goes on.
    """
    from forge.api.plan import Task
    from forge.cli.console import Console
    from forge.parent.run import run

    here = situation(job, changes, pretend=False, folder=job_dir)
    with Console(as_json=as_json) as console:
        task = Task.DRY_RUN if dry_run else Task.TRAIN
        made = run(
            here.file, here.catalogue, here.machine, runs_dir, console.show, task=task, ready=console.begin, into=folder
        )
        console.finish(made)
