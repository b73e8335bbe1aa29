"""The report: what was measured as Markdown, and on what."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from rig.compare import compared
from rig.models import LENGTH
from rig.runs import TIMED, difference

if TYPE_CHECKING:
    from collections.abc import Mapping


LIBRARIES = ("forge-train", "unsloth", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")


def heading(about: Mapping[str, Any]) -> list[str]:
    """Return what every table begins with: the command, and on what it ran."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return [f"`{about['command']}`", "", f"{about['gpu']}; {versions}; Python {about['python']}; {about['date']}"]


def table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = heading(results["about"])
    runs = {(run["part"], run["bits"], run["side"]): run for run in results.get("timed", [])}
    if runs:
        lines += ["", "| model, batch | side | tokens/s | against plain | peak GiB | start-up s | loss 1 | last loss |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for (part, bits, side), run in runs.items():
            if "tokens_per_second" not in run:
                lines.append(f"| {part}, {bits} bit | {side} | failed | | | | | |")
                continue
            base = runs.get((part, bits, {"forge-unsloth": "unsloth", "forge-huggingface": "trl"}.get(side, "")))
            ratio = ""
            if base and "tokens_per_second" in base:
                ratio = f"{run['tokens_per_second'] / base['tokens_per_second']:.3f}"
            lines.append(
                f"| {part}, {TIMED[part]['batch']} x {LENGTH}, {bits} bit | {side} | {run['tokens_per_second']:,} | "
                f"{ratio} | {run['peak_gib']:.2f} | {run['startup']:.1f} | {run['losses'][0]:.4f} | "
                f"{run['losses'][-1]:.4f} |"
            )
        lines += parity(runs)
    if results.get("compared"):
        lines += compared(results["compared"])
    for name in ("variants", "families"):
        if results.get(name):
            lines += ["", f"| {name} | trained | rows | first loss, rel. | mean | max | fall | held out |"]
            lines += ["|---|---|---|---|---|---|---|---|"]
            lines += [_row(entry) for entry in results[name]]
    for name in ("resume", "merged"):
        if results.get(name):
            lines += ["", f"{name}: `{json.dumps(results[name])}`"]
    return "\n".join(lines) + "\n"


def parity(runs: Mapping[tuple[str, int, str], Mapping[str, Any]]) -> list[str]:
    """Return the lines that compare forge's two backends with each other."""
    lines = ["", "| forge on Unsloth against forge on huggingface | rows | first loss, rel. | mean | max | steps |"]
    lines += ["|---|---|---|---|---|---|"]
    for part, bits in dict.fromkeys((part, bits) for part, bits, _ in runs):
        sides = [runs.get((part, bits, f"forge-{name}")) for name in ("unsloth", "huggingface")]
        if not all(side and side.get("data") for side in sides):
            continue
        ours, theirs = (dict(side or {}) for side in sides)
        found = difference(ours, theirs)
        if found:
            rows = "same digest" if found["same_digest"] else "OTHERS"
            lines.append(
                f"| {part}, {bits} bit | {rows} | {found['first']:.1e} | {found['mean']:.4f} | {found['max']:.4f} | "
                f"{found['steps'][0]} |"
            )
    return lines


def _row(entry: Mapping[str, Any]) -> str:
    if "mean" not in entry:
        return f"| {entry['variant']} | failed: {str(entry['error'])[:200]} | | | | | | |"
    ours, theirs = entry["trainable"]
    count = f"{ours:,}" if ours == theirs else f"{ours:,} / {theirs:,}"
    rows = "same" if entry["same_digest"] else "OTHERS"
    held = f"{entry['eval_max']:.4f}" if "eval_max" in entry else ""
    numbers = f"{entry['first']:.1e} | {entry['mean']:.4f} | {entry['max']:.4f} | {entry['fall']:.2f} | {held}"
    return f"| {entry['variant']} | {count} | {rows} | {numbers} |"


def about() -> dict[str, Any]:
    """Say what this was measured with."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    gpu = "no GPU"
    with contextlib.suppress(OSError):
        gpu = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip() or gpu
    return {
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "gpu": gpu,
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
