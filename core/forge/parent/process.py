"""Worker processes: starting one, passing on the wish to stop, and saying how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api.event import Done, Event, Failed, Noted, StageChanged, Stopped, Warned
from forge.api.plan import Plan
from forge.disk.cache import kept_for_later
from forge.disk.checkpoints import newest_marked
from forge.disk.events import EventLog, Follower
from forge.disk.faults import disk_errors, machine_error
from forge.disk.files import write_text
from forge.disk.folder import RunFolder
from forge.disk.meeting import Meeting
from forge.disk.spare import restore, some
from forge.errors import ForgeError, Interrupted, MachineError, PeerLost, RunError, from_json
from forge.machine.probe import visible_by
from forge.parent.ranks import Ranks

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from forge.disk.meeting import Ended

Show = Callable[[Event], None]
"""Called with each event as it comes."""

Ready = Callable[[RunFolder, Plan], None]
"""Called when a plan has been written, before its worker starts."""


def quiet(_folder: RunFolder, _plan: Plan) -> None:
    """Take no notice."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker ended.

    Attributes:
        error: What it reported or died of, or None.
        asked: Whether the user asked it to stop, in time or not.
    """

    error: ForgeError | None
    asked: bool = False


def start(
    module: str, folder: RunFolder, plan: Path, environment: Mapping[str, str], **pipes: Any
) -> subprocess.Popen[bytes]:
    """Start a worker process.

    Args:
        module: What to run: ``python -m <module> RUN PLAN``.
        folder: The run.
        plan: The plan's file.
        environment: What :func:`environment_of` returns.
        pipes: Where the process reads and prints, as :class:`subprocess.Popen` takes them.
    """
    options: dict[str, Any] = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined,unused-ignore]
        if sys.platform == "win32"
        else {"start_new_session": True}  # the terminal's Ctrl-C is for the parent alone, which passes it on
    )
    # -P keeps the current folder off the path: a random.py beside the job is not Python's.
    command = [sys.executable, "-P", "-m", module, str(folder.path), str(plan)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **pipes, **options)


def work(folder: RunFolder, plan: Path, show: Show) -> Outcome:
    """Start a worker, show its events until it ends, and say how it ended.

    Raises:
        RunError: Another process has begun to start several workers for the run.
    """
    several = Plan.read(plan).launch.world_size > 1
    with folder.lead() if several else nullcontext():
        return _work(folder, plan, show)


def _work(folder: RunFolder, plan: Path, show: Show) -> Outcome:
    if left := unsupported(os.environ):
        show(Noted(f"not passed on to the worker, whose libraries do not work with it: {', '.join(left)}"))
    environment, cold = environment_of(folder, plan)
    if cold:
        show(Noted(f"what is compiled is not kept for later runs: {cold}"))
    events, ranks = Follower(folder.events), ranks_of(folder, plan)
    last: Event | None = None
    stage: StageChanged | None = None
    with folder.log.open("ab") as log:
        module = "forge.launcher" if ranks else "forge.worker"
        if ranks and ranks.meeting.nodes > 1:
            more = f"start each with: forge worker-node {folder.path.resolve()} --node N, N from 1"
            show(Noted(f"waiting at {ranks.meeting.address} for {ranks.meeting.nodes - 1} more of the nodes; {more}"))
        # All nodes find files by the paths that the first one tells them.
        where = RunFolder(folder.path.resolve()) if ranks and ranks.meeting.nodes > 1 else folder
        worker = start(module, where, plan, environment, stdout=log, stderr=subprocess.STDOUT)
        with letting_go(worker), passing_on(worker, show) as wishes:
            while True:
                ended = worker.poll() is not None
                for event in events.poll():
                    if isinstance(event, Failed | Stopped | Done):
                        last = event
                    if isinstance(event, StageChanged):
                        stage = event
                    show(event)
                if ended:
                    break
                time.sleep(0.05)
    with suppress(OSError):  # a word that it did not live to read is lost
        if worker.stdin:
            worker.stdin.close()
    if ranks:
        let_go(folder)
    if not folder.busy() and (back := restore(folder.path)):
        show(Warned(f"a plugin had deleted {some(back)} of the run when its worker ended; put back"))
    error = verdict(worker.returncode, last, folder, wishes, ranks, stage)
    if isinstance(error, Interrupted) or (ranks and error):
        keep(folder, error, last)
    return Outcome(error, asked=bool(wishes))


def keep(folder: RunFolder, error: ForgeError, last: Event | None) -> None:
    """Write down what no worker did: that it was stopped at once, or of what another one than the first has failed."""
    word: Event
    if isinstance(error, Interrupted):
        told = isinstance(last, Stopped | Failed)
        word = Stopped(f"{error.what}: {error.why}" if error.why else error.what)
    else:
        told = isinstance(last, Failed) and from_json(last.error).what == error.what
        word = Failed(error.to_json())
    if not told:
        with suppress(OSError, MachineError), closing(EventLog(folder.events)) as log:  # it may be a full disk
            log.append(word)


def ranks_of(folder: RunFolder, plan: Path) -> Ranks | None:
    """Say where the workers of a plan meet, if there are to be several, and return what knows of them."""
    launch = Plan.read(plan).launch
    if launch.world_size == 1:
        return None
    return Ranks(folder, Meeting.call(folder.path, plan, launch.nodes, os.environ), launch.world_size)


def let_go(folder: RunFolder) -> None:
    """Wait a moment for workers whose launcher is gone: they are being killed, and may still hold the folder."""
    until = time.monotonic() + 5
    while folder.busy() and time.monotonic() < until:
        time.sleep(0.05)


@contextmanager
def letting_go(worker: subprocess.Popen[bytes]) -> Iterator[None]:
    """Where the parent must end before its worker, ask that to stop, and give it a moment for it."""
    try:
        yield
    except BaseException:
        with suppress(OSError, subprocess.TimeoutExpired):
            if worker.stdin:
                worker.stdin.close()
            worker.wait(timeout=5)
        raise


@contextmanager
def passing_on(worker: subprocess.Popen[bytes], show: Show) -> Iterator[list[int]]:
    """Turn Ctrl-C and SIGTERM into a word on the worker's standard input; a second one kills it.

    Yields:
        The signals that came, in order.
    """
    wishes: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        wishes.append(number)
        if len(wishes) > 1:
            worker.kill()
            return
        with suppress(OSError):  # it may have just ended by itself
            if worker.stdin:
                worker.stdin.write(b"stop\n")
                worker.stdin.flush()
        show(Noted("stopping at the end of a step; once more to stop at once"))

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


LAUNCHERS = ("ACCELERATE_", "LOCAL_", "MASTER_", "OMPI_", "PMI_", "RANK", "TORCHELASTIC_", "WORLD_SIZE")
"""Variables of process launchers, at which accelerate would wait for processes that are not there."""


def unsupported(environ: Mapping[str, str]) -> list[str]:
    """Return the user's settings of Python that the libraries do not work with, and that no worker takes over.

    Without docstrings transformers cannot build its models' own, and nearly every library warns of something.
    """
    strict = "error" in environ.get("PYTHONWARNINGS", "")
    stripped = environ.get("PYTHONOPTIMIZE", "") not in {"", "0"}
    return ["PYTHONOPTIMIZE"] * stripped + ["PYTHONWARNINGS"] * strict


def environment_of(folder: RunFolder, plan: Path) -> tuple[dict[str, str], str | None]:
    """Return the environment of the worker of a plan's file, and why it keeps nothing for later runs, or None."""
    made = Plan.read(plan)
    here = made.machine
    environment = worker_environment(os.environ, made)
    return kept_for_later(environment, here.versions, here.python, folder.path / ".cache")


