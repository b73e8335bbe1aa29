"""``forge migrate FILE``: a job that trains what another tool's configuration does."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from forge.api import UsageError
from forge.text.visible import visible
from forge_migrate.reading import COMMANDS, TOOLS


@click.command(name="migrate")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="The job file; printed if unset.")
@click.option("--from", "tool", type=click.Choice(TOOLS), help="Whose FILE is; its content tells if unset.")
@click.option("--method", type=click.Choice(list(COMMANDS["trl"].values())), help="TRL's command, for its YAML.")
@click.option("--allow-missing", is_flag=True, help="Write the job even where something of the training is missing.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
def command(
    file: Path, out: Path | None, tool: str | None, method: str | None, *, allow_missing: bool, force: bool
) -> None:
    """Write a job from FILE, a configuration of another tool, that trains the same.

    FILE is YAML of Axolotl, LLaMA-Factory, TRL, ms-swift or Unsloth, JSON of ModelForge, or a shell script with a
    command `trl sft …` or `swift sft …`. Defaults there that are not forge's are written out. What changes the training
    and has no place here is an error, unless --allow-missing is given; what changes nothing is a comment.
    """
    from forge_migrate.reading import read
    from forge_migrate.translate import draft_of
    from forge_migrate.writing import text_of

    draft = draft_of(read(file, tool, method), file.parent)
    if draft.missing and not allow_missing:
        lines = "\n".join(f"  {visible(str(each))}" for each in draft.missing)
        one = len(draft.missing) == 1
        count = f"{len(draft.missing)} key{'' if one else 's'} of {draft.tool}"
        raise UsageError(
            f"{count} that {'changes' if one else 'change'} the training {'has' if one else 'have'} no place in a job",
            f"\n{lines}\n",
            f"remove {'it' if one else 'them'} there, or write the job without: --allow-missing",
        )
    text = text_of(draft, file.name)
    if out is not None and out.exists() and not force:
        raise UsageError(f"{out} is there already", do="name another file, or give --force")
    mistakes, said = planned(text, (out or file).resolve().parent)
    if mistakes and not allow_missing:
        raise UsageError(
            "what comes of it is no job that forge can run",
            f"\n{visible(said)}\n",
            "mend it there, or write it all the same: --allow-missing",
        )
    if out is None:
        click.echo(visible(text), nl=False)
        return
    out.write_text(text, encoding="utf-8")
    if said:
        click.echo(f"plan    here says: {visible(said)}")
    for note in draft.told:
        click.echo(f"note    {visible(note)}")
    for each in draft.missing:
        click.echo(f"missing {visible(str(each))}")
    click.echo(f"wrote   {visible(str(out))}; next: forge plan {visible(str(out))}, forge data {visible(str(out))}")


def planned(text: str, folder: Path) -> tuple[bool, str]:
    """Plan a job as it will be planned, in a process of its own.

    Args:
        text: The job file.
        folder: Where it will lie: its paths start there.

    Returns:
        Whether the file itself has mistakes, and what ``forge plan`` says against it; nothing if it plans.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".toml", dir=folder, encoding="utf-8", delete=False) as file:
        file.write(text)
    try:
        command = [sys.executable, "-P", "-m", "forge", "plan", file.name]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=120)
    finally:
        Path(file.name).unlink()
    said = done.stderr.strip().removeprefix("error: ").replace(file.name, "the job")
    return " mistake" in said.partition("\n")[0] and done.returncode != 0, said if done.returncode else ""
