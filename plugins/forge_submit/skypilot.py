"""SkyPilot: the job as a task of one machine in a cloud, its run folder on a bucket, so that a spot machine may go."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from forge.api import Bundle, Finding, ForgeError, Status, Submitter, Table, Ticket
from forge.disk.files import write_text
from forge_submit.checks import INSTALL_SKY, NO_SKY
from forge_submit.tools import answer, call, is_there, said, stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Line = Annotated[str, Field(min_length=1, pattern=r"^[^\n\r]+$")]

RUNS = "/runs"
"""Where the bucket is mounted."""

LAUNCHING = 3600.0
"""Seconds that ``sky jobs launch`` may take: the first makes a machine that looks after all later ones."""

_STATES: dict[str, Any] = {
    **dict.fromkeys(("PENDING", "SUBMITTED", "STARTING", "RECOVERING"), "waiting"),
    **dict.fromkeys(("RUNNING", "WINDING_DOWN", "CANCELLING"), "running"),
    "SUCCEEDED": "done",
    "CANCELLED": "cancelled",
}
"""Of its words; those of failures begin alike."""

_COPYING = {
    "s3": ["aws", "s3", "sync", "--no-progress", "--exclude", ".lock", "--exclude", "submit/*"],
    "gs": ["gcloud", "storage", "rsync", "--recursive", r"--exclude=^(\.lock|submit/.*)$"],
}
"""What copies a folder of a bucket, by the bucket's kind, but for the lock and what was sent: those are of here."""

_MACHINES = {"T4": "linux-t4", "A100": "linux-a100", "H100": "linux-h100", "H200": "linux-h100", "MI300": "linux-rocm"}


class SkyPilotOptions(Table):
    """``[submit.skypilot]``: which machine, where, and where its run folder is kept. The keys are SkyPilot's."""

    bucket: str | None = Field(
        None,
        pattern=r"^\w+://[^\s\"'\\]+$",
        description="Bucket of the run folders, as `s3://mine/runs`; it must exist.",
    )
    accelerators: Line | None = Field(None, description="GPUs of the machine, as `A100:1`.")
    infra: Line | None = Field(None, description="Cloud, as `aws/us-east-1` or `k8s/mine`; the cheapest if unset.")
    use_spot: bool = Field(False, description="Take a machine that the cloud may take away; the run goes on elsewhere.")
    cpus: Line | None = Field(None, description="Cores, as `8+`.")
    memory: Line | None = Field(None, description="Memory in GB, as `64+`.")
    disk_size: int | None = Field(None, ge=10, description="Disk of the machine in GB.")
    image_id: Line | None = Field(None, description="Image of the machine.")
    secrets: list[Name] = Field(
        default_factory=list, description="Names of variables of yours that it gets as secrets, as `HF_TOKEN`."
    )
    setup: list[Line] = Field(default_factory=list, description="Lines of shell before forge is installed.")

    @property
    def resources(self) -> dict[str, Any]:
        """The machine, as a task's ``resources``."""
        names = ("infra", "accelerators", "use_spot", "cpus", "memory", "disk_size", "image_id")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


_TASK = """\
# Written by forge. `sky jobs launch` takes it as it is; secrets have no value here.
name: {name}
resources:
{resources}
num_nodes: 1
workdir: {workdir}
file_mounts:
  {runs}:
    source: {bucket}
    mode: MOUNT_CACHED
envs:
  FORGE_RUN: {folder}
{secrets}setup: |
{setup}
run: |
  set -e
  # The job and its files lie in the bucket, so that the next machine finds them where the first one did.
  mkdir -p "$FORGE_RUN/submit"
  cp -r . "$FORGE_RUN/submit/"
  if [ -e "$FORGE_RUN/plan.json" ]; then
    set -- resume "$FORGE_RUN"
  else
    set -- run "$FORGE_RUN/submit/job.toml" --folder "$FORGE_RUN"
  fi
  exec ~/forge/bin/python -P -m forge "$@"
"""

_SETUP = """\
set -e
command -v uv >/dev/null || python3 -m pip install --quiet --user uv
export PATH="$HOME/.local/bin:$PATH"
[ -x ~/forge/bin/python ] || uv venv --quiet --python 3.12 ~/forge
uv pip install --quiet --python ~/forge/bin/python {packages}"""


