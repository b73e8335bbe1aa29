"""Runs of forge: writing a job, starting it, and reading what happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from rig.models import LENGTH, RATE, SEED

if TYPE_CHECKING:
    from collections.abc import Mapping


PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def job(folder: Path, base: Path, rows: Path, backend: str, **changes: Mapping[str, Any]) -> Path:
    """Write a job file for the benchmark's training."""
    tables: dict[str, Any] = {
        "model": {"id": str(base), "max_seq_length": LENGTH},
        "adapter": {"r": 16, "lora_alpha": 16, "target_modules": PROJECTIONS},
        "data": {"path": str(rows)},
        "train": {
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "seed": SEED,
            "gradient_checkpointing": True,
        },
        "use": {"backend": backend},
    }
    for name, table in changes.items():
        tables[name] = table if isinstance(table, list) else {**tables.get(name, {}), **table}
        if isinstance(tables[name], dict):
            tables[name] = {key: value for key, value in tables[name].items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.toml"
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    return path


def forge(*arguments: str, folder: Path, wait: bool = True) -> subprocess.Popen[str]:
    """Start ``forge`` in a folder; its output goes to ``forge.txt`` there."""
    with (folder / "forge.txt").open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "forge", *arguments], cwd=folder, stdout=file, stderr=subprocess.STDOUT, text=True
        )
    if wait:
        process.wait()
    return process


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of a kind of the newest run below a folder."""
    paths = sorted(folder.glob("runs/*/*/events.jsonl"))
    lines = paths[-1].read_text(encoding="utf-8").splitlines() if paths else []
    # The last line may still be being written.
    return [event for event in (json.loads(line) for line in lines if line.endswith("}")) if event["kind"] == kind]


def failure(folder: Path) -> str | None:
    """Return why the newest run below a folder failed, or None."""
    failed = events(folder, "failed")
    if failed:
        return ": ".join(str(failed[-1]["error"][key]) for key in ("what", "why"))
    return None if events(folder, "done") else (folder / "forge.txt").read_text(encoding="utf-8")[-2000:]
