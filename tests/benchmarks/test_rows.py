"""The benchmark of making rows runs, and measures whole processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.tiny import make_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_cost_of_rows_is_measured_beside_the_tokenizer_alone(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", layers=1, hidden=8)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}), encoding="utf-8")
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "rows.py"),
        "--rows",
        "20",
        "--rounds",
        "1",
        "--model",
        str(model),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    alone, ours = (line.split("|") for line in done.stdout.splitlines()[2:])
    assert alone[1].strip() == "tokenizer alone"
    assert ours[1].strip() == "forge data"
    assert float(alone[2].split()[0]) > 0.5  # importing transformers alone takes more
    assert float(ours[3]) > 0.5
