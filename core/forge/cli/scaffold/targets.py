"""What a new plugin has that jobs are sent to."""

from __future__ import annotations

from typing import Any

TARGET: dict[str, Any] = {
    "about": "Sends jobs to this machine, where they train behind other programs; it is to send them to yours.",
    "modules": {
        "__init__.py": '''\
"""The plugin `@NAME@`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Target, hookimpl


@hookimpl
def forge_targets() -> Iterable[Target]:
    """Say where the plugin can send jobs."""
    yield Target(
        name="@NAME@",
        help="This machine, behind other programs.",
        impl="@PACKAGE@.submitter:Here",
    )
''',
        "submitter.py": '''\
"""Sends a job by a script that runs `forge run`, and asks after it by its process and the files that it leaves."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from forge.api import Bundle, Finding, Status, Submitter, Table, Ticket
from pydantic import Field

SCRIPT = """\\
#!/bin/sh
trap : TERM  # forge gets it too, saves a checkpoint, and is waited for
nice -n {nice} {python} -P -m forge run {job} --folder {run} &
child=$!
wait $child
code=$?
while kill -0 $child 2>/dev/null; do
  wait $child
  code=$?
done
echo $code >{ended}
"""


class Options(Table):
    """What `[submit.@NAME@]` in the user's config.toml, or `--option`, may say."""

    nice: int = Field(10, ge=0, le=19, description="How far other programs go first.")


class Here(Submitter[Options]):
    """Starts the script, and does not wait for it."""

    keys = Options
    shares_disk = True

    def check(self, bundle: Bundle) -> Iterator[Finding]:
        """Say what is wrong before anything is written."""
        if shutil.which("sh") is None:
            yield Finding("error", "there is no sh on this machine")

    def write(self, bundle: Bundle) -> Path:
        """Write the script."""
        path = bundle.folder / "job.sh"
        files = {"job": bundle.folder / "job.toml", "run": bundle.run, "ended": bundle.folder / "ended"}
        values = {name: shlex.quote(str(file)) for name, file in files.items()}
        path.write_text(SCRIPT.format(nice=self.options.nice, python=shlex.quote(sys.executable), **values))
        return path

    def submit(self, bundle: Bundle) -> tuple[str, str | None]:
        """Start the script; its process is what the job is known by."""
        with (bundle.folder / "log.txt").open("ab") as log:
            command = ["sh", str(bundle.folder / "job.sh")]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return str(process.pid), None

    def status(self, ticket: Ticket, run: Path) -> Status:
        """Look for what the script leaves at its end, and for its process."""
        ended = run / "submit" / "ended"
        if ended.exists():
            code = ended.read_text().strip()
            return Status("done" if code == "0" else "cancelled" if code == "130" else "failed", f"exit code {code}")
        try:
            os.kill(int(ticket.id), 0)
        except ProcessLookupError:
            return Status("failed", "its process is gone")
        return Status("running", f"process {ticket.id}")

    def logs(self, ticket: Ticket, run: Path, *, follow: bool) -> Iterator[str]:
        """Yield what it printed."""
        with (run / "submit" / "log.txt").open() as log:
            while True:
                over = self.status(ticket, run).over  # asked first: what comes until then is read
                yield from (line.rstrip("\\n") for line in log)
                if over or not follow:
                    return
                time.sleep(0.2)

    def cancel(self, ticket: Ticket, run: Path) -> None:
        """Ask forge to save a checkpoint and stop."""
        os.killpg(int(ticket.id), signal.SIGTERM)
''',
    },
    "job": "sh\nforge submit job.toml --to @NAME@\nforge runs\nforge logs job --follow\nforge cancel job",
    "seen": "`forge submit` returns at once; `forge logs` shows the training, and `forge cancel` ends it.",
}

TARGET_TEST = """\
def test_what_is_sent_runs_forge_and_its_end_is_told(tmp_path: Path) -> None:
    job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "d"}})
    bundle = Bundle(run=tmp_path / "run", name="job/1", job=job)
    bundle.folder.mkdir(parents=True)
    (bundle.folder / "job.toml").write_text("")  # which forge refuses
    here = Here(Options())
    assert list(here.check(bundle)) == []
    here.write(bundle)
    ticket = Ticket(target="@NAME@", id=here.submit(bundle)[0])
    lines = list(here.logs(ticket, bundle.run, follow=True))
    assert any("model" in line for line in lines), lines
    assert here.status(ticket, bundle.run) == Status("failed", "exit code 2")
"""
