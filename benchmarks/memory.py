"""The estimate of memory against what torch measures on a GPU: models of 1B and 8B, adapters and every weight.

    python benchmarks/memory.py [--out FOLDER] [--work FOLDER] [--at-once 4]
    python benchmarks/memory.py --methods            # the other training methods, 1B

Needs what ``benchmarks/gpu.py`` needs, and uses its models of random weights. Each case is a ``forge run --dry-run`` in
a process of its own: forge loads the model, tries the longest batch forward and backward with the optimizer's memory
taken, and reports ``torch.cuda.max_memory_allocated`` beside the estimate for the rows that were really there. Nothing
is timed, so several run side by side; the peak is each process's own. A method's case also runs for three steps, since
a dry run writes no answers, and the higher of the two peaks counts. ``memory.json`` and ``memory.md`` hold the result.

It exits with 1 if an estimate is more than 15 % off, or a case failed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

from gpu_methods import write_rows
from rig.forge import events, failure, forge, job
from rig.models import build, words
from rig.tables import about, heading

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 0.15
GIB = 2**30
MODES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "LoRA": {},
    "LoRA, no checkpointing": {"train": {"gradient_checkpointing": False}},
    "LoRA, every second layer": {"train": {"gradient_checkpointing_kwargs": {"every_n_layers": 2}}},
    "LoRA, every fourth layer": {"train": {"gradient_checkpointing_kwargs": {"every_n_layers": 4}}},
    "QLoRA": {"model": {"load_in_4bit": True}},
    "full": {
        "adapter": {"type": "none", "r": None, "lora_alpha": None, "target_modules": None},
        "train": {"learning_rate": 2e-5},
    },
}
CASES: Mapping[str, tuple[str, ...]] = {
    "1b": ("LoRA", "LoRA, no checkpointing", "LoRA, every second layer", "LoRA, every fourth layer", "QLoRA", "full"),
    "8b": ("LoRA", "LoRA, every second layer", "QLoRA"),
    "small": ("LoRA", "LoRA, no checkpointing", "LoRA, every second layer", "full"),
}
"""Models, and how they are trained; ``small`` is for a look at the script itself, on a CPU too."""

LENGTHS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "1b": ((8, 512), (2, 4096)),
    "8b": ((4, 512), (1, 4096)),
    "small": ((2, 64),),
}
"""Rows of a batch and tokens of each."""


METHODS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "dpo": (("LoRA", "huggingface"), ("full", "huggingface"), ("LoRA", "unsloth")),
    "kto": (("LoRA", "huggingface"), ("LoRA", "unsloth")),
    "orpo": (("LoRA", "huggingface"),),
    "cpo": (("LoRA", "huggingface"),),
    "reward": (("LoRA", "huggingface"), ("full", "huggingface")),
    "grpo": (("LoRA", "huggingface"), ("full", "huggingface"), ("LoRA", "unsloth")),
    "rloo": (("LoRA", "huggingface"),),
}
"""Methods, and how and where they are trained; rows have about ``METHOD_LENGTH`` tokens, and no more."""

METHOD_LENGTH, METHOD_ROWS, ANSWER = 1024, 4, 256


def make_rows(folder: Path, length: int) -> Path:
    """Write rows that fill ``length`` tokens, and return the file."""
    path, rng = folder / f"rows-{length}.jsonl", random.Random(length)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(16):
            file.write(json.dumps({"text": " ".join(words(rng, 2 * length))}) + "\n")
    return path


def dry_run(place: Path) -> dict[str, Any]:
    """Do a dry run of the job in a folder and return what it estimated and measured, in bytes, or its error."""
    began = time.time()
    forge("run", "job.toml", "--dry-run", folder=place)
    event, error = next(iter(events(place, "dry-run")), None), failure(place)
    if event is None or event.get("estimate") is None or error:
        return {"error": error or "there was no estimate", "seconds": round(time.time() - began, 1)}
    estimate, measured = event["estimate"], event["measured"]
    on_gpu = measured["moving"] is not None
    return {
        # Without a GPU the peak is the process's, and the probe takes no memory in the optimizer's place.
        "estimated": estimate["peak"] if on_gpu else estimate["process"] - measured["optimizer"],
        "measured": measured["peak"],
        "reserved": measured["reserved"],
        "parts": {part["name"]: part["bytes"] for part in estimate["parts"]},
        "counted": {name: measured[name] for name in ("weights", "gradients", "optimizer", "moving")},
        "length": event["longest"],
        "seconds": round(time.time() - began, 1),
    }


def case(work: Path, models: Path, size: str, mode: str, backend: str, rows: int, length: int) -> dict[str, Any]:
    """Do one dry run of sft and return its figures."""
    place = work / f"{size}-{mode.replace(', ', '-').replace(' ', '-')}-{backend}-{length}"
    changes = {name: dict(table) for name, table in MODES[mode].items()}
    changes["model"] = {"max_seq_length": length} | changes.get("model", {})
    changes["train"] = {"max_steps": 2, "per_device_train_batch_size": rows} | changes.get("train", {})
    job(place, models / size, work / f"rows-{length}.jsonl", backend, **changes)
    about = {"model": size, "mode": mode, "backend": backend, "rows": rows, "length": length}
    return about | dry_run(place)


def method_case(work: Path, model: Path, method: str, mode: str, backend: str) -> dict[str, Any]:
    """Do a dry run and three steps of a method, and return their figures; what is measured is the higher peak."""
    online = method in {"grpo", "rloo"}
    place = work / f"{method}-{mode}-{backend}"
    changes = {name: dict(table) for name, table in MODES[mode].items()}
    train: dict[str, Any] = {"method": method, "max_steps": 3, "per_device_train_batch_size": METHOD_ROWS}
    train["gradient_accumulation_steps"] = 1
    if online:
        train |= {"num_generations": METHOD_ROWS, "max_completion_length": ANSWER}
        train |= {"generation_kwargs": {"min_new_tokens": ANSWER}}
        train["reward"] = [{"use": f"{Path(__file__).parent / 'plain_methods.py'}:by_length"}]
    changes["train"] = train | changes.get("train", {})
    changes["model"] = {"max_seq_length": METHOD_LENGTH}
    rows = work / f"{'grpo' if online else 'kto' if method == 'kto' else 'dpo'}.jsonl"
    job(place, model, rows, backend, **changes)
    about = {"model": f"{model.name} {method}", "mode": mode, "backend": backend, "rows": METHOD_ROWS}
    found = about | {"length": METHOD_LENGTH} | dry_run(place)
    if "error" in found:
        return found
    forge("run", "job.toml", folder=place)
    if error := failure(place):
        return found | {"error": error}
    steps = max(step["memory"] for step in events(place, "step"))
    return found | {"probe": found["measured"], "steps": steps, "measured": max(found["measured"], steps)}


def table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        *heading(results["about"]),
        "",
        "| model | training | backend | rows x tokens | weights, adapter GiB | estimated GiB | measured GiB | ratio | "
        "reserved GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in results["cases"]:
        head = f"| {run['model']} | {run['mode']} | {run['backend']} | {run['rows']} x {run['length']} |"
        if "error" in run:
            lines.append(f"{head} failed: {' '.join(run['error'].split())[:200]} | | | | |")
            continue
        expected = run["parts"]["weights"] + (run["parts"].get("adapter") or 0)
        reserved = f"{run['reserved'] / GIB:.2f}" if run["reserved"] else ""
        lines.append(
            f"{head} {expected / GIB:.2f} ({run['counted']['weights'] / GIB:.2f} measured) | "
            f"{run['estimated'] / GIB:.2f} | {run['measured'] / GIB:.2f} | "
            f"{run['estimated'] / run['measured']:.3f} | {reserved} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the cases, the largest first, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["8b", "1b"], choices=list(CASES))
    parser.add_argument("--backends", nargs="+", default=["unsloth", "huggingface"])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), help="the other methods, or some of them")
    parser.add_argument("--model", default="1b", choices=["1b", "small"], help="the model of --methods")
    parser.add_argument("--words", nargs=2, type=int, default=[100, 200], help="of a prompt and of an answer, there")
    parser.add_argument("--out", type=Path, default=Path("memory-results"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/forge-gpu"))
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    work, models = options.work / f"memory-{time.strftime('%H%M%S')}", options.work / "models"
    for folder in (work, models, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    began = time.time()
    results: dict[str, Any] = {
        "about": about() | {"command": " ".join(["python", "benchmarks/memory.py", *sys.argv[1:]])}
    }
    by_method = options.methods is not None
    for size in [options.model] if by_method else options.sizes:
        build(models, size)
        for _, length in LENGTHS[size]:
            make_rows(work, length)
    tasks: list[tuple[Any, ...]] = [
        (size, mode, backend, rows, length)
        for size in options.sizes
        for (rows, length), mode, backend in product(reversed(LENGTHS[size]), CASES[size], options.backends)
        if mode in options.modes and (backend == "huggingface" or "every" not in mode)  # Unsloth has no such choice
    ]
    if by_method:
        write_rows(work, *options.words)
        tasks = [
            (method, mode, backend)
            for method in options.methods or METHODS
            for mode, backend in METHODS[method]
            if backend in options.backends and mode in options.modes
        ]

    def measure(task: tuple[Any, ...]) -> dict[str, Any]:
        return method_case(work, models / options.model, *task) if by_method else case(work, models, *task)

    cases: list[dict[str, Any]] = []
    results["cases"] = cases
    with ThreadPoolExecutor(options.at_once) as pool:
        for found in pool.map(measure, tasks):
            cases.append(found)
            print(json.dumps({key: found[key] for key in found if key not in {"parts", "counted"}}), flush=True)
            results["seconds"] = round(time.time() - began, 1)
            (options.out / "memory.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
            (options.out / "memory.md").write_text(table(results), encoding="utf-8")
    print((options.out / "memory.md").read_text(encoding="utf-8"), f"{results['seconds']} s")
    good = [abs(run["estimated"] / run["measured"] - 1) <= LIMIT for run in cases if "error" not in run]
    return 0 if len(good) == len(cases) and all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
