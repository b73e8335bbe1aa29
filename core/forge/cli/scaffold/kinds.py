"""What a new plugin can bring: its modules, its test, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forge.cli.scaffold import stages, targets


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin.

    Attributes:
        about: What it does, as a sentence.
        modules: Its modules by their file names.
        test: Its test.
        job: How it is used: a word for the language of the text, and the text.
        seen: What is seen then.
        needs: The distribution that it depends on.
    """

    about: str
    modules: Mapping[str, str]
    test: str
    job: str
    seen: str
    needs: str = "forge-train"


_TEST = '''\
"""The contract of a forge plugin, and what this one does in a run."""
@IMPORTS@

def test_the_plugin_keeps_its_contract() -> None:
    check_plugin("@NAME@")


@TEST@'''


def _test(imports: str, text: str) -> str:
    return _TEST.replace("@IMPORTS@", f"\n{imports}\n").replace("@TEST@", text)


_RUN = "from pathlib import Path\n\nfrom forge.testing import check_plugin, run_job"

_SENDING = """\
from pathlib import Path

from forge.api import Bundle, Job, Status, Ticket
from forge.testing import check_plugin

from @PACKAGE@.submitter import Here, Options"""

OBSERVER = Kind(
    "Tells how the loss went, when a training ends.",
    {
        "__init__.py": '''\
"""The plugin `@NAME@`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Extension, Function, Offer, hookimpl


@hookimpl
def forge_offers() -> Iterable[Offer | Extension | Function]:
    """Say what the plugin can do: it watches jobs that name it in `[use] with`."""
    yield Extension(
        impl="@PACKAGE@.observer",
        config="@PACKAGE@.settings:Settings",
    )
''',
        "settings.py": '''\
"""The table `[plugins.@NAME@]` of a job."""

from forge.api import Table
from pydantic import Field


class Settings(Table):
    """What a job may say to the plugin."""

    digits: int = Field(3, ge=0, le=9, description="Decimal places of the losses.")
''',
        "observer.py": '''\
"""Sees what happens in a run."""

from forge.api import Event, Noted, Run, StepLogged, TrainingDone, hookimpl

_losses: list[float] = []


@hookimpl
def forge_event(event: Event, run: Run) -> None:
    """Remember the losses, and tell of them at the end."""
    if isinstance(event, StepLogged) and event.loss is not None:
        _losses.append(event.loss)
    if isinstance(event, TrainingDone) and _losses:
        first, last = (format(loss, f".{run.config['digits']}f") for loss in (_losses[0], _losses[-1]))
        run.emit(Noted(f"@NAME@: the loss went from {first} to {last}"))
''',
    },
    _test(
        _RUN,
        """\
def test_the_loss_is_told_at_the_end(tmp_path: Path) -> None:
    ran = run_job('[use]\\nwith = ["@NAME@"]\\n', tmp_path)
    said = [str(event.values["message"]) for event in ran.of_kind("note")]
    assert [text.partition(": ")[2] for text in said] == ["the loss went from 2.000 to 0.500"]
""",
    ),
    'toml\n[use]\nwith = ["@NAME@"]',
    "At the end of the training, `forge run` prints a note of the first and the last loss.",
)

EXPORT = Kind(
    "Writes the list of the trained files as an export.",
    {
        "__init__.py": '''\
"""The plugin `@NAME@`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Extension, Function, Offer, Stage, hookimpl


@hookimpl
def forge_offers() -> Iterable[Offer | Extension | Function]:
    """Say what the plugin can do: it makes exports of the format `@NAME@/list`."""
    yield Offer(
        stage=Stage.EXPORT,
        impl="@PACKAGE@.export:export",
        serves=frozenset({"@NAME@/list"}),
        options="@PACKAGE@.options:Options",
    )
''',
        "options.py": '''\
"""The keys that `[[export]]` has for this format."""

from forge.api import Table
from pydantic import Field


class Options(Table):
    """What a job may say of the export."""

    file: str = Field("files.txt", description="Name of the list.")
''',
        "export.py": '''\
"""Makes the export."""

from pathlib import Path

from forge.api import Exported, ExportTable, Run, Trained


def export(run: Run, trained: Trained, export: ExportTable, out: Path) -> Exported:
    """Write the names and sizes of the trained files."""
    weights = run.folder / trained.weights
    files = sorted(path for path in weights.rglob("*") if path.is_file())
    lines = [f"{path.stat().st_size:>12}  {path.relative_to(weights).as_posix()}\\n" for path in files]
    name = export.options["file"]
    (out / name).write_text("".join(lines), encoding="utf-8")
    return Exported(files=(name,), report={"files": len(files)})
''',
    },
    _test(
        _RUN,
        """\
def test_the_export_lists_the_trained_files(tmp_path: Path) -> None:
    ran = run_job('[[export]]\\nformat = "@NAME@/list"\\n', tmp_path)
    assert "adapter_model.safetensors" in (ran.exports[0] / "files.txt").read_text(encoding="utf-8")
""",
    ),
    'toml\n[[export]]\nformat = "@NAME@/list"\nfile = "files.txt"',
    "`forge run` makes the export after the training, and says where it lies.",
)

