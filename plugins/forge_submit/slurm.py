"""Slurm: one batch script, for a cluster that shares its disk with the machine that sends."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from forge.api import Bundle, Finding, MachineError, Status, Submitter, Table, Ticket
from forge.disk.files import write_text
from forge_submit.checks import NO_SBATCH, SEND_THERE
from forge_submit.tools import answer, call, is_there, lines_of, said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


Word = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),  # --option time=60
    Field(min_length=1, pattern=r"^[^\s\"'\\]+$"),
]
"""A value as sbatch takes it."""

Line = Annotated[str, Field(min_length=1, pattern=r"^[^\n\r]+$")]


class SlurmOptions(Table):
    """``[submit.slurm]``: what sbatch is asked for. The keys are sbatch's, unless they say something else."""

    account: Word | None = Field(None, description="Account that pays.")
    partition: Word | None = Field(None, description="Partition; the cluster's default if unset.")
    qos: Word | None = Field(None, description="Quality of service.")
    reservation: Word | None = Field(None, description="Reservation.")
    constraint: Word | None = Field(None, description="Features that a node must have.")
    time: Word | None = Field(None, description="Time limit, as `24:00:00`; the partition's default if unset.")
    gpus_per_node: Word | None = Field(None, description="GPUs, as `8` or `a100:4`.")
    gres: Word | None = Field(None, description="GPUs of clusters without `gpus_per_node`, as `gpu:4`.")
    cpus_per_task: Annotated[int, Field(ge=1)] | None = Field(None, description="Cores of a node.")
    mem: Word | None = Field(None, description="Memory of a node, as `200G`; 0 is all.")
    exclude: Word | None = Field(None, description="Nodes not to be used.")
    seconds_before_limit: int = Field(
        300, ge=60, description="How long before the time limit a checkpoint is saved. Slurm's clock may be 60 s late."
    )
    setup: list[Line] = Field(default_factory=list, description="Lines of shell before forge, as `module load cuda`.")
    sbatch: list[Line] = Field(default_factory=list, description="Further options of sbatch, as `--exclusive`.")
    python: Line | None = Field(None, description="The nodes' Python with forge; the one that sends if unset.")

    @property
    def asked(self) -> list[str]:
        """The options that are passed on as they are."""
        own = {"seconds_before_limit", "setup", "sbatch", "python"}
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in own}
        return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]


_SCRIPT = """\
#!/bin/bash
{options}
# Written by forge. `sbatch` takes it as it is; accounts and partitions are of who sent it.
run={run}
python={python}
unset FORGE_MACHINE  # the job gets the variables of who sent it, and that is for plans
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then
  export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # else srun gives the step one core
fi
# The word of its end, which Slurm forgets soon; also where what prepares it fails, or is ended: bash says 0 of that.
rm -f "$run/submit/ended"
code=
trap 'last=$?; [ -n "$code" ] || [ "$last" != 0 ] || last=130; echo "$last" >"$run/submit/ended"' EXIT
set -e
{setup}
set +e
# What has been saved. A job that saved nothing new before its time limit is not queued again: it never would end.
saved() {{
  (cd "$run" && ls -d checkpoints/*/complete.json trained.json evaluation.json exports/*/export.json 2>/dev/null)
}}
before=$(saved)
limit=
# Slurm sends USR1 to this script alone, before the time limit. forge takes TERM as the wish to save and stop.
trap 'limit=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
trap : TERM  # from scancel: the step gets it too, and is waited for
if [ -e "$run/plan.json" ]; then
  set -- resume "$run"
else
  set -- run "$run/submit/job.toml" --folder "$run"
fi
echo "forge: job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, start $((${{SLURM_RESTART_COUNT:-0}} + 1)): forge $1"
{step} &
step=$!
while kill -0 "$step" 2>/dev/null; do
  wait "$step"  # a signal ends `wait`, not the step
done
trap '' USR1 TERM
wait "$step"
code=$?
if [ "$code" = 130 ] && [ -n "$limit" ]; then
  if [ "$(saved)" != "$before" ]; then
    echo "forge: the time limit comes; what was trained is saved, and the job goes back into the queue"
    if scontrol requeue "$SLURM_JOB_ID"; then
      trap - EXIT
      exit 0
    fi
  fi
  echo "forge: the time limit comes and nothing new was saved, so the job ends here; ask for more time"
fi
exit "$code"
"""

