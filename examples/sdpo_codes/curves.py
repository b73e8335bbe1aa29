"""Run the example with both methods and several seeds, and draw how often answers are right.

    python examples/sdpo_codes/curves.py

Writes ``curves.json`` and ``curves.svg`` beside this file. Twelve runs; each takes about a minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

FOLDER = Path(__file__).parent
TASKS = {"three digits": [], "first digit": ["--set", "train.reward.0.args={digits=1}"]}
"""The second is one that GRPO can learn: a tenth of all guesses are right."""

COLOURS = {"sdpo": "#c2410c", "grpo": "#1d4ed8"}


def curve(runs: Path, method: str, seed: int, changes: list[str]) -> dict[int, float]:
    """Train, and return the share of right answers by step."""
    command = [sys.executable, "-m", "forge", "run", str(FOLDER / "job.toml"), "--runs-dir", str(runs)]
    command += ["--set", f"train.method={method}", "--set", f"train.seed={seed}", *changes]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    newest = max(runs.glob("*/*/events.jsonl"), key=lambda path: path.stat().st_mtime)
    events = map(json.loads, newest.read_text(encoding="utf-8").splitlines())
    return {event["step"]: event["eval_reward"] for event in events if event["kind"] == "eval"}


def draw(curves: dict[str, dict[str, list[dict[int, float]]]]) -> str:
    """Draw each seed thinly and their mean boldly, a panel a task."""
    width, height, left, top = 300, 180, 46, 34
    parts = []
    for panel, (task, methods) in enumerate(curves.items()):
        x0, last = left + panel * (width + 60), max(step for runs in methods.values() for step in runs[0])

        def place(step: float, share: float, x0: int = x0, last: int = last) -> str:
            return f"{x0 + step / last * width:.1f},{top + (1 - share) * height:.1f}"

        parts.append(f'<text x="{x0}" y="{top - 14}" font-weight="bold">{task}</text>')
        for tick in (0, 0.25, 0.5, 0.75, 1):
            y = top + (1 - tick) * height
            parts.append(f'<path d="M{x0} {y}h{width}" stroke="#d4d4d4"/>')
            parts.append(f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        for step in range(0, last + 1, 20):
            x = x0 + step / last * width
            parts.append(f'<text x="{x:.1f}" y="{top + height + 16}" text-anchor="middle">{step}</text>')
        for method, runs in methods.items():
            mean = {step: fmean(run[step] for run in runs) for step in runs[0]}
            for run, stroke in [*((run, 0.8) for run in runs), (mean, 2.6)]:
                points = " ".join(place(step, share) for step, share in run.items())
                line = f'<polyline points="{points}" fill="none" stroke="{COLOURS[method]}" stroke-width="{stroke}"/>'
                parts.append(line)
    for index, (method, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{left + 60 * index}" y="{top + height + 40}" fill="{colour}">{method}</text>')
    parts.append(f'<text x="{left + 140}" y="{top + height + 40}">share of right answers by step; bold: mean</text>')
    body = "\n".join(parts)
    size = f'width="{left + len(curves) * (width + 60)}" height="{top + height + 54}"'
    style = 'font-family="sans-serif" font-size="11" fill="#171717"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<rect width="100%" height="100%" fill="white"/>'
    return f"{head}\n<g {style}>\n{body}\n</g>\n</svg>\n"


def main() -> None:
    """Run, write the numbers, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=FOLDER / "runs")
    options = parser.parse_args()
    curves: dict[str, dict[str, list[dict[int, float]]]] = {}
    for task, changes in TASKS.items():
        for method in COLOURS:
            for seed in options.seeds:
                found = curve(options.runs, method, seed, changes)
                curves.setdefault(task, {}).setdefault(method, []).append(found)
                print(
                    f"{task:13} {method} seed {seed}: {' '.join(f'{share:.2f}' for share in found.values())}",
                    flush=True,
                )
    (FOLDER / "curves.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")
    (FOLDER / "curves.svg").write_text(draw(curves), encoding="utf-8")


if __name__ == "__main__":
    main()
