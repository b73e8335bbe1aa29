"""Merged exports: in which type they come out, and how large they are.

    python benchmarks/exports.py [--out FOLDER] [--work FOLDER]

LoRA and every weight, on a base in 32 and in 16 bit, as a CPU's and as a GPU's plan decide it; a random model of 27 M
parameters, two steps each, on the processor. What a GPU's plan decides (``FORGE_MACHINE``) is set in the job, so the
types and sizes are those of a GPU, though nothing was computed on one. ``exports.md`` and ``exports.json`` hold what
came out. It exits with 1 if an export failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rig.forge import events, failure, forge, job
from rig.models import build, words

FULL = {"type": "none", "r": None, "lora_alpha": None, "target_modules": None}
MACHINES = {"CPU": "linux-cpu", "GPU": "linux-h100"}
DECIDED = ("model.dtype", "train.bf16")
MEBI = 2**20


def main() -> None:
    """Make the exports and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="where exports.md and exports.json go")
    parser.add_argument("--work", type=Path, help="where models and runs go; default a folder that is removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        rows = write_rows(work)
        bases = {"bfloat16": build(work, "small"), "float32": in_32_bit(work)}
        found = [
            exported(work, base, rows, dtype, trained, machine, wish)
            for dtype, base in bases.items()
            for trained in ("LoRA", "all weights")
            for machine in MACHINES
            for wish in (("auto", "float32") if (dtype, trained, machine) == ("bfloat16", "LoRA", "GPU") else ("auto",))
        ]
    text = table(found)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "exports.md").write_text(f"{text}\n", encoding="utf-8")
        (options.out / "exports.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    if any(each["failure"] for each in found):
        raise SystemExit(1)


def write_rows(work: Path) -> Path:
    """Write a few short conversations."""
    rng, path = random.Random(1), work / "rows.jsonl"
    turns = [[" ".join(words(rng, 12)) for _ in range(2)] for _ in range(8)]
    asked = [[{"role": "user", "content": one}, {"role": "assistant", "content": two}] for one, two in turns]
    path.write_text("".join(json.dumps({"messages": each}) + "\n" for each in asked), encoding="utf-8")
    return path


def in_32_bit(work: Path) -> Path:
    """Return the same model, stored in float32."""
    folder = work / "small-float32"
    if not (folder / "config.json").exists():
        code = (
            "import sys, torch; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
            "M.from_pretrained(sys.argv[1], dtype=torch.float32).save_pretrained(sys.argv[2])\n"
            "T.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", code, str(work / "small"), str(folder)], check=True)
    return folder


def exported(work: Path, base: Path, rows: Path, dtype: str, trained: str, machine: str, wish: str) -> dict[str, Any]:
    """Train and export, and return what there is then."""
    folder = work / f"{dtype}-{trained.replace(' ', '-')}-{machine}-{wish}"
    told: dict[str, Any] = {
        "train": {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_checkpointing": False},
        "model": {"max_seq_length": 256},
        "export": [{"format": "merged"} | ({"dtype": wish} if wish != "auto" else {})],
    }
    if trained == "all weights":
        told["adapter"] = FULL
    path = job(folder, base, rows, "huggingface", **told)
    values = decided(path, MACHINES[machine])
    changes = [f"--set={key}={json.dumps(values[key]).strip(chr(34))}" for key in DECIDED if key in values]
    forge("run", str(path), *changes, folder=folder)
    out = next(folder.glob("runs/*/*/exports/1-merged"), folder)
    config = out / "config.json"
    loaded = events(folder, "loaded")
    report = json.loads((out / "export.json").read_text(encoding="utf-8"))["report"] if config.exists() else {}
    return {
        "base": dtype,
        "trained": trained,
        "machine": machine,
        "asked": wish,
        "in training": loaded[-1]["dtype"] if loaded else None,
        "base MiB": size(base),
        "export": json.loads(config.read_text(encoding="utf-8"))["dtype"] if config.exists() else None,
        "export MiB": size(out),
        "off": report.get("error"),
        "limit": report.get("limit"),
        "failure": failure(folder),
    }


def decided(path: Path, machine: str) -> dict[str, Any]:
    """Return what a machine's plan decides."""
    done = subprocess.run(
        [sys.executable, "-m", "forge", "plan", str(path), "--json"],
        env={**os.environ, "FORGE_MACHINE": machine},
        capture_output=True,
        text=True,
        check=True,
    )
    return {each["key"]: each["value"] for each in json.loads(done.stdout)["decisions"]}


def size(folder: Path) -> float:
    """Return the size of a folder's weights in MiB."""
    return round(sum(path.stat().st_size for path in folder.glob("*.safetensors")) / MEBI, 1)


def table(found: list[dict[str, Any]]) -> str:
    """Return what came out as a table."""
    names = [
        "base",
        "trained",
        "plan of a",
        "in training",
        "`dtype`",
        "base, MiB",
        "export",
        "export, MiB",
        "logits off",
    ]
    lines = [names, ["---"] * len(names)]
    for each in found:
        off = "a copy" if each["off"] is None else f"{each['off']:.1e} (limit {each['limit']:.0e})"
        cells = [each[key] for key in ("base", "trained", "machine", "in training")]
        cells += [f'`"{each["asked"]}"`', each["base MiB"], each["export"], each["export MiB"]]
        lines.append([*map(str, cells), each["failure"] or off])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
