"""``forge script``: a job as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from forge.cli.common import job_argument, set_option, situation
from forge.cli.terminal import say

if TYPE_CHECKING:
    from forge.job.read import Change


@click.command(name="script")
@job_argument
@set_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file; printed if unset.")
def command(job: Path, changes: list[Change], out: Path | None) -> None:
    """Print JOB as one Python file that `uv run` trains anywhere: forge, its packages' versions and the job in it.

    Small local files that the job names are in it too. Whoever starts it again in the same folder goes on with the run.
    It is planned for this machine, or for FORGE_MACHINE.
    """
    import hashlib

    import forge
    from forge.discovery.describe import describe_model
    from forge.disk.files import write_text
    from forge.disk.folder import RunFolder
    from forge.disk.portable import Portable
    from forge.disk.script import check_size, script_text
    from forge.errors import UsageError
    from forge.planning.absent import refuse_absent
    from forge.planning.packages import packages_of
    from forge.planning.planner import make_plan

    here = situation(job, changes, pretend=True)
    model = here.file.job.model
    facts = describe_model(here.catalogue, model.id, model.revision, here.file.job.folder)
    plan = make_plan(here.file, here.catalogue, here.machine, facts)
    refuse_absent(here.file, plan, here.catalogue)
    if (nodes := here.file.job.launch.nodes) > 1:
        raise UsageError(f"the job is for {nodes} nodes", "a script is one node's", "write [launch] nodes = 1")
    adapter = plan.decided("adapter.from")
    portable = Portable(here.file, facts, RunFolder.name_of(here.file), carry=True, adapter=adapter)
    check_size(portable.files)
    packages = packages_of(plan, here.file.job, here.catalogue)
    text = portable.text(forge.__version__)
    # Another job or other rows are another run, and must not go on with the first one's folder.
    about = hashlib.sha256(text.encode())
    for path in portable.files.values():
        about.update(path.read_bytes())
    name = f"{RunFolder.name_of(here.file)}/{about.hexdigest()[:12]}"
    made = script_text(name, text, portable.files, packages)
    if out is None:
        say(made, nl=False)
        return
    write_text(out, made)
    say(f"{out}: `uv run {out}` trains it", err=True)
