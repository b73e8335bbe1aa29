"""``forge eval``: measure a trained run on held-out rows, again or on others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from forge.cli.common import check_file, json_option, run_argument, runs_option, set_option, this_machine

if TYPE_CHECKING:
    from forge.job.read import Change


@click.command(name="eval")
@run_argument
@click.option("--data", metavar="PATH", help="Ask these rows instead: a file, folder, glob or hub id.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Judge by this metric; may be given often.")
@click.option("--max-rows", type=click.IntRange(1), help="Ask only this many rows.")
@click.option("--base/--no-base", default=None, help="Whether to ask the base model too; as the job says if left out.")
@click.option("--gguf", type=click.Path(path_type=Path), help="Ask this GGUF file of the run too.")
@set_option
@runs_option
@json_option
def command(
    run: str,
    data: str | None,
    metrics: tuple[str, ...],
    max_rows: int | None,
    base: bool | None,
    gguf: Path | None,
    changes: list[Change],
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Measure RUN on held-out rows, the base model beside it.

    Without options it does what the job's [eval] says, or measures the loss on the held-out rows of [data], and writes
    evaluation.json. With options the result goes to evaluations/ in the run folder. The weights are not touched.
    """
    from forge.api.plan import Who
    from forge.cli.console import Console
    from forge.discovery.discover import discover
    from forge.discovery.keys import PluginKeys
    from forge.disk.folder import EVALUATION, RunFolder
    from forge.job.job import load_job
    from forge.job.read import Change
    from forge.parent.after import evaluate
    from forge.planning.needs import asked_models

    check_file(gguf)
    folder, machine = RunFolder.find(run, runs_dir), this_machine(pretend=False)
    catalogue = discover(code=folder.code())
    given = {
        "path": None if data is None else here(data),
        "metrics": [here(metric) for metric in metrics] or None,
        "max_rows": max_rows,
        "base": base,
    }
    asked = [*changes, *(Change(f"eval.{key}", value) for key, value in given.items() if value is not None)]
    target = EVALUATION if not asked and gguf is None else next_target(folder.path)
    if load_job(folder.plan().job).eval is None and not any(change.key.startswith("eval.") for change in asked):
        asked.append(Change("eval.base", True))  # so that there is such a table
    file = folder.job_file(PluginKeys(catalogue, machine), asked)
    models = (*asked_models(file.job), *([Who.GGUF] if gguf else []))
    with Console(as_json=as_json, log=folder.log) as console:
        evaluate(folder, file, models, catalogue, machine, console.show, target=target, gguf=gguf)


def here(text: str) -> str:
    """Return a path, or a file with a function behind it, as an absolute one if it is there."""
    place, colon, function = text.rpartition(":")
    if colon and Path(place).is_file():
        return f"{Path(place).resolve()}:{function}"
    return str(Path(text).resolve()) if Path(text).exists() else text


def next_target(folder: Path) -> str:
    """Return the next free name in ``evaluations/``, relative to the run folder."""
    taken = [int(path.stem) for path in (folder / "evaluations").glob("*.json") if path.stem.isdigit()]
    return f"evaluations/{max(taken, default=0) + 1}.json"
