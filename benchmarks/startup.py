"""How long forge takes to answer where it only looks: ``--help``, ``plugins``, ``schema`` and ``plan``.

python benchmarks/startup.py
python benchmarks/startup.py --against ../other-checkout
python benchmarks/startup.py --job job.toml --rounds 20
python benchmarks/startup.py --first-step           # a run of a small model too, from its start to its first step
python benchmarks/startup.py --crowd 300            # beside 300 plugins of others, a sixth of them broken

Whole processes, from the start of the interpreter to its end; each command once unmeasured, then in turn with the other
checkout's, so that what else the machine does meets both. Both run in this environment: its packages, and the entry
points of the forge that is installed in it. With a crowd of plugins of others each command is measured without and with
them, in turn, once what they say is remembered; and once how long the first listing takes, which asks each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
JOB = '[model]\nid = "org/name"\n[data]\npath = "rows.jsonl"\n'


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, measured in turn with this one")
    parser.add_argument("--job", type=Path, help="the job to plan; default a short one, for a model that is nowhere")
    parser.add_argument("--first-step", action="store_true", help="measure also what a run takes until its first step")
    parser.add_argument("--rounds", type=int, default=10, help="how often each command is measured; default 10")
    parser.add_argument("--crowd", type=int, default=0, metavar="N", help="measure also beside that many plugins")
    options = parser.parse_args()
    if options.against and not (options.against / "core" / "forge").is_dir():
        parser.error(f"{options.against} is no checkout of forge: it has no core/forge")
    sides = [Side(HERE.name, HERE)]
    sys.path[:0] = [str(HERE / "core"), str(HERE / "plugins"), str(HERE / "tests")]
    with tempfile.TemporaryDirectory() as folder:
        if options.crowd:
            sides.append(Side(f"{HERE.name} + {options.crowd}", HERE, make_crowd(options.crowd, Path(folder, "crowd"))))
        if options.against:
            sides.append(Side(options.against.resolve().name, options.against.resolve()))
        job = options.job.resolve() if options.job else Path(folder, "job.toml")
        if not options.job:
            job.write_text(JOB, encoding="utf-8")
        first = [run(["plugins"], side, Path(folder)) for side in sides if side.more]
        rows = [
            measure(arguments, sides, options.rounds, Path(folder))
            for arguments in (
                ["--help"],
                ["plugins"],
                ["schema"],
                ["plan", str(job)],
                *small_run(options, Path(folder)),
            )
        ]
    print(table(rows, sides, options.rounds))
    for took in first:
        print(f"The first listing of {options.crowd} plugins, each of which is asked: {took:.1f} s.")


@dataclass(frozen=True)
class Side:
    """What is measured: a checkout, and where further plugins are."""

    name: str
    checkout: Path
    more: Path | None = None


def make_crowd(count: int, folder: Path) -> Path:
    """Install plugins of others in a folder, a sixth of them broken in the ways of the tests."""
    from support.crowd import install_crowd
    from support.sites import Site

    install_crowd(Site(folder), count - count // 6, count // 6)
    return folder


def small_run(options: argparse.Namespace, folder: Path) -> list[list[str]]:
    """Return the command that trains a small model, if it is asked for, and write its job."""
    if not options.first_step:
        return []
    from forge.machine.probe import probe
    from forge_huggingface.speed.trial import write

    write(folder / "small", probe())
    return [["run", "small/job.toml", "--set", "train.max_steps=2", "--json"]]


def measure(arguments: list[str], sides: list[Side], rounds: int, folder: Path) -> tuple[str, list[list[float]]]:
    """Return a command's name and, for each checkout, the seconds that it took."""
    found: list[list[float]] = [[] for _ in sides]
    for turn in range(rounds + 1):
        order = range(len(sides)) if turn % 2 else reversed(range(len(sides)))
        for index in order:
            took = run(arguments, sides[index], folder)
            if turn:  # the first one writes bytecode and fills the system's cache
                found[index].append(took)
    return arguments[0], found


def run(arguments: list[str], side: Side, folder: Path) -> float:
    """Run forge of a side to its end and return the seconds that it took."""
    paths = [side.checkout / "core", side.checkout / "plugins", *([side.more] if side.more else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "HF_HUB_OFFLINE": "1"}
    environment |= {"FORGE_CACHE": str(folder / "cache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed forge has its bytecode
    clock, start = time.time(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "forge", *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"forge {' '.join(arguments)} of {side.name} failed:\n{done.stdout}{done.stderr}")
    if arguments[0] == "run":
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return next(float(event["time"]) for event in events if event["kind"] == "training") - clock
    return took


def table(rows: list[tuple[str, list[list[float]]]], sides: list[Side], rounds: int) -> str:
    """Return the medians as a table, with the range of each."""
    head = [
        "command",
        *(f"{side.name}, ms" for side in sides),
        *(f"{sides[0].name} / {side.name}" for side in sides[1:]),
    ]
    lines = [head, ["---"] * len(head)]
    for name, found in rows:
        cells = [
            f"{statistics.median(times) * 1000:.0f} ({min(times) * 1000:.0f} to {max(times) * 1000:.0f})"
            for times in found
        ]
        cells += [f"{statistics.median(found[0]) / statistics.median(other):.2f}" for other in found[1:]]
        lines.append([f"forge {name}", *cells])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{text}\n\nMedians of {rounds}, and the range. Python {sys.version.split()[0]}."


if __name__ == "__main__":
    main()
