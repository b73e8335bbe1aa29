"""A real Slurm of three nodes on this machine, for tests: it needs root and the packages slurm-wlm and munge."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CryptoType=crypto/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=20
MinJobAge=300
OverTimeLimit=1
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores} RealMemory=4000 State=UNKNOWN"
NAMES = ("n1", "n2", "n3")


def missing() -> str | None:
    """Return why no Slurm can be started here, or None."""
    if os.name != "posix" or os.geteuid() != 0:
        return "Slurm's daemons need root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"there is no {', '.join(absent)}" if absent else None


@contextmanager
def slurm(root: Path) -> Iterator[dict[str, str]]:
    """Start the daemons, and end them afterwards.

    Yields:
        The variables with which Slurm's tools find them.
    """
    for name in ("munge", "state", *(f"spool/{node}" for node in NAMES)):
        (root / name).mkdir(parents=True)
    (root / "munge").chmod(0o755)
    key = root / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = root / "slurm.conf"
    host = socket.gethostname().split(".")[0]
    cores = os.cpu_count() or 1
    ports = _free_ports(2 + len(NAMES))
    named = zip(NAMES, ports[2:], strict=True)
    nodes = "\n".join(NODE.format(name=name, host=host, port=port, cores=cores) for name, port in named)
    configuration.write_text(
        CONFIGURATION.format(host=host, root=root, ports=ports, nodes=nodes, names=",".join(NAMES))
    )
    files = [f"--{name}={root}/munge/{name.split('-')[0]}" for name in ("socket", "pid-file", "log-file", "seed-file")]
    daemons = [
        ["munged", "--foreground", "--force", f"--key-file={key}", *files],
        ["slurmctld", "-D", "-c", "-f", str(configuration)],
        *(["slurmd", "-D", "-c", "-N", node, "-f", str(configuration)] for node in NAMES),
    ]
    variables = {"SLURM_CONF": str(configuration)}
    environment = {**os.environ, **variables}
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (root / "daemons.log").open("wb") as log:
            for daemon in daemons:
                started.append(subprocess.Popen(daemon, stdout=log, stderr=log, env=environment))
                time.sleep(0.5)
        for _ in range(60):
            seen = subprocess.run(["sinfo", "-h", "-o", "%D %T"], capture_output=True, text=True, env=environment)
            if seen.stdout.strip() == f"{len(NAMES)} idle":
                break
            time.sleep(0.5)
        else:
            raise AssertionError(f"{seen.stdout}{seen.stderr}{(root / 'daemons.log').read_text()}")
        yield variables
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