_ONE = 'srun --kill-on-bad-exit=1 "$python" -P -m forge "$@"'

_MEETING = """\
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node "$first" --oneliner | sed -n 's/.* NodeAddr=\\([^ ]*\\).*/\\1/p')
MASTER_ADDR=${MASTER_ADDR:-$first}
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT"""

_SEVERAL = """\
srun --kill-on-bad-exit=1 bash -c '
  run=$1 python=$2
  shift 2
  if [ "$SLURM_NODEID" = 0 ]; then
    exec "$python" -P -m forge "$@"
  fi
  # What the training ended of is the word of the first node: srun ends with the highest code, and this one is asked to
  # stop, once or twice, wherever another one has ended.
  asked=
  trap asked=1 TERM
  "$python" -P -m forge worker-node "$run" --node "$SLURM_NODEID" &
  node=$!
  while kill -0 "$node" 2>/dev/null; do
    wait "$node"
  done
  trap "" TERM
  wait "$node"
  code=$?
  [ -z "$asked" ] || code=0
  exit "$code"
' forge "$run" "$python" "$@\""""

_STATES = {
    "waiting": "PENDING CONFIGURING REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT SUSPENDED STOPPED",
    "running": "RUNNING COMPLETING SIGNALING RESIZING STAGE_OUT",
    "done": "COMPLETED",
    "failed": "FAILED TIMEOUT NODE_FAIL OUT_OF_MEMORY BOOT_FAIL DEADLINE PREEMPTED REVOKED LAUNCH_FAILED",
    "cancelled": "CANCELLED",
}
_QUEUED_AGAIN = frozenset({"BOOT_FAIL", "NODE_FAIL", "PREEMPTED"})
"""After these Slurm itself puts a job back into its queue, if the job allows it."""

_FORGOTTEN = "Slurm has forgotten the job, and it left no word of its end"

_WORDS: dict[str, Any] = {word: state for state, words in _STATES.items() for word in words.split()}