def worker_environment(environ: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """Return the environment of a worker: the user's, without another backend's traces, on its GPUs, unobserved."""
    clean = {key: value for key, value in environ.items() if not key.startswith((*LAUNCHERS, *plan.shed))}
    clean = {key: value for key, value in clean.items() if key not in unsupported(environ)}
    # Each process uses one GPU: with several in sight, transformers would silently wrap the model in nn.DataParallel.
    # Where a container shows one alone, naming it lets Unsloth compile in as many processes as there are cores.
    cards = [card for card in plan.machine.accelerators if card.kind in {"cuda", "rocm"}]
    name = visible_by(environ, cards)
    visible = environ.get(name)
    launch = plan.launch
    count = launch.processes if launch.processes != "auto" else 1
    if visible:
        clean[name] = ",".join(visible.split(",")[:count])  # each worker of several takes its own
    elif visible is None and cards:
        clean[name] = ",".join(map(str, range(count)))
    if launch.world_size > 1:
        clean.setdefault("OMP_NUM_THREADS", str(max(1, plan.machine.cores // count)))  # else each would take all cores
    clean |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
    clean.setdefault("TOKENIZERS_PARALLELISM", "true")
    chosen = {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"} & clean.keys()
    if not chosen and any(card.kind == "cuda" for card in cards):
        clean["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"  # rows differ in length: less memory lost to gaps
    return clean | dict(plan.environment)


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended that reported nothing.

    Attributes:
        how: The signal's name, or the code, as a phrase.
        why: What that most often means; None if nobody can say.
        killed: Whether a signal ended it.
    """

    how: str
    why: str | None
    killed: bool


def death(code: int) -> Death:
    """Explain the exit code of a process.

    >>> death(-9).why
    'most often the machine ran out of memory'
    """
    if code >= 0:
        return Death(f"code {code}", None, killed=False)
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    asked = dict.fromkeys(("SIGTERM", "SIGHUP", "SIGINT"), "somebody asked it to end")
    often = {"SIGKILL": "most often the machine ran out of memory", **asked}
    return Death(name, often.get(name, "a library crashed"), killed=True)


def verdict(
    code: int,
    last: Event | None,
    folder: RunFolder,
    wishes: Sequence[int] = (),
    ranks: Ranks | None = None,
    stage: StageChanged | None = None,
) -> ForgeError | None:
    """Say what a worker died of, or None if it did what it should.

    Args:
        code: Its exit code.
        last: The last event in which it told of its end.
        folder: The run.
        wishes: The signals by which the user asked it to stop.
        ranks: The workers, where several train together; then the code is their launcher's.
        stage: The last stage that it told of.
    """
    if code == 0 and isinstance(last, Done):
        return None
    said = from_json(last.error) if isinstance(last, Failed) else None
    # Slurm sends TERM to all: a process that is not yet up ends of it without a word.
    wordless = last is None and bool(wishes) and (ranks is not None or code == -signal.SIGTERM)
    asked = code == Interrupted.exit_code or wordless
    if ranks and len(wishes) < 2 and not (asked and last is None):

        def silent(each: Ended) -> ForgeError:
            return _silent(each.code, folder, f"process {each.rank} of {ranks.size}", log=ranks.log_of(each.rank))

        at = last.time if isinstance(last, Failed) else None
        said = ranks.primary(said, silent, stopped=isinstance(last, Stopped), at=at)
    if isinstance(said, PeerLost) and (fault := _unwritable(folder)):
        return fault  # of which the one that met it could write no word
    if said:
        return said
    where = newest_marked(folder.checkpoints)
    resume_line = f"go on with: forge resume {folder.path}" if where or folder.trained() else None
    if isinstance(last, Stopped) or (asked and len(wishes) < 2):
        return Interrupted(last.message if isinstance(last, Stopped) else "stopped", do=resume_line)
    if len(wishes) > 1:
        kept = f"the last whole checkpoint is {where.name}" if where else "no checkpoint had been saved"
        return Interrupted("stopped at once", kept, resume_line)
    return _silent(code, folder, "the launcher") if ranks else _silent(code, folder, "the worker", stage)


def _silent(
    code: int, folder: RunFolder, who: str, stage: StageChanged | None = None, log: Path | None = None
) -> ForgeError:
    """Say how a process ended that reported nothing."""
    where = newest_marked(folder.checkpoints)
    do = f"see {log or folder.log}" + (f"; go on with: forge resume {folder.path}" if where or folder.trained() else "")
    end = death(code)
    if stage is not None and stage.plugin:  # of an end of a stage, no plugin is told
        who += f", in {stage.stage} of plugin {stage.plugin},"
    if end.killed:
        kept = f"; the last whole checkpoint is {where.name}" if where else "; it had saved no checkpoint yet"
        return ForgeError(f"{who} was killed ({end.how})", f"{end.why}{kept}", do)
    if fault := _unwritable(folder):
        return fault
    return ForgeError(f"{who} ended with {end.how}", "it reported no reason", do)


def _unwritable(folder: RunFolder) -> MachineError | None:
    """Return what keeps a worker from writing its last word, by trying to write in its place."""
    probe = folder.path / "probe"
    try:
        with disk_errors(folder.events), folder.events.open("ab") as events:
            events.write(b"\n")  # readers skip an empty line
            write_text(probe, " " * 2**16)
            probe.unlink()
    except MachineError as fault:
        return type(fault)(fault.what, fault.why, f"{fault.do}, then forge resume {folder.path}")
    except OSError as error:
        return machine_error(error, folder.path, wide=True)
    return None


def check_one_process(environ: Mapping[str, str]) -> None:
    """Refuse to start, or to go on, as one of several processes. Raises :class:`RunError`."""
    processes = environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise RunError(
            f"WORLD_SIZE says {processes} processes",
            "forge starts the processes of a training itself, as many as [launch] says",
            "start forge without torchrun, and unset WORLD_SIZE",
        )