READER = Kind(
    "Reads questions and answers from a text file, one pair a line with a tab between.",
    {
        "__init__.py": '''\
"""The plugin `@NAME@`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Extension, Function, Offer, hookimpl


@hookimpl
def forge_offers() -> Iterable[Offer | Extension | Function]:
    """Say what the plugin can do: it reads paths that begin with `@NAME@/rows:`."""
    yield Function(
        name="@NAME@/rows",
        impl="@PACKAGE@.read:rows",
    )
''',
        "read.py": '''\
"""Reads rows."""

from collections.abc import Iterator, Mapping

from forge.api import DataError, Job


def rows(job: Job, path: str) -> Iterator[Mapping[str, str]]:
    """Yield a row for each line."""
    try:
        text = job.path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read", str(error)) from error
    for number, line in enumerate(text.splitlines(), 1):
        question, tab, answer = line.partition("\\t")
        if not tab:
            raise DataError(f"{path}:{number} has no tab", None, "write question, tab, answer")
        yield {"prompt": question, "completion": answer}
''',
    },
    _test(
        _RUN,
        """\
def test_a_run_reads_the_rows(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("Name a colour.\\tred\\nName a city.\\tParis\\n", encoding="utf-8")
    ran = run_job('[data]\\npath = "@NAME@/rows:pairs.txt"\\n', tmp_path)
    assert [event.values["rows"] for event in ran.of_kind("data")] == [2]
""",
    ),
    'toml\n[data]\npath = "@NAME@/rows:pairs.txt"',
    "`forge data job.toml` shows the rows as they are trained on, and `forge run` trains on them.",
)

METRIC = Kind(
    "Measures how many words of the expected answer a model says, for evaluations and as a reward.",
    {
        "__init__.py": '''\
"""The plugin `@NAME@`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Extension, Function, Offer, hookimpl


@hookimpl
def forge_offers() -> Iterable[Offer | Extension | Function]:
    """Say what the plugin can do: it measures by `@NAME@/words`."""
    yield Function(
        name="@NAME@/words",
        impl="@PACKAGE@.words:words",
    )
''',
        "words.py": '''\
"""Measures answers."""

from collections.abc import Sequence


def words(*, completions: Sequence[str], references: Sequence[str | None]) -> list[float | None]:
    """Return the share of the reference's words in each answer; None for a row without a reference."""
    return [_share(*pair) for pair in zip(completions, references, strict=True)]


def _share(said: str, meant: str | None) -> float | None:
    due = set(meant.lower().split()) if meant else set()
    return len(due & set(said.lower().split())) / len(due) if due else None
''',
    },
    _test(
        "from forge.testing import check_plugin\n\nfrom @PACKAGE@.words import words",
        """\
def test_half_of_the_words_are_half() -> None:
    assert words(completions=["A red house", "no"], references=["red car", None]) == [0.5, None]
""",
    ),
    'toml\n[data]\neval_size = 0.1\n\n[eval]\nmetrics = ["@NAME@/words"]',
    "After the training, `forge run` shows the metric for the base model and the trained one.",
)

COMMAND = Kind(
    "Adds a command to forge that lists the runs of a folder with their last step.",
    {
        "__init__.py": '''\
"""The plugin `@NAME@`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Command, hookimpl


@hookimpl
def forge_commands() -> Iterable[Command]:
    """Say which commands the plugin brings."""
    yield Command(
        name="@NAME@",
        help="List runs with their last step.",
        impl="@PACKAGE@.command:command",
    )
''',
        "command.py": '''\
"""The command `forge @NAME@`."""

import json
from pathlib import Path

import click


@click.command(name="@NAME@")
@click.argument("runs", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"))
def command(runs: Path) -> None:
    """List the runs in RUNS with their last step."""
    for events in sorted(runs.glob("*/*/events.jsonl")):
        lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
        steps = [line["step"] for line in lines if line["kind"] == "step"]
        click.echo(f"{events.parent.relative_to(runs).as_posix()}  step {max(steps, default=0)}")
''',
    },
    _test(
        "from pathlib import Path\n\nfrom click.testing import CliRunner\n"
        "from forge.testing import check_plugin, run_job\n\nfrom @PACKAGE@.command import command",
        """\
def test_a_run_is_listed_with_its_last_step(tmp_path: Path) -> None:
    ran = run_job("", tmp_path)
    done = CliRunner().invoke(command, [str(tmp_path / "runs")])
    assert done.output == f"job/{ran.folder.name}  step 4\\n"
""",
    ),
    "sh\nforge run job.toml\nforge @NAME@",
    "It prints a line for each run in `runs`.",
)

KINDS: Mapping[str, Kind] = {
    "observer": OBSERVER,
    "export": EXPORT,
    "method": Kind(**stages.METHOD, test=_test(_RUN, stages.METHOD_TEST)),
    "backend": Kind(**stages.BACKEND, test=_test(_RUN, stages.BACKEND_TEST)),
    "reader": READER,
    "metric": METRIC,
    "command": COMMAND,
    "target": Kind(**targets.TARGET, test=_test(_SENDING, targets.TARGET_TEST)),
}