class Slurm(Submitter[SlurmOptions]):
    """Sends a batch script, and asks scontrol what became of it."""

    keys = SlurmOptions
    shares_disk = True

    def check(self, bundle: Bundle) -> Iterator[Finding]:
        """Let Slurm itself say whether it would take the job."""
        if not is_there("sbatch"):
            yield Finding("error", NO_SBATCH, SEND_THERE)
            return
        if "\\" in str(bundle.run):  # it takes the script, and cannot write the log
            what = f"{bundle.run} has a backslash in its name, which Slurm takes for a sign of its own"
            yield Finding("error", what, "give --runs-dir another folder")
            return
        code, out, error = call(["sbatch", "--test-only"], self.text(bundle))
        if code:
            yield Finding("error", f"sbatch refuses it: {said(error or out)}", "change [submit.slurm] or --option")
            return
        if told := said(error):
            yield Finding("note", told)
        if str(bundle.run).startswith(("/tmp/", "/var/tmp/", "/dev/shm/")):  # noqa: S108 - it is asked, not used
            do = "give --runs-dir a folder of the shared disk"
            yield Finding("warning", f"{bundle.run} is most often a disk of each node's own", do)
        before = self.options.seconds_before_limit
        if self.options.time is None:
            do = "--option time=24:00:00 asks for one"
            yield Finding("note", "no time limit was asked for: the partition's default holds", do)
        elif (limit := seconds_of(self.options.time)) is not None and limit < 2 * before:
            what = f"time = {self.options.time} is {limit} s, of which seconds_before_limit leaves {limit - before}"
            yield Finding("error", what, f"ask for {2 * before} s at least, or for fewer seconds_before_limit")

    def write(self, bundle: Bundle) -> Path:
        """Write ``job.sbatch``."""
        path = bundle.folder / "job.sbatch"
        write_text(path, self.text(bundle))
        return path

    def text(self, bundle: Bundle) -> str:
        """Return the batch script."""
        nodes = bundle.job.launch.nodes
        log = str(bundle.folder / "slurm.log").replace("%", "%%").replace('"', '\\"')
        options = [
            f"--job-name={bundle.title}",
            f'--output="{log}"',
            "--open-mode=append",
            f"--nodes={nodes}",
            "--ntasks-per-node=1",
            "--requeue",
            f"--signal=B:USR1@{self.options.seconds_before_limit}",
            *self.options.asked,
            *self.options.sbatch,
        ]
        return _SCRIPT.format(
            options="\n".join(f"#SBATCH {option}" for option in options),
            run=shlex.quote(str(bundle.run)),
            python=shlex.quote(self.options.python or sys.executable),
            setup="\n".join([*self.options.setup, *([_MEETING] if nodes > 1 else [])]),
            step=_SEVERAL if nodes > 1 else _ONE,
        )

    def submit(self, bundle: Bundle) -> tuple[str, str | None]:
        """Call sbatch."""
        told = answer(["sbatch", "--parsable", str(bundle.folder / "job.sbatch")])
        number = told.strip().partition(";")[0]
        if not number.isdecimal():
            raise MachineError("sbatch said no number of a job", said(told))
        return number, None

    def status(self, ticket: Ticket, run: Path) -> Status:
        """Ask scontrol, and once that has forgotten the job, what the script left and the accounting."""
        code, out, error = call(["scontrol", "show", "job", ticket.id, "--oneliner"])
        if code == 0 and (found := re.search(r"JobState=(\w+)", out)):
            reason = re.search(r"Reason=(\S+)", out)
            ended = re.search(r"\bExitCode=(\d+)", out)
            if found[1] in _QUEUED_AGAIN and "Requeue=1" in out:
                return Status("waiting", found[1])
            return _status(found[1], reason[1] if reason else "None", ended[1] if ended else "0")
        if "Invalid job id" not in error:
            return Status("unknown", said(error or out))
        left = run / "submit" / "ended"
        if left.exists():
            number = left.read_text(encoding="utf-8").strip()
            states: dict[str, Any] = {"0": "done", "130": "cancelled"}
            return Status(states.get(number, "failed"), f"exit code {number}")
        if is_there("sacct"):
            code, out, _ = call(["sacct", "-n", "-X", "-P", "-j", ticket.id, "-o", "State"])
            if code == 0 and (words := out.split()):
                return _status(words[0], "None", "0")
        return Status("unknown", _FORGOTTEN)

    def logs(self, ticket: Ticket, run: Path, *, follow: bool) -> Iterator[str]:
        """Follow the file that the job prints to."""

        def over() -> bool:
            found = self.status(ticket, run)
            return found.over or found.about == _FORGOTTEN

        yield from lines_of(run / "submit" / "slurm.log", follow=follow, over=over)

    def cancel(self, ticket: Ticket, run: Path) -> None:  # noqa: ARG002 - Slurm knows where it runs
        """Call scancel: forge has the cluster's KillWait, 30 s by default, to save a checkpoint."""
        answer(["scancel", ticket.id])


def _status(word: str, reason: str, code: str) -> Status:
    state = _WORDS.get(word.split("+")[0], "unknown")
    told = [word, *([reason] if state == "waiting" and reason != "None" else [])]
    return Status(state, " ".join([*told, *([f"exit code {code}"] if code != "0" else [])]))


def seconds_of(limit: str) -> int | None:
    """Return a time limit of Slurm's in seconds, or None if it is none or has no end.

    >>> [seconds_of(text) for text in ("90", "1:30", "24:00:00", "2-12", "1-00:30:00", "UNLIMITED")]
    [5400, 90, 86400, 216000, 88200, None]
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if found is None:
        return None
    days, *given = found.groups()
    parts = [int(part) for part in given if part is not None]
    # Of one number, minutes; of two, minutes and seconds; behind days, hours first.
    units = (3600, 60, 1) if days is not None or len(parts) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(part * unit for part, unit in zip(parts, units, strict=False))
