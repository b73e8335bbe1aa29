"""SDPO beside GRPO on one GPU: time of a step and peak memory, from jobs that differ in method and objective only.

    python benchmarks/sdpo.py [--parts 1b 8b] [--out FOLDER] [--work FOLDER]

Needs one NVIDIA GPU, forge with its extras ``huggingface`` and ``bitsandbytes``, and no network: models are random
weights in real shapes, whose answers never end by themselves, so that every answer has the same length.

- ``1b``: LoRA r 16 in 16 bit; ``grpo``, then ``sdpo`` with the 20 and 100 likeliest tokens and the whole vocabulary.
- ``8b``: QLoRA r 16 with the average of the adapter as the teacher: does it fit 15 GiB?

The reward differs between answers and always gives feedback, so every rollout has a teacher, the costliest case.
Time is TRL's ``step_time``, generation included, the median of the steps after the first. Memory is the most that torch
held.
``--tiny`` tries the plumbing on a CPU. ``results.json`` and ``table.md`` hold the result.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from rig.forge import events, failure, forge, job
from rig.models import make_model, words

REWARD = '''
def told(completions, completion_ids):
    """A number that differs between answers, and feedback on each."""
    return [{"score": sum(ids) % 7 / 7, "feedback": "It should be shorter. " * 12} for ids in completion_ids]
'''
METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"train": {"method": "grpo"}},
    "sdpo top 20": {"plugins": {"sdpo": {"distillation_topk": 20}}},
    "sdpo top 100": {"plugins": {"sdpo": {"distillation_topk": 100}}},
    "sdpo full": {"plugins": {"sdpo": {"objective": "full"}}},
}
PARTS: dict[str, dict[str, Any]] = {
    "1b": {"methods": list(METHODS), "steps": 5, "rows": 8, "answer": 256, "bits": 16},
    "8b": {"methods": ["sdpo top 100"], "steps": 3, "rows": 4, "answer": 256, "bits": 4},
    "tiny": {"methods": list(METHODS), "steps": 2, "rows": 4, "answer": 8, "bits": 16},
}
PROMPT = 96  # words


def make_prompts(work: Path) -> None:
    """Write prompts of about one length, and the reward."""
    rng = random.Random(2)
    with (work / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(64):
            text = " ".join(words(rng, PROMPT))
            file.write(json.dumps({"prompt": [{"role": "user", "content": text}]}) + "\n")
    (work / "rewards.py").write_text(REWARD, encoding="utf-8")


def measure(part: str, method: str, work: Path, models: Path) -> dict[str, Any]:
    """Run one job and return what it took."""
    setting, began = PARTS[part], time.time()
    place = work / f"{part}-{method.replace(' ', '-')}"
    train = {
        "method": "sdpo",
        "reward": [{"use": str(work / "rewards.py") + ":told"}],
        "max_steps": setting["steps"],
        "per_device_train_batch_size": setting["rows"],
        "num_generations": setting["rows"],
        "max_completion_length": setting["answer"],
    }
    plugins = {"sdpo": {"alpha": 0.5, "teacher": "ema", "feedback": "always"}}
    changes = METHODS[method]
    train |= changes.get("train", {})
    plugins["sdpo"] |= changes.get("plugins", {}).get("sdpo", {})
    model = {"load_in_4bit": True} if setting["bits"] == 4 else {}
    job(
        place, models / ("small" if part == "tiny" else part), work / "prompts.jsonl", "huggingface",
        model=model, train=train, plugins=plugins,
    )  # fmt: skip
    process = forge("run", "job.toml", folder=place)
    steps = events(place, "step")[1:]
    entry: dict[str, Any] = {"part": part, "method": method, "wall": round(time.time() - began, 1)}
    if process.returncode or not steps:
        return entry | {"error": failure(place) or "no step was logged"}
    return entry | {
        "seconds": statistics.median(step["step_time"] for step in steps),
        "memory": max((step["memory"] or 0) for step in steps) / 2**30,
        "answer": statistics.mean(step["completions/mean_length"] for step in steps),
        "taught": statistics.mean(step["sdpo/with_teacher"] for step in steps) if method != "grpo" else None,
        "losses": [step["loss"] for step in steps],
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as Markdown, with ratios to the part's GRPO."""
    lines = ["| part | method | seconds a step | over grpo | peak GiB | over grpo |", "| --- " * 6 + "|"]
    for entry in results:
        if "error" in entry:
            lines.append(f"| {entry['part']} | {entry['method']} | failed: {entry['error'].splitlines()[0]} | | | |")
            continue
        base = next(
            (e for e in results if e["part"] == entry["part"] and e["method"] == "grpo" and "error" not in e), None
        )
        ratios = [f"{entry[key] / base[key]:.3f}x" if base else "" for key in ("seconds", "memory")]
        lines.append(
            f"| {entry['part']} | {entry['method']} | {entry['seconds']:.3f} | {ratios[0]} | {entry['memory']:.2f} "
            f"| {ratios[1]} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the parts, and write the results after each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["1b", "8b"], choices=["1b", "8b"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], help="methods")
    parser.add_argument("--out", type=Path, default=Path("sdpo-results"))
    parser.add_argument("--work", type=Path, default=Path("sdpo-work"))
    options = parser.parse_args()
    work, models = options.work.resolve(), options.work.resolve() / "models"
    work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    make_prompts(work)
    results: list[dict[str, Any]] = []
    for part in ["tiny"] if options.tiny else options.parts:
        shape = "small" if part == "tiny" else part
        if not (models / shape).exists():
            make_model(models / shape, shape)
        for method in options.only or PARTS[part]["methods"]:
            results.append(measure(part, method, work, models))
            print(json.dumps(results[-1]), flush=True)
            (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            (options.out / "table.md").write_text(table(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