class SkyPilot(Submitter[SkyPilotOptions]):
    """Sends a task by the command ``sky``, as a managed job, and asks that what became of it."""

    keys = SkyPilotOptions

    def machine(self) -> str | None:
        """Return the preset that is nearest to the GPU."""
        name = self.options.accelerators
        if name is None:
            return "linux-cpu"
        return next((preset for start, preset in _MACHINES.items() if name.upper().startswith(start)), "linux-cuda")

    def check(self, bundle: Bundle) -> Iterator[Finding]:
        """Look for the tool, the bucket, and the secrets."""
        options = self.options
        if not is_there("sky"):
            yield Finding("error", NO_SKY, INSTALL_SKY)
        if options.bucket is None:
            why = "no bucket is named, and without one the run goes with its machine"
            yield Finding("error", why, "--option bucket=s3://mine/runs")
        elif (kind := options.bucket.partition("://")[0]) not in _COPYING:
            what = f"`forge fetch` cannot read a bucket of {kind}://"
            yield Finding("warning", what, f"copy {options.bucket}/{bundle.name} with the cloud's own tool")
        elif not is_there(_COPYING[kind][0]):
            yield Finding("warning", f"{_COPYING[kind][0]} is not installed here, and `forge fetch` needs it")
        if options.accelerators is None:
            yield Finding("warning", "no accelerators are asked for: it will be a CPU", "--option accelerators=A100:1")
        if absent := [name for name in options.secrets if not os.environ.get(name)]:
            yield Finding("error", f"secrets that are set here by no value: {', '.join(absent)}", "set them")
        if bundle.job.launch.nodes > 1:
            what = "the machines of a task share no disk, which a run of several nodes needs"
            yield Finding("error", what, "[launch] nodes = 1, and --option accelerators=A100:8")

    def write(self, bundle: Bundle) -> Path:
        """Write ``task.yaml``."""
        options = self.options
        setup = [*options.setup, _SETUP.format(packages=" ".join(shlex.quote(each) for each in bundle.packages))]
        secrets = "".join(f"  {name}: null\n" for name in options.secrets)
        text = _TASK.format(
            name=json.dumps(bundle.title),  # a text of JSON is one of YAML
            resources="\n".join(f"  {name}: {json.dumps(value)}" for name, value in options.resources.items()),
            workdir=json.dumps(str(bundle.folder)),
            runs=RUNS,
            bucket=json.dumps(options.bucket),
            folder=json.dumps(f"{RUNS}/{bundle.name}"),
            secrets=f"secrets:\n{secrets}" if secrets else "",
            setup="\n".join(f"  {line}" for part in setup for line in part.splitlines()),
        )
        path = bundle.folder / "task.yaml"
        write_text(path, text)
        return path

    def submit(self, bundle: Bundle) -> tuple[str, str | None]:
        """Call ``sky jobs launch``; secrets go by their names, and it reads their values."""
        secrets = [word for name in self.options.secrets for word in ("--secret", name)]
        command = ["sky", "jobs", "launch", "--yes", "--detach-run", *secrets, str(bundle.folder / "task.yaml")]
        answer(command, seconds=LAUNCHING)
        return bundle.title, None

    def status(self, ticket: Ticket, run: Path) -> Status:  # noqa: ARG002 - SkyPilot knows
        """Look for the job's name in SkyPilot's queue."""
        code, out, error = call(["sky", "jobs", "queue", "--all", "--output", "json"])
        if code:
            return Status("unknown", said(error or out))
        found = [job for job in _records(out) if job.get("job_name") == ticket.id]
        if not found:
            return Status("unknown", "SkyPilot has no job of this name")
        word, why = str(found[0].get("status")), found[0].get("failure_reason")
        state: Any = "failed" if word.startswith("FAILED") else _STATES.get(word, "unknown")
        return Status(state, f"{word}: {said(str(why))}" if why else word)

    def logs(self, ticket: Ticket, run: Path, *, follow: bool) -> Iterator[str]:  # noqa: ARG002
        """Stream what it prints."""
        yield from stream(["sky", "jobs", "logs", "--name", ticket.id, "--follow" if follow else "--no-follow"])

    def cancel(self, ticket: Ticket, run: Path) -> None:  # noqa: ARG002
        """Cancel it; its machine ends at once, and the last whole checkpoint is what stays."""
        answer(["sky", "jobs", "cancel", "--yes", "--name", ticket.id])

    def fetch(self, ticket: Ticket, run: Path) -> None:  # noqa: ARG002
        """Copy its folder of the bucket, by the cloud's own tool."""
        bucket = self.options.bucket or ""
        source = f"{bucket.rstrip('/')}/{run.parent.name}/{run.name}"
        tool = _COPYING.get(bucket.partition("://")[0])
        if tool is None:
            raise ForgeError(f"forge cannot read {source}", None, f"copy it to {run} with the cloud's own tool")
        answer([*tool, source, str(run)], seconds=LAUNCHING)


def _records(text: str) -> list[dict[str, Any]]:
    """Return the jobs of SkyPilot's queue, before which it may print what its server says."""
    lines = text.splitlines(keepends=True)
    for index, line in enumerate(lines):
        if line.startswith("["):
            try:
                found = json.loads("".join(lines[index:]))
            except ValueError:
                continue
            return [each for each in found if isinstance(each, dict)]
    raise ForgeError("sky jobs queue said nothing that can be read", said(text))
