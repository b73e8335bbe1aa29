"""forge against plain TRL scripts for every method beside SFT: the same losses, gradients and weights.

    python benchmarks/method_parity.py [--methods dpo kto …] [--steps 4] [--model FOLDER | --tiny] [--full]

Each side runs in a fresh process on the same rows, model and seed; ``plain_methods.py`` is the other side. The losses
of all steps must agree (1e-6); what does not is named, and the exit code is 1. Speeds are not compared here: see
``trl_parity.py``. ``methods.json`` and ``methods.md`` hold the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
from trl_parity import LINEAR, MOST_LOSS, QUICKSTART, spawn, tiny_model, weights_equal

HERE = Path(__file__).resolve().parent
METHODS = ("dpo", "kto", "orpo", "cpo", "reward", "grpo", "rloo", "distill")
NAMES = ("Peru", "Estonia", "Kuwait", "Rwanda", "Japan", "Saint Kitts and Nevis", "Chad", "Nepal", "Fiji")


# TRL's experimental trainers (orpo, cpo) put a BOS before every prompt and an EOS behind every answer that does not end
# with one, a line break after it or not. forge trains on what the template writes, so the two are compared where it
# leaves them nothing to add.
PLAIN_END = """
import sys
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
tokenizer.bos_token = None
tokenizer.chat_template = tokenizer.chat_template.replace("'<|im_end|>' + '\\n'", "'<|im_end|>'")
tokenizer.save_pretrained(sys.argv[1])
"""


def rows(method: str, count: int = 32) -> list[dict[str, Any]]:
    """Return conversational rows of the kind that a method takes."""
    made: list[dict[str, Any]] = []
    for number in range(count):
        name = NAMES[number % len(NAMES)]
        prompt = [{"role": "user", "content": f"Give the country card of {name}, number {number}."}]
        card = [{"role": "assistant", "content": json.dumps({"country": name, "number": number})}]
        prose = [{"role": "assistant", "content": f"{name} is a country. " * (1 + number % 3)}]
        if method in {"grpo", "rloo", "distill"}:
            made.append({"prompt": prompt})
        elif method == "kto":
            made.append({"prompt": prompt, "completion": prose if number % 2 else card, "label": not number % 2})
        else:
            made.append({"prompt": prompt, "chosen": card, "rejected": prose})
    return made


def arguments(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the trainer's arguments that both sides get."""
    common = {
        "max_steps": options.steps, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4, "lr_scheduler_type": "linear", "seed": 42, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "gradient_checkpointing": False, "bf16": False, "use_cpu": True,
    }  # fmt: skip
    if method in {"grpo", "rloo"}:
        return {**common, "num_generations": 4, "max_completion_length": options.answer, "beta": 0.05}
    return {**common, "max_completion_length": options.answer} if method == "distill" else common


def run_trl(method: str, out: Path, model: Path, data: Path, options: argparse.Namespace, environment: Any) -> Any:
    """Train with the plain script and return its logged steps and weights."""
    values = arguments(method, options)
    if method not in {"grpo", "rloo", "distill"}:
        values["max_length"] = 256
    config = {"method": method, "model": str(model), "data": str(data), "out": str(out), "teacher": str(model),
              "dtype": "float32", "args": values, "lora": None if options.full else lora(options)}  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    spawn([sys.executable, str(HERE / "plain_methods.py"), str(out / "config.json")], out / "log.txt", environment)
    return json.loads((out / "result.json").read_text(encoding="utf-8"))["steps"], out / "weights"


