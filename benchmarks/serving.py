"""A server under load: what it costs a training, how it answers, and whether it grows.

    python benchmarks/serving.py            32 streams and 200 requests a second for 30 s while a training runs
    python benchmarks/serving.py --apart    the same, with cores of its own for the training: of those it was given
    python benchmarks/serving.py --replay   twice 12 hours of events in minutes, and the server's memory each hour

Each prints one JSON object. The training is of a tiny model on the CPU, which shares its cores with the server and
with who asks: that is the worst case, since a real one waits for its GPU. Quiet and loaded whiles take turns, and each
loaded one is compared with the quiet ones around it; where other programs take the machine too, the CPU time of the
server says more than the training's pace.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.projects import Project
from support.serving import Served, serve
from support.tiny import make_model

STREAMS = 32
EVENTS = 12 * 3600
"""One a second, as a training logs them that takes a second a step."""


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forge-serving-") as folder:
        project = Project(Path(folder) / "project", make_model(Path(folder) / "model"))
        if asked.replay:
            found = replay(project)
        else:
            found = load(project, asked.seconds, asked.rate, asked.rounds, apart=asked.apart)
    print(json.dumps(found, indent=2))


def load(project: Project, seconds: float, rate: float, rounds: int, *, apart: bool) -> dict[str, Any]:
    """Ask a server while a training runs, in turns with quiet whiles, and compare the training's pace in both."""
    train = {"max_steps": 10_000_000, "save_steps": 10_000_000, "per_device_train_batch_size": 8}
    project.write(train=train)
    served = serve(project.folder)
    server = psutil.Process(served.process.pid)
    job = (project.folder / "job.toml").read_text(encoding="utf-8")
    entry = served.post("/api/v1/runs", {"job": job})["id"]
    run = served.until(entry, lambda line: (line["step"] or 0) > 50)["id"]
    folder = project.runs / run.replace("~", "/")
    worker = psutil.Process(int((folder / ".lock").read_text(encoding="utf-8")))
    if apart:
        first, *others = sorted(worker.cpu_affinity())
        for process, cores in ((worker, [first]), (server, others), (psutil.Process(), others)):
            for thread in process.threads():
                psutil.Process(thread.id).cpu_affinity(cores)
    events = folder / "events.jsonl"
    quiet, loaded, asked, spent = [pace(events, worker, seconds)], [], [], []
    for _ in range(rounds):
        before = sum(server.cpu_times()[:2])
        steps, found = ask(served, run, seconds, rate, events, worker)
        spent.append(sum(server.cpu_times()[:2]) - before)
        loaded.append(steps)
        asked.append(found)
        quiet.append(pace(events, worker, seconds))
    served.post(f"/api/v1/runs/{run}/stop", {"now": True})
    served.settled(run)
    served.stop()
    slower, dearer = (
        [asked / statistics.mean(around) - 1 for asked, *around in zip(*each, strict=False)]
        for each in (
            (
                [1 / steps for steps, _ in loaded],
                [1 / steps for steps, _ in quiet],
                [1 / steps for steps, _ in quiet[1:]],
            ),
            ([cpu for _, cpu in loaded], [cpu for _, cpu in quiet], [cpu for _, cpu in quiet[1:]]),
        )
    )
    return {
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "steps_a_second_quiet": [steps for steps, _ in quiet],
        "steps_a_second_asked": [steps for steps, _ in loaded],
        "slower": slower,
        "slower_median": statistics.median(slower),
        "more_cpu_a_step": dearer,
        "more_cpu_a_step_median": statistics.median(dearer),
        "server_cpu_share": statistics.median(spent) / seconds,
        "rounds": asked,
    }


def pace(events: Path, worker: psutil.Process, seconds: float) -> tuple[float, float]:
    """Return the steps a second that a training makes for a while, and the processor time of each in seconds."""
    first, begun, before = last_step(events), time.monotonic(), sum(worker.cpu_times()[:2])
    time.sleep(seconds)
    steps = last_step(events) - first
    return steps / (time.monotonic() - begun), (sum(worker.cpu_times()[:2]) - before) / steps


def last_step(events: Path) -> int:
    """Return the last step that events tell of."""
    lines = events.read_bytes()[-8192:].splitlines()
    steps: list[int] = [
        json.loads(line).get("step") or 0 for line in lines if line.startswith(b'{"time"') and line.endswith(b"}")
    ]
    return max(steps)


