"""Which of forge's own work grows with the number of processes that train together, and what it would be with many.

python benchmarks/ranks.py
python benchmarks/ranks.py --ranks 2 4 8 --largest 16

A run of a small model in each number of processes gives what they write and seal; processes that do nothing else give
what asking each other takes; folders of many files give what sealing and trusting them takes. All on one machine and a
CPU: latency of a network comes on top, and cores that processes share are said.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent.parent
ASKED = 200
STEP = 0.02
"""Seconds between two questions of a kind that is asked at each step."""
RANDOM = 15 * 1024
"""Bytes of a process's ``rng_state_<rank>.pth`` on a CPU; on a GPU some hundred more."""

JOB = """\
[model]
id = "model"
max_seq_length = 128
[adapter]
r = 4
[data]
path = "rows.jsonl"
[launch]
processes = {ranks}
[train]
max_steps = 8
per_device_train_batch_size = 1
gradient_accumulation_steps = {most}
logging_steps = 1
save_steps = 4
"""


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8], help="numbers of processes that train")
    parser.add_argument("--largest", type=int, default=16, help="the most processes that only ask each other")
    parser.add_argument("--files", type=int, nargs="+", default=[8, 64, 512, 8000], help="files of a checkpoint")
    parser.add_argument("--member", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path[:0] = [str(HERE / "core"), str(HERE / "plugins")]
    if options.member is not None:
        member()
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = [train(Path(folder, str(ranks)), ranks, max(options.ranks)) for ranks in options.ranks]
        asked = [ask(ranks) for ranks in (2, 4, 8, 16, 32) if ranks <= options.largest]
        sealed = [seal_of(Path(folder, f"files-{count}"), count) for count in options.files]
    print(f"{os.cpu_count()} cores\n")
    show("processes", runs)
    show("processes", asked)
    show("processes", sealed)


def train(folder: Path, ranks: int, most: int) -> dict[str, Any]:
    """Run a small job in a number of processes, and return what forge wrote, by its events and files."""
    from forge.disk.events import read_events
    from forge.testing.tiny import make_model, make_rows

    folder.mkdir()
    make_model(folder / "model")
    make_rows(folder / "rows.jsonl", 8 * most)
    (folder / "job.toml").write_text(JOB.format(ranks=ranks, most=most), encoding="utf-8")
    began = time.time()
    command = [sys.executable, "-P", "-m", "forge", "run", "job.toml", "--json"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment())
    run = next(folder.glob("runs/*/*/plan.json")).parent
    own = list(read_events(run / "events.jsonl"))
    other = [run / f"events.rank{rank}.jsonl" for rank in range(1, ranks)]
    steps = [event["time"] for event in own if event["kind"] == "step"]
    saved = [event for event in own if event["kind"] == "checkpoint"]
    files = json.loads(next(run.glob("checkpoints/*/complete.json")).read_text(encoding="utf-8"))["files"]
    of_steps = sum(len(line) for line in other[0].read_bytes().splitlines(keepends=True) if b'"kind": "step"' in line)
    return {
        "processes": ranks,
        "start to first step, s": round(steps[0] - began, 1),
        "a step, ms": round(1000 * statistics.median(b - a for a, b in itertools.pairwise(steps))),
        "files of events": 1 + len(other),
        "bytes a step of each other process": round(of_steps / len(steps)),
        "files of a checkpoint": len(files),
        "sealing it, ms": round(1000 * statistics.median(event["seconds"] for event in saved)),
    }


def ask(ranks: int) -> dict[str, Any]:
    """Start processes that only ask each other, and return what each question took."""
    from forge.disk.meeting import free_port

    there = environment() | {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    there["MASTER_PORT"] = str(free_port("127.0.0.1"))
    command = [sys.executable, str(Path(__file__)), "--member", "0"]
    members = [
        subprocess.Popen(command, env=there | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    said = [each.communicate(timeout=600)[0] for each in members]
    return {"processes": ranks, **json.loads(said[0])}


def member() -> None:
    """Ask the others, as one of them; the first prints what it took."""
    import torch.distributed as dist

    from forge.worker.ranks import Together

    here = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["MASTER_PORT"])
    dist.TCPStore("127.0.0.1", here[2], here[1], here[0] == 0, timedelta(seconds=300))  # until all are there
    os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
    began = time.perf_counter()
    group = Together(timedelta(seconds=300))
    found: dict[str, Any] = {"meeting, ms": round(1000 * (time.perf_counter() - began), 1)}
    found["sockets"] = sockets()
    questions: dict[str, Callable[[], object]] = {
        "agree": lambda: group.agree(False),
        "agree_soon": lambda: group.agree_soon("stop", False),
        "gather a digest": lambda: group.gather("0" * 64),
        "first": lambda: group.first(None),
    }
    for name, question in questions.items():
        question()
        question()
        spent, took = time.process_time(), []
        for _ in range(ASKED):
            time.sleep(STEP if name == "agree_soon" else 0)
            start = time.perf_counter()
            question()
            took.append(time.perf_counter() - start)
        found[f"{name}, ms"] = round(1000 * statistics.median(took), 3)
        found[f"{name}, processor ms"] = round(1000 * (time.process_time() - spent) / ASKED, 3)
    if group.rank == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


def sockets() -> int:
    """Return how many sockets this process has open."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one by which they are listed
            found += str(each.readlink()).startswith("socket:")
    return found


def seal_of(folder: Path, count: int) -> dict[str, Any]:
    """Seal a checkpoint that holds a file of each process, and trust it, as a resume does."""
    from forge.disk.checkpoints import fault, mark

    checkpoint = folder / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    for rank in range(count):
        (checkpoint / f"rng_state_{rank}.pth").write_bytes(os.urandom(RANDOM))
    began = time.perf_counter()
    mark(checkpoint)
    marked = time.perf_counter()
    assert fault(checkpoint) is None
    done = time.perf_counter()
    return {
        "processes": count,
        "sealing their files, ms": round(1000 * (marked - began)),
        "trusting them, ms": round(1000 * (done - marked)),
        "the seal, KiB": round((checkpoint / "complete.json").stat().st_size / 1024),
    }


def environment() -> dict[str, str]:
    """Return the environment of a process that is measured: one thread each, and this checkout."""
    path = os.pathsep.join([str(HERE / "core"), str(HERE / "plugins")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def show(first: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table, a column for each number of processes."""
    print(f"| {first} | " + " | ".join(str(row[first]) for row in rows) + " |")
    print("| --- " * (len(rows) + 1) + "|")
    for name in rows[0]:
        if name != first:
            print(f"| {name} | " + " | ".join(f"{row[name]:,}" for row in rows) + " |")
    print()


if __name__ == "__main__":
    main()