def run_forge(method: str, out: Path, model: Path, data: Path, options: argparse.Namespace, environment: Any) -> Any:
    """Train with ``forge run`` and return its logged steps and weights."""
    job: dict[str, Any] = {
        "name": "parity",
        "model": {"id": str(model), "max_seq_length": 256, "dtype": "float32"},
        "adapter": {"type": "none"} if options.full else {"type": "lora", **lora(options)},
        "data": {"path": str(data)},
        "train": {"method": method, **arguments(method, options)},
    }
    if method in {"grpo", "rloo"}:
        job["train"]["reward"] = [{"use": f"{HERE / 'plain_methods.py'}:by_length"}]
    if method == "distill":
        job["train"]["teacher_model_name_or_path"] = str(model)
    path = out / "job.toml"
    path.write_text(tomli_w.dumps(job), encoding="utf-8")
    spawn(
        [sys.executable, "-m", "forge", "run", str(path), "--runs-dir", str(out / "runs")], out / "log.txt", environment
    )
    folder = next((out / "runs" / "parity").iterdir())
    events = map(json.loads, (folder / "events.jsonl").read_text(encoding="utf-8").splitlines())
    steps = [event for event in events if event["kind"] == "step"]
    return steps, folder / ("model" if options.full else "adapter")


def lora(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keys of LoRA that both sides get."""
    return {"r": 8, "lora_alpha": 16, "lora_dropout": options.dropout, "target_modules": LINEAR}


def main() -> int:
    """Run both sides of each method and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, default=QUICKSTART / "model", help="folder of the model")
    model.add_argument("--tiny", action="store_true", help="a random tiny model instead")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--answer", type=int, default=16, help="longest answer of online methods, in tokens")
    parser.add_argument("--dropout", type=float, default=0.0, help="LoRA dropout")
    parser.add_argument("--full", action="store_true", help="train every weight instead of LoRA")
    parser.add_argument("--out", type=Path, default=None, help="folder for methods.json and methods.md")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="method-parity-"))
    out = options.out or work
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
    folder = tiny_model(work / "model", environment) if options.tiny else options.model.resolve()
    if options.tiny:
        spawn([sys.executable, "-c", PLAIN_END, str(folder)], work / "tokenizer.log", environment)
    found: dict[str, Any] = {}
    for method in options.methods:
        data = work / f"{method}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows(method)), encoding="utf-8")
        sides = {}
        for name, run in (("forge", run_forge), ("trl", run_trl)):
            place = work / f"{method}-{name}"
            place.mkdir()
            sides[name] = run(method, place, folder, data, options, environment)
        (ours, mine), (theirs, other) = sides["forge"], sides["trl"]
        found[method] = {
            "losses": [[step["loss"] for step in steps] for steps in (ours, theirs)],
            "loss_difference": max(abs(one["loss"] - two["loss"]) for one, two in zip(ours, theirs, strict=True)),
            "gradient_difference": max(
                abs(one["grad_norm"] - two["grad_norm"]) for one, two in zip(ours, theirs, strict=True)
            ),
            "weights_equal": weights_equal(mine, other),
        }
        print(f"{method}: {found[method]}", flush=True)
        (out / "methods.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("trl", "transformers", "peft", "torch"))
    what = f"{'a random tiny model' if options.tiny else folder.name}, {'every weight' if options.full else 'LoRA'}"
    text = "\n".join(
        [
            f"`python benchmarks/method_parity.py {' '.join(sys.argv[1:])}`",
            "",
            f"{what}, {options.steps} steps; {libraries}",
            "",
            "| method | first loss | last loss | largest loss difference | largest gradient difference | weights |",
            "|---|---|---|---|---|---|",
            *(
                f"| {method} | {each['losses'][0][0]:.6f} | {each['losses'][0][-1]:.6f} "
                f"| {each['loss_difference']:.1e} | {each['gradient_difference']:.1e} "
                f"| {'identical' if each['weights_equal'] else 'not identical'} |"
                for method, each in found.items()
            ),
        ]
    )
    (out / "methods.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")
    apart = [method for method, each in found.items() if not each["loss_difference"] <= MOST_LOSS]
    print(f"\n{'apart: ' + ', '.join(apart) if apart else 'every method is level with plain TRL'}")
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
