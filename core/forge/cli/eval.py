"""``forge eval``: measure a trained run on held-out rows, again or on others."""

from __future__ import annotations

import json
from pathlib import Path

import click

from forge.cli.common import check_file, json_option, run_argument, runs_option, set_option, this_machine


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
    overrides: tuple[str, ...],
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Measure RUN on held-out rows, the base model beside it.

    Without options it does what the job's [eval] says, or measures the loss on the held-out rows of [data], and writes
    evaluation.json. With options the result goes to evaluations/ in the run folder. The weights are not touched.
    """
    from forge.console import Console
    from forge.discovery import discover
    from forge.folder import EVALUATION, RunFolder
    from forge.jobfile import load_job, parse
    from forge.parent import evaluate
    from forge.selection import asked_models

    check_file(gguf)
    folder, catalogue, machine = RunFolder.find(run, runs_dir), discover(), this_machine(pretend=False)
    plan = folder.plan()
    stored = load_job(plan.job)
    changes = list(overrides)
    if data is not None:
        changes.append(f"eval.path={json.dumps(here(data))}")
    if metrics:
        changes.append(f"eval.metrics={json.dumps([here(metric) for metric in metrics])}")
    if max_rows is not None:
        changes.append(f"eval.max_rows={max_rows}")
    if base is not None:
        changes.append(f"eval.base={str(base).lower()}")
    target = EVALUATION if not changes and gguf is None else next_target(folder.path)
    if stored.eval is None and not any(change.startswith("eval.") for change in changes):
        changes.append("eval.base=true")  # so that there is such a table
    text = (folder.path / "job.toml").read_text(encoding="utf-8")
    file = parse(text, str(folder.path / "job.toml"), stored.folder, catalogue, [*plan.overrides, *changes])
    models = (*asked_models(file.job), *(["gguf"] if gguf else []))
    with Console(as_json=as_json) as console:
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
