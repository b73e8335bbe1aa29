"""dpo, kto and grpo on one GPU: forge on Unsloth, forge on huggingface, and plain TRL, from the same files.

    python benchmarks/gpu_methods.py [--shape 1b] [--methods dpo kto grpo] [--out FOLDER] [--work FOLDER]

Needs what ``gpu.py`` needs. Random weights in the shape of a Llama of one billion parameters, LoRA r 16 on all seven
projections, 16 bit, gradient checkpointing; 8 rows of about 400 tokens, and for grpo 8 answers of 128 tokens. Every run
is a process of its own, one after another. Step time: the median after the warm steps. Memory: the most that torch
held. ``methods.json`` and ``methods.md`` hold the result, with the classes that really trained.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rig.forge import PROJECTIONS, events, failure, forge, job
from rig.models import SEED, make_model, words

HERE = Path(__file__).resolve().parent
SIDES = ("trl", "forge-huggingface", "forge-unsloth")
WARM, BATCH, ANSWER = 4, 8, 128


def write_rows(folder: Path, prompt_words: int = 60, answer_words: int = 100) -> None:
    """Write rows for each method: prompts of about 150 tokens and answers of about 250, or of other lengths."""
    rng = random.Random(2)
    made: dict[str, list[dict[str, Any]]] = {"dpo": [], "kto": [], "grpo": []}
    for number in range(128):
        prompt = [{"role": "user", "content": " ".join(words(rng, prompt_words))}]
        answers = [[{"role": "assistant", "content": " ".join(words(rng, answer_words))}] for _ in range(2)]
        made["dpo"].append({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
        made["kto"].append({"prompt": prompt, "completion": answers[0], "label": bool(number % 2)})
        made["grpo"].append({"prompt": prompt})
    for method, rows in made.items():
        (folder / f"{method}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def arguments(method: str, steps: int) -> dict[str, Any]:
    """Return the trainer's arguments that all sides get."""
    common = {
        "max_steps": steps, "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 1,
        "learning_rate": 1e-5, "lr_scheduler_type": "constant", "seed": SEED, "logging_steps": 1, "save_strategy": "no",
        "gradient_checkpointing": True, "optim": "adamw_torch_fused",
    }  # fmt: skip
    # Every answer is as long as it may be, so that all sides do the same work.
    online = {"num_generations": 8, "max_completion_length": ANSWER, "generation_kwargs": {"min_new_tokens": ANSWER}}
    return {**common, **online} if method == "grpo" else common


def run_trl(method: str, place: Path, model: Path, rows: Path, steps: int) -> dict[str, Any]:
    """Train with the plain script."""
    values = {**arguments(method, steps), "bf16": True, "report_to": "none"}
    if method != "grpo":
        values["max_length"] = 1024
    lora = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": PROJECTIONS}
    config = {"method": method, "model": str(model), "data": str(rows), "out": str(place), "dtype": "bfloat16",
              "args": values, "lora": lora}  # fmt: skip
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with (place / "log.txt").open("w", encoding="utf-8") as file:
        command = [sys.executable, str(HERE / "plain_methods.py"), str(place / "config.json")]
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        return {"error": (place / "log.txt").read_text(encoding="utf-8")[-1500:], "steps": []}
    return {"steps": json.loads((place / "result.json").read_text(encoding="utf-8"))["steps"]}


def run_forge(method: str, place: Path, model: Path, rows: Path, steps: int, backend: str) -> dict[str, Any]:
    """Train with ``forge run``."""
    train = {"method": method, **arguments(method, steps)}
    if method == "grpo":
        train["reward"] = [{"use": f"{HERE / 'plain_methods.py'}:by_length"}]
    job(place, model, rows, backend, model={"max_seq_length": 1024}, train=train)
    process = forge("run", "job.toml", folder=place)
    trainer = next(iter(events(place, "trainer")), {})
    kept = {key: trainer.get(key) for key in ("trainer", "config", "attention", "patched", "dtypes")}
    return {
        "error": failure(place) if process.returncode else None,
        "steps": events(place, "step"),
        "trainer": kept,
        "estimate": next(iter(events(place, "probe")), {}).get("memory"),
    }


def measured(found: dict[str, Any]) -> dict[str, Any]:
    """Return step time, memory and losses of a run."""
    steps = found.pop("steps")
    if len(steps) > WARM + 1:
        times = [step["time"] for step in steps][WARM - 1 :]
        found["seconds"] = round(statistics.median(after - before for before, after in itertools.pairwise(times)), 4)
        found["peak_gib"] = round(max(step["memory"] for step in steps) / 2**30, 2)
    return {**found, "losses": [step["loss"] for step in steps]}


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| method | side | s/step | against TRL | peak GiB | first loss | trainer |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = {each["method"]: each.get("seconds") for each in results if each["side"] == "trl"}
    for each in results:
        seconds, theirs = each.get("seconds"), plain.get(each["method"])
        pace = f"{theirs / seconds:.2f}x" if seconds and theirs else ""
        first = f"{each['losses'][0]:.5f}" if each["losses"] else each.get("error", "")
        name = (each.get("trainer") or {}).get("trainer", "trl's")
        lines.append(
            f"| {each['method']} | {each['side']} | {seconds} | {pace} | {each.get('peak_gib')} | {first} | {name} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run all sides of each method and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="1b", choices=["small", "1b", "8b"])
    parser.add_argument("--methods", nargs="+", default=["dpo", "kto", "grpo"], choices=["dpo", "kto", "grpo"])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--model", type=Path, default=None, help="a model that rig.models.make_model has made already")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="gpu-methods-"))
    out = options.out or work
    for folder in (work, out):
        folder.mkdir(parents=True, exist_ok=True)
    model = options.model or work / options.shape
    if not (model / "config.json").exists():
        make_model(model, options.shape)
    write_rows(work)
    results: list[dict[str, Any]] = []
    for method in options.methods:
        for side in options.sides:
            place = work / f"{method}-{side}"
            place.mkdir()
            began = time.time()
            rows = work / f"{method}.jsonl"
            if side == "trl":
                found = run_trl(method, place, model, rows, options.steps)
            else:
                found = run_forge(method, place, model, rows, options.steps, side.removeprefix("forge-"))
            results.append({"method": method, "side": side, **measured(found), "whole": round(time.time() - began, 1)})
            print(json.dumps(results[-1]), flush=True)
            (out / "methods.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
            (out / "methods.md").write_text(table(results) + "\n", encoding="utf-8")
    print(table(results))
    return 1 if any(each.get("error") for each in results) else 0


if __name__ == "__main__":
    sys.exit(main())
