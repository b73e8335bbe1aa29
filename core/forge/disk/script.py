"""A job as one file: a Python script that says what it needs (PEP 723), so that ``uv run job.py`` trains anywhere."""

from __future__ import annotations

import base64
import json
import textwrap
import zlib
from typing import TYPE_CHECKING

from forge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIMIT = 2**20
"""The most bytes of local files that go into a script, as they are on the disk."""

_TEXT = '''\
# /// script
# requires-python = ">=3.11"
# dependencies = [
{packages}
# ]
# ///
"""Trains {name} with forge: `uv run` installs what stands above and runs what stands below.

The run's folder is {folder} below the current one, or what FORGE_RUN says. Started again, it goes on with the run that
is there. FORGE_STOP_AFTER is a number of seconds after which it saves a checkpoint and stops.
Logins are in no file: {secrets}
"""

import base64
import os
import signal
import subprocess
import sys
import threading
import zlib
from pathlib import Path

JOB = {job}

FILES = {{{files}}}


def main() -> int:
    """Run the job, or go on with it, and return forge's exit code."""
    run = Path(os.environ.get("FORGE_RUN") or {folder!r}).absolute()
    job = run / "submit" / "job.toml"
    for name, packed in {{"job.toml": None, **FILES}}.items():
        path = job.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JOB.encode() if packed is None else zlib.decompress(base64.b64decode(packed)))
    there = (run / "plan.json").exists()
    command = ["resume", str(run)] if there else ["run", str(job), "--folder", str(run)]
    seconds = os.environ.get("FORGE_STOP_AFTER")
    if seconds and not seconds.replace(".", "", 1).isdecimal():
        sys.exit(f"FORGE_STOP_AFTER is a number of seconds, not {{seconds}}")
    child = subprocess.Popen([sys.executable, "-P", "-m", "forge", *command])
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to forge too
    if seconds:
        clock = threading.Timer(float(seconds), child.terminate)
        clock.daemon = True
        clock.start()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
'''


def script_text(
    name: str, job: str, files: Mapping[str, Path], packages: Sequence[str], secrets: Sequence[str] = ()
) -> str:
    """Return the text of a script.

    Args:
        name: The run's name.
        job: The job file's text.
        files: The files that it names, by their paths relative to it.
        packages: What is to be installed.
        secrets: Names of variables that hold a login, for who reads it.

    Raises:
        UsageError: The files are too large for it.
    """
    check_size(files)
    packed = "".join(f"\n    {file!r}: {_packed(path)}," for file, path in sorted(files.items()))
    # A long text of TOML is read more easily as it is; what a raw text cannot hold is escaped.
    raw = "'''" not in job and not job.endswith("\\")
    return _TEXT.format(
        packages="\n".join(f"#   {json.dumps(package)}," for package in packages),  # a text of JSON is one of TOML
        name=name.replace("\\", "/").replace('"', "'"),
        folder=f"runs/{name}",
        job=f"r'''{job}'''" if raw else repr(job),
        files=f"{packed}\n" if packed else "",
        secrets=f"set {', '.join(secrets)} in the environment." if secrets else "set HF_TOKEN where the hub wants one.",
    )


def check_size(files: Mapping[str, Path]) -> None:
    """Refuse files that are too large for a script. Raises :class:`UsageError`; none of them is read."""
    if (size := sum(path.stat().st_size for path in files.values())) > LIMIT:
        what = f"{size:,} bytes of local files do not go into a script"
        largest = max(files.values(), key=lambda path: path.stat().st_size)
        do = "push them to the hub and write their ids into the job"
        raise UsageError(what, f"it takes {LIMIT:,}; the largest is {largest}", do)


def _packed(path: Path) -> str:
    text = base64.b64encode(zlib.compress(path.read_bytes(), 9)).decode()
    lines = textwrap.wrap(text, 108)
    return "(\n" + "".join(f'        "{line}"\n' for line in lines) + "    )"