def ask(
    served: Served, run: str, seconds: float, rate: float, events: Path, worker: psutil.Process
) -> tuple[tuple[float, float], dict[str, Any]]:
    """Open streams and ask at a rate, from one process beside; return the training's pace meanwhile and what it saw."""
    command = [sys.executable, __file__, "--ask", str(served.port), served.token, run, str(seconds), str(rate)]
    asker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    steps = pace(events, worker, seconds - 2)
    out, _ = asker.communicate()
    return steps, json.loads(out)


def asking(port: int, token: str, run: str, seconds: float, rate: float) -> None:
    """Be the process that asks, and print what it saw."""
    headers = {"Authorization": f"Bearer {token}", "Host": f"127.0.0.1:{port}"}
    counted, opened = [0], [0]

    def stream() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", f"/api/v1/stream?run={run}", headers=headers)
        response = connection.getresponse()
        opened[0] += response.status == 200
        end = time.monotonic() + seconds
        while time.monotonic() < end and response.readline():
            counted[0] += 1

    for _ in range(STREAMS):
        threading.Thread(target=stream, daemon=True).start()
    paths = [
        f"/api/v1/runs/{run}/events?tail=20",
        "/api/v1/runs",
        "/api/v1/queue",
        f"/api/v1/runs/{run}/log",
        "/healthz",
    ]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    took, statuses = [], dict[int, int]()
    begun = time.monotonic()
    for number in range(int(seconds * rate)):
        if (wait := begun + number / rate - time.monotonic()) > 0:
            time.sleep(wait)
        if time.monotonic() - begun > 1.5 * seconds:
            break
        first = time.monotonic()
        connection.request("GET", paths[number % len(paths)], headers=headers)
        response = connection.getresponse()
        response.read()
        took.append(time.monotonic() - first)
        statuses[response.status] = statuses.get(response.status, 0) + 1
    took.sort()
    print(
        json.dumps(
            {
                "asked": len(took) / (time.monotonic() - begun),
                "statuses": statuses,
                "streams": opened[0],
                "messages": counted[0],
                "median_ms": 1000 * took[len(took) // 2],
                "p99_ms": 1000 * took[int(len(took) * 0.99)],
                "longest_ms": 1000 * took[-1],
            }
        )
    )


def replay(project: Project) -> dict[str, Any]:
    """Write 12 hours of events, and as many more, with a stream open and the curves asked for; watch the memory."""
    folder = project.perform().folder
    served = serve(project.folder)
    run = f"{folder.path.parent.name}~{folder.path.name}"
    process = psutil.Process(served.process.pid)
    memory, messages = [], [0]
    line = '{{"time": {0}.0, "kind": "step", "step": {0}, "of": 86400, "loss": {1:.4f}, "grad_norm": 1.5, '
    line += '"learning_rate": 1e-4, "tokens_per_second": 9000.0, "memory": 1000000, "seconds_left": 3.5}}\n'

    def listen() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        headers = {"Authorization": f"Bearer {served.token}", "Accept": "text/event-stream"}
        connection.request("GET", f"/api/v1/runs/{run}/events", headers=headers)
        response = connection.getresponse()
        while piece := response.readline():
            messages[0] += piece.startswith(b"data:")

    threading.Thread(target=listen, daemon=True).start()
    hour = EVENTS // 12
    with folder.events.open("a", encoding="utf-8") as file:
        for part in range(24):
            steps = range(1 + part * hour, 1 + (part + 1) * hour)
            for half in (steps[: hour // 2], steps[hour // 2 :]):
                file.writelines(line.format(step, 5 / step**0.1) for step in half)
                file.flush()
                for path in ("charts", "series", "report", "events?tail=100", ""):
                    served.call("GET", f"/api/v1/runs/{run}/{path}".rstrip("/"))
                time.sleep(1)
            memory.append(round(process.memory_info().rss / 2**20, 1))
    begun = time.monotonic()
    served.call("GET", f"/api/v1/runs/{run}/series")
    first = time.monotonic() - begun
    time.sleep(1)
    size = folder.events.stat().st_size
    served.stop()
    return {"events": 2 * EVENTS, "bytes": size, "messages": messages[0], "memory_mib": memory, "series_s": first}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        asking(int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5]), float(sys.argv[6]))
    else:
        main()
